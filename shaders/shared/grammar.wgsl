// Lists of boxes in an answer: what a token may be where the answer stands, and where it stands
// afterwards.
fn allows(place: u32, kind: u32) -> bool {
    if place == $FIRSTu {
        return kind == $INDEXu;
    }
    if place == $MOREu {
        return kind == $INDEXu || kind == $CLOSEu;
    }
    return kind == $WORDu || kind == $INDEXu || kind == $OPENu;
}

fn place_after(place: u32, kind: u32) -> u32 {
    if kind == $OPENu {
        return $FIRSTu;
    }
    if place == $WORDSu || kind == $CLOSEu {
        return $WORDSu;
    }
    return $MOREu;
}
