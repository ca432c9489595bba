//! Writes shards: rows are read, rounded or packed on all cores, and hashed as they leave.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use half::{bf16, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::convert::form::Form;
use crate::convert::layout::{ShardPlan, padding};
use crate::fault::Fault;
use crate::weights::format::{Element, Shard, hex};
use crate::weights::quant::Rounding;

/// Length of a piece in bytes.
pub const PIECE_BYTES: u64 = 4 << 20;

/// Elements that one core takes at a time.
const TASK: usize = 1 << 18;

/// How far stored values are from the checkpoint's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Largest difference.
    pub worst: f32,
    /// Sum of squared differences.
    pub squares: f64,
    /// Sum of squared values.
    pub energy: f64,
    /// Values.
    pub count: u64,
}

impl Deviation {
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
            let difference = a - b;
            found.worst = found.worst.max(difference.abs());
            found.squares += f64::from(difference * difference);
            found.energy += f64::from(a * a);
        }
        found
    }

    /// Adds another part's.
    pub fn add(&mut self, other: &Self) {
        self.worst = self.worst.max(other.worst);
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
    forms: &[Form],
    rounding: Rounding,
    source: &dyn Rows,
    done: &(dyn Fn(u64) + Sync),
) -> Result<(Shard, Vec<(usize, Deviation)>), Fault> {
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
fn block_width(elements: usize, rows: usize, form: Form) -> usize {
    let width = elements / rows.max(1);
    match form {
        Form::Plain(_) => width,
        Form::Packed(scheme) => width * scheme.per_word(),
    }
}

type Written = (u64, String, Vec<String>);

fn write_all(
    path: &Path,
    chunks: &Receiver<Vec<u8>>,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Written, Fault> {
    let fail = |error: std::io::Error| {
        Fault::new(
            crate::fault::FaultKind::File,
            path.display().to_string(),
            format!("cannot be written ({error})"),
            "Make room or choose another folder, then run the same command again: finished shards are kept",
        )
    };
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
    form: Form,
    rounding: Rounding,
    source: &dyn Rows,
) -> Result<(Vec<Vec<u8>>, Deviation), Fault> {
    let step = (TASK / width.max(1)).max(1);
    let tasks: Vec<_> = rows.clone().step_by(step).collect();
    let parts: Vec<(Vec<Vec<u8>>, Deviation)> = tasks
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
    let mut deviation = Deviation::default();
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

fn encode_rows(values: &[f32], form: Form, rounding: Rounding) -> (Vec<Vec<u8>>, Deviation) {
    match form {
        Form::Plain(Element::F16) => {
            let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            let stored: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            (vec![bytes], Deviation::of(values, &stored))
        }
        Form::Plain(Element::BF16) => {
            let halves: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
            let stored: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
            let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            (vec![bytes], Deviation::of(values, &stored))
        }
        Form::Plain(_) => {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            (vec![bytes], Deviation::of(values, values))
        }
        Form::Packed(scheme) => {
            let mut words = vec![0; scheme.words(values.len())];
            let mut scales = vec![0; values.len() / scheme.group];
            scheme.pack(values, rounding, &mut words, &mut scales);
            let mut stored = vec![0.0; values.len()];
            scheme.unpack(&words, &scales, &mut stored);
            let bytes = vec![
                words.iter().flat_map(|word| word.to_le_bytes()).collect(),
                scales
                    .iter()
                    .flat_map(|scale| scale.to_le_bytes())
                    .collect(),
            ];
            (bytes, Deviation::of(values, &stored))
        }
    }
}
