// Four neighbouring outputs, each a `product` of the file that imports this.
fn quad(first: u32, unit: u32, inputs: Slice, total: f32) -> vec4<f32> {
    return vec4<f32>(
        product(first, unit, inputs, total),
        product(first + 1u, unit, inputs, total),
        product(first + 2u, unit, inputs, total),
        product(first + 3u, unit, inputs, total),
    );
}
