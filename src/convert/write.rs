//! Writes shards: rows are read, and rounded or quantized, natively on all cores; bytes are hashed while
//! written.

use std::path::Path;
#[cfg(feature = "native")]
use std::sync::mpsc::{Receiver, sync_channel};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
#[cfg(feature = "native")]
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::convert::disk::OutputFile;
use crate::convert::layout::{ShardPlan, padding};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::simd::vectorized;
use crate::weights::dtype::{DType, f16_to_f32, f32_to_f16, first_not_finite};
use crate::weights::manifest::{Shard, hex};
use crate::weights::quant::{QuantScheme, Rounding};
use crate::weights::storage::WeightFormat;

/// Bytes of a piece, the unit of hashing.
pub const PIECE_BYTES: u64 = 4 << 20;

/// Elements that one thread converts at a time.
const TASK: usize = 1 << 18;

/// The difference of stored values from the checkpoint's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantError {
    /// Largest absolute difference.
    pub worst: f32,
    /// Sum of squared differences.
    pub squares: f64,
    /// Sum of squared values.
    pub energy: f64,
    /// Number of values.
    pub count: u64,
}

impl QuantError {
    /// Root mean square of the differences, relative to that of the values.
    pub fn relative(&self) -> f64 {
        (self.squares / self.energy.max(f64::MIN_POSITIVE)).sqrt()
    }

    /// Root mean square of the differences.
    pub fn rms(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }

    fn of(values: &[f32], stored: &[f32]) -> Self {
        let mut error = Self {
            count: values.len() as u64,
            ..Self::default()
        };
        add_differences(values, stored, &mut error);
        error
    }

    /// Updates the largest difference; NaN counts as infinite.
    fn include(&mut self, difference: f32) {
        if difference.is_nan() || difference > self.worst {
            self.worst = difference;
        }
        if self.worst.is_nan() {
            self.worst = f32::INFINITY;
        }
    }

    /// Adds the error of another part.
    pub fn add(&mut self, other: &Self) {
        self.include(other.worst);
        self.squares += other.squares;
        self.energy += other.energy;
        self.count += other.count;
    }
}

/// Values that are added up side by side.
const LANES: usize = 8;

vectorized! {
    /// Adds the differences of `stored` from `values`, and the energy of `values`, to `error`.
    fn add_differences(values: &[f32], stored: &[f32], error: &mut QuantError) {
        let mut worst = [0.0_f32; LANES];
        let (mut squares, mut energy) = ([0.0_f64; LANES], [0.0_f64; LANES]);
        let (values, last_values) = values.as_chunks::<LANES>();
        let (stored, last_stored) = stored.as_chunks::<LANES>();
        for (values, stored) in values.iter().zip(stored) {
            for lane in 0..LANES {
                let difference = values[lane] - stored[lane];
                let size = difference.abs();
                worst[lane] = if size > worst[lane] { size } else { worst[lane] };
                let difference = f64::from(difference);
                squares[lane] += difference * difference;
                energy[lane] += f64::from(values[lane]) * f64::from(values[lane]);
            }
        }
        for (at, (value, stored)) in last_values.iter().zip(last_stored).enumerate() {
            let difference = f64::from(value - stored);
            error.include(difference.abs() as f32);
            squares[at] += difference * difference;
            energy[at] += f64::from(*value) * f64::from(*value);
        }
        for lane in 0..LANES {
            error.include(worst[lane]);
            error.squares += squares[lane];
            error.energy += energy[lane];
        }
        // The comparisons above pass over NaN, the sums do not.
        if error.squares.is_nan() {
            error.include(f32::NAN);
        }
    }
}

/// Quantized rows: words of codes, and scales, each with its minimum where the scheme has minimums.
pub struct Packed {
    /// Codes.
    pub words: Vec<u32>,
    /// Scales.
    pub scales: Vec<f16>,
}

impl Packed {
    /// Quantizes whole groups.
    pub fn quantized(values: &[f32], scheme: QuantScheme, rounding: Rounding) -> Self {
        let mut words = vec![0; scheme.words(values.len())];
        let mut scales = vec![f16::ZERO; scheme.scale_count(values.len())];
        scheme.quantize(values, rounding, &mut words, &mut scales);
        Self { words, scales }
    }
}

/// Reads the rows of tensors.
pub trait RowSource: Sync {
    /// `rows` of required tensor `index`, row-major.
    ///
    /// # Errors
    /// They cannot be read.
    fn rows(&self, index: usize, rows: std::ops::Range<usize>) -> Result<Vec<f32>, Fault>;

