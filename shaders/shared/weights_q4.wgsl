// A unit of weights: eight codes of four bits, each + 8, the first in the lowest bits.
alias Unit = u32;

fn weights_of(unit: Unit) -> Slice {
    let shifts = vec4<u32>(0u, 4u, 8u, 12u);
    let a = (vec4<u32>(unit) >> shifts) & vec4<u32>(15u);
    let b = (vec4<u32>(unit >> 16u) >> shifts) & vec4<u32>(15u);
    return Slice(vec4<f32>(a) - 8.0, vec4<f32>(b) - 8.0);
}

fn scale_of(weight: u32, per_scale: u32) -> f32 {
    return scale(weight / per_scale);
}
