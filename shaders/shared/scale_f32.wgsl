// Scales of the binding `scales`, f32, in two steps: what is read for a weight, and the factor of its
// number.
fn scale_word(weight: u32, shift: u32) -> u32 {
    return scales[weight >> shift];
}

fn scale_in(word: u32, weight: u32, shift: u32) -> f32 {
    return CODES * bitcast<f32>(word);
}
