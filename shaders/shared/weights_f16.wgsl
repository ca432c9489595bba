// A unit of weights: four in half precision, two in a word.
alias Unit = vec2<u32>;

fn weights_of(unit: Unit) -> Slice {
    return vec4<f32>(unpack2x16float(unit.x), unpack2x16float(unit.y));
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
