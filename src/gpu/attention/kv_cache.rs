//! The KV cache of one decoder layer and the RoPE table, in GPU memory.

use burn::tensor::{Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;

use crate::gpu::buffer::{int_to_buffer, to_buffer};
use crate::memory::KvCacheDType;

/// A shader for every type of the KV cache, in the order of [`variant`]: its name, its uniforms and
/// its constants.
macro_rules! for_kv_types {
    ($name:literal, $uniforms:ty, $constants:expr) => {
        [
            for_kv_types!($name, $uniforms, $constants, "kv_f32"),
            for_kv_types!($name, $uniforms, $constants, "kv_f16"),
        ]
    };
    ($name:literal, $uniforms:ty, $constants:expr, $kv:literal) => {
        $crate::gpu::shader::Shader {
            name: $name,
            text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            uniforms: <$uniforms as $crate::gpu::uniforms::Uniforms>::LAYOUT,
            constants: $constants,
            imports: &[("KV", $kv)],
        }
    };
}

pub(super) use for_kv_types;

/// The index of a KV cache type among the variants of a shader.
pub(super) fn variant(dtype: KvCacheDType) -> usize {
    match dtype {
        KvCacheDType::F32 => 0,
        KvCacheDType::F16 => 1,
    }
}

/// Heads of a decoder layer and the capacity of its KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads` (GQA).
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Positions in the KV cache.
    pub capacity: usize,
}

impl AttentionShape {
    /// Channels of all queries of a row.
    pub(super) fn q_width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Channels of all keys, or of all values, of a row.
    pub(super) fn kv_width(self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Channels of queries, keys and values of a row.
    pub(super) fn qkv_width(self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// The factor of the scores, `1 / sqrt(head_dim)`.
    pub(super) fn scale(self) -> f32 {
        (self.head_dim as f32).sqrt().recip()
    }
}

/// Keys and values of one layer, `[kv_heads, capacity, head_dim]` each, written in place. Keys are
/// rotated.
#[derive(Clone, Debug)]
pub struct KvLayer {
    pub(super) keys: CubeTensor,
    pub(super) values: CubeTensor,
    pub(super) dtype: KvCacheDType,
}

impl KvLayer {
    /// An empty cache.
    ///
    /// # Panics
    /// `device` is not a GPU.
    pub fn new(shape: AttentionShape, dtype: KvCacheDType, device: &Device) -> Self {
        let empty = || {
            let bytes = shape.kv_width() * shape.capacity * dtype.bytes();
            to_buffer("KV cache", Tensor::<1>::zeros([bytes / 4], device))
        };
        Self {
            keys: empty(),
            values: empty(),
            dtype,
        }
    }
}

/// The RoPE table, and the position of the first row.
#[derive(Clone, Debug)]
pub struct RopeTable {
    pub(super) table: CubeTensor,
    pub(super) position: CubeTensor,
}

impl RopeTable {
    /// `table` `[capacity, head_dim]`: cosines, then sines, of every position. `position` `[1]` is
    /// added to the position that a launch names; kernels may change it.
    pub fn new(table: Tensor<2>, position: Tensor<1, Int>) -> Self {
        Self {
            table: to_buffer("RoPE table", table),
            position: int_to_buffer("RoPE position", position),
        }
    }

    /// The same table with another `position`.
    #[must_use]
    pub fn with_position(&self, position: Tensor<1, Int>) -> Self {
        Self {
            table: self.table.clone(),
            position: int_to_buffer("RoPE position", position),
        }
    }
}
