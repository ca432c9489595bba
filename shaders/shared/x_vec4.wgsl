// GEMV: the part of x that one load of weights is multiplied with: four values.
struct XLoad {
    a: VecN,
}
// Number of vec4<f32> in an XLoad.
const LOAD_VECTORS = 1u;

fn sum_of(x: XLoad) -> f32 {
    return dot(x.a, vec4<f32>(1.0));
}

fn load_x_tile(index: u32) -> XLoad {
    return XLoad(x_tile[index]);
}
