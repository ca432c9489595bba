//! Products with matrices that stay in 4 or 8 bits per weight, and rows of them.
//!
//! A matrix comes in blocks of neighbouring rows, each in buffers of its own, so that no buffer
//! passes what a device can bind. Few rows of `x` go through `packed_gemv` (every weight is read
//! once per row), many through `packed_matmul` (once per 32 rows).

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::kernel::into_contiguous;
use cubecl::server::Handle;

use crate::kernel::graphics::{buffer, output, poisoned, tensor};
use crate::kernel::launch::{Shader, launch};
use crate::kernel::sweep::{Dice, Swept};
use crate::kernel::upload::Upload;
use crate::weights::quant::{Rounding, Scheme};

/// Invocations per workgroup of `packed_gemv` and `packed_rows`.
const GROUP: u32 = 64;

/// Rows and columns of the tile that a workgroup of `packed_matmul` makes.
const TILE: u32 = 32;

/// Inputs that `packed_matmul` unpacks at a time; every group of weights is a multiple.
const STEP: u32 = 32;

/// More rows than this go through `packed_matmul`.
const FEW: usize = 4;

macro_rules! shader {
    ($name:literal, $bits:literal) => {
        Shader {
            name: $name,
            text: include_str!(concat!("../../shaders/", $name, ".wgsl")),
            constants: &[
                ("GROUP", GROUP),
                ("TILE", TILE),
                ("STEP", STEP),
                ("BITS", $bits),
                ("PER_WORD", 32 / $bits),
                ("MASK", (1 << $bits) - 1),
                ("OFFSET", 1 << ($bits - 1)),
            ],
            imports: &[],
        }
    };
}

/// `shaders/packed_gemv.wgsl` for 4 and 8 bits.
pub const GEMV: [Shader; 2] = [shader!("packed_gemv", 4), shader!("packed_gemv", 8)];

/// `shaders/packed_matmul.wgsl` for 4 and 8 bits.
pub const MATMUL: [Shader; 2] = [shader!("packed_matmul", 4), shader!("packed_matmul", 8)];

/// `shaders/packed_rows.wgsl` for 4 and 8 bits.
pub const ROWS: [Shader; 2] = [shader!("packed_rows", 4), shader!("packed_rows", 8)];

/// Neighbouring rows of a packed matrix on a graphics device.
#[derive(Clone, Debug)]
pub struct PackedRows {
    words: Handle,
    scales: Handle,
    rows: usize,
    columns: usize,
    scheme: Scheme,
}

impl PackedRows {
    /// `rows` rows of `columns` weights: their words, and their scales two in an element.
    ///
    /// # Panics
    /// The sizes disagree, or the tensors are not on a graphics device.
    pub fn new(
        words: Tensor<1, Int>,
        scales: Tensor<1, Int>,
        [rows, columns]: [usize; 2],
        scheme: Scheme,
    ) -> Self {
        assert!(scheme.fits(columns), "{columns} columns, {scheme:?}");
        assert_eq!(words.dims(), [rows * scheme.words(columns)], "words");
        let groups = rows * (columns / scheme.group);
        assert_eq!(scales.dims(), [groups.div_ceil(2)], "scales");
        Self {
            words: handle(words),
            scales: handle(scales),
            rows,
            columns,
            scheme,
        }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    fn variant<'a>(&self, shaders: &'a [Shader; 2]) -> &'a Shader {
        &shaders[usize::from(self.scheme.bits == 8)]
    }
}

fn handle(tensor: Tensor<1, Int>) -> Handle {
    let tensor = tensor
        .try_into_primitive::<Cube>()
        .expect("packed weights are on a graphics device");
    into_contiguous(tensor).handle
}

/// `x W^T` for `x` `[M, K]` and a matrix `[N, K]` in blocks of rows: `[M, N]`.
///
/// # Panics
/// There is no block, the widths differ, or a buffer is larger than the device binds.
pub fn packed_linear(x: Tensor<2>, blocks: &[PackedRows]) -> Tensor<2> {
    let tiled = x.dims()[0] > FEW;
    linear_tiled(x, blocks, tiled)
}

fn linear_tiled(x: Tensor<2>, blocks: &[PackedRows], tiled: bool) -> Tensor<2> {
    let [count, inputs] = x.dims();
    let outputs = blocks.iter().map(|block| block.rows).sum::<usize>();
    assert!(outputs > 0, "packed_linear: a matrix without rows");
    if count == 0 {
        return Tensor::zeros([0, outputs], &x.device());
    }
    let x = buffer("packed_linear", x);
    let out = output("packed_linear", &x.client, count * outputs);
    let mut first = 0;
    for block in blocks {
        assert_eq!(block.columns, inputs, "packed_linear: width of the input");
        let tile = TILE as usize;
        let (shader, groups) = if tiled {
            (&MATMUL, count.div_ceil(tile) * block.rows.div_ceil(tile))
        } else {
            (&GEMV, count * block.rows)
        };
        let sizes = [
            count,
            block.rows,
            inputs,
            block.scheme.group,
            first,
            outputs,
            0,
            0,
        ];
        launch(
            block.variant(shader),
            &x.client,
            groups as u64,
            &[&x.handle, &block.words, &block.scales],
            &[&out],
            &sizes.map(|size| size as u32),
        );
        first += block.rows;
    }
    tensor(&x, out, [count, outputs])
}

