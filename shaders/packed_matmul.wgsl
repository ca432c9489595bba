// packed_matmul: many rows times a matrix in $BITS bits per weight.
//
//   x        [M, K]            rows
//   words    [N, K*$BITS/32]   codes of the matrix, each + $OFFSET, the first in the lowest bits
//   scales   [N, K/G]          f16, two in a word
//   y        [M, NT]           columns A .. A+N are written: sum over k of x[m, k] * w[n, k]
//   sizes                      M, N, K, G and A, NT, 0, 0
//
// A workgroup of 8 x 8 makes a tile of $TILE x $TILE outputs, each invocation 4 x 4 of them. K goes
// by in steps of $STEP: both operands' parts are unpacked into workgroup memory once and used
// $TILE times. K is a multiple of $STEP, and so is G.

@group(0) @binding(0) var<storage, $INPUT> x: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> words: array<u32>;
@group(0) @binding(2) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

// One element more than a row needs: neighbours then lie in different banks.
const PITCH = $STEPu + 1u;

var<workgroup> rows: array<f32, $TILE * ($STEP + 1)>;
var<workgroup> columns: array<f32, $TILE * ($STEP + 1)>;

// import scale_pairs

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = sizes[0].x;
    let outputs = sizes[0].y;
    let inputs = sizes[0].z;
    let per_scale = sizes[0].w;
    let row_words = inputs / $PER_WORDu;
    let row_scales = inputs / per_scale;
    let tiles = (outputs + $TILEu - 1u) / $TILEu;
    let flat_group = group.y * groups.x + group.x;
    let first_row = flat_group / tiles * $TILEu;
    let first_column = flat_group % tiles * $TILEu;
    var sums: array<vec4<f32>, 4>;

    for (var start = 0u; start < inputs; start += $STEPu) {
        for (var at = lane; at < $TILEu * $STEPu; at += 64u) {
            let row = at / $STEPu;
            let k = at % $STEPu;
            var value = 0.0;
            if first_row + row < count {
                value = x[(first_row + row) * inputs + start + k];
            }
            rows[row * PITCH + k] = value;
        }
        for (var at = lane; at < $TILEu * $STEPu / $PER_WORDu; at += 64u) {
            let column = at / ($STEPu / $PER_WORDu);
            let k = at % ($STEPu / $PER_WORDu) * $PER_WORDu;
            let n = first_column + column;
            var word = 0u;
            var step = 0.0;
            if n < outputs {
                word = words[n * row_words + (start + k) / $PER_WORDu];
                step = scale(n * row_scales + (start + k) / per_scale);
            }
            for (var i = 0u; i < $PER_WORDu; i++) {
                let code = f32((word >> (i * $BITSu)) & $MASKu) - $OFFSET.0;
                columns[column * PITCH + k + i] = code * step;
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < $STEPu; k++) {
            let weights = vec4<f32>(
                columns[local.x * PITCH + k],
                columns[(local.x + 8u) * PITCH + k],
                columns[(local.x + 16u) * PITCH + k],
                columns[(local.x + 24u) * PITCH + k],
            );
            for (var i = 0u; i < 4u; i++) {
                sums[i] += weights * rows[(local.y + 8u * i) * PITCH + k];
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + local.y + 8u * i;
        for (var j = 0u; j < 4u; j++) {
            let column = first_column + local.x + 8u * j;
            if row < count && column < outputs {
                y[row * sizes[1].y + sizes[1].x + column] = sums[i][j];
            }
        }
    }
}
