//! Attention within the square windows of a map, with relative positions (Liu et al. 2021, arXiv
//! 2103.14030; `upn.md` 3), without a matrix of scores on a graphics device.

use burn::backend::Cube;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::kernel::into_contiguous;

use crate::gpu::attention::encoder::{ROWS, shaders, variant};
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng, read};

/// `shaders/attention_window.wgsl` for [`WIDTHS`](crate::gpu::attention::encoder::WIDTHS).
pub const SHADERS: [Shader; 3] = shaders!("attention_window");

/// What the score of two tokens loses where a shift alone made them neighbours.
const SEPARATION: f32 = 100.0;

/// Which parts of a map the tokens of its windows come from.
#[derive(Clone, Debug)]
pub struct Regions {
    windows: usize,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// `[windows * T]`, for the kernel.
    Ids(Tensor<1, Int>),
    /// `[windows, 1, T, T]`, what is added to the scores; absent where all is one region.
    Mask(Option<Tensor<4>>),
}

impl Regions {
    /// `ids` `[windows, tokens]`, row-major, each below 2^16: tokens of one window with different ids
    /// must not see each other.
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
                .map(|(a, b)| if a == b { 0.0 } else { -SEPARATION })
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

/// `softmax(q k^T / sqrt(D) + relative position + separation) v` for each of `heads` heads, D
/// channels wide, within each window.
///
/// * `qkv` `[W, T, 3 * heads * D]`, T the square of a window's side;
/// * `table` `[(2 * side - 1)^2, heads]`: what is added to the score of a query at (ay, ax) and a
///   key at (by, bx), in row `(ay - by + side - 1) * (2 * side - 1) + ax - bx + side - 1`;
/// * window `w` has the `regions` of window `first + w`, over and over.
///
/// Returns `[W, T, heads * D]`. Heads that no shader serves ([`variant`]) take tensor operations.
pub fn window_attention(
    qkv: Tensor<3>,
    table: Tensor<2>,
    regions: &Regions,
    first: usize,
) -> Tensor<3> {
    let [windows, tokens, channels] = qkv.dims();
    let [relations, heads] = table.dims();
    let side = tokens.isqrt();
    assert_eq!(
        (side * side, (2 * side).saturating_sub(1).pow(2)),
        (tokens, relations),
        "window_attention: cells and relations of a square window, and those given"
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
                "window_attention: the processor takes all windows at once"
            );
            return window_attention_reference(qkv, table, mask.clone());
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
    let width = channels / (3 * heads);
    let Some(shader) = variant(width) else {
        let own = (first..first + windows).map(|window| (window % regions.windows) as i32);
        let own = TensorData::new(own.collect::<Vec<_>>(), [windows]);
        let own = Tensor::<1, Int>::from_data(own, &qkv.device());
        let ids = ids.reshape([regions.windows, tokens]).select(0, own);
        return window_attention_reference(qkv, table, Some(separation(ids)));
    };
    let (qkv, table) = (
        to_buffer("attention_window", qkv),
        to_buffer("attention_window", table),
    );
    let ids = ids
        .try_into_primitive::<Cube>()
        .expect("the regions were made for a graphics device");
    let out = alloc(
        "attention_window",
        &qkv.client,
        windows * tokens * channels / 3,
    );
    let steps = width / 4;
    launch(
        &SHADERS[shader],
        &qkv.client,
        (windows * heads * tokens.div_ceil(ROWS)) as u64,
        &[&qkv.handle, &table.handle, &into_contiguous(ids).handle],
        &[&out],
        &[
            windows,
            tokens,
            heads,
            steps,
            side,
            regions.windows,
            first,
            0,
        ]
        .map(|size| size as u32),
    );
    from_buffer(&qkv, out, [windows, tokens, channels / 3])
}

/// The mask `[W, 1, T, T]` of windows with the region ids `[W, T]`.
fn separation(ids: Tensor<2, Int>) -> Tensor<4> {
    let [windows, tokens] = ids.dims();
    let ids = ids.float();
    let apart = ids.clone().reshape([windows, 1, tokens, 1]) - ids.reshape([windows, 1, 1, tokens]);
    apart.abs().clamp_max(1.0).mul_scalar(-SEPARATION)
}

/// [`window_attention`] in tensor operations; `mask` `[N, 1, T, T]` is added to the scores of every
/// N windows.
pub fn window_attention_reference(
    qkv: Tensor<3>,
    table: Tensor<2>,
    mask: Option<Tensor<4>>,
) -> Tensor<3> {
    let [count, area, channels] = qkv.dims();
    let [_, heads] = table.dims();
    let (channels, width) = (channels / 3, channels / (3 * heads));
    let qkv = qkv
        .reshape([count, area, 3, heads, width])
        .permute([2, 0, 3, 1, 4]); // [3, windows, heads, area, width]
    let part = |index: usize| {
        qkv.clone()
            .narrow(0, index, 1)
            .reshape([count, heads, area, width])
    };
    let query = part(0).mul_scalar((width as f32).sqrt().recip());
    let scores = query.matmul(part(1).swap_dims(2, 3)); // [windows, heads, area, area]
    let positions = relative_positions(area.isqrt());
    let positions = TensorData::new(positions, [area * area]);
    let positions = Tensor::<1, Int>::from_data(positions, &table.device());
    let bias = table
        .select(0, positions)
        .transpose()
        .reshape([1, heads, area, area]);
    let bias = match mask {
        None => bias,
        Some(mask) => bias + mask,
    }; // [1 or N, heads, area, area]
    let repeat = bias.dims()[0];
    let scores = scores.reshape([count / repeat, repeat * heads * area * area])
        + bias.reshape([1, repeat * heads * area * area]);
    softmax(scores.reshape([count, heads, area, area]), 3)
        .matmul(part(2))
        .swap_dims(1, 2)
        .reshape([count, area, channels])
}

/// The row of the bias table for every pair of tokens of a window, `[side^2 * side^2]`.
fn relative_positions(side: usize) -> Vec<i32> {
    let area = side * side;
    let reach = 2 * side - 1;
    (0..area * area)
        .map(|pair| {
            let (a, b) = (pair / area, pair % area);
            let rows = a / side + side - 1 - b / side;
            let columns = a % side + side - 1 - b % side;
            (rows * reach + columns) as i32
        })
        .collect()
}

/// Values lie in [-1, 1] and the results between them; scores are a few units large.
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor: every
/// width and some between, windows of one token and of more than a workgroup, one region and
/// several, several pictures, portions of the windows, more workgroups than one dimension holds.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    for [pictures, windows, side, heads, width] in [
        [1, 1, 1, 1, 4],
        [0, 2, 2, 1, 8],
        [1, 1, 4, 2, 16],
        [2, 3, 4, 3, 16],
        [2, 3, 4, 2, 6],
        [1, 5, 3, 2, 12],
        [2, 2, 8, 1, 64],
        [1, 4, 7, 3, 40],
        [2, 2, 12, 2, 32],
        [1, 65_537, 1, 1, 4],
    ] {
        let shape = [pictures, windows, side, heads, width];
        compare(device, shape, &mut swept).await?;
    }
    Ok(swept)
}

