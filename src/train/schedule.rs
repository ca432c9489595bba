//! How long a run lasts and how its learning rate moves.

use std::time::{Duration, Instant};

/// The end of a run: a number of steps, or wall-clock time counted over all resumptions.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    steps: Option<u64>,
    time: Duration,
    spent_before: Duration,
    since: Instant,
}

impl Budget {
    /// Starts the clock; `seconds_before` were spent before this resumption.
    pub fn start(minutes: f64, steps: Option<u64>, seconds_before: f64) -> Self {
        Self {
            steps,
            time: Duration::from_secs_f64(minutes.max(0.0) * 60.0),
            spent_before: Duration::from_secs_f64(seconds_before),
            since: Instant::now(),
        }
    }

    /// Seconds spent, earlier runs included.
    pub fn seconds(&self) -> f64 {
        (self.spent_before + self.since.elapsed()).as_secs_f64()
    }

    /// Share of the run that is over before step `step` (counted from 0), in `[0, 1]`.
    pub fn fraction(&self, step: u64) -> f64 {
        let fraction = match self.steps {
            Some(steps) => step as f64 / steps.max(1) as f64,
            None => self.seconds() / self.time.as_secs_f64().max(f64::MIN_POSITIVE),
        };
        fraction.min(1.0)
    }

    /// True when no step should follow.
    pub fn is_over(&self, step: u64) -> bool {
        self.fraction(step) >= 1.0
    }
}

/// A learning rate that rises over the first steps, holds, and falls linearly to the end.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The rate held.
    pub peak: f64,
    /// Steps of linear rise.
    pub warmup: u64,
    /// Share of the run after which the fall begins.
    pub hold: f64,
    /// Rate at the end over `peak`.
    pub floor: f64,
}

impl Schedule {
    /// The rate of step `step` when `fraction` of the run is over.
    pub fn rate(&self, step: u64, fraction: f64) -> f64 {
        let rise = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let fallen = ((fraction - self.hold) / (1.0 - self.hold).max(1e-9)).clamp(0.0, 1.0);
        self.peak * rise * (1.0 - fallen * (1.0 - self.floor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_holds_and_falls() {
        let schedule = Schedule {
            peak: 2.0,
            warmup: 4,
            hold: 0.5,
            floor: 0.1,
        };
        assert_eq!(schedule.rate(0, 0.0), 0.5);
        assert_eq!(schedule.rate(9, 0.5), 2.0);
        assert!((schedule.rate(9, 0.75) - 1.1).abs() < 1e-12);
        assert!((schedule.rate(9, 1.0) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn steps_decide_when_they_are_given() {
        let budget = Budget::start(0.0, Some(4), 100.0);
        assert_eq!(budget.fraction(1), 0.25);
        assert!(!budget.is_over(3));
        assert!(budget.is_over(4));
        assert!(Budget::start(1.0, None, 60.0).is_over(0));
    }
}
