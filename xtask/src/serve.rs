//! A static file server with what a production host has: the headers of `_headers`, media types,
//! entity tags, byte ranges, and the compressed copies that `cargo xtask dist` writes.

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
    let request_header = |name: &str| {
        let mut headers = request.headers().iter();
        let found = headers.find(|h| h.field.as_str().as_str().eq_ignore_ascii_case(name));
        found.map(|h| h.value.as_str().to_owned())
    };
    let range = request_header("Range");
    let accepted = request_header("Accept-Encoding").unwrap_or_default();
    // A range is one of the plain bytes.
    let copy = copy_of(&file, &accepted).filter(|_| range.is_none());
    let mut opened = fs::File::open(copy.as_ref().map_or(&file, |(copy, _)| copy))?;
    let tag = entity_tag(
        &opened.metadata()?,
        copy.as_ref().map(|(_, coding)| *coding),
    );
    let length = opened.metadata()?.len();
    let current = request_header("If-Range").is_none_or(|known| known == tag);
    let range = range.filter(|_| current);
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
    all.push(header("Vary", "Accept-Encoding"));
    all.extend(copy.map(|(_, coding)| header("Content-Encoding", coding)));
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

/// The compressed copy beside a file that a request accepts, and its content coding.
fn copy_of(file: &Path, accepted: &str) -> Option<(PathBuf, &'static str)> {
    [("br", "br"), ("gzip", "gz")]
        .into_iter()
        .find_map(|(coding, ending)| {
            let mut copy = file.as_os_str().to_owned();
            copy.push(format!(".{ending}"));
            let copy = PathBuf::from(copy);
            (accepts(accepted, coding) && copy.is_file()).then_some((copy, coding))
        })
}

/// Whether an `Accept-Encoding` header names a content coding with a weight above 0.
fn accepts(header: &str, coding: &str) -> bool {
    header.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_named && weight.is_none_or(|weight| weight > 0.0)
    })
}

/// The entity tag of a file: its length, the time of its last change and its content coding.
fn entity_tag(file: &fs::Metadata, coding: Option<&str>) -> String {
    let changed = file.modified().ok();
    let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let changed = changed.map_or(0, |time| time.as_nanos());
    let coding = coding.map_or(String::new(), |coding| format!("-{coding}"));
    format!("\"{:x}-{changed:x}{coding}\"", file.len())
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
    use std::io::Write;
    use std::net::TcpStream;

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
    fn compressed_copies_are_sent_whole_only() {
        let folder = std::env::temp_dir().join(format!("chatrex-serve-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("_headers"), "/*\n  X-A: 1\n").unwrap();
        for (file, text) in [
            ("a.js", "0123456789"),
            ("a.js.br", "brotli"),
            ("a.js.gz", "gzip"),
            ("b.js", "plain"),
        ] {
            fs::write(folder.join(file), text).unwrap();
        }
        let port = Running::start(&folder, "/", 0).unwrap().port;
        let get = |path: &str, headers: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            write!(
                stream,
                "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
            )
            .unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            let value = |name: &str| {
                let found = head
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                found.unwrap_or_default().to_owned()
            };
            (body.to_owned(), value("Content-Encoding"), value("ETag"))
        };
        let plain = get("a.js", "");
        assert_eq!((&*plain.0, &*plain.1), ("0123456789", ""));
        let brotli = get("a.js", "Accept-Encoding: gzip, deflate, br\r\n");
        assert_eq!((&*brotli.0, &*brotli.1), ("brotli", "br"));
        assert!(brotli.2.ends_with("-br\"") && brotli.2 != plain.2);
        let gzip = get("a.js", "Accept-Encoding: br;q=0, gzip;q=0.5\r\n");
        assert_eq!((&*gzip.0, &*gzip.1), ("gzip", "gzip"));
        assert_eq!(get("b.js", "Accept-Encoding: br\r\n").0, "plain");
        let part = get("a.js", "Accept-Encoding: br\r\nRange: bytes=2-4\r\n");
        assert_eq!((&*part.0, &*part.1, &part.2), ("234", "", &plain.2));
        let stale = format!(
            "Accept-Encoding: br\r\nRange: bytes=2-4\r\nIf-Range: {}\r\n",
            brotli.2
        );
        assert_eq!(get("a.js", &stale).0, "0123456789");
        fs::remove_dir_all(&folder).unwrap();
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
