//! Depthwise convolution, channels last.

use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

/// Convolves each channel of `x` `[B, H, W, C]` with its own odd, centred, zero-padded kernel
/// `weight` `[C, 1, k, k]` and adds `bias` `[C]`.
pub fn depthwise_conv(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [channels, _, kernel, _] = weight.dims();
    let options = ConvOptions::new([1, 1], [kernel / 2, kernel / 2], [1, 1], channels);
    conv2d(x.permute([0, 3, 1, 2]), weight, Some(bias), options).permute([0, 2, 3, 1])
}
