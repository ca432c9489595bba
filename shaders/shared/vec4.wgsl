// The inputs that a unit of weights meets: four.
alias Slice = vec4<f32>;
const SLICE_VECTORS = 1u;
const PER_UNIT = 4u;

fn slice_of(a: vec4<f32>, b: vec4<f32>) -> Slice {
    return a;
}

fn times(a: Slice, b: Slice) -> Slice {
    return a * b;
}

fn inner(a: Slice, b: Slice) -> f32 {
    return dot(a, b);
}

fn total_of(a: Slice) -> f32 {
    return dot(a, vec4<f32>(1.0));
}

fn first_four(a: Slice) -> vec4<f32> {
    return a;
}

fn last_four(a: Slice) -> vec4<f32> {
    return a;
}
