//! Rows of single operations: first the device's ceilings, then the kernels of a model's layers.

use burn::tensor::Tensor;

use super::attention;
use super::case::{Case, kernel_case as case};
use super::clock::{Clock, MAX_RUNS};
use super::plan::Shapes;
use crate::cpu::gelu::gelu;
use crate::diagnostics::random_weights::{GROUP, RandomWeights, quantized};
use crate::engine::Host;
use crate::error::Fault;
use crate::gpu::buffer::is_gpu;
use crate::gpu::copy::{copy, max_elements};
use crate::gpu::depthwise::depthwise_conv;
use crate::gpu::matmul::{DeviceMatrix, Epilogue, linear};
use crate::gpu::random_fill;
use crate::gpu::roi_pool::{AxisWeights, roi_pool};
use crate::model::chatrex::ChatRexConfig;
use crate::model::roi_encoder::CELLS;
use crate::nn::{LayerNorm, Loader, RmsNorm};
use crate::simd::{for_each_chunk, vectorized};
use crate::weights::manifest::Part;
use crate::weights::quant::QuantScheme;
use crate::weights::storage::{QuantPreset, WeightFormat};

/// Elements that are copied, more than a cache holds: on a GPU, on a software adapter.
const COPY_ELEMENTS: [usize; 2] = [1 << 26, 1 << 23];

/// Elements that are read on the CPU.
const READ_ELEMENTS: usize = if cfg!(target_family = "wasm") {
    1 << 23
} else {
    1 << 26
};

/// Rows and columns of the multiplied f32 matrices: on a GPU or the CPU, on a software adapter.
const MATMUL_SIZE: [usize; 2] = [4096, 512];

/// Bytes of the different matrices that a GEMV row reads in turn, so that none is in a cache.
const BEYOND_CACHE: usize = 512 << 20;

/// Numbers of tokens of a prefill.
const PREFILL_ROWS: [usize; 3] = [16, 128, 768];

/// Boxes of the RoI pooling row.
const BOXES: usize = 100;

/// Measures all rows of this group except the ceilings.
///
/// # Errors
/// The device fails.
pub async fn measure<H: Host>(clock: &mut Clock<'_, H>, shapes: &Shapes<'_>) -> Result<(), Fault> {
    let config = shapes.chatrex;
    if is_gpu(clock.device()) {
        for bits in [4, 8] {
            let scheme = QuantScheme::new(bits, GROUP);
            for (name, shape) in matrices(config) {
                if scheme.fits(shape[1]) {
                    gemv(clock, name, shape, scheme).await?;
                }
            }
            for rows in PREFILL_ROWS {
                for (name, shape) in matrices(config) {
                    if scheme.fits(shape[1]) && name != "head" {
                        matmul(clock, name, shape, rows, scheme).await?;
                    }
                }
            }
        }
    }
    norms(clock, config).await?;
    attention::measure(clock, shapes).await?;
    towers(clock, config).await
}

/// Measures the memory bandwidth and the f32 arithmetic that the device reaches.
///
/// # Errors
/// The device fails.
pub async fn ceilings<H: Host>(clock: &mut Clock<'_, H>) -> Result<(), Fault> {
    let device = clock.device();
    let size = usize::from(clock.is_software());
    let on_gpu = is_gpu(device);
    let count = match on_gpu {
        true => COPY_ELEMENTS[size].min(max_elements(device) / 4 * 4),
        false => READ_ELEMENTS,
    };
    let (name, bytes) = if on_gpu {
        ("copy", 8.0 * count as f64)
    } else {
        ("read", 4.0 * count as f64)
    };
    let moved = Case {
        bytes: Some(bytes),
        ..case(name, format!("{} MB", (4 * count) >> 20))
    };
    let milliseconds = if on_gpu {
        let x = random_fill::uniform(count, 1, 0.0, 1.0, device);
        clock.kernel(moved, |_| copy(x.clone())).await?
    } else {
        let x = vec![1.0; count];
        let work = |_| Tensor::<1>::from_floats([sum(&x)], device);
        clock.kernel(moved, work).await?
    };
    clock.ceilings().copy_gigabytes_per_second = milliseconds.map(|ms| bytes / ms / 1e6);

    let side = MATMUL_SIZE[size];
    let square =
        |seed| random_fill::uniform(side * side, seed, 0.0, 1.0, device).reshape([side, side]);
    let (a, b): (Tensor<2>, Tensor<2>) = (square(1), square(2));
    let flops = 2.0 * (side as f64).powi(3);
    let matmul = Case {
        flops: Some(flops),
        ..case("f32 matmul in burn", format!("{side} x {side} x {side}"))
    };
    let milliseconds = clock
        .kernel(matmul, |_| a.clone().matmul(b.clone()))
        .await?;
    clock.ceilings().matmul_gigaflops = milliseconds.map(|ms| flops / ms / 1e6);
    Ok(())
}

