//! Layout of a model folder: tensors split into row blocks, blocks assigned to shards.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::json;

use crate::convert::required_tensors::RequiredTensor;
use crate::model::config::Family;
use crate::weights::dtype::DType;
use crate::weights::manifest::{Part, TensorEntry};
use crate::weights::quant::{QWEIGHT, SCALES};
use crate::weights::storage::WeightFormat;

/// Maximum bytes of a shard's tensors.
const SHARD_BYTES: u64 = 250 << 20;

/// Alignment of tensors in bytes.
const ALIGNMENT: u64 = 8;

/// Consecutive rows of a tensor that are stored together.
#[derive(Clone, Debug)]
pub struct Block {
    /// Index of the required tensor.
    pub tensor: usize,
    /// Its rows; a row spans all axes but the first.
    pub rows: Range<usize>,
    /// The tensors it is stored as: the values, or codes and scales.
    pub stored: Vec<(String, TensorEntry)>,
}

/// A shard before it is written.
#[derive(Clone, Debug)]
pub struct ShardPlan {
    /// Its file's name.
    pub name: String,
    /// The part its tensors belong to.
    pub part: Part,
    /// Length of the file.
    pub bytes: u64,
    /// The bytes before the first tensor.
    pub header: Vec<u8>,
    /// The blocks, in order.
    pub blocks: Vec<Block>,
}

/// Splits tensors into blocks and assigns them to shards, part by part; no shard has two parts.
pub fn lay_out(
    required: &[RequiredTensor],
    formats: &[WeightFormat],
    family: Family,
) -> Vec<ShardPlan> {
    let mut shards: Vec<(Part, Vec<Block>)> = Vec::new();
    let mut filled = 0;
    for (index, (tensor, format)) in required.iter().zip(formats).enumerate() {
        for block in blocks(index, tensor, *format) {
            let bytes: u64 = block.stored.iter().map(|(_, entry)| aligned(entry)).sum();
            let fits = shards
                .last()
                .is_some_and(|(part, _)| *part == tensor.part && filled + bytes <= SHARD_BYTES);
            if !fits {
                shards.push((tensor.part, Vec::new()));
                filled = 0;
            }
            filled += bytes;
            let last = shards.len() - 1;
            shards[last].1.push(block);
        }
    }
    let mut counts = BTreeMap::<Part, usize>::new();
    for (part, _) in &shards {
        *counts.entry(*part).or_default() += 1;
    }
    let mut numbers = BTreeMap::<Part, usize>::new();
    shards
        .into_iter()
        .map(|(part, blocks)| {
            let number = numbers.entry(part).or_default();
            *number += 1;
            place(
                shard_name(part, family),
                part,
                *number,
                counts[&part],
                blocks,
            )
        })
        .collect()
}

fn blocks(index: usize, tensor: &RequiredTensor, format: WeightFormat) -> Vec<Block> {
    let rows = tensor.shape.first().copied().unwrap_or(1);
    let width: usize = tensor.shape.iter().skip(1).product();
    let ranges: Vec<Range<usize>> = format.blocks(rows, width).collect();
    let count = ranges.len();
    ranges
        .into_iter()
        .enumerate()
        .map(|(block, rows)| {
            let suffix = if count > 1 {
                format!(".rows.{block}")
            } else {
                String::new()
            };
            let entry = |dtype, shape| TensorEntry {
                shard: String::new(),
                offset: 0,
                dtype,
                shape,
            };
            let stored = match format {
                WeightFormat::Dense(dtype) => {
                    let mut shape = tensor.shape.clone();
                    if let Some(first) = shape.first_mut() {
                        *first = rows.len();
                    }
                    vec![(format!("{}{suffix}", tensor.name), entry(dtype, shape))]
                }
                WeightFormat::Quantized(scheme) => {
                    let stem = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
                    let codes = vec![rows.len(), scheme.words(width)];
                    let scales = scheme.scales_shape([rows.len(), width]);
                    vec![
                        (format!("{stem}{QWEIGHT}{suffix}"), entry(DType::U32, codes)),
                        (format!("{stem}{SCALES}{suffix}"), entry(DType::F16, scales)),
                    ]
                }
            };
            Block {
                tensor: index,
                rows,
                stored,
            }
        })
        .collect()
}

