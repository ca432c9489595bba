// gemv_qkv: a few rows, normalised, times three matrices: queries, keys and values of attention.
//
//   x        [M, K]            rows
//   gain     [K]               of the RMS norm that the rows go through first
//   words0.. [N0, loads] ..    rows of the matrices in loads of weights (the import tells which)
//   scales   [N0+N1+N2, K/2^S]   as they are stored; ignored by weights without scales
//   bias     [N0+N1+N2]        where BIASED
//   y        [M, N0+N1+N2]     sum over k of norm(x)[m, k] * w[n, k], plus bias
//   sizes                      M, N0, N1, N2 and K, S, BIASED, bits of epsilon; N0 and N1 multiples of 4
//
// As gemv: a workgroup of $GROUP makes four outputs of one row for each team of 32.

// import $SLICE
// import $WEIGHTS
// import $SCALES

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> words0: array<Load>;
@group(0) @binding(3) var<storage, $INPUT> words1: array<Load>;
@group(0) @binding(4) var<storage, $INPUT> words2: array<Load>;
@group(0) @binding(5) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(6) var<storage, $INPUT> bias: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> sizes: array<vec4<u32>, 2>;

// import $INPUTS
// import $LOADS
// import gemv_accumulate

// Four rows of all three matrices from `first` on, none past the last.
fn rows_of(first: u32) -> vec4<u32> {
    let last = sizes[0].y + sizes[0].z + sizes[0].w - 1u;
    return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(last));
}

fn weights_at(rows: vec4<u32>, at: u32) -> vec4<u32> {
    return rows * sizes[1].x + at * 4u * LOAD_VECTORS;
}

fn fetched(first: u32, at: u32) -> Fetched {
    let loads = sizes[1].x / (4u * LOAD_VECTORS);
    let rows = rows_of(first);
    let weights = weights_at(rows, at);
    var found: Fetched;
    found.words = vec4<u32>(
        scale_word(weights.x, sizes[1].y),
        scale_word(weights.y, sizes[1].y),
        scale_word(weights.z, sizes[1].y),
        scale_word(weights.w, sizes[1].y),
    );
    if rows.x < sizes[0].y {
        let places = rows * loads + at;
        found.a = words0[places.x];
        found.b = words0[places.y];
        found.c = words0[places.z];
        found.d = words0[places.w];
    } else if rows.x < sizes[0].y + sizes[0].z {
        let places = (rows - sizes[0].y) * loads + at;
        found.a = words1[places.x];
        found.b = words1[places.y];
        found.c = words1[places.z];
        found.d = words1[places.w];
    } else {
        let places = (rows - (sizes[0].y + sizes[0].z)) * loads + at;
        found.a = words2[places.x];
        found.b = words2[places.y];
        found.c = words2[places.z];
        found.d = words2[places.w];
    }
    return found;
}

fn scales_in(found: vec4<u32>, first: u32, at: u32) -> vec4<f32> {
    let weights = weights_at(rows_of(first), at);
    return vec4<f32>(
        scale_in(found.x, weights.x, sizes[1].y),
        scale_in(found.y, weights.y, sizes[1].y),
        scale_in(found.z, weights.z, sizes[1].y),
        scale_in(found.w, weights.w, sizes[1].y),
    );
}

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let outputs = sizes[0].y + sizes[0].z + sizes[0].w;
    let width = sizes[1].x;
    let parts = (outputs + $GROUPu / 8u - 1u) / ($GROUPu / 8u);
    let flat_group = group.y * groups.x + group.x;
    let m = flat_group / parts;
    let first = flat_group % parts * ($GROUPu / 8u) + lane / TEAM * 4u;
    if m >= sizes[0].x {
        return;
    }
    let found = add_up(lane, m, width, first, true);
    let rank = lane % TEAM;
    let n = first + rank;
    if rank < 4u && n < outputs {
        var value = found.four[rank] * norm_factor(found.squares, width, sizes[1].w);
        if sizes[1].z == 1u {
            value += bias[n];
        }
        y[m * outputs + n] = value;
    }
}
