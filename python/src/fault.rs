//! Faults as Python exceptions.

use chatrex::error::FaultKind;
use chatrex::{ErrorCode, Fault};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The exception for a fault: what `chatrex._errors.of_json` makes of its JSON.
pub fn raised(py: Python<'_>, fault: &Fault) -> PyErr {
    static OF_JSON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let json = serde_json::to_string(fault).expect("plain data");
    let exception = OF_JSON
        .import(py, "chatrex._errors", "of_json")
        .and_then(|of_json| of_json.call1((json,)));
    match exception {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// A result with a fault as one with an exception.
///
/// # Errors
/// That of `result`.
pub fn or_raise<T>(py: Python<'_>, result: Result<T, Fault>) -> PyResult<T> {
    result.map_err(|fault| raised(py, &fault))
}

/// An option or argument that cannot be used.
pub fn invalid(place: &str, what: impl Into<String>, advice: &str) -> Fault {
    Fault::new(FaultKind::Question, place, what, advice).code(ErrorCode::InvalidInput)
}

/// Parses the JSON of an argument.
///
/// # Errors
/// It is not what is expected at `place`.
pub fn parsed<T: serde::de::DeserializeOwned>(place: &str, json: &str) -> Result<T, Fault> {
    serde_json::from_str(json)
        .map_err(|error| invalid(place, format!("cannot be used: {error}"), ""))
}

/// What a thread finds whose engine has ended by itself.
pub fn lost() -> Fault {
    Fault::new(
        FaultKind::Device,
        "Session",
        "its engine ended because of a defect of the program",
        "Open another Session; standard error has the details",
    )
    .code(ErrorCode::WorkerLost)
}

/// What a closed session answers.
pub fn closed() -> Fault {
    Fault::new(
        FaultKind::Device,
        "Session",
        "is closed",
        "Open another Session",
    )
    .code(ErrorCode::NotReady)
}

/// What a session answers in a process that did not open it.
pub fn forked(process: u32) -> Fault {
    Fault::new(
        FaultKind::Device,
        "Session",
        format!(
            "threads of process {process} are not in its copy, process {}",
            std::process::id()
        ),
        "Start processes with `spawn` or `forkserver`, and open a Session in each",
    )
    .code(ErrorCode::NotReady)
}

/// What a question about a picture answers that is not the current one any more.
pub fn replaced() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "picture",
        "is not the session's current one any more: another thread or a batch has looked at another picture since",
        "Look at it again, or use a Session or a lock per thread",
    )
    .code(ErrorCode::InUse)
}

/// The cause of a question whose answer was stopped before its picture was looked at.
pub fn cancelled() -> Fault {
    Fault::new(FaultKind::Question, "batch", "was stopped", "").code(ErrorCode::Cancelled)
}
