// gemv: a few rows times a matrix.
//
//   x        [M, K]       rows
//   gain     [K]          where NORMED: of an RMS norm that the rows go through first
//   words    [N, loads]   rows of the matrix in loads of weights (the import tells which)
//   scales   [N, K/2^S]     as they are stored; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of norm(x)[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, S and A, NT, ADDED, NORMED and bits of epsilon, 0, 0, 0
//
// A workgroup of $GROUP makes outputs of one row, four for each team of 32. Every weight is read once per
// row of x: its bytes are all that matters, 2*N*K operations are few.

// import $SLICE
// import $WEIGHTS
// import $SCALES

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, $INPUT> words: array<Load>;
@group(0) @binding(3) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(4) var<storage, $INPUT> added: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> sizes: array<vec4<u32>, 3>;

// import $INPUTS
// import $LOADS
// import gemv_accumulate

// Four rows from `first` on, none past the last.
fn rows_of(first: u32) -> vec4<u32> {
    return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(sizes[0].y - 1u));
}

fn weights_at(rows: vec4<u32>, at: u32) -> vec4<u32> {
    return rows * sizes[0].z + at * 4u * LOAD_VECTORS;
}

fn fetched(first: u32, at: u32) -> Fetched {
    let loads = sizes[0].z / (4u * LOAD_VECTORS);
    let rows = rows_of(first);
    let weights = weights_at(rows, at);
    return Fetched(
        words[rows.x * loads + at],
        words[rows.y * loads + at],
        words[rows.z * loads + at],
        words[rows.w * loads + at],
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
    let normed = sizes[1].w == 1u;
    let parts = (outputs + $GROUPu / 8u - 1u) / ($GROUPu / 8u);
    let flat_group = group.y * groups.x + group.x;
    let m = flat_group / parts;
    let first = flat_group % parts * ($GROUPu / 8u) + lane / TEAM * 4u;
    if m >= sizes[0].x {
        return;
    }
    let found = add_up(lane, m, width, first, normed);
    let rank = lane % TEAM;
    let n = first + rank;
    if rank < 4u && n < outputs {
        var value = found.four[rank];
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
