//! Attention within the square windows of a feature map, with relative position bias (Swin, Liu et
//! al. 2021, arXiv 2103.14030; `docs/reference/upn.md`, section 3).

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::cpu::softmax::scaled_softmax;
use crate::gpu::attention::encoder::{for_head_dims, variant};
use crate::gpu::attention::row_tiles;
use crate::gpu::buffer::{alloc, from_buffer, int_to_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::matmul::batched_matmul;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::uniforms;

#[cfg(feature = "diagnostics")]
use crate::gpu::attention::testing::{Poison, compare_values};
#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::launch::GroupLimit;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};

uniforms! {
    /// Uniforms of `shaders/attention_window.wgsl`.
    struct AttentionWindowUniforms {
        /// W.
        batch: u32,
        /// T.
        tokens: u32,
        /// H.
        heads: u32,
        /// D.
        head_dim: u32,
        /// Tokens along a side of a window.
        side: u32,
        /// N.
        region_windows: u32,
        /// Row of `regions` of the first window.
        first_window: u32,
    }
}

/// `shaders/attention_window.wgsl` for [`HEAD_DIMS`](crate::gpu::attention::encoder::HEAD_DIMS).
pub const SHADERS: [Shader; 3] = for_head_dims!("attention_window", AttentionWindowUniforms);

/// Subtracted from the score of two tokens of different regions; `REGION_MASK` in the shader.
const REGION_MASK: f32 = 100.0;

/// The regions that the tokens of windows come from. A cyclic shift of the feature map puts tokens
/// of several regions into one window; they must not attend to each other.
#[derive(Clone, Debug)]
pub struct Regions {
    windows: usize,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// `[windows * T]`, for the kernel.
    Ids(Tensor<1, Int>),
    /// `[windows, 1, T, T]`, added to the scores; none where there is one region.
    Mask(Option<Tensor<4>>),
}

impl Regions {
    /// `ids` `[windows, tokens]`, row-major, each below 2^16.
    ///
    /// # Panics
    /// An id is too large, or `ids` is not a multiple of `windows`.
    pub fn new(ids: &[u32], windows: usize, device: &Device) -> Self {
        assert!(
            windows > 0 && ids.len().is_multiple_of(windows),
            "regions: {} ids for {windows} windows",
            ids.len()
        );
        let largest = ids.iter().max().copied().unwrap_or(0);
        assert!(largest < 1 << 16, "regions: id {largest}, at most 65535");
        let tokens = ids.len() / windows;
        let form = if is_gpu(device) {
            let ids: Vec<i32> = ids.iter().map(|id| id.cast_signed()).collect();
            let length = ids.len();
            Form::Ids(Tensor::from_data(TensorData::new(ids, [length]), device))
        } else if ids.iter().all(|id| *id == ids[0]) {
            Form::Mask(None)
        } else {
            let values: Vec<f32> = ids
                .chunks(tokens)
                .flat_map(|window| window.iter().map(move |a| (a, window)))
                .flat_map(|(a, window)| window.iter().map(move |b| (a, b)))
                .map(|(a, b)| if a == b { 0.0 } else { -REGION_MASK })
                .collect();
            let data = TensorData::new(values, [windows, 1, tokens, tokens]);
            Form::Mask(Some(Tensor::from_data(data, device)))
        };
        Self { windows, form }
    }

    /// One region for windows of `tokens` tokens.
    pub fn one(tokens: usize, device: &Device) -> Self {
        Self::new(&vec![0; tokens], 1, device)
    }
}

/// `softmax(q k^T / sqrt(D) + bias + mask) v` for each of `heads` heads of D channels, within each
/// window.
///
/// * `qkv` `[W, T, 3 * heads * D]`, T the square of a window's side;
/// * `bias_table` `[(2 * side - 1)^2, heads]`: the bias of a query at (ay, ax) and a key at (by,
///   bx) is in row `(ay - by + side - 1) * (2 * side - 1) + ax - bx + side - 1`;
/// * window `w` has the regions of window `(first + w) % N` of `regions`.
///
/// Returns `[W, T, heads * D]`. Tensor operations compute it where there is no shader variant for
/// D.
pub fn window_attention(
    qkv: Tensor<3>,
    bias_table: Tensor<2>,
    regions: &Regions,
    first: usize,
) -> Tensor<3> {
    let [windows, tokens, channels] = qkv.dims();
    let [relations, heads] = bias_table.dims();
    let side = tokens.isqrt();
    assert_eq!(
        (side * side, (2 * side).saturating_sub(1).pow(2)),
        (tokens, relations),
        "window_attention: tokens and bias rows of a square window, and those given"
    );
    assert!(
        heads > 0 && channels.is_multiple_of(3 * heads),
        "window_attention: {channels} channels for 3 x {heads} heads"
    );
    let ids = match &regions.form {
        Form::Ids(ids) => ids.clone(),
        Form::Mask(mask) => {
            assert_eq!(
                first, 0,
                "window_attention: the CPU takes all windows at once"
            );
            return window_attention_reference(qkv, bias_table, mask.clone());
        }
    };
    assert_eq!(
        ids.dims()[0],
        regions.windows * tokens,
        "window_attention: tokens of the regions, and of their windows"
    );
    assert!(
        tokens <= 1 << 15,
        "window_attention: {tokens} tokens in a window, at most 32768"
    );
    if windows == 0 {
        return Tensor::zeros([0, tokens, channels / 3], &qkv.device());
    }
    let head_dim = channels / (3 * heads);
    let Some(shader) = variant(head_dim) else {
        let rows = (first..first + windows).map(|window| (window % regions.windows) as i32);
        let rows = TensorData::new(rows.collect::<Vec<_>>(), [windows]);
        let rows = Tensor::<1, Int>::from_data(rows, &qkv.device());
        let ids = ids.reshape([regions.windows, tokens]).select(0, rows);
        return window_attention_reference(qkv, bias_table, Some(region_mask(ids)));
    };
    let (qkv, bias_table) = (
        to_buffer("attention_window", qkv),
        to_buffer("attention_window", bias_table),
    );
    let ids = int_to_buffer("attention_window", ids);
    let out = alloc(
        "attention_window",
        &qkv.client,
        windows * tokens * channels / 3,
    );
    launch(
        &SHADERS[shader],
        &qkv.client,
        (windows * heads * row_tiles(tokens)) as u64,
        &[&qkv.handle, &bias_table.handle, &ids.handle],
        &[&out],
        &AttentionWindowUniforms {
            batch: windows as u32,
            tokens: tokens as u32,
            heads: heads as u32,
            head_dim: head_dim as u32,
            side: side as u32,
            region_windows: regions.windows as u32,
            first_window: first as u32,
        },
    );
    from_buffer(&qkv, out, [windows, tokens, channels / 3])
}

/// The mask `[W, 1, T, T]` of windows with the region ids `[W, T]`.
fn region_mask(ids: Tensor<2, Int>) -> Tensor<4> {
    let [windows, tokens] = ids.dims();
    let ids = ids.float();
    let differ =
        ids.clone().reshape([windows, 1, tokens, 1]) - ids.reshape([windows, 1, 1, tokens]);
    differ.abs().clamp_max(1.0).mul_scalar(-REGION_MASK)
}

/// [`window_attention`] in tensor operations; `mask` `[N, 1, T, T]` is added to the scores of every
/// N windows.
pub fn window_attention_reference(
    qkv: Tensor<3>,
    bias_table: Tensor<2>,
    mask: Option<Tensor<4>>,
) -> Tensor<3> {
    let [windows, tokens, channels] = qkv.dims();
    let [_, heads] = bias_table.dims();
    let (channels, head_dim) = (channels / 3, channels / (3 * heads));
    let qkv = qkv
        .reshape([windows, tokens, 3, heads, head_dim])
        .permute([2, 0, 3, 1, 4]); // [3, W, heads, T, D]
    let part = |index: usize| {
        qkv.clone()
            .narrow(0, index, 1)
            .reshape([windows, heads, tokens, head_dim])
    };
    let query = part(0).mul_scalar((head_dim as f32).sqrt().recip());
    let scores = batched_matmul(query, part(1).swap_dims(2, 3)); // [W, heads, T, T]
    let positions = relative_positions(tokens.isqrt());
    let positions = TensorData::new(positions, [tokens * tokens]);
    let positions = Tensor::<1, Int>::from_data(positions, &bias_table.device());
    let bias = bias_table
        .select(0, positions)
        .transpose()
        .reshape([1, heads, tokens, tokens]);
    let bias = match mask {
        None => bias,
        Some(mask) => bias + mask,
    }; // [1 or N, heads, T, T]
    let repeat = bias.dims()[0];
    let scores = scores.reshape([windows / repeat, repeat * heads * tokens * tokens])
        + bias.reshape([1, repeat * heads * tokens * tokens]);
    let shares = scaled_softmax(scores.reshape([windows, heads, tokens, tokens]), 1.0);
    batched_matmul(shares, part(2))
        .swap_dims(1, 2)
        .reshape([windows, tokens, channels])
}

/// The row of the bias table for every pair of tokens of a window, `[T * T]`.
fn relative_positions(side: usize) -> Vec<i32> {
    let tokens = side * side;
    (0..tokens * tokens)
        .map(|pair| {
            let (a, b) = (pair / tokens, pair % tokens);
            let rows = a / side + side - 1 - b / side;
            let columns = a % side + side - 1 - b % side;
            (rows * (2 * side - 1) + columns) as i32
        })
        .collect()
}

/// Values and results are in [-1, 1]; scores are a few units.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on a GPU with [`window_attention_reference`] on the CPU: every variant and
/// head dimensions between them, windows of one token and of more than a workgroup, one region and
/// several, several images, launches of some of the windows, more workgroups than one dispatch
/// dimension holds; and poisoned inputs.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for [images, windows, side, heads, head_dim] in [
        [1, 1, 1, 1, 4],
        [0, 2, 2, 1, 8],
        [1, 1, 4, 2, 16],
        [2, 3, 4, 3, 16],
        [2, 3, 4, 2, 6],
        [1, 5, 3, 2, 12],
        [2, 2, 8, 1, 64],
        [1, 4, 7, 3, 40],
        [2, 2, 12, 2, 32],
    ] {
        let shape = [images, windows, side, heads, head_dim];
        compare(device, shape, &mut report).await?;
    }
    {
        // Surplus workgroups too.
        let _folded = GroupLimit::new(3);
        compare(device, [1, 14, 4, 1, 4], &mut report).await?;
    }
    for poison in Poison::ALL {
        let note = format!("{poison:?}");
        compare_poisoned(device, poison, 0.0, &note, &mut report).await?;
    }
    let note = "bias of -inf";
    compare_poisoned(
        device,
        Poison::LargeScores,
        f32::NEG_INFINITY,
        note,
        &mut report,
    )
    .await?;
    Ok(report)
}

