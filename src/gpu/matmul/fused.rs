//! Products of a decoder block that share their input: queries, keys and values, and the two halves
//! of a gated MLP, each in one launch for a few rows. The norm before them is part of it.

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

use crate::gpu::buffer::{alloc, from_buffer, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::matmul::{
    DeviceMatrix, FORMATS, GEMV_GROUP, GEMV_PRODUCTS, RmsNormPrologue, VARIANTS, for_weights,
    integers, linear_reference, normed, scale_shift,
};
use crate::gpu::testing::{SweepReport, TestRng};
use crate::weights::{DType, WeightFormat};

/// `shaders/gemv_qkv.wgsl` for every precision.
pub const GEMV_QKV: [Shader; VARIANTS] = for_weights!("gemv_qkv", &[("GROUP", GEMV_GROUP)]);

/// `shaders/gemv_swiglu.wgsl` for every precision.
pub const GEMV_SWIGLU: [Shader; VARIANTS] = for_weights!("gemv_swiglu", &[("GROUP", GEMV_GROUP)]);

/// Whether [`FusedWeights`] takes matrices of these shapes `[rows, columns]` and formats: one width
/// and one format that kernels read, a multiple of four rows where there are three matrices, and
/// scales that fill whole words, because they are concatenated.
pub fn fusible<const N: usize>(matrices: [([usize; 2], WeightFormat); N]) -> bool {
    let ([_, columns], format) = matrices[0];
    format.fits(columns)
        && matrices.iter().all(|&([rows, width], other)| {
            let whole_words = match format {
                WeightFormat::Quantized(scheme) if scheme.scale == DType::F16 => {
                    (rows * (columns / scheme.group)).is_multiple_of(2)
                }
                _ => true,
            };
            width == columns && other == format && (N < 3 || rows.is_multiple_of(4)) && whole_words
        })
}

/// Matrices of one input width and one format; their scales are concatenated in a second buffer.
#[derive(Clone, Debug)]
pub struct FusedWeights<const N: usize> {
    parts: [DeviceMatrix; N],
    scales: CubeTensor,
}

impl<const N: usize> FusedWeights<N> {
    /// Fuses matrices that are one block each; `None` unless they are [`fusible`].
    pub fn of(matrices: [&[DeviceMatrix]; N]) -> Option<Self> {
        if !matrices.iter().all(|blocks| blocks.len() == 1) {
            return None;
        }
        let parts = matrices.map(|blocks| blocks[0].clone());
        if !fusible(parts.each_ref().map(|part| (part.shape(), part.format))) {
            return None;
        }
        let scales = match parts[0].format {
            WeightFormat::Quantized(_) => {
                let words = parts.iter().map(|part| part.scales.clone());
                let words = words.map(Tensor::<1, Int>::from_primitive::<Cube>);
                integers(Tensor::cat(words.collect(), 0))
            }
            WeightFormat::Dense(_) => parts[0].scales.clone(),
        };
        Some(Self { parts, scales })
    }

    fn format(&self) -> WeightFormat {
        self.parts[0].format
    }

    fn columns(&self) -> usize {
        self.parts[0].columns
    }
}

/// `[norm(x) W0^T, norm(x) W1^T, norm(x) W2^T] + bias` side by side, for `x` `[M, K]` and `bias`
/// `[N0 + N1 + N2]`: `[M, N0 + N1 + N2]`.
///
/// # Panics
/// Widths disagree, or a buffer is larger than the device binds.
pub fn qkv_proj(
    x: Tensor<2>,
    norm: &RmsNormPrologue,
    matrices: &FusedWeights<3>,
    bias: Option<Tensor<1>>,
) -> Tensor<2> {
    let [count, inputs] = x.dims();
    assert_eq!(inputs, matrices.columns(), "gemv_three: width of the input");
    let rows = matrices.parts.each_ref().map(|part| part.rows);
    let outputs = rows.iter().sum::<usize>();
    let x = to_buffer("gemv_qkv", x);
    let gain = to_buffer("gemv_qkv", norm.gain.clone());
    let biased = bias.is_some();
    let bias = bias.map_or_else(
        || x.handle.clone(),
        |bias| {
            assert_eq!(bias.dims(), [outputs], "gemv_three: bias");
            to_buffer("gemv_qkv", bias).handle
        },
    );
    let out = alloc("gemv_qkv", &x.client, count * outputs);
    let [w0, w1, w2] = &matrices.parts;
    launch(
        w0.of(&GEMV_QKV),
        &x.client,
        (count * outputs.div_ceil(GEMV_PRODUCTS)) as u64,
        &[
            &x.handle,
            &gain.handle,
            &w0.words,
            &w1.words,
            &w2.words,
            &matrices.scales.handle,
            &bias,
        ],
        &[&out],
        &[
            count as u32,
            rows[0] as u32,
            rows[1] as u32,
            rows[2] as u32,
            inputs as u32,
            scale_shift(matrices.format()) as u32,
            u32::from(biased),
            norm.eps.to_bits(),
        ],
    );
    from_buffer(&x, out, [count, outputs])
}

/// `silu(norm(x) W0^T) * norm(x) W1^T` for `x` `[M, K]`: `[M, N]`.
///
/// # Panics
/// Widths disagree, or a buffer is larger than the device binds.
pub fn swiglu_proj(x: Tensor<2>, norm: &RmsNormPrologue, matrices: &FusedWeights<2>) -> Tensor<2> {
    let [count, inputs] = x.dims();
    assert_eq!(inputs, matrices.columns(), "gemv_gated: width of the input");
    let [w0, w1] = &matrices.parts;
    assert_eq!(w0.rows, w1.rows, "gemv_gated: rows of the two halves");
    let x = to_buffer("gemv_swiglu", x);
    let gain = to_buffer("gemv_swiglu", norm.gain.clone());
    let out = alloc("gemv_swiglu", &x.client, count * w0.rows);
    launch(
        w0.of(&GEMV_SWIGLU),
        &x.client,
        (count * w0.rows.div_ceil(GEMV_PRODUCTS / 2)) as u64,
        &[
            &x.handle,
            &gain.handle,
            &w0.words,
            &w1.words,
            &matrices.scales.handle,
        ],
        &[&out],
        &[
            count as u32,
            w0.rows as u32,
            inputs as u32,
            scale_shift(matrices.format()) as u32,
            norm.eps.to_bits(),
            0,
            0,
            0,
        ],
    );
    from_buffer(&x, out, [count, w0.rows])
}

/// Inputs and gains lie in [-1, 1] and at most 320 products are added in f32; the norm makes them
/// up to a few times as large, and the gate multiplies two.
const TOLERANCE: f32 = 5e-4;

/// Compares both kernels on `device`, a graphics device, with plain loops on the processor.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    for format in FORMATS {
        for (count, rows, columns) in [
            (1, [4, 4, 4], 64),
            (2, [60, 4, 36], 128),
            (4, [64, 68, 4], 320),
            (1, [4, 8, 12], 4096),
        ] {
            compare(device, format, count, rows, columns, &mut swept).await?;
        }
    }
    Ok(swept)
}

