// random_fill: made-up numbers in the place of weights.
//
//   out      [N]               words, or f32s by their bits
//   sizes                      N, seed, mask, base and 0, 0, 0, 0 for words;
//                              N, seed, 0, 0 and 1, middle, reach, 0 for f32s, the last two by their bits
//
// One invocation makes one number: a word is base | (hash & mask), an f32 lies within reach of the
// middle. The hash is the PCG of Jarzynski and Olano (2020).

@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<uniform> sizes: array<vec4<u32>, 2>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = (group.y * groups.x + group.x) * $GROUPu + lane;
    if index >= sizes[0].x {
        return;
    }
    let state = (index + sizes[0].y) * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    let hash = (word >> 22u) ^ word;
    if sizes[1].x == 0u {
        out[index] = sizes[0].w | (hash & sizes[0].z);
    } else {
        let unit = f32(hash >> 8u) / 8388608.0 - 1.0;
        out[index] = bitcast<u32>(bitcast<f32>(sizes[1].y) + bitcast<f32>(sizes[1].z) * unit);
    }
}
