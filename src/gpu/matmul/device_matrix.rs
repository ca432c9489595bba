//! A matrix on the GPU in a weight format, and the shader variants that read it.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use crate::gpu::buffer::{int_to_buffer, to_buffer};
use crate::gpu::shader::Shader;
use crate::weights::{DType, QuantScheme, WeightFormat};

#[cfg(feature = "diagnostics")]
use burn::tensor::{Device, TensorData};
#[cfg(feature = "diagnostics")]
use half::f16;

#[cfg(feature = "diagnostics")]
use crate::gpu::upload::Upload;
#[cfg(feature = "diagnostics")]
use crate::weights::quant::Rounding;

/// Variants of a shader that reads weights.
pub(super) const VARIANTS: usize = 7;

/// The variants of a shader that reads weights, in the order of [`variant`]; `$rows` fills the import slot of
/// a GEMV kernel for the rows of x of a workgroup.
macro_rules! for_weights {
    ($name:literal, $uniforms:ty, $constants:expr) => {
        for_weights!($name, $uniforms, $constants, "gemv_one_row")
    };
    ($name:literal, $uniforms:ty, $constants:expr, $rows:literal) => {
        [
            for_weights!("q4" "vec8" "scale_f16"; $name, $uniforms, $constants, $rows),
            for_weights!("q8" "vec8" "scale_f16"; $name, $uniforms, $constants, $rows),
            for_weights!("q4" "vec8" "scale_f32"; $name, $uniforms, $constants, $rows),
            for_weights!("q8" "vec8" "scale_f32"; $name, $uniforms, $constants, $rows),
            for_weights!("f16" "vec4" "scale_none"; $name, $uniforms, $constants, $rows),
            for_weights!("f32" "vec4" "scale_none"; $name, $uniforms, $constants, $rows),
            for_weights!("q4" "vec8" "scale_min_f16"; $name, $uniforms, $constants, $rows),
        ]
    };
    (
        $dtype:literal $vec:literal $scale:literal;
        $name:literal, $uniforms:ty, $constants:expr, $rows:literal
    ) => {
        Shader {
            name: $name,
            text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            uniforms: <$uniforms>::LAYOUT,
            constants: $constants,
            imports: &[
                ("VEC", $vec),
                ("DEQUANT", concat!("dequant_", $dtype)),
                ("SCALE", $scale),
                ("X_VEC", concat!("x_", $vec)),
                ("DOT", concat!("dot_", $dtype)),
                ("ROWS", $rows),
            ],
        }
    };
}

pub(super) use for_weights;

/// The place of `format` among the variants of a shader.
///
/// # Panics
/// No kernel reads it.
pub(super) fn variant(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Quantized(scheme) if scheme.minimum => {
            assert!(scheme.is_supported(), "no kernel reads {format:?}");
            6
        }
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

/// Consecutive rows of a matrix on a GPU. A module without parameters: it cannot be trained.
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
        assert_eq!(
            scales.dims(),
            [scheme.scale_words([rows, columns])],
            "scales"
        );
        Self {
            words: int_to_buffer("matrix", words).handle,
            scales: int_to_buffer("matrix", scales),
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
        let words = int_to_buffer("matrix", words);
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

    /// The variant of a shader that reads this matrix.
    pub(super) fn of<'a>(&self, shaders: &'a [Shader; VARIANTS]) -> &'a Shader {
        &shaders[variant(self.format)]
    }
}

#[cfg(feature = "diagnostics")]
const fn quantized(bits: u32, group: usize, scale: DType) -> WeightFormat {
    WeightFormat::Quantized(QuantScheme {
        bits,
        group,
        scale,
        minimum: false,
    })
}

/// Every format that kernels read.
#[cfg(feature = "diagnostics")]
pub(super) const FORMATS: [WeightFormat; 12] = [
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
    WeightFormat::Quantized(QuantScheme::with_minimum(32)),
    WeightFormat::Quantized(QuantScheme::with_minimum(64)),
];

#[cfg(feature = "diagnostics")]
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
        let mut scales = vec![f16::ZERO; scheme.scale_count(values.len())];
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
