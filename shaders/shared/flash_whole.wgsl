// flash_whole: entry point of attention without a causal mask, where every token of an image or a window
// attends to all of its tokens. Imported after `flash`; the uniforms have batch, tokens, heads, head_dim.
struct Head {
    item: u32, // image or window
    index: u32,
    rows: u32,
    keys: u32,
    vectors: u32,
}

fn normalizer(l: vec4<f32>) -> vec4<f32> {
    return 1.0 / l;
}

fn store_partial(head: Head, row: u32, m: vec4<f32>, l: vec4<f32>) {}

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let tiles = (u.tokens + TILE_ROWS - 1u) / TILE_ROWS;
    let tile = workgroup_index(group, groups);
    let item_head = tile / tiles;
    if item_head >= u.batch * u.heads {
        return;
    }
    let head = Head(
        item_head / u.heads, item_head % u.heads, u.tokens, u.tokens, u.head_dim / 4u,
    );
    flash_attention(head, tile % tiles * TILE_ROWS, 0u, u.tokens, local, thread);
}
