// attention_combine: adds the KV splits of attention_decode or attention_prefill.
//
//   partials  [R, S, D + 2]  per row and split: acc = sum of exp(score - m) * value, then the maximum m, then
//                            l = sum of exp(score - m)
//   out       [R, D]         sum over S of exp(m - max m) * acc, over the same sum of l
//
// R counts the heads of all rows. A workgroup takes one of them, WORKGROUP_SIZE splits at a time; D is even
// and at most WORKGROUP_SIZE / 2. A split without keys has m = LOWEST and so weight 0.
//
// Workgroup memory, 7168 bytes:
//   m_partials    256 *  4 = 1024   [thread]
//   split_weights 256 *  8 = 2048   [split] exp(m - max m), and l times it
//   sums          256 * 16 = 4096   [quarter, channel pair] sums of two channels and of l

@group(0) @binding(0) var<storage, read> partials: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec2<f32>>;
@group(0) @binding(2) var<uniform> u: Uniforms;

// import constants

var<workgroup> m_partials: array<f32, WORKGROUP_SIZE>;
var<workgroup> split_weights: array<vec2<f32>, WORKGROUP_SIZE>;
var<workgroup> sums: array<vec3<f32>, WORKGROUP_SIZE>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let splits = u.splits;
    let pairs = u.head_dim / 2u;
    let stride = pairs + 1u;
    let row = workgroup_index(group, groups);
    if row >= u.rows {
        return;
    }
    let first = row * splits * stride;
    // 1. Maximum over all splits.
    var m = LOWEST;
    for (var split = thread; split < splits; split += WORKGROUP_SIZE) {
        m = max(m, partials[first + split * stride + pairs].x);
    }
    m_partials[thread] = m;
    workgroupBarrier();
    for (var other = 0u; other < min(splits, WORKGROUP_SIZE); other++) {
        m = max(m, m_partials[other]);
    }
    // 2. Weighted sums: a thread takes one pair of channels of every fourth split.
    let quarter_size = WORKGROUP_SIZE / 4u;
    let quarter = thread / quarter_size;
    let pair = min(thread % quarter_size, pairs - 1u);
    var sum = vec3<f32>();
    for (var begin = 0u; begin < splits; begin += WORKGROUP_SIZE) {
        if begin + thread < splits {
            let ml = partials[first + (begin + thread) * stride + pairs];
            let weight = exp(ml.x - m);
            split_weights[thread] = vec2<f32>(weight, weight * ml.y);
        }
        workgroupBarrier();
        let count = min(WORKGROUP_SIZE, splits - begin);
        for (var split = quarter; split < count; split += 4u) {
            let weight = split_weights[split];
            sum += vec3<f32>(weight.x * partials[first + (begin + split) * stride + pair], weight.y);
        }
        workgroupBarrier();
    }
    sums[thread] = sum;
    workgroupBarrier();
    // 3. Add the quarters and normalize.
    if thread < pairs {
        sum += sums[thread + quarter_size] + sums[thread + 2u * quarter_size]
            + sums[thread + 3u * quarter_size];
        out[row * pairs + thread] = sum.xy / sum.z;
    }
}
