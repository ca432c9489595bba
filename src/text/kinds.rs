//! English forms of the names of kinds: plurals and articles.

/// Plurals that no rule gives, and names that are plural or uncountable as they are.
const IRREGULAR: [(&str, &str); 14] = [
    ("person", "people"),
    ("man", "men"),
    ("woman", "women"),
    ("child", "children"),
    ("mouse", "mice"),
    ("knife", "knives"),
    ("leaf", "leaves"),
    ("shelf", "shelves"),
    ("sheep", "sheep"),
    ("fish", "fish"),
    ("skis", "skis"),
    ("scissors", "scissors"),
    ("broccoli", "broccoli"),
    ("food", "food"),
];

/// The plural of `name`; only its last word changes: `wine glass` becomes `wine glasses`.
pub fn plural(name: &str) -> String {
    let (before, last) = match name.rsplit_once(' ') {
        Some((before, last)) => (format!("{before} "), last),
        None => (String::new(), name),
    };
    let irregular = IRREGULAR.iter().find(|(one, _)| *one == last);
    let last = match irregular {
        Some((_, many)) => (*many).to_owned(),
        None if ["s", "x", "z", "ch", "sh"]
            .iter()
            .any(|end| last.ends_with(end)) =>
        {
            format!("{last}es")
        }
        None => match last.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{stem}ies"),
            _ => format!("{last}s"),
        },
    };
    before + &last
}

/// `name` with its indefinite article, or alone where it is plural or uncountable: `a dog`, `an
/// apple`, `scissors`.
pub fn with_article(name: &str) -> String {
    let last = name.rsplit(' ').next().unwrap_or(name);
    if ["skis", "scissors", "broccoli", "food"].contains(&last) {
        return name.to_owned();
    }
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_and_articles() {
        for (one, many) in [
            ("dog", "dogs"),
            ("person", "people"),
            ("wine glass", "wine glasses"),
            ("bench", "benches"),
            ("toothbrush", "toothbrushes"),
            ("knife", "knives"),
            ("toy", "toys"),
            ("teddy bear", "teddy bears"),
            ("cherry", "cherries"),
            ("sheep", "sheep"),
            ("scissors", "scissors"),
        ] {
            assert_eq!(plural(one), many);
        }
        assert_eq!(with_article("umbrella"), "an umbrella");
        assert_eq!(with_article("potted plant"), "a potted plant");
        assert_eq!(with_article("skis"), "skis");
    }
}
