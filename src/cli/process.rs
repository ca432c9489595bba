//! Memory and threads of the process.

use super::Command;

/// Prepares the process for `command`.
pub(super) fn prepare(command: &Command) {
    if !matches!(command, Command::Convert(_) | Command::FakeCheckpoint(_)) {
        keep_freed_memory();
    }
    if matches!(
        command,
        Command::Propose(_) | Command::Chat(_) | Command::Eval(_) | Command::Bench(_)
    ) {
        // These compute on this thread. As one of rayon's threads it need not wait for others to start its work.
        // Other commands start threads that a pool of this thread alone would never serve.
        let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
        pool.build_global().ok();
    }
}

/// Makes the allocator keep what is freed. Every layer allocates activations of many megabytes and frees them; from
/// the kernel each of their pages would cost a fault again.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, 1 << 30),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
    ] {
        // SAFETY: it sets an option of the allocator, and no other thread runs yet.
        unsafe { libc::mallopt(option, value) };
    }
}