    /// `rows` of required tensor `index` in the form `scheme`, if the source holds exactly these codes and
    /// scales; otherwise rows are quantized.
    fn packed(
        &self,
        _index: usize,
        _rows: std::ops::Range<usize>,
        _scheme: QuantScheme,
    ) -> Option<Packed> {
        None
    }

    /// The name of required tensor `index` with its file, for messages.
    fn place(&self, index: usize) -> String;
}

/// Writes `plan` to `path`; returns the shard and the error of each block's tensor. `on_bytes` is called
/// with the number of bytes after each write.
///
/// # Errors
/// A value that is not finite, a source that cannot be read, a disk that is full.
pub fn write_shard(
    path: &Path,
    plan: &ShardPlan,
    formats: &[WeightFormat],
    rounding: Rounding,
    source: &dyn RowSource,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<(Shard, Vec<(usize, QuantError)>), Fault> {
    let (written, errors) = with_writer(path, on_bytes, |push| {
        let mut errors = Vec::new();
        if !push(plan.header.clone())? {
            return Ok(errors);
        }
        for block in &plan.blocks {
            let width = block_width(
                block.stored[0].1.elements(),
                block.rows.len(),
                formats[block.tensor],
            );
            let (parts, error) = encode(
                block.tensor,
                block.rows.clone(),
                width,
                formats[block.tensor],
                rounding,
                source,
            )?;
            errors.push((block.tensor, error));
            for ((_, entry), mut bytes) in block.stored.iter().zip(parts) {
                bytes.resize(bytes.len() + padding(entry), 0);
                if !push(bytes)? {
                    return Ok(errors);
                }
            }
        }
        Ok(errors)
    })?;
    let (bytes, sha256, pieces) = written;
    assert_eq!(bytes, plan.bytes, "length of {}", plan.name);
    let shard = Shard {
        name: plan.name.clone(),
        part: plan.part,
        bytes,
        sha256,
        pieces,
    };
    Ok((shard, errors))
}

/// Takes the next bytes of a shard; false once no more are taken.
type Push<'a> = dyn FnMut(Vec<u8>) -> Result<bool, Fault> + 'a;

/// Writes what `encode` sends to `path`, on a thread of its own.
#[cfg(feature = "native")]
fn with_writer<T>(
    path: &Path,
    on_bytes: &(dyn Fn(u64) + Sync),
    encode: impl FnOnce(&mut Push<'_>) -> Result<T, Fault>,
) -> Result<(Written, T), Fault> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(2);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || write_all(path, &receiver, on_bytes));
        // If sending fails, the writer has failed, and its error is returned.
        let encoded = encode(&mut |bytes| Ok(sender.send(bytes).is_ok()));
        drop(sender);
        let written = writer.join().expect("the writer does not panic");
        let encoded = encoded?;
        Ok((written?, encoded))
    })
}

/// Writes what `encode` sends to `path`.
#[cfg(not(feature = "native"))]
fn with_writer<T>(
    path: &Path,
    on_bytes: &(dyn Fn(u64) + Sync),
    encode: impl FnOnce(&mut Push<'_>) -> Result<T, Fault>,
) -> Result<(Written, T), Fault> {
    let mut writer = ShardWriter::create(path)?;
    let encoded = encode(&mut |bytes| {
        writer.write(&bytes)?;
        on_bytes(bytes.len() as u64);
        Ok(true)
    })?;
    Ok((writer.finish()?, encoded))
}

/// Weights per row, from the number of elements of a block's first stored tensor.
fn block_width(elements: usize, rows: usize, format: WeightFormat) -> usize {
    let width = elements / rows.max(1);
    match format {
        WeightFormat::Dense(_) => width,
        WeightFormat::Quantized(scheme) => width * scheme.per_word(),
    }
}

/// The fault of a file in the model folder that cannot be written.
pub fn write_fault(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(
        FaultKind::File,
        path.display().to_string(),
        format!("cannot be written ({error})"),
        match cfg!(feature = "native") {
            true => {
                "Make room or choose another folder, then run the same command again: finished shards are kept"
            }
            false => "Delete another model, or free space on this device, then convert again",
        },
    )
    .code(ErrorCode::of_io(error.kind()))
}

/// Fails if a tensor, or the scale of a group, overflows f16.
///
/// # Errors
/// The tensor, by name.
pub fn check_representable(
    errors: &[(usize, QuantError)],
    source: &dyn RowSource,
) -> Result<(), Fault> {
    match errors.iter().find(|(_, error)| !error.worst.is_finite()) {
        Some((tensor, _)) => Err(Fault::new(
            FaultKind::Model,
            source.place(*tensor),
            "holds values beyond the range of f16",
            "Convert with --quant f32",
        )),
        None => Ok(()),
    }
}

/// Replaces the file `path` atomically by `bytes`.
///
/// # Errors
/// It cannot be written.
#[cfg(feature = "native")]
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    crate::files::replace(path, bytes).map_err(|error| write_fault(path, &error))
}

