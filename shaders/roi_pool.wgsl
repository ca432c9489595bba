// roi_pool: weighted sums of a feature map, one per box, with separable weights.
//
//   features    [B, H, W, C]  one pyramid level, channels last
//   vertical    [B, N, H]     weight of every row for every box
//   horizontal  [B, N, W]     weight of every column for every box
//   spans       [B, N, 4]     rows from..to, columns from..to; weights outside are zero
//   pooled      [B, N, C]     sum over y, x of vertical[y] * features[y, x] * horizontal[x]
//   sizes                     B, N, H, W and C, 0, 0, 0
//
// One invocation writes one channel of one box; a workgroup takes $GROUP neighbouring channels of
// one box, so that reads of the map are contiguous. A box costs its own area only.

@group(0) @binding(0) var<storage, $INPUT> features: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> vertical: array<f32>;
@group(0) @binding(2) var<storage, $INPUT> horizontal: array<f32>;
@group(0) @binding(3) var<storage, $INPUT> spans: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> pooled: array<f32>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let boxes = sizes[0].y;
    let height = sizes[0].z;
    let width = sizes[0].w;
    let channels = sizes[1].x;
    let tiles = (channels + $GROUPu - 1u) / $GROUPu;
    let flat_group = group.y * groups.x + group.x;
    let row = flat_group / tiles; // picture and box
    let channel = flat_group % tiles * $GROUPu + lane;
    if row >= sizes[0].x * boxes || channel >= channels {
        return;
    }
    let picture = row / boxes;
    let span = spans[row];
    var sum = 0.0;
    for (var y = span.x; y < span.y; y++) {
        let line = (picture * height + y) * width;
        var line_sum = 0.0;
        for (var x = span.z; x < span.w; x++) {
            line_sum += features[(line + x) * channels + channel] * horizontal[row * width + x];
        }
        sum += line_sum * vertical[row * height + y];
    }
    pooled[row * channels + channel] = sum;
}
