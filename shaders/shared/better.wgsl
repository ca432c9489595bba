// The best of a workgroup of $GROUP in the first place: the highest value, of equal ones the lowest
// id. All lanes must call.
var<workgroup> top_values: array<f32, $GROUP>;
var<workgroup> top_ids: array<u32, $GROUP>;

fn gather(lane: u32, value: f32, id: u32) {
    top_values[lane] = value;
    top_ids[lane] = id;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            let other = top_values[lane + reach];
            let other_id = top_ids[lane + reach];
            if other > top_values[lane] || (other == top_values[lane] && other_id < top_ids[lane]) {
                top_values[lane] = other;
                top_ids[lane] = other_id;
            }
        }
        workgroupBarrier();
    }
}
