//! Every Markdown file that a comment, a message or a document cites is in this repository, and so is
//! the section that is cited with it.

mod repository;

use std::path::{Component, Path, PathBuf};

use repository::{root, text_files};

/// Folders whose files are checked, beside the Markdown files of the root.
const FOLDERS: [&str; 8] = [
    "src", "web", "shaders", "xtask", "tests", "docs", "examples", ".github",
];

/// A cited Markdown file.
#[derive(Debug, PartialEq)]
struct Citation<'a> {
    /// Its path as written.
    path: &'a str,
    /// The heading named by `#anchor` behind it.
    anchor: Option<&'a str>,
    /// The section number behind it: `section 9.1`.
    section: Option<&'a str>,
}

/// `line` and what follows it on the next line, without the marks of a comment.
fn joined(line: &str, next: &str) -> String {
    let next = next.trim_start().trim_start_matches(['/', '!', '#', '*']);
    format!("{line} {}", next.trim_start())
}

/// The Markdown files that the first `length` bytes of `line` cite: in backticks, in a link or as a
/// bare word. Addresses of other hosts, patterns such as `*.md`, and names that are a whole string
/// literal (a file that a test makes) are no citations.
fn citations(line: &str, length: usize) -> Vec<Citation<'_>> {
    let mut found = Vec::new();
    for (at, end) in line.match_indices(".md").filter(|&(at, _)| at < length) {
        let stop = at + end.len();
        let rest = &line[stop..];
        if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-') {
            continue;
        }
        let start = line[..at]
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || "_-./:~%@".contains(c)))
            .map_or(0, |before| {
                before + line[before..].chars().next().map_or(1, char::len_utf8)
            });
        let path = &line[start..stop];
        let literal = line[..start].ends_with('"') && rest.starts_with('"');
        let pattern =
            line[..start].ends_with('*') || path.starts_with(".md") || path.ends_with("/.md");
        if literal || pattern || path.contains("://") {
            continue;
        }
        found.push(Citation {
            path,
            anchor: rest.strip_prefix('#').map(|anchor| word(anchor, "-_")),
            section: section(rest),
        });
    }
    found
}

/// The beginning of `text` up to the first character that is neither alphanumeric nor in `more`.
fn word<'a>(text: &'a str, more: &str) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || more.contains(c)));
    &text[..end.unwrap_or(text.len())]
}

/// The number in `rest` where it begins with the word section behind closing marks.
fn section(rest: &str) -> Option<&str> {
    let rest = rest.trim_start_matches(['`', ')', ',', ' ']);
    let number = rest
        .strip_prefix("sections ")
        .or_else(|| rest.strip_prefix("section "))?;
    let number = word(number, ".").trim_end_matches('.');
    number
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some(number)
}

/// `path` without `.` and `..`; none where it leaves the root.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !parts.pop() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(parts)
}

/// The cited file: `cited` relative to the root, to `docs`, or to the folder of `citing`.
fn resolve(citing: &str, cited: &str, exists: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let folder = Path::new(citing).parent().unwrap_or(Path::new(""));
    [Path::new(""), Path::new("docs"), folder]
        .into_iter()
        .filter_map(|base| normal(&base.join(cited)))
        .find(|path| exists(path))
}

/// A heading of Markdown as the anchor that hosts make of it.
fn anchor_of(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// The headings of a Markdown text, fenced blocks left out.
fn headings(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            found.push(line.trim_start_matches('#').trim());
        }
    }
    found
}

/// What is wrong with a citation of the Markdown text `cited`.
fn missing_part(citation: &Citation, cited: &str) -> Option<String> {
    let headings = headings(cited);
    if let Some(anchor) = citation.anchor
        && !headings.iter().any(|heading| anchor_of(heading) == anchor)
    {
        return Some(format!("{} has no heading #{anchor}", citation.path));
    }
    let number = |heading: &&str| word(heading, ".").trim_end_matches('.').to_owned();
    if let Some(section) = citation.section
        && !headings.iter().any(|heading| number(heading) == section)
    {
        return Some(format!("{} has no section {section}", citation.path));
    }
    None
}

