//! The KV cache: keys and values of all blocks for one sequence, allocated once.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::config::DecoderConfig;
use super::rope::rope_table;
use crate::cpu::cached_attention::{CachedShape, CpuKv};
use crate::cpu::op::is_cpu;
use crate::gpu::attention::{AttentionShape, KvLayer, RopeTable, supports_head_dim};
use crate::gpu::buffer::is_gpu;
use crate::memory::KvCacheDType;

/// Keys and values of one sequence, allocated once for `capacity` tokens.
#[derive(Debug)]
pub struct KvCache {
    pub(super) backend: Backend,
    length: usize,
    capacity: usize,
}

/// How keys and values are stored.
#[derive(Debug)]
pub(super) enum Backend {
    /// For the loops of the CPU, one entry per block.
    Cpu(Vec<CpuKv>),
    /// For tensor operations on a GPU, one entry per block.
    Tensors(Vec<TensorKv>),
    /// For the kernels.
    Gpu(Box<GpuCache>),
}

/// Keys and values in GPU buffers.
#[derive(Debug)]
pub(super) struct GpuCache {
    /// One entry per block.
    pub layers: Vec<KvLayer>,
    /// Heads and capacity.
    pub shape: AttentionShape,
    /// Rotation angles of every position; the position offset is 0.
    pub rope: RopeTable,
}

impl KvCache {
    /// An empty cache for `capacity` tokens. Keys and values are stored as `dtype`, or as f32 on a GPU whose
    /// kernels do not support the decoder.
    pub fn new(
        config: &DecoderConfig,
        capacity: usize,
        dtype: KvCacheDType,
        device: &Device,
    ) -> Self {
        let backend = if kernels_support(config, device) {
            Backend::Gpu(Box::new(GpuCache::new(config, capacity, dtype, device)))
        } else if is_cpu(device) {
            let shape = CachedShape {
                kv_heads: config.num_key_value_heads,
                group: config.num_attention_heads / config.num_key_value_heads,
                width: config.head_width(),
                capacity,
            };
            let layers = (0..config.num_hidden_layers).map(|_| CpuKv::new(shape, dtype));
            Backend::Cpu(layers.collect())
        } else {
            let shape = [1, config.num_key_value_heads, capacity, config.head_width()];
            let layers = (0..config.num_hidden_layers).map(|_| TensorKv::zeros(shape, device));
            Backend::Tensors(layers.collect())
        };
        Self {
            backend,
            length: 0,
            capacity,
        }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if the cache holds no token.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that fit in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Reserves `count` positions and returns the number of tokens before them.
    ///
    /// # Panics
    /// They do not fit.
    pub(super) fn reserve(&mut self, count: usize) -> usize {
        let past = self.length;
        assert!(
            past + count <= self.capacity,
            "{past} + {count} tokens exceed the KV cache of {}",
            self.capacity
        );
        self.length = past + count;
        past
    }

    /// Reserves the position of one more token, which kernels will write.
    ///
    /// # Panics
    /// The cache is full.
    pub fn grow(&mut self) {
        self.reserve(1);
    }

    /// Drops everything after the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

/// Whether the GPU kernels run a decoder of these sizes on `device`.
fn kernels_support(config: &DecoderConfig, device: &Device) -> bool {
    let head_width = config.head_width();
    let widths = [
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads * head_width,
    ];
    let in_vectors = widths.iter().all(|width| width.is_multiple_of(4));
    is_gpu(device) && in_vectors && supports_head_dim(head_width)
}

impl GpuCache {
    fn new(config: &DecoderConfig, capacity: usize, dtype: KvCacheDType, device: &Device) -> Self {
        let width = config.head_width();
        let shape = AttentionShape {
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: width,
            capacity,
        };
        let positions = (0..capacity as u32).collect();
        let (cosine, sine) = rope_table(&[positions], config);
        let pairs = cosine.chunks(width / 2).zip(sine.chunks(width / 2));
        let angles = pairs.flat_map(|(cosine, sine)| [cosine, sine].concat());
        let angles = TensorData::new(angles.collect::<Vec<_>>(), [capacity, width]);
        let offset = Tensor::<1, Int>::zeros([1], device);
        Self {
            layers: (0..config.num_hidden_layers)
                .map(|_| KvLayer::new(shape, dtype, device))
                .collect(),
            shape,
            rope: RopeTable::new(Tensor::from_data(angles, device), offset),
        }
    }
}

/// Keys and values of one block, `[1, key heads, capacity, width]`. They are taken out while they
/// are written, so that the write happens in place.
#[derive(Debug)]
pub(super) struct TensorKv {
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
}

impl TensorKv {
    fn zeros(shape: [usize; 4], device: &Device) -> Self {
        let empty = || Some(Tensor::zeros(shape, device));
        Self {
            keys: empty(),
            values: empty(),
        }
    }

    /// Writes keys and values `[1, key heads, T, width]` after `past` tokens. Returns all keys and
    /// all values so far.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>, past: usize) -> (Tensor<4>, Tensor<4>) {
        (
            write(&mut self.keys, k, past),
            write(&mut self.values, v, past),
        )
    }
}

fn write(stored: &mut Option<Tensor<4>>, new: Tensor<4>, past: usize) -> Tensor<4> {
    let [_, heads, count, width] = new.dims();
    let tensor = stored.take().expect("put back after every write");
    let tensor = tensor.slice_assign([0..1, 0..heads, past..past + count, 0..width], new);
    let valid = tensor.clone().narrow(2, 0, past + count);
    *stored = Some(tensor);
    valid
}
