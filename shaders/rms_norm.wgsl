// rms_norm: every row divided by the root of its mean square.
//
//   x      [M, K]
//   gain   [K]
//   y      [M, K]    x / sqrt(mean(x^2) + eps) * gain
//   sizes            M, K, bits of eps, 0
//
// A workgroup of $GROUP takes a row: 8 bytes moved per element, three operations.

@group(0) @binding(0) var<storage, $INPUT> x: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> gain: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> sizes: array<vec4<u32>, 1>;

// import reduce

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let width = sizes[0].y;
    let row = group.y * groups.x + group.x;
    if row >= sizes[0].x {
        return;
    }
    var sum = 0.0;
    for (var i = lane; i < width; i += $GROUPu) {
        let value = x[row * width + i];
        sum += value * value;
    }
    let root = inverseSqrt(group_sum(lane, sum) / f32(width) + bitcast<f32>(sizes[0].z));
    for (var i = lane; i < width; i += $GROUPu) {
        y[row * width + i] = x[row * width + i] * root * gain[i];
    }
}
