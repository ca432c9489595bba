// rope: rotary position embedding in the half-split form (arXiv 2104.09864; `rotate_half` of transformers).
//
// Channel i of a head is rotated with channel i + D/2. The file that imports this one binds `rope_table`
// [C, D] as vec4s: of every position D/2 cosines, then D/2 sines. A vector is four channels; `vectors` is
// D/4.
struct RopeAngles {
    cosine: vec4<f32>,
    sine: vec4<f32>,
}

// Of vector `vector`, one of the first half of a head.
fn rope_angles(position: u32, vector: u32, vectors: u32) -> RopeAngles {
    let first = position * vectors + vector;
    return RopeAngles(rope_table[first], rope_table[first + vectors / 2u]);
}

// `partner` is the vector of the other half; negated where `x` is of the first half.
fn rope_rotate(x: vec4<f32>, partner: vec4<f32>, angles: RopeAngles) -> vec4<f32> {
    return x * angles.cosine + partner * angles.sine;
}
