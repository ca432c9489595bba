// roi_align: every cell of a grid over a box, as the mean of bilinear samples of a feature map.
//
//   features  [H, W, C]      one pyramid level, channels last
//   boxes     [N, 4]         left, top, right, bottom in map cells
//   aligned   [N, S, S, C]   S * S cells of each box
//   sizes                    N, H, W, C and S, 0, 0, 0
//
// A box is at least one map cell wide and high. A cell of the grid has as many samples along a side
// as it is map cells long, rounded up; a sample more than a map cell outside adds nothing and counts
// in the mean. One invocation writes one channel of one cell; neighbours take neighbouring channels.
// Every sample reads four map cells: it is there to check roi_pool, which reads each once.

@group(0) @binding(0) var<storage, $INPUT> features: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> boxes: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> aligned: array<f32>;
@group(0) @binding(3) var<uniform> sizes: array<vec4<u32>, 2>;

// The two cells around a sample on an axis, and the share of the second.
struct Pair {
    lower: u32,
    upper: u32,
    share: f32,
}

fn pair(at: f32, extent: u32) -> Pair {
    let inside = max(at, 0.0);
    let lower = min(u32(inside), extent - 1u);
    if lower + 1u == extent {
        return Pair(lower, lower, 0.0);
    }
    return Pair(lower, lower + 1u, inside - f32(lower));
}

// The first of `count` samples, from `low` on and `step` apart, that can lie on the map.
fn first_sample(low: f32, step: f32, count: f32) -> u32 {
    return u32(clamp((-1.0 - low) / step - 2.0, 0.0, count));
}

fn last_sample(low: f32, step: f32, count: f32, extent: f32) -> u32 {
    return u32(clamp((extent - low) / step + 2.0, 0.0, count));
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
    let tiles = (channels + $GROUPu - 1u) / $GROUPu;
    let flat_group = group.y * groups.x + group.x;
    let channel = flat_group % tiles * $GROUPu + lane;
    let cell = flat_group / tiles; // box, row and column
    if cell >= sizes[0].x * side * side || channel >= channels {
        return;
    }
    let corners = boxes[cell / side / side];
    let extent = vec2<f32>(f32(width), f32(height));
    let length = max(corners.zw - corners.xy, vec2<f32>(1.0)) / f32(side);
    let counts = ceil(length);
    let place = vec2<f32>(f32(cell % side), f32(cell / side % side));
    let low = corners.xy + place * length;
    let step = length / counts;
    let end_y = last_sample(low.y, step.y, counts.y, extent.y);
    let end_x = last_sample(low.x, step.x, counts.x, extent.x);
    var sum = 0.0;
    for (var i = first_sample(low.y, step.y, counts.y); i < end_y; i++) {
        let y = low.y + (f32(i) + 0.5) * length.y / counts.y;
        if y < -1.0 || y > extent.y {
            continue;
        }
        let rows = pair(y, height);
        for (var j = first_sample(low.x, step.x, counts.x); j < end_x; j++) {
            let x = low.x + (f32(j) + 0.5) * length.x / counts.x;
            if x < -1.0 || x > extent.x {
                continue;
            }
            let columns = pair(x, width);
            let upper_left = features[(rows.lower * width + columns.lower) * channels + channel];
            let upper_right = features[(rows.lower * width + columns.upper) * channels + channel];
            let lower_left = features[(rows.upper * width + columns.lower) * channels + channel];
            let lower_right = features[(rows.upper * width + columns.upper) * channels + channel];
            sum += mix(
                mix(upper_left, upper_right, columns.share),
                mix(lower_left, lower_right, columns.share),
                rows.share,
            );
        }
    }
    aligned[cell * channels + channel] = sum / (counts.x * counts.y);
}
