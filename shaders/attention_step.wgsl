// attention_step: one query per head over a stretch of the cache.
//
//   q         [H, W]
//   keys      [G, C, W]        query heads h/(H/G) share a key head
//   values    [G, C, W]
//   position  [1]              of the query, less P: keys 0 ..= P + position are seen
//   parts     [H, S, W + 2]    sum of exp(score - top) * value, then top, then sum of exp
//   sizes                      H, G, W, C and S, bits of the scores' factor, P, 0
//
// A workgroup of $GROUP takes one head and $STRETCH keys: first each invocation the scores of some
// keys, then each some channels of the sum. A stretch beyond the query leaves top = -inf. Reads
// W * 8 bytes of the cache per key; attention_join adds the stretches up.

@group(0) @binding(0) var<storage, $INPUT> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> keys: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> values: array<f32>;
@group(0) @binding(3) var<storage, $INPUT> position: array<u32>;
@group(0) @binding(4) var<storage, read_write> parts: array<f32>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

const LOWEST = -3.4e38;

var<workgroup> scores: array<f32, $STRETCH>;
var<workgroup> lanes: array<f32, $GROUP>;

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
            sum += dot(q[head * vectors + i], keys[row + i]);
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
    lanes[lane] = total;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            lanes[lane] += lanes[lane + reach];
        }
        workgroupBarrier();
    }
    let part = flat_group * (width + 2u);
    for (var i = lane; i < width; i += $GROUPu) {
        var sum = 0.0;
        for (var at = 0u; at < count; at++) {
            sum += scores[at] * values[(key_head * capacity + first + at) * width + i];
        }
        parts[part + i] = sum;
    }
    if lane == 0u {
        parts[part + width] = top;
        parts[part + width + 1u] = lanes[0];
    }
}
