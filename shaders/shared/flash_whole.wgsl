// Attention of all tokens of a picture or a window to all of them, each head by itself: `sizes` begins with
// the number of pictures or windows, tokens, heads and steps. For files that import `attend`.
struct Head {
    whole: u32, // picture or window
    index: u32,
    rows: u32,
    keys: u32,
    steps: u32,
}

fn factors(totals: vec4<f32>) -> vec4<f32> {
    return 1.0 / totals;
}

fn put_end(head: Head, row: u32, tops: vec4<f32>, totals: vec4<f32>) {}

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tokens = sizes[0].y;
    let heads = sizes[0].z;
    let tiles = (tokens + ROWS - 1u) / ROWS;
    let flat_group = group.y * groups.x + group.x;
    let row = flat_group / tiles;
    if row >= sizes[0].x * heads {
        return;
    }
    let head = Head(row / heads, row % heads, tokens, tokens, sizes[0].w);
    attend(head, flat_group % tiles * ROWS, 0u, tokens, local, lane);
}
