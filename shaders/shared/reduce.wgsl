var<workgroup> parts: array<f32, $GROUP>;

// The sum of `value` over a workgroup of $GROUP, a power of two; every invocation calls it and
// gets it.
fn group_sum(lane: u32, value: f32) -> f32 {
    parts[lane] = value;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            parts[lane] += parts[lane + reach];
        }
        workgroupBarrier();
    }
    let sum = parts[0];
    workgroupBarrier();
    return sum;
}
