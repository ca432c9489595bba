// gemv_gated: a few rows, normalised, through the two halves of a gated MLP.
//
//   x        [M, K]       rows
//   gain     [K]          of the RMS norm that the rows go through first
//   words0   [N, units]   rows of the gate in units of weights (the import tells which)
//   words1   [N, units]   rows of the other half
//   scales   [2*N, K/2^S]   f16, two in a word, the gate's first; ignored by weights without scales
//   y        [M, N]       silu(gate(norm(x))) * up(norm(x))
//   sizes                 M, N, K, S and bits of epsilon, 0, 0, 0
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

// import four_sums
// import gemv_sums

// Gate and up of output `n`.
fn products(n: u32, unit: u32, inputs: Slice, total: f32) -> vec2<f32> {
    let width = sizes[0].z;
    let row = min(n, sizes[0].y - 1u);
    let at = row * (width / PER_UNIT) + unit;
    let weight = row * width + unit * PER_UNIT;
    return vec2<f32>(
        product_of(words0[at], inputs, total) * scale_of(weight, sizes[0].w),
        product_of(words1[at], inputs, total) * scale_of(sizes[0].y * width + weight, sizes[0].w),
    );
}

fn quad(first: u32, unit: u32, inputs: Slice, total: f32) -> vec4<f32> {
    return vec4<f32>(
        products(first, unit, inputs, total),
        products(first + 1u, unit, inputs, total),
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
    let found = add_up(lane, m, width, first, true);
    let n = first + lane;
    if lane < 2u && n < outputs {
        let root = norm_factor(found.squares, width, sizes[1].x);
        let gate = found.four[2u * lane] * root;
        let up = found.four[2u * lane + 1u] * root;
        y[m * outputs + n] = gate / (1.0 + exp(-gate)) * up;
    }
}
