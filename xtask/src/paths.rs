//! Paths of the repository and of the cache.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The root of the repository. The environment comes first: clones that share a target folder may
/// run each other's program.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package.parent();
        root.expect("xtask is one folder below the root").into()
    })
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or the cache, so that clones share dependencies.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), PathBuf::from)
}

/// Python packages: `CHATREX_TOOLS`, or the cache.
pub fn tools() -> PathBuf {
    env::var_os("CHATREX_TOOLS").map_or_else(|| cache().join("tools"), PathBuf::from)
}

/// Model folders that are made on this machine, and the packages that they are made of.
pub fn models() -> PathBuf {
    target().join("models")
}

/// The last build of the site, as visitors get it.
pub fn site() -> PathBuf {
    target().join("site")
}

/// A copy of the site with the diagnostics worker beside it.
pub fn test_site() -> PathBuf {
    target().join("test-site")
}

/// The user's cache folder for this project.
fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .or_else(|| env::var_os("LOCALAPPDATA"))
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(env::temp_dir).join("chatrex")
}

/// Finds the program `name` in `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(format!("{name}{}", env::consts::EXE_SUFFIX)))
        .find(|file| file.is_file())
}
