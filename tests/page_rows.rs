//! Every test that `docs/page.md` names exists.

use std::fs;

/// File and test of a row of a table.
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
    let (_, file, test) = (cells.next()?, cells.next()?, cells.next()?);
    Some((file.strip_prefix('`')?.strip_suffix('`')?, test))
}

/// The rows of `text` whose test is in no file; `read` gives the text of a file.
fn missing(text: &str, read: impl Fn(&str) -> String) -> Vec<String> {
    (text.lines().filter_map(row))
        .filter(|(file, test)| {
            let tests = read(file);
            let mut titles = tests.lines().filter(|line| line.contains("test("));
            !titles.any(|line| line.contains(test))
        })
        .map(|(file, test)| format!("{file}: {test}"))
        .collect()
}

#[test]
fn every_test_of_the_page_that_is_named_exists() {
    let text = fs::read_to_string("docs/page.md").expect("docs/page.md");
    assert!(text.lines().filter_map(row).count() > 90, "rows are read");
    let read = |file: &str| {
        let path = format!("tests/browser/{file}.test.mjs");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    assert_eq!(missing(&text, read), [""; 0]);
}

#[test]
fn a_test_that_does_not_exist_is_named() {
    let text = "| expectation | file | test |\n|---|---|---|\n| A | `a` | one |\n| B | `a` | two |";
    let read = |_: &str| "  test(\"one\", () => {});\n  // two".to_owned();
    assert_eq!(missing(text, read), ["a: two"]);
}
