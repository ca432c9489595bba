//! Private phrases that have a term of art do not return to code, messages and documents.

mod repository;

use repository::text_files;

/// Folders whose files are checked, beside the Markdown files of the root.
const FOLDERS: [&str; 5] = ["src", "web", "shaders", "xtask", "docs"];

/// Phrases that have no correct use in this project, in lower case, and the words to use. Words
/// that can be right elsewhere ("person", "words", "chance") do not belong here.
const DENIED: [(&str, &str); 24] = [
    ("graphics device", "GPU"),
    ("graphics devices", "GPUs"),
    ("the processor", "the CPU"),
    ("single precision", "f32"),
    ("single-precision", "f32"),
    ("half precision", "f16"),
    ("half-precision", "f16"),
    ("made-up", "random or synthetic"),
    (
        "whoever",
        "the name of who acts: the caller, the user, the reader",
    ),
    (
        "has its say",
        "the name of the effect, for example sampling",
    ),
    (
        "have their say",
        "the name of the effect, for example sampling",
    ),
    ("bring chance", "enable sampling"),
    ("brings chance", "enables sampling"),
    ("likeliest", "most likely, or argmax"),
    ("go by", "are read, or are processed"),
    ("goes by", "is read, or is processed"),
    ("stretch of", "KV split, tile or part of"),
    ("stretches of", "KV splits, tiles or parts of"),
    ("come and go", "are loaded and evicted on demand"),
    ("comes and goes", "is loaded and evicted on demand"),
    ("breathe", "yield"),
    ("breathes", "yields"),
    ("at one go", "in one step"),
    ("in two goes", "in two steps"),
];

/// Text in lower case with single spaces, without comment marks, so that a phrase is found across
/// the end of a line.
struct Plain {
    text: String,
    /// Byte in `text` at which each line begins.
    starts: Vec<usize>,
}

impl Plain {
    fn of(source: &str) -> Self {
        let mut plain = Self {
            text: String::new(),
            starts: Vec::new(),
        };
        for line in source.lines() {
            plain.starts.push(plain.text.len());
            let line = line
                .trim_start()
                .trim_start_matches(['/', '!', '#', '*', '>']);
            for word in line.split_whitespace() {
                plain.text.push_str(&word.to_lowercase());
                plain.text.push(' ');
            }
        }
        plain
    }

    /// The lines, counted from 1, on which `phrase` begins as whole words.
    fn lines_with(&self, phrase: &str) -> Vec<usize> {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        self.text
            .match_indices(phrase)
            .filter(|&(at, _)| {
                let before = self.text[..at].chars().next_back();
                let after = self.text[at + phrase.len()..].chars().next();
                !before.is_some_and(inside) && !after.is_some_and(inside)
            })
            .map(|(at, _)| self.starts.partition_point(|&start| start <= at))
            .collect()
    }
}

/// One line per denied phrase in `source`, the text of the file `name`.
fn findings(name: &str, source: &str) -> Vec<String> {
    let plain = Plain::of(source);
    let mut found: Vec<(usize, String)> = Vec::new();
    for (phrase, term) in DENIED {
        for line in plain.lines_with(phrase) {
            found.push((line, format!("{name}:{line}: \"{phrase}\"; write {term}")));
        }
    }
    found.sort();
    found.into_iter().map(|(_, finding)| finding).collect()
}

#[test]
fn terms_of_art_are_used() {
    let files = text_files(&FOLDERS);
    assert!(files.len() > 50, "only {} files are read", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|(name, text)| findings(name, text))
        .collect();
    assert!(
        found.is_empty(),
        "{} phrases\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn planted_phrases_are_told_with_file_line_and_term() {
    let source = "//! A kernel for a graphics\n//!    device.\nfn f() {} // Made-up numbers\n";
    assert_eq!(
        findings("src/x.rs", source),
        [
            "src/x.rs:1: \"graphics device\"; write GPU",
            "src/x.rs:3: \"made-up\"; write random or synthetic",
        ]
    );
    for (phrase, _) in DENIED {
        assert_eq!(phrase, phrase.to_lowercase());
        let told = findings("shaders/y.wgsl", &format!("first\nso {phrase}, then"));
        assert!(
            told.iter()
                .any(|line| line.starts_with(&format!("shaders/y.wgsl:2: \"{phrase}\";"))),
            "{phrase}: {told:?}"
        );
    }
}

#[test]
fn parts_of_other_words_are_left_alone() {
    for source in ["fn breathe_in()", "the processors", "handmade-up", "ago by"] {
        assert!(findings("src/x.rs", source).is_empty(), "{source}");
    }
}
