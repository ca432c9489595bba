// attention_step: one query per head over a stretch of the cache.
//
//   q         [H, W]
//   keys      [G, C, W]        query heads h/(H/G) share a key head
//   values    [G, C, W]
//   position  [1]              of the query, less P: keys 0 ..= P + position are seen
//   stretch_sums  [H, S, W + 2]    sum of exp(score - top) * value, then top, then sum of exp
//   sizes                      H, G, W, C and S, bits of the scores' factor, P, 0
//
// A workgroup of $GROUP takes one head and $STRETCH keys: eight invocations a key for the scores, so
// that they read a row side by side, then each four channels of some of the values. A stretch beyond
// the query leaves top = -inf. Reads 2 * W numbers of the cache per key; attention_join adds the
// stretches up. W is a multiple of 4 and at most 4 * $GROUP; $STRETCH is at most $GROUP.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> keys: array<Four>;
@group(0) @binding(2) var<storage, $INPUT> values: array<Four>;
@group(0) @binding(3) var<storage, $INPUT> position: array<u32>;
@group(0) @binding(4) var<storage, read_write> stretch_sums: array<f32>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

const LOWEST = -3.4e38;
const SHARES = 8u;

var<workgroup> shares: array<f32, $STRETCH * 8>;
var<workgroup> scores: array<f32, $STRETCH>;
var<workgroup> mixtures: array<vec4<f32>, $GROUP>;

fn query_part(head: u32, vector: u32) -> vec4<f32> {
    let vectors = sizes[0].z / 4u;
    if vector >= vectors {
        return vec4<f32>();
    }
    return q[head * vectors + vector];
}

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

    let share = lane % SHARES;
    let query = array<vec4<f32>, 4>(
        query_part(head, share), query_part(head, share + 8u), query_part(head, share + 16u), query_part(head, share + 24u),
    );
    for (var at = lane / SHARES; at < count; at += $GROUPu / SHARES) {
        let row = (key_head * capacity + first + at) * vectors;
        // Past the last vector the query is 0.
        let a = loaded(keys[row + min(share, vectors - 1u)]);
        let b = loaded(keys[row + min(share + 8u, vectors - 1u)]);
        let c = loaded(keys[row + min(share + 16u, vectors - 1u)]);
        let d = loaded(keys[row + min(share + 24u, vectors - 1u)]);
        shares[at * SHARES + share] = dot(query[0], a) + dot(query[1], b) + dot(query[2], c) + dot(query[3], d);
    }
    workgroupBarrier();
    var score = LOWEST;
    if lane < count {
        score = 0.0;
        for (var i = 0u; i < SHARES; i++) {
            score += shares[lane * SHARES + i];
        }
        score *= bitcast<f32>(sizes[1].y);
        scores[lane] = score;
    }
    workgroupBarrier();
    var top = LOWEST;
    for (var at = 0u; at < count; at++) {
        top = max(top, scores[at]);
    }
    workgroupBarrier();
    if lane < count {
        scores[lane] = exp(score - top);
    }
    workgroupBarrier();
    let part = flat_group * (width + 2u);
    let vector = lane % vectors;
    let slots = $GROUPu / vectors;
    let slot = lane / vectors;
    var mixture = vec4<f32>();
    if slot < slots {
        var row = (key_head * capacity + first + slot) * vectors + vector;
        let apart = slots * vectors;
        var at = slot;
        for (; at + 3u * slots < count; at += 4u * slots) {
            let a = loaded(values[row]);
            let b = loaded(values[row + apart]);
            let c = loaded(values[row + 2u * apart]);
            let d = loaded(values[row + 3u * apart]);
            mixture += scores[at] * a + scores[at + slots] * b
                + scores[at + 2u * slots] * c + scores[at + 3u * slots] * d;
            row += 4u * apart;
        }
        for (; at < count; at += slots) {
            mixture += scores[at] * loaded(values[row]);
            row += apart;
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
        var total = 0.0;
        for (var at = 0u; at < count; at++) {
            total += scores[at];
        }
        stretch_sums[part + width] = top;
        stretch_sums[part + width + 1u] = total;
    }
}
