//! A row before it is measured, and how times become a row.

use super::report::{Ceilings, Row};

/// A row before it is measured.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// Its group, one of `GROUPS`.
    pub group: &'static str,
    /// The operation.
    pub name: String,
    /// Its sizes.
    pub shape: String,
    /// Bytes read and written at least, where memory bandwidth is the limit.
    pub bytes: Option<f64>,
    /// Floating-point operations, where arithmetic is the limit.
    pub flops: Option<f64>,
}

impl Case {
    /// A case of `group`.
    pub fn new(group: &'static str, name: impl Into<String>, shape: impl Into<String>) -> Self {
        Self {
            group,
            name: name.into(),
            shape: shape.into(),
            ..Self::default()
        }
    }

    /// Lower bound of the seconds that one run takes; `None` if the ceilings are unknown.
    pub fn estimate(&self, ceilings: &Ceilings) -> Option<f64> {
        let flops = Some(self.flops? / ceilings.matmul_gigaflops? / 1e9);
        let bytes = (|| Some(self.bytes? / ceilings.copy_gigabytes_per_second? / 1e9))();
        flops.into_iter().chain(bytes).reduce(f64::max)
    }

    /// The row of `times`, the milliseconds per run of every block of `runs` runs, after a run of `first`
    /// milliseconds.
    pub fn row(self, mut times: Vec<f64>, first: Option<f64>, runs: usize) -> Row {
        let milliseconds = median(&mut times);
        let per_second = |work: Option<f64>| Some(work? / milliseconds? / 1e6);
        Row {
            group: self.group.into(),
            name: self.name,
            shape: self.shape,
            milliseconds,
            least: times.first().copied(),
            most: times.last().copied(),
            first,
            blocks: times.len(),
            times: runs,
            gigabytes_per_second: per_second(self.bytes),
            gigaflops: per_second(self.flops),
            share: None,
            left_out: None,
        }
    }

    /// The row of a case that is not measured.
    pub fn left_out(self, why: String) -> Row {
        Row {
            group: self.group.into(),
            name: self.name,
            shape: self.shape,
            left_out: Some(why),
            ..Row::default()
        }
    }
}

/// A case of the group `kernels`.
pub fn kernel_case(name: impl Into<String>, shape: impl Into<String>) -> Case {
    Case::new("kernels", name, shape)
}

/// Sorts `values` and returns their median; the mean of the middle two of an even number.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_a_mean() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn rates_are_computed_from_the_median() {
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

    #[test]
    fn unknown_ceilings_give_no_estimate() {
        let case = Case {
            flops: Some(2e12),
            ..Case::default()
        };
        assert_eq!(case.estimate(&Ceilings::default()), None);
        let ceilings = Ceilings {
            copy_gigabytes_per_second: Some(100.0),
            matmul_gigaflops: Some(1000.0),
        };
        assert_eq!(case.estimate(&ceilings), Some(2.0));
    }
}
