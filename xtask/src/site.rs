//! Builds the site, a folder of static files, and what is published from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::bundle::{Page, Program};
use crate::compress;
use crate::files::{copy_file, empty, files, hex, remove, replace};
use crate::js_package;
use crate::models;
use crate::paths;
use crate::setup::WasmCompiler;
use crate::times;

/// Files that are for the host or the browser: the page never fetches them.
const NOT_OFFLINE: [&str; 4] = ["_headers", "chat-rex.js", "embed.json", "service_worker.js"];

/// The default model of the page, the first of `SHIPPED` in `src/built_in.rs`. Of the folder `models`
/// only this one is stored for use without a network.
const DEFAULT_MODEL: &str = "mini";

/// Files in `tests/browser` of the page that uses the JavaScript module.
const MODULE_PAGE: [&str; 2] = ["module.html", "module.js"];

/// Sets up what is missing and builds [`paths::site`]: page and worker, nothing for developers.
///
/// # Errors
/// When something cannot be set up or does not compile.
pub fn build() -> Result<WasmCompiler> {
    let compiler = WasmCompiler::ready()?;
    let folder = paths::target().join("site.new");
    empty(&folder)?;
    Page::open()?.build(&compiler, &folder)?;
    models::offer(&folder)?;
    times::step("service worker", || write_service_worker(&folder))?;
    let site = paths::site();
    remove(&site)?;
    fs::rename(&folder, &site).with_context(|| site.display().to_string())?;
    Ok(compiler)
}

/// Builds [`paths::test_site`]: a copy of the site with the diagnostics worker, `worker_dev.js`, the
/// scripts of `web/worker_dev`, the JavaScript module in `js` and the page that uses it. After an error
/// there is no test site, so that nothing is tested on half of one.
///
/// # Errors
/// When something cannot be set up or does not compile.
pub fn build_for_tests() -> Result<()> {
    let test_site = paths::test_site();
    remove(&test_site)?;
    let compiler = build()?;
    let folder = paths::target().join("test-site.new");
    replace(&paths::site(), &folder)?;
    Program::dev_worker().build(&compiler, &folder)?;
    let source = paths::root().join("web/worker_dev");
    for file in files(&source)?.iter().filter(|file| file.ends_with(".js")) {
        copy_file(&source.join(file), &folder.join(file))?;
    }
    js_package::write(&folder.join("js"))?;
    let source = paths::root().join("tests/browser");
    for file in MODULE_PAGE {
        copy_file(&source.join(file), &folder.join(file))?;
    }
    fs::rename(&folder, &test_site).with_context(|| test_site.display().to_string())
}

/// `cargo xtask dist`: builds, copies the site to `out` with compressed copies beside its files, and the
/// JavaScript module to `js`.
///
/// # Errors
/// When the build fails, a folder holds other files, or page or engine exceed their limits.
pub fn dist(out: Option<&Path>, js: Option<&Path>) -> Result<bool> {
    for (folder, mark) in [(out, "service_worker.js"), (js, "package.json")] {
        if let Some(folder) = folder {
            check_folder(folder, mark)?;
        }
    }
    build()?;
    if let Some(out) = out {
        let bytes = replace(&paths::site(), out)?;
        println!("{}: {:.1} MB", out.display(), bytes as f64 / 1e6);
        times::step("compress", || compress::site(out))?;
    }
    if let Some(js) = js {
        js_package::write(js)?;
        println!("{}", js.display());
    }
    Ok(true)
}

/// Refuses to replace a folder that no earlier call wrote: one that is not empty and lacks `mark`.
fn check_folder(folder: &Path, mark: &str) -> Result<()> {
    ensure!(
        !folder.exists() || folder.join(mark).is_file() || fs::read_dir(folder)?.next().is_none(),
        "{}: holds other files. Name a new folder",
        folder.display()
    );
    Ok(())
}

/// Whether a file of the site is stored for use without a network.
fn is_offline(path: &str) -> bool {
    let model = path
        .strip_prefix("models/")
        .and_then(|p| p.split('/').next());
    !NOT_OFFLINE.contains(&path) && model.is_none_or(|model| model == DEFAULT_MODEL)
}

/// Puts the SHA-256 of every file of the site that is stored for use without a network in front of the service worker's template.
fn write_service_worker(site: &Path) -> Result<()> {
    let mut hashes = BTreeMap::new();
    for path in files(site)? {
        if is_offline(&path) {
            let bytes = fs::read(site.join(&path)).with_context(|| path.clone())?;
            hashes.insert(path, hex(&bytes));
        }
    }
    let list = serde_json::to_string(&hashes)?;
    let file = site.join("service_worker.js");
    let template = fs::read_to_string(&file).context("service_worker.js")?;
    let version = hex(list.as_bytes());
    fs::write(
        file,
        format!("const FILES = {list};\nconst VERSION = \"{version}\";\n{template}"),
    )
    .context("service_worker.js")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_its_default_model_work_offline() {
        let code = fs::read_to_string(paths::root().join("src/built_in.rs")).unwrap();
        let (_, shipped) = code.split_once("SHIPPED: &[Self] = &[Self::").unwrap();
        let first = shipped.split([',', ']']).next().unwrap();
        assert_eq!(first.to_lowercase(), DEFAULT_MODEL);
        assert!(is_offline(&format!("models/{DEFAULT_MODEL}/model.json")));
        assert!(is_offline("page_bg.wasm") && is_offline(models::OFFERED));
        assert!(!is_offline("models/other/model.json"));
        assert!(NOT_OFFLINE.iter().all(|file| !is_offline(file)));
    }

    #[test]
    fn a_folder_with_other_files_is_not_replaced() {
        let folder = std::env::temp_dir().join(format!("chatrex-site-{}", std::process::id()));
        empty(&folder).unwrap();
        assert!(check_folder(&folder, "mark").is_ok());
        fs::write(folder.join("other"), "").unwrap();
        assert!(check_folder(&folder, "mark").is_err());
        fs::write(folder.join("mark"), "").unwrap();
        assert!(check_folder(&folder, "mark").is_ok());
        remove(&folder).unwrap();
        assert!(check_folder(&folder, "mark").is_ok());
    }
}
