//! Matmul with weights of any format on the GPU.
//!
//! A matrix comes in blocks of consecutive rows, each in its own buffers, so that no buffer is larger
//! than the device binds. [`select`] picks a kernel by shape. Kernels load weights in vectors;
//! `shaders/shared/dequant_*.wgsl` decode each format, which is all that differs between formats.

mod device_matrix;
pub mod fused;
mod gather;
mod product;
mod select;

use burn::tensor::Tensor;
use cubecl::server::Handle;

pub use device_matrix::DeviceMatrix;
use device_matrix::{VARIANTS, for_weights, scale_shift};
pub use gather::{GATHER_ROWS, gather, gather_on_device};
pub use product::{batched_matmul, in_whole_vectors};
pub use select::GEMV_MAX_M;
use select::MatmulKernel;

use crate::gpu::buffer::{alloc, from_buffer, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::launch::GroupLimit;
#[cfg(feature = "diagnostics")]
use crate::gpu::matmul::device_matrix::FORMATS;
#[cfg(feature = "diagnostics")]
use crate::gpu::rms_norm::rms_norm_reference;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, tensor};
#[cfg(feature = "diagnostics")]
use crate::weights::WeightFormat;

/// Threads per workgroup of the GEMV kernels: four 32-thread groups.
const GEMV_WORKGROUP_SIZE: u32 = 128;

/// Outputs of a 32-thread group of a GEMV kernel.
const GEMV_GROUP_OUTPUTS: u32 = 4;

/// Outputs of a workgroup of a GEMV kernel.
const GEMV_OUTPUTS: usize = (GEMV_WORKGROUP_SIZE / 32 * GEMV_GROUP_OUTPUTS) as usize;

/// The variants of a GEMV kernel for one to [`GEMV_MAX_M`] rows of x per workgroup, each for every weight
/// format; the constants are those of all.
macro_rules! for_gemv_rows {
    ($name:literal, $uniforms:ty, [$($constant:expr),* $(,)?]) => {
        [
            for_gemv_rows!($name, $uniforms, [$($constant),*], 1, "gemv_one_row"),
            for_gemv_rows!($name, $uniforms, [$($constant),*], 2, "gemv_few_rows"),
            for_gemv_rows!($name, $uniforms, [$($constant),*], 3, "gemv_few_rows"),
            for_gemv_rows!($name, $uniforms, [$($constant),*], 4, "gemv_few_rows"),
        ]
    };
    ($name:literal, $uniforms:ty, [$($constant:expr),*], $count:literal, $rows:literal) => {
        for_weights!(
            $name,
            $uniforms,
            &[
                ("WORKGROUP_SIZE", GEMV_WORKGROUP_SIZE),
                ("ROW_COUNT", $count),
                $($constant),*
            ],
            $rows
        )
    };
}

use for_gemv_rows;

/// Values of `u.epilogue`.
const EPILOGUE_NONE: u32 = 0;
const EPILOGUE_BIAS: u32 = 1;
const EPILOGUE_RESIDUAL: u32 = 2;

uniforms! {
    /// Uniforms of `shaders/gemv.wgsl`.
    struct GemvUniforms {
        /// Rows of x.
        m: u32,
        /// Rows of w.
        n: u32,
        /// Columns of x and w.
        k: u32,
        /// Binary logarithm of the number of weights per scale.
        group_shift: u32,
        /// Column of y of the first row of w.
        col_offset: u32,
        /// Columns of y.
        n_total: u32,
        /// 0, EPILOGUE_BIAS or EPILOGUE_RESIDUAL.
        epilogue: u32,
        /// 1 if x goes through an RMS norm.
        normed: u32,
        /// Of the RMS norm: added to the mean square.
        eps: f32,
    }
}

uniforms! {
    /// Uniforms of `shaders/matmul.wgsl` and `shaders/matmul_skinny.wgsl`.
    struct MatmulUniforms {
        /// Rows of x.
        m: u32,
        /// Rows of w.
        n: u32,
        /// Columns of x and w.
        k: u32,
        /// Binary logarithm of the number of weights per scale.
        group_shift: u32,
        /// Column of y of the first row of w.
        col_offset: u32,
        /// Columns of y.
        n_total: u32,
        /// 0, EPILOGUE_BIAS or EPILOGUE_RESIDUAL.
        epilogue: u32,
    }
}

