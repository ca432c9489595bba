//! A model folder on a server, read by HTTP ranges; from a server without ranges file by file.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::weights::ByteSource;
use chatrex::weights::source::{LocalFuture, PartialRead, TransferControl, too_long};
use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use super::abort::{AbortableFetch, PauseControl};
use super::js::{
    ReadableStreamDefaultReader, Response, add_event_listener, describe, fetch, field, object, wait,
};
use super::priority_lock::{PriorityGuard, PriorityLock};

/// Number of attempts to fetch a small file.
const ATTEMPTS: u32 = 5;

thread_local! {
    /// Addresses that the content security policy blocked.
    static BLOCKED: RefCell<Vec<String>> = RefCell::default();
}

/// The host of an address.
fn host_of(address: &str) -> &str {
    let (_, rest) = address.split_once("://").unwrap_or(("", address));
    rest.split('/').next().unwrap_or(rest)
}

/// Records what the content security policy blocks, to distinguish it from a lost connection.
pub fn watch_policy() {
    let record = Closure::<dyn FnMut(JsValue)>::new(|event: JsValue| {
        let address = field(&event, "blockedURI").as_string().unwrap_or_default();
        BLOCKED.with_borrow_mut(|blocked| blocked.push(address));
    });
    add_event_listener("securitypolicyviolation", record.as_ref());
    record.forget();
}

/// The folder at a base address.
pub struct HttpSource {
    base: String,
    control: Rc<PauseControl>,
    /// The files requested so far, in that order.
    files: RefCell<Vec<String>>,
    /// Version of each file: its entity tag or modification date.
    versions: RefCell<HashMap<String, String>>,
    /// Whether the server supports ranges, once known.
    ranges: Cell<Option<bool>>,
    /// Whether the server compresses the files; no ranges are requested then.
    compressed: Cell<bool>,
    /// Orders the requests to a server without ranges by their position in the model.
    lock: PriorityLock,
    /// The partly read body of a server without ranges.
    stream: RefCell<Option<FileStream>>,
}

/// The body of a whole file.
struct FileStream {
    file: String,
    /// Bytes read so far.
    position: u64,
    body: Body,
}

/// A failed request.
struct FailedRequest {
    fault: Fault,
    /// Whether a retry can succeed.
    retryable: bool,
}

impl FailedRequest {
    fn with_part(self, arrived: Vec<u8>) -> PartialRead {
        PartialRead {
            arrived,
            fault: self.fault,
            retryable: self.retryable,
        }
    }
}

