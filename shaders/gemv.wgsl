// gemv: a few rows times a matrix.
//
//   x        [M, K]       rows
//   gain     [K]          where NORMED: of an RMS norm that the rows go through first
//   words    [N, units]   rows of the matrix in units of weights (the import tells which)
//   scales   [N, K/2^S]     f16, two in a word; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of norm(x)[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, S and A, NT, ADDED, NORMED and bits of epsilon, 0, 0, 0
//
// A workgroup of $GROUP makes four outputs of one row. Every weight is read once per row of x: its
// bytes are all that matters, 2*N*K operations are few.

// import $SLICE
// import $WEIGHTS
// import scale_pairs

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> words: array<Unit>;
@group(0) @binding(3) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(4) var<storage, $INPUT> added: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> sizes: array<vec4<u32>, 3>;

// import four_sums
// import gemv_sums

fn product(n: u32, unit: u32, inputs: Slice, total: f32) -> f32 {
    let width = sizes[0].z;
    let row = min(n, sizes[0].y - 1u);
    let part = product_of(words[row * (width / PER_UNIT) + unit], inputs, total);
    return part * scale_of(row * width + unit * PER_UNIT, sizes[0].w);
}

// import four_outputs

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let outputs = sizes[0].y;
    let width = sizes[0].z;
    let normed = sizes[1].w == 1u;
    let quads = (outputs + 3u) / 4u;
    let flat_group = group.y * groups.x + group.x;
    let m = flat_group / quads;
    let first = flat_group % quads * 4u;
    if m >= sizes[0].x {
        return;
    }
    let found = add_up(lane, m, width, first, normed);
    let n = first + lane;
    if lane < 4u && n < outputs {
        var value = found.four[lane];
        if normed {
            value *= norm_factor(found.squares, width, sizes[2].x);
        }
        let at = m * sizes[1].y + sizes[1].x + n;
        if sizes[1].z == 1u {
            value += added[sizes[1].x + n];
        } else if sizes[1].z == 2u {
            value += added[at];
        }
        y[at] = value;
    }
}
