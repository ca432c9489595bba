// highest: the highest logit of every stripe of the vocabulary.
//
//   logits  [V]
//   chosen  [V]       1 where the answer has the token already
//   best    [S, 2]    logit as bits, and id; of equal logits the lowest id; a NaN is above all, with id V
//   sizes             V, S, bits of the repetition penalty, 0
//
// A workgroup of $GROUP takes every S-th run of $GROUP logits. A chosen token's logit is divided by
// the penalty where positive and multiplied where negative.

@group(0) @binding(0) var<storage, $INPUT> logits: array<f32>;
@group(0) @binding(1) var<storage, $INPUT> chosen: array<u32>;
@group(0) @binding(2) var<storage, read_write> best: array<vec2<u32>>;
@group(0) @binding(3) var<uniform> sizes: array<vec4<u32>, 1>;

const LOWEST = -3.4028234e38;
const HIGHEST = 3.4028234e38;

// import better

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
    var value = LOWEST;
    var id = 0xffffffffu;
    for (var at = stripe * $GROUPu + lane; at < sizes[0].x; at += sizes[0].y * $GROUPu) {
        var logit = logits[at];
        // Not `logit != logit`: WGSL lets a compiler assume that there are no NaNs.
        if (bitcast<u32>(logit) & 0x7fffffffu) > 0x7f800000u {
            value = HIGHEST;
            id = sizes[0].x;
            continue;
        }
        if chosen[at] == 1u {
            logit = select(logit * penalty, logit / penalty, logit > 0.0);
        }
        if logit > value || id == 0xffffffffu {
            value = logit;
            id = at;
        }
    }
    gather(lane, value, id);
    if lane == 0u {
        best[stripe] = vec2<u32>(bitcast<u32>(top_values[0]), top_ids[0]);
    }
}
