// Scales and minimums in the binding `scales`: two f16 per word, the scale in the lower half. Loading and
// decoding are separate, so that a kernel can load early and decode late.

// What `dequant` subtracts from 1 + c / CODE_SCALE: a stored code c is the code itself.
const ZERO_FRACTION = 1.0;
const HAS_MINIMUM = true;

// The word that holds scale and minimum of weight `i`; 2^shift weights have one.
fn load_scale(i: u32, shift: u32) -> u32 {
    return scales[i >> shift];
}

// The factor of a weight that `dequant` or `dot_load` returns.
fn decode_scale(word: u32, i: u32, shift: u32) -> f32 {
    return CODE_SCALE * unpack2x16float(word).x;
}

// The value of a weight whose code is 0.
fn decode_minimum(word: u32) -> f32 {
    return unpack2x16float(word).y;
}
