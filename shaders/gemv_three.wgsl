// gemv_three: a few rows, normalised, times three matrices: queries, keys and values of attention.
//
//   x        [M, K]            rows
//   gain     [K]               of the RMS norm that the rows go through first
//   words0.. [N0, units] ..    rows of the matrices in units of weights (the import tells which)
//   scales   [N0+N1+N2, K/2^S]   f16, two in a word; ignored by weights without scales
//   bias     [N0+N1+N2]        where BIASED
//   y        [M, N0+N1+N2]     sum over k of norm(x)[m, k] * w[n, k], plus bias
//   sizes                      M, N0, N1, N2 and K, S, BIASED, bits of epsilon
//
// As gemv: a workgroup of $GROUP makes four outputs of one row.

// import $SLICE
// import $WEIGHTS
// import scale_pairs

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> words0: array<Unit>;
@group(0) @binding(3) var<storage, $INPUT> words1: array<Unit>;
@group(0) @binding(4) var<storage, $INPUT> words2: array<Unit>;
@group(0) @binding(5) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(6) var<storage, $INPUT> bias: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> sizes: array<vec4<u32>, 2>;

// import four_sums
// import gemv_sums

fn product(n: u32, unit: u32, inputs: Slice, total: f32) -> f32 {
    let width = sizes[1].x;
    let units = width / PER_UNIT;
    let row = min(n, sizes[0].y + sizes[0].z + sizes[0].w - 1u);
    var weights: Unit;
    if row < sizes[0].y {
        weights = words0[row * units + unit];
    } else if row < sizes[0].y + sizes[0].z {
        weights = words1[(row - sizes[0].y) * units + unit];
    } else {
        weights = words2[(row - sizes[0].y - sizes[0].z) * units + unit];
    }
    let part = product_of(weights, inputs, total);
    return part * scale_of(row * width + unit * PER_UNIT, sizes[1].y);
}

// import four_outputs

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let outputs = sizes[0].y + sizes[0].z + sizes[0].w;
    let width = sizes[1].x;
    let quads = (outputs + 3u) / 4u;
    let flat_group = group.y * groups.x + group.x;
    let m = flat_group / quads;
    let first = flat_group % quads * 4u;
    if m >= sizes[0].x {
        return;
    }
    let found = add_up(lane, m, width, first, true);
    let n = first + lane;
    if lane < 4u && n < outputs {
        var value = found.four[lane] * norm_factor(found.squares, width, sizes[1].w);
        if sizes[1].z == 1u {
            value += bias[n];
        }
        y[m * outputs + n] = value;
    }
}