type Written = (u64, String, Vec<String>);

#[cfg(feature = "native")]
fn write_all(
    path: &Path,
    chunks: &Receiver<Vec<u8>>,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Written, Fault> {
    let mut writer = ShardWriter::create(path)?;
    for chunk in chunks {
        writer.write(&chunk)?;
        on_bytes(chunk.len() as u64);
    }
    writer.finish()
}

/// A shard that is hashed while it is written.
struct ShardWriter<'a> {
    path: &'a Path,
    file: OutputFile,
    whole: Sha256,
    piece: Sha256,
    pieces: Vec<String>,
    written: u64,
}

impl<'a> ShardWriter<'a> {
    fn create(path: &'a Path) -> Result<Self, Fault> {
        let file = OutputFile::create(path).map_err(|error| write_fault(path, &error))?;
        Ok(Self {
            path,
            file,
            whole: Sha256::new(),
            piece: Sha256::new(),
            pieces: Vec::new(),
            written: 0,
        })
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        let written = self.file.write(chunk);
        written.map_err(|error| write_fault(self.path, &error))?;
        self.whole.update(chunk);
        let mut rest = chunk;
        while !rest.is_empty() {
            let room = (PIECE_BYTES - self.written % PIECE_BYTES) as usize;
            let (current, remaining) = rest.split_at(room.min(rest.len()));
            self.piece.update(current);
            self.written += current.len() as u64;
            if self.written.is_multiple_of(PIECE_BYTES) {
                self.pieces.push(hex(&self.piece.finalize_reset()));
            }
            rest = remaining;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Written, Fault> {
        if !self.written.is_multiple_of(PIECE_BYTES) {
            self.pieces.push(hex(&self.piece.finalize()));
        }
        let finished = self.file.finish();
        finished.map_err(|error| write_fault(self.path, &error))?;
        Ok((self.written, hex(&self.whole.finalize()), self.pieces))
    }
}

/// The bytes of the tensors that a block is stored as.
fn encode(
    index: usize,
    rows: std::ops::Range<usize>,
    width: usize,
    format: WeightFormat,
    rounding: Rounding,
    source: &dyn RowSource,
) -> Result<(Vec<Vec<u8>>, QuantError), Fault> {
    let step = (TASK / width.max(1)).max(1);
    let tasks: Vec<_> = rows.clone().step_by(step).collect();
    #[cfg(feature = "native")]
    let tasks = tasks.into_par_iter();
    #[cfg(not(feature = "native"))]
    let tasks = tasks.into_iter();
    let parts: Vec<(Vec<Vec<u8>>, QuantError)> = tasks
        .map(|start| {
            let rows = start..(start + step).min(rows.end);
            let values = source.rows(index, rows.clone())?;
            if let Some(at) = first_not_finite(&values) {
                return Err(Fault::model(
                    source.place(index),
                    format!("holds {} at element {}", values[at], start * width + at),
                ));
            }
            let packed = match format {
                WeightFormat::Quantized(scheme) => source.packed(index, rows, scheme),
                WeightFormat::Dense(_) => None,
            };
            Ok(encode_rows(&values, packed, format, rounding))
        })
        .collect::<Result<_, Fault>>()?;
    let mut bytes: Vec<Vec<u8>> = Vec::new();
    let mut error = QuantError::default();
    for (part, part_error) in parts {
        error.add(&part_error);
        if bytes.is_empty() {
            bytes = part;
        } else {
            for (all, part) in bytes.iter_mut().zip(part) {
                all.extend(part);
            }
        }
    }
    Ok((bytes, error))
}

/// The bytes of `values`, and their error. `packed` are the same rows as they come quantized.
fn encode_rows(
    values: &[f32],
    packed: Option<Packed>,
    format: WeightFormat,
    rounding: Rounding,
) -> (Vec<Vec<u8>>, QuantError) {
    match format {
        WeightFormat::Dense(DType::F16) => {
            let halves = f32_to_f16(values);
            let error = QuantError::of(values, &f16_to_f32(&halves));
            (vec![bytemuck::pod_collect_to_vec(&halves)], error)
        }
        WeightFormat::Dense(DType::BF16) => {
            let halves = values.iter().map(|&value| bf16::from_f32(value).to_bits());
            let bytes: Vec<u8> = bytemuck::pod_collect_to_vec(&halves.collect::<Vec<_>>());
            let error = QuantError::of(values, &DType::BF16.to_f32(&bytes));
            (vec![bytes], error)
        }
        WeightFormat::Dense(_) => (
            vec![bytemuck::pod_collect_to_vec(values)],
            QuantError::of(values, values),
        ),
        WeightFormat::Quantized(scheme) => {
            let packed = packed.unwrap_or_else(|| Packed::quantized(values, scheme, rounding));
            let Packed { words, scales } = packed;
            let mut stored = vec![0.0; values.len()];
            scheme.dequantize(&words, &scales, &mut stored);
            let bytes = vec![
                bytemuck::pod_collect_to_vec(&words),
                bytemuck::pod_collect_to_vec(scales.reinterpret_cast()),
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
    use crate::model::config::Family;
    use crate::weights::manifest::{Part, sha256_hex};
    use safetensors::SafeTensors;

    /// A matrix in memory.
    struct Matrix {
        values: Vec<f32>,
        width: usize,
    }

    impl RowSource for Matrix {
        fn rows(&self, _: usize, rows: std::ops::Range<usize>) -> Result<Vec<f32>, Fault> {
            Ok(self.values[rows.start * self.width..rows.end * self.width].to_vec())
        }

        fn place(&self, _: usize) -> String {
            "x.weight".into()
        }
    }

    impl Matrix {
        /// Its file, shard description and error.
        fn written(&self, format: WeightFormat) -> (Vec<u8>, Shard, QuantError) {
            let required = RequiredTensor {
                name: "x.weight".into(),
                shape: vec![self.values.len() / self.width, self.width],
                matrix: true,
                part: Part::Decoder,
            };
            let plan = lay_out(&[required], &[format], Family::ChatRex);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("shard");
            let written = write_shard(&path, &plan[0], &[format], Rounding::Nearest, self, &|_| ());
            let file = std::fs::read(&path).expect("a file");
            let (shard, mut errors) = written.expect("a disk with room");
            (file, shard, errors.remove(0).1)
        }
    }

    #[test]
    fn the_error_has_worst_and_rms() {
        // The scale of both groups is 1.
        let mut values = vec![0.0; 64];
        (values[0], values[1], values[2], values[3]) = (-128.0, 3.25, -7.5, 100.0);
        (values[32], values[33]) = (-128.0, 0.125);
        let matrix = Matrix { values, width: 64 };
        let scheme = QuantScheme::new(8, 32);
        let (file, _, error) = matrix.written(WeightFormat::Quantized(scheme));
        assert_eq!((error.worst, error.count), (0.5, 64));
        let squares = 0.25_f64.powi(2) + 0.5_f64.powi(2) + 0.125_f64.powi(2);
        assert_eq!(error.squares, squares);
        assert_eq!(error.rms(), (squares / 64.0).sqrt());
        let energy = matrix
            .values
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>();
        assert_eq!(error.relative(), (squares / energy).sqrt());
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
    fn overflow_is_an_infinite_error() {
        let scheme = QuantScheme::new(8, 32);
        for (value, format) in [
            (1e7, WeightFormat::Quantized(scheme)),
            (1e5, WeightFormat::Dense(DType::F16)),
        ] {
            let mut values = vec![0.5; 96];
            values[40] = value;
            let (_, _, error) = Matrix { values, width: 96 }.written(format);
            let mut all = QuantError::default();
            all.add(&error);
            all.add(&QuantError::default());
            assert_eq!(all.worst, f32::INFINITY);
        }
    }

    /// The tensor is longer than a piece and than a thread's share.
    #[test]
    fn every_piece_has_its_hash() {
        let values: Vec<f32> = (0..1_200_000).map(|i| i as f32).collect();
        let matrix = Matrix { values, width: 600 };
        let (file, shard, error) = matrix.written(WeightFormat::Dense(DType::F32));
        assert_eq!(error.count, 1_200_000);
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
