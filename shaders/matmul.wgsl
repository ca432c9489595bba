// matmul: many rows times a matrix.
//
//   x        [M, K]       rows
//   words    [N, units]   rows of the matrix in units of weights (the import tells which)
//   scales   [N, K/2^S]     f16, two in a word; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of x[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, S and A, NT, ADDED, 0
//
// A workgroup of 8 x 8 makes a tile of 64 x 64 outputs, each invocation 8 x 8 of them in
// registers. K goes by in steps of $STEP, and each value in workgroup memory is used 64 times: 16
// operations per byte of workgroup memory read, 32 per byte of x and of unpacked weights.

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

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let width = sizes[0].z;
    let tiles = (sizes[0].y + 63u) / 64u;
    let flat_group = group.y * groups.x + group.x;
    let first_row = flat_group / tiles * 64u;
    let first_column = flat_group % tiles * 64u;
    var a0 = vec4<f32>(); var b0 = vec4<f32>();
    var a1 = vec4<f32>(); var b1 = vec4<f32>();
    var a2 = vec4<f32>(); var b2 = vec4<f32>();
    var a3 = vec4<f32>(); var b3 = vec4<f32>();
    var a4 = vec4<f32>(); var b4 = vec4<f32>();
    var a5 = vec4<f32>(); var b5 = vec4<f32>();
    var a6 = vec4<f32>(); var b6 = vec4<f32>();
    var a7 = vec4<f32>(); var b7 = vec4<f32>();

    for (var start = 0u; start < width; start += $STEPu) {
        lay_tiles(lane, first_row, first_column, start);
        workgroupBarrier();
        for (var k = 0u; k < $STEPu; k++) {
            let r = rows[k * 16u + local.y];
            let s = rows[k * 16u + local.y + 8u];
            let c = columns[k * 16u + local.x];
            let d = columns[k * 16u + local.x + 8u];
            a0 += r.x * c; b0 += r.x * d;
            a1 += r.y * c; b1 += r.y * d;
            a2 += r.z * c; b2 += r.z * d;
            a3 += r.w * c; b3 += r.w * d;
            a4 += s.x * c; b4 += s.x * d;
            a5 += s.y * c; b5 += s.y * d;
            a6 += s.z * c; b6 += s.z * d;
            a7 += s.w * c; b7 += s.w * d;
        }
        workgroupBarrier();
    }
    var left = array<vec4<f32>, 8>(a0, a1, a2, a3, a4, a5, a6, a7);
    var right = array<vec4<f32>, 8>(b0, b1, b2, b3, b4, b5, b6, b7);
    for (var i = 0u; i < 8u; i++) {
        let m = first_row + local.y * 4u + i / 4u * 32u + i % 4u;
        let n = first_column + local.x * 4u;
        for (var j = 0u; j < 4u; j++) {
            put(m, n + j, left[i][j]);
            put(m, n + 32u + j, right[i][j]);
        }
    }
}