async fn compare(
    device: &Device,
    [pictures, windows, side, heads, width]: [usize; 5],
    swept: &mut SweepReport,
) -> Result<(), String> {
    let name =
        format!("window_attention {pictures} x {windows} windows of {side}, {heads} x {width}");
    let (count, tokens) = (pictures * windows, side * side);
    let mut dice = TestRng::default();
    let qkv = dice.data([count, tokens, 3 * heads * width]);
    let table = dice.data([(2 * side - 1).pow(2), heads]);
    // As a shifted map has them, the first window is whole.
    let ids: Vec<u32> = (0..windows * tokens)
        .map(|at| ((at / tokens) % 4 * (at % side * 2 / side)) as u32)
        .collect();
    for ids in [ids, vec![0; windows * tokens]] {
        let mix = |device: &Device, first: usize, count: usize| {
            let qkv = Tensor::<3>::from_data(qkv.clone(), device) * 2.0;
            let table = Tensor::<2>::from_data(table.clone(), device);
            let regions = Regions::new(&ids, windows, device);
            let whole = count == qkv.dims()[0];
            let qkv = if whole {
                qkv
            } else {
                qkv.narrow(0, first, count)
            };
            window_attention(qkv, table, &regions, first)
        };
        if count == 0 {
            let got = mix(device, 0, 0);
            swept.compare(&name, got, &[], TOLERANCE).await?;
            continue;
        }
        let expected = read(&name, mix(&Device::flex(), 0, count)).await?;
        let cut = count / 2;
        let got = with_nan_fill(|| match cut {
            0 => mix(device, 0, count),
            _ => Tensor::cat(vec![mix(device, 0, cut), mix(device, cut, count - cut)], 0),
        });
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(())
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn relative_positions_follow_the_formula() {
        // Tokens (0, 1) and (2, 0) of a window of side 3: (0-2+2)*5 + (1-0+2).
        assert_eq!(relative_positions(3)[9 + 6], 3);
    }

    #[test]
    fn window_attention_kernels_agree_with_their_reference() {
        let test = "window_attention_kernels_agree_with_their_reference";
        let Some(device) = adapter_for_test(test) else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }
}