/// The faults of the first `length` bytes of a line of the file `citing`; `read` gives the text of a
/// file that exists.
fn faults(
    citing: &str,
    line: &str,
    length: usize,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Vec<String> {
    citations(line, length)
        .iter()
        .filter_map(|citation| {
            let exists = |path: &Path| read(path).is_some();
            match resolve(citing, citation.path, &exists) {
                None => Some(format!("{} is no file of this repository", citation.path)),
                Some(path) => missing_part(citation, &read(&path).unwrap_or_default()),
            }
        })
        .collect()
}

#[test]
fn every_cited_document_is_in_the_repository() {
    let read = |path: &Path| std::fs::read_to_string(root().join(path)).ok();
    let files = text_files(&FOLDERS);
    let mut wrong = Vec::new();
    let mut cited = 0;
    for (name, text) in files
        .iter()
        .filter(|(name, _)| name != "tests/citations.rs")
    {
        let following = text.lines().skip(1).chain([""]);
        for (number, (line, next)) in text.lines().zip(following).enumerate() {
            let both = joined(line, next);
            cited += citations(&both, line.len()).len();
            let faults = faults(name, &both, line.len(), &read);
            wrong.extend(
                faults
                    .iter()
                    .map(|what| format!("{name}:{}: {what}", number + 1)),
            );
        }
    }
    assert!(
        cited >= 20,
        "only {cited} citations in {} files",
        files.len()
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn citations_are_found_in_every_form() {
    let paths = |line: &str| -> Vec<String> {
        let found = citations(line, line.len());
        found.iter().map(|c| c.path.to_owned()).collect()
    };
    assert_eq!(paths("/// as in (`upn.md` 9)."), ["upn.md"]);
    assert_eq!(
        paths("[rule](docs/format.md#names), a.md"),
        ["docs/format.md", "a.md"]
    );
    assert_eq!(paths("see ../notes.md."), ["../notes.md"]);
    assert_eq!(paths("→`x.md`"), ["x.md"]);
    assert!(paths(r#"Folder::with("none", &[("readme.md", b"")])"#).is_empty());
    assert!(paths("*.md and https://example.org/a.md and model.mdx").is_empty());
    let section = |line: &str, next: &str| {
        let both = joined(line, next);
        let found = citations(&both, line.len());
        found[0].section.map(str::to_owned)
    };
    assert_eq!(
        section("`a.md` sections 9.1 and 10", "").as_deref(),
        Some("9.1")
    );
    assert_eq!(
        section("/// (`a.md` section", "/// 7).").as_deref(),
        Some("7")
    );
    assert_eq!(
        section("/// (`a.md`", "/// section 7.3.)").as_deref(),
        Some("7.3")
    );
    assert_eq!(section("/// `a.md`.", "fn section() {}"), None);
    let anchored = "[a](b.md#names-and-forms)";
    let found = citations(anchored, anchored.len());
    assert_eq!(found[0].anchor, Some("names-and-forms"));
}

#[test]
fn planted_citations_that_do_not_resolve_are_told() {
    let read = |path: &Path| {
        let text = "# Title\n\n## 9. Output\n\n### 9.1 Grammar\n\n```\n# 7 no heading\n```\n";
        (path == Path::new("docs/reference/a.md")).then(|| text.to_owned())
    };
    let told = |citing, line: &str| faults(citing, line, line.len(), &read);
    let none: Vec<String> = Vec::new();
    assert_eq!(
        told("src/x.rs", "// `docs/reference/a.md` section 9.1"),
        none
    );
    assert_eq!(told("src/x.rs", "// `reference/a.md`, section 9"), none);
    assert_eq!(told("docs/reference/b.md", "[a](a.md#91-grammar)"), none);
    assert_eq!(told("docs/reference/b.md", "[a](../reference/a.md)"), none);
    assert_eq!(
        told("src/x.rs", "// `a.md` 3"),
        ["a.md is no file of this repository"]
    );
    assert_eq!(
        told("src/x.rs", "// ../../docs/reference/a.md"),
        ["../../docs/reference/a.md is no file of this repository"]
    );
    assert_eq!(
        told("src/x.rs", "// `reference/a.md` section 7"),
        ["reference/a.md has no section 7"]
    );
    assert_eq!(
        told("docs/c.md", "[a](reference/a.md#grammar)"),
        ["reference/a.md has no heading #grammar"]
    );
}
