//! A static file server with what a production host has: the headers of `_headers`, media types,
//! entity tags and byte ranges.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::UNIX_EPOCH;

use anyhow::{Result, anyhow};
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};

use crate::paths;
use crate::site;
use crate::times;

/// A browser fetches page, worker, two programs and weights at the same time.
const THREADS: usize = 6;

/// `cargo xtask serve`: builds the site, prints the time of each step and the address, and serves.
///
/// # Errors
/// When the build fails or the port is taken.
pub fn command(port: u16) -> Result<bool> {
    site::build()?;
    times::print();
    let running = Running::start(&paths::site(), "/", port)?;
    println!(
        "\nChatRex is at http://localhost:{}/  (Ctrl-C ends it)",
        running.port
    );
    running.wait();
    Ok(true)
}

/// A running server.
pub struct Running {
    /// The port it listens on.
    pub port: u16,
    workers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// Serves `folder` under the path `mount` on the loopback interface; port 0 takes a free port.
    ///
    /// # Errors
    /// When the port is taken or `_headers` is missing.
    pub fn start(folder: &Path, mount: &'static str, port: u16) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Server::http(address)
            .map_err(|error| anyhow!("port {port}: {error}. Choose another with --port"))?;
        let port = server.server_addr().to_ip().map_or(port, |ip| ip.port());
        let headers = parse_headers(&fs::read_to_string(folder.join("_headers"))?);
        let (server, headers) = (Arc::new(server), Arc::new(headers));
        let workers = (0..THREADS)
            .map(|_| {
                let (server, headers) = (Arc::clone(&server), Arc::clone(&headers));
                let folder = folder.to_owned();
                thread::spawn(move || {
                    while let Ok(request) = server.recv() {
                        // The browser may close the connection early.
                        let _ = answer(request, &folder, mount, &headers);
                    }
                })
            })
            .collect();
        Ok(Self { port, workers })
    }

    /// Serves until the program ends.
    pub fn wait(self) {
        for worker in self.workers {
            let _ = worker.join();
        }
    }
}

fn answer(request: Request, folder: &Path, mount: &str, headers: &[Header]) -> io::Result<()> {
    let file = file_of(request.url(), mount, folder).filter(|file| file.is_file());
    let allowed = matches!(request.method(), Method::Get | Method::Head);
    let Some(file) = file.filter(|_| allowed) else {
        let status = if allowed { 404 } else { 405 };
        let mut response = Response::from_string("not found\n").with_status_code(status);
        headers
            .iter()
            .for_each(|one| response.add_header(one.clone()));
        return request.respond(response);
    };
    let mut opened = fs::File::open(&file)?;
    let tag = entity_tag(&opened.metadata()?);
    let length = opened.metadata()?.len();
    let request_header = |name: &str| {
        let mut headers = request.headers().iter();
        let found = headers.find(|h| h.field.as_str().as_str().eq_ignore_ascii_case(name));
        found.map(|h| h.value.as_str().to_owned())
    };
    let current = request_header("If-Range").is_none_or(|known| known == tag);
    let range = request_header("Range").filter(|_| current);
    let part = range.map_or(Part::Whole, |range| part(&range, length));
    let (status, range) = match &part {
        Part::Whole => (200, 0..length),
        Part::Range(range) => (206, range.clone()),
        Part::Unsatisfiable => (416, 0..0),
    };
    opened.seek(SeekFrom::Start(range.start))?;
    let bytes = range.end - range.start;
    let mut all = headers.to_vec();
    all.push(header("Content-Type", media_type(&file)));
    all.push(header("ETag", &tag));
    all.push(header("Accept-Ranges", "bytes"));
    all.extend(part.content_range(length));
    let body = opened.take(bytes);
    let response = Response::new(StatusCode(status), all, body, Some(bytes as usize), None);
    request.respond(response.with_chunked_threshold(usize::MAX))
}

/// The part of a file that answers a request.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Range(Range<u64>),
    Unsatisfiable,
}

