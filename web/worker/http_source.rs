//! A model folder on a server, read by ranges; from a server without ranges file by file.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use chatrex::error::{Fault, FaultKind};
use chatrex::weights::ByteSource;
use chatrex::weights::source::{LocalFuture, PartialRead, TransferControl, too_long};
use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

use super::abort::{AbortableFetch, PauseControl};
use super::js::{
    ReadableStreamDefaultReader, Response, add_event_listener, describe, fetch, field, object, wait,
};
use super::priority_lock::{Passing, PriorityLock};

/// A small file is asked for this often before its absence is final.
const ATTEMPTS: u32 = 5;

thread_local! {
    /// Addresses the content security policy refused.
    static REFUSED: RefCell<Vec<String>> = RefCell::default();
}

/// Notes what the content security policy refuses, so that it can be told from a lost connection.
pub fn watch_policy() {
    let note = Closure::<dyn FnMut(JsValue)>::new(|event: JsValue| {
        let address = field(&event, "blockedURI").as_string().unwrap_or_default();
        REFUSED.with_borrow_mut(|refused| refused.push(address));
    });
    add_event_listener("securitypolicyviolation", note.as_ref());
    note.forget();
}

/// The folder at a base address.
pub struct HttpSource {
    base: String,
    steering: Rc<PauseControl>,
    /// The files asked for so far, in that order.
    files: RefCell<Vec<String>>,
    /// What each file's server called its version.
    versions: RefCell<HashMap<String, String>>,
    /// Whether the server serves ranges, once that is known.
    ranges: Cell<Option<bool>>,
    gate: PriorityLock,
    /// The body of a server without ranges, read as far as anybody asked.
    whole: RefCell<Option<Whole>>,
}

struct Whole {
    file: String,
    at: u64,
    body: Body,
}

/// A request that failed.
struct Broken {
    fault: Fault,
    again: bool,
}

impl Broken {
    fn cut(self, arrived: Vec<u8>) -> PartialRead {
        PartialRead {
            arrived,
            fault: self.fault,
            again: self.again,
        }
    }
}

