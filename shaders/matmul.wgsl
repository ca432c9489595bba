// matmul: many rows times a matrix; the matmul of M > 32.
//
//   x        [M, K]       rows
//   w        [N, K/V]     rows of the matrix, in vectors of V = VEC_SIZE weights (shared/dequant_*)
//   scales   [N, K/2^S]   of quantized weights (shared/scale_*);
//                         unused otherwise. S is u.group_shift
//   added    [NT] bias, [M, NT] residual, or unused, as u.epilogue says
//   y        [M, NT]      columns A .. A+N: sum over k of x[m, k] * w[n, k], plus the epilogue;
//                         A is u.col_offset, NT is u.n_total
//
// One workgroup of N_QUADS/2 x 8 x K_SPLITS threads: a tile of 64 rows by 4 * N_QUADS columns; each
// thread of a split accumulates 8 x 8 outputs in registers. Per iteration TILE_K values of k are staged,
// of which each split multiplies its part (split-K inside the workgroup); the splits are added up at the
// end. Wider tiles reuse staged data more: 64 x 128 does 21 operations per byte staged, 64 x 64 does 16.
// More splits keep a device busy when there are few tiles.

// import VEC
// import DEQUANT
// import SCALE
// import scaled_weights

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<WeightVec>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> added: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> u: Uniforms;

// import epilogue
// import matmul_tiles

// k values of a tile that one split multiplies.
const SPLIT_K = TILE_K / K_SPLITS;
const THREADS_X = N_QUADS / 2u;
const THREADS = THREADS_X * 8u * K_SPLITS;

// VEC_SIZE weights of row `n` from `k` on; 0 outside the matrix.
fn load_w(n: u32, k: u32) -> VecN {
    if n >= u.n || k >= u.k {
        return vec_n(vec4<f32>(), vec4<f32>());
    }
    let weights = dequant(w[n * (u.k / VEC_SIZE) + k / VEC_SIZE]);
    let first = n * u.k + k;
    return scaled_weights(weights, load_scale(first, u.group_shift), first, u.group_shift);
}

// Loads both tiles from `k_start` on.
fn load_tiles(thread: u32, first_m: u32, first_n: u32, k_start: u32) {
    for (var i = thread; i < TILE_K / 4u * M_QUADS; i += THREADS) {
        let k = i % (TILE_K / 4u) * 4u;
        let quad = i / (TILE_K / 4u);
        store_x_block(load_x_block(first_m + quad * 4u, k_start + k), quad, k);
    }
    for (var i = thread; i < TILE_K / VEC_SIZE * N_QUADS; i += THREADS) {
        let k = i % (TILE_K / VEC_SIZE) * VEC_SIZE;
        let quad = i / (TILE_K / VEC_SIZE);
        let n = first_n + quad * 4u;
        store_w_block(
            load_w(n, k_start + k),
            load_w(n + 1u, k_start + k),
            load_w(n + 2u, k_start + k),
            load_w(n + 3u, k_start + k),
            quad,
            k,
        );
    }
}

@compute @workgroup_size(THREADS_X, 8u, K_SPLITS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    _ = scales[0];
    let k_total = u.k;
    let n_tiles = (u.n + 4u * N_QUADS - 1u) / (4u * N_QUADS);
    let flat_group = workgroup_index(group, groups);
    let first_m = flat_group / n_tiles * 64u;
    let first_n = flat_group % n_tiles * 4u * N_QUADS;
    var a0 = vec4<f32>(); var b0 = vec4<f32>();
    var a1 = vec4<f32>(); var b1 = vec4<f32>();
    var a2 = vec4<f32>(); var b2 = vec4<f32>();
    var a3 = vec4<f32>(); var b3 = vec4<f32>();
    var a4 = vec4<f32>(); var b4 = vec4<f32>();
    var a5 = vec4<f32>(); var b5 = vec4<f32>();
    var a6 = vec4<f32>(); var b6 = vec4<f32>();
    var a7 = vec4<f32>(); var b7 = vec4<f32>();

    for (var k_start = 0u; k_start < k_total; k_start += TILE_K) {
        load_tiles(thread, first_m, first_n, k_start);
        workgroupBarrier();
        for (var k = local.z * SPLIT_K; k < (local.z + 1u) * SPLIT_K; k++) {
            let r = x_tile[k * M_QUADS + local.y];
            let s = x_tile[k * M_QUADS + local.y + 8u];
            let c = w_tile[k * N_QUADS + local.x];
            let d = w_tile[k * N_QUADS + local.x + THREADS_X];
            a0 += r.x * c; b0 += r.x * d;
            a1 += r.y * c; b1 += r.y * d;
            a2 += r.z * c; b2 += r.z * d;
            a3 += r.w * c; b3 += r.w * d;
            a4 += s.x * c; b4 += s.x * d;
            a5 += s.y * c; b5 += s.y * d;
            a6 += s.z * c; b6 += s.z * d;
            a7 += s.w * c; b7 += s.w * d;
        }
        workgroupBarrier();
    }
    // Adds up the splits in order: each stores its left half in `x_tile` and its right half in `w_tile`,
    // 512 vectors each.
    for (var split = 1u; split < K_SPLITS; split++) {
        let at = local.y * THREADS_X + local.x;
        if local.z == split {
            x_tile[at] = a0; w_tile[at] = b0;
            x_tile[at + 64u] = a1; w_tile[at + 64u] = b1;
            x_tile[at + 128u] = a2; w_tile[at + 128u] = b2;
            x_tile[at + 192u] = a3; w_tile[at + 192u] = b3;
            x_tile[at + 256u] = a4; w_tile[at + 256u] = b4;
            x_tile[at + 320u] = a5; w_tile[at + 320u] = b5;
            x_tile[at + 384u] = a6; w_tile[at + 384u] = b6;
            x_tile[at + 448u] = a7; w_tile[at + 448u] = b7;
        }
        workgroupBarrier();
        if local.z == 0u {
            a0 += x_tile[at]; b0 += w_tile[at];
            a1 += x_tile[at + 64u]; b1 += w_tile[at + 64u];
            a2 += x_tile[at + 128u]; b2 += w_tile[at + 128u];
            a3 += x_tile[at + 192u]; b3 += w_tile[at + 192u];
            a4 += x_tile[at + 256u]; b4 += w_tile[at + 256u];
            a5 += x_tile[at + 320u]; b5 += w_tile[at + 320u];
            a6 += x_tile[at + 384u]; b6 += w_tile[at + 384u];
            a7 += x_tile[at + 448u]; b7 += w_tile[at + 448u];
        }
        workgroupBarrier();
    }
    if local.z > 0u {
        return;
    }
    let m = first_m + local.y * 4u;
    let n = first_n + local.x * 4u;
    let right = n + 4u * THREADS_X;
    store_quad(m, n, a0); store_quad(m, right, b0);
    store_quad(m + 1u, n, a1); store_quad(m + 1u, right, b1);
    store_quad(m + 2u, n, a2); store_quad(m + 2u, right, b2);
    store_quad(m + 3u, n, a3); store_quad(m + 3u, right, b3);
    store_quad(m + 32u, n, a4); store_quad(m + 32u, right, b4);
    store_quad(m + 33u, n, a5); store_quad(m + 33u, right, b5);
    store_quad(m + 34u, n, a6); store_quad(m + 34u, right, b6);
    store_quad(m + 35u, n, a7); store_quad(m + 35u, right, b7);
}
