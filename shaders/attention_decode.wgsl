// attention_decode: attention of one row over the KV cache, split over the keys (split-KV); RoPE and the
// append of the row's own key and value to the cache are fused into it.
//
//   q_in, k_in, v_in   the row, from an offset of its own each, all multiples of 4
//   rope_table  [C, D]         see `rope`
//   position    [1]            the row has position past + position[0] and sees keys 0 ..= that
//   partials    [H, S, D + 2]  per head and split: acc = sum of exp(score - m) * value, then the maximum m,
//                              then l = sum of exp(score - m); m is LOWEST in a split past the row
//   keys        [G, C, D]      KV cache, rotated keys; query head h reads key head h / (H / G) (GQA)
//   values      [G, C, D]      KV cache
//
// A workgroup takes one head and one split of KV_SPLIT keys. It recomputes the row's own key and value where
// it needs them; the first query head of each key head writes them to the cache, where no other workgroup
// reads them. All loads are issued before the first barrier, since their latency is most of the cost. Reads
// 2 * D values of the cache per key; attention_combine adds the splits. D is a multiple of 8, at most 128; a
// row past the cache's end is dropped and sees all of the cache. WORKGROUP_SIZE is 4 * KV_SPLIT.
//
// Workgroup memory, 4352 bytes:
//   q             32 * 16 = 512     rotated query, zero past its last vector
//   dot_partials 288 *  4 = 1152    [key, KEY_THREADS], rows padded to 9 against bank conflicts
//   scores        32 *  4 = 128     [key]
//   acc_partials 128 * 16 = 2048    [key group, vector]
//   l_partials   128 *  4 = 512     [key group, vector]

// import KV

@group(0) @binding(0) var<storage, read> q_in: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k_in: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v_in: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rope_table: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> keys: array<KvQuad>;
@group(0) @binding(7) var<storage, read_write> values: array<KvQuad>;
@group(0) @binding(8) var<uniform> u: Uniforms;

// import constants
// import rope

// Threads that share the dot product of a key.
const KEY_THREADS = 8u;
const DOT_STRIDE = KEY_THREADS + 1u;

var<workgroup> q: array<vec4<f32>, 32>;
var<workgroup> dot_partials: array<f32, KV_SPLIT * DOT_STRIDE>;
var<workgroup> scores: array<f32, KV_SPLIT>;
var<workgroup> acc_partials: array<vec4<f32>, WORKGROUP_SIZE>;
var<workgroup> l_partials: array<f32, WORKGROUP_SIZE>;

// Vector `vector` of a head, rotated; `partner` is the unrotated vector of the other half.
fn rotated(x: vec4<f32>, partner: vec4<f32>, vector: u32, row_position: u32) -> vec4<f32> {
    let vectors = u.head_dim / 4u;
    let half = vectors / 2u;
    let angles = rope_angles(row_position, vector % half, vectors);
    return rope_rotate(x, select(partner, -partner, vector < half), angles);
}

// The vector of the other half of a head.
fn partner_of(vector: u32) -> u32 {
    let half = u.head_dim / 8u;
    return select(vector - half, vector + half, vector < half);
}

// Vector `vector` of the rotated query of a head.
fn query_vector(head: u32, vector: u32, row_position: u32) -> vec4<f32> {
    let first = u.q_offset / 4u + head * (u.head_dim / 4u);
    return rotated(q_in[first + vector], q_in[first + partner_of(vector)], vector, row_position);
}

// Vector `vector` of the row's own key, as the cache holds it.
fn new_key_vector(kv_head: u32, vector: u32, row_position: u32) -> KvQuad {
    let first = u.k_offset / 4u + kv_head * (u.head_dim / 4u);
    return pack_quad(
        rotated(k_in[first + vector], k_in[first + partner_of(vector)], vector, row_position),
    );
}

// Every KEY_THREADS-th vector of a key; past the last vector the last one again.
struct KeySlice {
    a: KvQuad,
    b: KvQuad,
    c: KvQuad,
    d: KvQuad,
}

