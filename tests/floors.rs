//! No import goes up. The floors are those of the table in `src/lib.rs`.

use std::path::{Path, PathBuf};

/// The floor of a top-level module; a module may name those of its own floor and of lower ones,
/// save for the exceptions in [`forbidden`].
fn floor(module: &str) -> Option<usize> {
    Some(match module {
        "device_preference" | "files" | "geometry" | "fault" | "fit" | "progress" => 0,
        "image" | "text" | "generate" => 1,
        "protocol" => 2,
        "chat" => 3,
        "weights" => 4,
        "kernel" => 5,
        "nn" => 6,
        "model" => 7,
        "engine" => 8,
        "scenes" | "train" | "eval" | "parity" | "convert" => 9,
        "command" => 10,
        _ => return None,
    })
}

/// Modules of one floor that must not know each other, and modules that must not know burn.
fn forbidden(from: &str, to: &str) -> bool {
    let burn_free = floor(from).is_some_and(|floor| floor <= 4);
    (burn_free && matches!(to, "burn" | "cubecl" | "burn_cubecl"))
        || (from != "chat" && to == "chat" && floor(from).is_some_and(|floor| floor <= 8))
        || (from == "weights"
            && !matches!(to, "weights" | "fault" | "progress")
            && floor(to).is_some())
        || (from == "image" && matches!(to, "text" | "generate"))
        || (from == "text" && matches!(to, "image" | "generate"))
        || (from == "generate" && to == "image")
        || (from == "train" && matches!(to, "eval" | "parity"))
        || (from == "eval" && matches!(to, "train" | "parity"))
        || (from == "parity" && matches!(to, "train" | "eval" | "scenes"))
        || (from == "convert" && matches!(to, "train" | "eval" | "parity" | "scenes"))
        || (matches!(from, "train" | "eval" | "scenes") && to == "convert")
        || (from == "scenes" && matches!(to, "train" | "eval" | "parity"))
}

/// The modules of this crate, and the crates, that a file's code names.
fn imports(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code = source
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for root in ["crate::", "chatrex::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(first_word(rest)),
            }
        }
    }
    for (at, _) in code.match_indices("::") {
        let word: String = code[..at]
            .chars()
            .rev()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let word: String = word.chars().rev().collect();
        if matches!(word.as_str(), "burn" | "cubecl" | "burn_cubecl" | "leptos") {
            found.push(word);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The first name of every member of a `use crate::{..}` group.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut heads = first_word(group.trim_start())
        .into_iter()
        .collect::<Vec<_>>();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.extend(first_word(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

/// What is wrong with the imports of a file of module `module`.
fn complaints(module: &str, source: &str) -> Vec<String> {
    let Some(own) = floor(module) else {
        return vec![format!("`{module}` has no floor")];
    };
    imports(source)
        .into_iter()
        .filter(|to| floor(to).is_some_and(|to| to > own) || forbidden(module, to))
        .map(|to| format!("`{module}` names `{to}`"))
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("a readable folder").path())
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else if path.extension().is_some_and(|e| e == "rs") {
                vec![path]
            } else {
                Vec::new()
            }
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(".")
}

#[test]
fn no_import_goes_up() {
    let src = root().join("src");
    let mut wrong = Vec::new();
    for path in rust_files(&src) {
        let inside = path.strip_prefix(&src).expect("below src");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        if first == "lib.rs" || first == "bin" {
            continue;
        }
        let module = first.trim_end_matches(".rs");
        let source = std::fs::read_to_string(&path).expect("a readable file");
        for complaint in complaints(module, &source) {
            wrong.push(format!("{}: {complaint}", inside.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page never sees a tensor; the worker never sees the page.
#[test]
fn the_page_stays_away_from_the_engine() {
    let web = root().join("web");
    let worker = std::fs::read_to_string(web.join("worker.rs")).expect("web/worker.rs");
    let mut of_worker = vec!["worker".to_owned()];
    of_worker.extend(worker.lines().filter_map(|line| {
        let name = line.trim_start_matches("pub ").strip_prefix("mod ")?;
        Some(name.strip_suffix(';')?.to_owned())
    }));
    let mut wrong = Vec::new();
    for path in rust_files(&web) {
        let inside = path.strip_prefix(&web).expect("below web");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let worker = of_worker.contains(&first.trim_end_matches(".rs").to_owned());
        let source = std::fs::read_to_string(&path).expect("a readable file");
        for to in imports(&source) {
            let bad = if worker {
                to == "leptos" || to == "chat"
            } else {
                matches!(to.as_str(), "burn" | "cubecl" | "burn_cubecl")
                    || floor(&to).is_some_and(|floor| floor >= 4)
            };
            if bad {
                wrong.push(format!("web/{} names `{to}`", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_upward_import_is_noticed() {
    let up = "use crate::{fault::Fault, engine::{Engine, limits}};\nuse crate::nn::Linear;";
    assert_eq!(complaints("nn", up), ["`nn` names `engine`"]);
    assert_eq!(complaints("train", up), Vec::<String>::new());
    assert_eq!(
        complaints("kernel", "fn f() { crate::model::upn::go() }"),
        ["`kernel` names `model`"]
    );
    assert_eq!(
        complaints("text", "use burn::tensor::Tensor;"),
        ["`text` names `burn`"]
    );
    assert_eq!(
        complaints("weights", "use crate::protocol::Event;"),
        ["`weights` names `protocol`"]
    );
    assert_eq!(
        complaints("nn", "// use crate::engine::Engine;"),
        Vec::<String>::new()
    );
    assert_eq!(complaints("attic", ""), ["`attic` has no floor"]);
}
