// QuickGELU: x * sigmoid(1.702 x). Clamped at 46: the result no longer changes there, and the power
// could overflow f32.
fn activate(x: f32) -> f32 {
    let clamped = max(x, -46.0);
    return clamped / (1.0 + exp(-1.702 * min(clamped, 46.0)));
}
