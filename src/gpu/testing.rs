//! What every kernel's sweep over awkward shapes needs: numbers, a comparison, a tally.
//!
//! A sweep runs natively and in a browser, so it reads without blocking and reports what it finds
//! instead of panicking.

use burn::tensor::{Device, Tensor, TensorData};

use crate::gpu::buffer::is_gpu;

/// What a sweep found.
#[derive(Clone, Copy, Debug)]
pub struct SweepReport {
    /// Results compared.
    pub shapes: usize,
    /// The largest difference between kernel and reference.
    pub worst: f32,
}

impl SweepReport {
    /// A sweep that begins on `device`.
    ///
    /// # Errors
    /// It is not a graphics device: there is no kernel to compare.
    pub fn on(device: &Device) -> Result<Self, String> {
        if !is_gpu(device) {
            return Err(format!("{device:?}: not a graphics device"));
        }
        Ok(Self {
            shapes: 0,
            worst: 0.0,
        })
    }

    /// Compares a result with `expected`, row-major, value by value; NaN differs from everything.
    ///
    /// # Errors
    /// The first difference above `tolerance`, with `name`, its place and both values; or a failed
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
                    place(index, dims)
                ));
            }
            self.worst = self.worst.max(error);
        }
        self.shapes += 1;
        Ok(())
    }
}

/// Where the value number `index` of a tensor of `dims` lies.
fn place<const D: usize>(mut index: usize, dims: [usize; D]) -> [usize; D] {
    let mut place = [0; D];
    for axis in (0..D).rev() {
        place[axis] = index % dims[axis];
        index /= dims[axis];
    }
    place
}

/// The values of a tensor, row-major; none of an empty one.
///
/// # Errors
/// The device fails; `name` is named.
pub async fn read<const D: usize>(name: &str, tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    if tensor.dims().contains(&0) {
        return Ok(Vec::new());
    }
    let data = tensor.into_data_async().await;
    data.map_err(|error| format!("{name}: {error:?}"))?
        .try_to_vec()
        .map_err(|error| format!("{name}: {error:?}"))
}

/// Numbers without a pattern, the same in every run.
#[derive(Clone, Debug)]
pub struct TestRng(u64);

impl Default for TestRng {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl TestRng {
    /// A number of [-1, 1).
    pub fn draw(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// `count` numbers of [-1, 1).
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.draw()).collect()
    }

    /// Numbers of [-1, 1) in `shape`, ready for any device.
    pub fn data<const D: usize>(&mut self, shape: [usize; D]) -> TensorData {
        TensorData::new(self.values(shape.iter().product()), shape)
    }
}
