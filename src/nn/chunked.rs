//! Work on a part of the rows at a time, where all rows at once would make a buffer larger than
//! every graphics device can bind.

use burn::tensor::Tensor;

use crate::cpu::op::is_cpu;

/// Intermediate results stay below this many bytes; WebGPU promises bindings of twice as many.
const PORTION_BYTES: usize = 64 << 20;

/// Applies `f` to portions of `x` along `axis`, each with the number of its first row, and joins
/// the results along the same axis. `widest` is the number of f32 values that one row becomes on
/// its way. On the processor, which binds nothing, everything is one portion.
pub fn map_chunks<const D: usize>(
    x: Tensor<D>,
    axis: usize,
    widest: usize,
    mut f: impl FnMut(Tensor<D>, usize) -> Tensor<D>,
) -> Tensor<D> {
    let rows = x.dims()[axis];
    let portion = (PORTION_BYTES / (4 * widest.max(1))).max(1);
    if rows <= portion || is_cpu(&x.device()) {
        return f(x, 0);
    }
    let count = rows.div_ceil(portion);
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
    fn portions_join_in_order() {
        let Some(device) = adapter_for_test("portions_join_in_order") else {
            return;
        };
        let values: Vec<f32> = (0..7 * 3).map(|i| i as f32).collect();
        let x = Tensor::<2>::from_data(TensorData::new(values, [7, 3]), &device);
        let mut starts = Vec::new();
        let doubled = map_chunks(x.clone(), 0, PORTION_BYTES / 8, |part, start| {
            starts.push((start, part.dims()[0]));
            part * 2.0
        });
        assert_eq!(starts, [(0, 1), (1, 2), (3, 2), (5, 2)]);
        let read = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().expect("f32");
        assert_eq!(read(doubled), read(x * 2.0));
    }
}
