// GELU: x * Phi(x), Phi the normal distribution function, by Abramowitz and Stegun 7.1.26 (error below
// 1.5e-7). Clamped at 14 standard deviations: the result no longer changes there, and the square could
// overflow f32.
fn activate(x: f32) -> f32 {
    let clamped = max(x, -14.0);
    let distance = min(abs(clamped), 14.0);
    let t = 1.0 / (1.0 + 0.23164189 * distance);
    let series = t * (0.2548296 + t * (-0.28449672 + t * (1.4214138 + t * (-1.453152 + t * 1.0614054))));
    let tail = 0.5 * series * exp(-0.5 * distance * distance);
    return clamped * select(1.0 - tail, tail, clamped < 0.0);
}
