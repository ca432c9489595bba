//! A model of random numbers in a published one's sizes, made on the device: what it says is
//! nonsense, how long it takes is not.

use std::cell::Cell;

use burn::tensor::{Device, Tensor};

use crate::cpu::op::is_cpu;
use crate::error::Fault;
use crate::gpu::matmul::{DeviceMatrix, Scales};
use crate::gpu::random_fill;
use crate::nn::loader::on_device;
use crate::nn::weight::{Blocks, WeightForm};
use crate::nn::{Init, WeightSource};
use crate::weights::manifest::{DType, Part};
use crate::weights::quant::QuantScheme;
use crate::weights::storage::{QuantPreset, TensorSpec, WeightFormat, storage_for};

/// Weights per scale.
pub const GROUP: usize = 32;

/// Random weights in the forms that `chatrex convert` gives them.
pub struct RandomWeights {
    part: Part,
    quant: QuantPreset,
    layers: usize,
    host: bool,
    seed: Cell<u32>,
    /// Bytes of embeddings, and of everything else.
    bytes: Cell<[u64; 2]>,
}

impl RandomWeights {
    /// Weights of `part` of a model whose decoder has `layers` blocks.
    pub fn new(part: Part, quant: QuantPreset, layers: usize, device: &Device) -> Self {
        Self {
            part,
            quant,
            layers,
            host: is_cpu(device),
            seed: Cell::new(1),
            bytes: Cell::new([0; 2]),
        }
    }

    /// Bytes made so far: of the embedding, and of everything else.
    pub fn bytes(&self) -> [u64; 2] {
        self.bytes.get()
    }

    /// Takes note of `count` more bytes of `name`; the next seed.
    fn next(&self, name: &str, count: usize) -> u32 {
        let mut bytes = self.bytes.get();
        bytes[usize::from(!name.starts_with("model.embed_tokens."))] += count as u64;
        self.bytes.set(bytes);
        let seed = self.seed.get();
        // Far apart and odd, so that no tensor repeats another's beginning.
        self.seed.set(seed.wrapping_add(0x9e37_79b9));
        seed
    }

    fn numbers(&self, name: &str, count: usize, init: &Init, device: &Device) -> Tensor<1> {
        let seed = self.next(name, 4 * count);
        match init {
            Init::Zeros => Tensor::zeros([count], device),
            Init::Ones => Tensor::ones([count], device),
            Init::Constant(value) => Tensor::full([count], *value, device),
            Init::Normal(deviation) => {
                random_fill::floats(count, seed, 0.0, 3.0_f32.sqrt() * deviation, device)
            }
            Init::Uniform(bound) => random_fill::floats(count, seed, 0.0, *bound, device),
            Init::Values(values) => on_device(values.clone(), device),
        }
    }
}

/// Rows of codes that are all alike likely, and scales with which weights deviate by about 0.02.
pub fn packed(
    [rows, columns]: [usize; 2],
    scheme: QuantScheme,
    seed: u32,
    device: &Device,
) -> DeviceMatrix {
    let words = random_fill::words(rows * scheme.words(columns), seed, u32::MAX, 0, device);
    let pairs = (rows * (columns / scheme.group)).div_ceil(2);
    // Two halves: 2^-8 or 2^-12, and up to a quarter more.
    let smallest = if scheme.bits == 4 {
        0x1c00_1c00
    } else {
        0x0c00_0c00
    };
    let scales = random_fill::words(pairs, seed ^ 0x5bd1_e995, 0x00ff_00ff, smallest, device);
    DeviceMatrix::packed(words, (scales, Scales::Half), [rows, columns], scheme)
}

/// Bytes of a packed matrix.
pub fn packed_bytes([rows, columns]: [usize; 2], scheme: QuantScheme) -> usize {
    rows * (4 * scheme.words(columns) + 2 * (columns / scheme.group))
}

impl WeightSource for RandomWeights {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        init: &Init,
        device: &Device,
    ) -> Result<Tensor<1>, Fault> {
        Ok(self.numbers(name, shape.iter().product(), init, device))
    }

    fn matrix(
        &self,
        stem: &str,
        shape: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<WeightForm, Fault> {
        let name = format!("{stem}.weight");
        let described = TensorSpec {
            name: &name,
            shape: &shape,
            matrix: true,
            part: self.part,
        };
        let form = match storage_for(described, self.quant, GROUP, self.layers) {
            // The processor computes with numbers, whatever is stored.
            WeightFormat::Quantized(_) if self.host => WeightFormat::Dense(DType::F32),
            form => form,
        };
        let [rows, columns] = shape;
        let blocks = form.blocks(rows, columns);
        Ok(match form {
            WeightFormat::Quantized(scheme) => WeightForm::Blocks(Blocks::Packed(
                blocks
                    .map(|block| {
                        let shape = [block.len(), columns];
                        let seed = self.next(&name, packed_bytes(shape, scheme));
                        packed(shape, scheme, seed, device)
                    })
                    .collect(),
            )),
            WeightFormat::Dense(_) => {
                let mut made: Vec<Tensor<2>> = blocks
                    .map(|block| {
                        let count = block.len() * columns;
                        let values = self.numbers(&name, count, init, device);
                        values.reshape([block.len(), columns])
                    })
                    .collect();
                match made.len() {
                    1 => WeightForm::Whole(Box::new(made.remove(0))),
                    _ if self.host => WeightForm::Whole(Box::new(Tensor::cat(made, 0))),
                    _ => WeightForm::Blocks(Blocks::Rows(made)),
                }
            }
        })
    }
}
