// The vector in which weights are loaded and dequantized: eight values.
struct VecN {
    low: vec4<f32>,
    high: vec4<f32>,
}
const VEC_SIZE = 8u;
// Number of vec4<f32> in a VecN.
const VEC_PARTS = 2u;

fn vec_n(low: vec4<f32>, high: vec4<f32>) -> VecN {
    return VecN(low, high);
}

fn mul_n(a: VecN, b: VecN) -> VecN {
    return VecN(a.low * b.low, a.high * b.high);
}

fn add_n(a: VecN, b: VecN) -> VecN {
    return VecN(a.low + b.low, a.high + b.high);
}

fn dot_n(a: VecN, b: VecN) -> f32 {
    return dot(a.low, b.low) + dot(a.high, b.high);
}

fn low_of(a: VecN) -> vec4<f32> {
    return a.low;
}

fn high_of(a: VecN) -> vec4<f32> {
    return a.high;
}
