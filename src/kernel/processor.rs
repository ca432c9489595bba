//! How hand-written loops run on the processor: on every core natively, with AVX2 where the
//! processor has it, and with the same result everywhere (no fused multiply-add, fixed order).

/// Calls `f(i, chunk)` for each piece of `length` values of `out`; natively the pieces run on all
/// cores.
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

/// Defines a function twice, for AVX2 and for the target's baseline, and picks at run time. What
/// the body calls must be `#[inline(always)]` to be compiled along.
macro_rules! vectorised {
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

                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just been found to have the feature.
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            body($($argument),*);
        }
    };
}

pub(crate) use vectorised;
