// Four sums and that of squares.
struct Sums {
    four: vec4<f32>,
    squares: f32,
}

var<workgroup> lane_sums: array<Sums, $GROUP>;

// Those of a workgroup of $GROUP; every invocation calls it and gets them. Each subgroup adds up its
// own and then what all subgroups left, whatever their size and order.
fn four_sums(lane: u32, own: Sums) -> Sums {
    let size = subgroupAdd(1u);
    let rank = subgroupExclusiveAdd(1u);
    var part = Sums(subgroupAdd(own.four), subgroupAdd(own.squares));
    if rank > 0u {
        part = Sums(vec4<f32>(), 0.0);
    }
    lane_sums[lane] = part;
    workgroupBarrier();
    var rest = Sums(vec4<f32>(), 0.0);
    for (var at = rank; at < $GROUPu; at += size) {
        rest.four += lane_sums[at].four;
        rest.squares += lane_sums[at].squares;
    }
    return Sums(subgroupAdd(rest.four), subgroupAdd(rest.squares));
}
