// copy: copies a buffer; the memory bandwidth that other kernels are measured against.
//
//   x        [N]    N a multiple of 4
//   y        [N]
//
// One thread: one vector of four values.

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;
@group(0) @binding(2) var<uniform> u: Uniforms;

// import elementwise

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = element_index(group, groups, thread);
    if i < u.vectors {
        y[i] = x[i];
    }
}
