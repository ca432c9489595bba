//! Which kernel computes a product, by its shape.
//!
//! | rows of x (M) | 64 x 64 tiles of the output | kernel | tile | splits of K in a workgroup |
//! |---|---|---|---|---|
//! | up to [`GEMV_MAX_M`] | | `gemv` | M x 16 | 32 threads per dot product |
//! | up to [`SKINNY_MAX_M`] | | `matmul_skinny` | 16 x 32 | 8 |
//! | more | up to [`SPLIT_K_MAX_TILES`] | `matmul`, split-K | 64 x 64 | 4 |
//! | more | up to [`TILE64_MAX_TILES`] | `matmul` | 64 x 64 | 1 |
//! | more | more | `matmul` | 64 x 128 | 1 |
//!
//! The thresholds were chosen on an NVIDIA H200 with 132 cores; `docs/profile.md` has the rates. They were
//! chosen when a GEMV read all weights once per row of x; it now reads them once for up to four rows. The
//! skinny tile wastes fewer rows than one of 64. Splits occupy cores that tiles alone do not: 256 tiles
//! are about two per core. A tile of 64 x 128 reuses staged data more, and needs enough tiles to keep all
//! cores busy: 768 tiles of 64 x 64, 384 of 64 x 128, are about three per core.

use crate::gpu::matmul::device_matrix::VARIANTS;
use crate::gpu::matmul::{
    GEMV, GEMV_OUTPUTS, MATMUL, MATMUL_SKINNY, MATMUL_SPLIT_K, MATMUL_TILE64X128,
};
use crate::gpu::shader::Shader;

/// The largest M of a GEMV.
pub const GEMV_MAX_M: usize = 4;

/// The largest M of the skinny matmul.
const SKINNY_MAX_M: usize = 32;

/// The most 64 x 64 tiles for which the workgroups of a matmul split K.
const SPLIT_K_MAX_TILES: usize = 256;

/// The most 64 x 64 tiles for which tiles are not 64 x 128.
const TILE64_MAX_TILES: usize = 768;

/// A kernel that computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatmulKernel {
    /// Of so many rows of x per workgroup, 1 to [`GEMV_MAX_M`].
    Gemv(usize),
    Skinny,
    SplitK64,
    Tile64,
    Tile64x128,
}

impl MatmulKernel {
    #[cfg(feature = "diagnostics")]
    pub(super) const ALL: [Self; 8] = [
        Self::Gemv(1),
        Self::Gemv(2),
        Self::Gemv(3),
        Self::Gemv(4),
        Self::Skinny,
        Self::SplitK64,
        Self::Tile64,
        Self::Tile64x128,
    ];

    /// The GEMV for `m` rows of x; more than [`GEMV_MAX_M`] are divided among workgroups.
    pub(super) fn gemv(m: usize) -> Self {
        Self::Gemv(m.clamp(1, GEMV_MAX_M))
    }

    /// The kernel for `m` rows of x and a matrix of `n` rows.
    pub(super) fn select(m: usize, n: usize) -> Self {
        let tiles = m.div_ceil(64) * n.div_ceil(64);
        if m <= GEMV_MAX_M {
            Self::gemv(m)
        } else if m <= SKINNY_MAX_M {
            Self::Skinny
        } else if tiles <= SPLIT_K_MAX_TILES {
            Self::SplitK64
        } else if tiles <= TILE64_MAX_TILES {
            Self::Tile64
        } else {
            Self::Tile64x128
        }
    }

    pub(super) fn shaders(self) -> &'static [Shader; VARIANTS] {
        match self {
            Self::Gemv(rows) => &GEMV[rows - 1],
            Self::Skinny => &MATMUL_SKINNY,
            Self::SplitK64 => &MATMUL_SPLIT_K,
            Self::Tile64 => &MATMUL,
            Self::Tile64x128 => &MATMUL_TILE64X128,
        }
    }

    /// Rows and columns of the outputs of a workgroup.
    pub(super) fn tile(self) -> [usize; 2] {
        match self {
            Self::Gemv(rows) => [rows, GEMV_OUTPUTS],
            Self::Skinny => [16, 32],
            Self::SplitK64 | Self::Tile64 => [64, 64],
            Self::Tile64x128 => [64, 128],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tiles_split_k_and_many_are_wide() {
        assert_eq!(MatmulKernel::select(1, 4096), MatmulKernel::Gemv(1));
        assert_eq!(MatmulKernel::select(3, 4096), MatmulKernel::Gemv(3));
        assert_eq!(MatmulKernel::select(20, 4096), MatmulKernel::Skinny);
        assert_eq!(MatmulKernel::select(128, 4096), MatmulKernel::SplitK64);
        assert_eq!(MatmulKernel::select(577, 4096), MatmulKernel::Tile64);
        assert_eq!(MatmulKernel::select(800, 4096), MatmulKernel::Tile64x128);
    }
}
