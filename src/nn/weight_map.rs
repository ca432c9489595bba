//! Weights of a model folder on their device, by name, as they come.
//!
//! Tensors arrive in pieces and go to the device at once; constructors then take them by name.
//! On a graphics device packed matrices stay packed and half-precision ones as they are; for the
//! processor, and in tensors that are no matrices, numbers are widened to single precision.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Int, Tensor, TensorData};
use half::{bf16, f16};

use crate::cpu::op::is_cpu;
use crate::error::Fault;
use crate::gpu::matmul::{self, DeviceMatrix, Format, Scales};
use crate::gpu::upload::Upload;
use crate::nn::loader::{Init, WeightSource};
use crate::nn::weight::{Blocks, WeightForm};
use crate::weights::download::TensorSink;
use crate::weights::manifest::{DType, TensorEntry};
use crate::weights::quant::{QWEIGHT, QuantScheme, SCALES};

/// Tensors on a device, waiting for the networks they belong to.
pub struct WeightMap {
    device: Device,
    wanted: fn(&str) -> bool,
    held: BTreeMap<String, Entry>,
    used: RefCell<BTreeSet<String>>,
    coming: Option<Pending>,
}

struct Entry {
    shape: Vec<usize>,
    values: Values,
}

#[derive(Clone)]
enum Values {
    Floats(Tensor<1>),
    /// Words of codes.
    Words(Tensor<1, Int>),
    /// Scales of packed weights, as words.
    Scales(Tensor<1, Int>, Scales),
    /// A matrix in half precision, two numbers in an element.
    Halves(DeviceMatrix),
}

struct Pending {
    name: String,
    entry: TensorEntry,
    /// Half-precision numbers stay as they are, two in a word.
    pairs: bool,
    /// Set for scales.
    scales: Option<Scales>,
    upload: Upload,
    elements: usize,
}

impl WeightMap {
    /// Nothing yet; takes the tensors whose names satisfy `wanted`.
    pub fn new(device: &Device, wanted: fn(&str) -> bool) -> Self {
        Self {
            device: device.clone(),
            wanted,
            held: BTreeMap::new(),
            used: RefCell::default(),
            coming: None,
        }
    }

    /// Fails if a tensor was never asked for.
    ///
    /// # Errors
    /// A surplus tensor, by name.
    pub fn finish(&self) -> Result<(), Fault> {
        let used = self.used.borrow();
        match self.held.keys().find(|name| !used.contains(*name)) {
            Some(name) => Err(Fault::model(
                format!("tensor {name}"),
                "belongs to no part of the model",
            )),
            None => Ok(()),
        }
    }

    /// The blocks of `name` in order: itself, or `name.rows.0`, `name.rows.1` and so on.
    fn blocks(&self, name: &str) -> Vec<&Entry> {
        let mut used = self.used.borrow_mut();
        let mut take = |name: &str| {
            let held = self.held.get(name);
            if held.is_some() {
                used.insert(name.to_string());
            }
            held
        };
        if let Some(whole) = take(name) {
            return vec![whole];
        }
        (0..)
            .map_while(|k| take(&format!("{name}.rows.{k}")))
            .collect()
    }

    /// The blocks of a tensor, checked against the shape it is wanted in.
    fn checked(&self, name: &str, shape: &[usize]) -> Result<Vec<&Entry>, Fault> {
        let blocks = self.blocks(name);
        let Some(first) = blocks.first() else {
            return Err(Fault::model(format!("tensor {name}"), "is missing"));
        };
        let mut found = first.shape.clone();
        if blocks.len() > 1 && !found.is_empty() {
            found[0] = blocks.iter().map(|block| block.shape[0]).sum();
        }
        let agree = |block: &&&Entry| block.shape.get(1..) == first.shape.get(1..);
        if found != shape || blocks.iter().filter(agree).count() != blocks.len() {
            return Err(Fault::model(
                format!("tensor {name}"),
                format!("has shape {found:?} instead of {shape:?}"),
            ));
        }
        Ok(blocks)
    }

