// gemv: a few rows times a matrix.
//
//   x        [M, K]       rows
//   gain     [K]          where NORMED: of an RMS norm that the rows go through first
//   words    [N, units]   rows of the matrix in units of weights (the import tells which)
//   scales   [N, K/G]     f16, two in a word; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of norm(x)[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, G and A, NT, ADDED, NORMED and bits of epsilon, 0, 0, 0
//
// A workgroup of $GROUP makes four outputs of one row: its invocations take every $GROUPth unit of
// four rows of the matrix, so reads are contiguous, and add up in a tree. The norm is a factor of
// the whole sum, found beside it. Every weight is read once per row of x: its bytes are all that
// matters, 2*N*K operations are few.

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

// import gemv_sums

fn product(n: u32, unit: u32, inputs: Slice) -> f32 {
    let width = sizes[0].z;
    let row = min(n, sizes[0].y - 1u);
    let per_unit = SLICE_VECTORS * 4u;
    let weights = weights_of(words[row * (width / per_unit) + unit]);
    return inner(weights, inputs) * scale_of(row * width + unit * per_unit, sizes[0].w);
}

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
    let units = width / (SLICE_VECTORS * 4u);
    var sum = vec4<f32>();
    var square = 0.0;
    for (var unit = lane; unit < units; unit += $GROUPu) {
        var inputs = inputs_of(m * width / 4u, unit);
        if normed {
            square += inner(inputs, inputs);
            inputs = times(inputs, gains_of(unit));
        }
        sum += vec4<f32>(
            product(first, unit, inputs),
            product(first + 1u, unit, inputs),
            product(first + 2u, unit, inputs),
            product(first + 3u, unit, inputs),
        );
    }
    add_up(lane, sum, square);
    let n = first + lane;
    if lane < 4u && n < outputs {
        var value = sums[0][lane];
        if normed {
            value *= inverseSqrt(squares[0] / f32(width) + bitcast<f32>(sizes[2].x));
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
