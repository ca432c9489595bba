// A vector of q4 weights: eight 4-bit codes, the first in the lowest bits.
//
// A stored code c is placed in the fraction of 1.0, which gives 1 + c / 16 without an integer
// conversion. Minus ZERO_FRACTION (shared/scale_*) and times 16, that is the code.
alias WeightVec = u32;
const CODE_SCALE = 16.0;

// 1 + c / 16 of each stored code c.
fn code_fractions(w: WeightVec) -> VecN {
    let low = vec4<u32>(w << 19u, w << 15u, w << 11u, w << 7u);
    let high = vec4<u32>(w << 3u, w >> 1u, w >> 5u, w >> 9u);
    return VecN(
        bitcast<vec4<f32>>((low & vec4<u32>(0x780000u)) | vec4<u32>(0x3f800000u)),
        bitcast<vec4<f32>>((high & vec4<u32>(0x780000u)) | vec4<u32>(0x3f800000u)),
    );
}

// The weights, still to be multiplied by `decode_scale`.
fn dequant(w: WeightVec) -> VecN {
    let fractions = code_fractions(w);
    return VecN(fractions.low - ZERO_FRACTION, fractions.high - ZERO_FRACTION);
}
