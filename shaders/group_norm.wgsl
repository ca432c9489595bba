// group_norm: every group of neighbouring channels of a map to mean 0 and variance 1, then scaled
// and shifted per channel.
//
//   x       [B, S, C]   channels last
//   weight  [C]
//   bias    [C]
//   y       [B, S, C]   (x - mean) / sqrt(variance + eps) * weight + bias, over S and C/G channels
//   sizes               B, S, C, G and eps as the bits of an f32, 0, 0, 0
//
// A workgroup of $GROUP makes one group of one picture: mean, variance of what is left and result in
// three passes, neighbouring invocations on neighbouring channels. 16*B*S*C bytes: the 66,800 cells
// of UPN's finest level move 274 MB.

@group(0) @binding(0) var<storage, $INPUT> x: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> weight: array<f32>;
@group(0) @binding(2) var<storage, $INPUT> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

// import reduce

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let cells = sizes[0].y;
    let channels = sizes[0].z;
    let count = sizes[0].w;
    let flat_group = group.y * groups.x + group.x;
    let picture = flat_group / count;
    if picture >= sizes[0].x {
        return;
    }
    let width = channels / count;
    let first = flat_group % count * width;
    let start = picture * cells * channels + first;
    let values = cells * width;
    var sum = 0.0;
    for (var i = lane; i < values; i += $GROUPu) {
        sum += x[start + i / width * channels + i % width];
    }
    let mean = group_sum(lane, sum) / f32(values);
    var squares = 0.0;
    for (var i = lane; i < values; i += $GROUPu) {
        let centred = x[start + i / width * channels + i % width] - mean;
        squares += centred * centred;
    }
    let variance = group_sum(lane, squares) / f32(values);
    let scale = 1.0 / sqrt(variance + bitcast<f32>(sizes[1].x));
    for (var i = lane; i < values; i += $GROUPu) {
        let c = i % width;
        let at = start + i / width * channels + c;
        y[at] = (x[at] - mean) * scale * weight[first + c] + bias[first + c];
    }
}
