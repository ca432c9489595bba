//! The HTTP server of `chatrex serve`: OpenAI's protocol for chats about pictures, Label Studio's for ML backends.
//!
//! ```text
//! connections ─► routes ─► access ─► body ─► FairQueue ─► engine's thread
//!      ▲                                                     │
//!      └──────── text and outcome, through a Ticket ◄────────┘
//! ```
//!
//! Connections and requests are tasks of tokio; the engine works on the thread that calls [`run`], one job after
//! another. A task that ends early, because its client left, drops its ticket, and that stops the job. Everything
//! that a client can make large has a limit: connections, heads, bodies, the sum of bodies, pixels, the queue, the
//! time of a request.

mod access;
mod body;
mod completion;
mod connections;
mod engine;
mod fair;
mod fields;
mod job;
mod label_studio;
mod metrics;
mod picture;
mod problem;
mod routes;
mod shared;
mod shown;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, watch};

use self::access::Access;
use self::engine::Engine;
use self::fair::FairQueue;
use self::metrics::Metrics;
use self::shared::{Phase, Shared};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::protocol::{LoadOptions, ModelCard};

/// Memory for bodies and pictures, at least, in bytes.
const MEMORY: usize = 256 << 20;

/// How long the engine may take to end after its answers were cut.
const LAST: Duration = Duration::from_secs(5);

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A model folder, or the name of a built-in model.
    pub model: String,
    /// Where and how it is loaded.
    pub load: LoadOptions,
    /// The address to listen on.
    pub host: IpAddr,
    /// The port; 0 for one that is free.
    pub port: u16,
    /// Tokens of clients. None are needed on a loopback address.
    pub tokens: Vec<String>,
    /// Origins whose pages may ask.
    pub origins: Vec<String>,
    /// The most bytes of a body.
    pub max_body: usize,
    /// The most jobs that wait.
    pub queue: usize,
    /// The most connections.
    pub connections: u32,
    /// The longest time of a request in the queue and in the engine.
    pub timeout: Duration,
    /// The longest time for answers in progress when the program is asked to end.
    pub grace: Duration,
    /// The folder of Label Studio's files.
    pub label_studio_root: Option<PathBuf>,
}

impl Settings {
    /// Checks what can be wrong before the model is loaded.
    ///
    /// # Errors
    /// An address that others reach without a token, a token that no header can hold, a folder that is not there.
    pub fn check(&self) -> Result<(), Fault> {
        let fault = |place: &str, what: &str, advice: &str| {
            let fault = Fault::new(FaultKind::Network, place, what, advice);
            Err(fault.code(ErrorCode::InvalidInput))
        };
        let is_word =
            |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !self.tokens.iter().all(is_word) {
            let advice = "Choose one of letters and digits";
            return fault(
                "--token",
                "is empty or has characters that a header cannot hold",
                advice,
            );
        }
        if !self.host.is_loopback() && self.tokens.is_empty() {
            let what = format!(
                "{} is no loopback address, and there is no token",
                self.host
            );
            let advice = "Set CHATREX_TOKEN or --token, or listen on 127.0.0.1";
            return fault("--host", &what, advice);
        }
        for origin in &self.origins {
            let rest = origin.split_once("://").map(|(_, rest)| rest);
            if rest.is_none_or(|rest| rest.is_empty() || rest.contains('/')) {
                let what = format!("{origin:?} is no origin");
                return fault("--allow-origin", &what, "Write it as https://example.org");
            }
        }
        match &self.label_studio_root {
            Some(root) => picture::check_root(root),
            None => Ok(()),
        }
    }
}

/// Serves until the program is asked to end (SIGTERM, SIGINT). The engine works on this thread. `opened` is called
/// once the model is loaded; the address is then written to standard output.
///
/// # Errors
/// The address is in use, or the model cannot be loaded.
pub fn run(settings: &Settings, opened: impl FnOnce(&ModelCard)) -> Result<(), Fault> {
    settings.check()?;
    let place = SocketAddr::new(settings.host, settings.port);
    let fault = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::AddrInUse => ErrorCode::InUse,
            _ => ErrorCode::Network,
        };
        let what = format!("cannot be listened on ({error})");
        Fault::new(
            FaultKind::Network,
            place.to_string(),
            what,
            "Choose another --port",
        )
        .code(code)
    };
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(fault)?;
    let listener = runtime.block_on(TcpListener::bind(place)).map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    let mut engine = Engine::open(&settings.model, settings.load)?;
    opened(engine.card());
    let memory = MEMORY.max(4 * settings.max_body) / 1024;
    let shared = Arc::new(Shared {
        card: engine.card().clone(),
        access: Access::new(&settings.tokens, &settings.origins),
        queue: FairQueue::new(settings.queue),
        metrics: Metrics::new(),
        healthy: AtomicBool::new(true),
        max_body: settings.max_body,
        memory: Arc::new(Semaphore::new(memory)),
        timeout: settings.timeout,
        label_studio_root: settings.label_studio_root.clone(),
        created: shared::now(),
        phase: watch::channel(Phase::Serving).0,
    });
    let (most, grace) = (settings.connections, settings.grace);
    let router = routes::router(&shared);
    let serving = connections::serve(listener, router, Arc::clone(&shared), most, grace);
    let serving = runtime.spawn(async move {
        serving.await;
        // The thread of the engine may be inside a long computation, which nobody waits for now.
        std::thread::spawn(|| {
            std::thread::sleep(LAST);
            std::process::exit(0);
        });
    });
    let mut out = std::io::stdout().lock();
    // The address may be unread.
    let _ = writeln!(out, "http://{address}").and_then(|()| out.flush());
    drop(out);
    engine.run(&shared.queue, &shared.metrics, &shared.healthy);
    // What fails in that task is a broken promise of it.
    let _ = runtime.block_on(serving);
    runtime.shutdown_background();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::DevicePreference;

    #[test]
    fn other_addresses_need_a_token() {
        let settings = Settings {
            model: "nano".into(),
            load: DevicePreference::Cpu.into(),
            host: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            tokens: Vec::new(),
            origins: Vec::new(),
            max_body: 1 << 20,
            queue: 4,
            connections: 4,
            timeout: Duration::from_secs(1),
            grace: Duration::from_secs(1),
            label_studio_root: None,
        };
        assert_eq!(settings.check(), Ok(()));
        let wrong = |change: fn(&mut Settings)| {
            let mut settings = settings.clone();
            change(&mut settings);
            settings.check().expect_err("wrong").to_string()
        };
        let all = wrong(|settings| settings.host = IpAddr::from([0; 4]));
        assert!(all.contains("CHATREX_TOKEN"), "{all}");
        for token in ["", "a b", "\u{e4}"] {
            let mut settings = settings.clone();
            settings.tokens = vec![token.into()];
            assert!(settings.check().is_err(), "{token:?}");
        }
        assert!(wrong(|s| s.origins = vec!["*".into()]).contains("no origin"));
        assert!(wrong(|s| s.origins = vec!["https://a/b".into()]).contains("no origin"));
        let root = wrong(|s| s.label_studio_root = Some("no/such/folder".into()));
        assert!(root.contains("no/such/folder"), "{root}");
        let open = Settings {
            host: IpAddr::from([0; 4]),
            tokens: vec!["t0ken".into()],
            ..settings
        };
        assert_eq!(open.check(), Ok(()));
    }
}
