// The sums of the threads of a GEMV kernel: first within each subgroup, then over the subgroups of a 32-thread
// group. A subgroup may lie in one 32-thread group or in several.
//
// A subgroup whose threads are consecutive stores one sum for each of the first and the last 32-thread group
// that it has threads of, which are all of them in subgroups of up to 64 threads. Threads between these, and
// threads that are not consecutive, store what they have. Works for any size and order of subgroups.
var<workgroup> partial_sums: array<vec4<f32>, WORKGROUP_SIZE>;
var<workgroup> partial_squares: array<f32, WORKGROUP_SIZE>;
// The number of threads, from this one on, whose sum this one has stored.
var<workgroup> partial_counts: array<u32, WORKGROUP_SIZE>;

// The dot products summed over each 32-thread group, and with an RMS norm the squares over the workgroup. All
// threads of the workgroup must call it; each gets the sums of its 32-thread group.
fn gemv_sums(thread: u32, sums: Sums) -> Sums {
    let group = thread / THREAD_GROUP;
    let lowest = subgroupMin(thread);
    let highest = subgroupMax(thread);
    let size = subgroupAdd(1u);
    let in_first = group == lowest / THREAD_GROUP;
    let in_last = group == highest / THREAD_GROUP;
    let first = subgroupAdd(select(vec4<f32>(), sums.dots, in_first));
    let last = subgroupAdd(select(vec4<f32>(), sums.dots, in_last));
    let squares = subgroupAdd(sums.squares);

    let consecutive = highest - lowest + 1u == size;
    let summed = consecutive && (in_first || in_last);
    let start = max(lowest, group * THREAD_GROUP);
    let end = min(highest, group * THREAD_GROUP + THREAD_GROUP - 1u) + 1u;
    partial_sums[thread] = select(sums.dots, select(last, first, in_first), summed);
    partial_squares[thread] = select(sums.squares, select(0.0, squares, thread == lowest), consecutive);
    partial_counts[thread] = select(1u, end - start, summed);
    workgroupBarrier();

    var total = Sums(vec4<f32>(), 0.0);
    for (var i = group * THREAD_GROUP; i < (group + 1u) * THREAD_GROUP; i += partial_counts[i]) {
        total.dots += partial_sums[i];
    }
    if has_norm() {
        for (var i = 0u; i < WORKGROUP_SIZE; i += partial_counts[i]) {
            total.squares += partial_squares[i];
        }
    }
    return total;
}
