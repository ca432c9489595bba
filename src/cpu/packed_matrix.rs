//! Products with matrices on the CPU. Quantized weights stay packed in memory and are dequantized in registers or in
//! the cache. Activations, products and sums are f32, unless int8 activations are chosen for quantized weights.
//!
//! Rows form panels as in [`tiles`](super::tiles), of words of codes or of values. The last panel is filled up with
//! zeros.

mod dense;
#[cfg(target_arch = "x86_64")]
mod digits;
mod int8;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};

use self::dense::DensePanels;
use super::op::{self, CpuOp};
use super::tiles::{
    LANES, TILE_COLUMNS, Vector, Wide, columns_together, multiply_add, tiles, two_pairs, widen,
};
use crate::memory::CpuActivations;
use crate::simd::{for_each_chunk, fused, threads};
use crate::weights::{DType, QuantScheme};

/// Panels that are multiplied with a row at once, so that an activation is loaded once for all.
const GEMV_PANELS: usize = 4;

/// Up to this many rows of activations the weights are read once for each.
const GEMV_ROWS: usize = 4;

/// Rows of activations for which weights are dequantized once: `TILE_COLUMNS` of them fit a second-level cache. A
/// multiple of [`TILE_ROWS`](super::tiles::TILE_ROWS).
const CHUNK_ROWS: usize = 192;

/// The most pairs of panels of a task of [`Panels::many_rows`]: their dequantized tiles fill a quarter of a
/// second-level cache.
const TASK_PAIRS: usize = 8;

/// Bytes of codes that one task of [`Panels::one_row`] reads at least.
const TASK_BYTES: usize = 32 << 10;

/// Consecutive rows of a matrix in CPU memory. Clones share it. A module without parameters: it cannot be
/// trained.
#[derive(Module, Debug)]
pub struct PackedMatrix {
    #[module(skip)]
    store: Arc<Store>,
    #[module(skip)]
    activations: CpuActivations,
}

#[derive(Debug)]
enum Store {
    Quantized(Panels),
    Dense(DensePanels),
}

/// Quantized weights.
struct Panels {
    rows: usize,
    columns: usize,
    scheme: QuantScheme,
    /// `[panels, words of a row]`.
    codes: Vec<[u32; LANES]>,
    /// `[panels, groups, values per group]`: scales, each followed by the minimum if there is one.
    scales: Scales,
}

impl fmt::Debug for Panels {
    /// Without the weights.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (rows, columns) = (self.rows, self.columns);
        write!(f, "[{rows}, {columns}] {:?}", self.scheme)
    }
}

impl fmt::Debug for DensePanels {
    /// Without the weights.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{}, {}]", self.rows, self.columns)
    }
}

enum Scales {
    F16(Vec<[u16; LANES]>),
    F32(Vec<Vector>),
}

impl Scales {
    #[inline(always)]
    fn get(&self, index: usize) -> Vector {
        match self {
            Self::F16(bits) => widen(bits[index]),
            Self::F32(values) => values[index],
        }
    }
}

impl PackedMatrix {
    /// `rows` rows of `columns` weights: words of codes, and scales in words as they are stored. Scales and minima
    /// are finite.
    ///
    /// # Panics
    /// The sizes disagree.
    pub fn new(
        words: &[u32],
        scales: &[u32],
        [rows, columns]: [usize; 2],
        scheme: QuantScheme,
    ) -> Self {
        assert!(scheme.fits(columns), "{columns} columns, {scheme:?}");
        assert_eq!(words.len(), rows * scheme.words(columns), "words");
        assert_eq!(
            scales.len(),
            scheme.scale_words([rows, columns]),
            "words of scales"
        );
        let count = rows.div_ceil(LANES);
        let codes = interleave(words, scheme.words(columns), count);
        let per_row = scheme.scale_count(columns);
        let scales = if scheme.scale == DType::F16 {
            let halves = &bytemuck::cast_slice::<u32, u16>(scales)[..rows * per_row];
            Scales::F16(interleave(halves, per_row, count))
        } else {
            Scales::F32(interleave(bytemuck::cast_slice(scales), per_row, count))
        };
        let panels = Panels {
            rows,
            columns,
            scheme,
            codes,
            scales,
        };
        Self::of(Store::Quantized(panels))
    }

    /// `values` `[rows, columns]`, row-major.
    ///
    /// # Panics
    /// The sizes disagree.
    pub fn dense(values: &[f32], shape: [usize; 2]) -> Self {
        Self::of(Store::Dense(DensePanels::new(values, shape)))
    }