async fn compare(
    device: &Device,
    format: WeightFormat,
    count: usize,
    rows: [usize; 3],
    columns: usize,
    swept: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("fused {format:?} [{count}, {columns}] x {rows:?}");
    let mut dice = TestRng::default();
    let mut values = |count| dice.values(count);
    let x = values(count * columns);
    let gain = values(columns);
    let outputs = rows.iter().sum::<usize>();
    let bias = values(outputs);
    let scale = 8.0 / columns as f32;
    let mut block = |rows: usize, weights: &mut Vec<f32>| {
        let values = values(rows * columns).iter().map(|v| v * scale).collect();
        DeviceMatrix::from_values(values, [rows, columns], format, device, weights)
    };
    let mut weights = Vec::new();
    let blocks = rows.map(|rows| [block(rows, &mut weights)]);
    let tensor = |values: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let input = || tensor(&x, [count, columns]);
    let norm = RmsNormPrologue {
        gain: tensor(&gain, [1, columns]).reshape([columns]),
        eps: 1e-3,
    };
    let x_normed = normed(&x, &gain, norm.eps);
    let mut expected = linear_reference(&x_normed, &weights, columns);
    for (i, value) in expected.iter_mut().enumerate() {
        *value += bias[i % outputs];
    }
    let joined = FusedWeights::of(blocks.each_ref().map(<[_; 1]>::as_slice));
    let joined = joined.ok_or_else(|| format!("{name}: matrices do not join"))?;
    let bias = tensor(&bias, [1, outputs]).reshape([outputs]);
    let got = with_nan_fill(|| qkv_proj(input(), &norm, &joined, Some(bias)));
    let label = format!("{name}, three");
    swept.compare(&label, got, &expected, TOLERANCE).await?;

    let mut weights = Vec::new();
    // Two rows more than a multiple of four: the last team has half of its work.
    let half = rows[1] + 2;
    let halves = [(); 2].map(|()| [block(half, &mut weights)]);
    let both = linear_reference(&x_normed, &weights, columns);
    let expected: Vec<f32> = both
        .chunks_exact(2 * half)
        .flat_map(|row| {
            let (gate, up) = row.split_at(half);
            let pairs = gate.iter().zip(up);
            pairs.map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
        })
        .collect();
    let joined = FusedWeights::of(halves.each_ref().map(<[_; 1]>::as_slice));
    let joined = joined.ok_or_else(|| format!("{name}: halves do not join"))?;
    let got = with_nan_fill(|| swiglu_proj(input(), &norm, &joined));
    let label = format!("{name}, gated");
    swept.compare(&label, got, &expected, TOLERANCE).await
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn fused_products_agree_with_their_reference() {
        let Some(device) = adapter_for_test("fused_products_agree_with_their_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }
}
