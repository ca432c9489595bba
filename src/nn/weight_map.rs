//! Weights of a model folder on their device, by name, as they arrive.
//!
//! Tensors arrive in pieces and are uploaded at once; constructors then take them by name. Quantized
//! matrices and f16 matrices keep their format; other weights are widened to f32.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Int, Tensor};

use crate::cpu::op::is_cpu;
use crate::cpu::packed_matrix::{self, PackedMatrix};
use crate::error::Fault;
use crate::gpu::matmul::{self, DeviceMatrix};
use crate::gpu::upload::Upload;
use crate::nn::loader::{Init, WeightSource, on_device};
use crate::nn::weight::Weight;
use crate::weights::download::TensorSink;
use crate::weights::manifest::TensorEntry;
use crate::weights::quant::{QWEIGHT, SCALES};
use crate::weights::{DType, QuantScheme, WeightFormat};

/// Tensors on a device, by name, until networks take them.
pub struct WeightMap {
    device: Device,
    wanted: fn(&str) -> bool,
    entries: BTreeMap<String, Entry>,
    used: RefCell<BTreeSet<String>>,
    pending: Option<Pending>,
}

struct Entry {
    shape: Vec<usize>,
    buffer: RefCell<Buffer>,
}

#[derive(Clone)]
enum Buffer {
    /// f32.
    Dense(Tensor<1>),
    /// An f16 matrix on a GPU.
    F16(DeviceMatrix),
    /// Words of quantized weights.
    Codes(Tensor<1, Int>),
    /// Scales of quantized weights, as words, and their type.
    Scales(Tensor<1, Int>, DType),
    /// What a network on the CPU made of codes or values when it took them: a folder is in memory once.
    Packed(PackedMatrix),
}

/// A tensor whose bytes are arriving.
struct Pending {
    name: String,
    entry: TensorEntry,
    role: Role,
    upload: Upload,
    /// Elements that have arrived.
    elements: usize,
}

/// Which [`Buffer`] a tensor becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Widened to f32.
    Dense,
    F16,
    Codes,
    Scales,
}

impl Role {
    fn of(name: &str, entry: &TensorEntry) -> Self {
        match entry.dtype {
            DType::F16 | DType::F32 if is_scales(name) => Self::Scales,
            DType::U32 => Self::Codes,
            _ if stays_f16(name, entry) => Self::F16,
            _ => Self::Dense,
        }
    }
}

/// The name of the tensor that `name` is, or is a row block of.
fn without_block(name: &str) -> &str {
    name.split(".rows.").next().unwrap_or(name)
}

/// Whether `name` is that of a quantized matrix's scales.
pub fn is_scales(name: &str) -> bool {
    let stem = without_block(name).strip_suffix(SCALES);
    stem.is_some_and(|stem| stem.ends_with('.'))
}

/// Whether a tensor stays f16: a matrix that products read.
pub fn stays_f16(name: &str, entry: &TensorEntry) -> bool {
    entry.dtype == DType::F16
        && without_block(name).ends_with(".weight")
        && matches!(entry.shape[..], [_, columns] if WeightFormat::Dense(DType::F16).fits(columns))
}

impl WeightMap {
    /// An empty map that takes the tensors whose names satisfy `wanted`.
    pub fn new(device: &Device, wanted: fn(&str) -> bool) -> Self {
        Self {
            device: device.clone(),
            wanted,
            entries: BTreeMap::new(),
            used: RefCell::default(),
            pending: None,
        }
    }

    /// Checks that every tensor was taken.
    ///
    /// # Errors
    /// A surplus tensor, by name.
    pub fn finish(&self) -> Result<(), Fault> {
        let used = self.used.borrow();
        match self.entries.keys().find(|name| !used.contains(*name)) {
            Some(name) => Err(Fault::model(
                format!("tensor {name}"),
                "belongs to no part of the model",
            )),
            None => Ok(()),
        }
    }

    /// The row blocks of `name` in order: itself, or `name.rows.0`, `name.rows.1` and so on.
    fn blocks(&self, name: &str) -> Vec<&Entry> {
        let mut used = self.used.borrow_mut();
        let mut take = |name: &str| {
            let entry = self.entries.get(name);
            if entry.is_some() {
                used.insert(name.to_string());
            }
            entry
        };
        if let Some(whole) = take(name) {
            return vec![whole];
        }
        (0..)
            .map_while(|k| take(&format!("{name}.rows.{k}")))
            .collect()
    }

