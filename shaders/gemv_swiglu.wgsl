// gemv_swiglu: the gate and up projections of a SwiGLU MLP for a few rows, with the RMS norm before them
// and silu(gate) * up after them.
//
//   x        [M, K]        rows
//   gain     [K]           of the RMS norm
//   w_gate   [N, loads]    rows of the gate projection, in loads of weights (shared/dot_*)
//   w_up     [N, loads]    rows of the up projection
//   scales   [2*N, K/2^S]  of quantized weights (shared/scale_*), the gate's first;
//                          unused otherwise. S is u.group_shift
//   y        [M, N]        silu(gate(norm(x))) * up(norm(x))
//
// See shared/gemv_body; a 32-thread group computes two outputs from two rows of each matrix.

// import VEC
// import DEQUANT
// import SCALE

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w_gate: array<WeightLoad>;
@group(0) @binding(3) var<storage, read> w_up: array<WeightLoad>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<uniform> u: Uniforms;

// import X_VEC
// import DOT
// import silu
// import gemv_body
// import gemv_sums
// import ROWS

fn output_count() -> u32 {
    return u.n;
}

fn has_norm() -> bool {
    return true;
}

// Gate, up, next gate, next up; the rows of up come after those of gate.
fn rows_of(first: u32) -> vec4<u32> {
    let rows = min(vec2<u32>(first, first + 1u), vec2<u32>(u.n - 1u));
    return vec4<u32>(rows.x, rows.x + u.n, rows.y, rows.y + u.n);
}

fn load_rows(rows: vec4<u32>, i: u32) -> RowLoads {
    let index = rows.xz * (u.k / (4u * LOAD_VECTORS)) + i;
    return RowLoads(w_gate[index.x], w_up[index.x], w_gate[index.y], w_up[index.y]);
}

fn store(m: u32, n: u32, i: u32, sums: Sums) {
    let factor = norm_factor(sums.squares);
    let gate = sums.dots[2u * i] * factor;
    let up = sums.dots[2u * i + 1u] * factor;
    y[m * u.n + n] = silu(gate) * up;
}
