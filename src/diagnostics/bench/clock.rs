//! Timing of work on a device.

use burn::tensor::{Device, Tensor};

use super::Plan;
use super::report::{Ceilings, Row};
use crate::engine::Host;
use crate::error::Fault;
use crate::gpu::readback::read;

/// Milliseconds that a timed block of short work should take.
const BLOCK: f64 = 30.0;

/// Times short work is done in one block at most.
pub(super) const MOST: usize = 256;

/// Short work is tried so many times to find out how long it takes beside the reading.
const TRIED: usize = 9;

/// Timed blocks where the plan does not say.
const REPEATS: [usize; 2] = [7, 3];

/// How often work is done in a timed block.
#[derive(Clone, Copy)]
enum Runs {
    /// As often as it takes.
    Short,
    /// Always so many times.
    Times(usize),
}

/// A row before it is measured.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// The group it belongs to.
    pub group: &'static str,
    /// What is done.
    pub name: String,
    /// With what sizes.
    pub shape: String,
    /// Bytes that must move at least, where that is what limits it.
    pub bytes: Option<f64>,
    /// Operations that must be done, where those limit it.
    pub flops: Option<f64>,
}

/// Measures, and keeps what it measured.
pub struct Clock<'a, H> {
    host: &'a H,
    device: &'a Device,
    software: bool,
    repeats: usize,
    seconds: f64,
    tell: &'a dyn Fn(&Row),
    rows: Vec<Row>,
    ceilings: Ceilings,
}

impl<'a, H: Host> Clock<'a, H> {
    /// A clock by the host's time.
    pub fn new(
        host: &'a H,
        device: &'a Device,
        software: bool,
        plan: &Plan,
        tell: &'a dyn Fn(&Row),
    ) -> Self {
        Self {
            host,
            device,
            software,
            repeats: match plan.repeats {
                0 => REPEATS[usize::from(software)],
                repeats => repeats,
            },
            seconds: plan.seconds,
            tell,
            rows: Vec::new(),
            ceilings: Ceilings::default(),
        }
    }

    /// The device.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Whether no graphics card computes.
    pub fn is_software(&self) -> bool {
        self.software
    }

    /// What the device can do at most, as far as it is known.
    pub fn ceilings(&mut self) -> &mut Ceilings {
        &mut self.ceilings
    }

    /// All rows and the ceilings.
    pub fn finish(self) -> (Vec<Row>, Ceilings) {
        (self.rows, self.ceilings)
    }

    /// Measures work that is short: as many times in a block as make its end's reading not count.
    /// `work` is given the number of its turn. The median in milliseconds, unless it was left out.
    ///
    /// # Errors
    /// The device fails.
    pub async fn kernel<const D: usize>(
        &mut self,
        case: Case,
        mut work: impl FnMut(usize) -> Tensor<D>,
    ) -> Result<Option<f64>, Fault> {
        let mut turn = 0;
        self.measure(case, Runs::Short, async |times| {
            let mut last = None;
            for _ in 0..times {
                last = Some(work(turn));
                turn += 1;
            }
            match last {
                Some(last) => settle(last).await,
                None => Ok(()),
            }
        })
        .await
    }

    /// Measures work that takes long and ends with a reading of its own.
    ///
    /// # Errors
    /// The device or the work fails.
    pub async fn stage(
        &mut self,
        case: Case,
        mut work: impl AsyncFnMut() -> Result<(), Fault>,
    ) -> Result<Option<f64>, Fault> {
        self.measure(case, Runs::Times(1), async |_| work().await)
            .await
    }

    /// Measures work that is done several times in a row; `work` is told how often.
    ///
    /// # Errors
    /// The device or the work fails.
    pub async fn repeated(
        &mut self,
        case: Case,
        times: usize,
        work: impl AsyncFnMut(usize) -> Result<(), Fault>,
    ) -> Result<Option<f64>, Fault> {
        self.measure(case, Runs::Times(times), work).await
    }

