//! Swin transformer backbone (Liu et al. 2021, arXiv 2103.14030) as used in UPN
//! (`docs/reference/upn.md`, section 3; original `swin.py`).
//!
//! Feature maps are tokens `[B, H * W, C]`, row-major. Partitioning a map into windows, with padding and
//! cyclic shift, is one gather with indices computed on the CPU; the inverse is another.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::gpu::attention::window::{Regions, window_attention};
use crate::nn::chunked::map_chunks;
use crate::nn::linear::Conv2dConfig;
use crate::nn::{Conv2d, Init, LayerNorm, Linear, Loader};

const EPS: f64 = 1e-5;
const PATCH: usize = 4;

/// Sizes of a Swin backbone, under the names of the original configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwinConfig {
    /// Channels of the first stage; each further stage doubles them.
    pub embed_dim: usize,
    /// Blocks per stage.
    pub depths: Vec<usize>,
    /// Attention heads per stage.
    pub num_heads: Vec<usize>,
    /// Side of a window in tokens.
    pub window_size: usize,
    /// Hidden width of the MLP divided by its width.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: usize,
}

fn default_mlp_ratio() -> usize {
    4
}

impl SwinConfig {
    /// Channels of stage `stage`.
    pub fn channels(&self, stage: usize) -> usize {
        self.embed_dim << stage
    }
}

/// A feature map as tokens.
#[derive(Clone, Debug)]
pub struct Map {
    /// `[B, height * width, C]`, row-major.
    pub tokens: Tensor<3>,
    /// Height and width.
    pub size: [usize; 2],
}

impl Map {
    /// `[B, C, height, width]`.
    pub fn channels_first(self) -> Tensor<4> {
        let [batch, _, channels] = self.tokens.dims();
        let [height, width] = self.size;
        self.tokens
            .reshape([batch, height, width, channels])
            .permute([0, 3, 1, 2])
    }
}

/// The backbone.
#[derive(Module, Debug)]
pub struct Swin {
    patch_embed: Conv2d,
    patch_norm: LayerNorm,
    stages: Vec<Stage>,
    norms: Vec<LayerNorm>,
    #[module(skip)]
    out_indices: Vec<usize>,
}

impl Swin {
    /// Reads `patch_embed`, `layers.*` and `norm{i}` for every output stage `i` of `out_indices`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &SwinConfig, out_indices: &[usize]) -> Result<Self, Fault> {
        let embed = at.child("patch_embed");
        let patch = Conv2dConfig {
            inputs: 3,
            outputs: config.embed_dim,
            kernel: PATCH,
            stride: PATCH,
            padding: 0,
            groups: 1,
        };
        Ok(Self {
            patch_embed: Conv2d::load(&embed.child("proj"), patch, true)?,
            patch_norm: LayerNorm::load(&embed.child("norm"), config.embed_dim, EPS)?,
            stages: (0..config.depths.len())
                .map(|stage| Stage::load(&at.child("layers").child(stage), config, stage))
                .collect::<Result<_, _>>()?,
            norms: out_indices
                .iter()
                .map(|&stage| {
                    LayerNorm::load(
                        &at.child(format!("norm{stage}")),
                        config.channels(stage),
                        EPS,
                    )
                })
                .collect::<Result<_, _>>()?,
            out_indices: out_indices.to_vec(),
        })
    }

    /// `[B, 3, H, W]` to the maps of the output stages, finest first; stage `i` has stride
    /// `4 * 2^i`, sizes rounded up.
    pub fn forward(&self, image: Tensor<4>) -> Vec<Map> {
        let [batch, _, height, width] = image.dims();
        let (rows, columns) = (height.div_ceil(PATCH), width.div_ceil(PATCH));
        let image = pad_map(image, rows * PATCH, columns * PATCH);
        let patches = self.patch_embed.forward(image).permute([0, 2, 3, 1]); // [B, H/4, W/4, C]
        let channels = patches.dims()[3];
        let tokens = patches.reshape([batch, rows * columns, channels]);
        let mut map = Map {
            tokens: self.patch_norm.forward(tokens),
            size: [rows, columns],
        };
        let mut outputs = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            map = stage.blocks(map);
            if let Some(output) = self.out_indices.iter().position(|&out| out == index) {
                outputs.push(Map {
                    tokens: self.norms[output].forward(map.tokens.clone()),
                    size: map.size,
                });
            }
            if let Some(merging) = &stage.downsample {
                map = merging.forward(map);
            }
        }
        outputs
    }
}

/// Pads `[B, C, H, W]` with zeros at the right and bottom to `height` x `width`.
fn pad_map(image: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    let [_, _, h, w] = image.dims();
    if (h, w) == (height, width) {
        return image;
    }
    image.pad((0, width - w, 0, height - h), 0.0)
}