// Slice `slice` of the key in row `cache_row` of the cache, or of the row's own key where `is_new`.
fn load_key_slice(
    cache_row: u32,
    slice: u32,
    is_new: bool,
    kv_head: u32,
    row_position: u32,
) -> KeySlice {
    let vectors = u.head_dim / 4u;
    let last = vectors - 1u;
    let at = min(vec4<u32>(slice) + vec4<u32>(0u, 8u, 16u, 24u), vec4<u32>(last));
    if is_new {
        return KeySlice(
            new_key_vector(kv_head, at.x, row_position),
            new_key_vector(kv_head, at.y, row_position),
            new_key_vector(kv_head, at.z, row_position),
            new_key_vector(kv_head, at.w, row_position),
        );
    }
    let first = cache_row * vectors;
    return KeySlice(
        keys[first + at.x], keys[first + at.y], keys[first + at.z], keys[first + at.w],
    );
}

// Writes a slice of a key to row `cache_row` of the cache.
fn store_key_slice(key: KeySlice, cache_row: u32, slice: u32) {
    let vectors = u.head_dim / 4u;
    let first = cache_row * vectors + slice;
    if slice < vectors {
        keys[first] = key.a;
    }
    if slice + 8u < vectors {
        keys[first + 8u] = key.b;
    }
    if slice + 16u < vectors {
        keys[first + 16u] = key.c;
    }
    if slice + 24u < vectors {
        keys[first + 24u] = key.d;
    }
}

// Vector `vector` of value `key` of a split that begins at row `first_row` of the cache; value `new_key` is
// the row's own.
fn load_value(key: u32, first_row: u32, vector: u32, new_key: u32, kv_head: u32) -> KvQuad {
    let vectors = u.head_dim / 4u;
    if key == new_key {
        return pack_quad(v_in[u.v_offset / 4u + kv_head * vectors + vector]);
    }
    return values[(first_row + key) * vectors + vector];
}

// The dot product of a slice with the same slice of the query.
fn dot_slice(key: KeySlice, slice: u32) -> f32 {
    return dot(q[slice], unpack_quad(key.a)) + dot(q[slice + 8u], unpack_quad(key.b))
        + dot(q[slice + 16u], unpack_quad(key.c)) + dot(q[slice + 24u], unpack_quad(key.d));
}

fn max_of_four_scores(first: u32) -> f32 {
    return max(max(scores[first], scores[first + 1u]), max(scores[first + 2u], scores[first + 3u]));
}

