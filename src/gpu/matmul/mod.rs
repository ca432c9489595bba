//! Matrices on a graphics device in any precision, products with them, and rows of them.
//!
//! A matrix comes in blocks of neighbouring rows, each in buffers of its own, so that no buffer
//! passes what a device can bind. Few rows of `x` go through `gemv` (every weight is read once per
//! row), more through `matmul_short` (once per 16 rows), many through `matmul` (once per 64 rows), whose
//! workgroups are the deeper the fewer there are. A kernel reads weights in units; which numbers a unit
//! holds is all that differs between precisions, and files of `shaders/shared/` say it.

pub mod fused;

use burn::backend::Cube;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;
use half::f16;

use crate::gpu::buffer::{alloc, from_buffer, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng};
use crate::gpu::upload::Upload;
use crate::weights::quant::Rounding;
use crate::weights::{DType, QuantScheme, WeightFormat};

/// Invocations per workgroup of `matrix_rows`, and of what works on single elements.
pub(super) const GROUP: u32 = 64;

/// Invocations per workgroup of `gemv` and its relatives: four teams of 32.
pub(super) const GEMV_GROUP: u32 = 128;

/// Products that such a workgroup makes: four for each team.
pub(super) const GEMV_PRODUCTS: usize = GEMV_GROUP as usize / 8;

/// More rows than this go through `matmul_short` or `matmul`.
pub const GEMV_MAX_M: usize = 4;

/// More rows than this go through `matmul`.
const SKINNY_MAX_M: usize = 32;

/// With more tiles of 64 x 64 than this no workgroup of `matmul` shares a tile's inputs among slices.
const SPLIT_K_MAX_TILES: usize = 256;

/// With more of them than this, tiles are 64 x 128.
const TILE64_MAX_TILES: usize = 768;

/// Variants of a shader that reads weights.
pub(super) const VARIANTS: usize = 6;

/// A shader that reads weights, in the formats of [`variant`].
macro_rules! for_weights {
    ($name:literal, $constants:expr) => {
        [
            for_weights!($name, $constants, "q4", "vec8", "scale_f16"),
            for_weights!($name, $constants, "q8", "vec8", "scale_f16"),
            for_weights!($name, $constants, "q4", "vec8", "scale_f32"),
            for_weights!($name, $constants, "q8", "vec8", "scale_f32"),
            for_weights!($name, $constants, "f16", "vec4", "scale_none"),
            for_weights!($name, $constants, "f32", "vec4", "scale_none"),
        ]
    };
    ($name:literal, $constants:expr, $weights:literal, $slice:literal, $scales:literal) => {
        Shader {
            name: $name,
            text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            constants: $constants,
            imports: &[
                ("WEIGHTS", concat!("weights_", $weights)),
                ("LOADS", concat!("loads_", $weights)),
                ("SCALES", $scales),
                ("SLICE", $slice),
                ("INPUTS", concat!("inputs_", $slice)),
            ],
        }
    };
}

pub(super) use for_weights;

/// `shaders/gemv.wgsl` for every precision.
pub const GEMV: [Shader; VARIANTS] = for_weights!("gemv", &[("GROUP", GEMV_GROUP)]);

macro_rules! matmul {
    ($columns:literal, $step:literal, $slices:literal) => {
        for_weights!(
            "matmul",
            &[
                ("STEP", $step),
                ("ROW_QUADS", 16),
                ("COLUMN_QUADS", $columns / 4),
                ("SLICES", $slices),
                ("LANES", $columns * $slices),
            ]
        )
    };
}

/// `shaders/matmul.wgsl` for every precision, in tiles of 64 x 64 with four slices.
pub const MATMUL_SPLIT_K: [Shader; VARIANTS] = matmul!(64, 32, 4);

/// The same without slices.
pub const MATMUL: [Shader; VARIANTS] = matmul!(64, 16, 1);

