// Argmax over a workgroup of WORKGROUP_SIZE threads, a power of two, among pairs of a value and an id:
// the highest value, of equal values the lowest id. The id NONE marks an absent pair.
//
// The importing file imports `constants`.
const NONE = 0xffffffffu;

struct Candidate {
    value: f32,
    id: u32,
}

var<workgroup> thread_best: array<Candidate, WORKGROUP_SIZE>;

fn better(a: Candidate, b: Candidate) -> bool {
    return a.id != NONE && (b.id == NONE || a.value > b.value || (a.value == b.value && a.id < b.id));
}

// The best candidate of the workgroup. All threads must call it; all get it.
fn workgroup_argmax(thread: u32, candidate: Candidate) -> Candidate {
    thread_best[thread] = candidate;
    workgroupBarrier();
    for (var stride = WORKGROUP_SIZE / 2u; stride > 0u; stride /= 2u) {
        if thread < stride {
            let other = thread_best[thread + stride];
            if better(other, thread_best[thread]) {
                thread_best[thread] = other;
            }
        }
        workgroupBarrier();
    }
    let best = thread_best[0];
    workgroupBarrier();
    return best;
}
