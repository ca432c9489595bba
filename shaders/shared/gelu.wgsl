// x times the normal distribution function of x, after Abramowitz and Stegun 7.1.26 (error below
// 1.5e-7). Beyond 14 deviations nothing changes and the square could pass what f32 holds.
fn activate(x: f32) -> f32 {
    let low = max(x, -14.0);
    let distance = min(abs(low), 14.0);
    let t = 1.0 / (1.0 + 0.23164189 * distance);
    let series = t * (0.2548296 + t * (-0.28449672 + t * (1.4214138 + t * (-1.453152 + t * 1.0614054))));
    let tail = 0.5 * series * exp(-0.5 * distance * distance);
    return low * select(1.0 - tail, tail, low < 0.0);
}
