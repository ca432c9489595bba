// attention_encoder: every token of a picture mixes the values of all by how their keys answer its query.
//
//   queries   [B, T, H, D]   D at most $CHUNKS * $DEPTH, in steps of four channels
//   all_keys  [B, T, H, D]
//   contents  [B, T, H, D]
//   y         [B, T, H, D]   softmax over u of queries[t] . all_keys[u] / sqrt(D), times contents[u]
//   sizes                    B, T, H, D/4
//
// A workgroup makes 32 tokens of one head and walks over all keys and values of the head. 4*B*H*T*T*D
// operations, 16*B*T*H*D bytes beyond the caches: a block of CLIP-Large (577 tokens, 16 heads of 64) takes
// 1.4 G and 9 MB, where a matrix of scores alone has 21 MB.

@group(0) @binding(0) var<storage, $INPUT> queries: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> all_keys: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> contents: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 1>;

// import flash
// import flash_whole

fn place(head: Head, token: u32, step: u32) -> u32 {
    let row = (head.whole * head.rows + token) * sizes[0].z + head.index;
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

fn marks(head: Head, row: u32) -> vec4<u32> {
    return vec4<u32>();
}

fn scored(head: Head, own: vec4<u32>, at: u32, products: vec4<f32>) -> vec4<f32> {
    let scale = inverseSqrt(f32(4u * head.steps));
    return select(products * scale, vec4<f32>(NEVER), at >= head.keys);
}