fn bytes(entry: &TensorEntry) -> u64 {
    entry.bytes().expect("tensors of a checkpoint fit 64 bits")
}

fn aligned(entry: &TensorEntry) -> u64 {
    bytes(entry).next_multiple_of(ALIGNMENT)
}

/// What the shards of a part are called.
fn shard_name(part: Part, family: Family) -> &'static str {
    match (part, family) {
        (Part::Upn, Family::DetectorChat) => "detector",
        (Part::Upn, _) => "upn",
        (Part::Towers, Family::DetectorChat) => "projector",
        (Part::Towers, _) => "towers",
        (Part::Decoder, _) => "decoder",
    }
}

/// Assigns offsets to the blocks of a shard. Safetensors allows no gaps, so `__pad.N` tensors fill
/// them.
fn place(
    part_name: &str,
    part: Part,
    number: usize,
    count: usize,
    mut blocks: Vec<Block>,
) -> ShardPlan {
    let name = if count == 1 {
        format!("{part_name}.safetensors")
    } else {
        format!("{part_name}-{number:05}-of-{count:05}.safetensors")
    };
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    let mut pads = 0;
    for (name, entry) in blocks.iter().flat_map(|block| &block.stored) {
        let end = at + bytes(entry);
        let dtype = serde_json::to_value(entry.dtype).expect("a plain name");
        header.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": entry.shape, "data_offsets": [at, end]}),
        );
        at += aligned(entry);
        if at > end {
            let pad = json!({"dtype": "U8", "shape": [at - end], "data_offsets": [end, at]});
            header.insert(format!("__pad.{pads}"), pad);
            pads += 1;
        }
    }
    let mut text = serde_json::to_vec(&header).expect("plain data");
    text.resize(text.len().next_multiple_of(ALIGNMENT as usize), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    let mut offset = header.len() as u64;
    for (_, entry) in blocks.iter_mut().flat_map(|block| &mut block.stored) {
        entry.shard = name.clone();
        entry.offset = offset;
        offset += aligned(entry);
    }
    ShardPlan {
        name,
        part,
        bytes: offset,
        header,
        blocks,
    }
}

