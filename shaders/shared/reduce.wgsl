// Sum over a workgroup of WORKGROUP_SIZE threads, a power of two: a tree in workgroup memory.
var<workgroup> partial_sums: array<f32, WORKGROUP_SIZE>;

// The sum of `value` over the workgroup. All threads must call it; all get the sum.
fn workgroup_sum(thread: u32, value: f32) -> f32 {
    partial_sums[thread] = value;
    workgroupBarrier();
    for (var stride = WORKGROUP_SIZE / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            partial_sums[thread] += partial_sums[thread + stride];
        }
        workgroupBarrier();
    }
    let sum = partial_sums[0];
    workgroupBarrier();
    return sum;
}
