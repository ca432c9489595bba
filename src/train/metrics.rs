//! Log of a run: one JSON object per line, a plot of it, and a progress bar.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use serde_json::{Map, Value};

use crate::error::Fault;

/// Writes `metrics.jsonl` and shows progress on standard error.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    bar: ProgressBar,
}

impl MetricsLog {
    /// Opens `FOLDER/metrics.jsonl`; without `resume` an existing log is replaced.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(folder: &Path, resume: bool, title: &str) -> Result<Self, Fault> {
        let path = folder.join("metrics.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(resume)
            .truncate(!resume)
            .open(&path)
            .map_err(|error| Fault::file(&path, error))?;
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent}% {msg}")
            .expect("the template is valid");
        let bar = ProgressBar::new(1000)
            .with_style(style)
            .with_prefix(title.to_owned());
        Ok(Self { path, file, bar })
    }

    /// Sets the progress bar to `progress` of the run.
    pub fn show(&self, progress: f64, message: String) {
        self.bar.set_position((progress * 1000.0) as u64);
        self.bar.set_message(message);
    }

    /// Writes one line; if the progress bar is hidden, also to standard error.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn log(&mut self, entry: Map<String, Value>) -> Result<(), Fault> {
        let line = Value::Object(entry).to_string();
        if self.bar.is_hidden() {
            eprintln!("{line}");
        }
        writeln!(self.file, "{line}").map_err(|error| Fault::file(&self.path, error))
    }

    /// Plots every metric over the steps into `curve.svg`, scaled by its maximum (in the legend).
    ///
    /// # Errors
    /// The log cannot be read or the plot cannot be written.
    pub fn plot(&self) -> Result<(), Fault> {
        let text =
            std::fs::read_to_string(&self.path).map_err(|error| Fault::file(&self.path, error))?;
        let image = self.path.with_file_name("curve.svg");
        plot_curves(&curves(&text), &image).map_err(|error| Fault::file(&image, error))
    }
}

/// Points `(step, value)` by metric name, without `seconds`.
fn curves(log_text: &str) -> BTreeMap<String, Vec<(f64, f64)>> {
    let mut curves = BTreeMap::<_, Vec<_>>::new();
    for line in log_text.lines() {
        let Ok(Value::Object(entry)) = serde_json::from_str(line) else {
            continue;
        };
        let Some(step) = entry.get("step").and_then(Value::as_f64) else {
            continue;
        };
        for (name, value) in &entry {
            if let Some(value) = value.as_f64()
                && name != "step"
                && name != "seconds"
            {
                curves.entry(name.clone()).or_default().push((step, value));
            }
        }
    }
    curves
}

fn plot_curves(
    curves: &BTreeMap<String, Vec<(f64, f64)>>,
    image: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let last = curves
        .values()
        .flatten()
        .map(|point| point.0)
        .fold(1.0, f64::max);
    let root = SVGBackend::new(image, (1000, 600)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(40)
        .build_cartesian_2d(0.0..last, 0.0..1.05)?;
    chart.configure_mesh().x_desc("step").draw()?;
    for (index, (name, points)) in curves.iter().enumerate() {
        let max = points.iter().map(|point| point.1.abs()).fold(1.0, f64::max);
        let color = Palette99::pick(index).stroke_width(1);
        let label = if max > 1.0 {
            format!("{name} / {max:.3}")
        } else {
            name.clone()
        };
        chart
            .draw_series(LineSeries::new(
                points.iter().map(|&(step, value)| (step, value / max)),
                color,
            ))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], color));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_lines_and_plots_them() {
        let folder = std::env::temp_dir().join(format!("chatrex-metrics-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let entry = |step: u64, loss: f64| {
            let value = serde_json::json!({"step": step, "loss": loss, "note": "x"});
            value.as_object().unwrap().clone()
        };
        for (resume, step) in [(false, 1), (true, 2)] {
            let mut metrics = MetricsLog::open(&folder, resume, "t").unwrap();
            metrics.log(entry(step, 3.0 / step as f64)).unwrap();
            metrics.plot().unwrap();
        }
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        assert_eq!(curves(&text)["loss"], [(1.0, 3.0), (2.0, 1.5)]);
        let image = std::fs::read_to_string(folder.join("curve.svg")).unwrap();
        assert!(image.contains("loss / 3.000"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
