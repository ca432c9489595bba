// copy: one buffer into another, as fast as a kernel can.
//
//   x        [N]               N a multiple of 4
//   out      [N]
//   sizes                      N / 4, 0, 0, 0
//
// One invocation copies four numbers.

@group(0) @binding(0) var<storage, $INPUT> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(2) var<uniform> sizes: vec4<u32>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = (group.y * groups.x + group.x) * $GROUPu + lane;
    if index < sizes.x {
        out[index] = x[index];
    }
}