impl HttpSource {
    /// The folder at `base`; `control` aborts its requests.
    pub fn new(base: &str, control: Rc<PauseControl>) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            control,
            files: RefCell::default(),
            versions: RefCell::default(),
            ranges: Cell::new(None),
            compressed: Cell::new(false),
            lock: PriorityLock::default(),
            stream: RefCell::default(),
        }
    }

    fn address(&self, file: &str) -> String {
        format!("{}/{file}", self.base)
    }

    /// Requests a file or a range of it.
    async fn request(
        &self,
        file: &str,
        range: Option<&Range<u64>>,
    ) -> Result<HttpResponse, FailedRequest> {
        let address = self.address(file);
        let version = self.versions.borrow().get(file).cloned();
        let mut headers = Vec::new();
        if let Some(range) = range {
            let bytes = format!("bytes={}-{}", range.start, range.end - 1);
            headers.push(("Range", JsValue::from(bytes)));
            headers.extend(version.clone().map(|v| ("If-Range", JsValue::from(v))));
        }
        let mut fetch_guard = AbortableFetch::new(&self.control);
        let options = object(&[
            ("headers", object(&headers)),
            ("signal", fetch_guard.signal()),
            ("cache", "no-store".into()),
            ("credentials", "same-origin".into()),
        ]);
        let response: Response = match wait(fetch(&address, &options)).await {
            Ok(response) => response,
            Err(error) => return Err(self.no_response(&address, &error).await),
        };
        fetch_guard.restart_timeout();
        check_status(&address, &response)?;
        let found = version_of(&response);
        if version.is_some() && found.is_some() && version != found {
            let what = "was replaced by another file at its source";
            return Err(final_fault(&address, what));
        }
        if let Some(found) = found {
            self.versions.borrow_mut().insert(file.to_owned(), found);
        }
        let reader = response.body().map(|body| body.get_reader());
        let body = Body {
            address,
            reader,
            guard: fetch_guard,
            rest: None,
        };
        Ok(HttpResponse { response, body })
    }

    /// Why there was no response.
    async fn no_response(&self, address: &str, error: &JsValue) -> FailedRequest {
        // The policy violation is reported shortly after the request fails.
        if self.control.control() == TransferControl::Run {
            self.control.sleep(30).await;
        }
        let is_blocked = BLOCKED.with_borrow_mut(|blocked| {
            let before = blocked.len();
            blocked.retain(|prefix| prefix.is_empty() || !address.starts_with(prefix.as_str()));
            blocked.len() < before
        });
        if is_blocked {
            return FailedRequest {
                fault: Fault::new(
                    FaultKind::Network,
                    host_of(address),
                    "lies on, or leads to, another site, and this page fetches models from its own site \
                     only, so that nothing can leave it",
                    "Download the model there in a tab of its own, then choose its folder here; or put the \
                     folder on this page's own site",
                )
                .code(ErrorCode::Forbidden),
                retryable: false,
            };
        }
        lost(address, &describe(error))
    }

    /// The bytes of a range, from any server.
    async fn read_range(
        &self,
        file: &str,
        length: u64,
        range: Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<Vec<u8>, PartialRead> {
        if self.ranges.get() == Some(true) {
            let answer = self.request(file, Some(&range)).await;
            let answer = answer.map_err(|failed| failed.with_part(Vec::new()))?;
            return self
                .read_response(answer, file, length, range, arrived)
                .await;
        }
        let index = {
            let mut files = self.files.borrow_mut();
            let known = files.iter().position(|known| known == file);
            known.unwrap_or_else(|| {
                files.push(file.to_owned());
                files.len() - 1
            })
        };
        let guard = self.lock.lock((index, range.start)).await;
        if self.ranges.get() == Some(true) {
            drop(guard);
            return Box::pin(self.read_range(file, length, range, arrived)).await;
        }
        self.read_in_order(guard, file, length, range, arrived)
            .await
    }

    /// The first request, or one to a server without ranges.
    async fn read_in_order(
        &self,
        guard: PriorityGuard<'_>,
        file: &str,
        length: u64,
        range: Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<Vec<u8>, PartialRead> {
        let open = self.stream.take();
        let mut stream = match open.filter(|s| s.file == file && s.position <= range.start) {
            Some(stream) => stream,
            None => {
                let answer = self.request_in_order(file, &range).await;
                let answer = answer.map_err(|failed| failed.with_part(Vec::new()))?;
                if answer.response.status() == 206 {
                    self.ranges.set(Some(true));
                    drop(guard);
                    return self
                        .read_response(answer, file, length, range, arrived)
                        .await;
                }
                self.ranges.set(Some(false));
                self.stream(answer, file, length)
                    .map_err(|failed| failed.with_part(Vec::new()))?
            }
        };
        while stream.position < range.start {
            let more = (range.start - stream.position).min(1 << 20);
            let skipped = stream.body.skip(more, arrived).await;
            stream.position += skipped.map_err(|part| PartialRead {
                arrived: Vec::new(),
                ..part
            })?;
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        stream.body.fill(&mut bytes, &range, arrived).await?;
        stream.position = range.end;
        if stream.position < length {
            self.stream.replace(Some(stream));
        }
        Ok(bytes)
    }

    /// Requests a range, or the file from a server that compresses it: browsers do not decode the response to a
    /// range request, and report it as a lost connection.
    async fn request_in_order(
        &self,
        file: &str,
        range: &Range<u64>,
    ) -> Result<HttpResponse, FailedRequest> {
        if self.compressed.get() {
            return self.request(file, None).await;
        }
        let failed = match self.request(file, Some(range)).await {
            Err(failed) if failed.retryable && self.ranges.get().is_none() => failed,
            answer => return answer,
        };
        match self.request(file, None).await {
            Ok(whole) if whole.response.headers().get("content-encoding").is_some() => {
                self.compressed.set(true);
                Ok(whole)
            }
            _ => Err(failed),
        }
    }

    /// The response of a server without ranges.
    fn stream(
        &self,
        answer: HttpResponse,
        file: &str,
        length: u64,
    ) -> Result<FileStream, FailedRequest> {
        let HttpResponse { response, body } = answer;
        let headers = response.headers();
        let declared = headers.get("content-length").and_then(|l| l.parse().ok());
        let declared: Option<u64> = declared.filter(|_| headers.get("content-encoding").is_none());
        if let Some(declared) = declared.filter(|&declared| declared != length) {
            return Err(wrong_length(&body.address, declared, length));
        }
        Ok(FileStream {
            file: file.to_owned(),
            position: 0,
            body,
        })
    }

    /// The bytes of the response to a range request.
    async fn read_response(
        &self,
        answer: HttpResponse,
        file: &str,
        length: u64,
        range: Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<Vec<u8>, PartialRead> {
        let HttpResponse { response, mut body } = answer;
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        if response.status() != 206 {
            // Some servers answer a range over the whole file with status 200.
            if range == (0..length) {
                let answer = HttpResponse { response, body };
                let mut stream = self.stream(answer, file, length);
                let stream = stream.as_mut().map_err(|failed| {
                    let what = failed.fault.what.clone();
                    final_fault(&self.address(file), &what).with_part(Vec::new())
                })?;
                stream.body.fill(&mut bytes, &range, arrived).await?;
                return Ok(bytes);
            }
            let fault = "was asked for a range and sent whole, although ranges worked before";
            return Err(final_fault(&body.address, fault).with_part(bytes));
        }
        let declared = response.headers().get("content-range");
        if let Some((start, total)) = declared.as_deref().and_then(content_range) {
            let wrong = if total.is_some_and(|total| total != length) {
                Some(wrong_length(
                    &body.address,
                    total.unwrap_or_default(),
                    length,
                ))
            } else if start != range.start {
                let what = format!("was sent from byte {start} instead of {}", range.start);
                Some(final_fault(&body.address, &what))
            } else {
                None
            };
            if let Some(wrong) = wrong {
                return Err(wrong.with_part(bytes));
            }
        }
        body.fill(&mut bytes, &range, arrived).await?;
        Ok(bytes)
    }

    async fn read_small(&self, name: &str, limit: u64) -> Result<Vec<u8>, FailedRequest> {
        let mut answer = self.request(name, None).await?;
        let headers = answer.response.headers();
        let declared = headers.get("content-length").and_then(|l| l.parse().ok());
        if let Some(declared) = declared.filter(|&declared: &u64| declared > limit) {
            return Err(FailedRequest {
                fault: too_long(&answer.body.address, declared, limit),
                retryable: false,
            });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.body.chunk().await? {
            append(&mut bytes, &chunk);
            if bytes.len() as u64 > limit {
                return Err(FailedRequest {
                    fault: too_long(&answer.body.address, bytes.len() as u64, limit),
                    retryable: false,
                });
            }
        }
        Ok(bytes)
    }
}

impl ByteSource for HttpSource {
    fn place(&self) -> String {
        self.base.clone()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let mut attempt = 0;
            loop {
                attempt += 1;
                match self.read_small(name, limit).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(failed) if !failed.retryable || attempt == ATTEMPTS => {
                        return Err(failed.fault);
                    }
                    Err(_) => self.control.sleep(250 << attempt).await,
                }
            }
        })
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(self.read_range(file, length, range, arrived))
    }

    fn max_parallel(&self) -> usize {
        3
    }
}

/// A response and the reader of its body.
struct HttpResponse {
    response: Response,
    body: Body,
}

/// The body of a response.
struct Body {
    address: String,
    reader: Option<ReadableStreamDefaultReader>,
    guard: AbortableFetch,
    /// Bytes that were received beyond the last range.
    rest: Option<Uint8Array>,
}

impl Body {
    /// The next chunk; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Uint8Array>, FailedRequest> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let Some(reader) = &self.reader else {
            return Ok(None);
        };
        let next: JsValue = wait(reader.read())
            .await
            .map_err(|error| lost(&self.address, &describe(&error)))?;
        self.guard.restart_timeout();
        let done = field(&next, "done").is_truthy();
        Ok((!done).then(|| field(&next, "value").unchecked_into()))
    }

    /// Skips `count` bytes; returns how many.
    async fn skip(&mut self, count: u64, arrived: &dyn Fn(u64)) -> Result<u64, PartialRead> {
        let mut bytes = Vec::new();
        self.fill(&mut bytes, &(0..count), arrived).await?;
        Ok(count)
    }

    /// Appends the bytes of `range`, which are the next ones.
    async fn fill(
        &mut self,
        bytes: &mut Vec<u8>,
        range: &Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<(), PartialRead> {
        let mut missing = range.end - range.start;
        while missing > 0 {
            let is_new = self.rest.is_none();
            let chunk = match self.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    let what = format!("ended {missing} bytes early");
                    return Err(lost(&self.address, &what).with_part(std::mem::take(bytes)));
                }
                Err(failed) => return Err(failed.with_part(std::mem::take(bytes))),
            };
            if is_new {
                arrived(u64::from(chunk.length()));
            }
            let take = u64::from(chunk.length()).min(missing) as u32;
            append(bytes, &chunk.subarray(0, take));
            missing -= u64::from(take);
            if take < chunk.length() {
                self.rest = Some(chunk.subarray(take, chunk.length()));
            }
        }
        Ok(())
    }
}

