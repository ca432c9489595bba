// rms_norm: divides each row by its root mean square (arXiv 1910.07467).
//
//   x      [M, K]
//   gain   [K]
//   y      [M, K]    x / sqrt(mean(x^2) + eps) * gain
//
// One workgroup: one row. 8 bytes moved and 3 operations per element.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> u: Uniforms;

// import reduce

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let k = u.k;
    let row = workgroup_index(group, groups);
    if row >= u.m {
        return;
    }
    var sum = 0.0;
    for (var i = thread; i < k; i += WORKGROUP_SIZE) {
        let value = x[row * k + i];
        sum += value * value;
    }
    let scale = inverseSqrt(workgroup_sum(thread, sum) / f32(k) + u.eps);
    for (var i = thread; i < k; i += WORKGROUP_SIZE) {
        y[row * k + i] = x[row * k + i] * scale * gain[i];
    }
}
