// conv2d: convolution of a channels-first feature map, plus bias.
//
//   x        [B, C, H, W]      zero-padded by P on every side
//   weights  [O, C/G, K, K]    output o reads the channels of group o / (O/G)
//   bias     [O]
//   y        [B, O, H', W']    bias + sum over c, i, j of weights[c, i, j] * x[c, row * S + i - P, column * S + j - P]
//
// One thread makes one output; neighboring threads take neighboring columns. 2*K*K*C/G operations per output, and as
// many reads of inputs and weights, most of them from the caches: for the first convolution of a detector (three
// channels) and for depthwise convolutions with a stride. Others are matrix products.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> u: Uniforms;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let height = u.height;
    let width = u.width;
    let kernel_size = u.kernel_size;
    let padding = u.padding;
    let out_width = u.out_width;
    let out_height = u.out_height;
    let index = workgroup_index(group, groups) * WORKGROUP_SIZE + thread;
    let column = index % out_width * u.stride;
    let row = index / out_width % out_height * u.stride;
    let map = index / out_width / out_height;
    let output = map % u.outputs;
    let image = map / u.outputs;
    if image >= u.batch {
        return;
    }
    let group_channels = u.channels / u.groups;
    let first_channel = output / (u.outputs / u.groups) * group_channels;
    var sum = bias[output];
    for (var c = 0u; c < group_channels; c++) {
        let map_start = (image * u.channels + first_channel + c) * height;
        let weights_start = (output * group_channels + c) * kernel_size;
        for (var i = 0u; i < kernel_size; i++) {
            let padded_row = row + i;
            if padded_row < padding || padded_row - padding >= height {
                continue;
            }
            let row_start = (map_start + padded_row - padding) * width;
            for (var j = 0u; j < kernel_size; j++) {
                let padded_column = column + j;
                if padded_column >= padding && padded_column - padding < width {
                    sum += weights[(weights_start + i) * kernel_size + j] * x[row_start + padded_column - padding];
                }
            }
        }
    }
    y[index] = sum;
}