#[derive(Module, Debug)]
struct Stage {
    blocks: Vec<Block>,
    downsample: Option<PatchMerging>,
    #[module(skip)]
    window: usize,
}

impl Stage {
    fn load(at: &Loader, config: &SwinConfig, stage: usize) -> Result<Self, Fault> {
        let last = stage + 1 == config.depths.len();
        Ok(Self {
            blocks: (0..config.depths[stage])
                .map(|block| Block::load(&at.child("blocks").child(block), config, stage))
                .collect::<Result<_, _>>()?,
            downsample: (!last)
                .then(|| PatchMerging::load(&at.child("downsample"), config.channels(stage)))
                .transpose()?,
            window: config.window_size,
        })
    }

    fn blocks(&self, map: Map) -> Map {
        let Map { mut tokens, size } = map;
        let [batch, _, _] = tokens.dims();
        let device = tokens.device();
        let partitions = [0, self.window / 2]
            .map(|shift| Windows::new(batch, size, self.window, shift, &device));
        for (index, block) in self.blocks.iter().enumerate() {
            tokens = block.forward(tokens, &partitions[index % 2]);
        }
        Map { tokens, size }
    }
}

/// A partition of a feature map into windows.
struct Windows {
    /// For every window position, the index of its token; one past the end is padding.
    to_windows: Tensor<1, Int>,
    /// For every token, its window position.
    to_map: Tensor<1, Int>,
    /// True if `to_windows` contains padding.
    padded: bool,
    side: usize,
    count: usize,
    /// Masks pairs of tokens that are neighbors only because of the shift.
    regions: Regions,
}

impl Windows {
    fn new(batch: usize, size: [usize; 2], side: usize, shift: usize, device: &Device) -> Self {
        let [height, width] = size;
        let (rows, columns) = (height.div_ceil(side), width.div_ceil(side));
        let (padded_height, padded_width) = (rows * side, columns * side);
        let (tokens, positions) = (height * width, padded_height * padded_width);
        let mut to_windows = vec![(batch * tokens) as i32; batch * positions];
        let mut to_map = vec![0; batch * tokens];
        for window_row in 0..rows {
            for window_column in 0..columns {
                for y in 0..side {
                    for x in 0..side {
                        let window = window_row * columns + window_column;
                        let position = (window * side + y) * side + x;
                        let row = (window_row * side + y + shift) % padded_height;
                        let column = (window_column * side + x + shift) % padded_width;
                        if row >= height || column >= width {
                            continue;
                        }
                        for image in 0..batch {
                            let token = image * tokens + row * width + column;
                            let position = image * positions + position;
                            to_windows[position] = token as i32;
                            to_map[token] = position as i32;
                        }
                    }
                }
            }
        }
        let count = rows * columns;
        let regions = if shift == 0 {
            Regions::one(side * side, device)
        } else {
            Regions::new(&regions(rows, columns, side, shift), count, device)
        };
        Self {
            padded: positions != tokens,
            to_windows: indices(to_windows, device),
            to_map: indices(to_map, device),
            side,
            count,
            regions,
        }
    }

    /// `[B, H * W, C]` to `[B * count, side^2, C]`.
    fn partition(&self, tokens: Tensor<3>) -> Tensor<3> {
        let [batch, count, channels] = tokens.dims();
        let mut rows = tokens.reshape([batch * count, channels]);
        if self.padded {
            let zeros = Tensor::zeros([1, channels], &rows.device());
            rows = Tensor::cat(vec![rows, zeros], 0);
        }
        let area = self.side * self.side;
        rows.select(0, self.to_windows.clone())
            .reshape([batch * self.count, area, channels])
    }

    /// `[B * count, side^2, C]` to `[B, H * W, C]`.
    fn merge(&self, windows: Tensor<3>) -> Tensor<3> {
        let [count, area, channels] = windows.dims();
        let batch = count / self.count;
        let tokens = self.to_map.dims()[0] / batch;
        windows
            .reshape([count * area, channels])
            .select(0, self.to_map.clone())
            .reshape([batch, tokens, channels])
    }
}

