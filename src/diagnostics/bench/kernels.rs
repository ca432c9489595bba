//! Rows of single operations: first the device's ceilings, then what a model's layers are made of.

use burn::tensor::Tensor;

use super::attention;
use super::clock::{Case, Clock, MOST};
use crate::cpu::gelu::gelu;
use crate::diagnostics::random_weights::{GROUP, RandomWeights, quantized};
use crate::engine::Host;
use crate::error::Fault;
use crate::gpu::buffer::is_gpu;
use crate::gpu::copy::{copy, most};
use crate::gpu::depthwise::depthwise_conv;
use crate::gpu::matmul::{DeviceMatrix, Epilogue, linear};
use crate::gpu::random_fill;
use crate::gpu::roi_pool::{AxisWeights, roi_pool};
use crate::memory::KvCacheDType;
use crate::model::chatrex::ChatRexConfig;
use crate::model::roi_encoder::CELLS;
use crate::model::upn::UpnConfig;
use crate::nn::{LayerNorm, Loader, RmsNorm};
use crate::weights::manifest::Part;
use crate::weights::quant::QuantScheme;
use crate::weights::storage::{QuantPreset, WeightFormat};

/// Numbers that are copied: far more than a cache holds; less where a copy is slow anyway.
const COPIED: [usize; 2] = [1 << 26, 1 << 23];

/// Side of the square matrices that are multiplied.
const SIDE: [usize; 2] = [4096, 512];

/// Different matrices that are read one after another take together at least so many bytes, so that
/// none comes out of a cache.
const BEYOND_CACHE: usize = 512 << 20;

/// Rows of a prefill.
const PREFILL: [usize; 3] = [16, 128, 768];

/// Boxes that are pooled.
const BOXES: usize = 100;

/// What the sizes of the rows follow from.
pub struct Shapes<'a> {
    /// Towers and language model.
    pub chatrex: &'a ChatRexConfig,
    /// The proposal network, where there is one.
    pub upn: Option<&'a UpnConfig>,
    /// How keys and values are held.
    pub cache: KvCacheDType,
    /// Boxes in the prompt.
    pub boxes: usize,
}

/// All rows of this group but the ceilings.
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
            for rows in PREFILL {
                for (name, shape) in matrices(config) {
                    if scheme.fits(shape[1]) && name != "head" {
                        tiles(clock, name, shape, rows, scheme).await?;
                    }
                }
            }
        }
    }
    norms(clock, config).await?;
    attention::measure(clock, shapes).await?;
    picture(clock, config).await
}

/// A row of this group before it is measured.
pub(super) fn case(name: impl Into<String>, shape: impl Into<String>) -> Case {
    Case {
        group: "kernels",
        name: name.into(),
        shape: shape.into(),
        ..Case::default()
    }
}

/// What the device can do at most.
///
/// # Errors
/// The device fails.
pub async fn ceilings<H: Host>(clock: &mut Clock<'_, H>) -> Result<(), Fault> {
    let device = clock.device();
    let small = usize::from(clock.is_software());
    let count = COPIED[small].min(most(device) / 4 * 4);
    let x = random_fill::floats(count, 1, 0.0, 1.0, device);
    let bytes = 8.0 * count as f64;
    let graphics = is_gpu(device);
    let name = if graphics {
        "copy"
    } else {
        "x + 1, stock operation"
    };
    let moved = Case {
        bytes: Some(bytes),
        ..case(name, format!("{} MB", (4 * count) >> 20))
    };
    let work = |_| {
        if graphics {
            copy(x.clone())
        } else {
            x.clone().add_scalar(1.0)
        }
    };
    let milliseconds = clock.kernel(moved, work).await?;
    clock.ceilings().copy_gigabytes_per_second = milliseconds.map(|ms| bytes / ms / 1e6);

    let side = SIDE[small];
    let square =
        |seed| random_fill::floats(side * side, seed, 0.0, 1.0, device).reshape([side, side]);
    let (a, b): (Tensor<2>, Tensor<2>) = (square(1), square(2));
    let flops = 2.0 * (side as f64).powi(3);
    let product = Case {
        flops: Some(flops),
        ..case(
            "f32 matrix product, stock",
            format!("{side} x {side} x {side}"),
        )
    };
    let milliseconds = clock
        .kernel(product, |_| a.clone().matmul(b.clone()))
        .await?;
    clock.ceilings().matmul_gigaflops = milliseconds.map(|ms| flops / ms / 1e6);
    Ok(())
}

