// The vector in which weights are loaded and dequantized: four values.
alias VecN = vec4<f32>;
const VEC_SIZE = 4u;
// Number of vec4<f32> in a VecN.
const VEC_PARTS = 1u;

fn vec_n(low: vec4<f32>, high: vec4<f32>) -> VecN {
    return low;
}

fn mul_n(a: VecN, b: VecN) -> VecN {
    return a * b;
}

fn add_n(a: VecN, b: VecN) -> VecN {
    return a + b;
}

fn dot_n(a: VecN, b: VecN) -> f32 {
    return dot(a, b);
}

fn low_of(a: VecN) -> vec4<f32> {
    return a;
}

fn high_of(a: VecN) -> vec4<f32> {
    return a;
}
