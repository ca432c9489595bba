//! Timing of work on a device: warm-up, repetition, medians.

use burn::tensor::{Device, Tensor};

use super::case::Case;
use super::plan::Plan;
use super::report::{Ceilings, Row};
use crate::engine::Host;
use crate::error::Fault;
use crate::gpu::readback::read;

/// Target duration of a timed block of short work in milliseconds.
const BLOCK: f64 = 30.0;

/// Runs of short work per block at most.
pub(super) const MAX_RUNS: usize = 256;

/// Runs of the block that estimates how long one run takes without the readback.
const TRIAL_RUNS: usize = 9;

/// Default number of timed blocks: on a GPU or the CPU, on a software adapter.
const REPEATS: [usize; 2] = [7, 3];

/// Runs per timed block.
#[derive(Clone, Copy)]
enum Runs {
    /// As many as fill [`BLOCK`].
    Fill,
    /// This number.
    Fixed(usize),
}

/// Measures cases and collects their rows.
pub struct Clock<'a, H> {
    host: &'a H,
    device: &'a Device,
    software: bool,
    repeats: usize,
    seconds: f64,
    on_row: &'a dyn Fn(&Row),
    rows: Vec<Row>,
    ceilings: Ceilings,
}

impl<'a, H: Host> Clock<'a, H> {
    /// A clock over the host's time.
    pub fn new(
        host: &'a H,
        device: &'a Device,
        software: bool,
        plan: &Plan,
        on_row: &'a dyn Fn(&Row),
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
            on_row,
            rows: Vec::new(),
            ceilings: Ceilings::default(),
        }
    }

    /// The device.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// The host.
    pub fn host(&self) -> &'a H {
        self.host
    }

    /// Whether the adapter is a software adapter.
    pub fn is_software(&self) -> bool {
        self.software
    }

    /// The ceilings measured so far.
    pub fn ceilings(&mut self) -> &mut Ceilings {
        &mut self.ceilings
    }

    /// All rows and the ceilings.
    pub fn finish(self) -> (Vec<Row>, Ceilings) {
        (self.rows, self.ceilings)
    }

    /// Measures short work, in blocks of so many runs that the readback at the end is negligible.
    /// `work` is given the number of the run. Returns the median in milliseconds, or `None` if the
    /// row was left out.
    ///
    /// # Errors
    /// The device fails.
    pub async fn kernel<const D: usize>(
        &mut self,
        case: Case,
        mut work: impl FnMut(usize) -> Tensor<D>,
    ) -> Result<Option<f64>, Fault> {
        let mut run = 0;
        self.measure(case, Runs::Fill, async |runs| {
            let mut last = None;
            for _ in 0..runs {
                last = Some(work(run));
                run += 1;
            }
            match last {
                Some(last) => wait_for(last).await,
                None => Ok(()),
            }
        })
        .await
    }

    /// Measures long work that ends with a readback of its own, one run per block.
    ///
    /// # Errors
    /// The device or the work fails.
    pub async fn stage(
        &mut self,
        case: Case,
        mut work: impl AsyncFnMut() -> Result<(), Fault>,
    ) -> Result<Option<f64>, Fault> {
        self.measure(case, Runs::Fixed(1), async |_| work().await)
            .await
    }

    /// Measures work of `runs` dependent steps per block; `work` is given the number of steps.
    ///
    /// # Errors
    /// The device or the work fails.
    pub async fn repeated(
        &mut self,
        case: Case,
        runs: usize,
        work: impl AsyncFnMut(usize) -> Result<(), Fault>,
    ) -> Result<Option<f64>, Fault> {
        self.measure(case, Runs::Fixed(runs), work).await
    }

    /// Adds a row that is the sum of other rows' medians.
    pub fn sum(&mut self, case: Case, parts: &[Option<f64>]) {
        let Some(sum) = parts.iter().copied().sum::<Option<f64>>() else {
            return self.push(case.left_out("a part was left out".into()));
        };
        self.push(case.row(vec![sum], None, 1));
    }

    async fn measure(
        &mut self,
        case: Case,
        runs: Runs,
        mut block: impl AsyncFnMut(usize) -> Result<(), Fault>,
    ) -> Result<Option<f64>, Fault> {
        if let Some(seconds) = case.estimate(&self.ceilings).filter(|s| *s > self.seconds) {
            self.push(case.left_out(format!("would take about {seconds:.0} s")));
            return Ok(None);
        }
        let start = self.host.milliseconds();
        block(1).await?;
        let first = self.host.milliseconds() - start;
        let runs = match runs {
            Runs::Fixed(runs) => runs,
            Runs::Fill => self.runs_per_block(&mut block).await?,
        };
        let mut times = Vec::new();
        while times.len() < self.repeats {
            times.push(self.time(&mut block, runs).await? / runs as f64);
            self.host.yield_now().await;
            if self.host.milliseconds() - start > 1e3 * self.seconds {
                break;
            }
        }
        let row = case.row(times, Some(first), runs);
        let median = row.milliseconds;
        self.push(row);
        Ok(median)
    }

    /// Runs that fill a block.
    async fn runs_per_block(
        &self,
        block: &mut impl AsyncFnMut(usize) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let one = self.time(block, 1).await?;
        if one >= BLOCK {
            return Ok(1);
        }
        let some = self.time(block, TRIAL_RUNS).await?;
        let each = ((some - one) / (TRIAL_RUNS - 1) as f64).max(BLOCK / MAX_RUNS as f64);
        Ok(((BLOCK / each) as usize).clamp(1, MAX_RUNS))
    }

    async fn time(
        &self,
        block: &mut impl AsyncFnMut(usize) -> Result<(), Fault>,
        runs: usize,
    ) -> Result<f64, Fault> {
        let start = self.host.milliseconds();
        block(runs).await?;
        Ok(self.host.milliseconds() - start)
    }

    fn push(&mut self, row: Row) {
        (self.on_row)(&row);
        self.rows.push(row);
    }
}

/// Waits until the device has computed `tensor`, by reading one of its values.
///
/// # Errors
/// The device fails.
pub async fn wait_for<const D: usize>(tensor: Tensor<D>) -> Result<(), Fault> {
    let one = tensor.slice([(); D].map(|()| 0..1));
    read("one value of the output", one).await.map(|_| ())
}
