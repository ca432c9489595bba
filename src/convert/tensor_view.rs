//! The place of a tensor in a checkpoint file.

use safetensors::Dtype;

/// Dtype, shape and place of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorView {
    /// Its element type.
    pub dtype: Dtype,
    /// Elements along each axis.
    pub shape: Vec<usize>,
    /// The index of its file in the checkpoint.
    pub file: usize,
    /// The byte offset of its first element in the file.
    pub offset: u64,
    /// Strides in elements.
    pub strides: Vec<usize>,
}

impl TensorView {
    /// A contiguous row-major tensor in file 0, from byte `offset`.
    pub fn contiguous(dtype: Dtype, shape: Vec<usize>, offset: u64) -> Self {
        Self {
            dtype,
            strides: row_major(&shape),
            shape,
            file: 0,
            offset,
        }
    }

    /// The number of its elements.
    ///
    /// # Panics
    /// The number exceeds `usize`; it does not for tensors of a [`Checkpoint`].
    pub fn elements(&self) -> usize {
        count(&self.shape).expect("a checked tensor has a countable number of elements")
    }

    /// Whether its elements are contiguous in row-major order.
    pub fn is_contiguous(&self) -> bool {
        let expected = row_major(&self.shape);
        let mut axes = self.shape.iter().zip(self.strides.iter().zip(&expected));
        self.shape.contains(&0) || axes.all(|(&size, (have, want))| size == 1 || have == want)
    }

    /// Bytes from its first element to the end of its last; `None` on overflow or if the elements do not
    /// fill whole bytes.
    pub fn extent(&self) -> Option<u64> {
        let elements = count(&self.shape)?;
        if elements == 0 {
            return Some(0);
        }
        let mut last = 0usize;
        for (size, stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add((size - 1).checked_mul(*stride)?)?;
        }
        let bits = (last as u64)
            .checked_add(1)?
            .checked_mul(self.dtype.bitsize() as u64)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

/// The product of `shape`; `None` on overflow.
fn count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// Strides of a contiguous row-major tensor.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}
