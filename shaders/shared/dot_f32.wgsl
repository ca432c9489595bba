// What is read at once where every weight is read once: a unit.
alias Load = Unit;

fn product_of(load: Load, inputs: Inputs) -> f32 {
    return inner(weights_of(load), inputs.a);
}
