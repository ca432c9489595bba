// A unit of weights: four in single precision.
alias Unit = vec4<f32>;

fn weights_of(unit: Unit) -> Slice {
    return unit;
}

fn scale_of(weight: u32, shift: u32) -> f32 {
    return 1.0;
}

fn scale_word(weight: u32, shift: u32) -> u32 {
    return 0u;
}

fn scale_in(word: u32, weight: u32, shift: u32) -> f32 {
    return 1.0;
}
