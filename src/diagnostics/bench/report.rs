//! The result of a benchmark run, as data and as a table.

use serde::{Deserialize, Serialize};

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// How its weights are stored.
    pub stored: String,
    /// Decoder layers.
    pub layers: usize,
    /// `wgpu` or `cpu`.
    pub device: String,
    /// The adapter's name.
    pub adapter: String,
    /// Whether the adapter is a software adapter: the numbers are then no GPU numbers.
    pub software: bool,
    /// What the device reaches at most, measured in the same run.
    pub ceilings: Ceilings,
    /// All rows.
    pub rows: Vec<Row>,
    /// The cost of one decoded token.
    pub token: Option<Token>,
}

/// The rates that a device reaches at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes read and written per second by a copy on a GPU, bytes read per second on the CPU.
    pub copy_gigabytes_per_second: Option<f64>,
    /// Arithmetic of a matmul of f32 matrices.
    pub matmul_gigaflops: Option<f64>,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `kernels`, `upn`, `towers` or `decoder`.
    pub group: String,
    /// The operation.
    pub name: String,
    /// Its sizes.
    pub shape: String,
    /// Median time per run over the timed blocks; `None` if the row was left out.
    pub milliseconds: Option<f64>,
    /// Time per run of the fastest block.
    pub least: Option<f64>,
    /// Time per run of the slowest block.
    pub most: Option<f64>,
    /// Time of the first run, pipeline compilation included.
    pub first: Option<f64>,
    /// Number of timed blocks.
    pub blocks: usize,
    /// Runs per block.
    pub times: usize,
    /// Rate of the bytes that must move.
    pub gigabytes_per_second: Option<f64>,
    /// Rate of the floating-point operations.
    pub gigaflops: Option<f64>,
    /// Share of the ceiling: of the copy or of reading where bytes are known, else of the matmul.
    pub share: Option<f64>,
    /// Why the row was left out.
    pub left_out: Option<String>,
}

/// The cost of one decoded token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Tokens in the KV cache.
    pub past: usize,
    /// Launches of this crate's kernels.
    pub own_launches: f64,
    /// All dispatches, where the host program can count them.
    pub dispatches: Option<f64>,
    /// Bytes read: weights, keys and values.
    pub bytes: u64,
    /// Median time per token without readback.
    pub milliseconds: Option<f64>,
    /// Rate of `bytes` as a share of the ceiling.
    pub share: Option<f64>,
}

impl Report {
    /// Computes the shares of the ceilings.
    pub(super) fn fill_shares(&mut self) {
        let copy = self.ceilings.copy_gigabytes_per_second;
        let matmul = self.ceilings.matmul_gigaflops;
        for row in &mut self.rows {
            let ratio = |rate: Option<f64>, ceiling: Option<f64>| Some(rate? / ceiling?);
            row.share = match row.gigabytes_per_second {
                Some(_) => ratio(row.gigabytes_per_second, copy),
                None => ratio(row.gigaflops, matmul),
            };
        }
        if let Some(token) = &mut self.token {
            let rate = |token: &Token| Some(token.bytes as f64 / token.milliseconds? / 1e6);
            token.share = rate(token).zip(copy).map(|(rate, copy)| rate / copy);
        }
    }

    /// The report as a table.
    pub fn table(&self) -> String {
        let mut lines = vec![self.heading()];
        lines.push(format!(
            "{:<8} {:<34} {:<30} {:>12} {:>12} {:>9} {:>10} {:>7}",
            "group", "operation", "sizes", "ms", "first ms", "GB/s", "GFLOP/s", "share"
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
        let heading = format!("{model}, {stored}, {layers} layers, on {device}: {adapter}");
        if self.software {
            format!("{heading}\nsoftware adapter: these are no GPU numbers")
        } else {
            heading
        }
    }
}

impl Row {
    /// The row as a line of the table.
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
            || "burn's and those of replayed graphs are not counted".to_string(),
            |all| format!("{all:.0} dispatches in total"),
        );
        let share = self.share.map_or_else(String::new, |share| {
            format!(", {:.1} % of the ceiling", 100.0 * share)
        });
        format!(
            "one token after {}: {:.0} launches of this crate's kernels ({dispatches}), {:.1} MB{share}",
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
        report.fill_shares();
        report
    }

    #[test]
    fn shares_refer_to_the_limiting_ceiling() {
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
}
