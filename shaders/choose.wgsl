// choose: the next token of a greedy answer.
//
//   best      [S, 2]   of highest: logit as bits, and id
//   token     [1]      the choice
//   position  [1]      one more than it was
//   chosen    [V]      1 at the choice
//   said      [N]      the choice, at the place that taken tells; V after a NaN
//   taken     [1]      one more than it was
//   sizes              S, N, V, 0
//
// One workgroup of $GROUP. The choice is 0 after a NaN, so that whatever follows stays in bounds.

@group(0) @binding(0) var<storage, $INPUT> best: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> token: array<u32>;
@group(0) @binding(2) var<storage, read_write> position: array<u32>;
@group(0) @binding(3) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(4) var<storage, read_write> said: array<u32>;
@group(0) @binding(5) var<storage, read_write> taken: array<u32>;
@group(0) @binding(6) var<uniform> sizes: array<vec4<u32>, 1>;

const LOWEST = -3.4028234e38;

// import better

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if group.y * groups.x + group.x > 0u {
        return;
    }
    var value = LOWEST;
    var id = 0xffffffffu;
    for (var at = lane; at < sizes[0].x; at += $GROUPu) {
        let other = bitcast<f32>(best[at].x);
        if other > value || (other == value && best[at].y < id) {
            value = other;
            id = best[at].y;
        }
    }
    gather(lane, value, id);
    if lane == 0u {
        let choice = select(0u, top_ids[0], top_ids[0] < sizes[0].z);
        token[0] = choice;
        chosen[choice] = 1u;
        if taken[0] < sizes[0].y {
            said[taken[0]] = min(top_ids[0], sizes[0].z);
        }
        taken[0] += 1u;
        position[0] += 1u;
    }
}
