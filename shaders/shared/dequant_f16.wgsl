// A unit of weights: four in half precision, two in a word.
alias Unit = vec2<u32>;

fn weights_of(unit: Unit) -> Slice {
    return vec4<f32>(unpack2x16float(unit.x), unpack2x16float(unit.y));
}
