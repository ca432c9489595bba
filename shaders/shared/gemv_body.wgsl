// The body of the GEMV kernels. One workgroup: one row of x (gemv_one_row), or two to four (gemv_few_rows);
// each 32-thread group of it computes four dot products with rows of weights per row of x, one load of
// weights per thread and iteration.
//
// x is staged through workgroup memory, double-buffered: a tile holds what all 32-thread groups need of one
// row in one iteration, and while it is used the loads of the next tile and of the next weights are in flight.
// With an RMS norm the tile holds x * gain; the sum of x^2 is accumulated beside it and scales the
// result, so the norm costs no pass of its own.
//
// workgroup memory   x_tile 2 * LOAD_VECTORS * 33 * 16 bytes (8,448 for q4 and q8), sums 20 or, with
//                    subgroups, 24 * WORKGROUP_SIZE
//
// The importing file imports shared/gemv_sums and the slot ROWS, one of the two files named above, and defines
// the bindings x, gain and scales, and
//   output_count()         outputs per row of x
//   has_norm()             whether x goes through an RMS norm
//   rows_of(first)         the rows of weights of the 32-thread group whose outputs start at `first`,
//                          in the matrix that the scales belong to
//   load_rows(rows, i)     load i of each of these rows
//   store(m, n, i, sums)   writes output n of row m, the i-th of its 32-thread group
// OUTPUTS is the number of outputs of a 32-thread group.
const THREAD_GROUP = 32u;
const WORKGROUP_OUTPUTS = WORKGROUP_SIZE / THREAD_GROUP * OUTPUTS;
// Vectors of x in a tile. They lie in LOAD_VECTORS planes, padded against bank conflicts.
const TILE = THREAD_GROUP * LOAD_VECTORS;
const PLANE = THREAD_GROUP + 1u;

var<workgroup> x_tile: array<vec4<f32>, 2u * LOAD_VECTORS * PLANE>;

// One load of weights from each of four rows.
struct RowLoads {
    a: WeightLoad,
    b: WeightLoad,
    c: WeightLoad,
    d: WeightLoad,
}

struct Weights {
    rows: RowLoads,
    scales: vec4<u32>,
}

// Four dot products, and the sum of x^2.
struct Sums {
    dots: vec4<f32>,
    squares: f32,
}

// A vector of x and of the gain; 0 past the end of the row.
struct XVector {
    x: vec4<f32>,
    gain: vec4<f32>,
}

// Index of the first weight of load `i` of each row.
fn weight_index(rows: vec4<u32>, i: u32) -> vec4<u32> {
    return rows * u.k + i * 4u * LOAD_VECTORS;
}

fn load_w(first: u32, i: u32) -> Weights {
    let rows = rows_of(first);
    let index = weight_index(rows, i);
    return Weights(
        load_rows(rows, i),
        vec4<u32>(
            load_scale(index.x, u.group_shift),
            load_scale(index.y, u.group_shift),
            load_scale(index.z, u.group_shift),
            load_scale(index.w, u.group_shift),
        ),
    );
}

fn decode_scales(words: vec4<u32>, first: u32, i: u32) -> vec4<f32> {
    let index = weight_index(rows_of(first), i);
    return vec4<f32>(
        decode_scale(words.x, index.x, u.group_shift),
        decode_scale(words.y, index.y, u.group_shift),
        decode_scale(words.z, index.z, u.group_shift),
        decode_scale(words.w, index.w, u.group_shift),
    );
}

fn decode_minimums(words: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(
        decode_minimum(words.x),
        decode_minimum(words.y),
        decode_minimum(words.z),
        decode_minimum(words.w),
    );
}

fn load_x(m: u32, k: u32, vector: u32, normed: bool) -> XVector {
    var loaded = XVector(vec4<f32>(), vec4<f32>());
    if vector < k / 4u {
        loaded.x = x[m * (k / 4u) + vector];
        if normed {
            loaded.gain = gain[vector];
        }
    }
    return loaded;
}

// Stores vector `i` of a tile in the buffer that starts at `buffer`; returns its sum of squares if the
// row goes through a norm.
fn stage(vector: XVector, i: u32, buffer: u32, normed: bool) -> f32 {
    let index = buffer + i % LOAD_VECTORS * PLANE + i / LOAD_VECTORS;
    if !normed {
        x_tile[index] = vector.x;
        return 0.0;
    }
    x_tile[index] = vector.x * vector.gain;
    return dot(vector.x, vector.x);
}

// `sums` plus the products of the loads `w`, whose scales are `factors`, with `x_load`.
fn add_products(sums: vec4<f32>, w: Weights, factors: vec4<f32>, x_load: XLoad) -> vec4<f32> {
    let dots = vec4<f32>(
        dot_load(w.rows.a, x_load),
        dot_load(w.rows.b, x_load),
        dot_load(w.rows.c, x_load),
        dot_load(w.rows.d, x_load),
    );
    var added = sums + dots * factors;
    if HAS_MINIMUM {
        added += decode_minimums(w.scales) * sum_of(x_load);
    }
    return added;
}

// The factor by which an RMS norm of the row scales its dot products.
fn norm_factor(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(u.k) + u.eps);
}
