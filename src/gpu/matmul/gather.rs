//! Gather: rows of a matrix by index, dequantized.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::gpu::buffer::{alloc, from_buffer, int_to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::matmul::device_matrix::{DeviceMatrix, VARIANTS, for_weights, scale_shift};
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};
use crate::weights::WeightFormat;

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/gather_rows.wgsl`.
    struct GatherUniforms {
        /// Number of row indices.
        count: u32,
        /// Rows of w.
        n: u32,
        /// Columns of w.
        k: u32,
        /// Binary logarithm of the number of weights per scale.
        group_shift: u32,
        /// Index of the first row of w in the whole matrix.
        row_offset: u32,
    }
}

/// `shaders/gather_rows.wgsl` for every weight format.
pub const GATHER_ROWS: [Shader; VARIANTS] = for_weights!(
    "gather_rows",
    GatherUniforms,
    &[("WORKGROUP_SIZE", WORKGROUP_SIZE)]
);

/// Gathers rows `ids` of a matrix `[N, K]` in blocks of rows: `[R, K]`.
///
/// # Panics
/// An id is not below N, or there is no id.
pub fn gather(ids: &[u32], blocks: &[DeviceMatrix], device: &Device) -> Tensor<2> {
    let rows = blocks.iter().map(|block| block.rows).sum::<usize>();
    let largest = *ids.iter().max().expect("gather_rows: at least one id");
    assert!(
        (largest as usize) < rows,
        "gather_rows: row {largest} of {rows}"
    );
    let values = ids.iter().map(|id| id.cast_signed()).collect::<Vec<_>>();
    let data = TensorData::new(values, [ids.len()]);
    gather_on_device(Tensor::from_data(data, device), blocks)
}

/// [`gather`] for ids on the GPU, each below N.
///
/// # Panics
/// No kernel reads the matrix.
pub fn gather_on_device(ids: Tensor<1, Int>, blocks: &[DeviceMatrix]) -> Tensor<2> {
    let [count] = ids.dims();
    let columns = blocks[0].columns;
    let ids = int_to_buffer("gather_rows", ids);
    let out = alloc("gather_rows", &ids.client, count * columns);
    let mut first = 0;
    for block in blocks {
        assert!(
            block.fits(),
            "gather_rows: rows of {columns}, {:?}",
            block.format
        );
        let vector = match block.format {
            WeightFormat::Quantized(_) => 8,
            WeightFormat::Dense(_) => 4,
        };
        let vectors = count * columns / vector;
        launch(
            block.of(&GATHER_ROWS),
            &ids.client,
            vectors.div_ceil(WORKGROUP_SIZE as usize) as u64,
            &[&ids.handle, &block.words, &block.scales.handle],
            &[&out],
            &GatherUniforms {
                count: count as u32,
                n: block.rows as u32,
                k: columns as u32,
                group_shift: scale_shift(block.format) as u32,
                row_offset: first as u32,
            },
        );
        first += block.rows;
    }
    from_buffer(&ids, out, [count, columns])
}
