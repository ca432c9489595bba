// matmul: many rows times a matrix.
//
//   x        [M, K]       rows
//   words    [N, units]   rows of the matrix in units of weights (the import tells which)
//   scales   [N, K/2^S]     as they are stored; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of x[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, S and A, NT, ADDED, 0
//
// A workgroup of $COLUMN_QUADS/2 x 8 x $SLICES makes a tile of 64 rows by 4 * $COLUMN_QUADS columns, each
// invocation of a slice 8 x 8 outputs in registers. K goes by in steps of $STEP, of which every slice
// takes its part; the slices are added up at the end, one after another. More columns use what is laid
// out more often, 21 operations per byte of workgroup memory laid out at 64 and 128 against 16; more
// slices keep a device busy that has few tiles.

// import $SLICE
// import $WEIGHTS
// import $SCALES

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> words: array<Unit>;
@group(0) @binding(2) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(3) var<storage, $INPUT> added: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

// import tile_ends
// import tiles

const LANES_X = $COLUMN_QUADSu / 2u;
const PART = $STEPu / $SLICESu;

@compute @workgroup_size($COLUMN_QUADS / 2, 8, $SLICES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let width = sizes[0].z;
    let tiles = (sizes[0].y + 4u * $COLUMN_QUADSu - 1u) / (4u * $COLUMN_QUADSu);
    let flat_group = group.y * groups.x + group.x;
    let first_row = flat_group / tiles * 64u;
    let first_column = flat_group % tiles * 4u * $COLUMN_QUADSu;
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
        for (var k = local.z * PART; k < (local.z + 1u) * PART; k++) {
            let r = rows[k * 16u + local.y];
            let s = rows[k * 16u + local.y + 8u];
            let c = columns[k * $COLUMN_QUADSu + local.x];
            let d = columns[k * $COLUMN_QUADSu + local.x + LANES_X];
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
    // A slice leaves its left half in `rows` and its right half in `columns`: 512 vectors each.
    for (var slice = 1u; slice < $SLICESu; slice++) {
        let at = local.y * LANES_X + local.x;
        if local.z == slice {
            rows[at] = a0; columns[at] = b0;
            rows[at + 64u] = a1; columns[at + 64u] = b1;
            rows[at + 128u] = a2; columns[at + 128u] = b2;
            rows[at + 192u] = a3; columns[at + 192u] = b3;
            rows[at + 256u] = a4; columns[at + 256u] = b4;
            rows[at + 320u] = a5; columns[at + 320u] = b5;
            rows[at + 384u] = a6; columns[at + 384u] = b6;
            rows[at + 448u] = a7; columns[at + 448u] = b7;
        }
        workgroupBarrier();
        if local.z == 0u {
            a0 += rows[at]; b0 += columns[at];
            a1 += rows[at + 64u]; b1 += columns[at + 64u];
            a2 += rows[at + 128u]; b2 += columns[at + 128u];
            a3 += rows[at + 192u]; b3 += columns[at + 192u];
            a4 += rows[at + 256u]; b4 += columns[at + 256u];
            a5 += rows[at + 320u]; b5 += columns[at + 320u];
            a6 += rows[at + 384u]; b6 += columns[at + 384u];
            a7 += rows[at + 448u]; b7 += columns[at + 448u];
        }
        workgroupBarrier();
    }
    if local.z > 0u {
        return;
    }
    let m = first_row + local.y * 4u;
    let n = first_column + local.x * 4u;
    let right = n + 4u * LANES_X;
    put(m, n, a0); put(m, right, b0);
    put(m + 1u, n, a1); put(m + 1u, right, b1);
    put(m + 2u, n, a2); put(m + 2u, right, b2);
    put(m + 3u, n, a3); put(m + 3u, right, b3);
    put(m + 32u, n, a4); put(m + 32u, right, b4);
    put(m + 33u, n, a5); put(m + 33u, right, b5);
    put(m + 34u, n, a6); put(m + 34u, right, b6);
    put(m + 35u, n, a7); put(m + 35u, right, b7);
}