/// Number of zero bytes after a tensor.
pub fn padding(entry: &TensorEntry) -> usize {
    (aligned(entry) - bytes(entry)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::quant::QuantScheme;
    use crate::weights::storage::BLOCK_BYTES;
    use safetensors::SafeTensors;

    fn required(part: Part, name: &str, shape: &[usize]) -> RequiredTensor {
        RequiredTensor {
            name: name.into(),
            shape: shape.into(),
            matrix: shape.len() == 2,
            part,
        }
    }

    /// Odd shapes in every part, and a decoder of real width.
    fn model() -> (Vec<RequiredTensor>, Vec<WeightFormat>) {
        let quantized = |bits| WeightFormat::Quantized(QuantScheme::new(bits, 32));
        let half = WeightFormat::Dense(DType::F16);
        let single = WeightFormat::Dense(DType::F32);
        let tensors = [
            (Part::Upn, "a.bias", vec![3], single),
            (Part::Upn, "a.weight", vec![5, 7], half),
            (Part::Upn, "scalar", vec![], single),
            (Part::Towers, "patch.weight", vec![24, 3, 4, 4], half),
            (
                Part::Decoder,
                "model.embed_tokens.weight",
                vec![32_104, 4096],
                quantized(8),
            ),
            (Part::Decoder, "up.weight", vec![11_008, 4096], quantized(4)),
            (Part::Decoder, "norm.weight", vec![4096], single),
            (Part::Decoder, "lm_head.weight", vec![32_104, 4096], half),
        ];
        tensors
            .into_iter()
            .map(|(part, name, shape, format)| (required(part, name, &shape), format))
            .unzip()
    }

    #[test]
    fn every_row_is_stored_once_in_blocks_that_fit_a_binding() {
        let (tensors, formats) = model();
        let plan = lay_out(&tensors, &formats, Family::ChatRex);
        let mut next = (0, 0);
        for shard in &plan {
            for block in &shard.blocks {
                let tensor = &tensors[block.tensor];
                let rows = tensor.shape.first().copied().unwrap_or(1);
                if block.tensor != next.0 {
                    let ended = tensors[next.0].shape.first().copied().unwrap_or(1);
                    assert_eq!((next.0 + 1, next.1), (block.tensor, ended));
                    next = (block.tensor, 0);
                }
                assert_eq!((tensor.part, block.rows.start), (shard.part, next.1));
                assert!(block.rows.end <= rows);
                next.1 = block.rows.end;
                for (name, entry) in &block.stored {
                    assert!(4 * entry.elements() as u64 <= BLOCK_BYTES, "{name}");
                    assert_eq!(
                        entry.shape.first().copied().unwrap_or(1),
                        block.rows.len(),
                        "{name}"
                    );
                }
            }
        }
        assert_eq!(next, (tensors.len() - 1, 32_104));
        let names: Vec<&str> = plan
            .iter()
            .flat_map(|shard| &shard.blocks)
            .flat_map(|block| &block.stored)
            .map(|(name, _)| name.as_str())
            .collect();
        for name in [
            "a.weight",
            "model.embed_tokens.qweight.rows.0",
            "model.embed_tokens.scales.rows.1",
            "up.qweight",
            "up.scales",
            "lm_head.weight.rows.7",
        ] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
    }

    /// The offsets of the manifest agree with those of the shards' own headers.
    #[test]
    fn shards_are_safetensors_files() {
        let (tensors, formats) = model();
        let plan = lay_out(&tensors, &formats, Family::ChatRex);
        let names: Vec<&str> = plan.iter().map(|shard| shard.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "upn.safetensors",
                "towers.safetensors",
                "decoder-00001-of-00002.safetensors",
                "decoder-00002-of-00002.safetensors"
            ]
        );
        let mut pads = 0;
        for shard in &plan {
            assert!(shard.bytes <= 256_000_000, "{}", shard.bytes);
            // Untouched zero pages take no memory.
            let mut file = vec![0; shard.bytes as usize];
            file[..shard.header.len()].copy_from_slice(&shard.header);
            let (length, metadata) = SafeTensors::read_metadata(&file).expect("a whole header");
            assert_eq!(length + 8, shard.header.len());
            let mut listed = metadata.tensors();
            let mut end = shard.header.len() as u64;
            for (name, entry) in shard.blocks.iter().flat_map(|block| &block.stored) {
                assert_eq!((&entry.shard, entry.offset % 8), (&shard.name, 0), "{name}");
                assert!(entry.offset >= end && entry.offset - end < 8, "{name}");
                end = entry.offset + bytes(entry);
                let own = listed.remove(name).expect("every tensor is listed");
                let start = entry.offset as usize - shard.header.len();
                assert_eq!(own.data_offsets.0, start, "{name}");
                assert_eq!(own.shape, entry.shape, "{name}");
                assert_eq!(
                    format!("{:?}", own.dtype),
                    format!("{:?}", entry.dtype),
                    "{name}"
                );
            }
            assert!(end <= shard.bytes && shard.bytes - end < 8);
            pads += listed.len();
            assert!(listed.keys().all(|name| name.starts_with("__pad.")));
        }
        // 12, 70 and 4 bytes are no multiples of 8.
        assert_eq!(pads, 3);
    }
}
