// GEMV: one load of weights is four vectors, 32 weights, which have one scale.
struct WeightLoad {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn code_fractions(words: vec2<u32>) -> VecN {
    return VecN(word_fractions(words.x), word_fractions(words.y));
}

// The dot product of the codes, still to be multiplied by `decode_scale`. The ZERO_FRACTION of each
// weight is taken from the sum of x.
fn dot_load(w: WeightLoad, x: XLoad) -> f32 {
    return dot_n(code_fractions(w.low.xy), x.a) + dot_n(code_fractions(w.low.zw), x.b)
        + dot_n(code_fractions(w.high.xy), x.c) + dot_n(code_fractions(w.high.zw), x.d)
        - ZERO_FRACTION * x.sum;
}
