// The body of the GEMV kernels. One workgroup: one row of x; each 32-thread group of it computes four
// dot products with rows of weights, one load of weights per thread and iteration.
//
// x is staged through workgroup memory, double-buffered: a tile holds what one iteration of all 32-thread
// groups needs, and while it is used the loads of the next tile and of the next weights are in flight.
// With an RMS norm the tile holds x * gain; the sum of x^2 is accumulated beside it and scales the
// result, so the norm costs no pass of its own.
//
// workgroup memory   x_tile 2 * LOAD_VECTORS * 33 * 16 bytes (8,448 for q4 and q8), sums 20 or, with
//                    subgroups, 24 * WORKGROUP_SIZE
//
// The importing file imports shared/gemv_sums and defines the bindings x, gain and scales, and
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

// The sums of a 32-thread group. All threads of the workgroup must call it.
fn accumulate(thread: u32, m: u32, k: u32, first: u32, normed: bool) -> Sums {
    let rank = thread % THREAD_GROUP;
    let loads = k / (4u * LOAD_VECTORS);
    var sums = Sums(vec4<f32>(), 0.0);
    var buffer = 0u;
    var next = load_w(first, min(rank, loads - 1u));
    var near = load_x(m, k, thread, normed);
    var far = load_x(m, k, thread + WORKGROUP_SIZE, normed);
    for (var base = 0u; base < loads; base += THREAD_GROUP) {
        if thread < TILE {
            sums.squares += stage(near, thread, buffer, normed);
        }
        if thread + WORKGROUP_SIZE < TILE {
            sums.squares += stage(far, thread + WORKGROUP_SIZE, buffer, normed);
        }
        let w = next;
        workgroupBarrier();
        if base + THREAD_GROUP < loads {
            let vector = (base + THREAD_GROUP) * LOAD_VECTORS + thread;
            next = load_w(first, min(base + THREAD_GROUP + rank, loads - 1u));
            near = load_x(m, k, vector, normed);
            if WORKGROUP_SIZE < TILE {
                far = load_x(m, k, vector + WORKGROUP_SIZE, normed);
            }
        }
        let x_load = load_x_tile(buffer + rank);
        let dots = vec4<f32>(
            dot_load(w.rows.a, x_load),
            dot_load(w.rows.b, x_load),
            dot_load(w.rows.c, x_load),
            dot_load(w.rows.d, x_load),
        );
        sums.dots += dots * decode_scales(w.scales, first, min(base + rank, loads - 1u));
        if HAS_MINIMUM {
            sums.dots += decode_minimums(w.scales) * sum_of(x_load);
        }
        buffer = LOAD_VECTORS * PLANE - buffer;
    }
    return gemv_sums(thread, sums);
}

// The factor by which an RMS norm of the row scales its dot products.
fn norm_factor(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(u.k) + u.eps);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    _ = scales[0];
    let n_count = output_count();
    let tiles = (n_count + WORKGROUP_OUTPUTS - 1u) / WORKGROUP_OUTPUTS;
    let flat_group = workgroup_index(group, groups);
    let m = flat_group / tiles;
    let first = flat_group % tiles * WORKGROUP_OUTPUTS + thread / THREAD_GROUP * OUTPUTS;
    if m >= u.m {
        return;
    }
    let sums = accumulate(thread, m, u.k, first, has_norm());
    let i = thread % THREAD_GROUP;
    let n = first + i;
    if i < OUTPUTS && n < n_count {
        store(m, n, i, sums);
    }
}