    /// f16 values `[rows, columns]`, row-major and finite, two in a word.
    ///
    /// # Panics
    /// The sizes disagree.
    pub fn f16(words: &[u32], [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(words.len(), DType::F16.words(rows * columns), "words");
        let halves = &bytemuck::cast_slice::<u32, u16>(words)[..rows * columns];
        Self::of(Store::Dense(DensePanels::f16(halves, [rows, columns])))
    }

    /// [`PackedMatrix::dense`] of a tensor on the CPU.
    ///
    /// # Panics
    /// The sizes disagree.
    pub fn of_tensor(values: Tensor<1>, shape: [usize; 2]) -> Self {
        let values = values.into_data().try_into_vec::<f32>();
        Self::dense(&values.expect("weights are f32 on the CPU"), shape)
    }

    fn of(store: Store) -> Self {
        Self {
            store: Arc::new(store),
            activations: CpuActivations::default(),
        }
    }

    /// A matrix of words that are on the CPU, as [`PackedMatrix::new`].
    ///
    /// # Panics
    /// The sizes disagree.
    pub fn of_tensors(
        codes: Tensor<1, Int>,
        scales: Tensor<1, Int>,
        shape: [usize; 2],
        scheme: QuantScheme,
    ) -> Self {
        Self::new(&words(codes), &words(scales), shape, scheme)
    }

    /// The same matrix, multiplied with other activations.
    pub fn with_activations(self, activations: CpuActivations) -> Self {
        Self {
            activations,
            ..self
        }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        match &*self.store {
            Store::Quantized(panels) => [panels.rows, panels.columns],
            Store::Dense(panels) => [panels.rows, panels.columns],
        }
    }

    /// Whether its weights are f32 or f16.
    pub fn is_dense(&self) -> bool {
        matches!(*self.store, Store::Dense(_))
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let panels = match &*self.store {
            Store::Quantized(panels) => panels,
            Store::Dense(panels) => return panels.bytes(),
        };
        let scales = match &panels.scales {
            Scales::F16(bits) => size_of_val(&bits[..]),
            Scales::F32(values) => size_of_val(&values[..]),
        };
        size_of_val(&panels.codes[..]) + scales
    }

    /// Row `index`, `[columns]`.
    ///
    /// # Panics
    /// There is no such row.
    pub fn row(&self, index: usize) -> Vec<f32> {
        let rows = self.shape()[0];
        assert!(index < rows, "row {index} of {rows}");
        let panels = match &*self.store {
            Store::Quantized(panels) => panels,
            Store::Dense(panels) => return panels.row(index),
        };
        let mut values = vec![[0.0; LANES]; panels.columns];
        dequantize_tile::<false>(panels, index / LANES, 0, &mut values);
        values.iter().map(|lanes| lanes[index % LANES]).collect()
    }

    /// `x W^T + b` for `x` `[M, columns]` and `bias` `[rows]`, or `[0]` for none: `[M, rows]`.
    ///
    /// # Panics
    /// `x` has no whole rows.
    pub fn product(&self, x: &[f32], bias: &[f32]) -> Vec<f32> {
        let [rows, columns] = self.shape();
        assert!(x.len().is_multiple_of(columns), "width of the input");
        let store = &*self.store;
        let mut out = match (store, self.activations) {
            #[cfg(target_arch = "x86_64")]
            (Store::Quantized(panels), CpuActivations::Int8)
                if x.len() == columns && digits::is_available() =>
            {
                digits::one_row_of_int8(panels, &int8::quantized_rows(panels, x))
            }
            (Store::Quantized(panels), CpuActivations::Int8) => int8::product(panels, x),
            _ if x.len() / columns > GEMV_ROWS => {
                let shape = [rows, columns];
                return many_rows(shape, x, bias, |first, count, x, out| match store {
                    Store::Quantized(panels) => gemm(panels, first, count, x, out),
                    Store::Dense(panels) => dense::gemm(panels, first, count, x, out),
                });
            }
            _ => {
                let one_row = |x| match store {
                    Store::Quantized(panels) => panels.one_row(x),
                    Store::Dense(panels) => panels.one_row(x),
                };
                x.chunks_exact(columns).flat_map(one_row).collect()
            }
        };
        add_bias(&mut out, bias);
        out
    }
}

/// The words of a tensor on the CPU.
pub fn words(tensor: Tensor<1, Int>) -> Vec<u32> {
    let words = tensor.into_data().try_into_vec::<i32>();
    bytemuck::cast_vec(words.expect("words are i32 on the CPU"))
}

/// `x W^T + b` for `x` `[.., columns]` on the CPU, a matrix in blocks of rows, and `bias` `[rows]`: `[.., rows]`.
///
/// # Panics
/// There is no block, or widths differ.
pub fn packed_linear<const D: usize>(
    x: Tensor<D>,
    blocks: &[PackedMatrix],
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape: [usize; D] = x.dims();
    let widths = blocks.iter().map(|block| block.shape()[1]);
    assert!(
        widths.clone().all(|width| width == shape[D - 1]) && widths.len() > 0,
        "linear: width of the input"
    );
    shape[D - 1] = blocks.iter().map(|block| block.shape()[0]).sum();
    let none = Tensor::zeros([1], &x.device());
    let product = PackedLinear {
        blocks: blocks.to_vec(),
        biased: bias.is_some(),
    };
    op::apply(
        product,
        x,
        bias.unwrap_or_else(|| none.clone()),
        none,
        shape,
    )
}

/// A linear layer as an operation on slices; the third input is not used.
#[derive(Debug)]
struct PackedLinear {
    blocks: Vec<PackedMatrix>,
    biased: bool,
}

impl PackedLinear {
    /// `[rows, columns]` of all blocks.
    fn shape(&self) -> [usize; 2] {
        let rows = self.blocks.iter().map(|block| block.shape()[0]).sum();
        [rows, self.blocks[0].shape()[1]]
    }
}

impl CpuOp for PackedLinear {
    fn forward(&self, [x, bias, _]: [&[f32]; 3]) -> Vec<f32> {
        let [outputs, inputs] = self.shape();
        let bias = if self.biased { bias } else { &[] };
        if let [block] = &self.blocks[..] {
            return block.product(x, bias);
        }
        let mut out = vec![0.0; x.len() / inputs * outputs];
        let mut first = 0;
        for block in &self.blocks {
            let own = first..first + block.shape()[0];
            let bias = if self.biased { &bias[own.clone()] } else { &[] };
            let product = block.product(x, bias);
            let products = product.chunks_exact(own.len());
            for (out, product) in out.chunks_exact_mut(outputs).zip(products) {
                out[own.clone()].copy_from_slice(product);
            }
            first = own.end;
        }
        out
    }

