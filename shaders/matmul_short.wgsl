// matmul_short: a few rows more than gemv takes times a matrix.
//
//   x        [M, K]       rows
//   words    [N, units]   rows of the matrix in units of weights (the import tells which)
//   scales   [N, K/2^S]     f16, two in a word; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of x[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, S and A, NT, ADDED, 0
//
// A workgroup of 64 makes a tile of 16 x 64 outputs, each invocation 4 x 4 of them in registers. K
// goes by in steps of $STEP; every weight is unpacked once for 16 rows, 8 operations per byte of
// workgroup memory read.

// import $SLICE
// import $WEIGHTS
// import scale_pairs

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> words: array<Unit>;
@group(0) @binding(2) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(3) var<storage, $INPUT> added: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

// import tiles

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let width = sizes[0].z;
    let tiles = (sizes[0].y + 63u) / 64u;
    let flat_group = group.y * groups.x + group.x;
    let first_row = flat_group / tiles * 16u;
    let first_column = flat_group % tiles * 64u;
    let row = lane / 16u;
    let column = lane % 16u;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var start = 0u; start < width; start += $STEPu) {
        lay_tiles(lane, first_row, first_column, start);
        workgroupBarrier();
        for (var k = 0u; k < $STEPu; k++) {
            let r = rows[k * 4u + row];
            let c = columns[k * 16u + column];
            a0 += r.x * c;
            a1 += r.y * c;
            a2 += r.z * c;
            a3 += r.w * c;
        }
        workgroupBarrier();
    }
    var sums = array<vec4<f32>, 4>(a0, a1, a2, a3);
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            put(first_row + row * 4u + i, first_column + column * 4u + j, sums[i][j]);
        }
    }
}
