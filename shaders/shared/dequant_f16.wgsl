// A vector of f16 weights, two per word.
alias WeightVec = vec2<u32>;

fn dequant(w: WeightVec) -> VecN {
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
