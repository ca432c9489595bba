//! Templates with alternatives: `[a|b|]` is replaced by one of its parts, which may contain
//! alternatives themselves.

use crate::scenes::Rng;

/// One random expansion of `template`.
///
/// # Panics
/// A bracket is not closed.
pub fn expand(template: &str, rng: &mut Rng) -> String {
    let Some(open) = template.find('[') else {
        return template.to_owned();
    };
    let (mut depth, mut start, mut parts, mut end) = (0, open + 1, Vec::new(), None);
    for (at, byte) in template.bytes().enumerate().skip(open) {
        match byte {
            b'[' => depth += 1,
            b'|' if depth == 1 => {
                parts.push(&template[start..at]);
                start = at + 1;
            }
            b']' => {
                depth -= 1;
                if depth == 0 {
                    parts.push(&template[start..at]);
                    end = Some(at + 1);
                    break;
                }
            }
            _ => {}
        }
    }
    let end = end.expect("every bracket is closed");
    let chosen = expand(parts[rng.below(parts.len())], rng);
    format!(
        "{}{chosen}{}",
        &template[..open],
        expand(&template[end..], rng)
    )
}

/// One random expansion of one of `templates`.
pub fn expand_any(templates: &[&str], rng: &mut Rng) -> String {
    let index = rng.below(templates.len());
    expand(templates[index], rng)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_nest() {
        let mut rng = Rng::new(1, 0);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.insert(expand("a[b|[c|d]e|]f[!|]", &mut rng));
        }
        let all = ["abf", "abf!", "acef", "acef!", "adef", "adef!", "af", "af!"];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    }
}
