// layer_norm: every row to mean 0 and variance 1, then scaled and shifted per channel.
//
//   x       [R, C]
//   weight  [C]
//   bias    [C]
//   y       [R, C]   (x - mean) / sqrt(variance + eps) * weight + bias
//   sizes            R, C, eps as the bits of an f32, 0
//
// A workgroup of $GROUP makes one row: the mean in one pass over it, the variance of what is left in
// a second, the result in a third; the row is read from memory once and then from the cache.
// 8*R*C bytes and 8*R*C operations: 36,864 rows of 192 (ConvNeXt-Large at 192 x 192) move 57 MB.

@group(0) @binding(0) var<storage, $INPUT> x: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> weight: array<f32>;
@group(0) @binding(2) var<storage, $INPUT> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 1>;

// import reduce

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let channels = sizes[0].y;
    let row = group.y * groups.x + group.x;
    if row >= sizes[0].x {
        return;
    }
    let start = row * channels;
    var sum = 0.0;
    for (var c = lane; c < channels; c += $GROUPu) {
        sum += x[start + c];
    }
    let mean = group_sum(lane, sum) / f32(channels);
    var squares = 0.0;
    for (var c = lane; c < channels; c += $GROUPu) {
        let centred = x[start + c] - mean;
        squares += centred * centred;
    }
    let variance = group_sum(lane, squares) / f32(channels);
    let scale = 1.0 / sqrt(variance + bitcast<f32>(sizes[0].z));
    for (var c = lane; c < channels; c += $GROUPu) {
        y[start + c] = (x[start + c] - mean) * scale * weight[c] + bias[c];
    }
}
