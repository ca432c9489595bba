// matmul: many rows times a matrix.
//
//   x        [M, K]       rows
//   words    [N, units]   rows of the matrix in units of weights (the import tells which)
//   scales   [N, K/G]     f16, two in a word; ignored by weights without scales
//   added    [NT], [M, NT] or nothing, as ADDED is 1, 2 or 0
//   y        [M, NT]      columns A .. A+N: sum over k of x[m, k] * w[n, k], plus what is added
//   sizes                 M, N, K, G and A, NT, ADDED, 0
//
// A workgroup of 8 x 8 makes a tile of 64 x 64 outputs, each invocation 8 x 8 of them in
// registers. K goes by in steps of $STEP: both operands' parts are laid into workgroup memory, k by
// k, 64 values in a row, and each is used 64 times: 16 operations per byte of workgroup memory
// read, 32 per byte of x and of unpacked weights. K is a multiple of 4, and of the unit.

// import $SLICE
// import $WEIGHTS
// import scale_pairs

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, $INPUT> words: array<Unit>;
@group(0) @binding(2) var<storage, $INPUT> scales: array<u32>;
@group(0) @binding(3) var<storage, $INPUT> added: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> sizes: array<vec4<u32>, 2>;

// Sixteen vectors hold 64 values of one k.
var<workgroup> rows: array<vec4<f32>, $STEP * 16>;
var<workgroup> columns: array<vec4<f32>, $STEP * 16>;

fn weights_at(n: u32, k: u32) -> Slice {
    let width = sizes[0].z;
    if n >= sizes[0].y || k >= width {
        return slice_of(vec4<f32>(), vec4<f32>());
    }
    let per_unit = SLICE_VECTORS * 4u;
    let weights = weights_of(words[n * (width / per_unit) + k / per_unit]);
    let scale = vec4<f32>(scale_of(n * width + k, sizes[0].w));
    return times(weights, slice_of(scale, scale));
}

fn inputs_at(m: u32, k: u32) -> vec4<f32> {
    if m >= sizes[0].x || k >= sizes[0].z {
        return vec4<f32>();
    }
    return x[(m * sizes[0].z + k) / 4u];
}

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    _ = scales[0];
    let count = sizes[0].x;
    let outputs = sizes[0].y;
    let width = sizes[0].z;
    let tiles = (outputs + 63u) / 64u;
    let flat_group = group.y * groups.x + group.x;
    let first_row = flat_group / tiles * 64u;
    let first_column = flat_group % tiles * 64u;
    var a0 = vec4<f32>(); var b0 = vec4<f32>();
    var a1 = vec4<f32>(); var b1 = vec4<f32>();
    var a2 = vec4<f32>(); var b2 = vec4<f32>();
    var a3 = vec4<f32>(); var b3 = vec4<f32>();
    var a4 = vec4<f32>(); var b4 = vec4<f32>();
    var a5 = vec4<f32>(); var b5 = vec4<f32>();
    var a6 = vec4<f32>(); var b6 = vec4<f32>();
    var a7 = vec4<f32>(); var b7 = vec4<f32>();

    for (var start = 0u; start < width; start += $STEPu) {
        // Four rows by four k at a time, turned over on their way.
        for (var at = lane; at < $STEPu * 4u; at += 64u) {
            let quad = at % ($STEPu / 4u);
            let row = at / ($STEPu / 4u);
            let k = start + quad * 4u;
            let m = first_row + row * 4u;
            let turned = transpose(mat4x4<f32>(
                inputs_at(m, k), inputs_at(m + 1u, k), inputs_at(m + 2u, k), inputs_at(m + 3u, k),
            ));
            let place = quad * 64u + row;
            rows[place] = turned[0];
            rows[place + 16u] = turned[1];
            rows[place + 32u] = turned[2];
            rows[place + 48u] = turned[3];
        }
        for (var at = lane; at < $STEPu * 4u / SLICE_VECTORS; at += 64u) {
            let unit = at % ($STEPu / 4u / SLICE_VECTORS);
            let column = at / ($STEPu / 4u / SLICE_VECTORS);
            let k = start + unit * SLICE_VECTORS * 4u;
            let n = first_column + column * 4u;
            let w0 = weights_at(n, k);
            let w1 = weights_at(n + 1u, k);
            let w2 = weights_at(n + 2u, k);
            let w3 = weights_at(n + 3u, k);
            var turned = transpose(mat4x4<f32>(
                first_four(w0), first_four(w1), first_four(w2), first_four(w3),
            ));
            let place = unit * SLICE_VECTORS * 64u + column;
            columns[place] = turned[0];
            columns[place + 16u] = turned[1];
            columns[place + 32u] = turned[2];
            columns[place + 48u] = turned[3];
            if SLICE_VECTORS == 2u {
                turned = transpose(mat4x4<f32>(
                    last_four(w0), last_four(w1), last_four(w2), last_four(w3),
                ));
                columns[place + 64u] = turned[0];
                columns[place + 80u] = turned[1];
                columns[place + 96u] = turned[2];
                columns[place + 112u] = turned[3];
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < $STEPu; k++) {
            let r = rows[k * 16u + local.y];
            let s = rows[k * 16u + local.y + 8u];
            let c = columns[k * 16u + local.x];
            let d = columns[k * 16u + local.x + 8u];
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
    var left = array<vec4<f32>, 8>(a0, a1, a2, a3, a4, a5, a6, a7);
    var right = array<vec4<f32>, 8>(b0, b1, b2, b3, b4, b5, b6, b7);
    for (var i = 0u; i < 8u; i++) {
        let m = first_row + local.y * 4u + i / 4u * 32u + i % 4u;
        for (var j = 0u; j < 8u; j++) {
            let n = first_column + local.x * 4u + j / 4u * 32u + j % 4u;
            if m < count && n < outputs {
                let at = m * sizes[1].y + sizes[1].x + n;
                var value = select(right[i][j % 4u], left[i][j % 4u], j < 4u);
                if sizes[1].z == 1u {
                    value += added[sizes[1].x + n];
                } else if sizes[1].z == 2u {
                    value += added[at];
                }
                y[at] = value;
            }
        }
    }
}
