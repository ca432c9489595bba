//! Depthwise convolution, channels last.
//!
//! On a GPU the kernel `depthwise`. On the CPU hand-written loops, forward and backward: burn's own
//! backward pass takes one small matrix product per channel and twenty times as long.

#[cfg(feature = "native")]
use burn::backend::Cube;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, TensorData};

use crate::cpu::conv2d::Geometry;
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::conv2d::conv2d;
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};
use crate::simd::{for_each_chunk, vectorized};

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/depthwise.wgsl`.
    struct DepthwiseUniforms {
        /// B.
        batch: u32,
        /// H.
        height: u32,
        /// W.
        width: u32,
        /// C.
        channels: u32,
        /// K.
        kernel_size: u32,
    }
}

/// `shaders/depthwise.wgsl`.
pub const SHADER: Shader = Shader {
    name: "depthwise",
    text: include_str!("../../shaders/depthwise.wgsl"),
    uniforms: DepthwiseUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// Convolves each channel of `x` `[B, H, W, C]` with its own kernel `weight` `[C, 1, k, k]`, k odd,
/// centered and zero-padded, and adds `bias` `[C]`.
pub fn depthwise_conv(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [channels, per_group, rows, columns] = weight.dims();
    assert_eq!(
        x.dims()[3],
        channels,
        "depthwise_conv: channels of input and weight"
    );
    assert_eq!(
        bias.dims()[0],
        channels,
        "depthwise_conv: channels of bias and weight"
    );
    assert!(
        per_group == 1 && rows == columns && rows % 2 == 1,
        "depthwise_conv: kernel {per_group} x {rows} x {columns}, expected 1 x odd x same"
    );
    if is_gpu(&x.device()) {
        return if x.dims().contains(&0) {
            x
        } else {
            on_gpu(x, weight, bias)
        };
    }
    Tensor::from_dispatch(Dispatch::depthwise_conv(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

fn on_gpu(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let shape = x.dims();
    let [batch, height, width, channels] = shape;
    let kernel_size = weight.dims()[2];
    let x = to_buffer("depthwise", x);
    let weight = to_buffer("depthwise", weight.permute([1, 2, 3, 0])); // [1, k, k, C]
    let bias = to_buffer("depthwise", bias);
    let out = alloc("depthwise", &x.client, shape.iter().product());
    let threads = (batch * height * width.div_ceil(4) * channels) as u64;
    launch(
        &SHADER,
        &x.client,
        threads.div_ceil(u64::from(WORKGROUP_SIZE)),
        &[&x.handle, &weight.handle, &bias.handle],
        &[&out],
        &DepthwiseUniforms {
            batch: batch as u32,
            height: height as u32,
            width: width as u32,
            channels: channels as u32,
            kernel_size: kernel_size as u32,
        },
    );
    from_buffer(&x, out, shape)
}

/// [`depthwise_conv`] in tensor operations.
pub fn depthwise_conv_reference(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [channels, _, kernel_size, _] = weight.dims();
    let geometry = Geometry {
        stride: 1,
        padding: kernel_size / 2,
        groups: channels,
    };
    conv2d(x.permute([0, 3, 1, 2]), weight, Some(bias), geometry).permute([0, 2, 3, 1])
}

/// Sums of at most 49 products of values in [-1, 1].
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on a GPU with the reference on the CPU: maps smaller than the convolution
/// kernel, widths that are no multiple of four, several images, more workgroups than one dispatch
/// dimension holds.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for [batch, height, width, channels, kernel_size] in [
        // images, rows, columns, channels, kernel size
        [1, 1, 1, 1, 1],
        [1, 2, 3, 1, 7],
        [1, 5, 4, 24, 7],
        [2, 7, 13, 65, 7],
        [1, 16, 31, 64, 5],
        [3, 3, 5, 63, 3],
        [1, 2049, 8, 1024, 1],
    ] {
        let name = format!(
            "depthwise [{batch}, {height}, {width}, {channels}], kernel size {kernel_size}"
        );
        let mut rng = TestRng::default();
        let x = rng.data([batch, height, width, channels]);
        let weight = rng.data([channels, 1, kernel_size, kernel_size]);
        let bias = rng.data([channels]);
        let inputs = |device: &Device| {
            let [x, weight] = [&x, &weight].map(|data| Tensor::from_data(data.clone(), device));
            (x, weight, Tensor::from_data(bias.clone(), device))
        };
        let (x, weight, bias) = inputs(&Device::flex());
        let expected = read(&name, depthwise_conv_reference(x, weight, bias)).await?;
        let (x, weight, bias) = inputs(device);
        let got = with_nan_fill(|| depthwise_conv(x, weight, bias));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(report)
}

/// [`depthwise_conv`] as an operation of burn's backends.
#[backend_extension(Flex, Cube: cfg(feature = "native"), Autodiff: cfg(feature = "native"))]
pub trait DepthwiseOps: Backend {
    /// See [`depthwise_conv`]; by default in tensor operations.
    fn depthwise_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let options = conv_options(&weight);
        let x = Self::float_permute(x, &[0, 3, 1, 2]);
        let y = Self::conv2d(x, weight, Some(bias), options);
        Self::float_permute(y, &[0, 2, 3, 1])
    }

    /// The gradients of `x`, `weight` and `bias` from that of the result.
    fn depthwise_conv_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let options = conv_options(&weight);
        let x = Self::float_permute(x, &[0, 3, 1, 2]);
        let gradient = Self::float_permute(gradient, &[0, 3, 1, 2]);
        let to_x =
            Self::conv2d_x_backward(x.clone(), weight.clone(), gradient.clone(), options.clone());
        let to_weight = Self::conv2d_weight_backward(x.clone(), weight, gradient.clone(), options);
        let to_bias = Self::conv2d_bias_backward(x, bias, gradient);
        (Self::float_permute(to_x, &[0, 2, 3, 1]), to_weight, to_bias)
    }
}

fn conv_options(weight: &impl TensorMetadata) -> ConvOptions<2> {
    let shape = weight.shape();
    let (channels, padding) = (shape[0], shape[2] / 2);
    ConvOptions::new([1, 1], [padding, padding], [1, 1], channels)
}

#[cfg(feature = "native")]
impl DepthwiseOps for Cube {}

impl DepthwiseOps for Flex {
    fn depthwise_conv(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let map = Map::of(&x, &weight);
        let taps = map.taps(weight.to_contiguous().storage(), false);
        let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
        map.flex_tensor(map.correlate(x.storage(), &taps, bias.storage()))
    }

    fn depthwise_conv_backward(
        x: FlexTensor,
        weight: FlexTensor,
        _bias: FlexTensor,
        gradient: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let map = Map::of(&x, &weight);
        let (x, gradient) = (x.to_contiguous(), gradient.to_contiguous());
        let mirrored = map.taps(weight.to_contiguous().storage(), true);
        let no_bias = vec![0.0; map.channels];
        let to_x = map.correlate(gradient.storage(), &mirrored, &no_bias);
        let (to_weight, to_bias) = map.weight_gradient(x.storage(), gradient.storage());
        let (channels, kernel) = (map.channels, map.kernel);
        (
            map.flex_tensor(to_x),
            FlexTensor::from_data(TensorData::new(to_weight, [channels, 1, kernel, kernel])),
            FlexTensor::from_data(TensorData::new(to_bias, [channels])),
        )
    }
}

/// The shape of a convolution: feature maps are `[images, height, width, channels]`, taps (the
/// weights of a kernel) `[kernel * kernel, channels]`.
#[derive(Clone, Copy)]
struct Map {
    images: usize,
    height: usize,
    width: usize,
    channels: usize,
    kernel: usize,
}

impl Map {
    fn of(x: &FlexTensor, weight: &FlexTensor) -> Self {
        let shape = x.shape();
        Self {
            images: shape[0],
            height: shape[1],
            width: shape[2],
            channels: shape[3],
            kernel: weight.shape()[2],
        }
    }

    fn image_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn flex_tensor(&self, values: Vec<f32>) -> FlexTensor {
        let shape = [self.images, self.height, self.width, self.channels];
        FlexTensor::from_data(TensorData::new(values, shape))
    }

    /// `weight` `[C, k, k]` as taps; `mirrored` rotates the kernel by 180 degrees.
    fn taps(&self, weight: &[f32], mirrored: bool) -> Vec<f32> {
        let count = self.kernel * self.kernel;
        let mut taps = vec![0.0; weight.len()];
        for (channel, weight) in weight.chunks_exact(count).enumerate() {
            for (tap, value) in weight.iter().enumerate() {
                let tap = if mirrored { count - 1 - tap } else { tap };
                taps[tap * self.channels + channel] = *value;
            }
        }
        taps
    }

    fn correlate(&self, x: &[f32], taps: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let length = self.image_len();
        for_each_chunk(&mut out, length, |i, out| {
            correlate_image(*self, &x[i * length..][..length], taps, bias, out);
        });
        out
    }

    /// The gradients of the weight `[C, k, k]` and the bias `[C]`.
    fn weight_gradient(&self, x: &[f32], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (length, count) = (self.image_len(), self.kernel * self.kernel);
        let part = (count + 1) * self.channels;
        let mut parts = vec![0.0; self.images * part];
        for_each_chunk(&mut parts, part, |i, part| {
            let range = i * length..(i + 1) * length;
            accumulate_tap_gradients(*self, &x[range.clone()], &gradient[range], part);
        });
        let mut to_weight = vec![0.0; count * self.channels];
        let mut to_bias = vec![0.0; self.channels];
        for part in parts.chunks_exact(part) {
            for (tap, values) in part.chunks_exact(self.channels).enumerate() {
                for (channel, value) in values.iter().enumerate() {
                    match to_weight.get_mut(channel * count + tap) {
                        Some(sum) if tap < count => *sum += value,
                        _ => to_bias[channel] += value,
                    }
                }
            }
        }
        (to_weight, to_bias)
    }

    /// The taps along one axis that are inside the map for output `at`.
    #[inline(always)]
    fn taps_inside(&self, at: usize, extent: usize) -> std::ops::Range<usize> {
        let padding = self.kernel / 2;
        padding.saturating_sub(at)..self.kernel.min(extent + padding - at)
    }

    /// The outputs along one axis for which tap `tap` is inside the map.
    #[inline(always)]
    fn outputs_inside(&self, tap: usize, extent: usize) -> std::ops::Range<usize> {
        let padding = self.kernel / 2;
        padding.saturating_sub(tap)..extent.min((extent + padding).saturating_sub(tap))
    }
}

/// Calls a loop for all channels, in the largest groups of 16, 8 or 1 that fit.
macro_rules! by_channel_groups {
    ($channels:expr, $run:ident($($argument:expr),*)) => {
        let mut channel = 0;
        while channel < $channels {
            match $channels - channel {
                16.. => {
                    $run::<16>(channel, $($argument),*);
                    channel += 16;
                }
                8..16 => {
                    $run::<8>(channel, $($argument),*);
                    channel += 8;
                }
                _ => {
                    $run::<1>(channel, $($argument),*);
                    channel += 1;
                }
            }
        }
    };
}

vectorized! {
    fn correlate_image(map: Map, x: &[f32], taps: &[f32], bias: &[f32], out: &mut [f32]) {
        by_channel_groups!(map.channels, correlate_group(map, x, taps, bias, out));
    }
}

#[inline(always)]
fn correlate_group<const L: usize>(
    channel: usize,
    map: Map,
    x: &[f32],
    taps: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    let padding = map.kernel / 2;
    for row in 0..map.height {
        for column in 0..map.width {
            let mut sums = lanes::<L>(bias, channel);
            for ky in map.taps_inside(row, map.height) {
                let line = (row + ky - padding) * map.width;
                for kx in map.taps_inside(column, map.width) {
                    let cell = line + column + kx - padding;
                    let values = lanes::<L>(x, cell * map.channels + channel);
                    let taps = lanes::<L>(taps, (ky * map.kernel + kx) * map.channels + channel);
                    for lane in 0..L {
                        sums[lane] += values[lane] * taps[lane];
                    }
                }
            }
            let cell = row * map.width + column;
            out[cell * map.channels + channel..][..L].copy_from_slice(&sums);
        }
    }
}

vectorized! {
    fn accumulate_tap_gradients(map: Map, x: &[f32], gradient: &[f32], out: &mut [f32]) {
        by_channel_groups!(map.channels, accumulate_group(map, x, gradient, out));
    }
}

/// Gradients of all taps, then of the bias: `[kernel * kernel + 1, channels]`.
#[inline(always)]
fn accumulate_group<const L: usize>(
    channel: usize,
    map: Map,
    x: &[f32],
    gradient: &[f32],
    out: &mut [f32],
) {
    let padding = map.kernel / 2;
    for ky in 0..map.kernel {
        for kx in 0..map.kernel {
            let mut sums = [0.0; L];
            for row in map.outputs_inside(ky, map.height) {
                let line = (row + ky - padding) * map.width;
                for column in map.outputs_inside(kx, map.width) {
                    let from = line + column + kx - padding;
                    let to = row * map.width + column;
                    let values = lanes::<L>(x, from * map.channels + channel);
                    let gradients = lanes::<L>(gradient, to * map.channels + channel);
                    for lane in 0..L {
                        sums[lane] += values[lane] * gradients[lane];
                    }
                }
            }
            let tap = ky * map.kernel + kx;
            out[tap * map.channels + channel..][..L].copy_from_slice(&sums);
        }
    }
    let mut sums = [0.0; L];
    for cell in 0..map.height * map.width {
        let gradients = lanes::<L>(gradient, cell * map.channels + channel);
        for lane in 0..L {
            sums[lane] += gradients[lane];
        }
    }
    let bias = map.kernel * map.kernel;
    out[bias * map.channels + channel..][..L].copy_from_slice(&sums);
}

#[inline(always)]
fn lanes<const L: usize>(values: &[f32], start: usize) -> [f32; L] {
    let mut lanes = [0.0; L];
    lanes.copy_from_slice(&values[start..start + L]);
    lanes
}

#[cfg(feature = "native")]
mod gradient {
    use burn::backend::Autodiff;
    use burn::backend::autodiff::NodeId;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

    use super::{DepthwiseOps, FloatTensor};

    #[derive(Debug)]
    struct DepthwiseConv;

    impl<B: DepthwiseOps> Backward<B, 3> for DepthwiseConv {
        type State = [NodeId; 3];

        fn backward(
            self,
            ops: Ops<Self::State, 3>,
            grads: &mut Gradients,
            checkpointer: &mut Checkpointer,
        ) {
            let gradient = grads.consume::<B>(&ops.node);
            let [x, weight, bias] = ops
                .state
                .map(|input| checkpointer.retrieve_node_output::<FloatTensor<B>>(input));
            let (to_x, to_weight, to_bias) = B::depthwise_conv_backward(x, weight, bias, gradient);
            for (node, gradient) in ops.parents.into_iter().zip([to_x, to_weight, to_bias]) {
                if let Some(node) = node {
                    grads.register::<B>(node.id, gradient);
                }
            }
        }
    }

    impl<B: DepthwiseOps, C: CheckpointStrategy> DepthwiseOps for Autodiff<B, C> {
        fn depthwise_conv(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            let step = DepthwiseConv
                .prepare::<C>([x.node(), weight.node(), bias.node()])
                .compute_bound()
                .stateful();
            match step {
                OpsKind::Tracked(mut step) => {
                    let state = [&x, &weight, &bias].map(|input| step.checkpoint(input));
                    let (x, weight, bias) = (
                        x.into_primitive(),
                        weight.into_primitive(),
                        bias.into_primitive(),
                    );
                    step.finish(state, B::depthwise_conv(x, weight, bias))
                }
                OpsKind::UnTracked(step) => step.finish(B::depthwise_conv(
                    x.into_primitive(),
                    weight.into_primitive(),
                    bias.into_primitive(),
                )),
            }
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    fn close<const D: usize>(what: &str, ours: Tensor<D>, theirs: Tensor<D>) {
        let error = (ours - theirs).abs().max().into_scalar::<f32>();
        assert!(error < 1e-4, "{what}: differs by {error}");
    }

    /// Result and all gradients equal those of burn's convolution.
    #[test]
    fn equals_the_convolution_of_burn() {
        let device = Device::flex().autodiff();
        for (size, kernel) in [
            ([2, 5, 7, 16], 7),
            ([1, 1, 1, 1], 7),
            ([3, 2, 9, 27], 3),
            ([1, 12, 4, 40], 5),
            ([2, 3, 3, 9], 1),
        ] {
            let random = |shape: [usize; 4]| {
                Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
            };
            let channels = size[3];
            let (x, weight) = (random(size), random([channels, 1, kernel, kernel]));
            let bias = random([1, 1, 1, channels])
                .reshape([channels])
                .detach()
                .require_grad();
            let factors = random(size).detach();
            let ours = depthwise_conv(x.clone(), weight.clone(), bias.clone());
            let theirs = depthwise_conv_reference(x.clone(), weight.clone(), bias.clone());
            close("result", ours.clone(), theirs.clone());
            let ours = (ours * factors.clone()).sum().backward();
            let theirs = (theirs * factors).sum().backward();
            let grads = |grads| (x.grad(grads), weight.grad(grads), bias.grad(grads));
            let (ours, theirs) = (grads(&ours), grads(&theirs));
            close("gradient of x", ours.0.expect("x"), theirs.0.expect("x"));
            close(
                "gradient of weight",
                ours.1.expect("w"),
                theirs.1.expect("w"),
            );
            close("gradient of bias", ours.2.expect("b"), theirs.2.expect("b"));
        }
    }
}
