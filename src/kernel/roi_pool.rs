//! `roi_pool`: weighted sums of a feature map, one per box, with separable weights.

use burn::tensor::{Device, Tensor, TensorData};

/// Weights along one axis of a map for every box: `[B, N, extent]`, row-major on the host.
#[derive(Clone, Debug)]
pub struct AxisWeights {
    values: Vec<f32>,
    pictures: usize,
    rows: usize,
    extent: usize,
}

impl AxisWeights {
    /// All zero, for `pictures` pictures of `rows` boxes each over an axis of `extent` cells.
    pub fn zeros(pictures: usize, rows: usize, extent: usize) -> Self {
        Self {
            values: vec![0.0; pictures * rows * extent],
            pictures,
            rows,
            extent,
        }
    }

    /// Cells along the axis.
    pub fn extent(&self) -> usize {
        self.extent
    }

    /// The weights of box `row` of picture `picture`.
    pub fn row_mut(&mut self, picture: usize, row: usize) -> &mut [f32] {
        &mut self.values[(picture * self.rows + row) * self.extent..][..self.extent]
    }

    /// New weights over `extent` cells: `f` fills each (zeroed) new row from its old one.
    pub fn map_rows(&self, extent: usize, mut f: impl FnMut(&[f32], &mut [f32])) -> Self {
        let mut mapped = Self::zeros(self.pictures, self.rows, extent);
        if self.extent > 0 && extent > 0 {
            self.values
                .chunks_exact(self.extent)
                .zip(mapped.values.chunks_exact_mut(extent))
                .for_each(|(from, to)| f(from, to));
        }
        mapped
    }

    fn tensor(&self, device: &Device) -> Tensor<3> {
        let data = TensorData::new(self.values.clone(), [self.pictures, self.rows, self.extent]);
        Tensor::from_data(data, device)
    }
}

/// `out[b, n, c] = sum_yx wy[b, n, y] F[b, c, y, x] wx[b, n, x]` for `features` `[B, C, h, w]`
/// (fastest where channels are last in memory): `[B, N, C]`.
pub fn roi_pool(
    features: Tensor<4>,
    vertical: &AxisWeights,
    horizontal: &AxisWeights,
) -> Tensor<3> {
    roi_pool_reference(features, vertical, horizontal)
}

/// [`roi_pool`] in tensor operations, differentiable in `features`: the weights of both axes as
/// one matrix over cells, times the map.
pub fn roi_pool_reference(
    features: Tensor<4>,
    vertical: &AxisWeights,
    horizontal: &AxisWeights,
) -> Tensor<3> {
    let [batch, channels, height, width] = features.dims();
    let rows = vertical.rows;
    let device = features.device().inner();
    let wy = vertical.tensor(&device).unsqueeze_dim::<4>(3); // [B, N, h, 1]
    let wx = horizontal.tensor(&device).unsqueeze_dim::<4>(2); // [B, N, 1, w]
    let weights = (wy * wx).reshape([batch, rows, height * width]);
    let cells = features
        .permute([0, 2, 3, 1])
        .reshape([batch, height * width, channels]);
    weights.matmul(cells)
}