/// `shaders/gemv.wgsl` for one to [`GEMV_MAX_M`] rows of x per workgroup and every weight format.
pub const GEMV: [[Shader; VARIANTS]; GEMV_MAX_M] = for_gemv_rows!(
    "gemv",
    GemvUniforms,
    [
        ("OUTPUTS", GEMV_GROUP_OUTPUTS),
        ("EPILOGUE_BIAS", EPILOGUE_BIAS),
        ("EPILOGUE_RESIDUAL", EPILOGUE_RESIDUAL),
    ]
);

/// A tiled matmul: rows and columns of a tile, k per iteration, splits of k.
macro_rules! tiled_matmul {
    ($name:literal, $rows:literal x $columns:literal, $tile_k:literal, $splits:literal) => {
        for_weights!(
            $name,
            MatmulUniforms,
            &[
                ("TILE_K", $tile_k),
                ("M_QUADS", $rows / 4),
                ("N_QUADS", $columns / 4),
                ("K_SPLITS", $splits),
                ("EPILOGUE_BIAS", EPILOGUE_BIAS),
                ("EPILOGUE_RESIDUAL", EPILOGUE_RESIDUAL),
            ]
        )
    };
}

/// `shaders/matmul.wgsl` for every weight format, in tiles of 64 x 64 with four splits of k.
pub const MATMUL_SPLIT_K: [Shader; VARIANTS] = tiled_matmul!("matmul", 64 x 64, 32, 4);

/// The same without splits.
pub const MATMUL: [Shader; VARIANTS] = tiled_matmul!("matmul", 64 x 64, 16, 1);

/// The same in tiles of 64 x 128.
pub const MATMUL_TILE64X128: [Shader; VARIANTS] = tiled_matmul!("matmul", 64 x 128, 16, 1);

/// `shaders/matmul_skinny.wgsl` for every weight format, in tiles of 16 x 32.
pub const MATMUL_SKINNY: [Shader; VARIANTS] = tiled_matmul!("matmul_skinny", 16 x 32, 64, 8);

/// What a product adds to its outputs.
#[derive(Clone, Debug)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// A value per column, `[N]`.
    Bias(Tensor<1>),
    /// A value per element, `[M, N]`.
    Residual(Tensor<2>),
}

/// An RMS norm before a product, computed by the same kernel.
#[derive(Clone, Debug)]
pub struct RmsNormPrologue {
    /// `[K]`.
    pub gain: Tensor<1>,
    /// Added to the mean square.
    pub eps: f32,
}

/// `x W^T` plus the epilogue, for `x` `[M, K]` and a matrix `[N, K]` in blocks of rows: `[M, N]`.
///
/// # Panics
/// There is no block, widths differ, or the device cannot bind a buffer of that size.
pub fn linear(x: Tensor<2>, blocks: &[DeviceMatrix], epilogue: Epilogue) -> Tensor<2> {
    let m = x.dims()[0];
    let n = blocks.iter().map(|block| block.rows).sum();
    product(x, None, blocks, epilogue, MatmulKernel::select(m, n))
}

/// [`linear`] of an RMS norm of `x`, for a few rows.
///
/// # Panics
/// As [`linear`].
pub fn normed_linear(
    x: Tensor<2>,
    norm: &RmsNormPrologue,
    blocks: &[DeviceMatrix],
    epilogue: Epilogue,
) -> Tensor<2> {
    let kernel = MatmulKernel::gemv(x.dims()[0]);
    product(x, Some(norm), blocks, epilogue, kernel)
}

