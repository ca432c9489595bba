//! Processes rows in chunks where a buffer of all rows would exceed what every GPU can bind.

use burn::tensor::Tensor;

use crate::cpu::op::is_cpu;

/// The most bytes of an intermediate result; WebGPU guarantees bindings of twice as many.
const CHUNK_BYTES: usize = 64 << 20;

/// Applies `f` to chunks of `x` along `axis`, each with the index of its first row, and concatenates
/// the results along the same axis. `widest` is the largest number of f32 values that one row takes in
/// an intermediate result. The CPU has no binding limit: there, all rows are one chunk.
pub fn map_chunks<const D: usize>(
    x: Tensor<D>,
    axis: usize,
    widest: usize,
    mut f: impl FnMut(Tensor<D>, usize) -> Tensor<D>,
) -> Tensor<D> {
    let rows = x.dims()[axis];
    let chunk = (CHUNK_BYTES / (4 * widest.max(1))).max(1);
    if rows <= chunk || is_cpu(&x.device()) {
        return f(x, 0);
    }
    let count = rows.div_ceil(chunk);
    let results = (0..count).map(|index| {
        let (start, end) = (index * rows / count, (index + 1) * rows / count);
        f(x.clone().narrow(axis, start, end - start), start)
    });
    Tensor::cat(results.collect(), axis)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;
    use burn::tensor::TensorData;

    #[test]
    fn chunks_are_concatenated_in_order() {
        let Some(device) = adapter_for_test("chunks_are_concatenated_in_order") else {
            return;
        };
        let values: Vec<f32> = (0..7 * 3).map(|i| i as f32).collect();
        let x = Tensor::<2>::from_data(TensorData::new(values, [7, 3]), &device);
        let mut starts = Vec::new();
        let doubled = map_chunks(x.clone(), 0, CHUNK_BYTES / 8, |chunk, start| {
            starts.push((start, chunk.dims()[0]));
            chunk * 2.0
        });
        assert_eq!(starts, [(0, 1), (1, 2), (3, 2), (5, 2)]);
        let read = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().expect("f32");
        assert_eq!(read(doubled), read(x * 2.0));
    }
}
