//! Bodies of requests: bounded in bytes, in time and in their sum.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;

/// The longest wait for the next bytes of a body.
const STALL: Duration = Duration::from_secs(10);

/// The longest time for a whole body.
const WHOLE: Duration = Duration::from_secs(120);

/// The longest wait for memory.
const MEMORY: Duration = Duration::from_secs(10);

/// The least bytes that memory is taken for while a body comes.
const STEP: usize = 64 << 10;

/// A body that says that it is larger than the limit is read, and thrown away, up to this many times the limit:
/// most clients read no answer before they have sent their body.
const DRAINED: usize = 4;

/// A body and the memory that it holds.
#[derive(Debug)]
pub struct Received {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether it is a picture file by its type.
    pub is_picture: bool,
    /// The memory for it.
    pub memory: OwnedSemaphorePermit,
}

/// Takes memory for `bytes` bytes; waits for it.
///
/// # Errors
/// There is none in time.
pub async fn reserve(
    memory: &Arc<Semaphore>,
    bytes: usize,
) -> Result<OwnedSemaphorePermit, Problem> {
    let kibibytes = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
    let permit = Arc::clone(memory).acquire_many_owned(kibibytes);
    match timeout(MEMORY, permit).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Problem::busy()),
    }
}

/// Reads the body of a request.
///
/// # Errors
/// It has more than `limit` bytes, comes too slowly or is cut, or there is no memory for it.
pub async fn receive(
    request: Request,
    memory: &Arc<Semaphore>,
    limit: usize,
) -> Result<Received, Problem> {
    let (parts, body) = request.into_parts();
    let length = declared(&parts.headers)?;
    if let Some(length) = length.filter(|&length| length > limit as u64) {
        let waits = parts.headers.contains_key(EXPECT);
        if !waits && length <= (DRAINED * limit) as u64 {
            drain(body).await;
        }
        return Err(too_large(limit));
    }
    let (bytes, memory) = read(body, memory, limit).await?;
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    Ok(Received {
        bytes,
        is_picture: kind.trim_start().to_ascii_lowercase().starts_with("image/"),
        memory,
    })
}

fn declared(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || Problem::field("Content-Length", "Content-Length is not a number");
    length.map(Some).ok_or_else(wrong)
}

/// Reads a body. Memory is taken for what has come, not for what is announced.
async fn read(
    body: Body,
    memory: &Arc<Semaphore>,
    limit: usize,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Problem> {
    let mut bytes = Vec::new();
    let mut held = reserve(memory, 0).await?;
    let mut room = 0;
    let mut parts = body.into_data_stream();
    let end = Instant::now() + WHOLE;
    loop {
        let part = match timeout_at(end.min(Instant::now() + STALL), parts.next()).await {
            Err(_) => {
                let message = "the body comes too slowly";
                let status = StatusCode::REQUEST_TIMEOUT;
                return Err(Problem::new(status, "slow_body", message));
            }
            Ok(None) => return Ok((bytes, held)),
            Ok(Some(Err(error))) => {
                let message = format!("the body is cut short ({error})");
                return Err(Problem::field("body", message).code("body_cut"));
            }
            Ok(Some(Ok(part))) => part,
        };
        let length = bytes.len() + part.len();
        if length > limit {
            return Err(too_large(limit));
        }
        if length > room {
            let more = (length - room).max(STEP.min(limit - room));
            held.merge(reserve(memory, more).await?);
            room += more;
        }
        bytes.extend_from_slice(&part);
    }
}

/// Throws a body away.
async fn drain(body: Body) {
    let mut parts = body.into_data_stream();
    let end = Instant::now() + STALL;
    while let Ok(Some(Ok(_))) = timeout_at(end, parts.next()).await {}
}

fn too_large(limit: usize) -> Problem {
    let message = format!(
        "the body has more than {} bytes. Send a smaller picture, or start the server with a larger --max-body",
        limit
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// The JSON of a body.
///
/// # Errors
/// It is none.
pub fn json(bytes: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::field("body", format!("the body is not JSON: {error}")).code("invalid_json")
    })
}

/// Parses on a thread for such work; the others go on with connections.
///
/// # Errors
/// Those of `parse`, or the server ends.
pub async fn parsed<T: Send + 'static>(
    parse: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let parsed = tokio::task::spawn_blocking(parse).await;
    parsed.unwrap_or_else(|_| Err(Problem::shutting_down()))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    fn block<T>(work: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build();
        runtime.expect("a runtime").block_on(work)
    }

    fn request(length: Option<u64>, body: Body) -> Request {
        let mut request = Request::new(body);
        if let Some(length) = length {
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        request
    }

    #[test]
    fn bodies_are_bounded_whatever_they_say_of_themselves() {
        let memory = Arc::new(Semaphore::new(64));
        let chunks = |count: usize| {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 100]));
            Body::from_stream(stream::iter((0..count).map(move |_| chunk())))
        };
        let receive = |length, body| block(receive(request(length, body), &memory, 1000));
        let received = receive(None, chunks(10)).expect("1000 bytes");
        assert_eq!(
            (received.bytes.len(), memory.available_permits()),
            (1000, 62)
        );
        drop(received);
        for (length, count) in [
            (None, 11),
            (Some(1001), 0),
            (Some(1 << 30), 0),
            (Some(2000), 20),
        ] {
            let problem = receive(length, chunks(count)).expect_err("too large");
            assert_eq!(problem.status.as_u16(), 413, "{length:?}");
        }
        assert_eq!(memory.available_permits(), 64);
        let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("x"))]));
        assert_eq!(receive(Some(10), broken).expect_err("cut").code, "body_cut");
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        assert!(json(b"{\"a\": 1}").is_ok());
        let deep = "[".repeat(100_000);
        for text in ["{", "", "{\"a\": nan}", &deep, "\u{0}"] {
            let problem = json(text.as_bytes()).expect_err("no JSON");
            assert_eq!(problem.code, "invalid_json");
            assert!(problem.message.contains("line 1"), "{}", problem.message);
        }
        assert!(json(&[b'"', 0xff, b'"']).is_err());
    }
}
