// Four sums and that of squares.
struct Sums {
    four: vec4<f32>,
    squares: f32,
}

var<workgroup> lane_sums: array<Sums, $GROUP>;

// Those of a workgroup of $GROUP, a power of two; every invocation calls it and gets them.
fn four_sums(lane: u32, own: Sums) -> Sums {
    lane_sums[lane] = own;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            lane_sums[lane].four += lane_sums[lane + reach].four;
            lane_sums[lane].squares += lane_sums[lane + reach].squares;
        }
        workgroupBarrier();
    }
    return lane_sums[0];
}
