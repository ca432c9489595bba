// packed_rows: some rows of a matrix in $BITS bits per weight, unpacked.
//
//   ids      [R]               which rows, of the whole matrix
//   words    [N, K*$BITS/32]   codes of rows A .. A+N, each + $OFFSET, the first in the lowest bits
//   scales   [N, K/G]          f16, two in a word
//   y        [R, K]            row r is written where A <= ids[r] < A+N
//   sizes                      R, N, K, G and A, 0, 0, 0
//
// One invocation unpacks one word.

@group(0) @binding(0) var<storage, $INPUT> ids: array<u32>;
@group(0) @binding(1) var<storage, $INPUT> words: array<u32>;
@group(0) @binding(2) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 2>;

// import scale_pairs

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let inputs = sizes[0].z;
    let per_scale = sizes[0].w;
    let row_words = inputs / $PER_WORDu;
    let index = (group.y * groups.x + group.x) * $GROUPu + lane;
    let r = index / row_words;
    let at = index % row_words;
    if r >= sizes[0].x {
        return;
    }
    let n = ids[r] - sizes[1].x; // wraps below A, and is then too large
    if n >= sizes[0].y {
        return;
    }
    let word = words[n * row_words + at];
    let first = at * $PER_WORDu;
    let step = scale(n * (inputs / per_scale) + first / per_scale);
    for (var i = 0u; i < $PER_WORDu; i++) {
        let code = f32((word >> (i * $BITSu)) & $MASKu) - $OFFSET.0;
        y[r * inputs + first + i] = code * step;
    }
}
