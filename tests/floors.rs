//! Imports follow the table of floors in `ARCHITECTURE.md`, and files of one folder do not import each
//! other in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates that floors may be denied.
const CRATES: [&str; 4] = ["burn", "cubecl", "burn_cubecl", "leptos"];

/// The table of floors.
#[derive(Debug)]
struct Floors {
    /// The floor of each module, counted from the lowest.
    floor: BTreeMap<String, usize>,
    /// Pairs of a module and what it must not import.
    denied: BTreeSet<(String, String)>,
    /// Modules that may import nothing of this crate but these.
    only: BTreeMap<String, BTreeSet<String>>,
}

impl Floors {
    fn of_repository() -> Self {
        let text = std::fs::read_to_string("ARCHITECTURE.md").expect("ARCHITECTURE.md");
        Self::parse(&text)
    }

    /// Reads the rows below the header `| floor | modules | must not import |`. The last column holds
    /// clauses separated by `;`: names denied to the whole floor, `module: names` denied to one module,
    /// or `anything but names`.
    fn parse(text: &str) -> Self {
        let rows = text
            .lines()
            .skip_while(|line| !line.starts_with("| floor | modules | must not import |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let mut floors = Self {
            floor: BTreeMap::new(),
            denied: BTreeSet::new(),
            only: BTreeMap::new(),
        };
        for (level, row) in rows.enumerate() {
            let columns: Vec<&str> = row.split('|').collect();
            let modules = names(columns[2]);
            for module in &modules {
                let earlier = floors.floor.insert(module.clone(), level);
                assert_eq!(earlier, None, "`{module}` has two floors");
            }
            for clause in columns[3].split(';').map(str::trim) {
                let (to_whom, what) = match clause.split_once(':') {
                    Some((module, what)) => (names(module), what),
                    None => (modules.clone(), clause),
                };
                for module in to_whom {
                    if let Some(allowed) = what.strip_prefix("anything but") {
                        floors
                            .only
                            .insert(module, names(allowed).into_iter().collect());
                        continue;
                    }
                    let pairs = names(what).into_iter().map(|to| (module.clone(), to));
                    floors.denied.extend(pairs);
                }
            }
        }
        assert!(
            floors.floor.len() > 10,
            "the table of floors in ARCHITECTURE.md"
        );
        floors
    }

    /// The wrong imports of a file of `module`.
    fn wrong_imports(&self, module: &str, source: &str) -> Vec<String> {
        let Some(&own) = self.floor.get(module) else {
            return vec![format!("`{module}` has no floor")];
        };
        imports(source)
            .into_iter()
            .filter(|to| self.is_wrong(module, own, to))
            .map(|to| format!("`{module}` imports `{to}`"))
            .collect()
    }

    fn is_wrong(&self, module: &str, own: usize, to: &str) -> bool {
        let denied = |name: &str| self.denied.contains(&(module.to_owned(), name.to_owned()));
        if CRATES.contains(&to) {
            return to == "leptos" || denied("burn");
        }
        let Some(&floor) = self.floor.get(to) else {
            return false;
        };
        let allowed = self.only.get(module);
        floor > own || denied(to) || allowed.is_some_and(|only| to != module && !only.contains(to))
    }
}

/// The names in backticks, and the bare word `burn`.
fn names(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let bare: String = text.split('`').step_by(2).collect();
    if bare
        .split(|c: char| !c.is_alphanumeric())
        .any(|word| word == "burn")
    {
        found.push("burn".to_owned());
    }
    found
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
        if CRATES.contains(&word.as_str()) {
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

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn no_import_goes_up() {
    let floors = Floors::of_repository();
    let src = Path::new("src");
    let mut wrong = Vec::new();
    for path in rust_files(src) {
        let inside = path.strip_prefix(src).expect("below src");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        if first == "lib.rs" || first == "bin" {
            continue;
        }
        let module = first.trim_end_matches(".rs");
        for import in floors.wrong_imports(module, &read(&path)) {
            wrong.push(format!("{}: {import}", inside.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page never sees a tensor; the workers never see the page.
#[test]
fn page_and_workers_stay_apart() {
    let floors = Floors::of_repository();
    let weights = floors.floor["weights"];
    let mut wrong = Vec::new();
    for (folder, is_page) in [
        ("web/page", true),
        ("web/worker", false),
        ("web/worker_dev", false),
    ] {
        let files = rust_files(Path::new(folder));
        assert!(!files.is_empty(), "{folder}");
        for path in files {
            for to in imports(&read(&path)) {
                let bad = if is_page {
                    (to != "leptos" && CRATES.contains(&to.as_str()))
                        || floors.floor.get(&to).is_some_and(|&floor| floor >= weights)
                } else {
                    to == "leptos" || to == "chat"
                };
                if bad {
                    wrong.push(format!("{} imports `{to}`", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// For every file of a folder the files of that folder that its `use` lines name; `mod` for names of
/// the folder's own module. Tests and re-exports do not count.
fn neighbours(
    folder: &str,
    files: &BTreeMap<String, String>,
) -> BTreeMap<String, BTreeSet<String>> {
    let absolute = match folder {
        "" => "crate::".to_owned(),
        folder => format!("crate::{}::", folder.replace('/', "::")),
    };
    let mut edges = BTreeMap::new();
    for (own, source) in files {
        let relative = if own == "mod" { "self::" } else { "super::" };
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.split("#[cfg(all(test").next().unwrap_or_default();
        let lines: Vec<&str> = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let code = lines.join(" ");
        let mut found = BTreeSet::new();
        for (at, _) in code.match_indices("use ") {
            let before = code[..at].trim_end();
            if before.ends_with("pub") || before.ends_with(')') {
                continue;
            }
            let path = code[at + 4..]
                .split(';')
                .next()
                .unwrap_or_default()
                .trim_start();
            let path = path.strip_prefix(relative).or(path.strip_prefix(&absolute));
            let heads = match path.map(|path| (path, path.strip_prefix('{'))) {
                Some((_, Some(group))) => group_heads(group),
                Some((path, None)) => first_word(path).into_iter().collect(),
                None => Vec::new(),
            };
            for head in heads {
                if files.contains_key(&head) {
                    found.insert(head);
                } else if own != "mod" {
                    found.insert("mod".to_owned());
                }
            }
        }
        found.remove(own);
        edges.insert(own.clone(), found);
    }
    edges
}

/// The files that reach themselves by `edges`.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reaches_itself = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![start];
        while let Some(file) = next.pop() {
            for to in edges.get(file).into_iter().flatten() {
                if to == start {
                    return true;
                }
                if seen.insert(to) {
                    next.push(to);
                }
            }
        }
        false
    };
    edges
        .keys()
        .filter(|file| reaches_itself(file))
        .cloned()
        .collect()
}

#[test]
fn files_of_a_folder_form_no_circle() {
    let mut wrong = Vec::new();
    for root in [
        "src",
        "web/page",
        "web/worker",
        "web/worker_dev",
        "xtask/src",
    ] {
        let mut folders: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for path in rust_files(Path::new(root)) {
            let inside = path.strip_prefix(root).expect("below the root");
            let folder = inside.parent().expect("a folder").to_string_lossy();
            let name = inside.file_stem().expect("a name").to_string_lossy();
            let files = folders.entry(folder.replace('\\', "/")).or_default();
            files.insert(name.into_owned(), read(&path));
        }
        for (folder, files) in &folders {
            let found = circles(&neighbours(folder, files));
            if !found.is_empty() {
                wrong.push(format!("{root}/{folder}: {}", found.join(", ")));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "files that import each other:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_circle_is_noticed() {
    let files = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, text)| ((*name).into(), (*text).into()))
            .collect()
    };
    let circle = files(&[
        ("mod", "pub use self::a::A;"),
        ("a", "use super::b::B;"),
        ("b", "use crate::room::a::{A, C};"),
    ]);
    assert_eq!(circles(&neighbours("room", &circle)), ["a", "b"]);
    let line = files(&[
        ("mod", "use self::a::A;"),
        ("a", "use super::b::B;"),
        ("b", "// use super::a::A;\n#[cfg(test)]\nuse super::a::A;"),
    ]);
    assert_eq!(circles(&neighbours("room", &line)), Vec::<String>::new());
    let parent = files(&[("mod", "use self::a::A;"), ("a", "use super::Host;")]);
    assert_eq!(circles(&neighbours("room", &parent)), ["a", "mod"]);
}

#[test]
fn an_upward_import_is_noticed() {
    let floors = Floors::of_repository();
    let up = "use crate::{error::Fault, engine::{Engine, limits}};\nuse crate::nn::Linear;";
    assert_eq!(floors.wrong_imports("nn", up), ["`nn` imports `engine`"]);
    assert_eq!(floors.wrong_imports("train", up), Vec::<String>::new());
    assert_eq!(
        floors.wrong_imports("gpu", "fn f() { crate::model::upn::go() }"),
        ["`gpu` imports `model`"]
    );
    assert_eq!(
        floors.wrong_imports("text", "use burn::tensor::Tensor;"),
        ["`text` imports `burn`"]
    );
    assert_eq!(
        floors.wrong_imports("weights", "use crate::protocol::Event;"),
        ["`weights` imports `protocol`"]
    );
    assert_eq!(
        floors.wrong_imports("eval", "use crate::train::Stage;"),
        ["`eval` imports `train`"]
    );
    assert_eq!(
        floors.wrong_imports("engine", "use crate::chat::overlay::Overlay;"),
        ["`engine` imports `chat`"]
    );
    assert_eq!(
        floors.wrong_imports("nn", "// use crate::engine::Engine;"),
        Vec::<String>::new()
    );
    assert_eq!(floors.wrong_imports("attic", ""), ["`attic` has no floor"]);
}
