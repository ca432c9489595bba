// Weights without scales.
const HAS_MINIMUM = false;

fn decode_minimum(word: u32) -> f32 {
    return 0.0;
}

fn load_scale(i: u32, shift: u32) -> u32 {
    return 0u;
}

fn decode_scale(word: u32, i: u32, shift: u32) -> f32 {
    return 1.0;
}
