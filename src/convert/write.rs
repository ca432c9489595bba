//! Writes shards: rows are read, rounded or packed on all cores, and hashed as they leave.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use half::{bf16, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::convert::layout::{ShardPlan, padding};
use crate::error::{Fault, FaultKind};
use crate::weights::dtype::DType;
use crate::weights::manifest::{Shard, hex};
use crate::weights::quant::Rounding;
use crate::weights::storage::WeightFormat;

/// Length of a piece in bytes.
pub const PIECE_BYTES: u64 = 4 << 20;

/// Elements that one core takes at a time.
const TASK: usize = 1 << 18;

/// How far stored values are from the checkpoint's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantError {
    /// Largest difference.
    pub worst: f32,
    /// Sum of squared differences.
    pub squares: f64,
    /// Sum of squared values.
    pub energy: f64,
    /// Values.
    pub count: u64,
}

impl QuantError {
    /// Root of the mean squared difference over that of the values.
    pub fn relative(&self) -> f64 {
        (self.squares / self.energy.max(f64::MIN_POSITIVE)).sqrt()
    }

    /// Root of the mean squared difference.
    pub fn rms(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }

    fn of(values: &[f32], stored: &[f32]) -> Self {
        let mut found = Self {
            count: values.len() as u64,
            ..Self::default()
        };
        for (a, b) in values.iter().zip(stored) {
            let difference = f64::from(a - b);
            found.note(difference.abs() as f32);
            found.squares += difference * difference;
            found.energy += f64::from(*a) * f64::from(*a);
        }
        found
    }

    /// A difference that is no number counts as the largest of all.
    fn note(&mut self, difference: f32) {
        if difference.is_nan() || difference > self.worst {
            self.worst = difference;
        }
        if self.worst.is_nan() {
            self.worst = f32::INFINITY;
        }
    }

    /// Adds another part's.
    pub fn add(&mut self, other: &Self) {
        self.note(other.worst);
        self.squares += other.squares;
        self.energy += other.energy;
        self.count += other.count;
    }
}

/// Where a tensor's rows come from.
pub trait Rows: Sync {
    /// Rows `from..to` of needed tensor `index`, row-major.
    ///
    /// # Errors
    /// They cannot be read.
    fn rows(&self, index: usize, rows: std::ops::Range<usize>) -> Result<Vec<f32>, Fault>;

    /// The needed tensor with its file, for messages.
    fn place(&self, index: usize) -> String;
}

/// Writes `plan` to `path` and tells each needed tensor's deviation; `done` hears of bytes.
///
/// # Errors
/// A value that is not finite, a source that cannot be read, a disk that is full.
pub fn write_shard(
    path: &Path,
    plan: &ShardPlan,
    forms: &[WeightFormat],
    rounding: Rounding,
    source: &dyn Rows,
    done: &(dyn Fn(u64) + Sync),
) -> Result<(Shard, Vec<(usize, QuantError)>), Fault> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(2);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || write_all(path, &receiver, done));
        let made = (|| {
            let mut deviations = Vec::new();
            // A writer that failed has closed its end; its own error is the one to tell.
            let _ = sender.send(plan.header.clone());
            for block in &plan.blocks {
                let width = block_width(
                    block.stored[0].1.elements(),
                    block.rows.len(),
                    forms[block.tensor],
                );
                let (parts, deviation) = encode(
                    block.tensor,
                    block.rows.clone(),
                    width,
                    forms[block.tensor],
                    rounding,
                    source,
                )?;
                deviations.push((block.tensor, deviation));
                for ((_, entry), mut bytes) in block.stored.iter().zip(parts) {
                    bytes.resize(bytes.len() + padding(entry), 0);
                    if sender.send(bytes).is_err() {
                        return Ok(deviations);
                    }
                }
            }
            Ok(deviations)
        })();
        drop(sender);
        let written = writer.join().expect("the writer does not panic");
        let deviations = made?;
        let (bytes, sha256, pieces) = written?;
        assert_eq!(bytes, plan.bytes, "length of {}", plan.name);
        let shard = Shard {
            name: plan.name.clone(),
            part: plan.part,
            bytes,
            sha256,
            pieces,
        };
        Ok((shard, deviations))
    })
}

