// deform_attention: multi-scale deformable attention. Every query samples a few points of each level of a
// feature pyramid and adds them with its own weights (Deformable DETR, arXiv 2010.04159).
//
//   value      [B, S, H, D]       levels one after the other, each row-major
//   locations  [B, Q, H, L, P]    (x, y), 0 and 1 at the outer edges of a level
//   weights    [B, Q, H, L, P]
//   out        [B, Q, H, D]       sum over l, p of weights * bilinear(value of level l, locations)
//
// Half-pixel centers (align_corners = false); a neighbor outside its level counts as zero. One thread makes
// one `Channels` of one query and head: one channel, or four where D is a multiple of 4. Threads of a
// workgroup read neighboring channels of the same four cells. 4 multiply-adds per sample and channel: 89,023
// queries of 256 channels and 20 samples take 1.8 G of them and read 0.3 GB beyond the caches.

@group(0) @binding(0) var<storage, read> value: array<Channels>;
@group(0) @binding(1) var<storage, read> locations: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<Channels>;
@group(0) @binding(4) var<uniform> u: Uniforms;

// import CHANNELS

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let heads = u.heads;
    let vectors = u.head_vectors;
    let points = u.points;
    let index = workgroup_index(group, groups) * WORKGROUP_SIZE + thread;
    let channel = index % vectors;
    let row = index / vectors; // [image, query, head]
    let head = row % heads;
    let image = row / heads / u.queries;
    if image >= u.batch {
        return;
    }
    var sum = Channels(0.0);
    var sample = row * u.level_count * points;
    for (var l = 0u; l < u.level_count; l++) {
        let level = u.levels[l];
        let height_width = level.xy;
        let extent = vec2<f32>(height_width.yx);
        let start = image * u.cells + level.z;
        for (var point = 0u; point < points; point++) {
            let at = locations[sample] * extent - 0.5;
            let weight = weights[sample];
            sample++;
            if !(all(at > vec2<f32>(-1.0)) && all(at < extent)) {
                continue;
            }
            let corner = floor(at);
            let fraction = at - corner;
            let upper_left = vec2<i32>(corner);
            var bilinear = Channels(0.0);
            for (var neighbor = 0u; neighbor < 4u; neighbor++) {
                let step = vec2<u32>(neighbor % 2u, neighbor / 2u);
                let cell = upper_left + vec2<i32>(step);
                if all(cell >= vec2<i32>(0)) && all(cell < vec2<i32>(height_width.yx)) {
                    let factor = select(1.0 - fraction, fraction, step == vec2<u32>(1u));
                    let token = start + u32(cell.y) * height_width.y + u32(cell.x);
                    bilinear += factor.x * factor.y * value[(token * heads + head) * vectors + channel];
                }
            }
            sum += weight * bilinear;
        }
    }
    out[index] = sum;
}
