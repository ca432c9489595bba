// matmul_skinny: a few rows more than gemv takes times a matrix.
//
//   x        [M, K]       rows
//   words    [N, units]   rows of the matrix in units of weights (the import tells which)
//   scales   [N, K/2^S]     as they are stored; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of x[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, S and A, NT, ADDED, 0
//
// A workgroup of $COLUMN_QUADS x 4 x $SLICES makes a tile of 16 rows by 4 * $COLUMN_QUADS columns, each
// invocation of a slice 4 x 4 outputs in registers. K goes by in steps of $STEP, of which every slice
// takes its part, while the next step is on its way; the slices are added up in pairs. There are few
// tiles, so the slices are what keeps a device busy. Every weight is unpacked once for 16 rows, 8
// operations per byte of workgroup memory read. K is a multiple of 4, and of the unit.

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

const PART = $STEPu / $SLICESu;
// Blocks of four rows of x by four k, and of four rows of the matrix by a unit: one invocation each.
const ROW_K = $STEPu / 4u;
const ROW_BLOCKS = 4u * ROW_K;
const COLUMN_K = $STEPu / PER_UNIT;
const COLUMN_BLOCKS = $COLUMN_QUADSu * COLUMN_K;

var<workgroup> rows: array<vec4<f32>, $STEP * 4>;
var<workgroup> columns: array<vec4<f32>, $STEP * $COLUMN_QUADS>;

// A block as it was read: of x, or of the matrix.
struct Block {
    x: mat4x4<f32>,
    a: Unit,
    b: Unit,
    c: Unit,
    d: Unit,
    scales: vec4<u32>,
}

fn unit_at(n: u32, k: u32) -> Unit {
    if n >= sizes[0].y || k >= sizes[0].z {
        return Unit();
    }
    return words[n * (sizes[0].z / PER_UNIT) + k / PER_UNIT];
}

fn scale_word_at(n: u32, k: u32) -> u32 {
    return scale_word(min(n, sizes[0].y - 1u) * sizes[0].z + min(k, sizes[0].z - 1u), sizes[0].w);
}

fn block_at(lane: u32, first_row: u32, first_column: u32, start: u32) -> Block {
    var block: Block;
    if lane < ROW_BLOCKS {
        let k = start + lane % ROW_K * 4u;
        let m = first_row + lane / ROW_K * 4u;
        block.x = mat4x4<f32>(
            inputs_at(m, k), inputs_at(m + 1u, k), inputs_at(m + 2u, k), inputs_at(m + 3u, k),
        );
    } else if lane < ROW_BLOCKS + COLUMN_BLOCKS {
        let at = lane - ROW_BLOCKS;
        let k = start + at % COLUMN_K * PER_UNIT;
        let n = first_column + at / COLUMN_K * 4u;
        block.a = unit_at(n, k);
        block.b = unit_at(n + 1u, k);
        block.c = unit_at(n + 2u, k);
        block.d = unit_at(n + 3u, k);
        block.scales = vec4<u32>(
            scale_word_at(n, k), scale_word_at(n + 1u, k), scale_word_at(n + 2u, k), scale_word_at(n + 3u, k),
        );
    }
    return block;
}

fn scaled(unit: Unit, word: u32, n: u32, k: u32) -> Slice {
    let scale = vec4<f32>(scale_in(word, n * sizes[0].z + k, sizes[0].w));
    return times(weights_of(unit), slice_of(scale, scale));
}

// Lays a block out, k by k; it is turned over on its way.
fn lay(lane: u32, first_column: u32, start: u32, block: Block) {
    if lane < ROW_BLOCKS {
        let turned = transpose(block.x);
        let place = lane % ROW_K * 16u + lane / ROW_K;
        rows[place] = turned[0];
        rows[place + 4u] = turned[1];
        rows[place + 8u] = turned[2];
        rows[place + 12u] = turned[3];
    } else if lane < ROW_BLOCKS + COLUMN_BLOCKS {
        let at = lane - ROW_BLOCKS;
        let k = start + at % COLUMN_K * PER_UNIT;
        let n = first_column + at / COLUMN_K * 4u;
        let a = scaled(block.a, block.scales.x, n, k);
        let b = scaled(block.b, block.scales.y, n + 1u, k);
        let c = scaled(block.c, block.scales.z, n + 2u, k);
        let d = scaled(block.d, block.scales.w, n + 3u, k);
        var turned = transpose(mat4x4<f32>(first_four(a), first_four(b), first_four(c), first_four(d)));
        let place = at % COLUMN_K * PER_UNIT * $COLUMN_QUADSu + at / COLUMN_K;
        columns[place] = turned[0];
        columns[place + $COLUMN_QUADSu] = turned[1];
        columns[place + 2u * $COLUMN_QUADSu] = turned[2];
        columns[place + 3u * $COLUMN_QUADSu] = turned[3];
        if SLICE_VECTORS == 2u {
            turned = transpose(mat4x4<f32>(last_four(a), last_four(b), last_four(c), last_four(d)));
            columns[place + 4u * $COLUMN_QUADSu] = turned[0];
            columns[place + 5u * $COLUMN_QUADSu] = turned[1];
            columns[place + 6u * $COLUMN_QUADSu] = turned[2];
            columns[place + 7u * $COLUMN_QUADSu] = turned[3];
        }
    }
}

@compute @workgroup_size($COLUMN_QUADS, 4, $SLICES)
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
    let first_row = flat_group / tiles * 16u;
    let first_column = flat_group % tiles * 4u * $COLUMN_QUADSu;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var block = block_at(lane, first_row, first_column, 0u);
    for (var start = 0u; start < width; start += $STEPu) {
        lay(lane, first_column, start, block);
        workgroupBarrier();
        block = block_at(lane, first_row, first_column, start + $STEPu);
        for (var k = local.z * PART; k < (local.z + 1u) * PART; k++) {
            let r = rows[k * 4u + local.y];
            let c = columns[k * $COLUMN_QUADSu + local.x];
            a0 += r.x * c;
            a1 += r.y * c;
            a2 += r.z * c;
            a3 += r.w * c;
        }
        workgroupBarrier();
    }
    // The upper half of the slices leaves its sums in `columns`, and the lower half takes them up.
    for (var reach = $SLICESu / 2u; reach > 0u; reach /= 2u) {
        let at = (local.z % reach * 4u + local.y) * 4u * $COLUMN_QUADSu + local.x;
        if local.z >= reach && local.z < 2u * reach {
            columns[at] = a0;
            columns[at + $COLUMN_QUADSu] = a1;
            columns[at + 2u * $COLUMN_QUADSu] = a2;
            columns[at + 3u * $COLUMN_QUADSu] = a3;
        }
        workgroupBarrier();
        if local.z < reach {
            a0 += columns[at];
            a1 += columns[at + $COLUMN_QUADSu];
            a2 += columns[at + 2u * $COLUMN_QUADSu];
            a3 += columns[at + 3u * $COLUMN_QUADSu];
        }
        workgroupBarrier();
    }
    if local.z > 0u {
        return;
    }
    let m = first_row + local.y * 4u;
    let n = first_column + local.x * 4u;
    put(m, n, a0);
    put(m + 1u, n, a1);
    put(m + 2u, n, a2);
    put(m + 3u, n, a3);
}
