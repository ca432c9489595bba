//! Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::{ErrorCode, Fault, FaultKind};

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The cause, for programs.
    pub code: &'static str,
    /// The field of the request, as a path.
    pub param: Option<String>,
    /// What is wrong and what helps.
    pub message: String,
}

/// The code of the problem that a response tells, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Told(pub &'static str);

impl Problem {
    /// A problem without a field.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            param: None,
            message: message.into(),
        }
    }

    /// A request that cannot be used because of the field `param`.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message)
        }
    }

    /// The same problem with another code.
    #[must_use]
    pub fn code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// The queue is full.
    pub fn queue_full() -> Self {
        let message = "the queue is full. Try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    }

    /// The requests in progress hold all memory for bodies.
    pub fn busy() -> Self {
        let message = "the bodies of other requests fill the memory for them. Try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// The server is about to end.
    pub fn shutting_down() -> Self {
        let message = "the server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
    }

    /// Waiting and computing took too long.
    pub fn timeout(seconds: u64) -> Self {
        let message = format!(
            "no answer within {seconds} seconds. Ask for fewer tokens, or try again when fewer clients wait"
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// OpenAI's word for the kind of error.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON of the error.
    pub fn json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(Told(self.code));
        response
    }
}

/// What the engine says of a question or picture is a wrong request, of the device a service that is not there.
impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let is_request = matches!(fault.kind, FaultKind::Picture | FaultKind::Question);
        let status = match fault.code {
            code if is_device(code) || fault.kind == FaultKind::Device => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorCode::InvalidInput | ErrorCode::Unsupported | ErrorCode::Corrupt if is_request => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let code = match (fault.kind, status) {
            (FaultKind::Picture, StatusCode::BAD_REQUEST) => "invalid_image",
            (FaultKind::Question, StatusCode::BAD_REQUEST) => "invalid_question",
            _ => name(fault.code),
        };
        Self::new(status, code, fault.to_string())
    }
}

/// Whether the engine may not go on after a fault with this code.
pub fn is_device(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::OutOfMemory
            | ErrorCode::DeviceLost
            | ErrorCode::DeviceFailed
            | ErrorCode::NoAdapter
            | ErrorCode::ShaderRejected
            | ErrorCode::WrongResult
            | ErrorCode::WorkerLost
            | ErrorCode::NotReady
    )
}

fn name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unknown => "unknown",
        ErrorCode::OutOfMemory => "out_of_memory",
        ErrorCode::DeviceLost => "device_lost",
        ErrorCode::DeviceFailed => "device_failed",
        ErrorCode::NoAdapter => "no_adapter",
        ErrorCode::ShaderRejected => "shader_rejected",
        ErrorCode::WrongResult => "wrong_result",
        ErrorCode::Corrupt => "corrupt",
        ErrorCode::NotFound => "not_found",
        ErrorCode::Unsupported => "unsupported",
        ErrorCode::Cancelled => "cancelled",
        ErrorCode::InvalidInput => "invalid_input",
        ErrorCode::Quota => "quota",
        ErrorCode::InUse => "in_use",
        ErrorCode::Storage => "storage",
        ErrorCode::Network => "network",
        ErrorCode::Forbidden => "forbidden",
        ErrorCode::NotReady => "not_ready",
        ErrorCode::Protocol => "protocol",
        ErrorCode::WorkerLost => "worker_lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_requests_are_400_and_those_of_the_device_503() {
        let problem =
            |kind, code| Problem::from(Fault::new(kind, "here", "is wrong", "").code(code));
        let picture = problem(FaultKind::Picture, ErrorCode::InvalidInput);
        assert_eq!(
            (picture.status.as_u16(), picture.code),
            (400, "invalid_image")
        );
        assert_eq!(picture.message, "here: is wrong");
        let lost = problem(FaultKind::Device, ErrorCode::DeviceLost);
        assert_eq!((lost.status.as_u16(), lost.code), (503, "device_lost"));
        assert_eq!(lost.json()["error"]["type"], "server_error");
        let memory = problem(FaultKind::Picture, ErrorCode::OutOfMemory);
        assert_eq!(memory.status.as_u16(), 503);
        let model = problem(FaultKind::Model, ErrorCode::Corrupt);
        assert_eq!((model.status.as_u16(), model.code), (500, "corrupt"));
    }

    #[test]
    fn a_problem_names_its_field() {
        let problem = Problem::field("messages[0].content", "is missing");
        let json = problem.json();
        assert_eq!(json["error"]["param"], "messages[0].content");
        assert_eq!(json["error"]["type"], "invalid_request_error");
        let response = Problem::queue_full().into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}