fn append(bytes: &mut Vec<u8>, chunk: &Uint8Array) {
    let start = bytes.len();
    bytes.resize(start + chunk.length() as usize, 0);
    chunk.copy_to(&mut bytes[start..]);
}

/// Checks that a response carries a file of a model.
fn check_status(address: &str, response: &Response) -> Result<(), FailedRequest> {
    let status = response.status();
    let headers = response.headers();
    if status == 416 {
        let total = headers.get("content-range");
        let total = total.as_deref().and_then(|range| range.rsplit_once('/'));
        let what = match total {
            Some((_, total)) => format!("has only {total} bytes"),
            None => "is shorter than its manifest says".to_owned(),
        };
        return Err(final_fault(address, &what));
    }
    if !response.ok() {
        let what = format!("the server says {status}");
        let retryable = status >= 500 || matches!(status, 408 | 425 | 429);
        let mut failed = FailedRequest {
            retryable,
            ..lost(address, &what)
        };
        if matches!(status, 404 | 410) {
            failed.fault = failed.fault.code(ErrorCode::NotFound);
        }
        return Err(failed);
    }
    let html = headers.get("content-type");
    if html.is_some_and(|kind| kind.trim_start().starts_with("text/html")) {
        return Err(final_fault(
            address,
            "is a web page where a file of a model should be",
        ));
    }
    Ok(())
}

/// The version of a file: a strong entity tag, else the modification date.
fn version_of(response: &Response) -> Option<String> {
    let headers = response.headers();
    let tag = headers.get("etag").filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| headers.get("last-modified"))
}

/// First byte and total of a `content-range` such as `bytes 0-9/20`.
fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

fn wrong_length(address: &str, found: u64, length: u64) -> FailedRequest {
    final_fault(address, &format!("has {found} bytes instead of {length}"))
}

/// A fault of the file, which a retry does not cure.
fn final_fault(address: &str, what: &str) -> FailedRequest {
    FailedRequest {
        fault: Fault::new(
            FaultKind::Network,
            address,
            what,
            "Check the address, or ask the owner of the folder to upload the model again",
        )
        .code(ErrorCode::Corrupt),
        retryable: false,
    }
}

/// A fault of the connection, which a retry may cure.
fn lost(address: &str, what: &str) -> FailedRequest {
    FailedRequest {
        fault: Fault::new(
            FaultKind::Network,
            address,
            format!("could not be fetched: {what}"),
            "Check the connection and try again; what came is kept",
        ),
        retryable: true,
    }
}
