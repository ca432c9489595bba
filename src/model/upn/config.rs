//! Sizes of the proposal network.

use serde::{Deserialize, Serialize};

use crate::image::prepare::ShortSideRecipe;
use crate::model::deformable::DeformableConfig;
use crate::model::swin::SwinConfig;

/// Sizes of the network, under the names of the original configuration where one exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpnConfig {
    /// The backbone.
    pub backbone: SwinConfig,
    /// Backbone stages that become feature levels.
    pub return_interm_indices: Vec<usize>,
    /// Feature levels; each one beyond the backbone's has half the size of the level before.
    pub num_feature_levels: usize,
    /// Queries, and so boxes proposed.
    pub num_queries: usize,
    /// Width of the transformer.
    pub d_model: usize,
    /// Heads of every attention.
    pub n_heads: usize,
    /// Hidden width of the feed-forward networks.
    pub d_ffn: usize,
    /// Sampling points per head and level.
    pub n_points: usize,
    /// Encoder layers.
    pub num_encoder_layers: usize,
    /// Decoder layers.
    pub num_decoder_layers: usize,
    /// Groups of the GroupNorm after the input projections.
    pub group_norm_groups: usize,
    /// Temperature of the position embedding of the image.
    pub temperature: f64,
    /// Side of the boxes proposed on the first level, relative to the image; doubles with every level.
    pub proposal_side: f32,
    /// Shorter side of the preprocessed image in pixels.
    pub size: u32,
    /// Limit of its longer side in pixels.
    pub max_size: u32,
}

impl UpnConfig {
    /// The published UPN-Large.
    pub fn large() -> Self {
        Self {
            backbone: SwinConfig {
                embed_dim: 192,
                depths: vec![2, 2, 18, 2],
                num_heads: vec![6, 12, 24, 48],
                window_size: 12,
                mlp_ratio: 4,
            },
            return_interm_indices: vec![0, 1, 2, 3],
            num_feature_levels: 5,
            num_queries: 900,
            d_model: 256,
            n_heads: 8,
            d_ffn: 2048,
            n_points: 4,
            num_encoder_layers: 6,
            num_decoder_layers: 6,
            group_norm_groups: 32,
            temperature: 20.0,
            proposal_side: 0.05,
            size: 800,
            max_size: 1333,
        }
    }

    /// The small network that this project trains (`docs/reference/training.md`, section 4).
    pub fn nano() -> Self {
        Self {
            backbone: SwinConfig {
                embed_dim: 32,
                depths: vec![1, 1, 2, 1],
                num_heads: vec![2, 4, 8, 16],
                window_size: 4,
                mlp_ratio: 4,
            },
            return_interm_indices: vec![1, 2, 3],
            num_feature_levels: 4,
            num_queries: 48,
            d_model: 64,
            n_heads: 4,
            d_ffn: 256,
            n_points: 4,
            num_encoder_layers: 2,
            num_decoder_layers: 3,
            group_norm_groups: 32,
            temperature: 20.0,
            proposal_side: 0.1,
            size: 128,
            max_size: 192,
        }
    }

    /// Image preprocessing.
    pub fn recipe(&self) -> ShortSideRecipe {
        ShortSideRecipe {
            size: self.size,
            max: self.max_size,
            ..ShortSideRecipe::UPN
        }
    }

    pub(super) fn layer(&self) -> DeformableConfig {
        DeformableConfig {
            d_model: self.d_model,
            d_ffn: self.d_ffn,
            n_heads: self.n_heads,
            n_levels: self.num_feature_levels,
            n_points: self.n_points,
        }
    }
}
