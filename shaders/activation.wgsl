// activation: adds a bias per channel, then applies a function to each element. The epilogue of a
// matmul whose kernel has none.
//
//   x      [R, C]
//   bias   [C]
//   y      [R, C]   activate(x + bias)
//
// One thread: one element. 8*R*C bytes and at most about 20*R*C operations: the hidden map of
// ConvNeXt-Large's first stage, 36,864 x 768, moves 226 MB, where tensor operations move five times
// as much.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> u: Uniforms;

// import elementwise
// import ACTIVATION

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = element_index(group, groups, thread);
    if i < u.count {
        y[i] = activate(x[i] + bias[i % u.channels]);
    }
}
