// x times the logistic function of 1.702 x. Beyond 46 nothing changes and the power would pass what
// f32 holds.
fn activate(x: f32) -> f32 {
    let low = max(x, -46.0);
    return low / (1.0 + exp(-1.702 * min(low, 46.0)));
}