    fn backward(&self, [x, bias, none]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let [outputs, inputs] = self.shape();
        let mut of_x = vec![0.0; x.len()];
        let rows = self.blocks.iter().flat_map(|block| {
            let rows = block.shape()[0];
            (0..rows).map(|row| block.row(row))
        });
        for (output, weights) in rows.enumerate() {
            for (of_x, gradient) in of_x
                .chunks_exact_mut(inputs)
                .zip(gradient.chunks_exact(outputs))
            {
                for (of_x, weight) in of_x.iter_mut().zip(&weights) {
                    *of_x += gradient[output] * weight;
                }
            }
        }
        let mut of_bias = vec![0.0; bias.len()];
        if self.biased {
            for gradient in gradient.chunks_exact(outputs) {
                for (of_bias, gradient) in of_bias.iter_mut().zip(gradient) {
                    *of_bias += gradient;
                }
            }
        }
        [of_x, of_bias, vec![0.0; none.len()]]
    }
}

/// Rows of `width` values in `panels` panels; rows of zeros fill the last ones.
fn interleave<T: Copy + Default + Send + Sync>(
    values: &[T],
    width: usize,
    panels: usize,
) -> Vec<[T; LANES]> {
    let mut out = vec![[T::default(); LANES]; panels * width];
    for_each_chunk(&mut out, width.max(1), |panel, lanes| {
        let first = values.len().min(panel * LANES * width);
        let rows = values[first..].chunks_exact(width).take(LANES);
        for (lane, row) in rows.enumerate() {
            for (lanes, &value) in lanes.iter_mut().zip(row) {
                lanes[lane] = value;
            }
        }
    });
    out
}

/// Code `at` of a word, without the offset.
#[inline(always)]
fn code<const BITS: u32>(word: u32, at: usize) -> f32 {
    ((word >> (at as u32 * BITS)) & ((1 << BITS) - 1)).cast_signed() as f32
}

impl Panels {
    fn groups(&self) -> usize {
        self.columns / self.scheme.group
    }

    /// The words of `panel` from group `first`.
    #[inline(always)]
    fn words(&self, panel: usize, first: usize) -> &[[u32; LANES]] {
        let width = self.scheme.words(self.columns);
        &self.codes[panel * width..][..width][self.scheme.words(first * self.scheme.group)..]
    }

    /// Scale and minimum of a group of `panel`.
    #[inline(always)]
    fn scale(&self, panel: usize, group: usize) -> (Vector, Vector) {
        let per_group = self.scheme.scales_per_group();
        let at = (panel * self.groups() + group) * per_group;
        let scale = self.scales.get(at);
        let minimum = if self.scheme.minimum {
            self.scales.get(at + 1)
        } else {
            let offset = self.scheme.offset() as f32;
            scale.map(|scale| -offset * scale)
        };
        (scale, minimum)
    }