impl Part {
    fn content_range(&self, length: u64) -> Option<Header> {
        match self {
            Self::Whole => None,
            Self::Range(range) => Some(header(
                "Content-Range",
                &format!("bytes {}-{}/{length}", range.start, range.end - 1),
            )),
            Self::Unsatisfiable => Some(header("Content-Range", &format!("bytes */{length}"))),
        }
    }
}

/// The part that a `Range` header means. Several ranges and malformed ones mean the whole file.
fn part(range: &str, length: u64) -> Part {
    let bounds = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'));
    let (start, end) = match bounds {
        Some(("", last)) => match last.parse::<u64>() {
            Ok(last) => (length.saturating_sub(last), length),
            Err(_) => return Part::Whole,
        },
        Some((start, "")) => match start.parse() {
            Ok(start) => (start, length),
            Err(_) => return Part::Whole,
        },
        Some((start, end)) => match (start.parse(), end.parse::<u64>()) {
            (Ok(start), Ok(end)) if start <= end => (start, end.saturating_add(1).min(length)),
            _ => return Part::Whole,
        },
        None => return Part::Whole,
    };
    match start < end {
        true => Part::Range(start..end),
        false => Part::Unsatisfiable,
    }
}

/// The entity tag of a file: its length and the time of its last change.
fn entity_tag(file: &fs::Metadata) -> String {
    let changed = file.modified().ok();
    let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let changed = changed.map_or(0, |time| time.as_nanos());
    format!("\"{:x}-{changed:x}\"", file.len())
}

/// The file of a request path: `mount` itself is `index.html`; none outside `folder`.
fn file_of(url: &str, mount: &str, folder: &Path) -> Option<PathBuf> {
    let path = url.split(['?', '#']).next()?.strip_prefix(mount)?;
    let relative = Path::new(if path.is_empty() { "index.html" } else { path });
    relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| folder.join(relative))
}

/// The headers that a `_headers` file sets for every path (`/*`).
fn parse_headers(text: &str) -> Vec<Header> {
    text.lines()
        .skip_while(|line| line.trim() != "/*")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(name, value)| header(name, value))
        .collect()
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("header names and values are ASCII")
}

fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "webmanifest") => "application/json",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_folder() {
        let folder = Path::new("site");
        assert_eq!(
            file_of("/?a=b", "/", folder),
            Some(folder.join("index.html"))
        );
        assert_eq!(
            file_of("/a/b.js?x", "/a/", folder),
            Some(folder.join("b.js"))
        );
        assert_eq!(file_of("/../secret", "/", folder), None);
        assert_eq!(file_of("//etc/passwd", "/", folder), None);
    }

    #[test]
    fn byte_ranges_follow_rfc_9110() {
        let cases = [
            ("bytes=0-9", Part::Range(0..10)),
            ("bytes=90-200", Part::Range(90..100)),
            ("bytes=90-", Part::Range(90..100)),
            ("bytes=-5", Part::Range(95..100)),
            ("bytes=100-", Part::Unsatisfiable),
            ("bytes=100-200", Part::Unsatisfiable),
            ("bytes=9-0", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("lines=0-1", Part::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(part(range, 100), expected, "{range}");
        }
        let content_range = |part: Part| part.content_range(100).map(|header| header.to_string());
        assert_eq!(
            content_range(Part::Range(0..10)).as_deref(),
            Some("Content-Range: bytes 0-9/100")
        );
        assert_eq!(
            content_range(Part::Unsatisfiable).as_deref(),
            Some("Content-Range: bytes */100")
        );
    }

    #[test]
    fn headers_for_every_path_are_read() {
        let text = "/other\n  X-A: 1\n\n/*\n  Content-Security-Policy: default-src 'none'; x\n  B: c\n/z\n  D: e\n";
        let headers: Vec<String> = parse_headers(text)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            headers,
            ["Content-Security-Policy: default-src 'none'; x", "B: c"]
        );
    }
}
