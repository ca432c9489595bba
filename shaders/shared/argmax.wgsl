// The best of a workgroup of $GROUP among pairs of a value and an id: the highest value, of equal
// ones the lowest id; id NONE where nobody has any.
const NONE = 0xffffffffu;
const LOWEST = -3.4028234e38;

struct Best {
    value: f32,
    id: u32,
}

var<workgroup> lane_bests: array<Best, $GROUP>;

fn better(a: Best, b: Best) -> bool {
    return a.id != NONE && (b.id == NONE || a.value > b.value || (a.value == b.value && a.id < b.id));
}

// All lanes must call, and all get it.
fn group_best(lane: u32, own: Best) -> Best {
    lane_bests[lane] = own;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            let other = lane_bests[lane + reach];
            if better(other, lane_bests[lane]) {
                lane_bests[lane] = other;
            }
        }
        workgroupBarrier();
    }
    let best = lane_bests[0];
    workgroupBarrier();
    return best;
}
