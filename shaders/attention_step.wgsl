// attention_step: one query per head over a stretch of the cache.
//
//   q         [H, W]
//   keys      [G, C, W]        query heads h/(H/G) share a key head
//   values    [G, C, W]
//   position  [1]              of the query, less P: keys 0 ..= P + position are seen
//   stretch_sums  [H, S, W + 2]    sum of exp(score - top) * value, then top, then sum of exp
//   sizes                      H, G, W, C and S, bits of the scores' factor, P, 0
//
// A workgroup of $GROUP takes one head and $STRETCH keys, a quarter of $GROUP: eight invocations a key for
// the scores, so that they read a row side by side, then each four channels of up to eight values. All
// that it reads is on its way before anything waits: it is little, and waiting is what takes long. A
// stretch beyond the query leaves top = -inf. Reads 2 * W numbers of the cache per key; attention_join
// adds the stretches up. W is a multiple of 4 and at most 128.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> keys: array<Four>;
@group(0) @binding(2) var<storage, $INPUT> values: array<Four>;
@group(0) @binding(3) var<storage, $INPUT> position: array<u32>;
@group(0) @binding(4) var<storage, read_write> stretch_sums: array<vec2<f32>>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

const LOWEST = -3.4e38;
const SHARES = 8u;

// Of each key eight shares, and one place left free.
var<workgroup> shares: array<f32, $STRETCH * 9>;
var<workgroup> scores: array<f32, $STRETCH>;
var<workgroup> mixtures: array<vec4<f32>, $GROUP>;
var<workgroup> totals: array<f32, $GROUP>;

fn query_part(head: u32, vector: u32) -> vec4<f32> {
    let vectors = sizes[0].z / 4u;
    if vector >= vectors {
        return vec4<f32>();
    }
    return q[head * vectors + vector];
}

// A share of a key: every eighth vector, the last one in place of those past it.
struct Share {
    a: Four,
    b: Four,
    c: Four,
    d: Four,
}

fn key_share(row: u32, share: u32) -> Share {
    let vectors = sizes[0].z / 4u;
    let last = vectors - 1u;
    return Share(
        keys[row * vectors + min(share, last)],
        keys[row * vectors + min(share + SHARES, last)],
        keys[row * vectors + min(share + 2u * SHARES, last)],
        keys[row * vectors + min(share + 3u * SHARES, last)],
    );
}

// Times the same share of the query, which is 0 past the last vector.
fn product(query: array<vec4<f32>, 4>, key: Share) -> f32 {
    return dot(query[0], loaded(key.a)) + dot(query[1], loaded(key.b))
        + dot(query[2], loaded(key.c)) + dot(query[3], loaded(key.d));
}

fn highest(first: u32) -> f32 {
    return max(max(scores[first], scores[first + 1u]), max(scores[first + 2u], scores[first + 3u]));
}

// What key `at` of `count` counts for.
fn weight(at: u32, count: u32, top: f32) -> f32 {
    return select(0.0, exp(scores[min(at, $STRETCHu - 1u)] - top), at < count);
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
    let near = lane / SHARES;
    let far = near + $GROUPu / SHARES;
    let vector = lane % vectors;
    let slots = $GROUPu / vectors;
    let slot = lane / vectors;
    let query = array<vec4<f32>, 4>(
        query_part(head, share), query_part(head, share + 8u), query_part(head, share + 16u), query_part(head, share + 24u),
    );
    var key0: Share;
    var key1: Share;
    var value0: Four;
    var value1: Four;
    var value2: Four;
    var value3: Four;
    var value4: Four;
    var value5: Four;
    var value6: Four;
    var value7: Four;
    if count > 0u {
        // The last key in place of those past it, which count for nothing.
        let row = key_head * capacity + first;
        let last = count - 1u;
        key0 = key_share(row + min(near, last), share);
        key1 = key_share(row + min(far, last), share);
        value0 = values[(row + min(slot, last)) * vectors + vector];
        value1 = values[(row + min(slot + slots, last)) * vectors + vector];
        if 2u * slots < $STRETCHu {
            value2 = values[(row + min(slot + 2u * slots, last)) * vectors + vector];
            value3 = values[(row + min(slot + 3u * slots, last)) * vectors + vector];
        }
        if 4u * slots < $STRETCHu {
            value4 = values[(row + min(slot + 4u * slots, last)) * vectors + vector];
            value5 = values[(row + min(slot + 5u * slots, last)) * vectors + vector];
            value6 = values[(row + min(slot + 6u * slots, last)) * vectors + vector];
            value7 = values[(row + min(slot + 7u * slots, last)) * vectors + vector];
        }
    }
    shares[near * 9u + share] = product(query, key0);
    shares[far * 9u + share] = product(query, key1);
    workgroupBarrier();
    if lane < $STRETCHu {
        let at = lane * 9u;
        let score = (shares[at] + shares[at + 1u]) + (shares[at + 2u] + shares[at + 3u])
            + (shares[at + 4u] + shares[at + 5u]) + (shares[at + 6u] + shares[at + 7u]);
        scores[lane] = select(LOWEST, score * bitcast<f32>(sizes[1].y), lane < count);
    }
    workgroupBarrier();
    var top = LOWEST;
    for (var at = 0u; at < $STRETCHu; at += 8u) {
        top = max(top, max(highest(at), highest(at + 4u)));
    }
    var mixture = vec4<f32>();
    var total = 0.0;
    if slot < slots {
        let w0 = weight(slot, count, top);
        let w1 = weight(slot + slots, count, top);
        let w2 = weight(slot + 2u * slots, count, top);
        let w3 = weight(slot + 3u * slots, count, top);
        let w4 = weight(slot + 4u * slots, count, top);
        let w5 = weight(slot + 5u * slots, count, top);
        let w6 = weight(slot + 6u * slots, count, top);
        let w7 = weight(slot + 7u * slots, count, top);
        total = w0 + w1 + w2 + w3 + w4 + w5 + w6 + w7;
        mixture = w0 * loaded(value0) + w1 * loaded(value1) + w2 * loaded(value2) + w3 * loaded(value3)
            + w4 * loaded(value4) + w5 * loaded(value5) + w6 * loaded(value6) + w7 * loaded(value7);
    }
    mixtures[lane] = mixture;
    totals[lane] = total;
    workgroupBarrier();
    let part = flat_group * (width / 2u + 1u);
    if lane < vectors {
        for (var other = lane + vectors; other < slots * vectors; other += vectors) {
            mixture += mixtures[other];
            total += totals[other];
        }
        stretch_sums[part + 2u * lane] = mixture.xy;
        stretch_sums[part + 2u * lane + 1u] = mixture.zw;
    }
    if lane == 0u {
        stretch_sums[part + width / 2u] = vec2<f32>(top, total);
    }
}
