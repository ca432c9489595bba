//! Bias and activation function in one pass: the epilogue of a matmul whose kernel has none.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use crate::cpu::gelu::gelu;
use crate::cpu::quick_gelu::quick_gelu;
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};
#[cfg(feature = "diagnostics")]
use burn::tensor::{Device, TensorData};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `x Phi(x)`, see [`gelu`].
    Gelu,
}

impl Activation {
    /// Every function.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Relu, Self::QuickGelu, Self::Gelu];

    /// The function in tensor operations.
    pub fn of<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Identity => x,
            Self::Relu => relu(x),
            Self::QuickGelu => quick_gelu(x),
            Self::Gelu => gelu(x),
        }
    }

    fn shader(self) -> &'static Shader {
        &SHADERS[self as usize]
    }
}

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/activation.wgsl`.
    struct ActivationUniforms {
        /// Number of elements.
        count: u32,
        /// Channels of a row.
        channels: u32,
    }
}

macro_rules! shader {
    ($function:literal) => {
        Shader {
            name: "activation",
            text: include_str!("../../shaders/activation.wgsl"),
            uniforms: ActivationUniforms::LAYOUT,
            constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
            imports: &[("ACTIVATION", $function)],
        }
    };
}

/// `shaders/activation.wgsl` for every [`Activation`], in the order of [`Activation::ALL`].
pub const SHADERS: [Shader; 4] = [
    shader!("identity"),
    shader!("relu"),
    shader!("quick_gelu"),
    shader!("gelu"),
];

/// `activation(x + bias)` for `x` `[.., C]`, `bias` `[C]`.
pub fn bias_activation<const D: usize>(
    x: Tensor<D>,
    bias: Tensor<1>,
    activation: Activation,
) -> Tensor<D> {
    let shape = x.dims();
    let channels = shape[D - 1];
    assert_eq!(
        bias.dims(),
        [channels],
        "activation: bias, channels of the input"
    );
    if !is_gpu(&x.device()) || shape.contains(&0) {
        return bias_activation_reference(x, bias, activation);
    }
    let count = shape.iter().product::<usize>();
    let (x, bias) = (to_buffer("activation", x), to_buffer("activation", bias));
    let out = alloc("activation", &x.client, count);
    launch(
        activation.shader(),
        &x.client,
        (count as u64).div_ceil(u64::from(WORKGROUP_SIZE)),
        &[&x.handle, &bias.handle],
        &[&out],
        &ActivationUniforms {
            count: count as u32,
            channels: channels as u32,
        },
    );
    from_buffer(&x, out, shape)
}

/// [`bias_activation`] in tensor operations.
pub fn bias_activation_reference<const D: usize>(
    x: Tensor<D>,
    bias: Tensor<1>,
    activation: Activation,
) -> Tensor<D> {
    activation.of(x + bias.unsqueeze())
}

/// The largest difference allowed. Most inputs lie in [-8, 8]; for the few far inputs the functions are 0
/// or the input itself.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 5e-6;

/// Compares the kernel on `device`, a GPU, with the reference on the CPU: every function, from one value
/// to more workgroups than one dimension holds, inputs down to -3e38.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for activation in Activation::ALL {
        for [rows, channels] in [[0, 3], [1, 1], [5, 51], [2, 128], [257, 1], [7, 37]] {
            let shape = [rows, channels];
            compare(device, activation, shape, &mut report).await?;
        }
    }
    compare(device, Activation::Identity, [65_537, 64], &mut report).await?;
    Ok(report)
}

#[cfg(feature = "diagnostics")]
async fn compare(
    device: &Device,
    activation: Activation,
    [rows, channels]: [usize; 2],
    report: &mut SweepReport,
) -> Result<(), String> {
    const FAR: [f32; 6] = [-3e38, -1e9, -100.0, -20.0, 20.0, 100.0];
    let name = format!("{activation:?} [{rows}, {channels}]");
    let mut rng = TestRng::default();
    let far = |index: usize| {
        (rows * channels > FAR.len())
            .then(|| FAR.get(index))
            .flatten()
    };
    let values: Vec<f32> = (0..rows * channels)
        .map(|index| far(index).copied().unwrap_or(7.0 * rng.draw()))
        .collect();
    let x = TensorData::new(values, [rows, channels]);
    let bias = rng.data([channels]);
    let inputs = |device: &Device| {
        let x = Tensor::<2>::from_data(x.clone(), device);
        (x, Tensor::<1>::from_data(bias.clone(), device))
    };
    let (x, bias) = inputs(&Device::flex());
    let expected = read(&name, bias_activation_reference(x, bias, activation)).await?;
    let (x, bias) = inputs(device);
    let got = with_nan_fill(|| bias_activation(x, bias, activation));
    report.compare(&name, got, &expected, TOLERANCE).await
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn functions_have_the_order_of_their_shaders() {
        for (index, activation) in Activation::ALL.into_iter().enumerate() {
            assert_eq!(activation as usize, index);
        }
        assert_eq!(Activation::Gelu.shader().imports, [("ACTIVATION", "gelu")]);
    }
}
