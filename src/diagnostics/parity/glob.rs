//! Globs over tensor keys.

/// Whether `text` matches `pattern`, in which `*` stands for any number of characters.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| glob(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        assert!(glob("*.out.*", "single_fine.out.pred_boxes"));
        assert!(glob("out", "out"));
        assert!(glob("nms*.keep", "nms12.keep"));
        assert!(!glob("*.mean", "0.real.aux_mean"));
        assert!(!glob("*.out", "a.out.b"));
        assert!(!glob("out", "x.out"));
    }
}
