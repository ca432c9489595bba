//! Linear layers and convolutions with weights in the checkpoint's own layout.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::leaky_relu;

use crate::cpu::conv2d::{ConvKernel, Geometry};
use crate::cpu::packed_matrix::{PackedMatrix, packed_linear};
use crate::error::Fault;
use crate::gpu::activation::{Activation, bias_activation};
use crate::gpu::conv2d::conv2d;
pub use crate::nn::weight::linear;
use crate::nn::{Init, Loader, Weight};

/// `y = x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Reads `weight` and, where `bias` is set, `bias`. Initialized for training with Xavier-normal
    /// weights and a zero bias.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, inputs: usize, outputs: usize, bias: bool) -> Result<Self, Fault> {
        let deviation = (2.0 / (inputs + outputs) as f32).sqrt();
        Self::load_with(at, inputs, outputs, bias, Init::Normal(deviation))
    }

    /// [`Linear::load`] with another initialization of the weight.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load_with(
        at: &Loader,
        inputs: usize,
        outputs: usize,
        bias: bool,
        init: Init,
    ) -> Result<Self, Fault> {
        Ok(Self {
            weight: at.weight([outputs, inputs], init)?,
            bias: bias
                .then(|| at.parameter("bias", [outputs], Init::Zeros))
                .transpose()?,
        })
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.activated(x, Activation::Identity)
    }

    /// `[.., in]` to `[.., out]`, then `activation` of every element.
    pub fn activated<const D: usize>(&self, x: Tensor<D>, activation: Activation) -> Tensor<D> {
        match (&self.bias, activation) {
            (Some(bias), Activation::Identity) => self.weight.linear(x, Some(bias.val())),
            (Some(bias), _) => bias_activation(self.weight.linear(x, None), bias.val(), activation),
            (None, _) => activation.of(self.weight.linear(x, None)),
        }
    }
}

/// A convolution with a square kernel over `[N, C, H, W]`.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: ConvWeight,
    /// `[out]`.
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    size: Conv2dConfig,
}

/// The weight of a [`Conv2d`].
#[derive(Module, Debug)]
enum ConvWeight {
    /// `[out, in / groups, k, k]`; on a GPU, in training, and with groups.
    Dense(Param<Tensor<4>>),
    /// `[out, in * k * k]` of a convolution of patches that do not overlap, as products on the CPU read it.
    Packed(PackedMatrix),
    /// Of another convolution on the CPU.
    Kernel(ConvKernel),
}

/// Shape and stride of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct Conv2dConfig {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Distance of neighbouring windows.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Channel groups; `inputs` for a depthwise convolution.
    pub groups: usize,
}

impl Conv2dConfig {
    /// Whether the patches that outputs read do not overlap and cover the map from its corner.
    fn is_of_patches(&self) -> bool {
        self.stride == self.kernel && self.padding == 0 && self.groups == 1
    }
}

impl Conv2d {
    /// Reads `weight` and, where `bias` is set, `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, size: Conv2dConfig, bias: bool) -> Result<Self, Fault> {
        let per_group = size.inputs / size.groups;
        let fan_in = per_group * size.kernel * size.kernel;
        let weight = at.parameter(
            "weight",
            [size.outputs, per_group, size.kernel, size.kernel],
            Init::Normal((fan_in as f32).sqrt().recip()),
        )?;
        let weight = if at.is_packed() && size.groups == 1 {
            let values = weight.val().into_data().try_into_vec::<f32>();
            let values = values.expect("weights are f32 on the CPU");
            if size.is_of_patches() {
                ConvWeight::Packed(PackedMatrix::dense(&values, [size.outputs, fan_in]))
            } else {
                let shape = [size.outputs, size.inputs, size.kernel];
                ConvWeight::Kernel(ConvKernel::new(&values, shape))
            }
        } else {
            ConvWeight::Dense(weight)
        };
        Ok(Self {
            weight,
            bias: bias
                .then(|| at.parameter("bias", [size.outputs], Init::Zeros))
                .transpose()?,
            size,
        })
    }

    /// `[N, C, H, W]` to `[N, out, H', W']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.leaky(x, 1.0)
    }

    /// [`Conv2d::forward`], and what is negative times `slope`.
    pub fn leaky(&self, x: Tensor<4>, slope: f32) -> Tensor<4> {
        let geometry = Geometry {
            stride: self.size.stride,
            padding: self.size.padding,
            groups: self.size.groups,
        };
        let bias = self.bias.as_ref().map(Param::val);
        let y = match &self.weight {
            ConvWeight::Kernel(kernel) => return kernel.forward(x, bias, geometry, slope),
            ConvWeight::Dense(weight) if !self.size.is_of_patches() => {
                conv2d(x, weight.val(), bias, geometry)
            }
            _ => self.over_patches(x),
        };
        if slope == 1.0 {
            y
        } else {
            leaky_relu(y, f64::from(slope))
        }
    }

    /// A convolution of patches that do not overlap, as one matrix product; rows and columns of partial patches are
    /// dropped, as in any convolution.
    fn over_patches(&self, x: Tensor<4>) -> Tensor<4> {
        let (outputs, kernel) = (self.size.outputs, self.size.kernel);
        let [n, c, h, w] = x.dims();
        let (rows, columns) = (h / kernel, w / kernel);
        let x = if h % kernel == 0 && w % kernel == 0 {
            x
        } else {
            x.slice([0..n, 0..c, 0..rows * kernel, 0..columns * kernel])
        };
        let patches = x
            .reshape([n, c, rows, kernel, columns, kernel])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([n * rows * columns, c * kernel * kernel]);
        self.of_patches(patches)
            .reshape([n, rows, columns, outputs])
            .permute([0, 3, 1, 2])
    }

    /// The outputs of patches `[.., in * k * k]`, `[.., out]`: of a 1 x 1 convolution, of cells with their channels
    /// together. Not with groups.
    pub fn of_patches<const D: usize>(&self, patches: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.weight {
            ConvWeight::Packed(matrix) => {
                packed_linear(patches, std::slice::from_ref(matrix), bias)
            }
            ConvWeight::Dense(weight) => {
                let [outputs, inputs, height, width] = weight.dims();
                let weight = weight.val().reshape([outputs, inputs * height * width]);
                linear(patches, weight, bias)
            }
            ConvWeight::Kernel(_) => panic!("patches of this convolution overlap"),
        }
    }
}
