// What is read at once where every weight is read once: four units, which share a scale.
alias Load = vec4<u32>;

// The sum of weights times inputs; to be multiplied by `scale_in`.
fn product_of(load: Load, inputs: Inputs) -> f32 {
    return inner(numbers_of(load.x), inputs.a) + inner(numbers_of(load.y), inputs.b)
        + inner(numbers_of(load.z), inputs.c) + inner(numbers_of(load.w), inputs.d)
        - 1.5 * inputs.total;
}
