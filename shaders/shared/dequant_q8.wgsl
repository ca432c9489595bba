// A unit of weights: eight codes of eight bits, each + 128, the first in the lowest bits.
//
// Laid into the fraction of 1.0 a code c is the number 1 + c / 256, without a conversion; less 1.5 and
// times 256 it is the code that was meant.
alias Unit = vec2<u32>;
const CODES = 256.0;

fn four_numbers(word: u32) -> vec4<f32> {
    let a = vec4<u32>(word << 15u, word << 7u, word >> 1u, word >> 9u);
    return bitcast<vec4<f32>>((a & vec4<u32>(0x7f8000u)) | vec4<u32>(0x3f800000u));
}

// The weights of a unit, to be multiplied by `scale_in`.
fn weights_of(unit: Unit) -> Slice {
    return Slice(four_numbers(unit.x) - 1.5, four_numbers(unit.y) - 1.5);
}
