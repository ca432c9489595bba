// flash: attention of 32 query rows of one head by online softmax, so that no matrix of scores is stored
// (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).
//
// A workgroup of 8 x 8 threads walks over the keys in tiles of 32. A thread holds 4 x 4 scores of a tile,
// and of the result 4 rows x 4 channels of each of CHUNKS chunks of DEPTH (at most 32) channels. acc0..acc3
// are written out because an array indexed by a loop variable may leave the registers. Per tile and channel
// 4 * 32 * 32 operations, 8 operations per f32 read from workgroup memory. A vector is four channels.
//
// Workgroup memory, 8192 bytes:
//   qp_tile  256 * 16 = 4096   Q^T of a chunk [channel, row]; then the weights P^T [key, row]
//   kv_tile  256 * 16 = 4096   K^T of a chunk [channel, key]; then row maxima [key quad, row]; then V of a
//                              chunk [key, channel]; at the end row sums [key quad, row]
// A vec4 of the first three holds four rows or four keys, one of V four channels.
//
// The file that imports this one imports `constants` before and defines
//   Head                     a struct with at least the numbers of `rows`, `keys` and `vectors` that exist
//   load_q, load_k, load_v   a vector of a row or of a key
//   limits                   what `mask_scores` needs of four rows
//   mask_scores              scores of four rows from their dot products with a key; LOWEST where masked
//   normalizer               factors of four rows of the result, from their row sums
//   store, store_partial     writes a vector of the result; row maxima and row sums of four rows

var<workgroup> qp_tile: array<vec4<f32>, 256>;
var<workgroup> kv_tile: array<vec4<f32>, 256>;

fn load_q_or_zero(head: Head, row: u32, vector: u32) -> vec4<f32> {
    if row >= head.rows || vector >= head.vectors {
        return vec4<f32>();
    }
    return load_q(head, row, vector);
}

fn load_k_or_zero(head: Head, key: u32, vector: u32) -> vec4<f32> {
    if key >= head.keys || vector >= head.vectors {
        return vec4<f32>();
    }
    return load_k(head, key, vector);
}

// Stages a chunk of Q and K, transposed: 4 x 4 values of each per thread.
fn stage_qk(head: Head, chunk: u32, first_row: u32, first_key: u32, thread: u32) {
    let quad = thread / 8u;
    let vector = chunk * 8u + quad;
    let row = first_row + thread % 8u * 4u;
    let key = first_key + thread % 8u * 4u;
    let q = transpose(mat4x4<f32>(
        load_q_or_zero(head, row, vector), load_q_or_zero(head, row + 1u, vector),
        load_q_or_zero(head, row + 2u, vector), load_q_or_zero(head, row + 3u, vector),
    ));
    let k = transpose(mat4x4<f32>(
        load_k_or_zero(head, key, vector), load_k_or_zero(head, key + 1u, vector),
        load_k_or_zero(head, key + 2u, vector), load_k_or_zero(head, key + 3u, vector),
    ));
    let first = quad * 32u + thread % 8u;
    qp_tile[first] = q[0];
    qp_tile[first + 8u] = q[1];
    qp_tile[first + 16u] = q[2];
    qp_tile[first + 24u] = q[3];
    kv_tile[first] = k[0];
    kv_tile[first + 8u] = k[1];
    kv_tile[first + 16u] = k[2];
    kv_tile[first + 24u] = k[3];
}

// acc = acc * rescale + P V for one chunk of a tile of keys; called by all threads.
fn accumulate_values(
    acc: ptr<function, array<vec4<f32>, 4>>,
    head: Head,
    chunk: u32,
    rescale: vec4<f32>,
    first_key: u32,
    local: vec3<u32>,
) {
    let vector = chunk * 8u + local.x;
    for (var key = local.y; key < TILE_KEYS; key += 8u) {
        var v = vec4<f32>();
        if first_key + key < head.keys && vector < head.vectors {
            v = load_v(head, first_key + key, vector);
        }
        kv_tile[key * 8u + local.x] = v;
    }
    workgroupBarrier();
    (*acc)[0] *= rescale.x;
    (*acc)[1] *= rescale.y;
    (*acc)[2] *= rescale.z;
    (*acc)[3] *= rescale.w;
    for (var key = 0u; key < TILE_KEYS; key++) {
        let p = qp_tile[key * 8u + local.y];
        let v = kv_tile[key * 8u + local.x];
        (*acc)[0] += p.x * v;
        (*acc)[1] += p.y * v;
        (*acc)[2] += p.z * v;
        (*acc)[3] += p.w * v;
    }
    workgroupBarrier();
}

