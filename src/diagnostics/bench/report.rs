//! What a run found, as data and as a table.

use serde::{Deserialize, Serialize};

use super::clock::Case;

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// How its weights are stored.
    pub stored: String,
    /// Blocks of its language model.
    pub layers: usize,
    /// `wgpu` or `cpu`.
    pub device: String,
    /// The adapter's name.
    pub adapter: String,
    /// True where no graphics card computes: none of the numbers are then a graphics card's.
    pub software: bool,
    /// What the device can do at most, measured in the same run.
    pub ceilings: Ceilings,
    /// All rows.
    pub rows: Vec<Row>,
    /// What one token takes.
    pub token: Option<Token>,
}

/// What a device can do at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes read and written by a copy, per second.
    pub copy_gigabytes_per_second: Option<f64>,
    /// Of a product of f32 matrices.
    pub matmul_gigaflops: Option<f64>,
}

impl Ceilings {
    /// Seconds that one run of `case` takes at least, as far as can be told.
    pub(super) fn estimate(&self, case: &Case) -> Option<f64> {
        let flops = Some(case.flops? / self.matmul_gigaflops? / 1e9);
        let bytes = (|| Some(case.bytes? / self.copy_gigabytes_per_second? / 1e9))();
        flops.into_iter().chain(bytes).reduce(f64::max)
    }
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `kernels`, `upn`, `towers` or `decoder`.
    pub group: String,
    /// What was done.
    pub name: String,
    /// With what sizes.
    pub shape: String,
    /// Median of the timed blocks; nothing where it was left out.
    pub milliseconds: Option<f64>,
    /// The fastest block.
    pub least: Option<f64>,
    /// The slowest block.
    pub most: Option<f64>,
    /// The first run, compiling included.
    pub first: Option<f64>,
    /// Timed blocks.
    pub blocks: usize,
    /// Runs in a block.
    pub times: usize,
    /// Of the bytes that must move.
    pub gigabytes_per_second: Option<f64>,
    /// Of the operations that must be done.
    pub gigaflops: Option<f64>,
    /// Of the ceiling that limits it: the copy where bytes are known, else the product.
    pub share: Option<f64>,
    /// Why it was not measured.
    pub left_out: Option<String>,
}

/// What one decoded token takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Tokens before it.
    pub past: usize,
    /// Launches of this project's own kernels.
    pub own_launches: f64,
    /// All dispatches, where the program around can count them.
    pub dispatches: Option<f64>,
    /// Bytes of weights, with keys and values as f32.
    pub bytes: u64,
    /// The median of the row without reading.
    pub milliseconds: Option<f64>,
    /// What of the copy's pace `bytes` in that time are.
    pub share: Option<f64>,
}

impl Report {
    /// Fills in the shares of the ceilings.
    pub(super) fn share(&mut self) {
        let copy = self.ceilings.copy_gigabytes_per_second;
        let product = self.ceilings.matmul_gigaflops;
        for row in &mut self.rows {
            let of = |part: Option<f64>, whole: Option<f64>| Some(part? / whole?);
            row.share = match row.gigabytes_per_second {
                Some(_) => of(row.gigabytes_per_second, copy),
                None => of(row.gigaflops, product),
            };
        }
        if let Some(token) = &mut self.token {
            let pace = |token: &Token| Some(token.bytes as f64 / token.milliseconds? / 1e6);
            token.share = pace(token).zip(copy).map(|(pace, copy)| pace / copy);
        }
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let mut lines = vec![self.heading()];
        lines.push(format!(
            "{:<8} {:<34} {:<30} {:>12} {:>12} {:>9} {:>10} {:>7}",
            "part", "what", "sizes", "ms", "first ms", "GB/s", "GFLOP/s", "share"
        ));
        lines.extend(self.rows.iter().map(Row::line));
        if let Some(token) = &self.token {
            lines.push(token.line());
        }
        lines.join("\n")
    }

