// GEMV: the part of x that one load of weights is multiplied with: 32 values, and their sum. Vector i of
// each load lies in plane i of the tile.
struct XLoad {
    a: VecN,
    b: VecN,
    c: VecN,
    d: VecN,
    sum: f32,
}
// Number of vec4<f32> in an XLoad.
const LOAD_VECTORS = 8u;

fn sum_of(x: XLoad) -> f32 {
    return x.sum;
}

fn load_x_tile(index: u32) -> XLoad {
    let a = VecN(x_tile[index], x_tile[index + PLANE]);
    let b = VecN(x_tile[index + 2u * PLANE], x_tile[index + 3u * PLANE]);
    let c = VecN(x_tile[index + 4u * PLANE], x_tile[index + 5u * PLANE]);
    let d = VecN(x_tile[index + 6u * PLANE], x_tile[index + 7u * PLANE]);
    let sum = dot(a.low + a.high + b.low + b.high + c.low + c.high + d.low + d.high, vec4<f32>(1.0));
    return XLoad(a, b, c, d, sum);
}
