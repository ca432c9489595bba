// Four sums in each lane, and a fifth where the inputs are normalised: those of all lanes together
// in lane 0's place. All lanes must call.
var<workgroup> sums: array<vec4<f32>, $GROUP>;
var<workgroup> squares: array<f32, $GROUP>;

fn add_up(lane: u32, sum: vec4<f32>, square: f32) {
    sums[lane] = sum;
    squares[lane] = square;
    workgroupBarrier();
    for (var reach = $GROUPu / 2u; reach > 0u; reach /= 2u) {
        if lane < reach {
            sums[lane] += sums[lane + reach];
            squares[lane] += squares[lane + reach];
        }
        workgroupBarrier();
    }
}

// The inputs of unit `unit` of a row of `x` that starts at vector `start`.
fn inputs_of(start: u32, unit: u32) -> Slice {
    let at = start + unit * SLICE_VECTORS;
    return slice_of(x[at], x[at + SLICE_VECTORS - 1u]);
}

fn gains_of(unit: u32) -> Slice {
    let at = unit * SLICE_VECTORS;
    return slice_of(gain[at], gain[at + SLICE_VECTORS - 1u]);
}