/// The matrices `[out, in]` that a token goes through, each shape once.
fn matrices(config: &ChatRexConfig) -> Vec<(&'static str, [usize; 2])> {
    let llm = &config.llm;
    let (width, inner) = (llm.hidden_size, llm.intermediate_size);
    let keys = llm.num_key_value_heads * llm.head_width();
    let mut found: Vec<(&str, [usize; 2])> = Vec::new();
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
        if !found.iter().any(|(_, other)| *other == shape) {
            found.push((name, shape));
        }
    }
    found
}

/// A made-up matrix in as many blocks as a device must have it in.
fn made<H: Host>(
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
        false => BEYOND_CACHE.div_ceil(bytes).min(MOST),
    };
    let matrices: Vec<_> = (0..copies).map(|i| made(clock, shape, scheme, i)).collect();
    let x = random_fill::floats(columns, 3, 0.0, 1.0, clock.device()).reshape([1, columns]);
    let case = Case {
        bytes: Some((bytes + 4 * (rows + columns)) as f64),
        flops: Some(2.0 * (rows * columns) as f64),
        ..case(
            format!("q{} x one row: {name}", scheme.bits),
            format!("{rows} x {columns}"),
        )
    };
    let work = |turn: usize| linear(x.clone(), &matrices[turn % copies], Epilogue::None);
    clock.kernel(case, work).await.map(|_| ())
}

async fn tiles<H: Host>(
    clock: &mut Clock<'_, H>,
    name: &str,
    shape: [usize; 2],
    count: usize,
    scheme: QuantScheme,
) -> Result<(), Fault> {
    let [rows, columns] = shape;
    let matrix = made(clock, shape, scheme, 0);
    let x = random_fill::floats(count * columns, 3, 0.0, 1.0, clock.device());
    let x = x.reshape([count, columns]);
    let case = Case {
        flops: Some(2.0 * (count * rows * columns) as f64),
        ..case(
            format!("q{} x {count} rows: {name}", scheme.bits),
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
        let x = random_fill::floats(rows * width, 5, 0.0, 1.0, device).reshape([1, rows, width]);
        let case = Case {
            bytes: Some(8.0 * (rows * width) as f64),
            ..case("RMS norm", format!("{rows} x {width}"))
        };
        clock.kernel::<3>(case, |_| rms.forward(x.clone())).await?;
    }
    let width = config.clip.hidden_size;
    let rows = config.visual_tokens() + 1;
    let norm = LayerNorm::load(&at, width, config.clip.layer_norm_eps)?;
    let x = random_fill::floats(rows * width, 5, 0.0, 1.0, device).reshape([1, rows, width]);
    let layer = Case {
        bytes: Some(8.0 * (rows * width) as f64),
        ..case("layer norm", format!("{rows} x {width}"))
    };
    clock
        .kernel::<3>(layer, |_| norm.forward(x.clone()))
        .await?;
    Ok(())
}

/// What the high-resolution tower and the boxes need beside matrix products, at its finest level.
async fn picture<H: Host>(clock: &mut Clock<'_, H>, config: &ChatRexConfig) -> Result<(), Fault> {
    let device = clock.device();
    let trunk = &config.convnext;
    let side = config.image_aux / trunk.patch_size;
    let (channels, kernel) = (trunk.dims[0], trunk.kernel);
    let cells = side * side;
    let sizes = format!("{side} x {side} x {channels}");
    let x = random_fill::floats(cells * channels, 7, 0.0, 1.0, device);
    let x: Tensor<4> = x.reshape([1, side, side, channels]);
    let weight = random_fill::floats(channels * kernel * kernel, 8, 0.0, 0.2, device);
    let weight: Tensor<4> = weight.reshape([channels, 1, kernel, kernel]);
    let bias = Tensor::<1>::zeros([channels], device);
    let moved = 8.0 * (cells * channels) as f64;
    let depthwise = Case {
        bytes: Some(moved),
        flops: Some(2.0 * (kernel * kernel * cells * channels) as f64),
        ..case(format!("depthwise {kernel} x {kernel}"), &*sizes)
    };
    clock
        .kernel(depthwise, |_| {
            depthwise_conv(x.clone(), weight.clone(), bias.clone())
        })
        .await?;
    let activation = Case {
        bytes: Some(moved),
        ..case("GELU", &*sizes)
    };
    clock.kernel(activation, |_| gelu(x.clone())).await?;

    let map = x.permute([0, 3, 1, 2]);
    let mut axis = AxisWeights::zeros(1, BOXES, side);
    for number in 0..BOXES {
        let low = (number % 10) as f32 / 15.0 * side as f32;
        axis.add_box(0, number, [low, low + side as f32 / 3.0], CELLS);
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
