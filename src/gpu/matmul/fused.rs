//! Fused projections of a decoder block for a few rows: QKV, and gate and up of a SwiGLU MLP, each with
//! the RMS norm before it in one launch.

use burn::backend::Cube;
use burn::tensor::{Int, Tensor};
use burn_cubecl::tensor::CubeTensor;

use crate::gpu::buffer::{alloc, from_buffer, int_to_buffer, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::matmul::device_matrix::{VARIANTS, for_weights, scale_shift};
use crate::gpu::matmul::{
    DeviceMatrix, GEMV_GROUP_OUTPUTS, GEMV_MAX_M, GEMV_OUTPUTS, GEMV_WORKGROUP_SIZE,
    RmsNormPrologue, for_gemv_rows,
};
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};
use crate::weights::{DType, WeightFormat};

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::matmul::device_matrix::FORMATS;
#[cfg(feature = "diagnostics")]
use crate::gpu::matmul::linear_reference;
#[cfg(feature = "diagnostics")]
use crate::gpu::rms_norm::rms_norm_reference;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, tensor};

uniforms! {
    /// Uniforms of `shaders/gemv_qkv.wgsl`.
    struct QkvUniforms {
        /// Rows of x.
        m: u32,
        /// Rows of w_q, a multiple of 4.
        n_q: u32,
        /// Rows of w_k, a multiple of 4.
        n_k: u32,
        /// Rows of w_v.
        n_v: u32,
        /// Columns of x and the matrices.
        k: u32,
        /// Binary logarithm of the number of weights per scale.
        group_shift: u32,
        /// 1 if there is a bias.
        biased: u32,
        /// Of the RMS norm: added to the mean square.
        eps: f32,
    }
}

uniforms! {
    /// Uniforms of `shaders/gemv_swiglu.wgsl`.
    struct SwiGluProjUniforms {
        /// Rows of x.
        m: u32,
        /// Rows of each matrix.
        n: u32,
        /// Columns of x and the matrices.
        k: u32,
        /// Binary logarithm of the number of weights per scale.
        group_shift: u32,
        /// Of the RMS norm: added to the mean square.
        eps: f32,
    }
}

/// `shaders/gemv_qkv.wgsl` for one to [`GEMV_MAX_M`] rows of x per workgroup and every weight format.
pub const GEMV_QKV: [[Shader; VARIANTS]; GEMV_MAX_M] =
    for_gemv_rows!("gemv_qkv", QkvUniforms, [("OUTPUTS", GEMV_GROUP_OUTPUTS)]);

/// `shaders/gemv_swiglu.wgsl` for one to [`GEMV_MAX_M`] rows of x per workgroup and every weight format.
pub const GEMV_SWIGLU: [[Shader; VARIANTS]; GEMV_MAX_M] = for_gemv_rows!(
    "gemv_swiglu",
    SwiGluProjUniforms,
    [("OUTPUTS", GEMV_GROUP_OUTPUTS / 2)]
);

/// The variant of a GEMV kernel for `count` rows of x, and the number of its workgroups for `outputs`
/// outputs per row, `of_workgroup` in each.
fn gemv_variant(
    shaders: &[[Shader; VARIANTS]; GEMV_MAX_M],
    count: usize,
    outputs: usize,
    of_workgroup: usize,
) -> (&[Shader; VARIANTS], u64) {
    let rows = count.clamp(1, GEMV_MAX_M);
    let groups = count.div_ceil(rows) * outputs.div_ceil(of_workgroup);
    (&shaders[rows - 1], groups as u64)
}

