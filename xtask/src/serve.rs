//! A static file server with what a production host has: the headers of `_headers`, media types,
//! entity tags, byte ranges, and the compressed copies that `cargo xtask dist` writes.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::thread;
use std::time::UNIX_EPOCH;

use anyhow::{Result, anyhow};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::paths;
use crate::site;
use crate::times;

/// Threads that answer; none waits for a client.
const THREADS: usize = 2;
/// Bytes of a file that are read at once.
const CHUNK: usize = 1 << 18;

type Header = (HeaderName, HeaderValue);

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
    worker: thread::JoinHandle<()>,
}

impl Running {
    /// Serves `folder` under the path `mount` on the loopback interface; port 0 takes a free port.
    ///
    /// # Errors
    /// When the port is taken or `_headers` is missing.
    pub fn start(folder: &Path, mount: &'static str, port: u16) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind(address)
            .map_err(|error| anyhow!("port {port}: {error}. Choose another with --port"))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let site = Arc::new(Site {
            folder: folder.to_owned(),
            mount,
            headers: parse_headers(&fs::read_to_string(folder.join("_headers"))?),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_io()
            .build()?;
        let worker = thread::spawn(move || {
            if let Err(error) = runtime.block_on(accept(listener, site)) {
                eprintln!("the server of port {port} ended: {error}");
            }
        });
        Ok(Self { port, worker })
    }

    /// Serves until the program ends.
    pub fn wait(self) {
        let _ = self.worker.join();
    }
}

/// Gives every connection a task of its own, so that none waits for another one.
async fn accept(listener: TcpListener, site: Arc<Site>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        // A client may be gone before it is accepted.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let site = Arc::clone(&site);
        let service = service_fn(move |request: Request<Incoming>| {
            let site = Arc::clone(&site);
            async move { site.answer(&request) }
        });
        tokio::spawn(async move {
            // The browser may close the connection early.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// What is served: a folder, the path it appears under, and the headers of every response.
struct Site {
    folder: PathBuf,
    mount: &'static str,
    headers: Vec<Header>,
}

impl Site {
    fn answer<B>(&self, request: &Request<B>) -> io::Result<Response<Content>> {
        let file = file_of(request.uri().path(), self.mount, &self.folder);
        let file = file.filter(|file| file.is_file());
        let mut response = match (request.method(), file) {
            (&Method::GET | &Method::HEAD, Some(file)) => respond_with(&file, request)?,
            (&Method::GET | &Method::HEAD, None) => refuse(StatusCode::NOT_FOUND),
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED),
        };
        response.headers_mut().extend(self.headers.iter().cloned());
        Ok(response)
    }
}

fn refuse(status: StatusCode) -> Response<Content> {
    let words = "not found\n";
    let mut response = Response::new(Content {
        source: Box::new(Cursor::new(words)),
        left: words.len() as u64,
    });
    *response.status_mut() = status;
    response
}

/// A file, or the part of it that the request asks for.
fn respond_with<B>(path: &Path, request: &Request<B>) -> io::Result<Response<Content>> {
    let wanted = |name: &str| request.headers().get(name)?.to_str().ok();
    let range = wanted("Range");
    let accepted = wanted("Accept-Encoding").unwrap_or_default();
    // A range is one of the plain bytes.
    let copy = copy_of(path, accepted).filter(|_| range.is_none());
    let coding = copy.as_ref().map(|(_, coding)| *coding);
    let mut file = File::open(copy.as_ref().map_or(path, |(copy, _)| copy))?;
    let about = file.metadata()?;
    let (length, tag) = (about.len(), entity_tag(&about, coding));
    let current = wanted("If-Range").is_none_or(|known| known == tag);
    let range = range.filter(|_| current);
    let part = range.map_or(Part::Whole, |range| part(range, length));
    let (status, range) = match &part {
        Part::Whole => (StatusCode::OK, 0..length),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    file.seek(SeekFrom::Start(range.start))?;
    let mut response = Response::new(Content {
        source: Box::new(file),
        left: range.end - range.start,
    });
    *response.status_mut() = status;
    response.headers_mut().extend([
        header("Content-Type", media_type(path)),
        header("ETag", &tag),
        header("Accept-Ranges", "bytes"),
        header("Vary", "Accept-Encoding"),
    ]);
    let coding = coding.map(|coding| header("Content-Encoding", coding));
    response.headers_mut().extend(coding);
    response.headers_mut().extend(part.content_range(length));
    Ok(response)
}

/// The body of a response, read while it is sent.
struct Content {
    source: Box<dyn Read + Send + Sync>,
    left: u64,
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK));
        let mut chunk = vec![0; size];
        let read = self.source.read_exact(&mut chunk);
        self.left -= size as u64;
        Poll::Ready(Some(read.map(|()| Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
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
    let name = HeaderName::try_from(name).expect("header names are ASCII");
    let value = HeaderValue::try_from(value).expect("header values are ASCII");
    (name, value)
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
    use std::time::Duration;

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
        let content_range = |part: Part| {
            let (_, value) = part.content_range(100)?;
            value.to_str().ok().map(str::to_owned)
        };
        assert_eq!(
            content_range(Part::Range(0..10)).as_deref(),
            Some("bytes 0-9/100")
        );
        assert_eq!(
            content_range(Part::Unsatisfiable).as_deref(),
            Some("bytes */100")
        );
    }

    #[test]
    fn compressed_copies_are_sent_whole_only() {
        let folder = std::env::temp_dir().join(format!("chatrex-copies-{}", std::process::id()));
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
                    .find_map(|line| line.strip_prefix(&*name.to_lowercase())?.strip_prefix(": "));
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
        let expected = [
            header("Content-Security-Policy", "default-src 'none'; x"),
            header("B", "c"),
        ];
        assert_eq!(parse_headers(text), expected);
    }

    #[test]
    fn connections_that_stay_open_delay_no_other_one() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("chatrex-serve-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("_headers"), "/*\n  X-A: 1\n")?;
        fs::write(folder.join("index.html"), "hello")?;
        let running = Running::start(&folder, "/", 0)?;
        let visit = || -> Result<(TcpStream, String)> {
            let mut stream = TcpStream::connect(("127.0.0.1", running.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut words = [0; 1024];
            let length = stream.read(&mut words)?;
            let words = String::from_utf8_lossy(&words[..length]).into_owned();
            Ok((stream, words))
        };
        let visits = thread::scope(|scope| {
            let visits: Vec<_> = (0..40).map(|_| scope.spawn(visit)).collect();
            let visits = visits
                .into_iter()
                .map(|visit| visit.join().expect("no panic"));
            visits.collect::<Result<Vec<_>>>()
        })?;
        for (_, words) in &visits {
            assert!(words.starts_with("HTTP/1.1 200 OK"), "{words}");
            assert!(words.to_lowercase().contains("x-a: 1"), "{words}");
            assert!(
                words.to_lowercase().contains("content-length: 5"),
                "{words}"
            );
        }
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
