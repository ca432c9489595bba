// top_k: the best few logits of every stripe of the vocabulary.
//
//   logits    [V]
//   marks     [V]         of a token: what it is to the grammar * 2, plus 1 where the answer has it
//   progress  [2]         tokens chosen, and where the answer stands in the grammar
//   best      [S, B, 2]   logit as bits, and id; id NONE where a stripe has no more; a NaN is above
//                         all, with id V
//   sizes                 V, S, bits of the repetition penalty, B
//
// A workgroup of $GROUP takes every S-th run of $GROUP logits and goes over them B times, each time
// for the best after the one before; the highest first, of equal logits the lowest id. A chosen
// token's logit is divided by the penalty where positive and multiplied where negative. What the
// grammar does not allow is passed over.

@group(0) @binding(0) var<storage, $INPUT> logits: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> marks: array<u32>;
@group(0) @binding(2) var<storage, $INPUT> progress: array<u32>;
@group(0) @binding(3) var<storage, read_write> best: array<vec2<u32>>;
@group(0) @binding(4) var<uniform> sizes: array<vec4<u32>, 1>;

const HIGHEST = 3.4028234e38;

// import argmax
// import grammar

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let stripe = group.y * groups.x + group.x;
    if stripe >= sizes[0].y {
        return;
    }
    let penalty = bitcast<f32>(sizes[0].z);
    let place = progress[1];
    var before = Best(HIGHEST, NONE);
    for (var rank = 0u; rank < sizes[0].w; rank++) {
        var own = Best(LOWEST, NONE);
        for (var at = stripe * $GROUPu + lane; at < sizes[0].x; at += sizes[0].y * $GROUPu) {
            var one = Best(logits[at], at);
            // Not `logit != logit`: WGSL lets a compiler assume that there are no NaNs.
            if (bitcast<u32>(one.value) & 0x7fffffffu) > 0x7f800000u {
                one = Best(HIGHEST, sizes[0].x);
            } else if !allows(place, marks[at] / 2u) {
                continue;
            } else if marks[at] % 2u == 1u {
                one.value = select(one.value * penalty, one.value / penalty, one.value > 0.0);
            }
            if (rank == 0u || better(before, one)) && better(one, own) {
                own = one;
            }
        }
        before = group_best(lane, own);
        if lane == 0u {
            best[stripe * sizes[0].w + rank] = vec2<u32>(bitcast<u32>(before.value), before.id);
        }
    }
}
