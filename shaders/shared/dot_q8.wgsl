// What is read at once where every weight is read once: four units, which share a scale.
struct Load {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn eight_numbers(words: vec2<u32>) -> Slice {
    return Slice(four_numbers(words.x), four_numbers(words.y));
}

// The sum of weights times inputs; to be multiplied by `scale_in`.
fn product_of(load: Load, inputs: Inputs) -> f32 {
    return inner(eight_numbers(load.low.xy), inputs.a) + inner(eight_numbers(load.low.zw), inputs.b)
        + inner(eight_numbers(load.high.xy), inputs.c) + inner(eight_numbers(load.high.zw), inputs.d)
        - 1.5 * inputs.total;
}