/// The same in tiles of 64 x 128.
pub const MATMUL_TILE64X128: [Shader; VARIANTS] = matmul!(128, 16, 1);

/// `shaders/matmul_skinny.wgsl` for every precision, in tiles of 16 x 32.
pub const MATMUL_SKINNY: [Shader; VARIANTS] = for_weights!(
    "matmul_skinny",
    &[("STEP", 64), ("COLUMN_QUADS", 8), ("SLICES", 8)]
);

/// `shaders/gather_rows.wgsl` for every precision.
pub const GATHER_ROWS: [Shader; VARIANTS] = for_weights!("gather_rows", &[("GROUP", GROUP)]);

/// The place of `format` among the variants of a shader.
///
/// # Panics
/// No kernel reads it.
pub(super) fn variant(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Quantized(scheme) => {
            2 * usize::from(scheme.scale == DType::F32) + usize::from(scheme.bits == 8)
        }
        WeightFormat::Dense(DType::F16) => 4,
        WeightFormat::Dense(DType::F32) => 5,
        WeightFormat::Dense(DType::BF16 | DType::U32) => panic!("no kernel reads {format:?}"),
    }
}

/// The binary logarithm of the number of weights per scale; 0 without scales.
///
/// # Panics
/// That number is no power of two.
pub(super) fn scale_shift(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Quantized(QuantScheme { group, .. }) => {
            assert!(group.is_power_of_two(), "{group} weights per scale");
            group.ilog2() as usize
        }
        WeightFormat::Dense(_) => 0,
    }
}

/// Neighbouring rows of a matrix on a GPU. A module without parameters: it cannot be trained.
#[derive(Module, Debug)]
pub struct DeviceMatrix {
    #[module(skip)]
    pub(super) words: Handle,
    #[module(skip)]
    pub(super) scales: CubeTensor,
    pub(super) rows: usize,
    pub(super) columns: usize,
    #[module(skip)]
    pub(super) format: WeightFormat,
}

impl DeviceMatrix {
    /// `rows` rows of `columns` quantized weights: words of codes, and scales as they are stored.
    ///
    /// # Panics
    /// The sizes disagree, or the tensors are not on a GPU.
    pub fn quantized(
        words: Tensor<1, Int>,
        scales: Tensor<1, Int>,
        [rows, columns]: [usize; 2],
        scheme: QuantScheme,
    ) -> Self {
        assert!(scheme.fits(columns), "{columns} columns, {scheme:?}");
        assert_eq!(words.dims(), [rows * scheme.words(columns)], "words");
        let groups = rows * (columns / scheme.group);
        assert_eq!(scales.dims(), [scheme.scale.words(groups)], "scales");
        Self {
            words: integers(words).handle,
            scales: integers(scales),
            rows,
            columns,
            format: WeightFormat::Quantized(scheme),
        }
    }

    /// `rows` rows of `columns` f16 weights, two in a word.
    ///
    /// # Panics
    /// The sizes disagree, or the tensor is not on a GPU.
    pub fn f16(words: Tensor<1, Int>, [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(words.dims(), [(rows * columns).div_ceil(2)], "words");
        let words = integers(words);
        Self {
            words: words.handle.clone(),
            scales: words,
            rows,
            columns,
            format: WeightFormat::Dense(DType::F16),
        }
    }

    /// An f32 matrix `[N, K]`.
    ///
    /// # Panics
    /// It is not on a GPU.
    pub fn f32(weight: Tensor<2>) -> Self {
        let [rows, columns] = weight.dims();
        let words = to_buffer("matrix", weight);
        Self {
            words: words.handle.clone(),
            scales: words,
            rows,
            columns,
            format: WeightFormat::Dense(DType::F32),
        }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// Whether kernels read rows of this width.
    pub fn fits(&self) -> bool {
        self.format.fits(self.columns)
    }

    pub(super) fn of<'a>(&self, shaders: &'a [Shader; VARIANTS]) -> &'a Shader {
        &shaders[variant(self.format)]
    }
}

