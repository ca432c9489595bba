// packed_gemv: a few rows times a matrix in $BITS bits per weight.
//
//   x        [M, K]            rows
//   words    [N, K*$BITS/32]   codes of the matrix, each + $OFFSET, the first in the lowest bits
//   scales   [N, K/G]          f16, two in a word
//   y        [M, NT]           columns A .. A+N are written: sum over k of x[m, k] * w[n, k]
//   sizes                      M, N, K, G and A, NT, 0, 0
//
// A workgroup of $GROUP makes one output: its invocations take every $GROUPth word of a row of the
// matrix, so reads are contiguous, and add their sums up in a tree. Every weight is read once per
// row of x: N*K*$BITS/8 bytes and 2*N*K operations for each.

@group(0) @binding(0) var<storage, $INPUT> x: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> words: array<u32>;
@group(0) @binding(2) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

var<workgroup> sums: array<f32, $GROUP>;

// import scale_pairs

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let outputs = sizes[0].y;
    let inputs = sizes[0].z;
    let per_scale = sizes[0].w;
    let flat_group = group.y * groups.x + group.x;
    let row = flat_group / outputs;
    let column = flat_group % outputs;
    if row >= sizes[0].x {
        return;
    }
    let row_words = inputs / $PER_WORDu;
    var sum = 0.0;
    for (var at = lane; at < row_words; at += $GROUPu) {
        let word = words[column * row_words + at];
        let first = at * $PER_WORDu;
        var part = 0.0;
        for (var i = 0u; i < $PER_WORDu; i++) {
            let code = f32((word >> (i * $BITSu)) & $MASKu) - $OFFSET.0;
            part += code * x[row * inputs + first + i];
        }
        sum += part * scale(column * (inputs / per_scale) + first / per_scale);
    }
    sums[lane] = sum;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            sums[lane] += sums[lane + reach];
        }
        workgroupBarrier();
    }
    if lane == 0u {
        y[row * sizes[1].y + sizes[1].x + column] = sums[0];
    }
}
