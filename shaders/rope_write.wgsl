// rope_write: turns queries and keys by their positions and lays keys and values into the cache.
//
//   q_in, k_in, v_in   row m of them starts at OFFSET + m * STRIDE of its own
//   angles     [C, W]      cosines, then sines, W/2 of each, of every position
//   position   [1]         of the first row, less P
//   q          [M, H, W]   turned queries
//   keys       [G, C, W]   the cache: positions P + position[0] .. are written, turned
//   values     [G, C, W]   the cache, not turned
//   sizes                  M, H, G, W and strides of q, k, v, P and offsets of q, k, v, C
//
// Half-split rotary embedding (arXiv 2104.09864, rotate_half of transformers): channel i pairs with
// channel i + W/2. One invocation takes one pair of one head of one row.

@group(0) @binding(0) var<storage, $INPUT> q_in: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> k_in: array<f32>;
@group(0) @binding(2) var<storage, $INPUT> v_in: array<f32>;
@group(0) @binding(3) var<storage, $INPUT> angles: array<f32>;
@group(0) @binding(4) var<storage, $INPUT> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> q: array<f32>;
@group(0) @binding(6) var<storage, read_write> keys: array<f32>;
@group(0) @binding(7) var<storage, read_write> values: array<f32>;
@group(0) @binding(8) var<uniform> sizes: array<vec4<u32>, 3>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let heads = sizes[0].y;
    let key_heads = sizes[0].z;
    let width = sizes[0].w;
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
    let turn = vec2<f32>(angles[place * width + i], angles[place * width + half + i]);
    if head < heads {
        let source = sizes[2].x + m * sizes[1].x + head * width + i;
        let pair = vec2<f32>(q_in[source], q_in[source + half]);
        let to = (m * heads + head) * width + i;
        q[to] = pair.x * turn.x - pair.y * turn.y;
        q[to + half] = pair.y * turn.x + pair.x * turn.y;
    } else if head < heads + key_heads {
        let key_head = head - heads;
        let source = sizes[2].y + m * sizes[1].y + key_head * width + i;
        let pair = vec2<f32>(k_in[source], k_in[source + half]);
        let to = (key_head * sizes[2].w + place) * width + i;
        keys[to] = pair.x * turn.x - pair.y * turn.y;
        keys[to + half] = pair.y * turn.x + pair.x * turn.y;
    } else {
        let key_head = head - heads - key_heads;
        let source = sizes[2].z + m * sizes[1].z + key_head * width + i;
        let to = (key_head * sizes[2].w + place) * width + i;
        values[to] = v_in[source];
        values[to + half] = v_in[source + half];
    }
}
