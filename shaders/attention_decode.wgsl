// attention_decode: one row joins the cache and attends to it: one query per head over a stretch of keys.
//
//   q_in, k_in, v_in   the row begins at an OFFSET of its own, all multiples of 4
//   angles    [C, W]       cosines, then sines, W/2 of each, of every position
//   position  [1]          of the row, less P: keys 0 ..= P + position are seen
//   stretch_sums  [H, S, W + 2]    sum of exp(score - top) * value, then top, then sum of exp
//   keys      [G, C, W]    the cache, turned; query heads h/(H/G) share a key head
//   values    [G, C, W]    the cache, not turned
//   sizes                  H, G, W, C and S, bits of the scores' factor, P, 0 and offsets of q, k, v, 0
//
// Half-split rotary embedding as in rope_write. The row's own key and value are computed wherever they are
// needed, and one workgroup of each key head lays them into the cache, where none reads them yet.
//
// A workgroup of $GROUP takes one head and $STRETCH keys, a quarter of $GROUP: eight invocations a key for
// the scores, so that they read a row side by side, then each four channels of up to eight values. All
// that it reads is on its way before anything waits: it is little, and waiting is what takes long. A
// stretch beyond the query leaves top = -inf. Reads 2 * W numbers of the cache per key; attention_join
// adds the stretches up. W is a multiple of 8 and at most 128.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q_in: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> k_in: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> v_in: array<vec4<f32>>;
@group(0) @binding(3) var<storage, $INPUT> angles: array<vec4<f32>>;
@group(0) @binding(4) var<storage, $INPUT> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> stretch_sums: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> keys: array<Four>;
@group(0) @binding(7) var<storage, read_write> values: array<Four>;
@group(0) @binding(8) var<uniform> sizes: array<vec4<u32>, 3>;

const LOWEST = -3.4e38;
const SHARES = 8u;

// The turned query; past its last vector 0.
var<workgroup> query: array<vec4<f32>, 32>;
// Of each key eight shares, and one place left free.
var<workgroup> shares: array<f32, $STRETCH * 9>;
var<workgroup> scores: array<f32, $STRETCH>;
var<workgroup> mixtures: array<vec4<f32>, $GROUP>;
var<workgroup> totals: array<f32, $GROUP>;

// Vector `vector` of a head, which is `four` and has the partner `other`, turned for `place`.
fn turned(four: vec4<f32>, other: vec4<f32>, vector: u32, place: u32) -> vec4<f32> {
    let vectors = sizes[0].z / 4u;
    let half = vectors / 2u;
    let cosine = angles[place * vectors + vector % half];
    let sine = angles[place * vectors + half + vector % half];
    return four * cosine + select(other, -other, vector < half) * sine;
}

// The vector that `vector` of a head is turned with.
fn partner(vector: u32) -> u32 {
    let half = sizes[0].z / 8u;
    return select(vector - half, vector + half, vector < half);
}

// Vector `vector` of a query.
fn query_part(head: u32, vector: u32, place: u32) -> vec4<f32> {
    let first = sizes[2].x / 4u + head * (sizes[0].z / 4u);
    return turned(q_in[first + vector], q_in[first + partner(vector)], vector, place);
}

// Vector `vector` of the row's own key, as the cache holds it.
fn own_key(key_head: u32, vector: u32, place: u32) -> Four {
    let first = sizes[2].y / 4u + key_head * (sizes[0].z / 4u);
    return stored_four(turned(k_in[first + vector], k_in[first + partner(vector)], vector, place));
}

// A share of a key: every eighth vector, the last one in place of those past it.
struct Share {
    a: Four,
    b: Four,
    c: Four,
    d: Four,
}