fn indices(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// The region of the padded, shifted map that every token of every window comes from,
/// `[rows * columns, side^2]`. Tokens of different regions do not attend to each other.
fn regions(rows: usize, columns: usize, side: usize, shift: usize) -> Vec<u32> {
    let region = |at: usize, length: usize| match at {
        _ if at < length - side => 0,
        _ if at < length - shift => 1,
        _ => 2,
    };
    let area = side * side;
    let mut ids = Vec::with_capacity(rows * columns * area);
    for row in 0..rows {
        for column in 0..columns {
            ids.extend((0..area).map(|token| {
                3 * region(row * side + token / side, rows * side)
                    + region(column * side + token % side, columns * side)
            }));
        }
    }
    ids
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: WindowAttention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    mlp_ratio: usize,
}

impl Block {
    fn load(at: &Loader, config: &SwinConfig, stage: usize) -> Result<Self, Fault> {
        let width = config.channels(stage);
        let hidden = width * config.mlp_ratio;
        let mlp = at.child("mlp");
        Ok(Self {
            norm1: LayerNorm::load(&at.child("norm1"), width, EPS)?,
            attn: WindowAttention::load(
                &at.child("attn"),
                width,
                config.num_heads[stage],
                config.window_size,
            )?,
            norm2: LayerNorm::load(&at.child("norm2"), width, EPS)?,
            fc1: linear(&mlp.child("fc1"), width, hidden, true)?,
            fc2: linear(&mlp.child("fc2"), hidden, width, true)?,
            mlp_ratio: config.mlp_ratio,
        })
    }

    /// `[B, H * W, C]` to `[B, H * W, C]`. As in the original, padding is added after the norm and not
    /// masked: its keys and values are the biases of `qkv`.
    fn forward(&self, x: Tensor<3>, windows: &Windows) -> Tensor<3> {
        let y = windows.partition(self.norm1.forward(x.clone()));
        let y = windows.merge(self.attn.forward(y, windows));
        let x = x + y;
        let [batch, _, channels] = x.dims();
        let hidden = batch * channels * self.mlp_ratio;
        let y = map_chunks(x.clone(), 1, hidden, |x, _| {
            let y = self.norm2.forward(x);
            self.fc2.forward(self.fc1.activated(y, Activation::Gelu))
        });
        x + y
    }
}

/// A linear layer initialized with the standard deviation `0.7 / sqrt(inputs)`
/// (`docs/reference/training.md`, section 4).
fn linear(at: &Loader, inputs: usize, outputs: usize, bias: bool) -> Result<Linear, Fault> {
    let deviation = 0.7 / (inputs as f32).sqrt();
    Linear::load_with(at, inputs, outputs, bias, Init::Normal(deviation))
}

#[derive(Module, Debug)]
struct WindowAttention {
    qkv: Linear,
    proj: Linear,
    relative_position_bias_table: Param<Tensor<2>>,
}

impl WindowAttention {
    fn load(at: &Loader, width: usize, heads: usize, side: usize) -> Result<Self, Fault> {
        let offsets = (2 * side - 1) * (2 * side - 1);
        Ok(Self {
            qkv: linear(&at.child("qkv"), width, 3 * width, true)?,
            proj: linear(&at.child("proj"), width, width, true)?,
            relative_position_bias_table: at.parameter(
                "relative_position_bias_table",
                [offsets, heads],
                Init::Normal(0.02),
            )?,
        })
    }

    /// `[windows, side^2, C]` to `[windows, side^2, C]`.
    fn forward(&self, x: Tensor<3>, windows: &Windows) -> Tensor<3> {
        let [_, area, channels] = x.dims();
        map_chunks(x, 0, 3 * channels * area, |x, start| {
            let table = self.relative_position_bias_table.val();
            let attended = window_attention(self.qkv.forward(x), table, &windows.regions, start);
            self.proj.forward(attended)
        })
    }
}

/// Halves a map: concatenates 2 x 2 neighbors, norm, linear layer.
#[derive(Module, Debug)]
struct PatchMerging {
    norm: LayerNorm,
    reduction: Linear,
}

impl PatchMerging {
    fn load(at: &Loader, width: usize) -> Result<Self, Fault> {
        Ok(Self {
            norm: LayerNorm::load(&at.child("norm"), 4 * width, EPS)?,
            reduction: linear(&at.child("reduction"), 4 * width, 2 * width, false)?,
        })
    }

    fn forward(&self, map: Map) -> Map {
        let [batch, _, channels] = map.tokens.dims();
        let (height, width) = (map.size[0].div_ceil(2), map.size[1].div_ceil(2));
        let grid = pad_map(map.channels_first(), 2 * height, 2 * width).permute([0, 2, 3, 1]);
        // Neighbors in the order (row, column) = (0, 0), (1, 0), (0, 1), (1, 1).
        let tokens = grid
            .reshape([batch * height, 2, width, 2, channels])
            .permute([0, 2, 3, 1, 4])
            .reshape([batch, height * width, 4 * channels]);
        Map {
            tokens: self.reduction.forward(self.norm.forward(tokens)),
            size: [height, width],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_inverts_partitioning_of_an_odd_map() {
        let device = Device::flex();
        let tokens = Tensor::<1, Int>::arange(0..2 * 5 * 7 * 3, &device)
            .float()
            .reshape([2, 35, 3]);
        for shift in [0, 2] {
            let windows = Windows::new(2, [5, 7], 4, shift, &device);
            assert_eq!(windows.count, 4);
            let back = windows.merge(windows.partition(tokens.clone()));
            back.into_data().assert_eq(&tokens.to_data(), true);
        }
    }
}
