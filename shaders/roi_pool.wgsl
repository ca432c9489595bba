// roi_pool: one weighted sum of a feature map per box, with separable weights.
//
//   features    [B, H, W, C]  one pyramid level, channels last
//   vertical    [B, N, H]     weight of every row for every box
//   horizontal  [B, N, W]     weight of every column for every box
//   spans       [B, N, 4]     begin and end row, begin and end column; weights outside are zero
//   out         [B, N, C]     sum over y, x of vertical[y] * features[y, x] * horizontal[x]
//
// One thread makes one channel of one box; a workgroup takes WORKGROUP_SIZE neighboring channels of one box,
// so that reads of the map are coalesced. A box costs only its own area.

@group(0) @binding(0) var<storage, read> features: array<f32>;
@group(0) @binding(1) var<storage, read> vertical: array<f32>;
@group(0) @binding(2) var<storage, read> horizontal: array<f32>;
@group(0) @binding(3) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> u: Uniforms;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let height = u.height;
    let width = u.width;
    let channels = u.channels;
    let channel_tiles = (channels + WORKGROUP_SIZE - 1u) / WORKGROUP_SIZE;
    let tile = workgroup_index(group, groups);
    let box = tile / channel_tiles; // [image, box]
    let channel = tile % channel_tiles * WORKGROUP_SIZE + thread;
    if box >= u.batch * u.boxes || channel >= channels {
        return;
    }
    let image = box / u.boxes;
    let span = spans[box];
    var sum = 0.0;
    for (var y = span.x; y < span.y; y++) {
        let row_start = (image * height + y) * width;
        var row_sum = 0.0;
        for (var x = span.z; x < span.w; x++) {
            row_sum += features[(row_start + x) * channels + channel] * horizontal[box * width + x];
        }
        sum += row_sum * vertical[box * height + y];
    }
    out[box * channels + channel] = sum;
}