fn product(
    x: Tensor<2>,
    norm: Option<&RmsNormPrologue>,
    blocks: &[DeviceMatrix],
    epilogue: Epilogue,
    kernel: MatmulKernel,
) -> Tensor<2> {
    let [count, inputs] = x.dims();
    let outputs = blocks.iter().map(|block| block.rows).sum::<usize>();
    assert!(outputs > 0, "linear: a matrix without rows");
    if count == 0 {
        return Tensor::zeros([0, outputs], &x.device());
    }
    let is_gemv = matches!(kernel, MatmulKernel::Gemv(_));
    assert!(is_gemv || norm.is_none(), "linear: only GEMV has a norm");
    let x = to_buffer("linear", x);
    assert!(
        count * inputs.max(outputs) <= u32::MAX as usize,
        "linear: {count} rows of {inputs} to {outputs}"
    );
    let out = alloc("linear", &x.client, count * outputs);
    let (epilogue, added) = match epilogue {
        Epilogue::None => (EPILOGUE_NONE, x.handle.clone()),
        Epilogue::Bias(bias) => {
            assert_eq!(bias.dims(), [outputs], "linear: bias");
            (
                EPILOGUE_BIAS,
                to_buffer("linear", bias.unsqueeze::<2>()).handle,
            )
        }
        Epilogue::Residual(residual) => {
            assert_eq!(residual.dims(), [count, outputs], "linear: residual");
            (EPILOGUE_RESIDUAL, to_buffer("linear", residual).handle)
        }
    };
    let gain = norm.map_or_else(
        || x.handle.clone(),
        |norm| {
            assert_eq!(norm.gain.dims(), [inputs], "linear: gain of the RMS norm");
            to_buffer("linear", norm.gain.clone()).handle
        },
    );
    let mut first = 0;
    for block in blocks {
        assert_eq!(block.columns, inputs, "linear: width of the input");
        assert!(block.fits(), "linear: {inputs} inputs, {:?}", block.format);
        let rest: &[&Handle] = &[&block.words, &block.scales.handle, &added];
        let [tile_rows, tile_columns] = kernel.tile();
        let groups = count.div_ceil(tile_rows) * block.rows.div_ceil(tile_columns);
        let shader = block.of(kernel.shaders());
        let matmul = MatmulUniforms {
            m: count as u32,
            n: block.rows as u32,
            k: inputs as u32,
            group_shift: scale_shift(block.format) as u32,
            col_offset: first as u32,
            n_total: outputs as u32,
            epilogue,
        };
        if is_gemv {
            let bindings = [&[&x.handle, &gain], rest].concat();
            let uniforms = GemvUniforms {
                m: matmul.m,
                n: matmul.n,
                k: matmul.k,
                group_shift: matmul.group_shift,
                col_offset: matmul.col_offset,
                n_total: matmul.n_total,
                epilogue,
                normed: u32::from(norm.is_some()),
                eps: norm.map_or(0.0, |norm| norm.eps),
            };
            launch(
                shader,
                &x.client,
                groups as u64,
                &bindings,
                &[&out],
                &uniforms,
            );
        } else {
            let bindings = [&[&x.handle], rest].concat();
            launch(
                shader,
                &x.client,
                groups as u64,
                &bindings,
                &[&out],
                &matmul,
            );
        }
        first += block.rows;
    }
    from_buffer(&x, out, [count, outputs])
}

/// [`linear`] without an epilogue in plain loops over weights `[N, K]`, summed in f64.
#[cfg(feature = "diagnostics")]
pub fn linear_reference(x: &[f32], weights: &[f32], inputs: usize) -> Vec<f32> {
    let product = |row: &[f32], weights: &[f32]| {
        let terms = row.iter().zip(weights);
        terms
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>() as f32
    };
    x.chunks_exact(inputs)
        .flat_map(|row| weights.chunks_exact(inputs).map(move |w| product(row, w)))
        .collect()
}

/// The largest difference allowed: x and weights lie in [-1, 1], and at most 1056 products are added in f32.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 2e-4;

