// gemv_gated: a few rows, normalised, through the two halves of a gated MLP.
//
//   x        [M, K]       rows
//   gain     [K]          of the RMS norm that the rows go through first
//   words0   [N, units]   rows of the gate in units of weights (the import tells which)
//   words1   [N, units]   rows of the other half
//   scales   [2*N, K/G]   f16, two in a word, the gate's first; ignored by weights without scales
//   y        [M, N]       silu(gate(norm(x))) * up(norm(x))
//   sizes                 M, N, K, G and bits of epsilon, 0, 0, 0
//
// As gemv, but a workgroup of $GROUP makes two outputs of one row from two rows of either matrix.

// import $SLICE
// import $WEIGHTS
// import scale_pairs

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> words0: array<Unit>;
@group(0) @binding(3) var<storage, $INPUT> words1: array<Unit>;
@group(0) @binding(4) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> sizes: array<vec4<u32>, 2>;

// import gemv_sums

// Gate and up of output `n`.
fn products(n: u32, unit: u32, inputs: Slice) -> vec2<f32> {
    let width = sizes[0].z;
    let per_unit = SLICE_VECTORS * 4u;
    let row = min(n, sizes[0].y - 1u);
    let at = row * (width / per_unit) + unit;
    let weight = row * width + unit * per_unit;
    return vec2<f32>(
        inner(weights_of(words0[at]), inputs) * scale_of(weight, sizes[0].w),
        inner(weights_of(words1[at]), inputs) * scale_of(sizes[0].y * width + weight, sizes[0].w),
    );
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
    let pairs = (outputs + 1u) / 2u;
    let flat_group = group.y * groups.x + group.x;
    let m = flat_group / pairs;
    let first = flat_group % pairs * 2u;
    if m >= sizes[0].x {
        return;
    }
    let units = width / (SLICE_VECTORS * 4u);
    var sum = vec4<f32>();
    var square = 0.0;
    for (var unit = lane; unit < units; unit += $GROUPu) {
        let inputs = inputs_of(m * width / 4u, unit);
        square += inner(inputs, inputs);
        let scaled = times(inputs, gains_of(unit));
        sum += vec4<f32>(
            products(first, unit, scaled),
            products(first + 1u, unit, scaled),
        );
    }
    add_up(lane, sum, square);
    let n = first + lane;
    if lane < 2u && n < outputs {
        let root = inverseSqrt(squares[0] / f32(width) + bitcast<f32>(sizes[1].x));
        let gate = sums[0][2u * lane] * root;
        let up = sums[0][2u * lane + 1u] * root;
        y[m * outputs + n] = gate / (1.0 + exp(-gate)) * up;
    }
}