/// Weights in a row, from the elements its first stored tensor has.
fn block_width(elements: usize, rows: usize, form: WeightFormat) -> usize {
    let width = elements / rows.max(1);
    match form {
        WeightFormat::Dense(_) => width,
        WeightFormat::Quantized(scheme) => width * scheme.per_word(),
    }
}

/// The fault of a file in the model folder that cannot be written.
pub fn unwritten(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(
        FaultKind::File,
        path.display().to_string(),
        format!("cannot be written ({error})"),
        "Make room or choose another folder, then run the same command again: finished shards are kept",
    )
}

type Written = (u64, String, Vec<String>);

fn write_all(
    path: &Path,
    chunks: &Receiver<Vec<u8>>,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Written, Fault> {
    let fail = |error| unwritten(path, &error);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(fail)?);
    let mut whole = Sha256::new();
    let mut piece = Sha256::new();
    let mut pieces = Vec::new();
    let mut written = 0_u64;
    for chunk in chunks {
        file.write_all(&chunk).map_err(fail)?;
        whole.update(&chunk);
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let room = (PIECE_BYTES - written % PIECE_BYTES) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            piece.update(now);
            written += now.len() as u64;
            if written.is_multiple_of(PIECE_BYTES) {
                pieces.push(hex(&piece.finalize_reset()));
            }
            rest = later;
        }
        done(chunk.len() as u64);
    }
    if !written.is_multiple_of(PIECE_BYTES) {
        pieces.push(hex(&piece.finalize()));
    }
    let file = file
        .into_inner()
        .map_err(|error| fail(error.into_error()))?;
    file.sync_all().map_err(fail)?;
    Ok((written, hex(&whole.finalize()), pieces))
}

/// The bytes of one block's stored tensors.
fn encode(
    index: usize,
    rows: std::ops::Range<usize>,
    width: usize,
    form: WeightFormat,
    rounding: Rounding,
    source: &dyn Rows,
) -> Result<(Vec<Vec<u8>>, QuantError), Fault> {
    let step = (TASK / width.max(1)).max(1);
    let tasks: Vec<_> = rows.clone().step_by(step).collect();
    let parts: Vec<(Vec<Vec<u8>>, QuantError)> = tasks
        .into_par_iter()
        .map(|start| {
            let values = source.rows(index, start..(start + step).min(rows.end))?;
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(Fault::model(
                    source.place(index),
                    format!("holds {} at element {}", values[at], start * width + at),
                ));
            }
            Ok(encode_rows(&values, form, rounding))
        })
        .collect::<Result<_, Fault>>()?;
    let mut bytes: Vec<Vec<u8>> = Vec::new();
    let mut deviation = QuantError::default();
    for (part, found) in parts {
        deviation.add(&found);
        if bytes.is_empty() {
            bytes = part;
        } else {
            for (all, part) in bytes.iter_mut().zip(part) {
                all.extend(part);
            }
        }
    }
    Ok((bytes, deviation))
}

