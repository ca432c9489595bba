//! Duration of a run and its learning rate schedule.

use std::time::{Duration, Instant};

/// Length of a run: a number of steps, or wall-clock time summed over all resumptions.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    steps: Option<u64>,
    duration: Duration,
    spent_before: Duration,
    started: Instant,
}

impl Budget {
    /// Starts the clock. `seconds_before` is the time spent before this resumption.
    pub fn start(minutes: f64, steps: Option<u64>, seconds_before: f64) -> Self {
        Self {
            steps,
            duration: Duration::from_secs_f64(minutes.max(0.0) * 60.0),
            spent_before: Duration::from_secs_f64(seconds_before),
            started: Instant::now(),
        }
    }

    /// Seconds spent, including before the resumption.
    pub fn seconds(&self) -> f64 {
        (self.spent_before + self.started.elapsed()).as_secs_f64()
    }

    /// Fraction of the run completed before step `step` (from 0), in `[0, 1]`.
    pub fn progress(&self, step: u64) -> f64 {
        let progress = match self.steps {
            Some(steps) => step as f64 / steps.max(1) as f64,
            None => self.seconds() / self.duration.as_secs_f64().max(f64::MIN_POSITIVE),
        };
        progress.min(1.0)
    }

    /// True if no further step is due.
    pub fn is_over(&self, step: u64) -> bool {
        self.progress(step) >= 1.0
    }
}

/// Learning rate schedule: linear warmup, constant, linear decay.
#[derive(Clone, Copy, Debug)]
pub struct LrSchedule {
    /// Learning rate after the warmup.
    pub peak: f64,
    /// Warmup steps.
    pub warmup: u64,
    /// Fraction of the run at which the decay begins.
    pub hold: f64,
    /// Final learning rate as a fraction of `peak`.
    pub floor: f64,
}

impl LrSchedule {
    /// Learning rate of step `step` at fraction `progress` of the run.
    pub fn lr(&self, step: u64, progress: f64) -> f64 {
        let warmup = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let decay = ((progress - self.hold) / (1.0 - self.hold).max(1e-9)).clamp(0.0, 1.0);
        self.peak * warmup * (1.0 - decay * (1.0 - self.floor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_holds_and_decays() {
        let schedule = LrSchedule {
            peak: 2.0,
            warmup: 4,
            hold: 0.5,
            floor: 0.1,
        };
        assert_eq!(schedule.lr(0, 0.0), 0.5);
        assert_eq!(schedule.lr(9, 0.5), 2.0);
        assert!((schedule.lr(9, 0.75) - 1.1).abs() < 1e-12);
        assert!((schedule.lr(9, 1.0) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn steps_take_precedence_over_time() {
        let budget = Budget::start(0.0, Some(4), 100.0);
        assert_eq!(budget.progress(1), 0.25);
        assert!(!budget.is_over(3));
        assert!(budget.is_over(4));
        assert!(Budget::start(1.0, None, 60.0).is_over(0));
    }
}
