//! The one error type for everything that comes from outside: a picture, a file, the network,
//! the GPU, the user. A broken invariant between our own functions is a panic instead.

use std::any::Any;
use std::fmt::Display;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What failed, where, and what the user can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{place}: {what}{}{advice}", if advice.is_empty() { "" } else { ". " })]
pub struct Fault {
    /// The area it belongs to.
    pub kind: FaultKind,
    /// The cause. Programs decide by it; the sentences are for the user.
    #[serde(default)]
    pub code: ErrorCode,
    /// The file, tensor, argument or device concerned, by name.
    pub place: String,
    /// What is wrong, with the actual and the expected value where there are two.
    pub what: String,
    /// What the user can do; empty where there is nothing to do.
    pub advice: String,
}

/// The area a [`Fault`] belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// A picture that cannot be read or used.
    Picture,
    /// A question that cannot be asked.
    Question,
    /// A weight file, manifest or tokenizer that is missing, damaged or of another version.
    Model,
    /// A file that cannot be read or written.
    File,
    /// The network.
    Network,
    /// The GPU, or the worker that drives it.
    Device,
}

/// The cause of a [`Fault`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The cause is not known.
    #[default]
    Unknown,
    /// GPU or CPU memory does not suffice.
    OutOfMemory,
    /// The GPU was reset or removed.
    DeviceLost,
    /// The GPU failed in some other way.
    DeviceFailed,
    /// There is no usable GPU adapter.
    NoAdapter,
    /// The GPU driver does not compile a shader.
    ShaderRejected,
    /// The device computes wrong values.
    WrongResult,
    /// Data are damaged: a checksum, length or structure does not match.
    Corrupt,
    /// A file, model or address does not exist.
    NotFound,
    /// A version, format or feature is not supported.
    Unsupported,
    /// The user cancelled.
    Cancelled,
    /// The user's input cannot be used: a picture, a question, an option.
    InvalidInput,
    /// The browser or disk has no space left.
    Quota,
    /// Another tab or program holds the resource.
    InUse,
    /// A file cannot be read or written.
    Storage,
    /// The network or the server.
    Network,
    /// The rules of the page (its content security policy) forbid it.
    Forbidden,
    /// A request that needs something first, such as a model that is loaded.
    NotReady,
    /// Two parts of the program do not understand each other.
    Protocol,
    /// The worker stopped.
    WorkerLost,
}

impl ErrorCode {
    /// The cause as far as the message of a GPU driver or a browser tells it. These report a cause
    /// only as text, so it is classified here, once, where the message enters the program.
    pub fn from_platform_message(message: &str) -> Option<Self> {
        let message = message.to_lowercase();
        let holds = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if holds(&["memory"]) {
            Some(Self::OutOfMemory)
        } else if holds(&[
            "device is lost",
            "device was lost",
            "device lost",
            // cubecl's word for a device that was lost.
            "device is poisoned",
            // Chromium's, after its GPU process ended.
            "instance reference no longer exists",
        ]) {
            Some(Self::DeviceLost)
        } else {
            None
        }
    }

    /// The cause of a failed file operation.
    pub fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Quota,
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Storage,
        }
    }
}

impl FaultKind {
    /// The code of a fault of this kind whose cause is not narrowed down.
    fn default_code(self) -> ErrorCode {
        match self {
            Self::Picture | Self::Question => ErrorCode::InvalidInput,
            Self::Model => ErrorCode::Corrupt,
            Self::File => ErrorCode::Storage,
            Self::Network => ErrorCode::Network,
            Self::Device => ErrorCode::DeviceFailed,
        }
    }
}

