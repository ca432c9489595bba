// A unit of weights: four codes of eight bits, each + 128, the first in the lowest bits.
alias Unit = u32;

fn weights_of(unit: Unit) -> Slice {
    let codes = (vec4<u32>(unit) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
    return vec4<f32>(codes) - 128.0;
}

fn scale_of(weight: u32, per_scale: u32) -> f32 {
    return scale(weight / per_scale);
}
