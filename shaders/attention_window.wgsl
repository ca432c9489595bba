// attention_window: attention within square windows of a map, with a learned number for every way
// from one cell to another.
//
//   qkv      [W, T, 3, H, D]        queries, keys, values; T = side * side, D at most $CHUNKS * $DEPTH,
//                                   in steps of four channels
//   table    [(2*side - 1)^2, H]    what the way from cell b to cell a adds to their score: row
//                                   (ay - by + side-1) * (2*side - 1) + ax - bx + side-1
//   regions  [N, T]                 of window w in row (A + w) % N; two regions take 100 off a score
//   y        [W, T, H, D]           softmax over b of scores[a, b], times values[b], where a score is
//                                   queries[a] . keys[b] / sqrt(D) with the above
//   sizes                           W, T, H, D/4 and side, N, A, 0
//
// A workgroup makes 32 tokens of one window and head and walks over the window's keys and values.
// 4*W*H*T*T*D operations, 16*W*T*H*D bytes beyond the caches: a block of Swin-Large's first stage (476
// windows of 144, 6 heads of 32) takes 7.6 G and 210 MB, where a matrix of scores alone has 237 MB.

@group(0) @binding(0) var<storage, $INPUT> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> table: array<f32>;
@group(0) @binding(2) var<storage, $INPUT> regions: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

// import flash
// import flash_whole

fn part(head: Head, token: u32, third: u32, step: u32) -> vec4<f32> {
    let row = (head.whole * head.rows + token) * 3u + third;
    return qkv[(row * sizes[0].z + head.index) * head.steps + step];
}

fn query(head: Head, token: u32, step: u32) -> vec4<f32> {
    return part(head, token, 0u, step);
}

fn key(head: Head, token: u32, step: u32) -> vec4<f32> {
    return part(head, token, 1u, step);
}

fn value(head: Head, token: u32, step: u32) -> vec4<f32> {
    return part(head, token, 2u, step);
}

fn put(head: Head, token: u32, step: u32, result: vec4<f32>) {
    let row = (head.whole * head.rows + token) * sizes[0].z + head.index;
    y[row * head.steps + step] = result;
}

// The place of a token as far as differences of two need it, and above it the region; whatever past the
// last token.
fn mark(head: Head, token: u32) -> u32 {
    let side = sizes[1].x;
    let existing = min(token, head.rows - 1u);
    let place = existing / side * (2u * side - 1u) + existing % side;
    let window = (sizes[1].z + head.whole) % sizes[1].y;
    return (regions[window * head.rows + existing] << 16u) | place;
}

fn marks(head: Head, row: u32) -> vec4<u32> {
    return vec4<u32>(
        mark(head, row), mark(head, row + 1u), mark(head, row + 2u), mark(head, row + 3u),
    );
}

fn relation(head: Head, own: u32, other: u32) -> f32 {
    let side = sizes[1].x;
    let middle = (side - 1u) * 2u * side;
    let way = (own & 0xffffu) + middle - (other & 0xffffu);
    let apart = (own >> 16u) != (other >> 16u);
    return table[way * sizes[0].z + head.index] - select(0.0, 100.0, apart);
}

fn scored(head: Head, own: vec4<u32>, at: u32, products: vec4<f32>) -> vec4<f32> {
    if at >= head.keys {
        return vec4<f32>(NEVER);
    }
    let other = mark(head, at);
    return products * inverseSqrt(f32(4u * head.steps)) + vec4<f32>(
        relation(head, own.x, other),
        relation(head, own.y, other),
        relation(head, own.z, other),
        relation(head, own.w, other),
    );
}
