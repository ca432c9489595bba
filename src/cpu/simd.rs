//! SIMD and threads for CPU loops: natively on every core, with AVX-512 or AVX2 if the CPU has it. The
//! results are the same everywhere: no fused multiply-add, fixed order.

/// Calls `f(i, chunk)` for each chunk of `length` values of `out`; natively on all cores.
pub fn for_each_chunk(out: &mut [f32], length: usize, f: impl Fn(usize, &mut [f32]) + Send + Sync) {
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

/// Defines a function that is compiled for AVX-512, for AVX2 and for the target's baseline, and selected
/// at run time. Functions that the body calls must be `#[inline(always)]`, or they are not vectorized.
macro_rules! vectorized {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $kind),*) {
            #[inline(always)]
            fn body($($argument: $kind),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn with_avx2($($argument: $kind),*) {
                    body($($argument),*);
                }

                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
                fn with_avx512($($argument: $kind),*) {
                    body($($argument),*);
                }

                let wide = std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512bw");
                if wide {
                    // SAFETY: the CPU has the features, as detected above.
                    return unsafe { with_avx512($($argument),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has the feature, as detected above.
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            body($($argument),*);
        }
    };
}

pub(crate) use vectorized;

#[cfg(test)]
mod tests {
    use super::exp;

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