    /// The row blocks of `name`, which together must have `shape`.
    fn blocks_of_shape(&self, name: &str, shape: &[usize]) -> Result<Vec<&Entry>, Fault> {
        let blocks = self.blocks(name);
        let Some(first) = blocks.first() else {
            return Err(Fault::model(format!("tensor {name}"), "is missing"));
        };
        let mut found = first.shape.clone();
        if blocks.len() > 1 && !found.is_empty() {
            found[0] = blocks.iter().map(|block| block.shape[0]).sum();
        }
        let same_width = |block: &&Entry| block.shape.get(1..) == first.shape.get(1..);
        if found != shape || !blocks.iter().all(same_width) {
            return Err(Fault::model(
                format!("tensor {name}"),
                format!("has shape {found:?} instead of {shape:?}"),
            ));
        }
        Ok(blocks)
    }

    /// Whether `stem` is stored quantized, in one block or several.
    fn is_quantized(&self, stem: &str) -> bool {
        let codes = format!("{stem}.{QWEIGHT}");
        let blocks = format!("{codes}.rows.");
        let mut next = self.entries.range(codes.clone()..);
        next.next()
            .is_some_and(|(name, _)| *name == codes || name.starts_with(&blocks))
    }

    fn quantized(&self, stem: &str, [rows, columns]: [usize; 2]) -> Result<Weight, Fault> {
        let name = format!("{stem}.{QWEIGHT}");
        let fault = |what: String| Fault::model(format!("tensor {name}"), what);
        let codes = self.blocks(&name);
        let scales = self.blocks(&format!("{stem}.{SCALES}"));
        if codes.len() != scales.len() {
            let (a, b) = (codes.len(), scales.len());
            return Err(fault(format!("has {a} blocks and {b} blocks of scales")));
        }
        let mut found = 0;
        let mut schemes = Vec::new();
        for (codes, scales) in codes.iter().zip(&scales) {
            let (Buffer::Codes(_) | Buffer::Packed(_), Buffer::Scales(_, dtype)) =
                (&*codes.buffer.borrow(), &*scales.buffer.borrow())
            else {
                return Err(fault(
                    "is not stored as u32 codes with f16 or f32 scales".into(),
                ));
            };
            let scheme = QuantScheme::infer(columns, &codes.shape, &scales.shape, *dtype);
            schemes.push(scheme.ok_or_else(|| {
                let (codes, scales) = (&codes.shape, &scales.shape);
                fault(format!(
                    "has shape {codes:?} with scales {scales:?}, which do not fit {columns} columns"
                ))
            })?);
            found += codes.shape[0];
        }
        if found != rows {
            return Err(fault(format!("has {found} rows instead of {rows}")));
        }
        let blocks = codes.into_iter().zip(scales).zip(schemes);
        let blocks = blocks.map(|((codes, scales), scheme)| {
            let shape = [codes.shape[0], columns];
            let (codes, scales) = (codes.buffer.borrow_mut(), scales.buffer.borrow_mut());
            (codes, scales, shape, scheme)
        });
        if is_cpu(&self.device) {
            let packed = blocks.map(|(mut codes, mut scales, shape, scheme)| {
                packed(&mut codes, &mut scales, shape, scheme)
            });
            return Ok(Weight::Packed(packed.collect()));
        }
        let blocks = blocks.map(|(codes, scales, shape, scheme)| {
            let (Buffer::Codes(words), Buffer::Scales(scales, _)) = (&*codes, &*scales) else {
                unreachable!("only the CPU packs codes");
            };
            DeviceMatrix::quantized(words.clone(), scales.clone(), shape, scheme)
        });
        Ok(Weight::Device(blocks.collect()))
    }
}

/// Packs `codes` with `scales`, unless that was done before. What was packed is no longer in memory: the type of the
/// scales stays.
fn packed(
    codes: &mut Buffer,
    scales: &mut Buffer,
    shape: [usize; 2],
    scheme: QuantScheme,
) -> PackedMatrix {
    let (words, scales) = match (&mut *codes, scales) {
        (Buffer::Packed(matrix), _) => return matrix.clone(),
        (Buffer::Codes(words), Buffer::Scales(scales, _)) => (words, scales),
        _ => unreachable!("the caller has checked that these are codes and scales"),
    };
    let nothing = Tensor::zeros([0], &words.device());
    let words = std::mem::replace(words, nothing.clone());
    let scales = std::mem::replace(scales, nothing);
    let matrix = PackedMatrix::of_tensors(words, scales, shape, scheme);
    *codes = Buffer::Packed(matrix.clone());
    matrix
}

