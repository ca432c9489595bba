// attention_window: attention within the square windows of a feature map, with a learned relative position
// bias (Swin, arXiv 2103.14030).
//
//   qkv         [W, T, 3, H, D]       T = side * side; D is a multiple of 4 and at most CHUNKS * DEPTH
//   bias_table  [(2*side - 1)^2, H]   added to the score of a query at (ay, ax) and a key at (by, bx):
//                                     row (ay - by + side-1) * (2*side - 1) + ax - bx + side-1
//   regions     [N, T]                window w uses row (first_window + w) % N; a query and a key of two
//                                     regions lose 100 from their score (mask of the shifted windows)
//   out         [W, T, H, D]          softmax(Q K^T / sqrt(D) + bias + mask) V per window and head
//
// A workgroup makes 32 tokens of one window and head and walks over the window's keys and values.
// 4*W*H*T*T*D operations, 16*W*T*H*D bytes beyond the caches: a block of Swin-Large's first stage (476
// windows of 144 tokens, 6 heads of 32) takes 7.6 G operations and 210 MB, where a matrix of scores alone
// has 237 MB. Workgroup memory: see `flash`.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> bias_table: array<f32>;
@group(0) @binding(2) var<storage, read> regions: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> u: Uniforms;

// import constants
// import flash
// import flash_whole

// Subtracted from the score of two regions.
const REGION_MASK = 100.0;

// `part`: 0 queries, 1 keys, 2 values.
fn load_part(head: Head, token: u32, part: u32, vector: u32) -> vec4<f32> {
    let row = (head.item * head.rows + token) * 3u + part;
    return qkv[(row * u.heads + head.index) * head.vectors + vector];
}

fn load_q(head: Head, token: u32, vector: u32) -> vec4<f32> {
    return load_part(head, token, 0u, vector);
}

fn load_k(head: Head, token: u32, vector: u32) -> vec4<f32> {
    return load_part(head, token, 1u, vector);
}

fn load_v(head: Head, token: u32, vector: u32) -> vec4<f32> {
    return load_part(head, token, 2u, vector);
}

fn store(head: Head, token: u32, vector: u32, result: vec4<f32>) {
    let row = (head.item * head.rows + token) * u.heads + head.index;
    out[row * head.vectors + vector] = result;
}

// Low 16 bits: y * (2*side - 1) + x, of which differences select a row of the bias table. High 16 bits: the
// region. A token past the end gets those of the last one.
fn token_position(head: Head, token: u32) -> u32 {
    let existing = min(token, head.rows - 1u);
    let position = existing / u.side * (2u * u.side - 1u) + existing % u.side;
    let window = (u.first_window + head.item) % u.region_windows;
    return (regions[window * head.rows + existing] << 16u) | position;
}

fn limits(head: Head, row: u32) -> vec4<u32> {
    return vec4<u32>(
        token_position(head, row),
        token_position(head, row + 1u),
        token_position(head, row + 2u),
        token_position(head, row + 3u),
    );
}

fn bias_and_mask(head: Head, query: u32, key: u32) -> f32 {
    let middle = (u.side - 1u) * 2u * u.side;
    let relative = (query & 0xffffu) + middle - (key & 0xffffu);
    let masked = (query >> 16u) != (key >> 16u);
    return bias_table[relative * u.heads + head.index] - select(0.0, REGION_MASK, masked);
}

fn mask_scores(head: Head, queries: vec4<u32>, key: u32, products: vec4<f32>) -> vec4<f32> {
    if key >= head.keys {
        return vec4<f32>(LOWEST);
    }
    let key_position = token_position(head, key);
    return products * inverseSqrt(f32(4u * head.vectors)) + vec4<f32>(
        bias_and_mask(head, queries.x, key_position),
        bias_and_mask(head, queries.y, key_position),
        bias_and_mask(head, queries.z, key_position),
        bias_and_mask(head, queries.w, key_position),
    );
}