    fn packed(&self, stem: &str, [rows, columns]: [usize; 2]) -> Result<WeightForm, Fault> {
        let name = format!("{stem}.{QWEIGHT}");
        let fault = |what: String| Fault::model(format!("tensor {name}"), what);
        let words = self.blocks(&name);
        let scales = self.blocks(&format!("{stem}.{SCALES}"));
        if words.len() != scales.len() {
            let (a, b) = (words.len(), scales.len());
            return Err(fault(format!("has {a} blocks and {b} blocks of scales")));
        }
        let mut found = 0;
        let mut blocks = Vec::new();
        for (words, scales) in words.iter().zip(scales) {
            let scheme = match (&words.shape[..], &scales.shape[..]) {
                ([a, words], [b, scales]) if a == b => QuantScheme::infer(columns, *words, *scales),
                _ => None,
            };
            let scheme = scheme.ok_or_else(|| {
                let (words, scales) = (&words.shape, &scales.shape);
                fault(format!(
                    "has shape {words:?} with scales {scales:?}, which pack no {columns} columns"
                ))
            })?;
            let (Values::Words(codes), Values::Scales(scales, form)) =
                (&words.values, &scales.values)
            else {
                return Err(fault(
                    "is not stored as words with scales in half or single precision".into(),
                ));
            };
            let shape = [words.shape[0], columns];
            found += shape[0];
            blocks.push((codes.clone(), (scales.clone(), *form), shape, scheme));
        }
        if found != rows {
            return Err(fault(format!("has {found} rows instead of {rows}")));
        }
        if is_cpu(&self.device) {
            let unpacked = blocks.into_iter().map(|(words, scales, shape, scheme)| {
                unpack(words, scales, shape, scheme, &self.device)
            });
            return Ok(WeightForm::Whole(Box::new(Tensor::cat(
                unpacked.collect(),
                0,
            ))));
        }
        let packed = blocks.into_iter().map(|(words, scales, shape, scheme)| {
            DeviceMatrix::packed(words, scales, shape, scheme)
        });
        Ok(WeightForm::Blocks(Blocks::Packed(packed.collect())))
    }
}

/// Whether a tensor is kept in half precision on a graphics device: a matrix that kernels can read.
pub fn stays_half(name: &str, entry: &TensorEntry) -> bool {
    let plain = name.split(".rows.").next().unwrap_or(name);
    entry.dtype == DType::F16
        && plain.ends_with(".weight")
        && matches!(entry.shape[..], [_, columns] if Format::Half.fits(columns))
}

/// A packed block as numbers, on the processor.
fn unpack(
    words: Tensor<1, Int>,
    (scales, form): (Tensor<1, Int>, Scales),
    [rows, columns]: [usize; 2],
    scheme: QuantScheme,
    device: &Device,
) -> Tensor<2> {
    let read = |tensor: Tensor<1, Int>| -> Vec<u32> {
        let values = tensor.into_data().try_into_vec::<i32>();
        let values = values.expect("words are kept as i32 on the processor");
        values.into_iter().map(i32::cast_unsigned).collect()
    };
    let words = read(words);
    let groups = rows * (columns / scheme.group);
    let scales = read(scales).into_iter();
    let scales: Vec<f32> = match form {
        Scales::Half => scales
            .flat_map(|pair| [pair as u16, (pair >> 16) as u16])
            .map(|bits| f16::from_bits(bits).to_f32())
            .take(groups)
            .collect(),
        Scales::Single => scales.map(f32::from_bits).collect(),
    };
    let mut values = vec![0.0; rows * columns];
    scheme.unpack(&words, &scales, &mut values);
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
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
        for block in self.checked(name, shape)? {
            match &block.values {
                Values::Floats(values) => parts.push(values.clone()),
                Values::Halves(half) => {
                    let [rows, columns] = half.shape();
                    let ids: Vec<u32> = (0..rows as u32).collect();
                    let wide = matmul::gather(&ids, std::slice::from_ref(half), &self.device);
                    parts.push(wide.reshape([rows * columns]));
                }
                Values::Words(_) | Values::Scales(..) => {
                    return Err(Fault::model(format!("tensor {name}"), "holds no numbers"));
                }
            }
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(parts, 0),
        })
    }

    fn matrix(
        &self,
        stem: &str,
        shape: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<WeightForm, Fault> {
        let packed = format!("{stem}.{QWEIGHT}");
        let is_packed =
            |name: &&String| **name == packed || name.starts_with(&format!("{packed}.rows."));
        if self
            .held
            .range(packed.clone()..)
            .next()
            .is_some_and(|(name, _)| is_packed(&name))
        {
            return self.packed(stem, shape);
        }
        let name = format!("{stem}.weight");
        let blocks = self.checked(&name, &shape)?;
        let halves = blocks.iter().map(|block| match &block.values {
            Values::Halves(half) => Some(half.clone()),
            _ => None,
        });
        if let Some(halves) = halves.collect::<Option<_>>() {
            return Ok(WeightForm::Blocks(Blocks::Packed(halves)));
        }
        if blocks.len() == 1 {
            let values = self.tensor(&name, &shape, init, device)?;
            return Ok(WeightForm::Whole(Box::new(values.reshape(shape))));
        }
        let parts = blocks.into_iter().map(|block| match &block.values {
            Values::Floats(values) => Ok(values.clone().reshape([block.shape[0], shape[1]])),
            _ => Err(Fault::model(format!("tensor {name}"), "holds no numbers")),
        });
        Ok(WeightForm::Blocks(Blocks::Rows(
            parts.collect::<Result<_, _>>()?,
        )))
    }
}

