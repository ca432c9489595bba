//! A model of random weights in the shapes of a published one, generated on the device. Its answers
//! mean nothing; its speed and memory are those of the published model.

use std::cell::Cell;

use burn::tensor::{Device, Int, Tensor};

use crate::cpu::op::is_cpu;
use crate::cpu::packed_matrix::PackedMatrix;
use crate::error::Fault;
use crate::gpu::matmul::DeviceMatrix;
use crate::gpu::random_fill;
use crate::nn::loader::on_device;
use crate::nn::{Init, Weight, WeightSource};
use crate::weights::manifest::Part;
use crate::weights::storage::{QuantPreset, TensorSpec, storage_for};
use crate::weights::{QuantScheme, WeightFormat};

/// Weights per scale.
pub const GROUP: usize = 32;

/// Random weights in the formats that `chatrex convert` gives them.
pub struct RandomWeights {
    part: Part,
    quant: QuantPreset,
    layers: usize,
    cpu: bool,
    seed: Cell<u32>,
    /// Bytes of the embedding, and of everything else.
    bytes: Cell<[u64; 2]>,
}

impl RandomWeights {
    /// Weights of `part` of a model whose decoder has `layers` blocks.
    pub fn new(part: Part, quant: QuantPreset, layers: usize, device: &Device) -> Self {
        Self {
            part,
            quant,
            layers,
            cpu: is_cpu(device),
            seed: Cell::new(1),
            bytes: Cell::new([0; 2]),
        }
    }

    /// Bytes generated so far: of the embedding, and of everything else.
    pub fn bytes(&self) -> [u64; 2] {
        self.bytes.get()
    }

    /// Counts `bytes` of tensor `name`; returns the next seed.
    fn next_seed(&self, name: &str, bytes: usize) -> u32 {
        let mut total = self.bytes.get();
        total[usize::from(!name.starts_with("model.embed_tokens."))] += bytes as u64;
        self.bytes.set(total);
        let seed = self.seed.get();
        // Far apart and odd, so that no tensor repeats the beginning of another.
        self.seed.set(seed.wrapping_add(0x9e37_79b9));
        seed
    }

    fn values(&self, name: &str, count: usize, init: &Init, device: &Device) -> Tensor<1> {
        let seed = self.next_seed(name, 4 * count);
        match init {
            Init::Zeros => Tensor::zeros([count], device),
            Init::Ones => Tensor::ones([count], device),
            Init::Constant(value) => Tensor::full([count], *value, device),
            Init::Normal(deviation) => {
                random_fill::uniform(count, seed, 0.0, 3.0_f32.sqrt() * deviation, device)
            }
            Init::Uniform(bound) => random_fill::uniform(count, seed, 0.0, *bound, device),
            Init::Values(values) => on_device(values.clone(), device),
        }
    }
}

/// Rows of uniformly distributed codes, with scales under which the weights have a standard
/// deviation of about 0.02. `scheme` has f16 scales.
pub fn quantized(
    [rows, columns]: [usize; 2],
    scheme: QuantScheme,
    seed: u32,
    device: &Device,
) -> DeviceMatrix {
    let (codes, scales) = words([rows, columns], scheme, seed, device);
    DeviceMatrix::quantized(codes, scales, [rows, columns], scheme)
}

/// [`quantized`] on the CPU.
fn packed(shape: [usize; 2], scheme: QuantScheme, seed: u32, device: &Device) -> PackedMatrix {
    let (codes, scales) = words(shape, scheme, seed, device);
    PackedMatrix::of_tensors(codes, scales, shape, scheme)
}

/// Words of codes and of scales for [`quantized`].
fn words(
    [rows, columns]: [usize; 2],
    scheme: QuantScheme,
    seed: u32,
    device: &Device,
) -> (Tensor<1, Int>, Tensor<1, Int>) {
    let codes = random_fill::random_u32(rows * scheme.words(columns), seed, u32::MAX, 0, device);
    let words = scheme.scale_words([rows, columns]);
    // Two f16 in a word: 2^-8 or 2^-12, and up to a quarter more.
    let smallest = if scheme.bits == 4 {
        0x1c00_1c00
    } else {
        0x0c00_0c00
    };
    let scales = random_fill::random_u32(words, seed ^ 0x5bd1_e995, 0x00ff_00ff, smallest, device);
    (codes, scales)
}

impl WeightSource for RandomWeights {
    fn is_packed(&self) -> bool {
        self.cpu
    }

    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        init: &Init,
        device: &Device,
    ) -> Result<Tensor<1>, Fault> {
        Ok(self.values(name, shape.iter().product(), init, device))
    }

    fn weight(
        &self,
        stem: &str,
        shape: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<Weight, Fault> {
        let name = format!("{stem}.weight");
        let spec = TensorSpec {
            name: &name,
            shape: &shape,
            matrix: true,
            part: self.part,
        };
        let format = storage_for(spec, self.quant, GROUP, self.layers);
        let [rows, columns] = shape;
        let blocks = format.blocks(rows, columns);
        Ok(match format {
            WeightFormat::Quantized(scheme) => {
                let blocks = blocks.map(|block| {
                    let shape = [block.len(), columns];
                    (shape, self.next_seed(&name, scheme.bytes(shape)))
                });
                if self.cpu {
                    let blocks = blocks.map(|(shape, seed)| packed(shape, scheme, seed, device));
                    Weight::Packed(blocks.collect())
                } else {
                    let blocks = blocks.map(|(shape, seed)| quantized(shape, scheme, seed, device));
                    Weight::Device(blocks.collect())
                }
            }
            WeightFormat::Dense(_) => {
                let blocks = blocks.map(|block| {
                    let shape = [block.len(), columns];
                    let values = self.values(&name, shape[0] * columns, init, device);
                    (values, shape)
                });
                if self.cpu {
                    let pack = |(values, shape)| PackedMatrix::of_tensor(values, shape);
                    return Ok(Weight::Packed(blocks.map(pack).collect()));
                }
                let blocks = blocks.map(|(values, shape)| values.reshape(shape));
                let mut blocks: Vec<Tensor<2>> = blocks.collect();
                match blocks.len() {
                    1 => Weight::dense(&name, blocks.remove(0)),
                    _ => Weight::sharded(blocks),
                }
            }
        })
    }
}
