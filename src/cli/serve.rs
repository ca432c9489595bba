//! `chatrex serve`: the engine behind HTTP.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::names::{CpuActivationsName, KvCacheName};
use super::process::keep_freed_memory;
use super::propose::{DeviceName, announce};
use crate::error::Fault;
use crate::protocol::LoadOptions;
use crate::server::{self, Settings};
use crate::session;

/// Tokens of clients, separated by commas.
const TOKEN: &str = "CHATREX_TOKEN";

/// Arguments of `chatrex serve`.
#[derive(clap::Args)]
pub struct Options {
    /// Model folder, or the name of a built-in model.
    #[arg(long, default_value = session::DEFAULT_MODEL)]
    model: String,
    /// Device to run on.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Limit of the GPU memory in megabytes; model parts are loaded and evicted on demand [default: no
    /// limit].
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// Data type of the KV cache [default: f16 for quantized weights on a GPU, else f32].
    #[arg(long, value_enum)]
    cache: Option<KvCacheName>,
    /// Activations that quantized weights are multiplied with on the CPU.
    #[arg(long, value_enum, default_value_t)]
    cpu_activations: CpuActivationsName,
    /// Address to listen on; any but a loopback address needs a token.
    #[arg(long, default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8040)]
    port: u16,
    /// Token that clients send (`Authorization: Bearer TOKEN`); repeat the option for several. The environment
    /// variable CHATREX_TOKEN (separated by commas) keeps it out of the list of processes.
    #[arg(long)]
    token: Vec<String>,
    /// Origin whose pages may ask, such as https://example.org; repeat the option for several.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Limit of a request's body in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_body: u32,
    /// Limit of the requests that wait.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    queue: u32,
    /// Limit of the connections.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,
    /// Longest time of a request in the queue and in the engine, in seconds.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Longest time for answers in progress after SIGTERM, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    grace: u64,
    /// Folder with the local files of Label Studio, and its uploads below `upload`.
    #[arg(long, value_name = "DIR")]
    label_studio_root: Option<PathBuf>,
}

/// An IP address, or `localhost`.
fn host(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let address = text.parse();
    address.map_err(|_| "expected an IP address, such as 127.0.0.1".into())
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let mut tokens = options.token.clone();
    if let Ok(text) = std::env::var(TOKEN) {
        let words = text.split(',').map(str::trim);
        tokens.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    let settings = Settings {
        model: options.model.clone(),
        load: LoadOptions {
            device: options.device.into(),
            memory: options.memory.map(|mb| mb.saturating_mul(1_000_000)),
            cache: options.cache.map(Into::into),
            activations: Some(options.cpu_activations.into()),
        },
        host: options.host,
        port: options.port,
        tokens,
        origins: options.allow_origin.clone(),
        max_body: (options.max_body as usize) << 20,
        queue: options.queue as usize,
        connections: options.max_connections,
        timeout: Duration::from_secs(options.timeout),
        grace: Duration::from_secs(options.grace),
        label_studio_root: options.label_studio_root.clone(),
    };
    server::run(&settings, |card| {
        keep_freed_memory();
        announce(card);
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses() {
        assert_eq!(host("localhost"), Ok(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(host("::1"), Ok("::1".parse().expect("an address")));
        assert!(host("example.org").is_err() && host("").is_err());
    }
}
