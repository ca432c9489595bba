//! `chatrex serve` as a program, spoken to over plain TCP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const SCENE: &str = "web/static/samples/scene.png";
const DETECT: &str = "Please detect cat in this image. Answer the question with grounded answer.";

/// A running server; killed when it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        Self::of("nano", more)
    }

    fn of(model: &str, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_chatrex"))
            .args(["serve", "--model", model, "--device", "cpu", "--port", "0"])
            .args(more)
            .env_remove("CHATREX_TOKEN")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("http://").expect("an address");
        let address = address.to_owned();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a time");
        stream
    }

    /// Sends a request whose connection closes after the response.
    fn send(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let has_host = headers.iter().any(|line| line.starts_with("Host:"));
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !has_host {
            head += &format!("Host: {}\r\n", self.address);
        }
        if !headers.iter().any(|line| line.starts_with("Content-")) {
            head += &format!(
                "Content-Length: {}\r\nContent-Type: application/json\r\n",
                body.len()
            );
        }
        for line in headers {
            head += &format!("{line}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Response {
        Response::read(self.send(method, path, headers, body))
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], b"")
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.ask("POST", path, &[], body.to_string().as_bytes())
    }

    /// The value of a metric.
    fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").text;
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found.map_or(0.0, |value| value.trim().parse().expect("a number"))
    }

    /// Waits until `done`.
    fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[cfg(unix)]
    fn terminate(&self) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status();
        assert!(killed.expect("kill runs").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Response {
    status: u16,
    head: String,
    text: String,
}

impl Response {
    fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a response");
        Self::parse(&String::from_utf8(bytes).expect("UTF-8"))
    }

    fn parse(all: &str) -> Self {
        let (head, body) = all
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {all}"));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let head = head.to_ascii_lowercase();
        let text = match head.contains("transfer-encoding: chunked") {
            true => unchunked(body),
            false => body.to_owned(),
        };
        Self {
            status: status.expect("a status"),
            head,
            text,
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Status and code of an error in OpenAI's shape.
    fn error(&self) -> (u16, String) {
        let json = self.json();
        let error = &json["error"];
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{json}"
        );
        assert!(error.get("param").is_some(), "{json}");
        (
            self.status,
            error["code"].as_str().expect("a code").to_owned(),
        )
    }
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    text
}

fn data_url() -> String {
    let bytes = std::fs::read(SCENE).expect("the sample");
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

fn chat(text: &str, more: Value) -> Value {
    let content = json!([
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": data_url()}},
    ]);
    let mut body = json!({"model": "nano", "messages": [{"role": "user", "content": content}]});
    for (key, value) in more.as_object().expect("fields") {
        body[key] = value.clone();
    }
    body
}

const CONFIG: &str = r#"<View><Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="cat"/><Label value="penguin"/></RectangleLabels></View>"#;

/// Completions, streams and boxes agree with each other; the second question prefills its own tokens only.
#[test]
fn answers_streams_and_boxes() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("upload/1")).expect("a folder");
    std::fs::copy(SCENE, root.join("upload/1/a.png")).expect("a file");
    std::fs::copy(SCENE, folder.path().join("secret.png")).expect("a file");
    let server = Server::start(&["--label-studio-root", root.to_str().expect("UTF-8")]);

    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "nano");
    assert_eq!(server.get("/v1/models/nano").json()["object"], "model");
    assert_eq!(
        server.get("/v1/models/gpt-4o").error(),
        (404, "model_not_found".into())
    );
    assert_eq!(server.get("/healthz").json()["status"], "ok");
    assert_eq!(server.get("/health").json()["status"], "UP");
    assert_eq!(server.get("/v2").error(), (404, "not_found".into()));
    assert_eq!(
        server.get("/predict").error(),
        (405, "method_not_allowed".into())
    );

    let whole = server
        .post("/v1/chat/completions", &chat(DETECT, json!({})))
        .json();
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().expect("a text");
    let grounded = &choice["message"]["chatrex"];
    assert!(text.contains("cat") && !text.contains('<'), "{text}");
    assert_eq!(choice["finish_reason"], "stop");
    let spans = grounded["spans"].as_array().expect("spans");
    let joined: String = spans
        .iter()
        .filter_map(|span| span["text"].as_str())
        .collect();
    assert_eq!(joined.trim(), text);
    let named = spans
        .iter()
        .filter_map(|span| span["objects"].as_array())
        .flatten();
    let boxes = grounded["boxes"].as_array().expect("boxes");
    assert!(named.clone().count() > 0);
    assert!(
        named
            .into_iter()
            .all(|index| index.as_u64().expect("an index") < boxes.len() as u64)
    );
    assert_eq!(
        grounded["scores"].as_array().map(Vec::len),
        Some(boxes.len())
    );
    let usage = &whole["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);

    let options = json!({"stream": true, "stream_options": {"include_usage": true}, "chatrex": {"tags": true}});
    let stream = server.post("/v1/chat/completions", &chat(DETECT, options));
    assert!(
        stream.head.contains("content-type: text/event-stream"),
        "{}",
        stream.head
    );
    let events: Vec<&str> = stream.text.split_terminator("\n\n").collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(&event[6..]).expect("JSON"))
        .collect();
    let (last, chunks) = chunks.split_last().expect("chunks");
    assert_eq!(
        last["usage"]["completion_tokens"],
        usage["completion_tokens"]
    );
    assert_eq!(last["usage"]["prompt_tokens"], usage["prompt_tokens"]);
    let cached = &last["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert!(
        cached.as_u64().expect("a number") > 0,
        "the second question prefills its own tokens"
    );
    let deltas = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    let tagged: String = deltas.collect();
    assert!(
        tagged.contains("<ground>") && tagged.contains("</objects>"),
        "{tagged}"
    );
    let end = &chunks.last().expect("chunks")["choices"][0];
    assert_eq!(end["delta"]["chatrex"], *grounded);
    assert_eq!(end["finish_reason"], "stop");
    assert!(chunks.len() > 2, "role, text, end");

    let proposed = server
        .post("/v1/propose", &json!({"image": data_url(), "score": 0.5}))
        .json();
    let found = proposed["boxes"].as_array().expect("boxes");
    assert!(
        !found.is_empty() && found[0]["box"] == boxes[0],
        "{proposed}"
    );
    assert_eq!(proposed["image"], grounded["picture"]);
    let picture = std::fs::read(SCENE).expect("the sample");
    let length = format!("Content-Length: {}", picture.len());
    let raw = server.ask(
        "POST",
        "/v1/propose",
        &["Content-Type: image/png", &length],
        &picture,
    );
    assert_eq!(raw.json()["image"], grounded["picture"]);
    let given = json!({"chatrex": {"boxes": [boxes[1]]}, "max_tokens": 2});
    let cut = server
        .post("/v1/chat/completions", &chat(DETECT, given))
        .json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["usage"]["completion_tokens"], 2);
    assert_eq!(
        cut["choices"][0]["message"]["chatrex"]["boxes"],
        json!([boxes[1]])
    );

    let setup = json!({"project": "1.2", "schema": CONFIG, "hostname": "http://localhost"});
    assert_eq!(
        server.post("/setup", &setup).json()["model_version"],
        "nano"
    );
    let tasks = json!([{"id": 1, "data": {"image": data_url()}}, {"id": 2, "data": {"image": "/data/upload/1/a.png"}}]);
    let predict = json!({"tasks": tasks, "label_config": CONFIG, "project": "1.2", "params": {}});
    let results = server.post("/predict", &predict).json();
    let results = results["results"].as_array().expect("results");
    assert_eq!((results.len(), &results[0]), (2, &results[1]));
    let regions = results[0]["result"].as_array().expect("regions");
    assert!(!regions.is_empty());
    for region in regions {
        let label = &region["value"]["rectanglelabels"][0];
        assert!(label == "cat" || label == "penguin", "{region}");
        let edge = |from: &str, size: &str| {
            let value = |key: &str| region["value"][key].as_f64().expect("a number");
            value(from) >= 0.0 && value(from) + value(size) <= 100.001
        };
        assert!(edge("x", "width") && edge("y", "height"), "{region}");
    }
    for address in [
        "/data/local-files/?d=../secret.png",
        "/data/upload/%2e%2e/%2e%2e/secret.png",
    ] {
        let predict = json!({"tasks": [{"data": {"image": address}}], "label_config": CONFIG});
        assert_eq!(
            server.post("/predict", &predict).error(),
            (400, "file_refused".into())
        );
    }
    assert!(server.metric("chatrex_tokens_total{kind=\"completion\"}") > 0.0);
    assert!(server.metric("chatrex_pictures_reused_total") >= 6.0);
    assert_eq!(
        server.metric("chatrex_requests_total{route=\"/setup\",status=\"200\"}"),
        1.0
    );
    assert_eq!(
        server.metric("chatrex_errors_total{code=\"file_refused\"}"),
        2.0
    );
    assert_eq!(server.metric("chatrex_queue_length"), 0.0);
}

