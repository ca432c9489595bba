//! The horizontal pass with AVX2: two pixels at a time, each in four lanes of which the last is not used.

use std::arch::x86_64::{
    _mm_add_epi32, _mm_cvtsi128_si32, _mm_max_epi32, _mm_min_epi32, _mm_set1_epi32, _mm_setr_epi8,
    _mm_setzero_si128, _mm_shuffle_epi8, _mm_srai_epi32, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_mullo_epi32, _mm256_set1_epi64x,
    _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
};
use std::ops::Range;

use super::{PRECISION, Taps};
use crate::simd::{InstructionSet, instruction_set};

/// Bytes of two pixels as they are read: the last two are of the next pixel.
const READ: usize = 8;

/// Weights of a row for a CPU with AVX2.
pub(super) struct PairTaps {
    /// For each output position: the first source position, and its range of `weights`.
    positions: Vec<(usize, Range<usize>)>,
    /// The weights of two source positions in the lanes of both; zero behind the last one.
    weights: Vec<[i32; 8]>,
}

impl PairTaps {
    /// `None` if the CPU has no AVX2.
    pub fn new(taps: &Taps) -> Option<Self> {
        if instruction_set() == InstructionSet::Baseline {
            return None;
        }
        let mut weights = Vec::new();
        let positions = taps.0.iter().map(|(first, of_position)| {
            let start = weights.len();
            weights.extend(of_position.chunks(2).map(|pair| {
                let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
                [a, a, a, a, b, b, b, b]
            }));
            (*first, start..weights.len())
        });
        let positions = positions.collect();
        Some(Self { positions, weights })
    }

    /// Resamples a row; [`PADDING`](super::PADDING) bytes follow the last pixel of `source`.
    pub fn resample(&self, source: &[u8], target: &mut [u8]) {
        // SAFETY: `new` has found AVX2.
        unsafe { resample(self, source, target) }
    }
}

#[target_feature(enable = "avx2")]
fn resample(taps: &PairTaps, source: &[u8], target: &mut [u8]) {
    let to_lanes = _mm256_setr_epi8(
        0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, //
        3, -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, -1, -1, -1, -1,
    );
    let to_bytes = _mm_setr_epi8(0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    let half = _mm_set1_epi32(1 << (PRECISION - 1));
    let (least, most) = (_mm_setzero_si128(), _mm_set1_epi32(255));
    let (target, _) = target.as_chunks_mut::<3>();
    for (target, (first, weights)) in target.iter_mut().zip(&taps.positions) {
        let weights = &taps.weights[weights.clone()];
        let source = source[3 * first..].windows(READ).step_by(6);
        let mut sums = _mm256_setzero_si256();
        for (pixels, weights) in source.zip(weights) {
            let mut bytes = [0; READ];
            bytes.copy_from_slice(pixels);
            let pixels = _mm256_set1_epi64x(i64::from_le_bytes(bytes));
            let pixels = _mm256_shuffle_epi8(pixels, to_lanes);
            // SAFETY: eight values are read, from an address of any alignment.
            let weights = unsafe { _mm256_loadu_si256(weights.as_ptr().cast()) };
            sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(pixels, weights));
        }
        let second = _mm256_extracti128_si256::<1>(sums);
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sums), second);
        let rounded = _mm_srai_epi32::<{ PRECISION.cast_signed() }>(_mm_add_epi32(sum, half));
        let levels = _mm_min_epi32(_mm_max_epi32(rounded, least), most);
        let [red, green, blue, _] =
            _mm_cvtsi128_si32(_mm_shuffle_epi8(levels, to_bytes)).to_le_bytes();
        *target = [red, green, blue];
    }
}
