//! SIMD and threads for CPU loops: natively on every core, with AVX-512 or AVX2 if the CPU has it.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", test))]
use std::sync::LazyLock;

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
        // One thread would only hand the work to another one and wait for it.
        if out.len() <= length || threads() == 1 {
            return each_chunk(out, length, f);
        }
        out.par_chunks_mut(length)
            .enumerate()
            .for_each(|(i, chunk)| f(i, chunk));
    }
    #[cfg(not(feature = "native"))]
    each_chunk(out, length, f);
}

fn each_chunk<T>(out: &mut [T], length: usize, f: impl Fn(usize, &mut [T])) {
    for (i, chunk) in out.chunks_mut(length).enumerate() {
        f(i, chunk);
    }
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
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// What every CPU of the target has.
    Baseline,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// [`Self::Avx2`] with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni,
    /// [`Self::Avx2`] with F, DQ, VL and BW of AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// [`Self::Avx512`] with its VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// NEON with dot products.
    #[cfg(target_arch = "aarch64")]
    DotProducts,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", test))]
impl InstructionSet {
    /// All of the target, the better ones later.
    const ALL: &[Self] = &[
        Self::Baseline,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2Vnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Vnni,
        #[cfg(target_arch = "aarch64")]
        Self::DotProducts,
    ];

    /// Whether this CPU has it.
    #[cfg(target_arch = "x86_64")]
    fn is_detected(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        match self {
            Self::Baseline => true,
            Self::Avx2 => has!("avx2") && has!("fma") && has!("f16c"),
            Self::Avx2Vnni => Self::Avx2.is_detected() && has!("avxvnni"),
            Self::Avx512 => {
                let has_all = has!("avx512f") && has!("avx512dq") && has!("avx512vl");
                Self::Avx2.is_detected() && has_all && has!("avx512bw")
            }
            Self::Avx512Vnni => Self::Avx512.is_detected() && has!("avx512vnni"),
        }
    }

    /// Whether this CPU has it.
    #[cfg(not(target_arch = "x86_64"))]
    fn is_detected(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "aarch64")]
            Self::DotProducts => std::arch::is_aarch64_feature_detected!("dotprod"),
        }
    }

    /// The best one of this CPU.
    fn best() -> Self {
        static BEST: LazyLock<InstructionSet> = LazyLock::new(|| {
            let mut from_best = InstructionSet::ALL.iter().rev();
            let best = from_best.find(|set| set.is_detected());
            best.copied().unwrap_or(InstructionSet::Baseline)
        });
        *BEST
    }
}

/// The best instruction set of this CPU; in tests the one that `with_each_instruction_set` tries.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", test))]
pub(crate) fn instruction_set() -> InstructionSet {
    #[cfg(test)]
    if let Some(set) = tests::tried() {
        return set;
    }
    InstructionSet::best()
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

/// [`vectorized`], with two constants in the body: `FUSED`, whether `mul_add` is one instruction, and `AVX512`,
/// whether it is compiled for [`InstructionSet::Avx512`]. Where the body uses the first one, results differ in the last
/// place between CPUs.
macro_rules! fused {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $kind),*) {
            #[inline(always)]
            fn body<const FUSED: bool, const AVX512: bool>($($argument: $kind),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::simd::InstructionSet;

                #[target_feature(enable = "avx2,fma,f16c")]
                fn with_avx2($($argument: $kind),*) {
                    body::<true, false>($($argument),*);
                }

                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,fma,f16c")]
                fn with_avx512($($argument: $kind),*) {
                    body::<true, true>($($argument),*);
                }

                match $crate::simd::instruction_set() {
                    // SAFETY: the CPU has the instruction set.
                    InstructionSet::Avx512 | InstructionSet::Avx512Vnni => {
                        return unsafe { with_avx512($($argument),*) };
                    }
                    // SAFETY: the CPU has the instruction set.
                    InstructionSet::Avx2 | InstructionSet::Avx2Vnni => {
                        return unsafe { with_avx2($($argument),*) };
                    }
                    InstructionSet::Baseline => {}
                }
            }
            // Every 64-bit ARM has a fused multiply-add; on others it may be a slow function.
            body::<{ cfg!(target_arch = "aarch64") }, false>($($argument),*);
        }
    };
}

pub(crate) use fused;

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::{InstructionSet, exp};

    thread_local! {
        static TRIED: Cell<Option<InstructionSet>> = const { Cell::new(None) };
    }

    pub(super) fn tried() -> Option<InstructionSet> {
        TRIED.get()
    }

    /// Calls `check` with every instruction set of this CPU, which the threads of a pool of its own use.
    /// Tests that run at the same time see nothing of it.
    pub fn with_each_instruction_set(mut check: impl FnMut(InstructionSet) + Send) {
        for &set in InstructionSet::ALL.iter().filter(|set| set.is_detected()) {
            let pool = rayon::ThreadPoolBuilder::new()
                .start_handler(move |_| TRIED.set(Some(set)))
                .build()
                .expect("threads");
            pool.install(|| check(set));
        }
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