impl Fault {
    /// A fault of `kind` at `place`: `what` is wrong, `advice` helps. The code is that of the kind
    /// until [`Fault::code`] narrows it down.
    pub fn new(
        kind: FaultKind,
        place: impl Into<String>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            code: kind.default_code(),
            place: place.into(),
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// The same fault with its cause.
    pub fn code(self, code: ErrorCode) -> Self {
        Self { code, ..self }
    }

    /// The same fault with the cause that the message of a GPU driver or a browser tells, if any.
    pub fn code_of(self, message: &str) -> Self {
        let code = ErrorCode::from_platform_message(message).unwrap_or(self.code);
        self.code(code)
    }

    /// A fault in a weight file, manifest or tokenizer.
    pub fn model(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(
            FaultKind::Model,
            place,
            what,
            "Fetch or convert the model again",
        )
    }

    /// A fault in a file on disk. The code is that of an [`io::Error`].
    pub fn file(place: impl AsRef<Path>, error: impl Display + 'static) -> Self {
        let cause = (&error as &dyn Any).downcast_ref::<io::Error>();
        let code = cause.map_or(ErrorCode::Storage, |error| ErrorCode::of_io(error.kind()));
        Self::new(
            FaultKind::File,
            place.as_ref().display().to_string(),
            error.to_string(),
            "",
        )
        .code(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_without_a_code_still_parses() {
        let json = r#"{"kind":"Device","place":"card","what":"is lost","advice":""}"#;
        let fault: Fault = serde_json::from_str(json).expect("the keys of before");
        assert_eq!(fault.code, ErrorCode::Unknown);
        let fault = fault.code(ErrorCode::DeviceLost);
        let json = serde_json::to_value(&fault).expect("plain data");
        assert_eq!(json["code"], "DeviceLost");
        assert_eq!(json["what"], "is lost");
        let back: Fault = serde_json::from_value(json).expect("its own JSON");
        assert_eq!(back, fault);
    }

    #[test]
    fn the_kind_gives_a_code_and_the_cause_narrows_it_down() {
        let cases = [
            (FaultKind::Picture, ErrorCode::InvalidInput),
            (FaultKind::Question, ErrorCode::InvalidInput),
            (FaultKind::Model, ErrorCode::Corrupt),
            (FaultKind::File, ErrorCode::Storage),
            (FaultKind::Network, ErrorCode::Network),
            (FaultKind::Device, ErrorCode::DeviceFailed),
        ];
        for (kind, code) in cases {
            let fault = Fault::new(kind, "place", "what", "");
            assert_eq!(fault.code, code, "{kind:?}");
            assert_eq!(fault.code(ErrorCode::Cancelled).code, ErrorCode::Cancelled);
        }
    }

    #[test]
    fn file_faults_carry_the_code_of_the_operation() {
        let cases = [
            (io::ErrorKind::NotFound, ErrorCode::NotFound),
            (io::ErrorKind::StorageFull, ErrorCode::Quota),
            (io::ErrorKind::PermissionDenied, ErrorCode::Storage),
        ];
        for (kind, code) in cases {
            let error = io::Error::new(kind, "refused");
            let fault = Fault::file("a/b", error);
            assert_eq!((fault.code, &*fault.what), (code, "refused"), "{kind:?}");
        }
        assert_eq!(Fault::file("a/b", "is missing").code, ErrorCode::Storage);
    }

    #[test]
    fn messages_of_drivers_and_browsers_are_classified() {
        let cases = [
            (
                "RangeError: WebAssembly.Memory(): could not allocate memory",
                Some(ErrorCode::OutOfMemory),
            ),
            ("Not enough memory left", Some(ErrorCode::OutOfMemory)),
            ("the parent Device is lost", Some(ErrorCode::DeviceLost)),
            ("The device is poisoned", Some(ErrorCode::DeviceLost)),
            ("unreachable executed", None),
        ];
        for (message, code) in cases {
            assert_eq!(ErrorCode::from_platform_message(message), code, "{message}");
            let fault = Fault::new(FaultKind::Device, "GPU", message, "").code_of(message);
            assert_eq!(
                fault.code,
                code.unwrap_or(ErrorCode::DeviceFailed),
                "{message}"
            );
        }
    }
}