// Stores those of four rows of a chunk that exist.
fn store_chunk(
    acc: array<vec4<f32>, 4>,
    head: Head,
    chunk: u32,
    row: u32,
    x: u32,
    factors: vec4<f32>,
) {
    let vector = chunk * 8u + x;
    if vector >= head.vectors {
        return;
    }
    if row < head.rows {
        store(head, row, vector, acc[0] * factors.x);
    }
    if row + 1u < head.rows {
        store(head, row + 1u, vector, acc[1] * factors.y);
    }
    if row + 2u < head.rows {
        store(head, row + 2u, vector, acc[2] * factors.z);
    }
    if row + 3u < head.rows {
        store(head, row + 3u, vector, acc[3] * factors.w);
    }
}

// exp(score - m) of four rows for one key; 0 where the key is masked.
fn softmax_weights(scores: vec4<f32>, m: vec4<f32>) -> vec4<f32> {
    return select(exp(scores - m), vec4<f32>(), scores == vec4<f32>(LOWEST));
}

// Rows `first_row ..` over keys `begin .. end`; called by all threads of a workgroup.
fn flash_attention(
    head: Head,
    first_row: u32,
    begin: u32,
    end: u32,
    local: vec3<u32>,
    thread: u32,
) {
    let row = first_row + local.y * 4u;
    let row_limits = limits(head, row);
    var acc0: array<vec4<f32>, 4>;
    var acc1: array<vec4<f32>, 4>;
    var acc2: array<vec4<f32>, 4>;
    var acc3: array<vec4<f32>, 4>;
    var m = vec4<f32>(LOWEST); // row maxima
    var l = vec4<f32>(); // row sums over every eighth group of four keys

    for (var first_key = begin; first_key < end; first_key += TILE_KEYS) {
        // 1. S = Q K^T, chunk by chunk: s0..s3 are four keys, each of four rows. They are set to zero
        //    explicitly: SwiftShader initializes a variable without a value once, not per iteration.
        var s0 = vec4<f32>();
        var s1 = vec4<f32>();
        var s2 = vec4<f32>();
        var s3 = vec4<f32>();
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            if thread < DEPTH * 2u {
                stage_qk(head, chunk, first_row, first_key, thread);
            }
            workgroupBarrier();
            for (var channel = 0u; channel < DEPTH; channel++) {
                let q = qp_tile[channel * 8u + local.y];
                let k = kv_tile[channel * 8u + local.x];
                s0 += k.x * q;
                s1 += k.y * q;
                s2 += k.z * q;
                s3 += k.w * q;
            }
            workgroupBarrier();
        }
        // 2. Scale, bias and mask.
        let key = first_key + local.x * 4u;
        s0 = mask_scores(head, row_limits, key, s0);
        s1 = mask_scores(head, row_limits, key + 1u, s1);
        s2 = mask_scores(head, row_limits, key + 2u, s2);
        s3 = mask_scores(head, row_limits, key + 3u, s3);
        // 3. New row maxima over the tile, and the factor that makes the old sums relative to them.
        kv_tile[local.x * 8u + local.y] = max(max(s0, s1), max(s2, s3));
        workgroupBarrier();
        var new_m = m;
        for (var x = 0u; x < 8u; x++) {
            new_m = max(new_m, kv_tile[x * 8u + local.y]);
        }
        let rescale = exp(m - new_m);
        m = new_m;
        // 4. P = exp(S - m), staged in place of Q.
        s0 = softmax_weights(s0, m);
        s1 = softmax_weights(s1, m);
        s2 = softmax_weights(s2, m);
        s3 = softmax_weights(s3, m);
        l = l * rescale + (s0 + s1 + s2 + s3);
        let first = local.x * 32u + local.y;
        qp_tile[first] = s0;
        qp_tile[first + 8u] = s1;
        qp_tile[first + 16u] = s2;
        qp_tile[first + 24u] = s3;
        workgroupBarrier();
        // 5. acc = acc * rescale + P V.
        accumulate_values(&acc0, head, 0u, rescale, first_key, local);
        if CHUNKS > 1u {
            accumulate_values(&acc1, head, 1u, rescale, first_key, local);
        }
        if CHUNKS > 2u {
            accumulate_values(&acc2, head, 2u, rescale, first_key, local);
        }
        if CHUNKS > 3u {
            accumulate_values(&acc3, head, 3u, rescale, first_key, local);
        }
    }
    // 6. Row sums over all threads of a row, then the result.
    kv_tile[local.x * 8u + local.y] = l;
    workgroupBarrier();
    l = vec4<f32>();
    for (var x = 0u; x < 8u; x++) {
        l += kv_tile[x * 8u + local.y];
    }
    let factors = normalizer(l);
    store_chunk(acc0, head, 0u, row, local.x, factors);
    if CHUNKS > 1u {
        store_chunk(acc1, head, 1u, row, local.x, factors);
    }
    if CHUNKS > 2u {
        store_chunk(acc2, head, 2u, row, local.x, factors);
    }
    if CHUNKS > 3u {
        store_chunk(acc3, head, 3u, row, local.x, factors);
    }
    if local.x == 0u {
        store_partial(head, row, m, l);
    }
}