/// A PNG file whose header says that it has `side` x `side` pixels.
fn bomb(side: u32) -> Vec<u8> {
    let mut file = std::fs::read(SCENE).expect("the sample");
    file[16..20].copy_from_slice(&side.to_be_bytes());
    file[20..24].copy_from_slice(&side.to_be_bytes());
    let crc = crc32fast::hash(&file[12..29]);
    file[29..33].copy_from_slice(&crc.to_be_bytes());
    file
}

/// What cannot be used is refused with the cause, and the server goes on.
#[test]
fn bad_input_is_refused_with_its_cause() {
    let server = Server::start(&["--max-body", "1", "--max-connections", "8"]);
    let post = |body: &Value| server.post("/v1/chat/completions", body);
    let wrong = chat(DETECT, json!({"model": "gpt-4o"}));
    assert_eq!(post(&wrong).error(), (404, "model_not_found".into()));
    let raw = |body: &[u8]| {
        server
            .ask("POST", "/v1/chat/completions", &[], body)
            .error()
    };
    for body in [&b"{"[..], b"", b"\xff\xfe", "[".repeat(100_000).as_bytes()] {
        assert_eq!(raw(body), (400, "invalid_json".into()));
    }
    assert_eq!(raw(b"[]").0, 400);
    let image = |url: String| {
        let part = json!({"type": "image_url", "image_url": {"url": url}});
        let text = json!({"type": "text", "text": "What is this?"});
        json!({"model": "nano", "messages": [{"role": "user", "content": [part, text]}]})
    };
    let png = |bytes: &[u8]| image(format!("data:image/png;base64,{}", STANDARD.encode(bytes)));
    let huge = post(&png(&bomb(100_000)));
    assert_eq!(huge.error(), (400, "invalid_image".into()));
    assert!(
        huge.text.contains("the limit is 64 megapixels"),
        "{}",
        huge.text
    );
    let cut = std::fs::read(SCENE).expect("the sample");
    assert_eq!(
        post(&png(&cut[..cut.len() / 2])).error(),
        (400, "invalid_image".into())
    );
    for url in [
        "http://127.0.0.1/a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
    ] {
        assert_eq!(
            post(&image(url.into())).error(),
            (400, "remote_url_refused".into())
        );
    }
    let far = json!({"chatrex": {"boxes": [[0, 0, 1, 1e9]]}});
    assert_eq!(
        post(&chat("What?", far)).error(),
        (400, "invalid_value".into())
    );
    let missing = post(&chat("What is <obj300>?", json!({})));
    assert_eq!(missing.error(), (400, "invalid_question".into()));
    let word = post(&chat("Say <image>", json!({})));
    assert_eq!(word.error(), (400, "invalid_question".into()));

    // A length alone is enough; what lies about its length is cut.
    let declared = ["Content-Length: 1073741824"];
    let large = server.ask("POST", "/v1/propose", &declared, b"").error();
    assert_eq!(large, (413, "body_too_large".into()));
    let sent = vec![b' '; 3 << 20];
    assert_eq!(
        server.ask("POST", "/v1/propose", &[], &sent).error(),
        (413, "body_too_large".into())
    );
    let mut chunked = b"100001\r\n".to_vec();
    chunked.extend(vec![b' '; 0x10_0001]);
    let unknown = [
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    ];
    let large = server
        .ask("POST", "/v1/propose", &unknown, &chunked)
        .error();
    assert_eq!(large, (413, "body_too_large".into()));

    // Names of other hosts, pages of other origins.
    let rebound = server.ask("GET", "/v1/models", &["Host: evil.example"], b"");
    assert_eq!(rebound.error(), (403, "host_refused".into()));
    let page = server.ask("GET", "/v1/models", &["Origin: https://evil.example"], b"");
    assert_eq!(page.error(), (403, "origin_refused".into()));
    assert!(!page.head.contains("access-control"), "{}", page.head);

    // More connections than places, none of which asks anything, and a head that never ends.
    let mut idle: Vec<TcpStream> = Vec::new();
    for number in 0..40 {
        let mut stream = server.connect();
        if number % 2 == 0 {
            // The server may have closed it for another.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ");
        }
        idle.push(stream);
    }
    assert_eq!(server.get("/healthz").status, 200);
    drop(idle);
    assert_eq!(post(&chat(DETECT, json!({}))).status, 200);
}