impl TensorSink for WeightMap {
    fn wants(&self, name: &str) -> bool {
        (self.wanted)(name)
    }

    fn begin(&mut self, name: &str, entry: &TensorEntry) -> Result<(), Fault> {
        let plain = name.split(".rows.").next().unwrap_or(name);
        let scales = match entry.dtype {
            DType::F16 => Some(Scales::Half),
            DType::F32 => Some(Scales::Single),
            _ => None,
        };
        let scales = scales.filter(|_| plain.ends_with(&format!(".{SCALES}")));
        let pairs =
            scales == Some(Scales::Half) || stays_half(plain, entry) && !is_cpu(&self.device);
        let elements = entry.elements();
        let room = if pairs {
            elements.div_ceil(2)
        } else {
            elements
        };
        self.coming = Some(Pending {
            name: name.to_string(),
            entry: entry.clone(),
            pairs,
            scales,
            upload: Upload::new(room, &self.device),
            elements: 0,
        });
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let coming = self.coming.as_mut().expect("bytes follow a beginning");
        let dtype = coming.entry.dtype;
        let words = || {
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| u32::from_le_bytes(*b))
        };
        let halves = || {
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| u16::from_le_bytes(*b))
        };
        let wide: Option<Vec<u32>> = match dtype {
            DType::U32 => None,
            DType::F32 => Some(words().collect()),
            DType::F16 => Some(
                halves()
                    .map(|h| f16::from_bits(h).to_f32().to_bits())
                    .collect(),
            ),
            DType::BF16 => Some(
                halves()
                    .map(|h| bf16::from_bits(h).to_f32().to_bits())
                    .collect(),
            ),
        };
        if let Some(at) = wide
            .iter()
            .flatten()
            .position(|&bits| !f32::from_bits(bits).is_finite())
        {
            let value = wide.map_or(0.0, |wide| f32::from_bits(wide[at]));
            return Err(Fault::model(
                format!("{}, tensor {}", coming.entry.shard, coming.name),
                format!("holds {value} at element {}", coming.elements + at),
            ));
        }
        coming.elements += bytes.len() / dtype.bytes() as usize;
        let elements = match wide {
            Some(wide) if !coming.pairs => wide,
            Some(_) => halves()
                .collect::<Vec<_>>()
                .chunks(2)
                .map(|pair| u32::from(pair[0]) | u32::from(*pair.get(1).unwrap_or(&0)) << 16)
                .collect(),
            None => words().collect(),
        };
        coming.upload.push(elements);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let coming = self.coming.take().expect("an end follows a beginning");
        let values = match (coming.scales, &coming.entry.shape[..]) {
            (Some(form), _) => Values::Scales(coming.upload.integers(), form),
            (None, &[rows, columns]) if coming.pairs => Values::Halves(DeviceMatrix::half(
                coming.upload.integers(),
                [rows, columns],
            )),
            _ if coming.entry.dtype == DType::U32 => Values::Words(coming.upload.integers()),
            _ => Values::Floats(coming.upload.floats()),
        };
        let shape = coming.entry.shape;
        self.held.insert(coming.name, Entry { shape, values });
        Ok(())
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
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
    fn every_element_type_is_widened() {
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
            let says = fault.to_string();
            assert!(says.contains("towers.safetensors, tensor t"), "{says}");
            assert!(says.contains("at element 1"), "{says}");
        }
    }

    #[test]
    fn surplus_tensors_are_named() {
        let weights = load(Sample::floats(), &Device::flex()).expect("a good model");
        let fault = weights.finish().expect_err("nobody took it");
        assert!(
            fault
                .to_string()
                .starts_with("tensor a: belongs to no part"),
            "{fault}"
        );
    }

    fn packed(
        [rows, columns]: [usize; 2],
        scheme: QuantScheme,
        form: Scales,
    ) -> (Sample, Vec<f32>) {
        let values: Vec<f32> = (0..rows * columns)
            .map(|i| (i as f32 * 0.37).sin())
            .collect();
        let cut = rows / 3;
        let mut stored = Vec::new();
        let mut unpacked = Vec::new();
        for (k, rows) in [(0, 0..cut), (1, cut..rows)] {
            let values = &values[rows.start * columns..rows.end * columns];
            let mut words = vec![0; scheme.words(values.len())];
            let mut scales = vec![f16::ZERO; values.len() / scheme.group];
            scheme.pack(values, Rounding::Search, &mut words, &mut scales);
            let mut back = vec![0.0; values.len()];
            let scales: Vec<u8> = match form {
                Scales::Half => {
                    scheme.unpack(&words, &scales, &mut back);
                    scales.iter().flat_map(|s| s.to_le_bytes()).collect()
                }
                Scales::Single => {
                    let scales: Vec<f32> = scales.iter().map(|s| s.to_f32() / 3.0).collect();
                    scheme.unpack(&words, &scales, &mut back);
                    floats(&scales)
                }
            };
            unpacked.extend(back);
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
                match form {
                    Scales::Half => DType::F16,
                    Scales::Single => DType::F32,
                },
                vec![*rows, columns / scheme.group],
                scales,
            ));
        }
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                (Part::Decoder, *name, *dtype, &shape[..], (*bytes).clone())
            })
            .collect();
        (Sample::new(&tensors), unpacked)
    }

    /// The processor multiplies with what the graphics device unpacks on the fly.
    fn packed_blocks_give_the_same_products_everywhere(form: Scales) {
        let scheme = QuantScheme { bits: 4, group: 32 };
        let (rows, columns) = (10, 64);
        let host = Device::flex();
        let products = |device: &Device, count: usize| {
            let sample = packed([rows, columns], scheme, form).0;
            let weights = load(sample, device).expect("packed weights");
            let at = Loader::new(&weights, device);
            let linear = Linear::load(&at.child("fc"), columns, rows, false).expect("both blocks");
            let x: Vec<f32> = (0..count * columns)
                .map(|i| (i as f32 * 0.11).cos())
                .collect();
            let x = Tensor::<2>::from_data(TensorData::new(x, [count, columns]), device);
            let taken = linear
                .weight
                .rows(&[9, 0, 4], device)
                .reshape([3 * columns]);
            (read(linear.forward(x).reshape([count * rows])), read(taken))
        };
        let (_, unpacked) = packed([rows, columns], scheme, form);
        let (_, taken) = products(&host, 1);
        assert_eq!(taken[..columns], unpacked[9 * columns..]);
        assert_eq!(taken[columns..2 * columns], unpacked[..columns]);
        if let Some(graphics) = adapter_for_test("packed_blocks_give_the_same_products_everywhere")
        {
            for count in [1, 9] {
                let (there, here) = (products(&graphics, count), products(&host, count));
                for (a, b) in there.0.iter().zip(&here.0) {
                    assert!((a - b).abs() < 1e-4, "{a} {b}");
                }
                assert_eq!(there.1, here.1);
            }
        }
    }

    #[test]
    fn packed_blocks_with_scales_in_half_precision() {
        packed_blocks_give_the_same_products_everywhere(Scales::Half);
    }

    #[test]
    fn packed_blocks_with_scales_in_single_precision() {
        packed_blocks_give_the_same_products_everywhere(Scales::Single);
    }

    #[test]
    fn packed_matrices_must_fit_their_place() {
        let scheme = QuantScheme { bits: 4, group: 32 };
        let device = Device::flex();
        for (rows, columns, says) in [
            (9, 64, "10 rows instead of 9"),
            (10, 96, "pack no 96 columns"),
        ] {
            let sample = packed([10, 64], scheme, Scales::Half).0;
            let weights = load(sample, &device).expect("packed weights");
            let at = Loader::new(&weights, &device);
            let fault = Linear::load(&at.child("fc"), columns, rows, false).expect_err(says);
            assert!(fault.to_string().contains(says), "{fault}");
        }
    }
}
