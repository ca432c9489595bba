// attention_combine: the stretches of attention_step, or the parts of attention_prefill, as one.
//
//   parts  [H, S, W + 2]   sum of exp(score - top) * value, then top, then sum of exp
//   mixed  [H, W]          mean of the values, weighted by exp(score)
//   sizes                  H, S, W, 0     H counts the heads of all rows
//
// A workgroup of $GROUP takes one head, $GROUP stretches at a time: first what each counts for, then two
// neighbouring channels per invocation, of every fourth stretch. A stretch without keys has weight 0.
// W is even and at most $GROUP / 2.

@group(0) @binding(0) var<storage, $INPUT> parts: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read_write> mixed: array<vec2<f32>>;
@group(0) @binding(2) var<uniform> sizes: array<vec4<u32>, 1>;

const LOWEST = -3.4e38;

// Of each stretch: top; then weight and weighted sum of exp.
var<workgroup> tops: array<f32, $GROUP>;
var<workgroup> ends: array<vec2<f32>, $GROUP>;
// Sums of two channels, and of the weighted sums of exp.
var<workgroup> quarters: array<vec3<f32>, $GROUP>;

@compute @workgroup_size($GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let stretches = sizes[0].y;
    let pairs = sizes[0].z / 2u;
    let row = pairs + 1u;
    let head = group.y * groups.x + group.x;
    if head >= sizes[0].x {
        return;
    }
    let first = head * stretches * row;
    var top = LOWEST;
    for (var s = lane; s < stretches; s += $GROUPu) {
        top = max(top, parts[first + s * row + pairs].x);
    }
    tops[lane] = top;
    workgroupBarrier();
    for (var other = 0u; other < min(stretches, $GROUPu); other++) {
        top = max(top, tops[other]);
    }
    let slots = $GROUPu / 4u;
    let slot = lane / slots;
    let pair = min(lane % slots, pairs - 1u);
    var sum = vec3<f32>();
    for (var start = 0u; start < stretches; start += $GROUPu) {
        if start + lane < stretches {
            let end = parts[first + (start + lane) * row + pairs];
            let weight = exp(end.x - top);
            ends[lane] = vec2<f32>(weight, weight * end.y);
        }
        workgroupBarrier();
        let count = min($GROUPu, stretches - start);
        for (var s = slot; s < count; s += 4u) {
            sum += vec3<f32>(ends[s].x * parts[first + (start + s) * row + pair], ends[s].y);
        }
        workgroupBarrier();
    }
    quarters[lane] = sum;
    workgroupBarrier();
    if lane < pairs {
        sum += quarters[lane + slots] + quarters[lane + 2u * slots] + quarters[lane + 3u * slots];
        mixed[head * pairs + lane] = sum.xy / sum.z;
    }
}
