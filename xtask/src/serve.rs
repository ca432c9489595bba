//! A small static server that sends what a production host would: the headers of `_headers`, and
//! the right media types.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Result, anyhow};
use tiny_http::{Header, Method, Request, Response, Server};

use crate::place;
use crate::site;

/// Page, worker, two programs and weights are asked for at the same time.
const THREADS: usize = 6;

/// `cargo xtask serve`: builds, serves, prints the address and stays.
///
/// # Errors
/// When the build fails or the port is taken.
pub fn command(port: u16) -> Result<bool> {
    site::build()?;
    let running = Running::start(&place::site(), "/", port)?;
    println!(
        "\nChatRex is at http://localhost:{}/  (Ctrl-C ends it)",
        running.port
    );
    running.wait();
    Ok(true)
}

/// A server at work.
pub struct Running {
    /// The port it listens on.
    pub port: u16,
    workers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// Serves `folder` under the path `mount` on this machine only; port 0 takes a free one.
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
                        // The browser may leave before it has everything; that is its right.
                        let _ = answer(request, &folder, mount, &headers);
                    }
                })
            })
            .collect();
        Ok(Self { port, workers })
    }

    /// Waits until the server ends, which it does with the program.
    pub fn wait(self) {
        for worker in self.workers {
            let _ = worker.join();
        }
    }
}

fn answer(request: Request, folder: &Path, mount: &str, headers: &[Header]) -> io::Result<()> {
    let file = file_of(request.url(), mount, folder).filter(|file| file.is_file());
    let known = matches!(request.method(), Method::Get | Method::Head);
    let Some(file) = file.filter(|_| known) else {
        let status = if known { 404 } else { 405 };
        let mut response = Response::from_string("not here\n").with_status_code(status);
        headers
            .iter()
            .for_each(|one| response.add_header(one.clone()));
        return request.respond(response);
    };
    let mut response = Response::from_file(fs::File::open(&file)?);
    response.add_header(header("Content-Type", media_type(&file)));
    headers
        .iter()
        .for_each(|one| response.add_header(one.clone()));
    request.respond(response)
}

/// The file a request path means: `mount` is `index.html`; nothing outside `folder`.
fn file_of(url: &str, mount: &str, folder: &Path) -> Option<PathBuf> {
    let path = url.split(['?', '#']).next()?.strip_prefix(mount)?;
    let relative = Path::new(if path.is_empty() { "index.html" } else { path });
    relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| folder.join(relative))
}

/// The headers for every path (`/*`) of a `_headers` file.
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
    Header::from_bytes(name, value).expect("header names and values are plain text")
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
    fn headers_are_read_as_a_host_reads_them() {
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
