// gemv_swiglu: a few rows, normalised, through the two halves of a gated MLP.
//
//   x        [M, K]       rows
//   gain     [K]          of the RMS norm that the rows go through first
//   words0   [N, loads]   rows of the gate in loads of weights (the import tells which)
//   words1   [N, loads]   rows of the other half
//   scales   [2*N, K/2^S]   f16, two in a word, the gate's first; ignored by weights without scales
//   y        [M, N]       silu(gate(norm(x))) * up(norm(x))
//   sizes                 M, N, K, S and bits of epsilon, 0, 0, 0
//
// As gemv, but a team of 32 makes two outputs of one row from two rows of either matrix.

// import $SLICE
// import $WEIGHTS
// import $SCALES

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> words0: array<Load>;
@group(0) @binding(3) var<storage, $INPUT> words1: array<Load>;
@group(0) @binding(4) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> sizes: array<vec4<u32>, 2>;

// import $INPUTS
// import $LOADS
// import gemv_accumulate

// Two rows of a half from `first` on, none past the last.
fn rows_of(first: u32) -> vec2<u32> {
    return min(vec2<u32>(first, first + 1u), vec2<u32>(sizes[0].y - 1u));
}

// Weights of gate, up, next gate and next up.
fn weights_at(rows: vec2<u32>, at: u32) -> vec4<u32> {
    let ups = rows + sizes[0].y;
    return vec4<u32>(rows.x, ups.x, rows.y, ups.y) * sizes[0].z + at * 4u * LOAD_VECTORS;
}

fn fetched(first: u32, at: u32) -> Fetched {
    let rows = rows_of(first);
    let weights = weights_at(rows, at);
    let places = rows * (sizes[0].z / (4u * LOAD_VECTORS)) + at;
    return Fetched(
        words0[places.x],
        words1[places.x],
        words0[places.y],
        words1[places.y],
        vec4<u32>(
            scale_word(weights.x, sizes[0].w),
            scale_word(weights.y, sizes[0].w),
            scale_word(weights.z, sizes[0].w),
            scale_word(weights.w, sizes[0].w),
        ),
    );
}

fn scales_in(found: vec4<u32>, first: u32, at: u32) -> vec4<f32> {
    let weights = weights_at(rows_of(first), at);
    return vec4<f32>(
        scale_in(found.x, weights.x, sizes[0].w),
        scale_in(found.y, weights.y, sizes[0].w),
        scale_in(found.z, weights.z, sizes[0].w),
        scale_in(found.w, weights.w, sizes[0].w),
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
    let parts = (outputs + $GROUPu / 16u - 1u) / ($GROUPu / 16u);
    let flat_group = group.y * groups.x + group.x;
    let m = flat_group / parts;
    let first = flat_group % parts * ($GROUPu / 16u) + lane / TEAM * 2u;
    if m >= sizes[0].x {
        return;
    }
    let found = add_up(lane, m, width, first, true);
    let rank = lane % TEAM;
    let n = first + rank;
    if rank < 2u && n < outputs {
        let root = norm_factor(found.squares, width, sizes[1].x);
        let gate = found.four[2u * rank] * root;
        let up = found.four[2u * rank + 1u] * root;
        y[m * outputs + n] = gate / (1.0 + exp(-gate)) * up;
    }
}