#[cfg(feature = "diagnostics")]
async fn compare(
    device: &Device,
    [images, windows, side, heads, head_dim]: [usize; 5],
    report: &mut SweepReport,
) -> Result<(), String> {
    let name =
        format!("window_attention {images} x {windows} windows of {side}, {heads} x {head_dim}");
    let (count, tokens) = (images * windows, side * side);
    let mut rng = TestRng::default();
    let qkv = rng.data([count, tokens, 3 * heads * head_dim]);
    let table = rng.data([(2 * side - 1).pow(2), heads]);
    // As in a shifted map, the first window is one region.
    let ids: Vec<u32> = (0..windows * tokens)
        .map(|at| ((at / tokens) % 4 * (at % side * 2 / side)) as u32)
        .collect();
    for ids in [ids, vec![0; windows * tokens]] {
        let attend = |device: &Device, first: usize, count: usize| {
            let qkv = Tensor::<3>::from_data(qkv.clone(), device) * 2.0;
            let table = Tensor::<2>::from_data(table.clone(), device);
            let regions = Regions::new(&ids, windows, device);
            let all = count == qkv.dims()[0];
            let qkv = if all {
                qkv
            } else {
                qkv.narrow(0, first, count)
            };
            window_attention(qkv, table, &regions, first)
        };
        if count == 0 {
            let got = attend(device, 0, 0);
            report.compare(&name, got, &[], TOLERANCE).await?;
            continue;
        }
        let expected = read(&name, attend(&Device::flex(), 0, count)).await?;
        let cut = count / 2;
        let got = with_nan_fill(|| match cut {
            0 => attend(device, 0, count),
            _ => Tensor::cat(
                vec![attend(device, 0, cut), attend(device, cut, count - cut)],
                0,
            ),
        });
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(())
}

/// One window of 7 x 7 tokens in two regions. `bias` is that of every token and itself in head 0,
/// and of all tokens in head 1.
#[cfg(feature = "diagnostics")]
async fn compare_poisoned(
    device: &Device,
    poison: Poison,
    bias: f32,
    note: &str,
    report: &mut SweepReport,
) -> Result<(), String> {
    let (side, heads, head_dim) = (7, 2, 16);
    let tokens = side * side;
    let name = format!("window_attention 1 window of {side}, {heads} x {head_dim} with {note}");
    let parts = poison.inputs(tokens, [heads, heads, head_dim]);
    let width = heads * head_dim;
    let qkv: Vec<f32> = (0..tokens)
        .flat_map(|token| parts.each_ref().map(|part| &part[token * width..][..width]))
        .flatten()
        .copied()
        .collect();
    let relations = (2 * side - 1_usize).pow(2);
    let table: Vec<f32> = (0..relations)
        .flat_map(|relation| [if relation == relations / 2 { bias } else { 0.0 }, bias])
        .collect();
    let ids: Vec<u32> = (0..tokens).map(|token| u32::from(token > 30)).collect();
    let attend = |device: &Device| {
        let qkv = TensorData::new(qkv.clone(), [1, tokens, 3 * width]);
        let table = TensorData::new(table.clone(), [relations, heads]);
        let regions = Regions::new(&ids, 1, device);
        let (qkv, table) = (
            Tensor::from_data(qkv, device),
            Tensor::from_data(table, device),
        );
        window_attention(qkv, table, &regions, 0)
    };
    let expected = read(&name, attend(&Device::flex())).await?;
    let got = read(&name, with_nan_fill(|| attend(device))).await?;
    compare_values(report, &name, &got, &expected, TOLERANCE)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn relative_positions_follow_the_formula() {
        // Tokens (0, 1) and (2, 0) of a window of side 3: (0-2+2)*5 + (1-0+2).
        assert_eq!(relative_positions(3)[9 + 6], 3);
    }
}
