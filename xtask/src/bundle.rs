//! Builds WebAssembly programs, and the site that `index.html` describes with `data-trunk` links.
//!
//! Trunk reads the same file. It is not used here because its 500 dependencies take minutes to
//! compile.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use wasm_bindgen_cli_support::{Bindgen, Output};

use crate::files;
use crate::paths;
use crate::process::run;
use crate::setup::WasmCompiler;
use crate::times;

/// Suffix of exports that the linker wraps: every call of one runs all constructors again.
const COMMAND_EXPORT: &str = ".command_export";

/// A binary target of this package for browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its Cargo features, separated by commas.
    pub features: String,
}

impl Program {
    /// The worker of the browser tests and benchmarks. It is not in `index.html`.
    pub fn dev_worker() -> Self {
        Self {
            name: "worker_dev".into(),
            features: "worker,diagnostics".into(),
        }
    }

    /// The profile that it is compiled with.
    fn profile(&self) -> &'static str {
        if self.name == "page" { "page" } else { "web" }
    }

    /// Cargo arguments that select this program.
    pub fn arguments(&self) -> [&str; 10] {
        [
            "--target=wasm32-unknown-unknown",
            "--profile",
            self.profile(),
            "--locked",
            "--no-default-features",
            "--features",
            &self.features,
            "--bin",
            &self.name,
            "--package=chatrex",
        ]
    }

    /// Compiles the program and writes `NAME.js` and `NAME_bg.wasm` to `folder`.
    ///
    /// # Errors
    /// When it does not compile or the linker wrapped its exports.
    pub fn build(&self, compiler: &WasmCompiler, folder: &Path) -> Result<()> {
        times::step(&format!("build {}", self.name), || {
            run(compiler.cargo().arg("build").args(self.arguments()))
        })?;
        times::step(&format!("bindings of {}", self.name), || {
            let profile = self.profile();
            let file = format!("wasm32-unknown-unknown/{profile}/{}.wasm", self.name);
            let file = paths::target().join(file);
            let wasm = fs::read(&file).with_context(|| file.display().to_string())?;
            bindings(&self.name, wasm)?.emit(folder)
        })
    }
}

/// Generates the JavaScript of a compiled program and removes its `name` section, which is longer
/// than the code and only debuggers read.
fn bindings(name: &str, wasm: Vec<u8>) -> Result<Output> {
    let output = Bindgen::new()
        .input_bytes(name, wasm)
        .web(true)?
        .typescript(false)
        .omit_default_module_path(false)
        .remove_name_section(true)
        .generate_output()?;
    for function in output.wasm().funcs.iter() {
        ensure!(
            !function
                .name
                .as_ref()
                .is_some_and(|name| name.ends_with(COMMAND_EXPORT)),
            "{name}: the linker wrapped its exports so that every call runs all constructors \
             again. Call `__wasm_call_ctors` in its start function"
        );
    }
    Ok(output)
}

/// What `index.html` asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The document without `data-trunk` links.
    pub html: String,
    /// Programs, in order.
    pub programs: Vec<Program>,
    /// Folders to copy: from (below the root), to (below the site).
    pub folders: Vec<(String, String)>,
}

impl Page {
    /// Reads `index.html`.
    ///
    /// # Errors
    /// When the file is missing or has a link that this program does not know.
    pub fn open() -> Result<Self> {
        let html = fs::read_to_string(paths::root().join("index.html")).context("index.html")?;
        Self::parse(&html).context("index.html")
    }

    fn parse(html: &str) -> Result<Self> {
        let mut page = Self {
            html: String::new(),
            programs: Vec::new(),
            folders: Vec::new(),
        };
        for line in html.lines() {
            let tag = line.trim();
            if !tag.contains("data-trunk") {
                page.html.push_str(line);
                page.html.push('\n');
                continue;
            }
            ensure!(
                tag.starts_with("<link data-trunk ") && tag.find('>') == Some(tag.len() - 1),
                "{tag}: a data-trunk link needs a line of its own"
            );
            let value = |name| attribute(tag, name).with_context(|| format!("{tag}: no {name}"));
            match value("rel")? {
                "rust" => page.programs.push(Program {
                    name: value("data-bin")?.into(),
                    features: value("data-cargo-features")?.into(),
                }),
                "copy-dir" => {
                    let to = value("data-target-path")?.into();
                    page.folders.push((value("href")?.into(), to));
                }
                other => bail!("{tag}: {other:?} is neither rust nor copy-dir"),
            }
        }
        Ok(page)
    }

