// GEMV: one load of weights is one vector.
alias WeightLoad = WeightVec;

fn dot_load(w: WeightLoad, x: XLoad) -> f32 {
    return dot_n(dequant(w), x.a);
}