pub(super) fn integers(tensor: Tensor<1, Int>) -> CubeTensor {
    let tensor = tensor
        .try_into_primitive::<Cube>()
        .expect("packed weights are on a graphics device");
    into_contiguous(tensor)
}

/// What is added to a product.
#[derive(Clone, Debug)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// A value per column, `[N]`.
    Bias(Tensor<1>),
    /// A value per element, `[M, N]`.
    Residual(Tensor<2>),
}

/// An RMS norm that rows go through before a product.
#[derive(Clone, Debug)]
pub struct RmsNormPrologue {
    /// `[K]`.
    pub gain: Tensor<1>,
    /// Added to the mean square.
    pub eps: f32,
}

/// `x W^T` and what is added, for `x` `[M, K]` and a matrix `[N, K]` in blocks of rows: `[M, N]`.
///
/// # Panics
/// There is no block, the widths differ, or a buffer is larger than the device binds.
pub fn linear(x: Tensor<2>, blocks: &[DeviceMatrix], added: Epilogue) -> Tensor<2> {
    let count = x.dims()[0];
    let outputs = blocks.iter().map(|block| block.rows).sum();
    product(x, None, blocks, added, MatmulKernel::best(count, outputs))
}

/// [`linear`] for a few rows that go through a norm first.
///
/// # Panics
/// As [`linear`].
pub fn normed_linear(
    x: Tensor<2>,
    norm: &RmsNormPrologue,
    blocks: &[DeviceMatrix],
    added: Epilogue,
) -> Tensor<2> {
    product(x, Some(norm), blocks, added, MatmulKernel::Gemv)
}

/// The kernel that makes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatmulKernel {
    Gemv,
    Skinny,
    SplitK64,
    Tile64,
    Tile64x128,
}

impl MatmulKernel {
    const ALL: [Self; 5] = [
        Self::Gemv,
        Self::Skinny,
        Self::SplitK64,
        Self::Tile64,
        Self::Tile64x128,
    ];

    /// For `count` rows of inputs and a matrix of `outputs` rows.
    fn best(count: usize, outputs: usize) -> Self {
        let tiles = count.div_ceil(64) * outputs.div_ceil(64);
        if count <= GEMV_MAX_M {
            Self::Gemv
        } else if count <= SKINNY_MAX_M {
            Self::Skinny
        } else if tiles <= SPLIT_K_MAX_TILES {
            Self::SplitK64
        } else if tiles <= TILE64_MAX_TILES {
            Self::Tile64
        } else {
            Self::Tile64x128
        }
    }

    fn shaders(self) -> &'static [Shader; VARIANTS] {
        match self {
            Self::Gemv => &GEMV,
            Self::Skinny => &MATMUL_SKINNY,
            Self::SplitK64 => &MATMUL_SPLIT_K,
            Self::Tile64 => &MATMUL,
            Self::Tile64x128 => &MATMUL_TILE64X128,
        }
    }

    /// Rows and columns of outputs that a workgroup makes.
    fn tile(self) -> [usize; 2] {
        match self {
            Self::Gemv => [1, GEMV_PRODUCTS],
            Self::Skinny => [16, 32],
            Self::SplitK64 | Self::Tile64 => [64, 64],
            Self::Tile64x128 => [64, 128],
        }
    }
}

