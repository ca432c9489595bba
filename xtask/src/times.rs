//! Measures the steps of a command and prints them as a table.

use std::cell::Cell;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Result;

static STEPS: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// When this program started its first step.
static START: OnceLock<Instant> = OnceLock::new();

thread_local! {
    /// The time of all steps of this thread.
    static RECORDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Runs a step and records its time, without the time of the steps inside it on the same thread.
///
/// # Errors
/// Those of `work`; the time is recorded anyway.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    START.get_or_init(|| started);
    let before = RECORDED.get();
    let result = work();
    let inner = RECORDED.get() - before;
    let took = started.elapsed().saturating_sub(inner);
    RECORDED.set(RECORDED.get() + took);
    steps().push((name.to_owned(), took));
    result
}

/// Prints the recorded steps, except those that took no time, and the time since the first began.
pub fn print() {
    let total = START.get().map(Instant::elapsed).unwrap_or_default();
    println!("\n{}", table(&steps(), total));
}

fn table(steps: &[(String, Duration)], total: Duration) -> String {
    const SHORTEST: Duration = Duration::from_millis(50);
    let mut rows: Vec<(&str, Duration)> =
        steps.iter().map(|(name, took)| (&**name, *took)).collect();
    rows.retain(|(_, took)| *took >= SHORTEST);
    rows.push(("total", total));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows
        .iter()
        .map(|(name, took)| format!("{name:width$} {:7.1} s", took.as_secs_f64()));
    lines.collect::<Vec<_>>().join("\n")
}

fn steps() -> std::sync::MutexGuard<'static, Vec<(String, Duration)>> {
    STEPS
        .lock()
        .expect("no thread panics while it holds the list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_does_not_count_the_steps_inside_it() {
        let pause = || std::thread::sleep(Duration::from_millis(200));
        let outer = step("outer", || {
            step("inner", || {
                pause();
                Ok(())
            })
        });
        assert!(outer.is_ok());
        let all = steps().clone();
        assert_eq!((&*all[0].0, &*all[1].0), ("inner", "outer"));
        assert!(all[0].1 >= Duration::from_millis(200));
        assert!(all[1].1 < all[0].1, "{all:?}");
    }

    #[test]
    fn the_table_has_no_empty_rows_and_ends_with_the_total() {
        let rows = [("web", 90), ("nothing", 0), ("native", 30)];
        let rows = rows.map(|(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)));
        assert_eq!(
            table(&rows, Duration::from_secs(100)),
            "web       90.0 s\nnative    30.0 s\ntotal    100.0 s"
        );
    }
}
