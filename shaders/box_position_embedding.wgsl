// box_position_embedding: the sine embedding of boxes (UPN's query positions).
//
//   boxes   [R, 4]      cx, cy, w, h
//   turns   [C]         turns of the circle per unit, by channel
//   y       [R, 4, C]   of cy, cx, w, h: sine in even channels, cosine in odd ones
//   sizes               4*R*C, C, 0, 0
//
// One invocation makes one element. 16*R*C bytes and some 80*R*C operations: UPN's 900 queries with
// C = 128 write 1.8 MB. WGSL promises of its own sin an error of 2^-11 at best; this one is off by
// less than 2^-20 for up to a few turns.

@group(0) @binding(0) var<storage, $INPUT> boxes: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> turns: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> sizes: array<vec4<u32>, 1>;

const TAU: f32 = 6.28318530717958648;

// The sine of an angle in turns: folded to a quarter of the circle, then Taylor's series, which is
// off by 6e-8 at the quarter's end.
fn sine_of_turns(angle: f32) -> f32 {
    let rest = angle - round(angle);
    let x = TAU * (0.25 - abs(abs(rest) - 0.25));
    let s = x * x;
    let series = -1.0 / 5040.0 + s * (1.0 / 362880.0 - s / 39916800.0);
    return sign(rest) * x * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * series)));
}

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
    let channel = index % sizes[0].y;
    let side = index / sizes[0].y;
    // y before x: the lowest bit of the first two sides is turned round.
    let source = select(side, side ^ 1u, (side & 2u) == 0u);
    y[index] = sine_of_turns(boxes[source] * turns[channel] + 0.25 * f32(channel & 1u));
}