#[test]
fn a_token_is_needed_where_one_is_set() {
    let server = Server::start(&[
        "--token",
        "first",
        "--token",
        "second",
        "--allow-origin",
        "https://a.example",
    ]);
    assert_eq!(
        server.get("/v1/models").error(),
        (401, "missing_token".into())
    );
    let with = |value: &str| {
        server.ask(
            "GET",
            "/v1/models",
            &[&format!("Authorization: {value}")],
            b"",
        )
    };
    assert_eq!(with("Bearer firs").error(), (401, "invalid_token".into()));
    assert_eq!(with("Bearer second").status, 200);
    assert_eq!(
        with(&format!("Basic {}", STANDARD.encode("user:first"))).status,
        200
    );
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(server.get("/healthz").status, 200);
    let headers = [
        "Origin: https://a.example",
        "Access-Control-Request-Headers: authorization",
    ];
    let preflight = server.ask("OPTIONS", "/v1/chat/completions", &headers, b"");
    assert_eq!(preflight.status, 204);
    assert!(
        preflight
            .head
            .contains("access-control-allow-origin: https://a.example")
    );

    let open = [
        "serve", "--model", "nano", "--host", "0.0.0.0", "--port", "0",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_chatrex"))
        .args(open)
        .env_remove("CHATREX_TOKEN")
        .output();
    let output = output.expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let line = String::from_utf8_lossy(&output.stderr);
    assert!(
        line.contains("CHATREX_TOKEN") && line.lines().count() == 1,
        "{line}"
    );
    let port = server.address.rsplit(':').next().expect("a port");
    let taken = ["serve", "--model", "nano", "--port", port];
    let output = Command::new(env!("CARGO_BIN_EXE_chatrex"))
        .args(taken)
        .output();
    assert_eq!(output.expect("the program starts").status.code(), Some(2));
}

/// A folder with nano whose answers end with their limit only.
fn endless() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir("assets/models/nano").expect("a folder of the repository") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    let manifest = folder.path().join("model.json");
    let json = std::fs::read(&manifest).expect("the manifest");
    let mut json: Value = serde_json::from_slice(&json).expect("JSON");
    json["config"]["template"]["stop"] = json!(["<obj99>"]);
    std::fs::write(&manifest, json.to_string()).expect("written");
    folder
}

