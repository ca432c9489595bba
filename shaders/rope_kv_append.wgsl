// rope_kv_append: turns queries and keys by their positions and lays keys and values into the cache.
//
//   q_in, k_in, v_in   row m of them starts at OFFSET + m * STRIDE of its own, all even
//   angles     [C, W]      cosines, then sines, W/2 of each, of every position
//   position   [1]         of the first row, less P
//   q          [M, H, W]   turned queries
//   keys       [G, C, W]   the cache: positions P + position[0] .. are written, turned
//   values     [G, C, W]   the cache, not turned
//   sizes                  M, H, G, W and strides of q, k, v, P and offsets of q, k, v, C
//
// Half-split rotary embedding (arXiv 2104.09864, rotate_half of transformers): channel i pairs with
// channel i + W/2. One invocation takes two neighbouring pairs of one head of one row; W is a
// multiple of 4. In half precision a key or value beyond 65504 becomes the largest that there is.

// import $CACHE

@group(0) @binding(0) var<storage, $INPUT> q_in: array<vec2<f32>>;
@group(0) @binding(1) var<storage, $INPUT> k_in: array<vec2<f32>>;
@group(0) @binding(2) var<storage, $INPUT> v_in: array<vec2<f32>>;
@group(0) @binding(3) var<storage, $INPUT> angles: array<vec2<f32>>;
@group(0) @binding(4) var<storage, $INPUT> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> q: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> keys: array<Two>;
@group(0) @binding(7) var<storage, read_write> values: array<Two>;
@group(0) @binding(8) var<uniform> sizes: array<vec4<u32>, 3>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let heads = sizes[0].y;
    let key_heads = sizes[0].z;
    let width = sizes[0].w / 2u;
    let half = width / 2u;
    let all = heads + 2u * key_heads;
    let at = (group.y * groups.x + group.x) * $GROUPu + lane;
    let i = at % half;
    let head = at / half % all;
    let m = at / half / all;
    if m >= sizes[0].x {
        return;
    }
    let place = sizes[1].w + position[0] + m;
    if place >= sizes[2].w {
        return;
    }
    let cosine = angles[place * width + i];
    let sine = angles[place * width + half + i];
    if head < heads {
        let source = (sizes[2].x + m * sizes[1].x) / 2u + head * width + i;
        let first = q_in[source];
        let second = q_in[source + half];
        let to = (m * heads + head) * width + i;
        q[to] = first * cosine - second * sine;
        q[to + half] = second * cosine + first * sine;
    } else if head < heads + key_heads {
        let key_head = head - heads;
        let source = (sizes[2].y + m * sizes[1].y) / 2u + key_head * width + i;
        let first = k_in[source];
        let second = k_in[source + half];
        let to = (key_head * sizes[2].w + place) * width + i;
        keys[to] = stored(first * cosine - second * sine);
        keys[to + half] = stored(second * cosine + first * sine);
    } else {
        let key_head = head - heads - key_heads;
        let source = (sizes[2].z + m * sizes[1].z) / 2u + key_head * width + i;
        let to = (key_head * sizes[2].w + place) * width + i;
        values[to] = stored(v_in[source]);
        values[to + half] = stored(v_in[source + half]);
    }
}
