// Four products of one row of `x` in a workgroup of $GROUP, and the sum of the row's squares where it
// goes through a norm. Every invocation takes every $GROUPth unit, so reads are contiguous. All of a
// workgroup must call, and all get them.
//
// The file that imports this says what the products are: `quad`, the four parts from one unit, whose
// inputs have the sum `total`.

// The inputs of unit `unit` of a row of `x` that starts at vector `start`.
fn inputs_of(start: u32, unit: u32) -> Slice {
    let at = start + unit * SLICE_VECTORS;
    return slice_of(x[at], x[at + SLICE_VECTORS - 1u]);
}

fn gains_of(unit: u32) -> Slice {
    let at = unit * SLICE_VECTORS;
    return slice_of(gain[at], gain[at + SLICE_VECTORS - 1u]);
}

fn add_up(lane: u32, m: u32, width: u32, first: u32, normed: bool) -> Sums {
    var own = Sums(vec4<f32>(), 0.0);
    for (var unit = lane; unit < width / PER_UNIT; unit += $GROUPu) {
        var inputs = inputs_of(m * width / 4u, unit);
        if normed {
            own.squares += inner(inputs, inputs);
            inputs = times(inputs, gains_of(unit));
        }
        own.four += quad(first, unit, inputs, total_of(inputs));
    }
    return four_sums(lane, own);
}

// What the norm makes of every product of a row whose squares add up to `squares`: it is a factor of
// the whole sum.
fn norm_factor(squares: f32, width: u32, eps: u32) -> f32 {
    return inverseSqrt(squares / f32(width) + bitcast<f32>(eps));
}
