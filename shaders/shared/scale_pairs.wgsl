// Scales of the binding `scales`: f16, two in a word.
fn scale_among(pair: u32, index: u32) -> f32 {
    let both = unpack2x16float(pair);
    return select(both.x, both.y, index % 2u == 1u);
}

fn scale(index: u32) -> f32 {
    return scale_among(scales[index / 2u], index);
}