// Of the key in row `row` of the cache, which is the row's own where `own` says so.
fn key_share(row: u32, share: u32, own: bool, key_head: u32, place: u32) -> Share {
    let vectors = sizes[0].z / 4u;
    let last = vectors - 1u;
    let at = min(vec4<u32>(share) + vec4<u32>(0u, 8u, 16u, 24u), vec4<u32>(last));
    if own {
        return Share(
            own_key(key_head, at.x, place),
            own_key(key_head, at.y, place),
            own_key(key_head, at.z, place),
            own_key(key_head, at.w, place),
        );
    }
    let first = row * vectors;
    return Share(keys[first + at.x], keys[first + at.y], keys[first + at.z], keys[first + at.w]);
}

// Lays a share of a key into row `row` of the cache.
fn keep_share(key: Share, row: u32, share: u32) {
    let vectors = sizes[0].z / 4u;
    let first = row * vectors + share;
    if share < vectors {
        keys[first] = key.a;
    }
    if share + 8u < vectors {
        keys[first + 8u] = key.b;
    }
    if share + 16u < vectors {
        keys[first + 16u] = key.c;
    }
    if share + 24u < vectors {
        keys[first + 24u] = key.d;
    }
}

// Vector `vector` of value `at` of a stretch whose cache begins at row `row`; `own` is the row's own place
// in the stretch.
fn value_at(at: u32, row: u32, vector: u32, own: u32, key_head: u32) -> Four {
    let vectors = sizes[0].z / 4u;
    if at == own {
        return stored_four(v_in[sizes[2].z / 4u + key_head * vectors + vector]);
    }
    return values[(row + at) * vectors + vector];
}

// Times the same share of the query.
fn product(key: Share, share: u32) -> f32 {
    return dot(query[share], loaded(key.a)) + dot(query[share + 8u], loaded(key.b))
        + dot(query[share + 16u], loaded(key.c)) + dot(query[share + 24u], loaded(key.d));
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
    let group_heads = heads / sizes[0].y;
    let key_head = head / group_heads;
    let first = stretch * $STRETCHu;
    // Past the cache's end a row is dropped, and attends to all.
    let place = sizes[1].z + position[0];
    let angle = min(place, capacity - 1u);
    let seen = min(place + 1u, capacity);
    let count = clamp(seen, first, first + $STRETCHu) - first;
    let vectors = width / 4u;

    let share = lane % SHARES;
    let near = lane / SHARES;
    let far = near + $GROUPu / SHARES;
    let vector = lane % vectors;
    let slots = $GROUPu / vectors;
    let slot = lane / vectors;
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
        // Wraps where the row is in another stretch.
        let own = place - first;
        let near_key = min(near, last);
        let far_key = min(far, last);
        key0 = key_share(row + near_key, share, near_key == own, key_head, angle);
        key1 = key_share(row + far_key, share, far_key == own, key_head, angle);
        value0 = value_at(min(slot, last), row, vector, own, key_head);
        value1 = value_at(min(slot + slots, last), row, vector, own, key_head);
        if 2u * slots < $STRETCHu {
            value2 = value_at(min(slot + 2u * slots, last), row, vector, own, key_head);
            value3 = value_at(min(slot + 3u * slots, last), row, vector, own, key_head);
        }
        if 4u * slots < $STRETCHu {
            value4 = value_at(min(slot + 4u * slots, last), row, vector, own, key_head);
            value5 = value_at(min(slot + 5u * slots, last), row, vector, own, key_head);
            value6 = value_at(min(slot + 6u * slots, last), row, vector, own, key_head);
            value7 = value_at(min(slot + 7u * slots, last), row, vector, own, key_head);
        }
        if head % group_heads == 0u && own < count {
            if near == own {
                keep_share(key0, row + own, share);
            }
            if far == own {
                keep_share(key1, row + own, share);
            }
            if slot == 0u {
                values[(row + own) * vectors + vector] = value_at(own, row, vector, own, key_head);
            }
        }
    }
    if lane < vectors {
        query[lane] = query_part(head, lane, angle);
    } else if lane < 32u {
        query[lane] = vec4<f32>();
    }
    workgroupBarrier();
    shares[near * 9u + share] = product(key0, share);
    shares[far * 9u + share] = product(key1, share);
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