impl WeightSource for WeightMap {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        _init: &Init,
        _device: &Device,
    ) -> Result<Tensor<1>, Fault> {
        let mut parts = Vec::new();
        for block in self.blocks_of_shape(name, shape)? {
            match &*block.buffer.borrow() {
                Buffer::Dense(values) => parts.push(values.clone()),
                Buffer::F16(matrix) => {
                    let [rows, columns] = matrix.shape();
                    let ids: Vec<u32> = (0..rows as u32).collect();
                    let wide = matmul::gather(&ids, std::slice::from_ref(matrix), &self.device);
                    parts.push(wide.reshape([rows * columns]));
                }
                Buffer::Packed(matrix) if matrix.is_dense() => {
                    let rows = (0..matrix.shape()[0]).flat_map(|row| matrix.row(row));
                    parts.push(on_device(rows.collect(), &self.device));
                }
                Buffer::Codes(_) | Buffer::Scales(..) | Buffer::Packed(_) => {
                    return Err(not_dense(name));
                }
            }
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(parts, 0),
        })
    }

    fn weight(
        &self,
        stem: &str,
        shape: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<Weight, Fault> {
        if self.is_quantized(stem) {
            return self.quantized(stem, shape);
        }
        let name = format!("{stem}.weight");
        let blocks = self.blocks_of_shape(&name, &shape)?;
        let f16 = blocks.iter().map(|block| match &*block.buffer.borrow() {
            Buffer::F16(matrix) => Some(matrix.clone()),
            _ => None,
        });
        if let Some(f16) = f16.collect::<Option<_>>() {
            return Ok(Weight::Device(f16));
        }
        if is_cpu(&self.device) {
            let pack = |block: &Entry| {
                let shape = [block.shape[0], shape[1]];
                packed_dense(&mut block.buffer.borrow_mut(), shape).ok_or_else(|| not_dense(&name))
            };
            let packed = blocks.into_iter().map(pack);
            return Ok(Weight::Packed(packed.collect::<Result<_, _>>()?));
        }
        if blocks.len() == 1 {
            let values = self.tensor(&name, &shape, init, device)?;
            return Ok(Weight::dense(&name, values.reshape(shape)));
        }
        let f32 = blocks
            .into_iter()
            .map(|block| match &*block.buffer.borrow() {
                Buffer::Dense(values) => Ok(values.clone().reshape([block.shape[0], shape[1]])),
                _ => Err(not_dense(&name)),
            });
        Ok(Weight::sharded(f32.collect::<Result<_, _>>()?))
    }

    fn is_packed(&self) -> bool {
        is_cpu(&self.device)
    }
}

/// Packs the values in `buffer`, unless that was done before; `None` if it does not hold values.
fn packed_dense(buffer: &mut Buffer, shape: [usize; 2]) -> Option<PackedMatrix> {
    let values = match buffer {
        Buffer::Packed(matrix) if matrix.is_dense() => return Some(matrix.clone()),
        Buffer::Dense(values) => {
            let nothing = Tensor::zeros([0], &values.device());
            std::mem::replace(values, nothing)
        }
        _ => return None,
    };
    let matrix = PackedMatrix::of_tensor(values, shape);
    *buffer = Buffer::Packed(matrix.clone());
    Some(matrix)
}

fn not_dense(name: &str) -> Fault {
    Fault::model(format!("tensor {name}"), "is not stored as a dense tensor")
}

impl TensorSink for WeightMap {
    fn wants(&self, name: &str) -> bool {
        (self.wanted)(name)
    }