    fn heading(&self) -> String {
        let Self {
            model,
            stored,
            layers,
            device,
            adapter,
            ..
        } = self;
        let what = format!("{model}, {stored}, {layers} blocks, on {device}: {adapter}");
        if self.software {
            format!("{what}\nsoftware: no graphics card computes here, these are no GPU numbers")
        } else {
            what
        }
    }
}

impl Row {
    /// The row for people.
    pub fn line(&self) -> String {
        let Self {
            group, name, shape, ..
        } = self;
        let head = format!("{group:<8} {name:<34} {shape:<30}");
        if let Some(why) = &self.left_out {
            return format!("{head} left out: {why}");
        }
        let number = |value: Option<f64>, width: usize, digits: usize| match value {
            Some(value) => format!("{value:>width$.digits$}"),
            None => format!("{:>width$}", "-"),
        };
        let share = self.share.map_or_else(
            || format!("{:>7}", "-"),
            |share| format!("{:>5.1} %", 100.0 * share),
        );
        format!(
            "{head} {} {} {} {} {share}",
            number(self.milliseconds, 12, 3),
            number(self.first, 12, 1),
            number(self.gigabytes_per_second, 9, 1),
            number(self.gigaflops, 10, 1),
        )
    }
}

impl Token {
    fn line(&self) -> String {
        let dispatches = self.dispatches.map_or_else(
            || "stock operations and replayed graphs are not counted".to_string(),
            |all| format!("{all:.0} dispatches in all"),
        );
        let share = self.share.map_or_else(String::new, |share| {
            format!(", {:.1} % of the copy's pace", 100.0 * share)
        });
        format!(
            "a token after {} others: {:.0} launches of own kernels ({dispatches}), {:.1} MB{share}",
            self.past,
            self.own_launches,
            self.bytes as f64 / 1e6,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(software: bool) -> Report {
        let row = |bytes: Option<f64>, flops: Option<f64>| Row {
            group: "kernels".into(),
            name: "gemv".into(),
            milliseconds: Some(1.0),
            gigabytes_per_second: bytes,
            gigaflops: flops,
            ..Row::default()
        };
        let mut report = Report {
            adapter: "llvmpipe".into(),
            software,
            ceilings: Ceilings {
                copy_gigabytes_per_second: Some(100.0),
                matmul_gigaflops: Some(1000.0),
            },
            rows: vec![
                row(Some(80.0), Some(160.0)),
                row(None, Some(500.0)),
                Row {
                    left_out: Some("would take about 90 s".into()),
                    ..row(None, None)
                },
            ],
            token: Some(Token {
                bytes: 50_000_000,
                milliseconds: Some(1.0),
                ..Token::default()
            }),
            ..Report::default()
        };
        report.share();
        report
    }

    #[test]
    fn shares_are_of_what_limits() {
        let report = report(false);
        let shares: Vec<_> = report.rows.iter().map(|row| row.share).collect();
        assert_eq!(shares, [Some(0.8), Some(0.5), None]);
        assert_eq!(report.token.and_then(|token| token.share), Some(0.5));
    }

    #[test]
    fn software_is_never_called_a_gpu() {
        let table = report(true).table();
        assert!(table.contains("software") && table.contains("no GPU numbers"));
        assert!(!report(false).table().contains("software"));
        let lines: Vec<&str> = table.lines().skip(2).collect();
        let ends: Vec<usize> = lines[..3].iter().map(|line| line.len()).collect();
        assert_eq!(ends[0], ends[1], "{table}");
        assert_eq!(ends[1], ends[2], "{table}");
        assert!(lines[3].ends_with("left out: would take about 90 s"));
    }

    #[test]
    fn what_is_not_known_is_not_estimated() {
        let case = Case {
            flops: Some(2e12),
            ..Case::default()
        };
        assert_eq!(Ceilings::default().estimate(&case), None);
        assert_eq!(report(false).ceilings.estimate(&case), Some(2.0));
    }
}
