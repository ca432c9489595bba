// One workgroup of a GEMV kernel: one row of x. See gemv_body.

// The sums of a 32-thread group. All threads of the workgroup must call it.
fn accumulate(thread: u32, m: u32, k: u32, first: u32, normed: bool) -> Sums {
    let rank = thread % THREAD_GROUP;
    let loads = k / (4u * LOAD_VECTORS);
    var sums = Sums(vec4<f32>(), 0.0);
    var buffer = 0u;
    var next = load_w(first, min(rank, loads - 1u));
    var near = load_x(m, k, thread, normed);
    var far = load_x(m, k, thread + WORKGROUP_SIZE, normed);
    for (var base = 0u; base < loads; base += THREAD_GROUP) {
        if thread < TILE {
            sums.squares += stage(near, thread, buffer, normed);
        }
        if thread + WORKGROUP_SIZE < TILE {
            sums.squares += stage(far, thread + WORKGROUP_SIZE, buffer, normed);
        }
        let w = next;
        workgroupBarrier();
        if base + THREAD_GROUP < loads {
            let vector = (base + THREAD_GROUP) * LOAD_VECTORS + thread;
            next = load_w(first, min(base + THREAD_GROUP + rank, loads - 1u));
            near = load_x(m, k, vector, normed);
            if WORKGROUP_SIZE < TILE {
                far = load_x(m, k, vector + WORKGROUP_SIZE, normed);
            }
        }
        let x_load = load_x_tile(buffer + rank);
        let factors = decode_scales(w.scales, first, min(base + rank, loads - 1u));
        sums.dots = add_products(sums.dots, w, factors, x_load);
        buffer = LOAD_VECTORS * PLANE - buffer;
    }
    return gemv_sums(thread, sums);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    _ = scales[0];
    let n_count = output_count();
    let tiles = (n_count + WORKGROUP_OUTPUTS - 1u) / WORKGROUP_OUTPUTS;
    let flat_group = workgroup_index(group, groups);
    let m = flat_group / tiles;
    let first = flat_group % tiles * WORKGROUP_OUTPUTS + thread / THREAD_GROUP * OUTPUTS;
    if m >= u.m {
        return;
    }
    let sums = accumulate(thread, m, u.k, first, has_norm());
    let i = thread % THREAD_GROUP;
    let n = first + i;
    if i < OUTPUTS && n < n_count {
        store(m, n, i, sums);
    }
}
