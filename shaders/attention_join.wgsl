// attention_join: the stretches of attention_step as one.
//
//   parts  [H, S, W + 2]   sum of exp(score - top) * value, then top, then sum of exp
//   mixed  [H, W]          mean of the values, weighted by exp(score)
//   sizes                  H, S, W, 0
//
// One invocation writes one channel. A stretch without keys has weight 0.

@group(0) @binding(0) var<storage, $INPUT> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> mixed: array<f32>;
@group(0) @binding(2) var<uniform> sizes: array<vec4<u32>, 1>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let stretches = sizes[0].y;
    let width = sizes[0].z;
    let at = (group.y * groups.x + group.x) * $GROUPu + lane;
    let head = at / width;
    if head >= sizes[0].x {
        return;
    }
    let row = width + 2u;
    let first = head * stretches * row;
    var top = parts[first + width];
    for (var s = 1u; s < stretches; s++) {
        top = max(top, parts[first + s * row + width]);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var s = 0u; s < stretches; s++) {
        let part = first + s * row;
        let weight = exp(parts[part + width] - top);
        sum += weight * parts[part + at % width];
        total += weight * parts[part + width + 1u];
    }
    mixed[at] = sum / total;
}