    fn begin(&mut self, name: &str, entry: &TensorEntry) -> Result<(), Fault> {
        let role = Role::of(name, entry);
        let words = match role {
            Role::Dense => entry.elements(),
            Role::F16 | Role::Codes | Role::Scales => entry.dtype.words(entry.elements()),
        };
        self.pending = Some(Pending {
            name: name.to_string(),
            entry: entry.clone(),
            role,
            upload: Upload::new(words, &self.device),
            elements: 0,
        });
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let pending = self.pending.as_mut().expect("begin comes before bytes");
        let dtype = pending.entry.dtype;
        if let Some(at) = dtype.first_not_finite(bytes) {
            let value = dtype.to_f32(bytes)[at];
            return Err(Fault::model(
                format!("{}, tensor {}", pending.entry.shard, pending.name),
                format!("holds {value} at element {}", pending.elements + at),
            ));
        }
        pending.elements += bytes.len() / dtype.bytes() as usize;
        pending.upload.push(match pending.role {
            Role::Dense => bytemuck::cast_vec(dtype.to_f32(bytes)),
            Role::F16 | Role::Codes | Role::Scales => words(bytes),
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let pending = self.pending.take().expect("begin comes before end");
        let shape = pending.entry.shape;
        let buffer = match pending.role {
            Role::Dense => Buffer::Dense(pending.upload.floats()),
            Role::F16 => {
                let (words, shape) = (pending.upload.integers(), [shape[0], shape[1]]);
                match is_cpu(&self.device) {
                    true => Buffer::Packed(PackedMatrix::f16(&packed_matrix::words(words), shape)),
                    false => Buffer::F16(DeviceMatrix::f16(words, shape)),
                }
            }
            Role::Codes => Buffer::Codes(pending.upload.integers()),
            Role::Scales => Buffer::Scales(pending.upload.integers(), pending.entry.dtype),
        };
        let buffer = RefCell::new(buffer);
        self.entries.insert(pending.name, Entry { shape, buffer });
        Ok(())
    }
}

/// Little-endian words; zeros fill the last one.
fn words(bytes: &[u8]) -> Vec<u32> {
    let mut words = vec![0; bytes.len().div_ceil(4)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::TensorData;
    use half::f16;

    use super::*;
    use crate::gpu::device::adapter_for_test;
    use crate::nn::{Linear, Loader};
    use crate::weights::download::Downloader;
    use crate::weights::manifest::Part;
    use crate::weights::quant::Rounding;
    use crate::weights::sample::Sample;
    use crate::weights::source::{BlockingRuntime, Embedded};

    fn load(sample: Sample, device: &Device) -> Result<WeightMap, Fault> {
        let files: Vec<(&'static str, &'static [u8])> = sample
            .shards
            .into_iter()
            .map(|(name, bytes)| (&*name.leak(), &*bytes.leak()))
            .collect();
        let source = Embedded {
            name: "sample",
            files: files.leak(),
        };
        let mut weights = WeightMap::new(device, |_| true);
        let transfer = Downloader::new(&sample.manifest, &source, None, &BlockingRuntime, &|_| ());
        pollster::block_on(transfer.tensors(&Part::ALL, &mut weights)).map(|()| weights)
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn read(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn every_element_type_is_widened_to_f32() {
        let device = Device::flex();
        let halves = |bits: &[u16]| {
            bits.iter()
                .flat_map(|b| b.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let weights = load(
            Sample::new(&[
                (Part::Upn, "a", DType::F32, &[2], floats(&[1.0, -2.5])),
                (Part::Upn, "b", DType::F16, &[2], halves(&[0x3c00, 0xc100])),
                (Part::Upn, "c", DType::BF16, &[2], halves(&[0x3f80, 0xc020])),
            ]),
            &device,
        )
        .expect("finite weights");
        for name in ["a", "b", "c"] {
            let values = weights.tensor(name, &[2], &Init::Zeros, &device).map(read);
            assert_eq!(values, Ok(vec![1.0, -2.5]), "{name}");
        }
        let missing = weights
            .tensor("d", &[2], &Init::Zeros, &device)
            .expect_err("no d");
        assert!(
            missing.to_string().starts_with("tensor d: is missing"),
            "{missing}"
        );
        let shape = weights
            .tensor("a", &[1, 2], &Init::Zeros, &device)
            .expect_err("shape");
        assert!(shape.what.contains("[2] instead of [1, 2]"), "{shape}");
        assert_eq!(weights.finish(), Ok(()));
    }

    #[test]
    fn values_that_are_not_finite_are_refused_by_name() {
        for (dtype, bytes) in [
            (DType::F32, floats(&[1.0, f32::NAN])),
            (DType::F16, vec![0, 0, 0, 0x7c]),
            (DType::BF16, vec![0, 0, 0x80, 0xff]),
        ] {
            let sample = Sample::new(&[(Part::Towers, "t", dtype, &[2], bytes)]);
            let fault = load(sample, &Device::flex()).err().expect("not finite");
            let message = fault.to_string();
            assert!(
                message.contains("towers.safetensors, tensor t"),
                "{message}"
            );
            assert!(message.contains("at element 1"), "{message}");
        }
    }

    #[test]
    fn surplus_tensors_are_named() {
        let weights = load(Sample::floats(), &Device::flex()).expect("a good model");
        let fault = weights.finish().expect_err("no network took it");
        assert!(
            fault
                .to_string()
                .starts_with("tensor a: belongs to no part"),
            "{fault}"
        );
    }

    /// A matrix in two row blocks, and its dequantized values.
    fn quantized([rows, columns]: [usize; 2], scheme: QuantScheme) -> (Sample, Vec<f32>) {
        let values: Vec<f32> = (0..rows * columns)
            .map(|i| (i as f32 * 0.37).sin())
            .collect();
        let cut = rows / 3;
        let mut stored = Vec::new();
        let mut dequantized = Vec::new();
        for (k, rows) in [(0, 0..cut), (1, cut..rows)] {
            let values = &values[rows.start * columns..rows.end * columns];
            let mut words = vec![0; scheme.words(values.len())];
            let mut scales = vec![f16::ZERO; scheme.scale_count(values.len())];
            scheme.quantize(values, Rounding::Search, &mut words, &mut scales);
            let mut back = vec![0.0; values.len()];
            let scales: Vec<u8> = if scheme.scale == DType::F16 {
                scheme.dequantize(&words, &scales, &mut back);
                scales.iter().flat_map(|s| s.to_le_bytes()).collect()
            } else {
                // No f16 holds these.
                let scales: Vec<f32> = scales.iter().map(|s| s.to_f32() / 3.0).collect();
                scheme.dequantize(&words, &scales, &mut back);
                floats(&scales)
            };
            dequantized.extend(back);
            let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            stored.push((k, rows.len(), words, scales));
        }
        let mut tensors = Vec::new();
        for (k, rows, words, scales) in &stored {
            let name = |kind: &str| &*format!("fc.{kind}.rows.{k}").leak();
            tensors.push((
                name("qweight"),
                DType::U32,
                vec![*rows, scheme.words(columns)],
                words,
            ));
            tensors.push((
                name("scales"),
                scheme.scale,
                scheme.scales_shape([*rows, columns]),
                scales,
            ));
        }
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                (Part::Decoder, *name, *dtype, &shape[..], (*bytes).clone())
            })
            .collect();
        (Sample::new(&tensors), dequantized)
    }

    /// CPU and GPU dequantize in their kernels.
    fn quantized_blocks_give_the_same_products_everywhere(scheme: QuantScheme) {
        let (rows, columns) = (10, 64);
        let cpu = Device::flex();
        let products = |device: &Device, count: usize| {
            let sample = quantized([rows, columns], scheme).0;
            let weights = load(sample, device).expect("quantized weights");
            let at = Loader::new(&weights, device);
            let linear = Linear::load(&at.child("fc"), columns, rows, false).expect("both blocks");
            let x: Vec<f32> = (0..count * columns)
                .map(|i| (i as f32 * 0.11).cos())
                .collect();
            let x = Tensor::<2>::from_data(TensorData::new(x, [count, columns]), device);
            let gathered = linear
                .weight
                .gather(&[9, 0, 4], device)
                .reshape([3 * columns]);
            (
                read(linear.forward(x).reshape([count * rows])),
                read(gathered),
            )
        };
        let (_, dequantized) = quantized([rows, columns], scheme);
        let (_, gathered) = products(&cpu, 1);
        assert_eq!(gathered[..columns], dequantized[9 * columns..]);
        assert_eq!(gathered[columns..2 * columns], dequantized[..columns]);
        if let Some(gpu) = adapter_for_test("quantized_blocks_give_the_same_products_everywhere") {
            for count in [1, 9] {
                let (on_gpu, on_cpu) = (products(&gpu, count), products(&cpu, count));
                for (a, b) in on_gpu.0.iter().zip(&on_cpu.0) {
                    assert!((a - b).abs() < 1e-4, "{a} {b}");
                }
                assert_eq!(on_gpu.1, on_cpu.1);
            }
        }
    }

    #[test]
    fn packed_codes_and_scales_leave_the_map() {
        let (rows, columns) = (10, 64);
        let cpu = Device::flex();
        let (sample, dequantized) = quantized([rows, columns], QuantScheme::new(4, 32));
        let weights = load(sample, &cpu).expect("quantized weights");
        // Tied embeddings are requested twice.
        for _ in 0..2 {
            let at = Loader::new(&weights, &cpu);
            let linear = Linear::load(&at.child("fc"), columns, rows, false).expect("both blocks");
            let row = linear.weight.gather(&[9], &cpu).reshape([columns]);
            assert_eq!(read(row), dequantized[9 * columns..]);
        }
        for (name, entry) in &weights.entries {
            match &*entry.buffer.borrow() {
                Buffer::Packed(_) => assert!(name.starts_with("fc.qweight"), "{name}"),
                Buffer::Scales(scales, dtype) => {
                    assert_eq!((scales.dims(), *dtype), ([0], DType::F16), "{name}");
                }
                _ => panic!("{name} was not packed"),
            }
        }
    }

    #[test]
    fn quantized_blocks_with_f16_scales() {
        quantized_blocks_give_the_same_products_everywhere(QuantScheme::new(4, 32));
    }

    #[test]
    fn quantized_blocks_with_f32_scales() {
        quantized_blocks_give_the_same_products_everywhere(QuantScheme {
            scale: DType::F32,
            ..QuantScheme::new(4, 32)
        });
    }

    #[test]
    fn quantized_blocks_with_minimums() {
        quantized_blocks_give_the_same_products_everywhere(QuantScheme::with_minimum(32));
        quantized_blocks_give_the_same_products_everywhere(QuantScheme::with_minimum(64));
    }

    /// Kernels read rows of 64 weights from blocks; rows of 6 they cannot read.
    #[test]
    fn row_blocks_of_f32_give_the_products_of_the_whole_matrix() {
        let rows = 5;
        for columns in [64, 6] {
            let values: Vec<f32> = (0..rows * columns)
                .map(|i| (i as f32 * 0.37).sin())
                .collect();
            let x: Vec<f32> = (0..2 * columns).map(|i| (i as f32 * 0.11).cos()).collect();
            let expected: Vec<f32> = x
                .chunks(columns)
                .flat_map(|x| values.chunks(columns).map(move |row| (x, row)))
                .map(|(x, row)| x.iter().zip(row).map(|(a, b)| a * b).sum())
                .collect();
            let (first, second) = values.split_at(2 * columns);
            let sample = || {
                Sample::new(&[
                    (
                        Part::Decoder,
                        "fc.weight.rows.0",
                        DType::F32,
                        &[2, columns],
                        floats(first),
                    ),
                    (
                        Part::Decoder,
                        "fc.weight.rows.1",
                        DType::F32,
                        &[3, columns],
                        floats(second),
                    ),
                ])
            };
            let name = "row_blocks_of_f32_give_the_products_of_the_whole_matrix";
            for device in [Some(Device::flex()), adapter_for_test(name)] {
                let Some(device) = device else { continue };
                let weights = load(sample(), &device).expect("two blocks");
                let at = Loader::new(&weights, &device);
                let linear = Linear::load(&at.child("fc"), columns, rows, false).expect("a matrix");
                let readable = !is_cpu(&device) && columns == 64;
                assert_eq!(linear.weight.device_blocks().is_some(), readable);
                let x = Tensor::<2>::from_data(TensorData::new(x.clone(), [2, columns]), &device);
                let products = read(linear.forward(x).reshape([2 * rows]));
                for (product, expected) in products.iter().zip(&expected) {
                    assert!((product - expected).abs() < 1e-4, "{product} {expected}");
                }
                let gathered = linear.weight.gather(&[4, 1, 2], &device);
                let gathered = read(gathered.reshape([3 * columns]));
                let row = |id: usize| &values[id * columns..][..columns];
                assert_eq!(gathered, [row(4), row(1), row(2)].concat());
            }
        }
    }

    #[test]
    fn quantized_matrices_must_fit_their_layer() {
        let scheme = QuantScheme::new(4, 32);
        let device = Device::flex();
        for (rows, columns, message) in [
            (9, 64, "10 rows instead of 9"),
            (10, 96, "do not fit 96 columns"),
        ] {
            let sample = quantized([10, 64], scheme).0;
            let weights = load(sample, &device).expect("quantized weights");
            let at = Loader::new(&weights, &device);
            let fault = Linear::load(&at.child("fc"), columns, rows, false).expect_err(message);
            assert!(fault.to_string().contains(message), "{fault}");
        }
    }
}
