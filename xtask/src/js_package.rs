//! `cargo xtask dist --js`: the JavaScript module as an npm package.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::files::{copy_file, copy_folder, empty, files};
use crate::paths;

/// Files of the site that are part of the package: the worker and what it imports, and the custom element.
const SITE_FILES: [&str; 6] = [
    "chat-rex.js",
    "worker.js",
    "worker_bg.wasm",
    "worker_start.js",
    "subgroups.js",
    "timestamp_query.js",
];

/// Writes the package to `folder`, in place of what is there: the files of `web/js` and the worker.
///
/// # Errors
/// When a file is missing or a script imports a file that is not in the package.
pub fn write(folder: &Path) -> Result<()> {
    empty(folder)?;
    copy_folder(&paths::root().join("web/js"), folder)?;
    for file in SITE_FILES {
        copy_file(&paths::site().join(file), &folder.join(file))?;
    }
    for file in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copy_file(&paths::root().join(file), &folder.join(file))?;
    }
    let manifest = folder.join("package.json");
    let text = fs::read_to_string(&manifest).context("web/js/package.json")?;
    let text = with_version(&text, env!("CARGO_PKG_VERSION")).context("web/js/package.json")?;
    fs::write(&manifest, text).with_context(|| manifest.display().to_string())?;
    for file in files(folder)?.iter().filter(|file| file.ends_with(".js")) {
        let script = fs::read_to_string(folder.join(file)).with_context(|| file.clone())?;
        for import in local_imports(&script) {
            ensure!(
                folder.join(file).with_file_name(import).is_file(),
                "{file} imports {import}, which is not in the package"
            );
        }
    }
    Ok(())
}

/// The text of a `package.json` with this version.
fn with_version(text: &str, version: &str) -> Result<String> {
    let mut manifest: Value = serde_json::from_str(text)?;
    ensure!(manifest.is_object(), "is not an object");
    manifest["version"] = version.into();
    Ok(serde_json::to_string_pretty(&manifest)? + "\n")
}

/// The modules `./NAME` that a script names in quotes after `from`, `import`, `import(` or `URL(`. The
/// folder `./` of the script is no module.
fn local_imports(script: &str) -> Vec<&str> {
    let starts = ["from \"./", "import \"./", "import(\"./", "URL(\"./"];
    let named = |start: &'static str| {
        let parts = script.split(start).skip(1);
        let names = parts.filter_map(|rest| rest.split('"').next());
        names.filter(|name| !name.is_empty())
    };
    starts.into_iter().flat_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_gets_the_version_of_the_workspace() {
        let text = with_version(r#"{"name": "chatrex", "version": "0"}"#, "1.2.3").unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest["version"], "1.2.3");
        assert_eq!(manifest["name"], "chatrex");
        assert!(with_version("[]", "1.2.3").is_err());
    }

    #[test]
    fn the_module_starts_a_worker_of_the_package() {
        let folder = paths::root().join("web/js");
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let manifest: Value = serde_json::from_str(&read("package.json")).unwrap();
        for key in ["main", "types"] {
            let file = manifest[key].as_str().unwrap();
            assert!(folder.join(file).is_file(), "{key}: {file}");
        }
        let module = read("chatrex.js");
        let imports = local_imports(&module);
        assert_eq!(imports, ["worker_start.js"]);
        assert!(imports.iter().all(|file| SITE_FILES.contains(file)));
    }

    #[test]
    fn imports_of_local_modules_are_found() {
        let script = "import init from \"./a.js\";\nimport \"./b.js\";\nimport x from \"c\";\n\
            await import(\"./d.js\"); new Worker(new URL(\"./e.js\", import.meta.url));\n\
            const folder = new URL(\"./\", import.meta.url);";
        assert_eq!(local_imports(script), ["a.js", "b.js", "d.js", "e.js"]);
    }
}
