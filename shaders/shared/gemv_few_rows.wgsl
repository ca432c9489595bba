// One workgroup of a GEMV kernel: ROW_COUNT rows of x, two to four, which read each weight once. See gemv_body.
//
// A load of weights stays in registers while the rows are staged one after another, so that the tiles of several
// rows need no more workgroup memory than those of one. Loads of x in flight are those of the next row. Per row
// the sums are added in the order of gemv_one_row. A row past the end of x is computed as the last one and not
// written.

const LAST_ROW = ROW_COUNT - 1u;

// The sums of each row. Only constants index them, so that they stay in registers: the row that is computed is at
// index 0, and `rotated` moves it to the end.
alias RowSums = array<Sums, ROW_COUNT>;

// The sums without the first row's, then `first`.
fn rotated(all: RowSums, first: Sums) -> RowSums {
    var next = all;
    next[0] = all[1];
    next[min(1u, LAST_ROW)] = all[min(2u, LAST_ROW)];
    next[min(2u, LAST_ROW)] = all[LAST_ROW];
    next[LAST_ROW] = first;
    return next;
}

// Each thread's part of the sums of rows `first_m` .. of x. All threads of the workgroup must call it.
fn accumulate(thread: u32, first_m: u32, k: u32, first: u32, normed: bool) -> RowSums {
    let rank = thread % THREAD_GROUP;
    let loads = k / (4u * LOAD_VECTORS);
    var all = RowSums();
    var buffer = 0u;
    var next = load_w(first, min(rank, loads - 1u));
    var near = load_x(first_m, k, thread, normed);
    var far = load_x(first_m, k, thread + WORKGROUP_SIZE, normed);
    for (var base = 0u; base < loads; base += THREAD_GROUP) {
        let w = next;
        let factors = decode_scales(w.scales, first, min(base + rank, loads - 1u));
        if base + THREAD_GROUP < loads {
            next = load_w(first, min(base + THREAD_GROUP + rank, loads - 1u));
        }
        for (var row = 0u; row < ROW_COUNT; row++) {
            var sums = all[0];
            if thread < TILE {
                sums.squares += stage(near, thread, buffer, normed);
            }
            if thread + WORKGROUP_SIZE < TILE {
                sums.squares += stage(far, thread + WORKGROUP_SIZE, buffer, normed);
            }
            workgroupBarrier();
            // The next row of this tile, or the first row of the next one.
            let is_last = row == LAST_ROW;
            let next_base = select(base, base + THREAD_GROUP, is_last);
            if next_base < loads {
                let m = min(select(first_m + row + 1u, first_m, is_last), u.m - 1u);
                let vector = next_base * LOAD_VECTORS + thread;
                near = load_x(m, k, vector, normed);
                if WORKGROUP_SIZE < TILE {
                    far = load_x(m, k, vector + WORKGROUP_SIZE, normed);
                }
            }
            sums.dots = add_products(sums.dots, w, factors, load_x_tile(buffer + rank));
            all = rotated(all, sums);
            buffer = LOAD_VECTORS * PLANE - buffer;
        }
    }
    return all;
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
    let first_m = flat_group / tiles * ROW_COUNT;
    let first = flat_group % tiles * WORKGROUP_OUTPUTS + thread / THREAD_GROUP * OUTPUTS;
    if first_m >= u.m {
        return;
    }
    var all = accumulate(thread, first_m, u.k, first, has_norm());
    let i = thread % THREAD_GROUP;
    let n = first + i;
    for (var row = 0u; row < ROW_COUNT; row++) {
        let sums = gemv_sums(thread, all[0]);
        if first_m + row < u.m && i < OUTPUTS && n < n_count {
            store(first_m + row, n, i, sums);
        }
        all = rotated(all, all[0]);
        // The next row's sums take the place of these.
        workgroupBarrier();
    }
}
