// attention_prefill: causal attention of M rows over the KV cache up to themselves (flash attention).
//
//   q_in    [M, H, D]      rotated queries of positions past .. past + M
//   keys    [G, C, D]      KV cache, rotated keys; query head h reads key head h / (H / G) (GQA)
//   values  [G, C, D]      KV cache
//   out     [M, H, D]      row m: softmax(q K^T * scale) V over keys 0 ..= past + m
//           [M, H, S, D + 2]   where kv_splits S is above 1, the partials that attention_combine takes: of
//                              each part of the keys acc = sum of exp(score - m) * value, then the row
//                              maximum m, then the row sum l = sum of exp(score - m)
//
// A workgroup takes 32 rows of one head and one of S parts of the keys: split-KV keeps a GPU busy that has
// few rows. Per tile of 32 keys 4 * 32 * 32 * D operations on 2 * 32 * D values of the cache. D is a multiple
// of 4. A NaN value also reaches rows of the workgroup that do not see it: its weight there is 0. Workgroup
// memory: see `flash`.

// import KV

@group(0) @binding(0) var<storage, read> q_in: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> keys: array<KvQuad>;
@group(0) @binding(2) var<storage, read> values: array<KvQuad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec2<f32>>;
@group(0) @binding(4) var<uniform> u: Uniforms;

// import constants
// import flash

struct Head {
    index: u32,
    kv_head: u32,
    split: u32,
    rows: u32,
    keys: u32, // visible to the last row of the workgroup
    vectors: u32,
}

fn load_q(head: Head, row: u32, vector: u32) -> vec4<f32> {
    return q_in[(row * u.heads + head.index) * head.vectors + vector];
}

fn cache_index(head: Head, key: u32, vector: u32) -> u32 {
    return (head.kv_head * u.capacity + key) * head.vectors + vector;
}

fn load_k(head: Head, key: u32, vector: u32) -> vec4<f32> {
    return unpack_quad(keys[cache_index(head, key, vector)]);
}

fn load_v(head: Head, key: u32, vector: u32) -> vec4<f32> {
    return unpack_quad(values[cache_index(head, key, vector)]);
}

// The last key visible to each of four rows.
fn limits(head: Head, row: u32) -> vec4<u32> {
    return vec4<u32>(u.past + row) + vec4<u32>(0u, 1u, 2u, 3u);
}

fn mask_scores(head: Head, last_keys: vec4<u32>, key: u32, products: vec4<f32>) -> vec4<f32> {
    return select(products * u.scale, vec4<f32>(LOWEST), vec4<u32>(key) > last_keys);
}

fn normalizer(l: vec4<f32>) -> vec4<f32> {
    return select(1.0 / l, vec4<f32>(1.0), u.kv_splits > 1u);
}

// Where the result of a row begins in `out`.
fn row_start(head: Head, row: u32) -> u32 {
    let pairs = 2u * head.vectors + select(0u, 1u, u.kv_splits > 1u);
    return ((row * u.heads + head.index) * u.kv_splits + head.split) * pairs;
}

fn store(head: Head, row: u32, vector: u32, result: vec4<f32>) {
    let first = row_start(head, row) + 2u * vector;
    out[first] = result.xy;
    out[first + 1u] = result.zw;
}

fn store_partial(head: Head, row: u32, m: vec4<f32>, l: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if u.kv_splits > 1u && row + i < head.rows {
            out[row_start(head, row + i) + 2u * head.vectors] = vec2<f32>(m[i], l[i]);
        }
    }
}

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Workgroups are numbered [head, row tile, split].
    let row_tiles = (u.rows + TILE_ROWS - 1u) / TILE_ROWS;
    let tile = workgroup_index(group, groups);
    let split = tile % u.kv_splits;
    let index = tile / u.kv_splits / row_tiles;
    if index >= u.heads {
        return;
    }
    let first_row = tile / u.kv_splits % row_tiles * TILE_ROWS;
    let visible = u.past + min(u.rows, first_row + TILE_ROWS);
    let key_tiles = (u.past + u.rows + TILE_KEYS - 1u) / TILE_KEYS;
    let split_keys = (key_tiles + u.kv_splits - 1u) / u.kv_splits * TILE_KEYS;
    let kv_head = index / (u.heads / u.kv_heads);
    let head = Head(index, kv_head, split, u.rows, visible, u.head_dim / 4u);
    let end = min(visible, (split + 1u) * split_keys);
    flash_attention(head, first_row, split * split_keys, end, local, thread);
}