/// The sum of `values`, on all cores: each is read once, and nothing is written.
fn sum(values: &[f32]) -> f32 {
    const CHUNK: usize = 1 << 18;
    let mut sums = vec![0.0; values.len().div_ceil(CHUNK)];
    for_each_chunk(&mut sums, 1, |index, out| {
        let end = values.len().min((index + 1) * CHUNK);
        add_up(&values[index * CHUNK..end], &mut out[0]);
    });
    sums.iter().sum()
}

vectorized! {
    fn add_up(values: &[f32], out: &mut f32) {
        let mut sums = [0.0; 64];
        for values in values.as_chunks::<64>().0 {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
        }
        *out = sums.iter().sum::<f32>();
    }
}

/// The decoder's weight matrices `[out, in]`, each shape once.
fn matrices(config: &ChatRexConfig) -> Vec<(&'static str, [usize; 2])> {
    let llm = &config.llm;
    let (width, inner) = (llm.hidden_size, llm.intermediate_size);
    let keys = llm.num_key_value_heads * llm.head_width();
    let mut matrices: Vec<(&str, [usize; 2])> = Vec::new();
    for (name, shape) in [
        (
            "q and o",
            [llm.num_attention_heads * llm.head_width(), width],
        ),
        ("k and v", [keys, width]),
        ("gate and up", [inner, width]),
        ("down", [width, inner]),
        ("head", [llm.vocab_size, width]),
    ] {
        if !matrices.iter().any(|(_, other)| *other == shape) {
            matrices.push((name, shape));
        }
    }
    matrices
}

/// A random quantized matrix, in blocks that a device can bind.
fn random_matrix<H: Host>(
    clock: &Clock<'_, H>,
    [rows, columns]: [usize; 2],
    scheme: QuantScheme,
    seed: usize,
) -> Vec<DeviceMatrix> {
    WeightFormat::Quantized(scheme)
        .blocks(rows, columns)
        .map(|block| {
            let seed = (seed * rows + block.start) as u32;
            quantized([block.len(), columns], scheme, seed, clock.device())
        })
        .collect()
}

async fn gemv<H: Host>(
    clock: &mut Clock<'_, H>,
    name: &str,
    shape: [usize; 2],
    scheme: QuantScheme,
) -> Result<(), Fault> {
    let [rows, columns] = shape;
    let bytes = scheme.bytes(shape);
    let copies = match clock.is_software() {
        true => 1,
        false => BEYOND_CACHE.div_ceil(bytes).min(MAX_RUNS),
    };
    let matrices: Vec<_> = (0..copies)
        .map(|i| random_matrix(clock, shape, scheme, i))
        .collect();
    let x = random_fill::uniform(columns, 3, 0.0, 1.0, clock.device()).reshape([1, columns]);
    let case = Case {
        bytes: Some((bytes + 4 * (rows + columns)) as f64),
        flops: Some(2.0 * (rows * columns) as f64),
        ..case(
            format!("q{} GEMV: {name}", scheme.bits),
            format!("{rows} x {columns}"),
        )
    };
    let work = |run: usize| linear(x.clone(), &matrices[run % copies], Epilogue::None);
    clock.kernel(case, work).await.map(|_| ())
}

