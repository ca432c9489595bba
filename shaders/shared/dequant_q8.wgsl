// A vector of q8 weights: eight 8-bit codes, the first in the lowest bits.
//
// A stored code c is placed in the fraction of 1.0, which gives 1 + c / 256 without an integer
// conversion. Minus ZERO_FRACTION (shared/scale_*) and times 256, that is the code.
alias WeightVec = vec2<u32>;
const CODE_SCALE = 256.0;

// 1 + c / 256 of each of the four stored codes c of a word.
fn word_fractions(word: u32) -> vec4<f32> {
    let codes = vec4<u32>(word << 15u, word << 7u, word >> 1u, word >> 9u);
    return bitcast<vec4<f32>>((codes & vec4<u32>(0x7f8000u)) | vec4<u32>(0x3f800000u));
}

// The weights, still to be multiplied by `decode_scale`.
fn dequant(w: WeightVec) -> VecN {
    return VecN(word_fractions(w.x) - ZERO_FRACTION, word_fractions(w.y) - ZERO_FRACTION);
}
