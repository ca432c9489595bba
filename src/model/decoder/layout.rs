//! Positions and attention masks of whole sequences.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::config::DecoderConfig;
use super::rope::{Rope, rope_table};
use crate::cpu::op::is_cpu;
use crate::cpu::varlen_attention::{AttentionSpan, PackedSequences};

/// The position of every row, and the rows that it attends to.
///
/// On the CPU, [`varlen_attention`](crate::cpu::varlen_attention::varlen_attention) computes only
/// the visible pairs of rows. Other devices use tensor operations and a mask.
#[derive(Clone, Debug)]
pub enum Layout {
    /// For the CPU kernel.
    Packed(Arc<PackedSequences>),
    /// For tensor operations.
    Masked(Box<Masked>),
}

/// A mask and RoPE tables as tensors.
#[derive(Clone, Debug)]
pub struct Masked {
    pub(super) rope: Rope,
    /// Added to scores: 0 or [`MASKED_SCORE`], `[B or 1, 1, T, S]`.
    pub(super) mask: Option<Tensor<4>>,
}

/// Added to the score of a masked pair: far below any score, far above overflow.
const MASKED_SCORE: f32 = -1e9;

impl Layout {
    /// Positions 0.. and a causal mask for sequences of `length` rows.
    pub fn causal(length: usize, config: &DecoderConfig, device: &Device) -> Self {
        let positions = (0..length as u32).collect();
        Self::packed(
            &[positions],
            &[vec![AttentionSpan::CAUSAL; length]],
            config,
            device,
        )
    }

    /// Several continuations of one prefix, packed into one sequence: `positions[b][t]` and
    /// `spans[b][t]`, one list for all sequences or one for each, all of one length.
    pub fn packed(
        positions: &[Vec<u32>],
        spans: &[Vec<AttentionSpan>],
        config: &DecoderConfig,
        device: &Device,
    ) -> Self {
        let length = positions[0].len();
        if is_cpu(device) {
            let (cosine, sine) = rope_table(positions, config);
            return Self::Packed(Arc::new(PackedSequences {
                length,
                sights: spans.concat(),
                cosine,
                sine,
            }));
        }
        let mut mask = vec![MASKED_SCORE; spans.len() * length * length];
        for (index, scores) in mask.chunks_exact_mut(length).enumerate() {
            let (sequence, row) = (index / length, index % length);
            let span = spans[sequence][row];
            scores[..span.shared].fill(0.0);
            scores[span.own..=row].fill(0.0);
        }
        let mask = TensorData::new(mask, [spans.len(), 1, length, length]);
        Self::Masked(Box::new(Masked {
            rope: Rope::new(positions, config, device),
            mask: Some(Tensor::from_data(mask, device)),
        }))
    }
}

impl Masked {
    /// `new` rows after `past` others; every row attends to itself and all rows before it.
    pub(super) fn appended(
        past: usize,
        new: usize,
        config: &DecoderConfig,
        device: &Device,
    ) -> Self {
        let positions = (past as u32..(past + new) as u32).collect();
        let total = past + new;
        let mask = (new > 1).then(|| {
            let mut mask = vec![MASKED_SCORE; new * total];
            for (row, scores) in mask.chunks_exact_mut(total).enumerate() {
                scores[..=past + row].fill(0.0);
            }
            Tensor::from_data(TensorData::new(mask, [1, 1, new, total]), device)
        });
        Self {
            rope: Rope::new(&[positions], config, device),
            mask,
        }
    }
}
