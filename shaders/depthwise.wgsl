// depthwise: depthwise convolution of a channels-last feature map, plus bias.
//
//   x        [B, H, W, C]   zero-padded
//   weights  [K, K, C]      K odd, centered
//   bias     [C]
//   y        [B, H, W, C]   bias + sum over i, j of weights[i, j] * x[row + i - K/2, column + j - K/2]
//
// One thread makes one channel of four neighboring cells of a row, so that it reads each weight once and each
// input K times for the four; neighboring threads take neighboring channels. 8*B*H*W*C bytes beyond the
// caches and 2*K*K operations per element: ConvNeXt-Large's first stage, 192 x 192 x 192 with K = 7, takes
// 57 MB and 0.7 G operations.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> u: Uniforms;

// One channel of column `column` of the row that starts at cell `row_start`.
fn load_x(row_start: u32, column: i32, channel: u32) -> f32 {
    if column < 0 || column >= i32(u.width) {
        return 0.0;
    }
    return x[(row_start + u32(column)) * u.channels + channel];
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let height = u.height;
    let width = u.width;
    let channels = u.channels;
    let kernel_size = u.kernel_size;
    let strips = (width + 3u) / 4u;
    let index = workgroup_index(group, groups) * WORKGROUP_SIZE + thread;
    let channel = index % channels;
    let strip = index / channels; // [image, row, strip of four cells]
    let column = strip % strips * 4u;
    let row = strip / strips % height;
    let image = strip / strips / height;
    if image >= u.batch {
        return;
    }
    var sums = vec4<f32>(bias[channel]);
    let left = i32(column) - i32(kernel_size / 2u);
    for (var i = 0u; i < kernel_size; i++) {
        let padded_row = row + i;
        if padded_row < kernel_size / 2u || padded_row - kernel_size / 2u >= height {
            continue;
        }
        let row_start = (image * height + padded_row - kernel_size / 2u) * width;
        // A sliding window over the row: the inputs of the four outputs for column j of the kernel.
        var inputs = vec4<f32>(
            load_x(row_start, left, channel),
            load_x(row_start, left + 1, channel),
            load_x(row_start, left + 2, channel),
            load_x(row_start, left + 3, channel),
        );
        for (var j = 0u; j < kernel_size; j++) {
            sums += weights[(i * kernel_size + j) * channels + channel] * inputs;
            inputs = vec4<f32>(inputs.yzw, load_x(row_start, left + 4 + i32(j), channel));
        }
    }
    let cell = (image * height + row) * width + column;
    for (var k = 0u; k < min(4u, width - column); k++) {
        y[(cell + k) * channels + channel] = sums[k];
    }
}
