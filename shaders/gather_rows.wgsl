// gather_rows: rows of a matrix, looked up by number.
//
//   ids      [R]          numbers of rows in the whole matrix
//   words    [N, units]   rows A .. A+N of the matrix in units of weights (the import tells which)
//   scales   [N, K/2^S]     as they are stored; ignored by weights without scales
//   rows     [R, K]       written where the id lies in A .. A+N
//   sizes                 R, N, K, S and A, 0, 0, 0
//
// One invocation writes what one unit holds: 4 or 8 values.

// import $SLICE
// import $WEIGHTS
// import $SCALES

@group(0) @binding(0) var<storage, $INPUT> ids: array<u32>;
@group(0) @binding(1) var<storage, $INPUT> words: array<Unit>;
@group(0) @binding(2) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let width = sizes[0].z;
    let units = width / PER_UNIT;
    let at = (group.y * groups.x + group.x) * $GROUPu + lane;
    let row = at / units;
    if row >= sizes[0].x {
        return;
    }
    let id = ids[row];
    if id < sizes[1].x || id - sizes[1].x >= sizes[0].y {
        return;
    }
    let n = id - sizes[1].x;
    let unit = at % units;
    let first = n * width + unit * PER_UNIT;
    let scale = scale_in(scale_word(first, sizes[0].w), first, sizes[0].w);
    let weights = weights_of(words[n * units + unit]);
    let place = (row * width + unit * PER_UNIT) / 4u;
    rows[place] = first_four(weights) * scale;
    if SLICE_VECTORS == 2u {
        rows[place + 1u] = last_four(weights) * scale;
    }
}
