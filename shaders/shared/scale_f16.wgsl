// Scales of the binding `scales`, f16, two in a word, in two steps: what is read for a weight, and the
// factor of its number.
fn scale_word(weight: u32, shift: u32) -> u32 {
    return scales[(weight >> shift) / 2u];
}

fn scale_in(word: u32, weight: u32, shift: u32) -> f32 {
    let both = unpack2x16float(word);
    return CODES * select(both.x, both.y, (weight >> shift) % 2u == 1u);
}
