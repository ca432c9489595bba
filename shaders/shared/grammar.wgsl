// Constrained decoding of box lists: which kinds of token a state allows, and the state after a token.
// States and kinds are those of src/generate/constraint.rs.
fn allows(state: u32, kind: u32) -> bool {
    if state == STATE_FIRST {
        return kind == KIND_INDEX;
    }
    if state == STATE_MORE {
        return kind == KIND_INDEX || kind == KIND_CLOSE;
    }
    return kind == KIND_TEXT || kind == KIND_INDEX || kind == KIND_OPEN;
}

fn state_after(state: u32, kind: u32) -> u32 {
    if kind == KIND_OPEN {
        return STATE_FIRST;
    }
    if state == STATE_TEXT || kind == KIND_CLOSE {
        return STATE_TEXT;
    }
    return STATE_MORE;
}
