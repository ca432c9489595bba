// deform_attention: every query samples a few points of every level of a pyramid and mixes them.
//
//   value      [B, S, H, D]       levels one after the other, each row-major; D in steps of $CHANNELS
//   locations  [B, Q, H, L, P]    (x, y), 0 and 1 at the outer edges of a level
//   weights    [B, Q, H, L, P]
//   mixed      [B, Q, H, D]       sum over l, p of weights * bilinear(value of level l, locations)
//   sizes                         B, Q, H, D/$CHANNELS and S, L, P, 0; then for every level
//                                 height, width, first cell, 0
//
// A neighbour outside its level counts as zero (half-pixel rule, corners not aligned). One invocation
// makes $CHANNELS channels of one query and head; neighbours in a workgroup read neighbouring
// channels of the same four cells. 4 multiply-adds per sample and channel: 89,023 queries of 256
// channels and 20 samples take 1.8 G of them and read some 0.3 GB beyond the caches.

@group(0) @binding(0) var<storage, $INPUT> value: array<Channels>;
@group(0) @binding(1) var<storage, $INPUT> locations: array<vec2<f32>>;
@group(0) @binding(2) var<storage, $INPUT> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> mixed: array<Channels>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, $SIZES>;

// import $WIDTH

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let queries = sizes[0].y;
    let heads = sizes[0].z;
    let width = sizes[0].w;
    let cells = sizes[1].x;
    let levels = sizes[1].y;
    let points = sizes[1].z;
    let index = (group.y * groups.x + group.x) * $GROUPu + lane;
    let channel = index % width;
    let row = index / width; // picture, query and head
    let head = row % heads;
    let picture = row / heads / queries;
    if picture >= sizes[0].x {
        return;
    }
    var sum = Channels(0.0);
    var sample = row * levels * points;
    for (var level = 0u; level < levels; level++) {
        let size = sizes[2u + level];
        let extent = vec2<f32>(size.yx);
        let start = picture * cells + size.z;
        for (var point = 0u; point < points; point++) {
            let at = locations[sample] * extent - 0.5;
            let weight = weights[sample];
            sample++;
            if !(all(at > vec2<f32>(-1.0)) && all(at < extent)) {
                continue;
            }
            let corner = floor(at);
            let share = at - corner;
            let upper = vec2<i32>(corner);
            var bilinear = Channels(0.0);
            for (var neighbour = 0u; neighbour < 4u; neighbour++) {
                let step = vec2<u32>(neighbour % 2u, neighbour / 2u);
                let cell = upper + vec2<i32>(step);
                if all(cell >= vec2<i32>(0)) && all(cell < vec2<i32>(size.yx)) {
                    let near = select(1.0 - share, share, step == vec2<u32>(1u));
                    let token = start + u32(cell.y) * size.y + u32(cell.x);
                    bilinear += near.x * near.y * value[(token * heads + head) * width + channel];
                }
            }
            sum += weight * bilinear;
        }
    }
    mixed[index] = sum;
}
