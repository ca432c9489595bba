// box_position_embedding: sine embedding of boxes, from which UPN's decoder makes its query positions.
//
//   boxes        [R, 4]      cx, cy, w, h
//   frequencies  [C]         turns (of 2 pi) per unit, by channel
//   y            [R, 4, C]   of cy, cx, w, h: sine in even channels, cosine in odd ones
//
// One thread makes one element. 16*R*C bytes and about 80*R*C operations: UPN's 900 queries with C = 128
// write 1.8 MB. WGSL guarantees its own sin only to an error of 2^-11; this one has an error below 2^-20 for
// angles up to a few turns.

@group(0) @binding(0) var<storage, read> boxes: array<f32>;
@group(0) @binding(1) var<storage, read> frequencies: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> u: Uniforms;

const TAU: f32 = 6.28318530717958648;

// The sine of an angle in turns: range reduction to a quarter turn, then the Taylor series, whose error is
// 6e-8 at the end of the quarter.
fn sine_of_turns(angle: f32) -> f32 {
    let rest = angle - round(angle);
    let x = TAU * (0.25 - abs(abs(rest) - 0.25));
    let s = x * x;
    let series = -1.0 / 5040.0 + s * (1.0 / 362880.0 - s / 39916800.0);
    return sign(rest) * x * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * series)));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = workgroup_index(group, groups) * WORKGROUP_SIZE + thread;
    if index >= u.count {
        return;
    }
    let channel = index % u.channels;
    let coordinate = index / u.channels; // [box, cy cx w h]
    // y comes before x: flip the lowest bit of the first two coordinates.
    let source = select(coordinate, coordinate ^ 1u, (coordinate & 2u) == 0u);
    y[index] = sine_of_turns(boxes[source] * frequencies[channel] + 0.25 * f32(channel & 1u));
}
