// The inputs that a unit of weights meets: eight.
struct Slice {
    a: vec4<f32>,
    b: vec4<f32>,
}
const SLICE_VECTORS = 2u;
const PER_UNIT = 8u;

fn slice_of(a: vec4<f32>, b: vec4<f32>) -> Slice {
    return Slice(a, b);
}

fn times(a: Slice, b: Slice) -> Slice {
    return Slice(a.a * b.a, a.b * b.b);
}

fn inner(a: Slice, b: Slice) -> f32 {
    return dot(a.a, b.a) + dot(a.b, b.b);
}

fn total_of(a: Slice) -> f32 {
    return dot(a.a + a.b, vec4<f32>(1.0));
}

fn first_four(a: Slice) -> vec4<f32> {
    return a.a;
}

fn last_four(a: Slice) -> vec4<f32> {
    return a.b;
}
