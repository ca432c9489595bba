// depthwise: every channel of a map convolved with its own kernel, and a bias.
//
//   x      [B, H, W, C]   channels last; zero outside
//   taps   [K, K, C]      K odd, centred
//   bias   [C]
//   y      [B, H, W, C]   bias + sum over i, j of taps[i, j] * x[row + i - K/2, column + j - K/2]
//   sizes                 B, H, W, C and K, 0, 0, 0
//
// One invocation makes one channel of four neighbouring cells of a row, so that it reads each tap
// once and each input K times for the four; neighbours take neighbouring channels. 8*B*H*W*C bytes
// beyond the caches and 2*K*K operations per element: ConvNeXt-Large's first stage, 192 x 192 x 192
// with K = 7, takes 57 MB and 0.7 G operations.

@group(0) @binding(0) var<storage, $INPUT> x: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> taps: array<f32>;
@group(0) @binding(2) var<storage, $INPUT> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

// One channel of the cell `column` of the row of cells that starts at `line`.
fn input(line: u32, column: i32, channel: u32) -> f32 {
    if column < 0 || column >= i32(sizes[0].z) {
        return 0.0;
    }
    return x[(line + u32(column)) * sizes[0].w + channel];
}

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let height = sizes[0].y;
    let width = sizes[0].z;
    let channels = sizes[0].w;
    let side = sizes[1].x;
    let strips = (width + 3u) / 4u;
    let index = (group.y * groups.x + group.x) * $GROUPu + lane;
    let channel = index % channels;
    let strip = index / channels; // picture, row and strip
    let column = strip % strips * 4u;
    let row = strip / strips % height;
    let picture = strip / strips / height;
    if picture >= sizes[0].x {
        return;
    }
    var sums = vec4<f32>(bias[channel]);
    let left = i32(column) - i32(side / 2u);
    for (var i = 0u; i < side; i++) {
        let above = row + i;
        if above < side / 2u || above - side / 2u >= height {
            continue;
        }
        let line = (picture * height + above - side / 2u) * width;
        var inputs = vec4<f32>(
            input(line, left, channel),
            input(line, left + 1, channel),
            input(line, left + 2, channel),
            input(line, left + 3, channel),
        );
        for (var j = 0u; j < side; j++) {
            sums += taps[(i * side + j) * channels + channel] * inputs;
            inputs = vec4<f32>(inputs.yzw, input(line, left + 4 + i32(j), channel));
        }
    }
    let cell = (picture * height + row) * width + column;
    for (var k = 0u; k < min(4u, width - column); k++) {
        y[(cell + k) * channels + channel] = sums[k];
    }
}
