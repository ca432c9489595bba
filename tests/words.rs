//! Words for people stand in the string modules of `src/chat`, in every language of the page.

mod repository;

use std::collections::BTreeSet;

use chatrex::chat::fault_strings;
use repository::text_files;

/// Attributes whose values people read or hear.
const READ: [&str; 8] = [
    "aria-label",
    "title",
    "placeholder",
    "alt",
    "label",
    "name",
    "text",
    "action",
];

/// Inline words that are the same in every language.
const ALIKE: [&str; 2] = ["ChatRex", "Ctrl+Z"];

/// Functions that make a fault of their arguments.
const FAULTS: [&str; 7] = [
    "Fault::new(",
    "Fault::model(",
    "Fault::file(",
    "refused(",
    "lost(",
    "unreadable(",
    "refuse(",
];

/// A string literal of a source file: where it begins and ends, with its quotes, and its text.
struct Literal {
    start: usize,
    end: usize,
    text: String,
}

/// The source without its tests and without comments, which become spaces.
fn code(source: &str) -> String {
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    let mut out = String::new();
    for line in source[..end].split_inclusive('\n') {
        match line.trim_start().starts_with("//") {
            true => out.extend(line.chars().map(|c| if c == '\n' { c } else { ' ' })),
            false => out.push_str(line),
        }
    }
    out
}

/// The string literals of code, with continued lines joined.
fn literals(code: &str) -> Vec<Literal> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let is_character = bytes[at] == b'\'' && code[at..].starts_with("'\"'");
        if is_character {
            at += 3;
            continue;
        }
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let start = at;
        at += 1;
        while at < bytes.len() && bytes[at] != b'"' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        at += 1;
        let inside = &code[start + 1..(at - 1).min(code.len())];
        found.push(Literal {
            start,
            end: at.min(code.len()),
            text: joined(inside),
        });
    }
    found
}

/// A literal whose lines are continued, in one line.
fn joined(literal: &str) -> String {
    let mut parts = literal.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

fn has_word(text: &str) -> bool {
    let letters = text.as_bytes().windows(2);
    let mut pairs = letters.filter(|pair| pair.iter().all(u8::is_ascii_alphabetic));
    pairs.next().is_some()
}

/// Whether it begins like a sentence or a label: a capital letter, small ones, and more words.
fn is_sentence(text: &str) -> bool {
    let mut words = text.split(' ');
    let first = words.next().unwrap_or_default().as_bytes();
    let is_capital = first.first().is_some_and(u8::is_ascii_uppercase)
        && first[1..].iter().all(|b| b.is_ascii_lowercase());
    is_capital && words.any(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Whether a literal of a view is words for people.
fn is_inline(code: &str, literal: &Literal) -> bool {
    let text = literal.text.as_str();
    if ALIKE.contains(&text) || fault_strings::is_known(text) {
        return false;
    }
    let before = code[..literal.start].trim_end();
    let after = code[literal.end..].trim_start();
    if before.ends_with("expect(") {
        return false;
    }
    let is_child = (before.ends_with('>') && !before.ends_with("=>") && !before.ends_with("->"))
        || (before.ends_with('}') && after.starts_with(['<', '{', '"']))
        || (code[..literal.start].ends_with('{') && code[literal.end..].starts_with('}'));
    if is_child && has_word(text) {
        return true;
    }
    let attribute = code[..literal.start].strip_suffix('=').map(|before| {
        let mut name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        name.next().unwrap_or_default()
    });
    let is_label = text.starts_with(|c: char| c.is_ascii_uppercase()) || text.contains(' ');
    match attribute {
        Some(name) if READ.contains(&name) => has_word(text) && is_label,
        Some(_) => false,
        None => is_sentence(text),
    }
}

/// One line per literal of a view that is words for people.
fn findings(name: &str, source: &str) -> Vec<String> {
    let code = code(source);
    let words = literals(&code);
    let words = words
        .into_iter()
        .filter(|literal| is_inline(&code, literal));
    words
        .map(|literal| {
            let line = code[..literal.start].matches('\n').count() + 1;
            format!("{name}:{line}: {:?}", literal.text)
        })
        .collect()
}

/// The literals in calls that make faults.
fn told(source: &str) -> BTreeSet<String> {
    let code = code(source);
    let all = literals(&code);
    let mut told = BTreeSet::new();
    for (start, call) in FAULTS.iter().flat_map(|call| code.match_indices(call)) {
        let from = start + call.len();
        let mut depth = 1;
        let mut at = from;
        while depth > 0 && at < code.len() {
            if let Some(literal) = all.iter().find(|l| l.start == at) {
                // Names of places and of files are data.
                if literal.text.contains(' ') && has_word(&literal.text) {
                    told.insert(literal.text.clone());
                }
                at = literal.end;
                continue;
            }
            match code.as_bytes()[at] {
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            at += 1;
        }
    }
    told
}

/// A format with a value for each of its places.
fn filled(format: &str) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(start) = rest.find('{') {
        let end = rest[start..]
            .find('}')
            .map_or(rest.len(), |end| start + end + 1);
        out.push_str(&rest[..start]);
        out.push('7');
        rest = &rest[end..];
    }
    out + rest
}

#[test]
fn views_hold_no_words_of_their_own() {
    let files = text_files(&["web"]);
    let views = files.iter().filter(|(name, _)| name.contains("page/view/"));
    let views: Vec<_> = views.collect();
    assert!(views.len() > 20, "only {} views are read", views.len());
    let found: Vec<String> = (views.iter())
        .flat_map(|(name, text)| findings(name, text))
        .collect();
    assert!(
        found.is_empty(),
        "move these to a string module of src/chat\n{}",
        found.join("\n")
    );
}

#[test]
fn planted_words_are_found() {
    let planted = r#"
        // "A comment is not shown"
        let name = format!("{} boxes", 3);
        let class = match on { true => "box lit", false => "box" };
        view! {
            <p class="hint small" title="The whole picture" name="theme">
                "Nothing here yet."
                {words::MORE} " and the rest" <b>{"done"}</b>
            </p>
            <button aria-label=words::CLOSE data-testid="close">"×"</button>
        }
        let told = "Choose one of them";
        let window = window().expect("A page has a window");
    "#;
    let found = findings("x.rs", planted);
    for words in [
        "The whole picture",
        "Nothing here yet.",
        " and the rest",
        "done",
        "Choose one of them",
    ] {
        let is_found = found
            .iter()
            .any(|line| line.ends_with(&format!("{words:?}")));
        assert!(is_found, "{words}: {found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn faults_are_told_in_every_language() {
    let files = text_files(&["src/chat", "web"]);
    let of_page = |name: &str| {
        name.ends_with(".rs") && (name.contains("src/chat/") || name.contains("web/page/"))
            || name.contains("web/worker/")
    };
    let files = files.iter().filter(|(name, _)| of_page(name));
    let told: BTreeSet<String> = files.flat_map(|(_, text)| told(text)).collect();
    assert!(told.len() > 60, "only {} sentences are read", told.len());
    let missing: Vec<_> = (told.iter())
        .filter(|text| !fault_strings::is_known(&filled(text)))
        .collect();
    assert!(
        missing.is_empty(),
        "add these to fault_strings/known.rs: {missing:#?}"
    );
}
