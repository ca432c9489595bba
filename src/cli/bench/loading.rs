//! `chatrex bench --loading`: what loading a model folder costs.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::error::Fault;
use crate::protocol::LoadOptions;
use crate::session::Session;

/// Costs of one load.
#[derive(Serialize)]
pub(super) struct Report {
    /// Bytes of the folder's files.
    folder: u64,
    /// Wall-clock seconds.
    seconds: f64,
    /// CPU seconds of all threads, on Unix.
    cpu_seconds: Option<f64>,
    /// Bytes of the process in memory after loading, on Linux.
    resident: Option<u64>,
    /// The most bytes of the process in memory so far, on Linux.
    peak: Option<u64>,
}

/// Loads the model in `folder` once.
///
/// # Errors
/// The folder cannot be read or the model not be loaded.
pub(super) fn measure(folder: &str, load: LoadOptions) -> Result<Report, Fault> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let session = Session::open(folder, load)?;
    let report = Report {
        folder: bytes(Path::new(folder))?,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds().zip(cpu).map(|(after, before)| after - before),
        resident: status("VmRSS:"),
        peak: status("VmHWM:"),
    };
    drop(session);
    Ok(report)
}

fn bytes(folder: &Path) -> Result<u64, Fault> {
    let fail = |error| Fault::file(folder, error);
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.and_then(|entry| entry.metadata());
        bytes += entry.map_err(fail)?.len();
    }
    Ok(bytes)
}

/// CPU seconds of this process so far.
fn cpu_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        // SAFETY: all fields are integers, for which zero is valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` outlives the call.
        let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0;
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
        (!failed).then(|| seconds(usage.ru_utime) + seconds(usage.ru_stime))
    }
    #[cfg(not(unix))]
    None
}

/// Bytes of a line of `/proc/self/status`, which counts in units of 1024.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

impl Report {
    /// One line.
    pub(super) fn table(&self) -> String {
        let gigabytes = self.folder as f64 / 1e9;
        let mut line = format!("{gigabytes:.3} GB in {:.2} s", self.seconds);
        if let Some(cpu) = self.cpu_seconds {
            line += &format!(", {cpu:.2} s of CPU, {:.2} per GB", cpu / gigabytes);
        }
        for (name, bytes) in [("resident", self.resident), ("peak", self.peak)] {
            if let Some(bytes) = bytes {
                line += &format!(
                    ", {name} {:.2} of the folder",
                    bytes as f64 / self.folder as f64
                );
            }
        }
        line
    }
}
