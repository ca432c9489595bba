// top_k: the k highest logits of each stripe of the vocabulary.
//
//   logits       [V]
//   token_flags  [V]         2 * kind of the token (shared/grammar), plus 1 if the answer contains it
//   state        [2]         number of tokens sampled; state of the grammar
//   candidates   [S, k, 2]   logit bits and id, highest first; id NONE past a stripe's last candidate
//
// One workgroup: one stripe, every S-th run of WORKGROUP_SIZE logits. It scans the stripe k times, each
// time for the best candidate after the one before; of equal logits the lowest id wins. The repetition
// penalty divides a positive and multiplies a negative logit of a token that the answer contains.
// Tokens that the grammar does not allow are skipped. A NaN ranks above all, with id V.

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> token_flags: array<u32>;
@group(0) @binding(2) var<storage, read> state: array<u32>;
@group(0) @binding(3) var<storage, read_write> candidates: array<vec2<u32>>;
@group(0) @binding(4) var<uniform> u: Uniforms;

// import constants
// import argmax
// import grammar

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let stripe = workgroup_index(group, groups);
    if stripe >= u.stripes {
        return;
    }
    let penalty = u.penalty;
    let grammar_state = state[1];
    var previous = Candidate(HIGHEST, NONE);
    for (var rank = 0u; rank < u.k; rank++) {
        var best = Candidate(LOWEST, NONE);
        for (var id = stripe * WORKGROUP_SIZE + thread; id < u.vocab_size; id += u.stripes * WORKGROUP_SIZE) {
            var candidate = Candidate(logits[id], id);
            // Not `logit != logit`: WGSL lets a compiler assume that there are no NaNs.
            if (bitcast<u32>(candidate.value) & 0x7fffffffu) > 0x7f800000u {
                candidate = Candidate(HIGHEST, u.vocab_size);
            } else if !allows(grammar_state, token_flags[id] / 2u) {
                continue;
            } else if token_flags[id] % 2u == 1u {
                let logit = candidate.value;
                candidate.value = select(logit * penalty, logit / penalty, logit > 0.0);
            }
            if (rank == 0u || better(previous, candidate)) && better(candidate, best) {
                best = candidate;
            }
        }
        previous = workgroup_argmax(thread, best);
        if thread == 0u {
            candidates[stripe * u.k + rank] = vec2<u32>(bitcast<u32>(previous.value), previous.id);
        }
    }
}
