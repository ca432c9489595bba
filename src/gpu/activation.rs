//! A bias and the function after it, in one pass: what follows a matrix product.

use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};

use crate::cpu::gelu::gelu;
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng, read};

/// A function of one number.
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
            Self::QuickGelu => x.clone() * sigmoid(x.mul_scalar(1.702)),
            Self::Gelu => gelu(x),
        }
    }

    fn shader(self) -> &'static Shader {
        &SHADERS[self as usize]
    }
}

/// Invocations per workgroup.
const GROUP: u32 = 64;

macro_rules! shader {
    ($function:literal) => {
        Shader {
            name: "activation",
            text: include_str!("../../shaders/activation.wgsl"),
            constants: &[("GROUP", GROUP)],
            imports: &[("FUNCTION", $function)],
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
        "activation: biases, and channels of the input"
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
        (count as u64).div_ceil(u64::from(GROUP)),
        &[&x.handle, &bias.handle],
        &[&out],
        &[count as u32, channels as u32, 0, 0],
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

/// Arguments lie in [-8, 8] except for a few beyond, up to the lowest number, whose values are zero or themselves.
const TOLERANCE: f32 = 5e-6;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor: every
/// function, one value to more than one dimension of workgroups, arguments down to the lowest number.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    for activation in Activation::ALL {
        for [rows, channels] in [[0, 3], [1, 1], [5, 51], [2, 128], [257, 1], [7, 37]] {
            let shape = [rows, channels];
            compare(device, activation, shape, &mut swept).await?;
        }
    }
    compare(device, Activation::Identity, [65_537, 64], &mut swept).await?;
    Ok(swept)
}

async fn compare(
    device: &Device,
    activation: Activation,
    [rows, channels]: [usize; 2],
    swept: &mut SweepReport,
) -> Result<(), String> {
    const FAR: [f32; 6] = [-3e38, -1e9, -100.0, -20.0, 20.0, 100.0];
    let name = format!("{activation:?} [{rows}, {channels}]");
    let mut dice = TestRng::default();
    let far = |index: usize| {
        (rows * channels > FAR.len())
            .then(|| FAR.get(index))
            .flatten()
    };
    let values: Vec<f32> = (0..rows * channels)
        .map(|index| far(index).copied().unwrap_or(7.0 * dice.draw()))
        .collect();
    let x = TensorData::new(values, [rows, channels]);
    let bias = dice.data([channels]);
    let inputs = |device: &Device| {
        let x = Tensor::<2>::from_data(x.clone(), device);
        (x, Tensor::<1>::from_data(bias.clone(), device))
    };
    let (x, bias) = inputs(&Device::flex());
    let expected = read(&name, bias_activation_reference(x, bias, activation)).await?;
    let (x, bias) = inputs(device);
    let got = with_nan_fill(|| bias_activation(x, bias, activation));
    swept.compare(&name, got, &expected, TOLERANCE).await
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn activation_kernels_agree_with_their_reference() {
        let Some(device) = adapter_for_test("activation_kernels_agree_with_their_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }

    #[test]
    fn functions_are_in_the_order_of_their_shaders() {
        for (index, activation) in Activation::ALL.into_iter().enumerate() {
            assert_eq!(activation as usize, index);
        }
        assert_eq!(Activation::Gelu.shader().imports, [("FUNCTION", "gelu")]);
    }
}
