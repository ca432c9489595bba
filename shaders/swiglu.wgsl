// swiglu: the elementwise part of a SwiGLU MLP (arXiv 2002.05202).
//
//   gate   [L]
//   up     [L]
//   y      [L]    silu(gate) * up
//
// One thread: one element. 12 bytes moved per element.

@group(0) @binding(0) var<storage, read> gate: array<f32>;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> u: Uniforms;

// import elementwise
// import silu

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = element_index(group, groups, thread);
    if i < u.count {
        y[i] = silu(gate[i]) * up[i];
    }
}
