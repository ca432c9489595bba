// Sum over a workgroup of WORKGROUP_SIZE threads: first within each subgroup, then each subgroup adds
// the sums of all subgroups. Works for any size and order of subgroups.
var<workgroup> partial_sums: array<f32, WORKGROUP_SIZE>;

// The sum of `value` over the workgroup. All threads must call it; all get the sum.
fn workgroup_sum(thread: u32, value: f32) -> f32 {
    let size = subgroupAdd(1u);
    let rank = subgroupExclusiveAdd(1u);
    let subgroup_sum = subgroupAdd(value);
    partial_sums[thread] = select(0.0, subgroup_sum, rank == 0u);
    workgroupBarrier();
    var sum = 0.0;
    for (var i = rank; i < WORKGROUP_SIZE; i += size) {
        sum += partial_sums[i];
    }
    workgroupBarrier();
    return subgroupAdd(sum);
}
