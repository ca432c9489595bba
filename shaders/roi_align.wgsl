// roi_align: RoIAlign of one feature map, as torchvision.ops.roi_align with sampling_ratio = -1 and
// aligned = false. It checks roi_pool, which reads each cell of the map once per box.
//
//   features  [H, W, C]      one pyramid level, channels last
//   boxes     [N, 4]         x1, y1, x2, y2 in cells of the map
//   out       [N, S, S, C]   mean of the bilinear samples of each of S * S bins
//
// A box is at least one cell wide and high. A bin has as many samples along an axis as its length in cells,
// rounded up; a sample more than one cell outside the map adds nothing and counts in the mean. One thread
// makes one channel of one bin; neighboring threads take neighboring channels. A sample reads four cells.

@group(0) @binding(0) var<storage, read> features: array<f32>;
@group(0) @binding(1) var<storage, read> boxes: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> u: Uniforms;

// The two cells around a sample on one axis, and the weight of the second.
struct Neighbors {
    lower: u32,
    upper: u32,
    fraction: f32,
}

fn neighbors(at: f32, extent: u32) -> Neighbors {
    let inside = max(at, 0.0);
    let lower = min(u32(inside), extent - 1u);
    if lower + 1u == extent {
        return Neighbors(lower, lower, 0.0);
    }
    return Neighbors(lower, lower + 1u, inside - f32(lower));
}

// Bounds of the samples that can be inside the map, of `count` samples `step` apart from `low` on.
fn first_sample(low: f32, step: f32, count: f32) -> u32 {
    return u32(clamp((-1.0 - low) / step - 2.0, 0.0, count));
}

fn end_sample(low: f32, step: f32, count: f32, extent: f32) -> u32 {
    return u32(clamp((extent - low) / step + 2.0, 0.0, count));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let width = u.width;
    let channels = u.channels;
    let bins = u.bins;
    let channel_tiles = (channels + WORKGROUP_SIZE - 1u) / WORKGROUP_SIZE;
    let tile = workgroup_index(group, groups);
    let channel = tile % channel_tiles * WORKGROUP_SIZE + thread;
    let bin = tile / channel_tiles; // [box, row, column]
    if bin >= u.boxes * bins * bins || channel >= channels {
        return;
    }
    let corners = boxes[bin / bins / bins];
    let extent = vec2<f32>(f32(width), f32(u.height));
    let bin_size = max(corners.zw - corners.xy, vec2<f32>(1.0)) / f32(bins);
    let counts = ceil(bin_size);
    let bin_xy = vec2<f32>(f32(bin % bins), f32(bin / bins % bins));
    let low = corners.xy + bin_xy * bin_size;
    let step = bin_size / counts;
    let end_y = end_sample(low.y, step.y, counts.y, extent.y);
    let end_x = end_sample(low.x, step.x, counts.x, extent.x);
    var sum = 0.0;
    for (var i = first_sample(low.y, step.y, counts.y); i < end_y; i++) {
        let y = low.y + (f32(i) + 0.5) * bin_size.y / counts.y;
        if y < -1.0 || y > extent.y {
            continue;
        }
        let rows = neighbors(y, u.height);
        for (var j = first_sample(low.x, step.x, counts.x); j < end_x; j++) {
            let x = low.x + (f32(j) + 0.5) * bin_size.x / counts.x;
            if x < -1.0 || x > extent.x {
                continue;
            }
            let columns = neighbors(x, width);
            let upper_left = features[(rows.lower * width + columns.lower) * channels + channel];
            let upper_right = features[(rows.lower * width + columns.upper) * channels + channel];
            let lower_left = features[(rows.upper * width + columns.lower) * channels + channel];
            let lower_right = features[(rows.upper * width + columns.upper) * channels + channel];
            sum += mix(
                mix(upper_left, upper_right, columns.fraction),
                mix(lower_left, lower_right, columns.fraction),
                rows.fraction,
            );
        }
    }
    out[bin * channels + channel] = sum / (counts.x * counts.y);
}