    /// A row that is the sum of others.
    pub fn sum(&mut self, case: Case, parts: &[Option<f64>]) {
        let Some(sum) = parts.iter().copied().sum::<Option<f64>>() else {
            return self.keep(case.left_out("a part of it was left out".into()));
        };
        self.keep(case.row(vec![sum], None, 1));
    }

    async fn measure(
        &mut self,
        case: Case,
        runs: Runs,
        mut block: impl AsyncFnMut(usize) -> Result<(), Fault>,
    ) -> Result<Option<f64>, Fault> {
        if let Some(seconds) = self.ceilings.estimate(&case).filter(|s| *s > self.seconds) {
            self.keep(case.left_out(format!("would take about {seconds:.0} s")));
            return Ok(None);
        }
        let begun = self.host.milliseconds();
        block(1).await?;
        let first = self.host.milliseconds() - begun;
        let times = match runs {
            Runs::Times(times) => times,
            Runs::Short => self.enough(&mut block).await?,
        };
        let mut found = Vec::new();
        while found.len() < self.repeats {
            found.push(self.timed(&mut block, times).await? / times as f64);
            self.host.yield_now().await;
            if self.host.milliseconds() - begun > 1e3 * self.seconds {
                break;
            }
        }
        let row = case.row(found, Some(first), times);
        let median = row.milliseconds;
        self.keep(row);
        Ok(median)
    }

    /// How often short work is done in a block.
    async fn enough(
        &self,
        block: &mut impl AsyncFnMut(usize) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let one = self.timed(block, 1).await?;
        if one >= BLOCK {
            return Ok(1);
        }
        let some = self.timed(block, TRIED).await?;
        let each = ((some - one) / (TRIED - 1) as f64).max(BLOCK / MOST as f64);
        Ok(((BLOCK / each) as usize).clamp(1, MOST))
    }

    async fn timed(
        &self,
        block: &mut impl AsyncFnMut(usize) -> Result<(), Fault>,
        times: usize,
    ) -> Result<f64, Fault> {
        let begun = self.host.milliseconds();
        block(times).await?;
        Ok(self.host.milliseconds() - begun)
    }

    fn keep(&mut self, row: Row) {
        (self.tell)(&row);
        self.rows.push(row);
    }
}

/// Waits until the device has computed `tensor`, by reading one value of it.
///
/// # Errors
/// The device fails.
pub async fn settle<const D: usize>(tensor: Tensor<D>) -> Result<(), Fault> {
    let one = tensor.slice([(); D].map(|()| 0..1));
    read("a measured value", one).await.map(|_| ())
}

impl Case {
    fn row(self, mut found: Vec<f64>, first: Option<f64>, times: usize) -> Row {
        let middle = median(&mut found);
        let per_second = |work: Option<f64>| Some(work? / middle? / 1e6);
        Row {
            group: self.group.into(),
            name: self.name,
            shape: self.shape,
            milliseconds: middle,
            least: found.first().copied(),
            most: found.last().copied(),
            first,
            blocks: found.len(),
            times,
            gigabytes_per_second: per_second(self.bytes),
            gigaflops: per_second(self.flops),
            share: None,
            left_out: None,
        }
    }

    fn left_out(self, why: String) -> Row {
        Row {
            group: self.group.into(),
            name: self.name,
            shape: self.shape,
            left_out: Some(why),
            ..Row::default()
        }
    }
}

/// The middle of what was found, which is sorted; the mean of two where they are even in number.
pub fn median(found: &mut [f64]) -> Option<f64> {
    found.sort_by(f64::total_cmp);
    let half = found.len() / 2;
    match found.len() {
        0 => None,
        n if n % 2 == 1 => Some(found[half]),
        _ => Some((found[half - 1] + found[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn rates_follow_from_the_median() {
        let case = Case {
            bytes: Some(4e6),
            flops: Some(8e6),
            ..Case::default()
        };
        let row = case.row(vec![8.0, 2.0, 4.0], Some(50.0), 1);
        assert_eq!(row.milliseconds, Some(4.0));
        assert_eq!((row.least, row.most), (Some(2.0), Some(8.0)));
        assert_eq!(row.gigabytes_per_second, Some(1.0));
        assert_eq!(row.gigaflops, Some(2.0));
    }
}
