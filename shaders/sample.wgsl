// sample: the next token, from the candidates of top_k.
//
//   candidates   [C, 2]   logit bits and id
//   token        [1]      the sampled token
//   position     [1]      incremented
//   token_flags  [V]      the lowest bit of the sampled token is set
//   output_ids   [N]      the sampled token at index state[0]; V after a NaN
//   state        [2]      number of tokens sampled, incremented; state of the grammar, advanced
//
// One workgroup finds the k best candidates in k passes, k at most MAX_TOP_K. One thread then takes the
// best (k = 1, greedy) or samples: softmax with a temperature over the candidates, cut to the nucleus of
// probability top_p. After a NaN the token is 0, so that what follows stays in bounds.

@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> token: array<u32>;
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
@group(0) @binding(3) var<storage, read_write> token_flags: array<u32>;
@group(0) @binding(4) var<storage, read_write> output_ids: array<u32>;
@group(0) @binding(5) var<storage, read_write> state: array<u32>;
@group(0) @binding(6) var<uniform> u: Uniforms;

// import constants
// import argmax
// import grammar
// import pcg

var<workgroup> ranked: array<Candidate, MAX_TOP_K>;
var<workgroup> weights: array<f32, MAX_TOP_K>;

// A uniform random number of [0, 1); `uniform` of src/generate/sampling.rs.
fn uniform_random(seed: u32, step: u32) -> f32 {
    return f32(pcg(seed ^ (step * 0x9e3779b9u)) >> 8u) / 16777216.0;
}

// The id sampled from the first `count` of `ranked`.
fn sample_top(count: u32) -> u32 {
    let temperature = u.temperature;
    var sum = 0.0;
    for (var i = 0u; i < count; i++) {
        let weight = exp((ranked[i].value - ranked[0].value) / temperature);
        weights[i] = weight;
        sum += weight;
    }
    // The nucleus: the fewest candidates, best first, whose weights reach top_p of the sum.
    let nucleus_sum = u.top_p * sum;
    var kept_sum = 0.0;
    var kept = 0u;
    while kept < count && (kept == 0u || kept_sum < nucleus_sum) {
        kept_sum += weights[kept];
        kept++;
    }
    var rest = uniform_random(u.seed, state[0]) * kept_sum;
    var sampled = 0u;
    while sampled + 1u < kept && rest >= weights[sampled] {
        rest -= weights[sampled];
        sampled++;
    }
    return ranked[sampled].id;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    if workgroup_index(group, groups) > 0u {
        return;
    }
    var previous = Candidate(0.0, NONE);
    for (var rank = 0u; rank < min(u.k, MAX_TOP_K); rank++) {
        var best = Candidate(LOWEST, NONE);
        for (var i = thread; i < u.count; i += WORKGROUP_SIZE) {
            let candidate = Candidate(bitcast<f32>(candidates[i].x), candidates[i].y);
            if (rank == 0u || better(previous, candidate)) && better(candidate, best) {
                best = candidate;
            }
        }
        previous = workgroup_argmax(thread, best);
        if thread == 0u {
            ranked[rank] = previous;
        }
    }
    if thread == 0u {
        var count = 0u;
        while count < u.k && ranked[count].id != NONE {
            count++;
        }
        // No candidate is allowed only if the grammar knows no box. A NaN is ranked first.
        var id = 0u;
        if count > 0u {
            id = ranked[0].id;
        }
        if count > 1u && id < u.vocab_size {
            id = sample_top(count);
        }
        let sampled = select(0u, id, id < u.vocab_size);
        let flags = token_flags[sampled];
        token[0] = sampled;
        token_flags[sampled] = flags | 1u;
        if state[0] < u.max_tokens {
            output_ids[state[0]] = min(id, u.vocab_size);
        }
        state[0] += 1u;
        state[1] = state_after(state[1], flags / 2u);
        position[0] += 1u;
    }
}
