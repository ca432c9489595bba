// matmul_skinny: up to 32 rows times a matrix; the matmul of 4 < M <= 32.
//
//   x        [M, K]       rows
//   w        [N, K/V]     rows of the matrix, in vectors of V = VEC_SIZE weights (shared/dequant_*)
//   scales   [N, K/2^S]   of quantized weights (shared/scale_*);
//                         unused otherwise. S is u.group_shift
//   added    [NT] bias, [M, NT] residual, or unused, as u.epilogue says
//   y        [M, NT]      columns A .. A+N: sum over k of x[m, k] * w[n, k], plus the epilogue;
//                         A is u.col_offset, NT is u.n_total
//
// One workgroup of N_QUADS x M_QUADS x K_SPLITS threads: a tile of 16 rows by 4 * N_QUADS columns; each
// thread of a split accumulates 4 x 4 outputs in registers. Per iteration TILE_K values of k are staged,
// of which each split multiplies its part (split-K inside the workgroup), while the loads of the next
// tile are in flight. There are few tiles, so the splits keep a device busy; they are added up in a tree.
// Each weight is dequantized once per 16 rows; 8 operations per byte of workgroup memory read.

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
// Blocks of a tile, of x (four rows by four k) and of w (four rows by VEC_SIZE k): one per thread.
const X_BLOCKS_K = TILE_K / 4u;
const X_BLOCKS = M_QUADS * X_BLOCKS_K;
const W_BLOCKS_K = TILE_K / VEC_SIZE;
const W_BLOCKS = N_QUADS * W_BLOCKS_K;

// A block as it was loaded: of x, or of w before dequantization.
struct Block {
    x: mat4x4<f32>,
    a: WeightVec,
    b: WeightVec,
    c: WeightVec,
    d: WeightVec,
    scales: vec4<u32>,
}

fn load_w(n: u32, k: u32) -> WeightVec {
    if n >= u.n || k >= u.k {
        return WeightVec();
    }
    return w[n * (u.k / VEC_SIZE) + k / VEC_SIZE];
}

// The scale of a weight; outside the matrix that of a weight inside, for outputs that are not written or
// values of x that are 0.
fn load_inside_scale(n: u32, k: u32) -> u32 {
    return load_scale(min(n, u.n - 1u) * u.k + min(k, u.k - 1u), u.group_shift);
}

fn load_block(thread: u32, first_m: u32, first_n: u32, k_start: u32) -> Block {
    var block: Block;
    if thread < X_BLOCKS {
        let k = k_start + thread % X_BLOCKS_K * 4u;
        block.x = load_x_block(first_m + thread / X_BLOCKS_K * 4u, k);
    } else if thread < X_BLOCKS + W_BLOCKS {
        let i = thread - X_BLOCKS;
        let k = k_start + i % W_BLOCKS_K * VEC_SIZE;
        let n = first_n + i / W_BLOCKS_K * 4u;
        block.a = load_w(n, k);
        block.b = load_w(n + 1u, k);
        block.c = load_w(n + 2u, k);
        block.d = load_w(n + 3u, k);
        block.scales = vec4<u32>(
            load_inside_scale(n, k),
            load_inside_scale(n + 1u, k),
            load_inside_scale(n + 2u, k),
            load_inside_scale(n + 3u, k),
        );
    }
    return block;
}

fn scaled(weights: WeightVec, scale_word: u32, n: u32, k: u32) -> VecN {
    return scaled_weights(dequant(weights), scale_word, n * u.k + k, u.group_shift);
}

fn store_block(thread: u32, first_n: u32, k_start: u32, block: Block) {
    if thread < X_BLOCKS {
        store_x_block(block.x, thread / X_BLOCKS_K, thread % X_BLOCKS_K * 4u);
    } else if thread < X_BLOCKS + W_BLOCKS {
        let i = thread - X_BLOCKS;
        let tile_k = i % W_BLOCKS_K * VEC_SIZE;
        let k = k_start + tile_k;
        let n = first_n + i / W_BLOCKS_K * 4u;
        store_w_block(
            scaled(block.a, block.scales.x, n, k),
            scaled(block.b, block.scales.y, n + 1u, k),
            scaled(block.c, block.scales.z, n + 2u, k),
            scaled(block.d, block.scales.w, n + 3u, k),
            i / W_BLOCKS_K,
            tile_k,
        );
    }
}

@compute @workgroup_size(N_QUADS, M_QUADS, K_SPLITS)
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
    let first_m = flat_group / n_tiles * (4u * M_QUADS);
    let first_n = flat_group % n_tiles * 4u * N_QUADS;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var block = load_block(thread, first_m, first_n, 0u);
    for (var k_start = 0u; k_start < k_total; k_start += TILE_K) {
        store_block(thread, first_n, k_start, block);
        workgroupBarrier();
        block = load_block(thread, first_m, first_n, k_start + TILE_K);
        for (var k = local.z * SPLIT_K; k < (local.z + 1u) * SPLIT_K; k++) {
            let r = x_tile[k * M_QUADS + local.y];
            let c = w_tile[k * N_QUADS + local.x];
            a0 += r.x * c;
            a1 += r.y * c;
            a2 += r.z * c;
            a3 += r.w * c;
        }
        workgroupBarrier();
    }
    // Adds up the splits in a tree: the upper half stores its sums in `w_tile`, the lower half adds them.
    for (var stride = K_SPLITS / 2u; stride > 0u; stride /= 2u) {
        let at = (local.z % stride * M_QUADS + local.y) * 4u * N_QUADS + local.x;
        if local.z >= stride && local.z < 2u * stride {
            w_tile[at] = a0;
            w_tile[at + N_QUADS] = a1;
            w_tile[at + 2u * N_QUADS] = a2;
            w_tile[at + 3u * N_QUADS] = a3;
        }
        workgroupBarrier();
        if local.z < stride {
            a0 += w_tile[at];
            a1 += w_tile[at + N_QUADS];
            a2 += w_tile[at + 2u * N_QUADS];
            a3 += w_tile[at + 3u * N_QUADS];
        }
        workgroupBarrier();
    }
    if local.z > 0u {
        return;
    }
    let m = first_m + local.y * 4u;
    let n = first_n + local.x * 4u;
    store_quad(m, n, a0);
    store_quad(m + 1u, n, a1);
    store_quad(m + 2u, n, a2);
    store_quad(m + 3u, n, a3);
}