/// Compares all kernels on `device`, a GPU, with the reference on the CPU: all formats and group sizes,
/// rows and columns around the tile sizes, several blocks, folded workgroups.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    // Rows of x, rows of each block, columns.
    let shapes: [(usize, &[usize], usize); 15] = [
        (0, &[3], 32),
        (1, &[1], 32),
        (1, &[31, 1], 96),
        (3, &[32], 64),
        (5, &[33], 64),
        (15, &[64], 36),
        (17, &[63], 96),
        (31, &[7, 64, 5], 320),
        (32, &[31], 128),
        (33, &[65], 192),
        (67, &[13], 64),
        (65, &[129], 36),
        (2, &[5], 4),
        (1, &[16, 1], 1056),
        (7, &[18], 1056),
    ];
    for format in FORMATS {
        for (turn, (count, rows, columns)) in shapes.into_iter().enumerate() {
            if format.fits(columns) {
                let case = (count, rows, columns);
                compare(device, format, case, turn, &mut report).await?;
            }
        }
        // Every kernel has more workgroups than a dimension holds, and some have surplus ones.
        let _folded = GroupLimit::new(2);
        compare(device, format, (131, &[161], 64), 0, &mut report).await?;
    }
    Ok(report)
}

/// Every kernel, each with one epilogue; the epilogues take turns.
#[cfg(feature = "diagnostics")]
async fn compare(
    device: &Device,
    format: WeightFormat,
    (count, rows, columns): (usize, &[usize], usize),
    turn: usize,
    report: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("{format:?} [{count}, {columns}] x {rows:?}");
    let mut rng = TestRng::default();
    let mut values = |count| rng.values(count);
    let x = values(count * columns);
    let mut weights = Vec::new();
    let mut blocks = Vec::new();
    for &rows in rows {
        let block = values(rows * columns);
        let shape = [rows, columns];
        blocks.push(DeviceMatrix::from_values(
            block,
            shape,
            format,
            device,
            &mut weights,
        ));
    }
    let outputs = rows.iter().sum::<usize>();
    let input = || tensor(&x, [count, columns], device);
    let expected = linear_reference(&x, &weights, columns);
    if count == 0 {
        let empty = linear(input(), &blocks, Epilogue::None);
        assert_eq!(empty.dims(), [0, outputs]);
    }
    for (number, kernel) in MatmulKernel::ALL.into_iter().enumerate() {
        if count == 0 {
            continue;
        }
        let bias = values(outputs);
        let residual = values(count * outputs);
        let epilogue = match (turn + number) % 3 {
            0 => Epilogue::None,
            1 => Epilogue::Bias(tensor(&bias, [outputs], device)),
            _ => Epilogue::Residual(tensor(&residual, [count, outputs], device)),
        };
        let name = format!("{name}, {kernel:?}, epilogue {}", kind(&epilogue));
        let mut expected = expected.clone();
        for (i, value) in expected.iter_mut().enumerate() {
            *value += match &epilogue {
                Epilogue::None => 0.0,
                Epilogue::Bias(_) => bias[i % outputs],
                Epilogue::Residual(_) => residual[i],
            };
        }
        let got = with_nan_fill(|| product(input(), None, &blocks, epilogue, kernel));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    if count > 0 {
        let gain = values(columns);
        let norm = RmsNormPrologue {
            gain: tensor(&gain, [columns], device),
            eps: 1e-3,
        };
        let expected =
            linear_reference(&rms_norm_reference(&x, &gain, norm.eps), &weights, columns);
        let got = with_nan_fill(|| normed_linear(input(), &norm, &blocks, Epilogue::None));
        let name = format!("{name}, normed");
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    let last = outputs as u32 - 1;
    let ids = [last, 0, last / 2, last / 3];
    let expected: Vec<f32> = ids
        .iter()
        .flat_map(|&id| &weights[id as usize * columns..][..columns])
        .copied()
        .collect();
    let got = with_nan_fill(|| gather(&ids, &blocks, device));
    let name = format!("{name}, gather");
    report.compare(&name, got, &expected, 0.0).await
}

#[cfg(feature = "diagnostics")]
fn kind(epilogue: &Epilogue) -> &'static str {
    match epilogue {
        Epilogue::None => "nothing",
        Epilogue::Bias(_) => "bias",
        Epilogue::Residual(_) => "residual",
    }
}
