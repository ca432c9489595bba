// sample: the next token of an answer.
//
//   best      [C, 2]   of candidates: logit as bits, and id
//   token     [1]      the choice
//   position  [1]      one more than it was
//   marks     [V]      odd at the choice
//   said      [N]      the choice, at the place that progress tells; V after a NaN
//   progress  [2]      tokens chosen, one more than it was; where the answer stands in the grammar
//   sizes              C, N, V, B and bits of the temperature, bits of P, seed, 0
//
// One workgroup of $GROUP finds the best B of the candidates, B passes over them, at most $MOST. One
// invocation takes the first of them, or by chance one of the first that make up the share P of
// exp(logit / temperature). The choice is 0 after a NaN, so that whatever follows stays in bounds.

@group(0) @binding(0) var<storage, $INPUT> best: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> token: array<u32>;
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
@group(0) @binding(3) var<storage, read_write> marks: array<u32>;
@group(0) @binding(4) var<storage, read_write> said: array<u32>;
@group(0) @binding(5) var<storage, read_write> progress: array<u32>;
@group(0) @binding(6) var<uniform> sizes: array<vec4<u32>, 2>;

// import argmax
// import grammar

var<workgroup> ranked: array<Best, $MOST>;
var<workgroup> weights: array<f32, $MOST>;

// As `chance` of src/generate/sampler.rs.
fn chance(seed: u32, step: u32) -> f32 {
    let state = (seed ^ (step * 0x9e3779b9u)) * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return f32(((word >> 22u) ^ word) >> 8u) / 16777216.0;
}

// The id that chance chooses among the first `count` of `ranked`.
fn by_chance(count: u32) -> u32 {
    let temperature = bitcast<f32>(sizes[1].x);
    var sum = 0.0;
    for (var i = 0u; i < count; i++) {
        let weight = exp((ranked[i].value - ranked[0].value) / temperature);
        weights[i] = weight;
        sum += weight;
    }
    let wanted = bitcast<f32>(sizes[1].y) * sum;
    var kept = 0.0;
    var last = 0u;
    while last < count && (last == 0u || kept < wanted) {
        kept += weights[last];
        last++;
    }
    var rest = chance(sizes[1].z, progress[0]) * kept;
    var chosen = 0u;
    while chosen + 1u < last && rest >= weights[chosen] {
        rest -= weights[chosen];
        chosen++;
    }
    return ranked[chosen].id;
}

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.y * groups.x + group.x > 0u {
        return;
    }
    var before = Best(0.0, NONE);
    for (var rank = 0u; rank < min(sizes[0].w, $MOSTu); rank++) {
        var own = Best(LOWEST, NONE);
        for (var at = lane; at < sizes[0].x; at += $GROUPu) {
            let one = Best(bitcast<f32>(best[at].x), best[at].y);
            if (rank == 0u || better(before, one)) && better(one, own) {
                own = one;
            }
        }
        before = group_best(lane, own);
        if lane == 0u {
            ranked[rank] = before;
        }
    }
    if lane == 0u {
        var count = 0u;
        while count < sizes[0].w && ranked[count].id != NONE {
            count++;
        }
        // Nothing is allowed only where a grammar knows no box; a NaN is first.
        var id = 0u;
        if count > 0u {
            id = ranked[0].id;
        }
        if count > 1u && id < sizes[0].z {
            id = by_chance(count);
        }
        let choice = select(0u, id, id < sizes[0].z);
        let mark = marks[choice];
        token[0] = choice;
        marks[choice] = mark | 1u;
        if progress[0] < sizes[0].y {
            said[progress[0]] = min(id, sizes[0].z);
        }
        progress[0] += 1u;
        progress[1] = place_after(progress[1], mark / 2u);
        position[0] += 1u;
    }
}