/// Rows `ids` of a matrix `[N, K]` in blocks of rows: `[R, K]`.
///
/// # Panics
/// An id is not below N, or there is no id.
pub fn packed_rows(ids: &[u32], blocks: &[PackedRows], device: &Device) -> Tensor<2> {
    let rows = blocks.iter().map(|block| block.rows).sum::<usize>();
    let largest = *ids.iter().max().expect("packed_rows: at least one id");
    assert!((largest as usize) < rows, "row {largest} of {rows}");
    let columns = blocks[0].columns;
    let values = ids.iter().map(|id| id.cast_signed()).collect::<Vec<_>>();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(values, [ids.len()]), device);
    let count = ids.dims()[0];
    let ids = into_contiguous(
        ids.try_into_primitive::<Cube>()
            .expect("packed weights are on a graphics device"),
    );
    let out = output("packed_rows", &ids.client, count * columns);
    let mut first = 0;
    for block in blocks {
        let words = count * block.scheme.words(columns);
        let group = block.scheme.group;
        launch(
            block.variant(&ROWS),
            &ids.client,
            words.div_ceil(GROUP as usize) as u64,
            &[&ids.handle, &block.words, &block.scales],
            &[&out],
            &[count, block.rows, columns, group, first, 0, 0, 0].map(|size| size as u32),
        );
        first += block.rows;
    }
    tensor(&ids, out, [count, columns])
}

/// [`packed_linear`] in plain loops over unpacked weights `[N, K]`, summed in f64.
pub fn packed_linear_reference(x: &[f32], weights: &[f32], inputs: usize) -> Vec<f32> {
    let product = |row: &[f32], weights: &[f32]| {
        let terms = row.iter().zip(weights);
        terms
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>() as f32
    };
    x.chunks_exact(inputs)
        .flat_map(|row| weights.chunks_exact(inputs).map(move |w| product(row, w)))
        .collect()
}

/// Inputs and weights lie in [-1, 1] and at most 320 of their products are added in f32.
const TOLERANCE: f32 = 1e-4;

/// Compares all kernels on `device`, a graphics device, with the reference on the processor: both
/// formats and groups, rows and columns around the tile, several blocks, more workgroups than one
/// dimension holds, outputs that start as NaN. The same natively and in a browser.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
pub async fn sweep(device: &Device) -> Result<Swept, String> {
    let mut swept = Swept::on(device)?;
    // rows of x, rows of every block, columns
    let shapes: [(usize, &[usize], usize); 10] = [
        (0, &[3], 32),
        (1, &[1], 32),
        (1, &[31, 1], 96),
        (3, &[32], 64),
        (5, &[33], 64),
        (31, &[7, 64, 5], 320),
        (32, &[31], 128),
        (33, &[65], 192),
        (67, &[13], 64),
        (1, &[65_537], 64),
    ];
    for bits in [4, 8] {
        for group in [32, 64] {
            let scheme = Scheme { bits, group };
            for (count, rows, columns) in shapes {
                if scheme.fits(columns) {
                    compare(device, scheme, count, rows, columns, &mut swept).await?;
                }
            }
        }
    }
    Ok(swept)
}

async fn compare(
    device: &Device,
    scheme: Scheme,
    count: usize,
    rows: &[usize],
    columns: usize,
    swept: &mut Swept,
) -> Result<(), String> {
    let name = format!("packed {scheme:?} [{count}, {columns}] x {rows:?}");
    let mut dice = Dice::default();
    let x: Vec<f32> = (0..count * columns).map(|_| dice.draw()).collect();
    let mut weights = Vec::new();
    let mut blocks = Vec::new();
    for &rows in rows {
        let values: Vec<f32> = (0..rows * columns).map(|_| dice.draw()).collect();
        blocks.push(pack(&values, [rows, columns], scheme, device, &mut weights));
    }
    let input = || Tensor::<2>::from_data(TensorData::new(x.clone(), [count, columns]), device);
    let expected = packed_linear_reference(&x, &weights, columns);
    for tiled in [false, true] {
        let got = poisoned(|| linear_tiled(input(), &blocks, tiled));
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    let last = rows.iter().sum::<usize>() as u32 - 1;
    let ids = [last, 0, last / 2, last / 3];
    let expected: Vec<f32> = ids
        .iter()
        .flat_map(|&id| &weights[id as usize * columns..][..columns])
        .copied()
        .collect();
    let got = poisoned(|| packed_rows(&ids, &blocks, device));
    let name = format!("{name}, rows");
    swept.compare(&name, got, &expected, 0.0).await
}

/// Packs `values` `[rows, columns]` onto the device; what they became is added to `unpacked`.
fn pack(
    values: &[f32],
    shape: [usize; 2],
    scheme: Scheme,
    device: &Device,
    unpacked: &mut Vec<f32>,
) -> PackedRows {
    let mut words = vec![0; scheme.words(values.len())];
    let mut scales = vec![0; values.len() / scheme.group];
    scheme.pack(values, Rounding::Nearest, &mut words, &mut scales);
    let start = unpacked.len();
    unpacked.resize(start + values.len(), 0.0);
    scheme.unpack(&words, &scales, &mut unpacked[start..]);
    let pairs = scales
        .chunks(2)
        .map(|pair| u32::from(pair[0]) | u32::from(*pair.get(1).unwrap_or(&0)) << 16)
        .collect();
    let [words, scales] = [words, pairs].map(|elements: Vec<u32>| {
        let mut upload = Upload::new(elements.len(), device);
        upload.push(elements);
        upload.integers()
    });
    PackedRows::new(words, scales, shape, scheme)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::kernel::device::adapter_for_test;

    #[test]
    fn kernels_agree_with_their_reference() {
        let Some(device) = adapter_for_test("kernels_agree_with_their_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }
}