    /// Builds the site into `folder`, which must be empty.
    ///
    /// # Errors
    /// When a program does not compile or a file cannot be copied.
    pub fn build(&self, compiler: &WasmCompiler, folder: &Path) -> Result<()> {
        for program in &self.programs {
            program.build(compiler, folder)?;
        }
        for (from, to) in &self.folders {
            files::copy_folder(&paths::root().join(from), &folder.join(to))?;
        }
        fs::write(folder.join("index.html"), &self.html).context("index.html")
    }
}

/// The value of the attribute `name` in an HTML tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = format!(" {name}=\"");
    let (_, rest) = tag.split_once(&start)?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_programs_and_folders() {
        let html = "<head>\n  <link rel=\"icon\" href=\"icon.svg\">\n  \
            <link data-trunk rel=\"copy-dir\" href=\"a/b\" data-target-path=\"c\">\n  \
            <link data-trunk rel=\"rust\" href=\"Cargo.toml\" data-bin=\"p\" data-cargo-features=\"f,g\">\n\
            </head>\n";
        let page = Page::parse(html).unwrap();
        assert_eq!(
            page.html,
            "<head>\n  <link rel=\"icon\" href=\"icon.svg\">\n</head>\n"
        );
        assert_eq!(page.folders, [("a/b".into(), "c".into())]);
        let [program] = &*page.programs else {
            panic!("{page:?}");
        };
        assert_eq!((&*program.name, &*program.features), ("p", "f,g"));
    }

    #[test]
    fn other_links_are_errors() {
        for line in [
            "<link data-trunk rel=\"css\" href=\"a.css\">",
            "<link data-trunk rel=\"copy-dir\" href=\"a\">",
            "<link data-trunk rel=\"rust\" data-bin=\"a\">",
            "<link data-trunk rel=\"copy-dir\" href=\"a\" data-target-path=\".\"><p>",
            "<script data-trunk src=\"a.js\"></script>",
        ] {
            assert!(Page::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_page_of_this_project_names_page_and_worker() {
        let page = Page::open().unwrap();
        let names: Vec<&str> = page.programs.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["page", "worker"]);
        for (folder, _) in &page.folders {
            assert!(paths::root().join(folder).is_dir(), "{folder}");
        }
        assert!(!page.html.contains("data-trunk"));
    }

    /// A module that exports one empty function, whose name is in the `name` section.
    fn module(function: &[u8]) -> Vec<u8> {
        let length = u8::try_from(function.len()).unwrap();
        let head = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x05\x01\x01f\0\0\x0a\x04\x01\x02\0\x0b";
        let names = [b"\0", &[length + 10][..], b"\x04name\x01", &[length + 3]];
        [head, &names.concat()[..], b"\x01\0", &[length], function].concat()
    }

    #[test]
    fn the_name_section_is_removed() {
        let wasm = module(b"receive");
        assert!(wasm.windows(5).any(|bytes| bytes == b"\x04name"));
        let mut output = bindings("small", wasm).unwrap();
        let wasm = output.wasm_mut().emit_wasm();
        assert!(wasm.starts_with(b"\0asm"));
        assert!(!wasm.windows(5).any(|bytes| bytes == b"\x04name"));
    }

    #[test]
    fn wrapped_exports_are_an_error() {
        let error = bindings("small", module(b"receive.command_export"));
        let error = error.err().unwrap().to_string();
        assert!(error.contains("__wasm_call_ctors"), "{error}");
    }

    /// Bindings of another version refuse the program.
    #[test]
    fn bindings_and_library_have_the_same_version() {
        let lock = fs::read_to_string(paths::root().join("Cargo.lock")).unwrap();
        let version = |package| locked_version(&lock, package).unwrap();
        assert_eq!(version("wasm-bindgen"), version("wasm-bindgen-cli-support"));
    }

    #[test]
    fn a_version_is_read_from_the_lock_file() {
        let lock = "[[package]]\nname = \"wasm-bindgen-macro\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\n";
        assert_eq!(locked_version(lock, "wasm-bindgen"), Some("0.2.130"));
        assert_eq!(locked_version(lock, "wasm"), None);
    }

    /// The version of `package` in the text of a `Cargo.lock`.
    fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
        let name = format!("name = \"{package}\"");
        let mut lines = lock.lines().skip_while(|line| *line != name);
        lines
            .nth(1)?
            .strip_prefix("version = \"")?
            .strip_suffix('"')
    }
}
