// Tiles of both operands of a product in workgroup memory: for each of TILE_K values of k, M_QUADS
// vectors of four rows of x and N_QUADS vectors of four rows of w. Operands are read as blocks of four
// rows along k, and transposed when they are stored.
//
// workgroup memory   x_tile 16 * TILE_K * M_QUADS bytes, w_tile 16 * TILE_K * N_QUADS bytes
//
// K is a multiple of 4 and of VEC_SIZE.
var<workgroup> x_tile: array<vec4<f32>, TILE_K * M_QUADS>;
var<workgroup> w_tile: array<vec4<f32>, TILE_K * N_QUADS>;

// Four values of row `m` of x from `k` on; 0 past the last row and past the end of a row.
fn load_x(m: u32, k: u32) -> vec4<f32> {
    if m >= u.m || k >= u.k {
        return vec4<f32>();
    }
    return x[(m * u.k + k) / 4u];
}

// Four rows of x from `m` on.
fn load_x_block(m: u32, k: u32) -> mat4x4<f32> {
    return mat4x4<f32>(load_x(m, k), load_x(m + 1u, k), load_x(m + 2u, k), load_x(m + 3u, k));
}

// Stores a block of x: row quad `quad`, k from `k` on.
fn store_x_block(block: mat4x4<f32>, quad: u32, k: u32) {
    let columns = transpose(block);
    let index = k * M_QUADS + quad;
    x_tile[index] = columns[0];
    x_tile[index + M_QUADS] = columns[1];
    x_tile[index + 2u * M_QUADS] = columns[2];
    x_tile[index + 3u * M_QUADS] = columns[3];
}

// Stores a block of w, VEC_SIZE weights of each of four rows: row quad `quad`, k from `k` on.
fn store_w_block(a: VecN, b: VecN, c: VecN, d: VecN, quad: u32, k: u32) {
    var columns = transpose(mat4x4<f32>(low_of(a), low_of(b), low_of(c), low_of(d)));
    let index = k * N_QUADS + quad;
    w_tile[index] = columns[0];
    w_tile[index + N_QUADS] = columns[1];
    w_tile[index + 2u * N_QUADS] = columns[2];
    w_tile[index + 3u * N_QUADS] = columns[3];
    if VEC_PARTS == 2u {
        columns = transpose(mat4x4<f32>(high_of(a), high_of(b), high_of(c), high_of(d)));
        w_tile[index + 4u * N_QUADS] = columns[0];
        w_tile[index + 5u * N_QUADS] = columns[1];
        w_tile[index + 6u * N_QUADS] = columns[2];
        w_tile[index + 7u * N_QUADS] = columns[3];
    }
}

// Writes an output inside the matrix.
fn store_inside(m: u32, n: u32, product: f32) {
    if n >= u.n {
        return;
    }
    store_output(m, n, product);
}

// Writes four outputs of row `m` from `n` on.
fn store_quad(m: u32, n: u32, products: vec4<f32>) {
    if m >= u.m {
        return;
    }
    store_inside(m, n, products.x);
    store_inside(m, n + 1u, products.y);
    store_inside(m, n + 2u, products.z);
    store_inside(m, n + 3u, products.w);
}