fn product(
    x: Tensor<2>,
    norm: Option<&RmsNormPrologue>,
    blocks: &[DeviceMatrix],
    added: Epilogue,
    by: MatmulKernel,
) -> Tensor<2> {
    let [count, inputs] = x.dims();
    let outputs = blocks.iter().map(|block| block.rows).sum::<usize>();
    assert!(outputs > 0, "linear: a matrix without rows");
    if count == 0 {
        return Tensor::zeros([0, outputs], &x.device());
    }
    assert!(
        by == MatmulKernel::Gemv || norm.is_none(),
        "linear: a norm of many rows"
    );
    let x = to_buffer("linear", x);
    assert!(
        count * inputs.max(outputs) <= u32::MAX as usize,
        "linear: {count} rows of {inputs} to {outputs}"
    );
    let out = alloc("linear", &x.client, count * outputs);
    let (how, added) = match added {
        Epilogue::None => (0, x.handle.clone()),
        Epilogue::Bias(bias) => {
            assert_eq!(bias.dims(), [outputs], "linear: bias");
            (1, to_buffer("linear", bias.unsqueeze::<2>()).handle)
        }
        Epilogue::Residual(residual) => {
            assert_eq!(residual.dims(), [count, outputs], "linear: residual");
            (2, to_buffer("linear", residual).handle)
        }
    };
    let gain = norm.map_or_else(
        || x.handle.clone(),
        |norm| {
            assert_eq!(norm.gain.dims(), [inputs], "linear: gain of the norm");
            to_buffer("linear", norm.gain.clone()).handle
        },
    );
    let mut first = 0;
    for block in blocks {
        assert_eq!(block.columns, inputs, "linear: width of the input");
        assert!(block.fits(), "linear: {inputs} inputs, {:?}", block.format);
        let mut sizes = vec![
            count,
            block.rows,
            inputs,
            scale_shift(block.format),
            first,
            outputs,
            how,
            usize::from(norm.is_some()),
        ];
        let rest: &[&Handle] = &[&block.words, &block.scales.handle, &added];
        let bindings = if by == MatmulKernel::Gemv {
            let eps = norm.map_or(0.0, |norm| norm.eps);
            sizes.extend([eps.to_bits() as usize, 0, 0, 0]);
            [&[&x.handle, &gain], rest].concat()
        } else {
            [&[&x.handle], rest].concat()
        };
        let [tile_rows, tile_columns] = by.tile();
        let groups = count.div_ceil(tile_rows) * block.rows.div_ceil(tile_columns);
        let sizes: Vec<u32> = sizes.into_iter().map(|size| size as u32).collect();
        let shader = block.of(by.shaders());
        launch(shader, &x.client, groups as u64, &bindings, &[&out], &sizes);
        first += block.rows;
    }
    from_buffer(&x, out, [count, outputs])
}

/// Rows `ids` of a matrix `[N, K]` in blocks of rows: `[R, K]`.
///
/// # Panics
/// An id is not below N, or there is no id.
pub fn gather(ids: &[u32], blocks: &[DeviceMatrix], device: &Device) -> Tensor<2> {
    let rows = blocks.iter().map(|block| block.rows).sum::<usize>();
    let largest = *ids.iter().max().expect("matrix_rows: at least one id");
    assert!((largest as usize) < rows, "row {largest} of {rows}");
    let values = ids.iter().map(|id| id.cast_signed()).collect::<Vec<_>>();
    let data = TensorData::new(values, [ids.len()]);
    gather_on_device(Tensor::from_data(data, device), blocks)
}

/// [`gather`] for ids that lie on the device, each of them below N.
///
/// # Panics
/// Kernels cannot read the matrix.
pub fn gather_on_device(ids: Tensor<1, Int>, blocks: &[DeviceMatrix]) -> Tensor<2> {
    let [count] = ids.dims();
    let columns = blocks[0].columns;
    let ids = integers(ids);
    let out = alloc("gather_rows", &ids.client, count * columns);
    let mut first = 0;
    for block in blocks {
        assert!(block.fits(), "rows of {columns}, {:?}", block.format);
        let per_unit = match block.format {
            WeightFormat::Quantized(_) => 8,
            WeightFormat::Dense(_) => 4,
        };
        let units = count * columns / per_unit;
        launch(
            block.of(&GATHER_ROWS),
            &ids.client,
            units.div_ceil(GROUP as usize) as u64,
            &[&ids.handle, &block.words, &block.scales.handle],
            &[&out],
            &[
                count,
                block.rows,
                columns,
                scale_shift(block.format),
                first,
                0,
                0,
                0,
            ]
            .map(|size| size as u32),
        );
        first += block.rows;
    }
    from_buffer(&ids, out, [count, columns])
}