impl HttpSource {
    /// The folder at `base`; requests end as `steering` says.
    pub fn new(base: &str, steering: Rc<PauseControl>) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            steering,
            files: RefCell::default(),
            versions: RefCell::default(),
            ranges: Cell::new(None),
            gate: PriorityLock::default(),
            whole: RefCell::default(),
        }
    }

    fn address(&self, file: &str) -> String {
        format!("{}/{file}", self.base)
    }

    /// Asks for a file, or a range of it.
    async fn ask(&self, file: &str, range: Option<&Range<u64>>) -> Result<Answer, Broken> {
        let address = self.address(file);
        let version = self.versions.borrow().get(file).cloned();
        let mut headers = Vec::new();
        if let Some(range) = range {
            let bytes = format!("bytes={}-{}", range.start, range.end - 1);
            headers.push(("Range", JsValue::from(bytes)));
            headers.extend(version.clone().map(|v| ("If-Range", JsValue::from(v))));
        }
        let mut flight = AbortableFetch::new(&self.steering);
        let options = object(&[
            ("headers", object(&headers)),
            ("signal", flight.signal()),
            ("cache", "no-store".into()),
            ("credentials", "same-origin".into()),
        ]);
        let response: Response = match wait(fetch(&address, &options)).await {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(&address, &error).await),
        };
        flight.alive();
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
            flight,
            spare: None,
        };
        Ok(Answer { response, body })
    }

    /// Why there was no answer at all.
    async fn unanswered(&self, address: &str, error: &JsValue) -> Broken {
        // A refusal by the policy is reported a moment after the request failed.
        if self.steering.hold() == TransferControl::Run {
            self.steering.sleep(30).await;
        }
        let refused = REFUSED.with_borrow_mut(|refused| {
            let before = refused.len();
            refused.retain(|blocked| blocked.is_empty() || !address.starts_with(blocked.as_str()));
            refused.len() < before
        });
        if refused {
            return Broken {
                fault: Fault::new(
                    FaultKind::Network,
                    address,
                    "lies on, or leads to, another host, which this page's content security \
                     policy forbids",
                    "Put the model folder on this page's own host, or name the other host in the \
                     policy's connect-src",
                ),
                again: false,
            };
        }
        lost(address, &describe(error))
    }

    /// The bytes of a range, from a server that has ranges or does not.
    async fn read_range(
        &self,
        file: &str,
        length: u64,
        range: Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<Vec<u8>, PartialRead> {
        if self.ranges.get() == Some(true) {
            let answer = self.ask(file, Some(&range)).await;
            let answer = answer.map_err(|broken| broken.cut(Vec::new()))?;
            return self.take(answer, file, length, range, arrived).await;
        }
        let place = {
            let mut files = self.files.borrow_mut();
            let known = files.iter().position(|known| known == file);
            known.unwrap_or_else(|| {
                files.push(file.to_owned());
                files.len() - 1
            })
        };
        let passing = self.gate.pass((place, range.start)).await;
        if self.ranges.get() == Some(true) {
            drop(passing);
            return Box::pin(self.read_range(file, length, range, arrived)).await;
        }
        self.read_in_turn(passing, file, length, range, arrived)
            .await
    }

    /// The first request of all, or one to a server without ranges.
    async fn read_in_turn(
        &self,
        passing: Passing<'_>,
        file: &str,
        length: u64,
        range: Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<Vec<u8>, PartialRead> {
        let open = self.whole.take();
        let mut whole = match open.filter(|w| w.file == file && w.at <= range.start) {
            Some(whole) => whole,
            None => {
                let answer = self.ask(file, Some(&range)).await;
                let answer = answer.map_err(|broken| broken.cut(Vec::new()))?;
                if answer.response.status() == 206 {
                    self.ranges.set(Some(true));
                    drop(passing);
                    return self.take(answer, file, length, range, arrived).await;
                }
                self.ranges.set(Some(false));
                self.whole(answer, file, length)
                    .map_err(|broken| broken.cut(Vec::new()))?
            }
        };
        while whole.at < range.start {
            let more = (range.start - whole.at).min(1 << 20);
            let skipped = whole.body.bytes(more, arrived).await;
            whole.at += skipped.map_err(|cut| PartialRead {
                arrived: Vec::new(),
                ..cut
            })?;
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        whole.body.fill(&mut bytes, &range, arrived).await?;
        whole.at = range.end;
        if whole.at < length {
            self.whole.replace(Some(whole));
        }
        Ok(bytes)
    }

    /// The answer of a server without ranges.
    fn whole(&self, answer: Answer, file: &str, length: u64) -> Result<Whole, Broken> {
        let Answer { response, body } = answer;
        let headers = response.headers();
        let told = headers.get("content-length").and_then(|l| l.parse().ok());
        let told: Option<u64> = told.filter(|_| headers.get("content-encoding").is_none());
        if let Some(told) = told.filter(|&told| told != length) {
            return Err(wrong_length(&body.address, told, length));
        }
        Ok(Whole {
            file: file.to_owned(),
            at: 0,
            body,
        })
    }

    /// The bytes of an answer to a range.
    async fn take(
        &self,
        answer: Answer,
        file: &str,
        length: u64,
        range: Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<Vec<u8>, PartialRead> {
        let Answer { response, mut body } = answer;
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        if response.status() != 206 {
            // Some hosts answer a range of everything with everything.
            if range == (0..length) {
                let mut whole = self.whole(Answer { response, body }, file, length);
                let whole = whole.as_mut().map_err(|broken| {
                    let what = broken.fault.what.clone();
                    final_fault(&self.address(file), &what).cut(Vec::new())
                })?;
                whole.body.fill(&mut bytes, &range, arrived).await?;
                return Ok(bytes);
            }
            let fault = "was asked for a range and sent whole, although ranges worked before";
            return Err(final_fault(&body.address, fault).cut(bytes));
        }
        let told = response.headers().get("content-range");
        if let Some((start, total)) = told.as_deref().and_then(content_range) {
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
                return Err(wrong.cut(bytes));
            }
        }
        body.fill(&mut bytes, &range, arrived).await?;
        Ok(bytes)
    }

    async fn read_small(&self, name: &str, limit: u64) -> Result<Vec<u8>, Broken> {
        let mut answer = self.ask(name, None).await?;
        let headers = answer.response.headers();
        let told = headers.get("content-length").and_then(|l| l.parse().ok());
        if let Some(told) = told.filter(|&told: &u64| told > limit) {
            return Err(Broken {
                fault: too_long(&answer.body.address, told, limit),
                again: false,
            });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.body.chunk().await? {
            append(&mut bytes, &chunk);
            if bytes.len() as u64 > limit {
                return Err(Broken {
                    fault: too_long(&answer.body.address, bytes.len() as u64, limit),
                    again: false,
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
                    Err(broken) if !broken.again || attempt == ATTEMPTS => {
                        return Err(broken.fault);
                    }
                    Err(_) => self.steering.sleep(250 << attempt).await,
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

struct Answer {
    response: Response,
    body: Body,
}

/// A body on its way.
struct Body {
    address: String,
    reader: Option<ReadableStreamDefaultReader>,
    flight: AbortableFetch,
    /// What came beyond what was asked for.
    spare: Option<Uint8Array>,
}

impl Body {
    /// The next bytes, as many as come; nothing at the end.
    async fn chunk(&mut self) -> Result<Option<Uint8Array>, Broken> {
        if let Some(spare) = self.spare.take() {
            return Ok(Some(spare));
        }
        let Some(reader) = &self.reader else {
            return Ok(None);
        };
        let next: JsValue = wait(reader.read())
            .await
            .map_err(|error| lost(&self.address, &describe(&error)))?;
        self.flight.alive();
        let done = field(&next, "done").is_truthy();
        Ok((!done).then(|| field(&next, "value").unchecked_into()))
    }

    /// At most `limit` bytes less, and how many.
    async fn bytes(&mut self, limit: u64, arrived: &dyn Fn(u64)) -> Result<u64, PartialRead> {
        let mut bytes = Vec::new();
        self.fill(&mut bytes, &(0..limit), arrived).await?;
        Ok(limit)
    }

    /// Appends the bytes of `range`, which come next.
    async fn fill(
        &mut self,
        bytes: &mut Vec<u8>,
        range: &Range<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<(), PartialRead> {
        let mut missing = range.end - range.start;
        while missing > 0 {
            let fresh = self.spare.is_none();
            let chunk = match self.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    let what = format!("ended {missing} bytes early");
                    return Err(lost(&self.address, &what).cut(std::mem::take(bytes)));
                }
                Err(broken) => return Err(broken.cut(std::mem::take(bytes))),
            };
            if fresh {
                arrived(u64::from(chunk.length()));
            }
            let take = u64::from(chunk.length()).min(missing) as u32;
            append(bytes, &chunk.subarray(0, take));
            missing -= u64::from(take);
            if take < chunk.length() {
                self.spare = Some(chunk.subarray(take, chunk.length()));
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

/// Whether an answer holds a model's file at all.
fn check_status(address: &str, response: &Response) -> Result<(), Broken> {
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
        let again = status >= 500 || matches!(status, 408 | 425 | 429);
        return Err(Broken {
            again,
            ..lost(address, &what)
        });
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

/// What the server calls this version of a file: a strong tag, else a date.
fn version_of(response: &Response) -> Option<String> {
    let headers = response.headers();
    let tag = headers.get("etag").filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| headers.get("last-modified"))
}

/// First byte and total of `bytes 0-9/20`.
fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

fn wrong_length(address: &str, found: u64, length: u64) -> Broken {
    final_fault(address, &format!("has {found} bytes instead of {length}"))
}

fn final_fault(address: &str, what: &str) -> Broken {
    Broken {
        fault: Fault::new(
            FaultKind::Network,
            address,
            what,
            "Look at the address, or ask whoever keeps it to put the model there again",
        ),
        again: false,
    }
}

/// The connection's fault, not the file's.
fn lost(address: &str, what: &str) -> Broken {
    Broken {
        fault: Fault::new(
            FaultKind::Network,
            address,
            format!("could not be fetched: {what}"),
            "Check the connection and try again; what came is kept",
        ),
        again: true,
    }
}
