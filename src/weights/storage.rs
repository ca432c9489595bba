//! The form in which each tensor is stored, and the rule for the sensitive ones.

use std::ops::Range;

use crate::weights::manifest::{DType, Part};
use crate::weights::quant::QuantScheme;

/// What `--quant` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "native", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum QuantPreset {
    /// 4 bits for the language model's blocks, 8 for other matrices.
    #[default]
    Q4,
    /// 8 bits for matrices.
    Q8,
    /// Half precision.
    F16,
    /// Single precision: exact.
    F32,
}

/// A tensor as the rule sees it.
#[derive(Clone, Copy, Debug)]
pub struct TensorSpec<'a> {
    /// The checkpoint's own name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Whether it is a matrix that is multiplied with, and may be packed.
    pub matrix: bool,
    /// The part it belongs to.
    pub part: Part,
}

/// How one tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// As numbers.
    Dense(DType),
    /// Packed.
    Quantized(QuantScheme),
}

/// The form of a tensor in a language model of `layers` blocks.
///
/// Packed are matrices whose rows fill whole groups. With `q4` the matrices of the language
/// model's blocks take 4 bits, but for those of the first and the last block; they, the embedding,
/// the output head, the towers and the projectors take 8. Vectors (norms, biases, layer scales) are
/// small and stay in single precision; convolutions take half precision.
///
/// The proposal network takes half precision throughout: its scores order the boxes, and a box that
/// changes places changes the prompt. On nano, 400 scenes, 87.6 % of the answers are word for word
/// those of f32 with all matrices in 8 bits, 96.8 % with this rule.
pub fn storage_for(
    tensor: TensorSpec,
    quant: QuantPreset,
    group: usize,
    layers: usize,
) -> WeightFormat {
    let bits = match quant {
        QuantPreset::F32 => return WeightFormat::Dense(DType::F32),
        QuantPreset::F16 => return WeightFormat::Dense(DType::F16),
        QuantPreset::Q8 => 8,
        QuantPreset::Q4 => match block(tensor.name) {
            Some(block) if block > 0 && block + 1 < layers => 4,
            _ => 8,
        },
    };
    let scheme = QuantScheme { bits, group };
    if tensor.matrix && tensor.part != Part::Upn && scheme.fits(tensor.shape[1]) {
        WeightFormat::Quantized(scheme)
    } else if tensor.shape.len() < 2 {
        WeightFormat::Dense(DType::F32)
    } else {
        WeightFormat::Dense(DType::F16)
    }
}

/// What one stored tensor takes on a device at most; every device can bind twice as much.
pub const BLOCK_BYTES: u64 = 64 << 20;

impl WeightFormat {
    /// A matrix of `rows` rows of `width` weights in blocks of nearly the same height.
    pub fn blocks(self, rows: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
        let row_bytes = match self {
            Self::Dense(_) => 4 * width,
            Self::Quantized(scheme) => 4 * scheme.words(width),
        };
        let step = (BLOCK_BYTES as usize / row_bytes.max(1)).max(1);
        let count = rows.div_ceil(step);
        (0..count).map(move |block| block * rows / count..(block + 1) * rows / count)
    }
}

/// The block of the language model that a tensor belongs to.
fn block(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("model.layers.")?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<'a>(name: &'a str, shape: &'a [usize], matrix: bool) -> TensorSpec<'a> {
        TensorSpec {
            name,
            shape,
            matrix,
            part: Part::Decoder,
        }
    }

    #[test]
    fn sensitive_tensors_keep_more_bits() {
        let bits = |name: &str| match storage_for(
            tensor(name, &[64, 128], true),
            QuantPreset::Q4,
            32,
            4,
        ) {
            WeightFormat::Quantized(scheme) => scheme.bits,
            WeightFormat::Dense(_) => 0,
        };
        assert_eq!(bits("model.layers.0.mlp.up_proj.weight"), 8);
        assert_eq!(bits("model.layers.1.mlp.up_proj.weight"), 4);
        assert_eq!(bits("model.layers.2.self_attn.q_proj.weight"), 4);
        assert_eq!(bits("model.layers.3.mlp.up_proj.weight"), 8);
        assert_eq!(bits("model.embed_tokens.weight"), 8);
        assert_eq!(bits("lm_head.weight"), 8);
        assert_eq!(
            bits("vision_tower_aux.vision_stages.0.blocks.0.mlp.fc1.weight"),
            8
        );
    }

    #[test]
    fn what_fills_no_group_stays_plain() {
        let plain = |shape: &[usize], matrix| {
            storage_for(
                tensor("model.layers.1.x", shape, matrix),
                QuantPreset::Q4,
                64,
                4,
            )
        };
        assert_eq!(plain(&[8, 96], true), WeightFormat::Dense(DType::F16));
        assert_eq!(
            plain(&[8, 3, 14, 14], false),
            WeightFormat::Dense(DType::F16)
        );
        assert_eq!(plain(&[8], false), WeightFormat::Dense(DType::F32));
    }
}
