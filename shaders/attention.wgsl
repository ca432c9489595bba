// attention: every token of a picture mixes the values of all by how their keys answer its query.
//
//   queries   [B, T, H, D]   D at most $WIDTH, in steps of four channels
//   all_keys  [B, T, H, D]
//   contents  [B, T, H, D]
//   y         [B, T, H, D]   softmax over u of queries[t] . all_keys[u] / sqrt(D), times contents[u]
//   sizes                    B, T, H, D/4
//
// A workgroup of $GROUP makes $GROUP tokens of one head, one per invocation, and reads all keys and
// values of the head through 8 KiB of its memory. 4*B*H*T*T*D operations, 16*B*T*H*D bytes beyond the
// caches: a block of CLIP-Large (577 tokens, 16 heads of 64) takes 1.4 G and 9 MB, where a matrix of
// scores alone has 21 MB.

@group(0) @binding(0) var<storage, $INPUT> queries: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> all_keys: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> contents: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 1>;

// import attend

fn place(head: Head, token: u32, step: u32) -> u32 {
    let row = (head.picture * head.tokens + token) * sizes[0].z + head.index;
    return row * head.steps + step;
}

fn query(head: Head, token: u32, step: u32) -> vec4<f32> {
    return queries[place(head, token, step)];
}

fn key(head: Head, token: u32, step: u32) -> vec4<f32> {
    return all_keys[place(head, token, step)];
}

fn value(head: Head, token: u32, step: u32) -> vec4<f32> {
    return contents[place(head, token, step)];
}

fn put(head: Head, token: u32, step: u32, result: vec4<f32>) {
    y[place(head, token, step)] = result;
}

fn mark(head: Head, token: u32) -> u32 {
    return 0u;
}

fn relation(head: Head, own: u32, other: u32) -> f32 {
    return 0.0;
}

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tokens = sizes[0].y;
    let heads = sizes[0].z;
    let tiles = (tokens + $GROUPu - 1u) / $GROUPu;
    let flat_group = group.y * groups.x + group.x;
    let row = flat_group / tiles; // picture and head
    if row >= sizes[0].x * heads {
        return;
    }
    let head = Head(row / heads, row % heads, tokens, sizes[0].w);
    attend(head, flat_group % tiles * $GROUPu + lane, lane);
}