// exp(score - m); 0 for keys from `count` on.
fn softmax_weight(key: u32, count: u32, m: f32) -> f32 {
    return select(0.0, exp(scores[min(key, KV_SPLIT - 1u)] - m), key < count);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let splits = u.splits;
    let head_split = workgroup_index(group, groups);
    let head = head_split / splits;
    if head >= u.heads {
        return;
    }
    let split = head_split % splits;
    let heads_per_kv = u.heads / u.kv_heads;
    let kv_head = head / heads_per_kv;
    let first_key = split * KV_SPLIT;
    let row_position = u.past + position[0];
    let table_row = min(row_position, u.capacity - 1u);
    let visible = min(row_position + 1u, u.capacity);
    let count = clamp(visible, first_key, first_key + KV_SPLIT) - first_key;
    let vectors = u.head_dim / 4u;

    // For the scores a thread takes slice `slice` of keys `key_a` and `key_b`; for the values it takes vector
    // `vector` of every `key_groups`-th key from `key_group` on.
    let slice = thread % KEY_THREADS;
    let key_a = thread / KEY_THREADS;
    let key_b = key_a + WORKGROUP_SIZE / KEY_THREADS;
    let vector = thread % vectors;
    let key_groups = WORKGROUP_SIZE / vectors;
    let key_group = thread / vectors;
    var k_a: KeySlice;
    var k_b: KeySlice;
    var v0: KvQuad;
    var v1: KvQuad;
    var v2: KvQuad;
    var v3: KvQuad;
    var v4: KvQuad;
    var v5: KvQuad;
    var v6: KvQuad;
    var v7: KvQuad;
    if count > 0u {
        // 1. Load keys and values. Past the last key the last one is loaded again; its weight is 0.
        let first_row = kv_head * u.capacity + first_key;
        let last = count - 1u;
        // The row's own key in this split; wraps to at least `count` where it is in another split.
        let new_key = row_position - first_key;
        let load_a = min(key_a, last);
        let load_b = min(key_b, last);
        k_a = load_key_slice(first_row + load_a, slice, load_a == new_key, kv_head, table_row);
        k_b = load_key_slice(first_row + load_b, slice, load_b == new_key, kv_head, table_row);
        v0 = load_value(min(key_group, last), first_row, vector, new_key, kv_head);
        v1 = load_value(min(key_group + key_groups, last), first_row, vector, new_key, kv_head);
        if 2u * key_groups < KV_SPLIT {
            v2 = load_value(min(key_group + 2u * key_groups, last), first_row, vector, new_key, kv_head);
            v3 = load_value(min(key_group + 3u * key_groups, last), first_row, vector, new_key, kv_head);
        }
        if 4u * key_groups < KV_SPLIT {
            v4 = load_value(min(key_group + 4u * key_groups, last), first_row, vector, new_key, kv_head);
            v5 = load_value(min(key_group + 5u * key_groups, last), first_row, vector, new_key, kv_head);
            v6 = load_value(min(key_group + 6u * key_groups, last), first_row, vector, new_key, kv_head);
            v7 = load_value(min(key_group + 7u * key_groups, last), first_row, vector, new_key, kv_head);
        }
        // 2. Append the row's own key and value to the cache.
        if head % heads_per_kv == 0u && new_key < count {
            if key_a == new_key {
                store_key_slice(k_a, first_row + new_key, slice);
            }
            if key_b == new_key {
                store_key_slice(k_b, first_row + new_key, slice);
            }
            if key_group == 0u {
                values[(first_row + new_key) * vectors + vector] =
                    load_value(new_key, first_row, vector, new_key, kv_head);
            }
        }
    }
    // 3. Stage the rotated query.
    if thread < vectors {
        q[thread] = query_vector(head, thread, table_row);
    } else if thread < 32u {
        q[thread] = vec4<f32>();
    }
    workgroupBarrier();
    // 4. Scores: eight partial dot products per key, then their sum.
    dot_partials[key_a * DOT_STRIDE + slice] = dot_slice(k_a, slice);
    dot_partials[key_b * DOT_STRIDE + slice] = dot_slice(k_b, slice);
    workgroupBarrier();
    if thread < KV_SPLIT {
        let at = thread * DOT_STRIDE;
        let product = (dot_partials[at] + dot_partials[at + 1u])
            + (dot_partials[at + 2u] + dot_partials[at + 3u])
            + (dot_partials[at + 4u] + dot_partials[at + 5u])
            + (dot_partials[at + 6u] + dot_partials[at + 7u]);
        scores[thread] = select(LOWEST, product * u.scale, thread < count);
    }
    workgroupBarrier();
    // 5. Maximum and weights; every thread weighs its up to eight values.
    var m = LOWEST;
    for (var at = 0u; at < KV_SPLIT; at += 8u) {
        m = max(m, max(max_of_four_scores(at), max_of_four_scores(at + 4u)));
    }
    var acc = vec4<f32>();
    var l = 0.0;
    if key_group < key_groups {
        let w0 = softmax_weight(key_group, count, m);
        let w1 = softmax_weight(key_group + key_groups, count, m);
        let w2 = softmax_weight(key_group + 2u * key_groups, count, m);
        let w3 = softmax_weight(key_group + 3u * key_groups, count, m);
        let w4 = softmax_weight(key_group + 4u * key_groups, count, m);
        let w5 = softmax_weight(key_group + 5u * key_groups, count, m);
        let w6 = softmax_weight(key_group + 6u * key_groups, count, m);
        let w7 = softmax_weight(key_group + 7u * key_groups, count, m);
        l = w0 + w1 + w2 + w3 + w4 + w5 + w6 + w7;
        acc = w0 * unpack_quad(v0) + w1 * unpack_quad(v1)
            + w2 * unpack_quad(v2) + w3 * unpack_quad(v3)
            + w4 * unpack_quad(v4) + w5 * unpack_quad(v5)
            + w6 * unpack_quad(v6) + w7 * unpack_quad(v7);
    }
    acc_partials[thread] = acc;
    l_partials[thread] = l;
    workgroupBarrier();
    // 6. Add the key groups and store the partials of this split.
    let start = head_split * (u.head_dim / 2u + 1u);
    if thread < vectors {
        for (var other = thread + vectors; other < key_groups * vectors; other += vectors) {
            acc += acc_partials[other];
            l += l_partials[other];
        }
        partials[start + 2u * thread] = acc.xy;
        partials[start + 2u * thread + 1u] = acc.zw;
    }
    if thread == 0u {
        partials[start + u.head_dim / 2u] = vec2<f32>(m, l);
    }
}
