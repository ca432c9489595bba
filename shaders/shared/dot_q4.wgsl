// GEMV: one load of weights is four vectors, 32 weights, which have one scale.
alias WeightLoad = vec4<u32>;

// The dot product of the codes, still to be multiplied by `decode_scale`. The ZERO_FRACTION of each
// weight is taken from the sum of x.
fn dot_load(w: WeightLoad, x: XLoad) -> f32 {
    return dot_n(code_fractions(w.x), x.a) + dot_n(code_fractions(w.y), x.b)
        + dot_n(code_fractions(w.z), x.c) + dot_n(code_fractions(w.w), x.d)
        - ZERO_FRACTION * x.sum;
}
