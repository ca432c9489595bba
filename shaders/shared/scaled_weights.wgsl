// The weights that `dequant` returned, times their scale, plus their minimum where the format has one.
// `word` comes from `load_scale`, `i` is the index of the first weight.
fn scaled_weights(codes: VecN, word: u32, i: u32, shift: u32) -> VecN {
    let scale = vec4<f32>(decode_scale(word, i, shift));
    let products = mul_n(codes, vec_n(scale, scale));
    if !HAS_MINIMUM {
        return products;
    }
    let minimum = vec4<f32>(decode_minimum(word));
    return add_n(products, vec_n(minimum, minimum));
}
