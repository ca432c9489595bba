// Scales in the binding `scales`: f16, two per word. Loading and decoding are separate, so that a kernel
// can load early and decode late.

// What `dequant` subtracts from 1 + c / CODE_SCALE: a stored code c is the code plus half of the range.
const ZERO_FRACTION = 1.5;
const HAS_MINIMUM = false;

fn decode_minimum(word: u32) -> f32 {
    return 0.0;
}

// The word that holds the scale of weight `i`; 2^shift weights have one scale.
fn load_scale(i: u32, shift: u32) -> u32 {
    return scales[(i >> shift) / 2u];
}

// The factor of a weight that `dequant` or `dot_load` returns.
fn decode_scale(word: u32, i: u32, shift: u32) -> f32 {
    let both = unpack2x16float(word);
    return CODE_SCALE * select(both.x, both.y, (i >> shift) % 2u == 1u);
}
