// attention_prefill: rows over all that the cache holds before them and themselves.
//
//   q       [M, H, W]
//   keys    [G, C, W]    query heads h/(H/G) share a key head
//   values  [G, C, W]
//   mixed   [M, H, W]    mean of the values of keys 0 ..= P + m, weighted by exp(factor * q . key);
//                        [M, H, S, W + 2] where S is above 1, what attention_join takes: of each part
//                        of the keys the sum of exp(score - top) * value, then top, then sum of exp
//   sizes                M, H, G, W and C, P, bits of the factor, S
//
// A workgroup takes 32 rows of one head and one of S parts of the keys, which keep a device busy that is
// given few rows. Per 32 keys 4 * 32 * 32 * W operations on 2 * 32 * W numbers of the cache. W is a
// multiple of 4.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> keys: array<Four>;
@group(0) @binding(2) var<storage, $INPUT> values: array<Four>;
@group(0) @binding(3) var<storage, read_write> mixed: array<vec2<f32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

// import flash

struct Head {
    index: u32,
    key_head: u32,
    part: u32,
    rows: u32,
    keys: u32, // seen by the last row of the workgroup
    steps: u32,
}

fn query(head: Head, row: u32, step: u32) -> vec4<f32> {
    return q[(row * sizes[0].y + head.index) * head.steps + step];
}

fn cached(head: Head, at: u32, step: u32) -> u32 {
    return (head.key_head * sizes[1].x + at) * head.steps + step;
}

fn key(head: Head, at: u32, step: u32) -> vec4<f32> {
    return loaded(keys[cached(head, at, step)]);
}

fn value(head: Head, at: u32, step: u32) -> vec4<f32> {
    return loaded(values[cached(head, at, step)]);
}

// The last key that each of four rows sees.
fn marks(head: Head, row: u32) -> vec4<u32> {
    return vec4<u32>(sizes[1].y + row) + vec4<u32>(0u, 1u, 2u, 3u);
}

fn scored(head: Head, own: vec4<u32>, at: u32, products: vec4<f32>) -> vec4<f32> {
    return select(products * bitcast<f32>(sizes[1].z), vec4<f32>(NEVER), vec4<u32>(at) > own);
}

fn factors(totals: vec4<f32>) -> vec4<f32> {
    return select(1.0 / totals, vec4<f32>(1.0), sizes[1].w > 1u);
}

// Where the result of a row begins.
fn start_of(head: Head, row: u32) -> u32 {
    let parts = sizes[1].w;
    let made = 2u * head.steps + select(0u, 1u, parts > 1u);
    return ((row * sizes[0].y + head.index) * parts + head.part) * made;
}

fn put(head: Head, row: u32, step: u32, result: vec4<f32>) {
    let place = start_of(head, row) + 2u * step;
    mixed[place] = result.xy;
    mixed[place + 1u] = result.zw;
}

fn put_end(head: Head, row: u32, tops: vec4<f32>, totals: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if sizes[1].w > 1u && row + i < head.rows {
            mixed[start_of(head, row + i) + 2u * head.steps] = vec2<f32>(tops[i], totals[i]);
        }
    }
}

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = sizes[0].x;
    let past = sizes[1].y;
    let tiles = (count + ROWS - 1u) / ROWS;
    let parts = sizes[1].w;
    let flat_group = group.y * groups.x + group.x;
    let part = flat_group % parts;
    let index = flat_group / parts / tiles;
    if index >= sizes[0].y {
        return;
    }
    let first_row = flat_group / parts % tiles * ROWS;
    let seen = past + min(count, first_row + ROWS);
    let key_tiles = (past + count + 31u) / 32u;
    let part_keys = (key_tiles + parts - 1u) / parts * 32u;
    let key_head = index / (sizes[0].y / sizes[0].z);
    let head = Head(index, key_head, part, count, seen, sizes[0].w / 4u);
    attend(head, first_row, part * part_keys, min(seen, (part + 1u) * part_keys), local, lane);
}