fn encode_rows(
    values: &[f32],
    form: WeightFormat,
    rounding: Rounding,
) -> (Vec<Vec<u8>>, QuantError) {
    match form {
        WeightFormat::Dense(DType::F16) => {
            let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            let stored: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            (vec![bytes], QuantError::of(values, &stored))
        }
        WeightFormat::Dense(DType::BF16) => {
            let halves: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
            let stored: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            (vec![bytes], QuantError::of(values, &stored))
        }
        WeightFormat::Dense(_) => {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            (vec![bytes], QuantError::of(values, values))
        }
        WeightFormat::Quantized(scheme) => {
            let mut words = vec![0; scheme.words(values.len())];
            let mut scales = vec![f16::ZERO; values.len() / scheme.group];
            scheme.quantize(values, rounding, &mut words, &mut scales);
            let mut stored = vec![0.0; values.len()];
            scheme.dequantize(&words, &scales, &mut stored);
            let bytes = vec![
                words.iter().flat_map(|word| word.to_le_bytes()).collect(),
                scales
                    .iter()
                    .flat_map(|scale| scale.to_le_bytes())
                    .collect(),
            ];
            (bytes, QuantError::of(values, &stored))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::layout::lay_out;
    use crate::convert::required_tensors::RequiredTensor;
    use crate::weights::manifest::{Part, sha256_hex};
    use crate::weights::quant::QuantScheme;
    use safetensors::SafeTensors;

    /// One matrix in memory.
    struct Matrix {
        values: Vec<f32>,
        width: usize,
    }

    impl Rows for Matrix {
        fn rows(&self, _: usize, rows: std::ops::Range<usize>) -> Result<Vec<f32>, Fault> {
            Ok(self.values[rows.start * self.width..rows.end * self.width].to_vec())
        }

        fn place(&self, _: usize) -> String {
            "x.weight".into()
        }
    }

    impl Matrix {
        /// The file it becomes, its description and its deviation.
        fn written(&self, form: WeightFormat) -> (Vec<u8>, Shard, QuantError) {
            let needed = RequiredTensor {
                name: "x.weight".into(),
                shape: vec![self.values.len() / self.width, self.width],
                matrix: true,
                part: Part::Decoder,
            };
            let plan = lay_out(&[needed], &[form]);
            let name = format!("chatrex-write-{}-{}", std::process::id(), self.width);
            let path = std::env::temp_dir().join(name);
            let written = write_shard(&path, &plan[0], &[form], Rounding::Nearest, self, &|_| ());
            let file = std::fs::read(&path).expect("a file");
            std::fs::remove_file(&path).expect("a file");
            let (shard, mut deviations) = written.expect("a disk with room");
            (file, shard, deviations.remove(0).1)
        }
    }

    #[test]
    fn the_report_tells_worst_and_rms_error() {
        // The scale of either group is one, so codes are whole numbers.
        let mut values = vec![0.0; 64];
        (values[0], values[1], values[2], values[3]) = (-128.0, 3.25, -7.5, 100.0);
        (values[32], values[33]) = (-128.0, 0.125);
        let matrix = Matrix { values, width: 64 };
        let scheme = QuantScheme::new(8, 32);
        let (file, _, found) = matrix.written(WeightFormat::Quantized(scheme));
        assert_eq!((found.worst, found.count), (0.5, 64));
        let squares = 0.25_f64.powi(2) + 0.5_f64.powi(2) + 0.125_f64.powi(2);
        assert_eq!(found.squares, squares);
        assert_eq!(found.rms(), (squares / 64.0).sqrt());
        let energy = matrix
            .values
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>();
        assert_eq!(found.relative(), (squares / energy).sqrt());
        let tensors = SafeTensors::deserialize(&file).expect("a safetensors file");
        let scales = tensors.tensor("x.scales").expect("stored");
        assert_eq!(scales.data(), [0x00, 0x3c, 0x00, 0x3c]);
        let codes = tensors.tensor("x.qweight").expect("stored");
        // -128, 3, -8 (ties go to even) and 100, each with 128 added.
        assert_eq!(codes.data()[..4], [0, 131, 120, 228]);
        let (_, _, exact) = matrix.written(WeightFormat::Dense(DType::F32));
        assert_eq!((exact.worst, exact.squares), (0.0, 0.0));
    }

    #[test]
    fn what_overflows_is_never_a_small_error() {
        let scheme = QuantScheme::new(8, 32);
        for (value, form) in [
            (1e7, WeightFormat::Quantized(scheme)),
            (1e5, WeightFormat::Dense(DType::F16)),
        ] {
            let mut values = vec![0.5; 96];
            values[40] = value;
            let (_, _, found) = Matrix { values, width: 96 }.written(form);
            let mut all = QuantError::default();
            all.add(&found);
            all.add(&QuantError::default());
            assert_eq!(all.worst, f32::INFINITY);
        }
    }

    /// Longer than a piece and than what a core takes at a time.
    #[test]
    fn every_piece_has_its_hash() {
        let values: Vec<f32> = (0..1_200_000).map(|i| i as f32).collect();
        let matrix = Matrix { values, width: 600 };
        let (file, shard, found) = matrix.written(WeightFormat::Dense(DType::F32));
        assert_eq!(found.count, 1_200_000);
        assert_eq!(
            (shard.bytes, shard.sha256),
            (file.len() as u64, sha256_hex(&file))
        );
        let pieces: Vec<_> = file.chunks(PIECE_BYTES as usize).map(sha256_hex).collect();
        assert_eq!((pieces.len(), shard.pieces), (2, pieces));
        let stored = SafeTensors::deserialize(&file).expect("a safetensors file");
        let stored = stored.tensor("x.weight").expect("stored");
        let bytes = matrix.values.iter().flat_map(|value| value.to_le_bytes());
        assert!(bytes.eq(stored.data().iter().copied()));
    }
}
