// attention_encoder: attention of every token of an image to all tokens (flash attention, no mask).
//
//   q_in  [B, T, H, D]   D is a multiple of 4 and at most CHUNKS * DEPTH
//   k_in  [B, T, H, D]
//   v_in  [B, T, H, D]
//   out   [B, T, H, D]   softmax(Q K^T / sqrt(D)) V per head
//
// A workgroup makes 32 tokens of one head and walks over all keys and values of the head. 4*B*H*T*T*D
// operations, 16*B*T*H*D bytes beyond the caches: a layer of CLIP-Large (577 tokens, 16 heads of 64) takes
// 1.4 G operations and 9 MB, where a matrix of scores alone has 21 MB. Workgroup memory: see `flash`.

@group(0) @binding(0) var<storage, read> q_in: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k_in: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v_in: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> u: Uniforms;

// import constants
// import flash
// import flash_whole

fn vector_index(head: Head, token: u32, vector: u32) -> u32 {
    let row = (head.item * head.rows + token) * u.heads + head.index;
    return row * head.vectors + vector;
}

fn load_q(head: Head, token: u32, vector: u32) -> vec4<f32> {
    return q_in[vector_index(head, token, vector)];
}

fn load_k(head: Head, token: u32, vector: u32) -> vec4<f32> {
    return k_in[vector_index(head, token, vector)];
}

fn load_v(head: Head, token: u32, vector: u32) -> vec4<f32> {
    return v_in[vector_index(head, token, vector)];
}

fn store(head: Head, token: u32, vector: u32, result: vec4<f32>) {
    out[vector_index(head, token, vector)] = result;
}

fn limits(head: Head, row: u32) -> vec4<u32> {
    return vec4<u32>();
}

fn mask_scores(head: Head, row_limits: vec4<u32>, key: u32, products: vec4<f32>) -> vec4<f32> {
    let scale = inverseSqrt(f32(4u * head.vectors));
    return select(products * scale, vec4<f32>(LOWEST), key >= head.keys);
}
