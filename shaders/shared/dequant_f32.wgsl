// A vector of f32 weights.
alias WeightVec = vec4<f32>;

fn dequant(w: WeightVec) -> VecN {
    return w;
}
