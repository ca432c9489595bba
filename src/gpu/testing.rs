//! Helpers of sweeps, which compare a kernel with its reference over awkward shapes.
//!
//! A sweep runs natively and in a browser: it reads back without blocking and returns differences
//! instead of panicking.

use burn::tensor::{Device, Tensor, TensorData};

use crate::gpu::buffer::is_gpu;
use crate::gpu::readback;

/// The result of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct SweepReport {
    /// Number of results compared.
    pub shapes: usize,
    /// The largest difference between kernel and reference.
    pub worst: f32,
}

impl SweepReport {
    /// An empty report for `device`.
    ///
    /// # Errors
    /// `device` is not a GPU, so no kernel would run.
    pub fn on(device: &Device) -> Result<Self, String> {
        if !is_gpu(device) {
            return Err(format!("{device:?}: not a GPU"));
        }
        Ok(Self {
            shapes: 0,
            worst: 0.0,
        })
    }

    /// Compares a result with `expected`, row-major, value by value. NaN differs from every value.
    ///
    /// # Errors
    /// The first difference above `tolerance`, with `name`, its index and both values; or a failed
    /// read.
    pub async fn compare<const D: usize>(
        &mut self,
        name: &str,
        got: Tensor<D>,
        expected: &[f32],
        tolerance: f32,
    ) -> Result<(), String> {
        let dims = got.dims();
        let got = read(name, got).await?;
        if got.len() != expected.len() {
            let (got, expected) = (got.len(), expected.len());
            return Err(format!("{name}: {got} values instead of {expected}"));
        }
        for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
            let error = (got - expected).abs();
            if error > tolerance || error.is_nan() {
                return Err(format!(
                    "{name}: {:?} is {got}, expected {expected} within {tolerance}",
                    multi_index(index, dims)
                ));
            }
            self.worst = self.worst.max(error);
        }
        self.shapes += 1;
        Ok(())
    }
}

/// The index along each axis of the value at the row-major `index`.
fn multi_index<const D: usize>(mut index: usize, dims: [usize; D]) -> [usize; D] {
    let mut indices = [0; D];
    for axis in (0..D).rev() {
        indices[axis] = index % dims[axis];
        index /= dims[axis];
    }
    indices
}

/// The values of a tensor, row-major; `name` is in the error.
///
/// # Errors
/// The device fails.
pub async fn read<const D: usize>(name: &str, tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    let values = readback::read(name, tensor).await;
    values.map_err(|fault| fault.to_string())
}

/// A tensor of `values` in row-major order.
pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Pseudorandom numbers, the same in every run.
#[derive(Clone, Debug)]
pub struct TestRng(u64);

impl Default for TestRng {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl TestRng {
    /// The next number, in [-1, 1).
    pub fn draw(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// The next `count` numbers.
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.draw()).collect()
    }

    /// The next numbers, as the data of a tensor of `shape`.
    pub fn data<const D: usize>(&mut self, shape: [usize; D]) -> TensorData {
        TensorData::new(self.values(shape.iter().product()), shape)
    }
}
