var<workgroup> parts: array<f32, $GROUP>;

// The sum of `value` over a workgroup of $GROUP; every invocation calls it and gets it. Each subgroup
// adds up its own and then what all subgroups left, whatever their size and order.
fn group_sum(lane: u32, value: f32) -> f32 {
    let size = subgroupAdd(1u);
    let rank = subgroupExclusiveAdd(1u);
    let part = subgroupAdd(value);
    parts[lane] = select(0.0, part, rank == 0u);
    workgroupBarrier();
    var rest = 0.0;
    for (var at = rank; at < $GROUPu; at += size) {
        rest += parts[at];
    }
    workgroupBarrier();
    return subgroupAdd(rest);
}
