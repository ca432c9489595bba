// The sums of the threads of a GEMV kernel: a tree in workgroup memory.
var<workgroup> partial_sums: array<vec4<f32>, WORKGROUP_SIZE>;
var<workgroup> partial_squares: array<f32, WORKGROUP_SIZE>;

// The dot products summed over each 32-thread group, the squares over the workgroup. All threads of the
// workgroup must call it; each gets the sums of its 32-thread group.
fn gemv_sums(thread: u32, sums: Sums) -> Sums {
    let rank = thread % THREAD_GROUP;
    partial_sums[thread] = sums.dots;
    partial_squares[thread] = sums.squares;
    workgroupBarrier();
    for (var stride = THREAD_GROUP / 2u; stride > 0u; stride /= 2u) {
        if rank < stride {
            partial_sums[thread] += partial_sums[thread + stride];
            partial_squares[thread] += partial_squares[thread + stride];
        }
        workgroupBarrier();
    }
    var squares = 0.0;
    for (var i = 0u; i < WORKGROUP_SIZE; i += THREAD_GROUP) {
        squares += partial_squares[i];
    }
    return Sums(partial_sums[thread - rank], squares);
}
