// A unit of weights: eight codes of four bits, each + 8, the first in the lowest bits.
//
// Laid into the fraction of 1.0 a code c is the number 1 + c / 16, without a conversion; less 1.5 and
// times 16 it is the code that was meant.
alias Unit = u32;
const CODES = 16.0;

fn numbers_of(unit: Unit) -> Slice {
    let a = vec4<u32>(unit << 19u, unit << 15u, unit << 11u, unit << 7u);
    let b = vec4<u32>(unit << 3u, unit >> 1u, unit >> 5u, unit >> 9u);
    return Slice(
        bitcast<vec4<f32>>((a & vec4<u32>(0x780000u)) | vec4<u32>(0x3f800000u)),
        bitcast<vec4<f32>>((b & vec4<u32>(0x780000u)) | vec4<u32>(0x3f800000u)),
    );
}

// The weights of a unit, to be multiplied by `scale_in`.
fn weights_of(unit: Unit) -> Slice {
    let numbers = numbers_of(unit);
    return Slice(numbers.a - 1.5, numbers.b - 1.5);
}