/// [`linear`] in plain loops over weights `[N, K]`, summed in f64.
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

const fn quantized(bits: u32, group: usize, scale: DType) -> WeightFormat {
    WeightFormat::Quantized(QuantScheme { bits, group, scale })
}

/// All formats.
pub(super) const FORMATS: [WeightFormat; 10] = [
    quantized(4, 32, DType::F16),
    quantized(4, 64, DType::F16),
    quantized(8, 32, DType::F16),
    quantized(8, 64, DType::F16),
    quantized(4, 32, DType::F32),
    quantized(4, 64, DType::F32),
    quantized(8, 32, DType::F32),
    quantized(8, 64, DType::F32),
    WeightFormat::Dense(DType::F16),
    WeightFormat::Dense(DType::F32),
];

/// Inputs and weights lie in [-1, 1] and at most 1056 of their products are added in f32.
const TOLERANCE: f32 = 2e-4;

/// Compares all kernels on `device`, a graphics device, with the reference on the processor: all
/// formats and groups, rows and columns around the tile, several blocks, more workgroups than one
/// dimension holds, outputs that start as NaN. The same natively and in a browser.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    // rows of x, rows of every block, columns
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
        (65_537, &[3], 32),
    ];
    for format in FORMATS {
        for (turn, (count, rows, columns)) in shapes.into_iter().enumerate() {
            // How workgroups fold does not depend on how scales are stored.
            let folds = count > 65_535
                && matches!(format, WeightFormat::Quantized(scheme) if scheme.scale == DType::F32);
            if format.fits(columns) && !folds {
                let case = (count, rows, columns);
                compare(device, format, case, turn, &mut swept).await?;
            }
        }
    }
    Ok(swept)
}