    /// The product with one row `x`.
    fn one_row(&self, x: &[f32]) -> Vec<f32> {
        #[cfg(target_arch = "x86_64")]
        if digits::is_available() {
            return digits::one_row(self, x);
        }
        let sums: Vec<f32> = x
            .chunks_exact(self.scheme.group)
            .map(|x| x.iter().sum())
            .collect();
        let mut out = vec![0.0; self.rows.next_multiple_of(LANES)];
        let panel_bytes = size_of_val(self.words(0, 0)).max(1);
        let task = TASK_BYTES
            .div_ceil(panel_bytes)
            .next_multiple_of(GEMV_PANELS);
        let x = in_place(x, self.scheme);
        for_each_chunk(&mut out, task * LANES, |index, out| {
            gemv(self, index * task, &x, &sums, out);
        });
        out.truncate(self.rows);
        out
    }
}

/// Adds `bias` to each row of `out`; an empty one is none.
fn add_bias(out: &mut [f32], bias: &[f32]) {
    if bias.is_empty() {
        return;
    }
    for out in out.chunks_exact_mut(bias.len()) {
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

/// `x W^T + b` for a matrix `[rows, columns]`; an empty `bias` is none. `gemm` computes the products of pairs of panels
/// from the given one on with rows of [`columns_together`].
fn many_rows(
    [rows, columns]: [usize; 2],
    x: &[f32],
    bias: &[f32],
    gemm: impl Fn(usize, usize, &[f32], &mut [Wide]) + Send + Sync,
) -> Vec<f32> {
    let count = x.len() / columns;
    let pairs = rows.div_ceil(2 * LANES);
    let task = pairs.div_ceil(4 * threads()).min(TASK_PAIRS);
    let mut out = vec![0.0; count * rows];
    // The sums of two panels lie together; then rows are put together.
    let mut tiles = vec![[0.0; 2 * LANES]; pairs * count.min(CHUNK_ROWS)];
    let chunks = out.chunks_mut(CHUNK_ROWS * rows);
    for (out, x) in chunks.zip(x.chunks(CHUNK_ROWS * columns)) {
        let count = out.len() / rows;
        let x = &columns_together(x, columns);
        let tiles = &mut tiles[..pairs * count];
        for_each_chunk(tiles, task * count, |index, tiles| {
            gemm(index * task, count, x, tiles);
        });
        for_each_chunk(out, rows, |row, out| {
            for (pair, out) in out.chunks_mut(2 * LANES).enumerate() {
                out.copy_from_slice(&tiles[pair * count + row][..out.len()]);
            }
            add_bias(out, bias);
        });
    }
    out
}

fused! {
    /// The product of the panels from `first` with one row `x`, which is [`in_place`], and of whose groups `sums` are the
    /// sums: as many panels as `out` holds.
    fn gemv(panels: &Panels, first: usize, x: &[f32], sums: &[f32], out: &mut [f32]) {
        match panels.scheme.bits {
            4 => gemv_of::<FUSED, 4, 8>(panels, first, x, sums, out),
            _ => gemv_of::<FUSED, 8, 4>(panels, first, x, sums, out),
        }
    }
}

#[inline(always)]
fn gemv_of<const FUSED: bool, const BITS: u32, const PER_WORD: usize>(
    panels: &Panels,
    first: usize,
    x: &[f32],
    sums: &[f32],
    out: &mut [f32],
) {
    let (together, rest) = out.as_chunks_mut::<LANES>().0.as_chunks_mut();
    let alone = first + GEMV_PANELS * together.len();
    for (at, out) in together.iter_mut().enumerate() {
        let first = first + GEMV_PANELS * at;
        *out = panels_with_row::<FUSED, BITS, PER_WORD, GEMV_PANELS>(panels, first, x, sums);
    }
    for (at, out) in rest.iter_mut().enumerate() {
        [*out] = panels_with_row::<FUSED, BITS, PER_WORD, 1>(panels, alone + at, x, sums);
    }
}

/// The products of `P` panels from `first` with a row.
#[inline(always)]
fn panels_with_row<const FUSED: bool, const BITS: u32, const PER_WORD: usize, const P: usize>(
    panels: &Panels,
    first: usize,
    x: &[f32],
    sums: &[f32],
) -> [Vector; P] {
    let group = panels.scheme.group;
    let words: [_; P] = std::array::from_fn(|panel| panels.words(first + panel, 0));
    let mut totals = [[0.0; LANES]; P];
    for (at, x) in x.chunks_exact(group).enumerate() {
        let width = group / PER_WORD;
        let words = words.map(|words| &words[at * width..][..width]);
        // Two sums, so that an addition need not wait for the one before.
        let mut parts = [[[0.0; LANES]; 2]; P];
        for (word, x) in x.as_chunks::<PER_WORD>().0.iter().enumerate() {
            for k in 0..PER_WORD {
                for panel in 0..P {
                    let (word, part) = (words[panel][word], &mut parts[panel][k % 2]);
                    for lane in 0..LANES {
                        let code = code_in_place::<BITS>(word[lane], k);
                        part[lane] = multiply_add::<FUSED>(code, x[k], part[lane]);
                    }
                }
            }
        }
        for panel in 0..P {
            let (scale, minimum) = panels.scale(first + panel, at);
            let ([even, odd], total) = (parts[panel], &mut totals[panel]);
            for lane in 0..LANES {
                let sum = multiply_add::<FUSED>(even[lane] + odd[lane], scale[lane], total[lane]);
                total[lane] = multiply_add::<FUSED>(minimum[lane], sums[at], sum);
            }
        }
    }
    totals
}

/// Code `at` of a word, without the offset, times 2 to the power of the code's first bit in the word; the last code
/// alone. It takes one instruction less than [`code`].
#[inline(always)]
fn code_in_place<const BITS: u32>(word: u32, at: usize) -> f32 {
    let first_bit = at as u32 * BITS;
    let in_place = match first_bit + BITS {
        32 => word >> first_bit,
        _ => word & (((1 << BITS) - 1) << first_bit),
    };
    in_place.cast_signed() as f32
}

/// A row of activations for [`code_in_place`]: each is divided by the power of 2 that its code is multiplied with.
fn in_place(x: &[f32], scheme: QuantScheme) -> Vec<f32> {
    let per_word = scheme.per_word();
    let factors: Vec<f32> = (0..per_word)
        .map(|at| match at + 1 == per_word {
            true => 1.0,
            false => (-((at as u32 * scheme.bits) as f32)).exp2(),
        })
        .collect();
    let words = x.chunks_exact(per_word);
    words
        .flat_map(|x| x.iter().zip(&factors).map(|(x, factor)| x * factor))
        .collect()
}

fused! {
    /// The products of pairs of panels from `first` with `count` rows `x`, of [`columns_together`]: as many pairs as
    /// `out`, `[pairs, count]`, holds.
    fn gemm(panels: &Panels, first: usize, count: usize, x: &[f32], out: &mut [Wide]) {
        let columns = panels.columns;
        let mut weights = vec![[[[0.0; LANES]; TILE_COLUMNS]; 2]; out.len() / count];
        for start in (0..columns).step_by(TILE_COLUMNS) {
            let width = TILE_COLUMNS.min(columns - start);
            for (pair, weights) in weights.iter_mut().enumerate() {
                for (half, weights) in weights.iter_mut().enumerate() {
                    let panel = 2 * (first + pair) + half;
                    if panel < panels.rows.div_ceil(LANES) {
                        dequantize_tile::<FUSED>(panels, panel, start, &mut weights[..width]);
                    }
                }
            }
            if start == 0 {
                out.fill([0.0; 2 * LANES]);
            }
            for (weights, out) in weights.chunks(2).zip(out.chunks_mut(2 * count)) {
                match weights {
                    [first, second] => {
                        let weights = [cut(first, width), cut(second, width)];
                        let out = out.split_at_mut(count).into();
                        two_pairs::<FUSED, AVX512>(weights, x, start, columns, out);
                    }
                    rest => {
                        let weights = cut(&rest[0], width);
                        tiles::<FUSED>(weights, x, start, columns, out);
                    }
                }
            }
        }
    }
}

/// The first `width` columns of a pair of panels.
#[inline(always)]
fn cut(weights: &[[Vector; TILE_COLUMNS]; 2], width: usize) -> [&[Vector]; 2] {
    [&weights[0][..width], &weights[1][..width]]
}

/// Dequantizes columns from `first` of `panel` into a tile. With `FUSED` the CPU must have AVX2, if it is one of x86.
#[inline(always)]
fn dequantize_tile<const FUSED: bool>(
    panels: &Panels,
    panel: usize,
    first: usize,
    tile: &mut [Vector],
) {
    #[cfg(target_arch = "x86_64")]
    if FUSED {
        // SAFETY: the caller says so.
        return unsafe { x86::dequantize_tile(panels, panel, first, tile) };
    }
    match panels.scheme.bits {
        4 => dequantize_tile_of::<4, 8>(panels, panel, first, tile),
        _ => dequantize_tile_of::<8, 4>(panels, panel, first, tile),
    }
}

#[inline(always)]
fn dequantize_tile_of<const BITS: u32, const PER_WORD: usize>(
    panels: &Panels,
    panel: usize,
    first: usize,
    tile: &mut [Vector],
) {
    let group = panels.scheme.group;
    let offset = panels.scheme.offset() as f32;
    let first = first / group;
    let words = panels.words(panel, first).chunks_exact(group / PER_WORD);
    for (at, (tile, words)) in tile.chunks_exact_mut(group).zip(words).enumerate() {
        let (scale, minimum) = panels.scale(panel, first + at);
        let minimum = if panels.scheme.minimum {
            minimum
        } else {
            [0.0; LANES]
        };
        let (tile, _) = tile.as_chunks_mut::<PER_WORD>();
        for (&word, values) in words.iter().zip(tile) {
            for (k, value) in values.iter_mut().enumerate() {
                // A local vector, which the compiler keeps in a register.
                let mut row = [0.0; LANES];
                for lane in 0..LANES {
                    let code = code::<BITS>(word[lane], k) - offset;
                    row[lane] = code * scale[lane] + minimum[lane];
                }
                *value = row;
            }
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::{Device, TensorData};
    use half::f16;

    use super::*;
    use crate::simd::tests::with_each_instruction_set;
    use crate::weights::quant::Rounding;

    const SCHEMES: [QuantScheme; 10] = [
        QuantScheme::new(4, 32),
        QuantScheme::new(4, 64),
        QuantScheme::new(8, 32),
        QuantScheme::new(8, 64),
        with_f32(4, 32),
        with_f32(4, 64),
        with_f32(8, 32),
        with_f32(8, 64),
        QuantScheme::with_minimum(32),
        QuantScheme::with_minimum(64),
    ];

    const fn with_f32(bits: u32, group: usize) -> QuantScheme {
        QuantScheme {
            scale: DType::F32,
            ..QuantScheme::new(bits, group)
        }
    }

    /// `count` values in [-1, 1] that do not repeat.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i + 977 * seed) as f32 * 0.613).sin())
            .collect()
    }

    /// A matrix, and its dequantized values.
    fn matrix([rows, columns]: [usize; 2], scheme: QuantScheme) -> (PackedMatrix, Vec<f32>) {
        let values = values(rows * columns, rows);
        let mut words = vec![0; scheme.words(values.len())];
        let mut scales = vec![f16::ZERO; scheme.scale_count(values.len())];
        scheme.quantize(&values, Rounding::Nearest, &mut words, &mut scales);
        let mut dequantized = vec![0.0; values.len()];
        let scales: Vec<u32> = if scheme.scale == DType::F16 {
            scheme.dequantize(&words, &scales, &mut dequantized);
            let bits = |half: Option<&f16>| half.map_or(0, |half| u32::from(half.to_bits()));
            let pairs = scales.chunks(2);
            pairs
                .map(|pair| bits(pair.first()) | bits(pair.get(1)) << 16)
                .collect()
        } else {
            // No f16 holds these.
            let scales: Vec<f32> = scales
                .iter()
                .map(|scale| scale.to_f32() * 1.000_123)
                .collect();
            scheme.dequantize(&words, &scales, &mut dequantized);
            scales.into_iter().map(f32::to_bits).collect()
        };
        let matrix = PackedMatrix::new(&words, &scales, [rows, columns], scheme);
        (matrix, dequantized)
    }

    /// Each product in f64, and the sum of the sizes of its terms.
    fn product(x: &[f32], weights: &[f32], columns: usize) -> Vec<[f64; 2]> {
        let dot = |x: &[f32], row: &[f32]| {
            let terms = x.iter().zip(row);
            let terms = terms.map(|(a, b)| f64::from(*a) * f64::from(*b));
            terms.fold([0.0; 2], |[sum, sizes], term| {
                [sum + term, sizes + term.abs()]
            })
        };
        x.chunks(columns)
            .flat_map(|x| weights.chunks(columns).map(move |row| dot(x, row)))
            .collect()
    }

    #[test]
    fn products_agree_with_dequantized_weights() {
        // Rows around a panel and two, columns around a tile and below it, several tasks.
        let shapes = [
            [1, 64],
            [7, 128],
            [8, 320],
            [17, 192],
            [32, 1088],
            [531, 64],
        ];
        with_each_instruction_set(|set| {
            for scheme in SCHEMES {
                for shape in shapes {
                    let (matrix, weights) = matrix(shape, scheme);
                    for count in [0, 1, 2, GEMV_ROWS, GEMV_ROWS + 1, 6, 7, 13] {
                        let x = values(count * shape[1], count);
                        let expected = product(&x, &weights, shape[1]);
                        let got = matrix.product(&x, &[]);
                        assert_eq!(got.len(), expected.len());
                        for (got, [expected, sizes]) in got.iter().zip(expected) {
                            assert!(
                                (f64::from(*got) - expected).abs() < 2e-6 * sizes,
                                "{set:?} {scheme:?} {shape:?} x {count}: {got} {expected}"
                            );
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn f32_products_agree_with_those_in_f64() {
        // Rows around a panel and two, columns that are no multiple of anything.
        let shapes = [[1, 1], [7, 3], [8, 6], [17, 59], [32, 300], [531, 64]];
        with_each_instruction_set(|set| {
            for [rows, columns] in shapes {
                let weights = values(rows * columns, rows);
                let bias = values(rows, 5);
                let matrix = PackedMatrix::dense(&weights, [rows, columns]);
                assert!(matrix.is_dense() && matrix.shape() == [rows, columns]);
                for row in 0..rows {
                    assert_eq!(matrix.row(row), weights[row * columns..][..columns]);
                }
                for count in [0, 1, 2, GEMV_ROWS, GEMV_ROWS + 1, 6, 7, 13, CHUNK_ROWS + 5] {
                    let x = values(count * columns, count);
                    let expected = product(&x, &weights, columns);
                    for bias in [&[][..], &bias] {
                        let got = matrix.product(&x, bias);
                        assert_eq!(got.len(), expected.len());
                        for (at, (got, [expected, sizes])) in got.iter().zip(&expected).enumerate()
                        {
                            let bias = bias.get(at % rows).copied().map_or(0.0, f64::from);
                            assert!(
                                (f64::from(*got) - expected - bias).abs() < 2e-6 * sizes + 1e-6,
                                "{set:?} {rows} x {columns} x {count}: {got} {expected}"
                            );
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn f16_products_are_those_of_the_same_f32_bit_for_bit() {
        with_each_instruction_set(|set| {
            for [rows, columns] in [[1, 4], [7, 12], [17, 60], [32, 300], [531, 64]] {
                let halves = values(rows * columns, rows);
                let halves: Vec<f16> = halves.into_iter().map(f16::from_f32).collect();
                let weights: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
                let pairs = halves.chunks_exact(2);
                let words: Vec<u32> = pairs
                    .map(|pair| u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16)
                    .collect();
                let matrix = PackedMatrix::f16(&words, [rows, columns]);
                let wide = PackedMatrix::dense(&weights, [rows, columns]);
                assert!(matrix.is_dense() && 2 * matrix.bytes() == wide.bytes());
                for row in 0..rows {
                    assert_eq!(matrix.row(row), weights[row * columns..][..columns]);
                }
                for count in [0, 1, GEMV_ROWS, GEMV_ROWS + 1, 13, CHUNK_ROWS + 5] {
                    let x = values(count * columns, count);
                    let (got, expected) = (matrix.product(&x, &[]), wide.product(&x, &[]));
                    assert_eq!(got, expected, "{set:?} {rows} x {columns} x {count}");
                }
            }
        });
    }

    /// The activations that [`int8`] stands for.
    fn rounded(x: &[f32]) -> Vec<f32> {
        let blocks = x.chunks(32).flat_map(|x| {
            let scale = x.iter().fold(0.0, |a: f32, b| a.max(b.abs())) / 127.0;
            x.iter().map(move |x| match scale > 0.0 {
                true => (x / scale).round_ties_even() * scale,
                false => 0.0,
            })
        });
        blocks.collect()
    }

    #[test]
    fn int8_products_are_those_of_rounded_activations() {
        let shapes = [[1, 64], [17, 192], [32, 1088], [531, 64]];
        with_each_instruction_set(|set| {
            for scheme in SCHEMES {
                for shape in shapes {
                    let (matrix, weights) = matrix(shape, scheme);
                    let matrix = matrix.with_activations(CpuActivations::Int8);
                    // Around a tile, and more rows than a cache holds at once.
                    for count in [0, 1, 2, 5, 6, 7, 13, 1100 / shape[1]] {
                        let mut x = values(count * shape[1], count);
                        if let Some(block) = x.get_mut(32..64) {
                            block.fill(0.0);
                        }
                        let expected = product(&rounded(&x), &weights, shape[1]);
                        let got = matrix.product(&x, &[]);
                        assert_eq!(got.len(), expected.len());
                        for (got, [expected, sizes]) in got.iter().zip(expected) {
                            assert!(
                                (f64::from(*got) - expected).abs() < 2e-6 * sizes + 1e-6,
                                "{set:?} {scheme:?} {shape:?} x {count}: {got} {expected}"
                            );
                        }
                    }
                }
            }
        });
    }

    /// All codes and activations at their limits: the largest sums of 16 bits.
    #[test]
    fn int8_products_do_not_overflow() {
        with_each_instruction_set(|set| {
            for scheme in SCHEMES {
                let columns = 128;
                for word in [0, u32::MAX] {
                    let words = vec![word; 8 * scheme.words(columns)];
                    let one = match scheme.scale {
                        DType::F16 => 0x3c00_3c00,
                        _ => 1.0_f32.to_bits(),
                    };
                    let scales = vec![one; scheme.scale_words([8, columns])];
                    let matrix = PackedMatrix::new(&words, &scales, [8, columns], scheme);
                    let weight = f64::from(matrix.row(0)[0]);
                    let matrix = matrix.with_activations(CpuActivations::Int8);
                    for x in [-127.0, 127.0] {
                        let expected = columns as f64 * weight * f64::from(x);
                        for got in matrix.product(&vec![x; columns], &[]) {
                            assert_eq!(f64::from(got), expected, "{set:?} {scheme:?} {word:x} {x}");
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn activations_that_are_not_finite_show_in_the_product() {
        with_each_instruction_set(|set| {
            let (matrix, _) = matrix([9, 128], QuantScheme::new(4, 32));
            for activations in [CpuActivations::F32, CpuActivations::Int8] {
                let matrix = matrix.clone().with_activations(activations);
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    for count in [1, 7] {
                        let mut x = values(count * 128, 3);
                        x[40] = bad;
                        let got = matrix.product(&x, &[]);
                        let (first, others) = got.split_at(9);
                        assert!(
                            first.iter().all(|y| !y.is_finite()),
                            "{set:?} {activations:?} {bad}: {first:?}"
                        );
                        assert!(others.iter().all(|y| y.is_finite()), "other rows");
                    }
                }
            }
        });
    }

    #[test]
    fn rows_are_the_dequantized_weights_bit_for_bit() {
        with_each_instruction_set(|set| {
            for scheme in SCHEMES {
                let (matrix, weights) = matrix([19, 320], scheme);
                for row in 0..19 {
                    assert_eq!(
                        matrix.row(row),
                        weights[row * 320..][..320],
                        "{set:?} {scheme:?}"
                    );
                }
            }
        });
    }

    /// 4.5 bits a weight.
    #[test]
    fn memory_is_that_of_the_folder() {
        let scheme = QuantScheme::new(4, 32);
        let (matrix, _) = matrix([64, 256], scheme);
        assert_eq!(matrix.bytes(), scheme.bytes([64, 256]));
    }

    #[test]
    fn blocks_bias_and_gradient_are_those_of_one_dense_matrix() {
        let columns = 64;
        let scheme = QuantScheme::new(8, 32);
        let (first, mut weights) = matrix([5, columns], scheme);
        let (second, more) = matrix([11, columns], scheme);
        weights.extend(more);
        let rows = 16;
        let device = Device::flex().autodiff();
        for count in [1, 9] {
            let tensor = |values: Vec<f32>, shape: [usize; 2]| {
                Tensor::<2>::from_data(TensorData::new(values, shape), &device)
            };
            let x = || tensor(values(count * columns, 3), [count, columns]).require_grad();
            let bias = || {
                let bias =
                    Tensor::<1>::from_data(TensorData::new(values(rows, 4), [rows]), &device);
                bias.require_grad()
            };
            let slope = || tensor(values(count * rows, 5), [count, rows]);
            let run = |product: &dyn Fn(Tensor<2>, Tensor<1>) -> Tensor<2>| {
                let (x, bias) = (x(), bias());
                let y = product(x.clone(), bias.clone());
                let gradients = (y.clone() * slope()).sum().backward();
                let read = |data: TensorData| data.try_to_vec::<f32>().expect("f32");
                [
                    read(y.into_data()),
                    read(x.grad(&gradients).expect("a gradient").into_data()),
                    read(bias.grad(&gradients).expect("a gradient").into_data()),
                ]
            };
            let blocks = [first.clone(), second.clone()];
            let packed = run(&|x, bias| packed_linear(x, &blocks, Some(bias)));
            let dense = run(&|x, bias| {
                let weights = tensor(weights.clone(), [rows, columns]);
                x.matmul(weights.transpose()) + bias.unsqueeze()
            });
            for (packed, dense) in packed.iter().zip(&dense) {
                assert_eq!(packed.len(), dense.len());
                for (packed, dense) in packed.iter().zip(dense) {
                    assert!((packed - dense).abs() < 1e-5, "{count}: {packed} {dense}");
                }
            }
        }
    }
}
