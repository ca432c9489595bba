// Scale `index` of the binding `scales`: f16, two in a word.
fn scale(index: u32) -> f32 {
    let pair = unpack2x16float(scales[index / 2u]);
    return select(pair.x, pair.y, index % 2u == 1u);
}
