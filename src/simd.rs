//! SIMD and threads for CPU loops: natively on every core, with AVX-512 or AVX2 if the CPU has it.

/// Calls `f(i, chunk)` for each chunk of `length` values of `out`; natively on all cores.
pub fn for_each_chunk<T: Send>(
    out: &mut [T],
    length: usize,
    f: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    if out.is_empty() {
        return;
    }
    #[cfg(feature = "native")]
    {
        use rayon::prelude::*;
        out.par_chunks_mut(length)
            .enumerate()
            .for_each(|(i, chunk)| f(i, chunk));
    }
    #[cfg(not(feature = "native"))]
    out.chunks_mut(length)
        .enumerate()
        .for_each(|(i, chunk)| f(i, chunk));
}

/// The number of threads that [`for_each_chunk`] uses.
pub fn threads() -> usize {
    #[cfg(feature = "native")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "native"))]
    1
}

/// `e^x` to within a few units in the last place, in a form that compilers vectorize; 0 below -87, for
/// arguments up to 88.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUNDING: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let clamped = if clamped < 88.0 { clamped } else { 88.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDING;
    let power = shifted - ROUNDING;
    let rest = clamped - power * LN2_HIGH - power * LN2_LOW;
    let series = 1.0
        + rest
            * (1.0
                + rest
                    * (0.5
                        + rest
                            * (1.0 / 6.0
                                + rest
                                    * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest * (1.0 / 720.0))))));
    let exponent = shifted.to_bits().wrapping_sub(ROUNDING.to_bits());
    let scaled = f32::from_bits(exponent.wrapping_add(127) << 23) * series;
    if x > -87.0 { scaled } else { 0.0 }
}

/// The instruction sets that CPU loops are compiled for.
#[cfg(any(target_arch = "x86_64", test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InstructionSet {
    /// What every CPU of the target has.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 with F, DQ, VL and BW, and FMA.
    Avx512,
}

/// The best instruction set of this CPU; in tests the one that `with_each_instruction_set` tries.
#[cfg(any(target_arch = "x86_64", test))]
pub(crate) fn instruction_set() -> InstructionSet {
    #[cfg(test)]
    return detected().min(tests::limit());
    #[cfg(not(test))]
    detected()
}

#[cfg(target_arch = "x86_64")]
fn detected() -> InstructionSet {
    use std::arch::is_x86_feature_detected as has;
    if !has!("avx2") || !has!("fma") {
        InstructionSet::Baseline
    } else if has!("avx512f") && has!("avx512dq") && has!("avx512vl") && has!("avx512bw") {
        InstructionSet::Avx512
    } else {
        InstructionSet::Avx2
    }
}

#[cfg(all(not(target_arch = "x86_64"), test))]
fn detected() -> InstructionSet {
    InstructionSet::Baseline
}

/// Defines a function that is compiled for every [`InstructionSet`] and selected at run time. Functions that the
/// body calls must be `#[inline(always)]`, or they are not vectorized. The results are the same everywhere.
macro_rules! vectorized {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block) => {
        $crate::simd::fused! {
            $(#[$meta])*
            $visibility fn $name($($argument: $kind),*) $body
        }
    };
}

pub(crate) use vectorized;

/// [`vectorized`], with the constant `FUSED` in the body: whether `mul_add` is one instruction. Where the body uses
/// it, results differ in the last place between CPUs.
macro_rules! fused {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $kind),*) {
            #[inline(always)]
            fn body<const FUSED: bool>($($argument: $kind),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::simd::InstructionSet;

                #[target_feature(enable = "avx2,fma")]
                fn with_avx2($($argument: $kind),*) {
                    body::<true>($($argument),*);
                }

                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,fma")]
                fn with_avx512($($argument: $kind),*) {
                    body::<true>($($argument),*);
                }

                match $crate::simd::instruction_set() {
                    // SAFETY: the CPU has the instruction set.
                    InstructionSet::Avx512 => return unsafe { with_avx512($($argument),*) },
                    // SAFETY: the CPU has the instruction set.
                    InstructionSet::Avx2 => return unsafe { with_avx2($($argument),*) },
                    InstructionSet::Baseline => {}
                }
            }
            // Every 64-bit ARM has a fused multiply-add; on others it may be a slow function.
            body::<{ cfg!(target_arch = "aarch64") }>($($argument),*);
        }
    };
}

pub(crate) use fused;

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::{InstructionSet, detected, exp};

    const ALL: [InstructionSet; 3] = [
        InstructionSet::Baseline,
        InstructionSet::Avx2,
        InstructionSet::Avx512,
    ];

    static LIMIT: AtomicU8 = AtomicU8::new(InstructionSet::Avx512 as u8);

    pub(super) fn limit() -> InstructionSet {
        ALL[usize::from(LIMIT.load(Ordering::Relaxed))]
    }

    /// Calls `check` with every instruction set of this CPU, which all threads then use.
    pub fn with_each_instruction_set(mut check: impl FnMut(InstructionSet)) {
        for set in ALL.into_iter().filter(|set| *set <= detected()) {
            LIMIT.store(set as u8, Ordering::Relaxed);
            check(set);
        }
        LIMIT.store(InstructionSet::Avx512 as u8, Ordering::Relaxed);
    }

    #[test]
    fn exp_is_close_to_the_exact_value() {
        for i in -8699..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(error < 4e-7, "exp({x}): relative error {error}");
        }
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }
}
