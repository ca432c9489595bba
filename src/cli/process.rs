//! Memory and threads of the process.

use super::Command;

/// Prepares the process for `command`.
pub(super) fn prepare(command: &Command) {
    let computes_here = matches!(
        command,
        Command::Propose(_)
            | Command::Chat(_)
            | Command::Batch(_)
            | Command::Serve(_)
            | Command::Eval(_)
            | Command::Dialogues(_)
            | Command::Bench(_)
    );
    if !computes_here && !matches!(command, Command::Convert(_) | Command::FakeCheckpoint(_)) {
        keep_freed_memory();
    }
    // These also prepare pictures on other threads, which a pool of this thread alone would never serve.
    let prepares_elsewhere = matches!(command, Command::Batch(_) | Command::Serve(_));
    if computes_here && !(prepares_elsewhere && pool_threads() == 1) {
        // These compute on this thread. As one of rayon's threads it need not wait for others to start its work.
        let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
        pool.build_global().ok();
    }
}

/// The number of threads that rayon's pool will have: that of its variable `RAYON_NUM_THREADS`, if any, or of cores.
fn pool_threads() -> usize {
    let named = std::env::var("RAYON_NUM_THREADS").ok();
    let named = named.and_then(|text| text.parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    named.filter(|&threads| threads > 0).unwrap_or_else(cores)
}

/// Makes the allocator keep what is freed. Every layer allocates activations of many megabytes and frees them; from
/// the kernel each of their pages would cost a fault again. A command that loads a model calls it afterwards: weights
/// are in memory twice while they are packed, and what is freed then is of no use later.
pub(super) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, 1 << 30),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
    ] {
        // SAFETY: it sets an option of the allocator; other threads wait for work.
        unsafe { libc::mallopt(option, value) };
    }
}
