// gather_rows: gathers rows of a matrix by index, dequantized; the embedding lookup.
//
//   ids      [R]          row indices in the whole matrix
//   w        [N, K/V]     rows A .. A+N of the matrix, in vectors of V = VEC_SIZE weights
//                         (shared/dequant_*); A is u.row_offset
//   scales   [N, K/2^S]   of quantized weights (shared/scale_*);
//                         unused otherwise. S is u.group_shift
//   y        [R, K]       written where the index is in A .. A+N
//
// One thread: VEC_SIZE values.

// import elementwise
// import VEC
// import DEQUANT
// import SCALE
// import scaled_weights

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> w: array<WeightVec>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> u: Uniforms;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    _ = scales[0];
    let k = u.k;
    let vectors = k / VEC_SIZE;
    let i = element_index(group, groups, thread);
    let row = i / vectors;
    if row >= u.count {
        return;
    }
    let id = ids[row];
    if id < u.row_offset || id - u.row_offset >= u.n {
        return;
    }
    let n = id - u.row_offset;
    let vector = i % vectors;
    let first = n * k + vector * VEC_SIZE;
    let word = load_scale(first, u.group_shift);
    let weights = scaled_weights(dequant(w[n * vectors + vector]), word, first, u.group_shift);
    let index = (row * k + vector * VEC_SIZE) / 4u;
    y[index] = low_of(weights);
    if VEC_PARTS == 2u {
        y[index + 1u] = high_of(weights);
    }
}
