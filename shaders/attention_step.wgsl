// attention_step: one query per head over a stretch of the cache.
//
//   q         [H, W]
//   keys      [G, C, W]        query heads h/(H/G) share a key head
//   values    [G, C, W]
//   position  [1]              of the query, less P: keys 0 ..= P + position are seen
//   stretch_sums  [H, S, W + 2]    sum of exp(score - top) * value, then top, then sum of exp
//   sizes                      H, G, W, C and S, bits of the scores' factor, P, 0
//
// A workgroup of $GROUP takes one head and $STRETCH keys: first each invocation the scores of some
// keys, then each four channels of some of the values. A stretch beyond the query leaves top = -inf.
// Reads 2 * W numbers of the cache per key; attention_join adds the stretches up. W is a multiple of
// 4 and at most 4 * $GROUP.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> keys: array<Four>;
@group(0) @binding(2) var<storage, $INPUT> values: array<Four>;
@group(0) @binding(3) var<storage, $INPUT> position: array<u32>;
@group(0) @binding(4) var<storage, read_write> stretch_sums: array<f32>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

const LOWEST = -3.4e38;

var<workgroup> scores: array<f32, $STRETCH>;
var<workgroup> lanes: array<f32, $GROUP>;
var<workgroup> mixtures: array<vec4<f32>, $GROUP>;

// import group_sum

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let heads = sizes[0].x;
    let width = sizes[0].z;
    let capacity = sizes[0].w;
    let stretches = sizes[1].x;
    let flat_group = group.y * groups.x + group.x;
    let head = flat_group / stretches;
    if head >= heads {
        return;
    }
    let stretch = flat_group % stretches;
    let key_head = head / (heads / sizes[0].y);
    let first = stretch * $STRETCHu;
    let seen = min(sizes[1].z + position[0] + 1u, capacity);
    let count = clamp(seen, first, first + $STRETCHu) - first;
    let vectors = width / 4u;

    var top = LOWEST;
    for (var at = lane; at < count; at += $GROUPu) {
        let row = (key_head * capacity + first + at) * vectors;
        var sum = 0.0;
        for (var i = 0u; i < vectors; i++) {
            sum += dot(q[head * vectors + i], loaded(keys[row + i]));
        }
        sum *= bitcast<f32>(sizes[1].y);
        scores[at] = sum;
        top = max(top, sum);
    }
    lanes[lane] = top;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            lanes[lane] = max(lanes[lane], lanes[lane + reach]);
        }
        workgroupBarrier();
    }
    top = lanes[0];
    workgroupBarrier();
    var total = 0.0;
    for (var at = lane; at < count; at += $GROUPu) {
        let weight = exp(scores[at] - top);
        scores[at] = weight;
        total += weight;
    }
    total = group_sum(lane, total);
    let part = flat_group * (width + 2u);
    let vector = lane % vectors;
    let slots = $GROUPu / vectors;
    let slot = lane / vectors;
    var mixture = vec4<f32>();
    if slot < slots {
        for (var at = slot; at < count; at += slots) {
            let row = (key_head * capacity + first + at) * vectors;
            mixture += scores[at] * loaded(values[row + vector]);
        }
    }
    mixtures[lane] = mixture;
    workgroupBarrier();
    if lane < vectors {
        for (var other = 1u; other < slots; other++) {
            mixture += mixtures[other * vectors + lane];
        }
        for (var i = 0u; i < 4u; i++) {
            stretch_sums[part + lane * 4u + i] = mixture[i];
        }
    }
    if lane == 0u {
        stretch_sums[part + width] = top;
        stretch_sums[part + width + 1u] = total;
    }
}