/// A question whose answer by an endless model has `tokens` tokens; 900 take seconds.
fn long(stream: bool, tokens: u32) -> String {
    let more = json!({"stream": stream, "max_tokens": tokens});
    chat("Please describe this image.", more).to_string()
}

/// A client that leaves in the middle of its answer stops it; another one is served; an end waits for the answers
/// in progress.
#[cfg(unix)]
#[test]
fn clients_leave_and_the_server_ends() {
    let model = endless();
    let model = model.path().to_str().expect("UTF-8");
    let mut server = Server::of(model, &["--queue", "2"]);
    let many = long(true, 900);
    let short = chat(DETECT, json!({"max_tokens": 8}));
    let begin = |server: &Server, body: &str| {
        let mut stream = server.send("POST", "/v1/chat/completions", &[], body.as_bytes());
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("a response");
        assert_eq!(&first, b"HTTP/1.1 200");
        stream
    };
    let first = begin(&server, &many);
    let waiting: Vec<TcpStream> = (0..2)
        .map(|_| server.send("POST", "/v1/chat/completions", &[], many.as_bytes()))
        .collect();
    server.until("two wait", |server| {
        server.metric("chatrex_queue_length") == 2.0
    });
    let full = server.post("/v1/chat/completions", &short);
    assert_eq!(full.error(), (429, "queue_full".into()));
    assert!(full.head.contains("retry-after: 1"), "{}", full.head);
    drop(waiting);
    server.until("none waits", |server| {
        server.metric("chatrex_queue_length") == 0.0
    });
    drop(first);
    server.until("three left", |server| {
        server.metric("chatrex_cancelled_total") == 3.0
    });
    let other = server.post("/v1/chat/completions", &short);
    assert_eq!(other.json()["usage"]["completion_tokens"], 8);

    let mut last = begin(&server, &long(true, 100));
    let mut answer = b"HTTP/1.1 200".to_vec();
    server.terminate();
    last.read_to_end(&mut answer).expect("the rest");
    let answer = Response::parse(&String::from_utf8(answer).expect("UTF-8"));
    assert!(answer.text.ends_with("data: [DONE]\n\n"), "{}", answer.text);
    let code = server.child.wait().expect("it ends").code();
    assert_eq!(code, Some(0));

    // A grace of zero cuts the answer and still ends well.
    let mut server = Server::of(model, &["--grace", "0"]);
    let mut cut = begin(&server, &many);
    server.terminate();
    let mut rest = String::new();
    // The connection may be closed without an end of the response.
    let _ = cut.read_to_string(&mut rest);
    assert!(!rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
}

/// Time in the queue and in the engine is bounded.
#[test]
fn a_request_that_takes_too_long_is_told_so() {
    let model = endless();
    let server = Server::of(model.path().to_str().expect("UTF-8"), &["--timeout", "1"]);
    let long = long(false, 900);
    let streams: Vec<TcpStream> = (0..6)
        .map(|_| server.send("POST", "/v1/chat/completions", &[], long.as_bytes()))
        .collect();
    let late = streams
        .into_iter()
        .map(Response::read)
        .filter(|response| response.status != 200);
    let late: Vec<Response> = late.collect();
    assert!(!late.is_empty());
    assert!(
        late.iter()
            .all(|response| response.error() == (504, "timeout".into()))
    );
    assert_eq!(server.get("/healthz").status, 200);
}
