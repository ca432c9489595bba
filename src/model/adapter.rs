//! What an adapter changes in a published language model, so that it answers about boxes: low-rank
//! changes of its matrices (LoRA, arXiv 2106.09685), embeddings of new tokens, and the object projector.
//!
//! An adapter is a folder with `adapter.json`, an [`AdapterConfig`], and `adapter.safetensors`. The merged
//! matrix is `W + scale · B A` with `A` `[rank, in]` and `B` `[out, rank]`.

use serde::{Deserialize, Serialize};

use super::class_projector::ClassProjectorConfig;
use crate::text::prompt::ChatTemplate;

/// The name of the configuration in an adapter's folder.
pub const ADAPTER_CONFIG: &str = "adapter.json";

/// The name of the tensors in an adapter's folder.
pub const ADAPTER_TENSORS: &str = "adapter.safetensors";

/// The embeddings of the new tokens, `[n, D]`, in the order of their ids.
pub const ADDED_EMBEDDINGS: &str = "model.embed_tokens.added.weight";

/// The names of `A` and `B` of the matrix `weight`, which ends with `.weight`.
pub fn lora_names(weight: &str) -> [String; 2] {
    let stem = weight.strip_suffix(".weight").unwrap_or(weight);
    ["lora_A", "lora_B"].map(|factor| format!("{stem}.{factor}.weight"))
}

/// The low-rank changes of a decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Columns of `B` and rows of `A`.
    pub rank: usize,
    /// Factor of `B A`.
    pub scale: f32,
    /// The changed matrices of every block, such as `self_attn.q_proj`.
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// The names of the changed matrices of a decoder of `layers` blocks.
    pub fn weights(&self, layers: usize) -> Vec<String> {
        let of_layer = |layer| {
            let targets = self.targets.iter();
            targets.map(move |target| format!("model.layers.{layer}.{target}.weight"))
        };
        (0..layers).flat_map(of_layer).collect()
    }
}

/// The configuration of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// The language model that it changes.
    pub base: BaseModel,
    /// The changed matrices.
    pub lora: LoraConfig,
    /// The projector of objects.
    pub objects: ClassProjectorConfig,
    /// The chat template that it was trained with.
    pub template: ChatTemplate,
    /// Number of tokens that the tokenizer gains.
    pub added_tokens: usize,
    /// Least score of the boxes shown.
    pub score: f32,
    /// Least score of the best box of each kind.
    pub first_of_kind: f32,
    /// IoU above which a box suppresses another.
    pub nms: f32,
    /// The model's knowledge, in one line for users.
    pub knows: String,
    /// What it was trained on.
    pub trained_on: String,
    /// The commands that made it.
    pub made_by: Vec<String>,
    /// Licence of the adapter: an SPDX expression.
    pub license: String,
}

/// The file of the language model that an adapter changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// Its name.
    pub name: String,
    /// The file's name.
    pub file: String,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_changed_matrices() {
        let lora = LoraConfig {
            rank: 4,
            scale: 2.0,
            targets: vec!["self_attn.q_proj".into(), "mlp.up_proj".into()],
        };
        let weights = lora.weights(2);
        assert_eq!(weights.len(), 4);
        assert_eq!(weights[3], "model.layers.1.mlp.up_proj.weight");
        assert_eq!(
            lora_names(&weights[0]),
            [
                "model.layers.0.self_attn.q_proj.lora_A.weight",
                "model.layers.0.self_attn.q_proj.lora_B.weight"
            ]
        );
    }
}