/// Every kernel with one kind of addition, which takes turns.
async fn compare(
    device: &Device,
    format: WeightFormat,
    (count, rows, columns): (usize, &[usize], usize),
    turn: usize,
    swept: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("{format:?} [{count}, {columns}] x {rows:?}");
    let mut dice = TestRng::default();
    let mut values = |count| dice.values(count);
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
    let on_device = |values: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let input = || on_device(&x, [count, columns]);
    let expected = linear_reference(&x, &weights, columns);
    if count == 0 {
        let empty = linear(input(), &blocks, Epilogue::None);
        assert_eq!(empty.dims(), [0, outputs]);
    }
    for (number, by) in MatmulKernel::ALL.into_iter().enumerate() {
        if count == 0 {
            continue;
        }
        let bias = values(outputs);
        let residual = values(count * outputs);
        let added = match (turn + number) % 3 {
            0 => Epilogue::None,
            1 => Epilogue::Bias(on_device(&bias, [1, outputs]).reshape([outputs])),
            _ => Epilogue::Residual(on_device(&residual, [count, outputs])),
        };
        let name = format!("{name}, {by:?}, added {}", kind(&added));
        let mut expected = expected.clone();
        for (i, value) in expected.iter_mut().enumerate() {
            *value += match &added {
                Epilogue::None => 0.0,
                Epilogue::Bias(_) => bias[i % outputs],
                Epilogue::Residual(_) => residual[i],
            };
        }
        let got = with_nan_fill(|| product(input(), None, &blocks, added, by));
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    if count > 0 {
        let gain = values(columns);
        let norm = RmsNormPrologue {
            gain: on_device(&gain, [1, columns]).reshape([columns]),
            eps: 1e-3,
        };
        let expected = linear_reference(&normed(&x, &gain, norm.eps), &weights, columns);
        let got = with_nan_fill(|| normed_linear(input(), &norm, &blocks, Epilogue::None));
        let name = format!("{name}, normed");
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    let last = outputs as u32 - 1;
    let ids = [last, 0, last / 2, last / 3];
    let expected: Vec<f32> = ids
        .iter()
        .flat_map(|&id| &weights[id as usize * columns..][..columns])
        .copied()
        .collect();
    let got = with_nan_fill(|| self::gather(&ids, &blocks, device));
    let name = format!("{name}, rows");
    swept.compare(&name, got, &expected, 0.0).await
}

fn kind(added: &Epilogue) -> &'static str {
    match added {
        Epilogue::None => "nothing",
        Epilogue::Bias(_) => "bias",
        Epilogue::Residual(_) => "residual",
    }
}

/// `x` `[M, K]` through an RMS norm, in plain loops.
pub(super) fn normed(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    x.chunks_exact(gain.len())
        .flat_map(|row| {
            let sum = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let root = (sum / gain.len() as f64 + f64::from(eps)).sqrt();
            let terms = row.iter().zip(gain);
            terms.map(move |(v, g)| (f64::from(*v) * f64::from(*g) / root) as f32)
        })
        .collect()
}

impl DeviceMatrix {
    /// A matrix of `values` `[rows, columns]`; appends the values that kernels see to `dequantized`.
    pub(super) fn from_values(
        values: Vec<f32>,
        shape: [usize; 2],
        format: WeightFormat,
        device: &Device,
        dequantized: &mut Vec<f32>,
    ) -> Self {
        let upload = |elements: Vec<u32>| {
            let mut upload = Upload::new(elements.len(), device);
            upload.push(elements);
            upload.integers()
        };
        let pairs = |halves: &[f16]| {
            let bits = |half: Option<&f16>| half.map_or(0, |half| u32::from(half.to_bits()));
            let pairs = halves.chunks(2);
            let word = |pair: &[f16]| bits(pair.first()) | bits(pair.get(1)) << 16;
            pairs.map(word).collect::<Vec<u32>>()
        };
        let scheme = match format {
            WeightFormat::Quantized(scheme) => scheme,
            WeightFormat::Dense(DType::F16) => {
                let halves = values.into_iter().map(f16::from_f32).collect::<Vec<_>>();
                dequantized.extend(halves.iter().map(|half| half.to_f32()));
                return Self::f16(upload(pairs(&halves)), shape);
            }
            WeightFormat::Dense(_) => {
                dequantized.extend_from_slice(&values);
                return Self::f32(Tensor::from_data(TensorData::new(values, shape), device));
            }
        };
        let mut words = vec![0; scheme.words(values.len())];
        let mut scales = vec![f16::ZERO; values.len() / scheme.group];
        scheme.quantize(&values, Rounding::Nearest, &mut words, &mut scales);
        let start = dequantized.len();
        dequantized.resize(start + values.len(), 0.0);
        let dequantized = &mut dequantized[start..];
        let scales = if scheme.scale == DType::F16 {
            scheme.dequantize(&words, &scales, dequantized);
            pairs(&scales)
        } else {
            // No f16 holds these.
            let scales: Vec<f32> = scales.iter().map(|s| s.to_f32() * 1.000_123).collect();
            scheme.dequantize(&words, &scales, dequantized);
            scales.iter().map(|scale| scale.to_bits()).collect()
        };
        Self::quantized(upload(words), upload(scales), shape, scheme)
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn few_tiles_are_deep_and_many_are_wide() {
        assert_eq!(MatmulKernel::best(1, 4096), MatmulKernel::Gemv);
        assert_eq!(MatmulKernel::best(20, 4096), MatmulKernel::Skinny);
        assert_eq!(MatmulKernel::best(128, 4096), MatmulKernel::SplitK64);
        assert_eq!(MatmulKernel::best(577, 4096), MatmulKernel::Tile64);
        assert_eq!(MatmulKernel::best(800, 4096), MatmulKernel::Tile64x128);
    }

    #[test]
    fn kernels_agree_with_their_reference() {
        let Some(device) = adapter_for_test("kernels_agree_with_their_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }
}
