//! Where things are kept.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the clone.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies one folder below the root")
}

/// Where cargo builds: `CARGO_TARGET_DIR`, else the cache, so that clones share dependencies.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), PathBuf::from)
}

/// Where Trunk and wasm-bindgen are installed: `CHATREX_TOOLS`, else the cache.
pub fn tools() -> PathBuf {
    env::var_os("CHATREX_TOOLS").map_or_else(|| cache().join("tools"), PathBuf::from)
}

/// Where the last build of the page lies, ready to be served.
pub fn site() -> PathBuf {
    target().join("site")
}

/// This user's cache for this project.
fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .or_else(|| env::var_os("LOCALAPPDATA"))
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(env::temp_dir).join("chatrex")
}

/// The first file called `name` in `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(format!("{name}{}", env::consts::EXE_SUFFIX)))
        .find(|file| file.is_file())
}
