// random_fill: fills a buffer with deterministic random values, as weights of a benchmark.
//
//   y      [N]    KIND_U32: base | (hash & mask); KIND_UNIFORM: f32 bits, uniform in mean +- range
//
// One thread: one value, the PCG hash of its index plus the seed.

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<uniform> u: Uniforms;

// import elementwise
// import pcg

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = element_index(group, groups, thread);
    if i >= u.count {
        return;
    }
    let hash = pcg(i + u.seed);
    if u.kind == KIND_U32 {
        y[i] = u.base | (hash & u.mask);
    } else {
        let unit = f32(hash >> 8u) / 8388608.0 - 1.0;
        y[i] = bitcast<u32>(u.mean + u.range * unit);
    }
}
