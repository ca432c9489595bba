// gemv_qkv: the fused QKV projection of a few rows, with the RMS norm before it.
//
//   x        [M, K]             rows
//   gain     [K]                of the RMS norm
//   w_q, w_k, w_v  [NQ, loads], [NK, loads], [NV, loads]   rows of the matrices, in loads of weights
//                               (shared/dot_*); NQ and NK are multiples of 4
//   scales   [NQ+NK+NV, K/2^S]  of quantized weights (shared/scale_*);
//                               unused otherwise. S is u.group_shift
//   bias     [NQ+NK+NV]         unused unless u.biased
//   y        [M, NQ+NK+NV]      sum over k of norm(x)[m, k] * w[n, k], plus bias
//
// See shared/gemv_body.

// import VEC
// import DEQUANT
// import SCALE

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w_q: array<WeightLoad>;
@group(0) @binding(3) var<storage, read> w_k: array<WeightLoad>;
@group(0) @binding(4) var<storage, read> w_v: array<WeightLoad>;
@group(0) @binding(5) var<storage, read> scales: array<u32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> u: Uniforms;

// import X_VEC
// import DOT
// import gemv_body
// import gemv_sums
// import ROWS

fn output_count() -> u32 {
    return u.n_q + u.n_k + u.n_v;
}

fn has_norm() -> bool {
    return true;
}

fn rows_of(first: u32) -> vec4<u32> {
    let last = output_count() - 1u;
    return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(last));
}

// All four rows are in one matrix.
fn load_rows(rows: vec4<u32>, i: u32) -> RowLoads {
    let loads = u.k / (4u * LOAD_VECTORS);
    var found: RowLoads;
    if rows.x < u.n_q {
        let index = rows * loads + i;
        found = RowLoads(w_q[index.x], w_q[index.y], w_q[index.z], w_q[index.w]);
    } else if rows.x < u.n_q + u.n_k {
        let index = (rows - u.n_q) * loads + i;
        found = RowLoads(w_k[index.x], w_k[index.y], w_k[index.z], w_k[index.w]);
    } else {
        let index = (rows - (u.n_q + u.n_k)) * loads + i;
        found = RowLoads(w_v[index.x], w_v[index.y], w_v[index.z], w_v[index.w]);
    }
    return found;
}

fn store(m: u32, n: u32, i: u32, sums: Sums) {
    var product = sums.dots[i] * norm_factor(sums.squares);
    if u.biased == 1u {
        product += bias[n];
    }
    y[m * output_count() + n] = product;
}
