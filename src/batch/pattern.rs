//! Glob patterns of paths: `*` and `?` within a name, `[a-z]` and `[!a-z]` for one character, `**` for any
//! number of folders.

use std::path::{Component, Path, PathBuf};

/// A pattern, one entry per name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<String>,
}

/// Whether a path has characters of a pattern.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

impl Pattern {
    /// Splits a pattern into the folder before the first name with a wildcard, and the rest.
    pub fn split(text: &str) -> (PathBuf, Self) {
        let mut base = PathBuf::new();
        let mut parts = Vec::new();
        for component in Path::new(text).components() {
            let name = component.as_os_str().to_string_lossy();
            let is_plain = parts.is_empty() && !is_pattern(&name);
            match component {
                Component::Normal(_) if !is_plain => parts.push(name.into_owned()),
                _ => base.push(component),
            }
        }
        if base.as_os_str().is_empty() {
            base.push(".");
        }
        (base, Self { parts })
    }

    /// Whether the names of a path below the base match.
    pub fn matches(&self, path: &Path) -> bool {
        let names = path.components().map(|c| c.as_os_str().to_string_lossy());
        let names: Vec<String> = names.map(|name| name.into_owned()).collect();
        path_matches(&self.parts, &names)
    }
}

fn path_matches(pattern: &[String], names: &[String]) -> bool {
    // `reached[n]`: the parts so far match the first n names.
    let mut reached = vec![false; names.len() + 1];
    reached[0] = true;
    for part in pattern {
        let mut next = vec![false; names.len() + 1];
        if part == "**" {
            let mut any = false;
            for (place, before) in reached.iter().enumerate() {
                any |= before;
                next[place] = any;
            }
        } else {
            for (place, name) in names.iter().enumerate() {
                next[place + 1] = reached[place] && name_matches(part, name);
            }
        }
        reached = next;
    }
    reached[names.len()]
}

/// One character of a pattern.
enum Token {
    Any,
    One,
    Literal(char),
    Class {
        ranges: Vec<(char, char)>,
        inverted: bool,
    },
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Literal(literal) => *literal == c,
            Self::Class { ranges, inverted } => {
                ranges.iter().any(|&(from, to)| (from..=to).contains(&c)) != *inverted
            }
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let text: Vec<char> = pattern.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            '*' => found.push(Token::Any),
            '?' => found.push(Token::One),
            '[' => match class(&text[at + 1..]) {
                Some((token, length)) => {
                    found.push(token);
                    at += length;
                }
                None => found.push(Token::Literal('[')),
            },
            c => found.push(Token::Literal(c)),
        }
        at += 1;
    }
    found
}

/// The class after `[`, and its length with `]`; `None` if it has no end.
fn class(text: &[char]) -> Option<(Token, usize)> {
    let inverted = matches!(text.first(), Some('!' | '^'));
    let start = usize::from(inverted);
    // `]` as the first character is itself.
    let end = (start + 1..text.len()).find(|&at| text[at] == ']')?;
    let inside = &text[start..end];
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < inside.len() {
        let (last, length) = match inside.get(at + 1..at + 3) {
            Some(&['-', last]) => (last, 3),
            _ => (inside[at], 1),
        };
        ranges.push((inside[at], last));
        at += length;
    }
    Some((Token::Class { ranges, inverted }, end + 1))
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for token in tokens(pattern) {
        let mut next = vec![false; name.len() + 1];
        if matches!(token, Token::Any) {
            let mut any = false;
            for (place, before) in reached.iter().enumerate() {
                any |= before;
                next[place] = any;
            }
        } else {
            for (place, &c) in name.iter().enumerate() {
                next[place + 1] = reached[place] && token.takes(c);
            }
        }
        reached = next;
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_wildcards_and_classes() {
        for (pattern, name, expected) in [
            ("*.png", "a.png", true),
            ("*.png", ".png", true),
            ("*.png", "a.png.txt", false),
            ("a?c*", "abc", true),
            ("a?c*", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]1", "]1", true),
            ("[a-]1", "-1", true),
            ("[ab", "[ab", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
            ("é*", "été", true),
        ] {
            assert_eq!(name_matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn two_stars_are_any_number_of_folders() {
        for (text, path, expected) in [
            ("x/**/*.png", "a.png", true),
            ("x/**/*.png", "a/b/c.png", true),
            ("x/*/*.png", "a/b/c.png", false),
            ("x/*/*.png", "a/c.png", true),
            ("x/a*/**", "ab/c/d", true),
            ("x/a*/**", "b/c", false),
        ] {
            let (base, pattern) = Pattern::split(text);
            assert_eq!(base, Path::new("x"));
            assert_eq!(pattern.matches(Path::new(path)), expected, "{text} {path}");
        }
        assert_eq!(Pattern::split("*.png").0, Path::new("."));
        assert_eq!(Pattern::split("/a/b/*.png").0, Path::new("/a/b"));
        assert!(is_pattern("a[1].png") && !is_pattern("a.png"));
    }
}