/// Whether [`FusedWeights`] takes matrices of these shapes `[rows, columns]` and formats: one width
/// and one format that kernels read, a multiple of four rows where there are three matrices, and
/// scales that fill whole words, because they are concatenated.
pub fn fusible<const N: usize>(matrices: [([usize; 2], WeightFormat); N]) -> bool {
    let ([_, columns], format) = matrices[0];
    format.fits(columns)
        && matrices.iter().all(|&([rows, width], other)| {
            let whole_words = match format {
                WeightFormat::Quantized(scheme) if scheme.scale == DType::F16 => {
                    scheme.scale_count(rows * columns).is_multiple_of(2)
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
                int_to_buffer("scales", Tensor::cat(words.collect(), 0))
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

/// The QKV projection `concat(norm(x) WQ^T, norm(x) WK^T, norm(x) WV^T) + bias` for `x` `[M, K]` and
/// `bias` `[NQ + NK + NV]`: `[M, NQ + NK + NV]`.
///
/// # Panics
/// Widths disagree, or the device cannot bind a buffer of that size.
pub fn qkv_proj(
    x: Tensor<2>,
    norm: &RmsNormPrologue,
    matrices: &FusedWeights<3>,
    bias: Option<Tensor<1>>,
) -> Tensor<2> {
    let [count, inputs] = x.dims();
    assert_eq!(inputs, matrices.columns(), "gemv_qkv: width of the input");
    let rows = matrices.parts.each_ref().map(|part| part.rows);
    let outputs = rows.iter().sum::<usize>();
    let x = to_buffer("gemv_qkv", x);
    let gain = to_buffer("gemv_qkv", norm.gain.clone());
    let biased = bias.is_some();
    let bias = bias.map_or_else(
        || x.handle.clone(),
        |bias| {
            assert_eq!(bias.dims(), [outputs], "gemv_qkv: bias");
            to_buffer("gemv_qkv", bias).handle
        },
    );
    let out = alloc("gemv_qkv", &x.client, count * outputs);
    let [w0, w1, w2] = &matrices.parts;
    let (shaders, groups) = gemv_variant(&GEMV_QKV, count, outputs, GEMV_OUTPUTS);
    launch(
        w0.of(shaders),
        &x.client,
        groups,
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
        &QkvUniforms {
            m: count as u32,
            n_q: rows[0] as u32,
            n_k: rows[1] as u32,
            n_v: rows[2] as u32,
            k: inputs as u32,
            group_shift: scale_shift(matrices.format()) as u32,
            biased: u32::from(biased),
            eps: norm.eps,
        },
    );
    from_buffer(&x, out, [count, outputs])
}

/// The gate and up projections of a SwiGLU MLP, `silu(norm(x) WG^T) * norm(x) WU^T`, for `x` `[M, K]`:
/// `[M, N]`.
///
/// # Panics
/// Widths disagree, or the device cannot bind a buffer of that size.
pub fn swiglu_proj(x: Tensor<2>, norm: &RmsNormPrologue, matrices: &FusedWeights<2>) -> Tensor<2> {
    let [count, inputs] = x.dims();
    assert_eq!(
        inputs,
        matrices.columns(),
        "gemv_swiglu: width of the input"
    );
    let [w0, w1] = &matrices.parts;
    assert_eq!(w0.rows, w1.rows, "gemv_swiglu: rows of gate and up");
    let x = to_buffer("gemv_swiglu", x);
    let gain = to_buffer("gemv_swiglu", norm.gain.clone());
    let out = alloc("gemv_swiglu", &x.client, count * w0.rows);
    let (shaders, groups) = gemv_variant(&GEMV_SWIGLU, count, w0.rows, GEMV_OUTPUTS / 2);
    launch(
        w0.of(shaders),
        &x.client,
        groups,
        &[
            &x.handle,
            &gain.handle,
            &w0.words,
            &w1.words,
            &matrices.scales.handle,
        ],
        &[&out],
        &SwiGluProjUniforms {
            m: count as u32,
            n: w0.rows as u32,
            k: inputs as u32,
            group_shift: scale_shift(matrices.format()) as u32,
            eps: norm.eps,
        },
    );
    from_buffer(&x, out, [count, w0.rows])
}

/// The largest difference allowed: x and gain lie in [-1, 1], and at most 320 products are added in f32;
/// the norm scales them by a few, and SwiGLU multiplies two.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 5e-4;

/// Compares both kernels on `device`, a GPU, with plain loops on the CPU.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for format in FORMATS {
        for (count, rows, columns) in [
            (1, [4, 4, 4], 64),
            (2, [60, 4, 36], 128),
            (3, [4, 32, 16], 1088),
            (4, [64, 68, 4], 320),
            (5, [16, 4, 4], 64),
            (1, [4, 8, 12], 4096),
            (2, [4, 8, 12], 4096),
        ] {
            compare(device, format, count, rows, columns, &mut report).await?;
        }
    }
    Ok(report)
}

#[cfg(feature = "diagnostics")]
async fn compare(
    device: &Device,
    format: WeightFormat,
    count: usize,
    rows: [usize; 3],
    columns: usize,
    report: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("fused {format:?} [{count}, {columns}] x {rows:?}");
    let mut rng = TestRng::default();
    let mut values = |count| rng.values(count);
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
    let input = || tensor(&x, [count, columns], device);
    let norm = RmsNormPrologue {
        gain: tensor(&gain, [columns], device),
        eps: 1e-3,
    };
    let x_normed = rms_norm_reference(&x, &gain, norm.eps);
    let mut expected = linear_reference(&x_normed, &weights, columns);
    for (i, value) in expected.iter_mut().enumerate() {
        *value += bias[i % outputs];
    }
    let fused = FusedWeights::of(blocks.each_ref().map(<[_; 1]>::as_slice));
    let fused = fused.ok_or_else(|| format!("{name}: QKV is not fusible"))?;
    let bias = tensor(&bias, [outputs], device);
    let got = with_nan_fill(|| qkv_proj(input(), &norm, &fused, Some(bias)));
    let label = format!("{name}, QKV");
    report.compare(&label, got, &expected, TOLERANCE).await?;

    let mut weights = Vec::new();
    // Not a multiple of 4: the last 32-thread group computes half of its outputs.
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
    let fused = FusedWeights::of(halves.each_ref().map(<[_; 1]>::as_slice));
    let fused = fused.ok_or_else(|| format!("{name}: gate and up are not fusible"))?;
    let got = with_nan_fill(|| swiglu_proj(input(), &norm, &fused));
    let label = format!("{name}, SwiGLU");
    report.compare(&label, got, &expected, TOLERANCE).await
}
