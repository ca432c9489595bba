// swiglu: the middle of a gated MLP.
//
//   gate   [L]
//   up     [L]
//   y      [L]    silu(gate) * up
//   sizes         L, 0, 0, 0
//
// One invocation per element: 12 bytes moved.

@group(0) @binding(0) var<storage, $INPUT> gate: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> sizes: array<vec4<u32>, 1>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * $GROUPu + lane;
    if at < sizes[0].x {
        y[at] = gate[at] / (1.0 + exp(-gate[at])) * up[at];
    }
}
