//! Sizes and switches of the language model.

use serde::{Deserialize, Serialize};

/// The name of the embeddings in a checkpoint.
pub const EMBEDDINGS: &str = "model.embed_tokens.weight";

/// Sizes and switches of the decoder, under the names of the checkpoint's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// Model width D.
    pub hidden_size: usize,
    /// Hidden width of the MLP.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the number of query heads (grouped-query attention).
    pub num_key_value_heads: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the RoPE frequencies.
    pub rope_theta: f64,
    /// Vocabulary size V.
    pub vocab_size: usize,
    /// The LM head is the embedding matrix; `lm_head.weight` is then not read.
    pub tie_word_embeddings: bool,
    /// Biases on the q, k and v projections: yes in Qwen2, no in LLaMA.
    #[serde(default = "default_qkv_bias")]
    pub qkv_bias: bool,
    /// Width of a head if it is not D / heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
}

fn default_qkv_bias() -> bool {
    true
}

impl DecoderConfig {
    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads)
    }
}