async fn matmul<H: Host>(
    clock: &mut Clock<'_, H>,
    name: &str,
    shape: [usize; 2],
    count: usize,
    scheme: QuantScheme,
) -> Result<(), Fault> {
    let [rows, columns] = shape;
    let matrix = random_matrix(clock, shape, scheme, 0);
    let x = random_fill::uniform(count * columns, 3, 0.0, 1.0, clock.device());
    let x = x.reshape([count, columns]);
    let case = Case {
        flops: Some(2.0 * (count * rows * columns) as f64),
        ..case(
            format!("q{} matmul, {count} rows: {name}", scheme.bits),
            format!("{rows} x {columns}"),
        )
    };
    clock
        .kernel(case, |_| linear(x.clone(), &matrix, Epilogue::None))
        .await
        .map(|_| ())
}

async fn norms<H: Host>(clock: &mut Clock<'_, H>, config: &ChatRexConfig) -> Result<(), Fault> {
    let device = clock.device();
    let source = RandomWeights::new(Part::Decoder, QuantPreset::F32, 1, device);
    let at = Loader::new(&source, device);
    let width = config.llm.hidden_size;
    let rms = RmsNorm::load(&at, width, config.llm.rms_norm_eps)?;
    for rows in [1, 768] {
        let x = random_fill::uniform(rows * width, 5, 0.0, 1.0, device).reshape([1, rows, width]);
        let case = Case {
            bytes: Some(8.0 * (rows * width) as f64),
            ..case("RMSNorm", format!("{rows} x {width}"))
        };
        clock.kernel::<3>(case, |_| rms.forward(x.clone())).await?;
    }
    let width = config.towers.clip.hidden_size;
    let rows = config.towers.visual_tokens() + 1;
    let norm = LayerNorm::load(&at, width, config.towers.clip.layer_norm_eps)?;
    let x = random_fill::uniform(rows * width, 5, 0.0, 1.0, device).reshape([1, rows, width]);
    let layer = Case {
        bytes: Some(8.0 * (rows * width) as f64),
        ..case("LayerNorm", format!("{rows} x {width}"))
    };
    clock
        .kernel::<3>(layer, |_| norm.forward(x.clone()))
        .await?;
    Ok(())
}

/// Operations of the high-resolution tower and of the boxes that are no matmul, at the finest level.
async fn towers<H: Host>(clock: &mut Clock<'_, H>, config: &ChatRexConfig) -> Result<(), Fault> {
    let device = clock.device();
    let convnext = &config.towers.convnext;
    let side = config.towers.image_aux / convnext.patch_size;
    let (channels, kernel) = (convnext.dims[0], convnext.kernel);
    let cells = side * side;
    let sizes = format!("{side} x {side} x {channels}");
    let x = random_fill::uniform(cells * channels, 7, 0.0, 1.0, device);
    let x: Tensor<4> = x.reshape([1, side, side, channels]);
    let weight = random_fill::uniform(channels * kernel * kernel, 8, 0.0, 0.2, device);
    let weight: Tensor<4> = weight.reshape([channels, 1, kernel, kernel]);
    let bias = Tensor::<1>::zeros([channels], device);
    let bytes = 8.0 * (cells * channels) as f64;
    let depthwise = Case {
        bytes: Some(bytes),
        flops: Some(2.0 * (kernel * kernel * cells * channels) as f64),
        ..case(format!("depthwise {kernel} x {kernel}"), &*sizes)
    };
    clock
        .kernel(depthwise, |_| {
            depthwise_conv(x.clone(), weight.clone(), bias.clone())
        })
        .await?;
    let activation = Case {
        bytes: Some(bytes),
        ..case("GELU", &*sizes)
    };
    clock.kernel(activation, |_| gelu(x.clone())).await?;

    let map = x.permute([0, 3, 1, 2]);
    let mut axis = AxisWeights::zeros(1, BOXES, side);
    for index in 0..BOXES {
        let low = (index % 10) as f32 / 15.0 * side as f32;
        axis.add_box(0, index, [low, low + side as f32 / 3.0], CELLS);
    }
    let pooled = Case {
        bytes: Some(4.0 * ((cells + BOXES) * channels) as f64),
        ..case(format!("RoI pooling, {BOXES} boxes"), sizes)
    };
    clock
        .kernel(pooled, |_| roi_pool(map.clone(), &axis, &axis))
        .await?;
    Ok(())
}
