// gemv: a few rows times a matrix; the matmul of M <= 4.
//
//   x        [M, K]       rows
//   gain     [K]          of an RMS norm before the product; unused without one
//   w        [N, loads]   rows of the matrix, in loads of weights (shared/dot_*)
//   scales   [N, K/2^S]   of quantized weights (shared/scale_*);
//                         unused otherwise. S is u.group_shift
//   added    [NT] bias, [M, NT] residual, or unused, as u.epilogue says
//   y        [M, NT]      columns A .. A+N: sum over k of norm(x)[m, k] * w[n, k], plus the epilogue;
//                         A is u.col_offset, NT is u.n_total
//
// See shared/gemv_body. Each weight is read once per ROW_COUNT rows of x: bytes are what it costs, 2*M*N*K
// operations are few.

// import VEC
// import DEQUANT
// import SCALE

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<WeightLoad>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;
@group(0) @binding(4) var<storage, read> added: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> u: Uniforms;

// import X_VEC
// import DOT
// import epilogue
// import gemv_body
// import gemv_sums
// import ROWS

fn output_count() -> u32 {
    return u.n;
}

fn has_norm() -> bool {
    return u.normed == 1u;
}

fn rows_of(first: u32) -> vec4<u32> {
    return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(u.n - 1u));
}

fn load_rows(rows: vec4<u32>, i: u32) -> RowLoads {
    let loads = u.k / (4u * LOAD_VECTORS);
    return RowLoads(
        w[rows.x * loads + i],
        w[rows.y * loads + i],
        w[rows.z * loads + i],
        w[rows.w * loads + i],
    );
}

fn store(m: u32, n: u32, i: u32, sums: Sums) {
    var product = sums.dots[i];
    if has_norm() {
        product *= norm_factor(sums.squares);
    }
    store_output(m, n, product);
}
