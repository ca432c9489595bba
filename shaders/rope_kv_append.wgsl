// rope_kv_append: applies RoPE to the queries and keys of M rows and appends keys and values to the KV cache.
//
//   q_in, k_in, v_in   row m begins at offset + m * stride, each of its own; all multiples of 4
//   rope_table  [C, D]      see `rope`
//   position    [1]         row m has position past + position[0] + m
//   q_out       [M, H, D]   rotated queries
//   keys        [G, C, D]   KV cache: the keys of these positions are written, rotated
//   values      [G, C, D]   KV cache: the values of these positions are written
//
// H is 0 if only keys and values are appended; q_in and q_out are then not used. Rows past the cache's end
// are dropped. One thread takes a vector of the first half of a head and its partner in the second half; D
// is a multiple of 8. 4*M*D*(2*H + 2*G) bytes of rows and M*D*2*G values of the cache.

// import KV

@group(0) @binding(0) var<storage, read> q_in: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k_in: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v_in: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rope_table: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> q_out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> keys: array<KvQuad>;
@group(0) @binding(7) var<storage, read_write> values: array<KvQuad>;
@group(0) @binding(8) var<uniform> u: Uniforms;

// import rope

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let vectors = u.head_dim / 4u;
    let half = vectors / 2u;
    let qkv_heads = u.heads + 2u * u.kv_heads;
    let index = workgroup_index(group, groups) * WORKGROUP_SIZE + thread;
    let vector = index % half;
    let head = index / half % qkv_heads;
    let row = index / half / qkv_heads;
    if row >= u.rows {
        return;
    }
    let row_position = u.past + position[0] + row;
    if row_position >= u.capacity {
        return;
    }
    let angles = rope_angles(row_position, vector, vectors);
    if head < u.heads {
        let source = (u.q_offset + row * u.q_stride) / 4u + head * vectors + vector;
        let first = q_in[source];
        let second = q_in[source + half];
        let dest = (row * u.heads + head) * vectors + vector;
        q_out[dest] = rope_rotate(first, -second, angles);
        q_out[dest + half] = rope_rotate(second, first, angles);
    } else if head < u.heads + u.kv_heads {
        let kv_head = head - u.heads;
        let source = (u.k_offset + row * u.k_stride) / 4u + kv_head * vectors + vector;
        let first = k_in[source];
        let second = k_in[source + half];
        let dest = (kv_head * u.capacity + row_position) * vectors + vector;
        keys[dest] = pack_quad(rope_rotate(first, -second, angles));
        keys[dest + half] = pack_quad(rope_rotate(second, first, angles));
    } else {
        let kv_head = head - u.heads - u.kv_heads;
        let source = (u.v_offset + row * u.v_stride) / 4u + kv_head * vectors + vector;
        let dest = (kv_head * u.capacity + row_position) * vectors + vector;
        values[dest] = pack_quad(v_in[source]);
        values[dest + half] = pack_quad(v_in[source + half]);
    }
}
