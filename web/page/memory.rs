//! Short texts that the browser keeps: `localStorage` between visits, `sessionStorage` for a tab. Where
//! the browser refuses, and in a frame that forgets, nothing is kept.

use chatrex::chat::engine_choice::Records;
use web_sys::Storage;

use crate::embed;

const SETTINGS: &str = "chatrex.settings";
const CURRENT: &str = "chatrex.current";
const PENDING: &str = "chatrex.pending";
const ENGINES: &str = "chatrex.engines";
const NOTE_READ: &str = "chatrex-device-note-read";
const INSTALL_OFFERED: &str = "chatrex.install-offered";

fn local() -> Option<Storage> {
    let storage = web_sys::window()?.local_storage().ok()?;
    storage.filter(|_| !embed::options().forgets())
}

fn session() -> Option<Storage> {
    let storage = web_sys::window()?.session_storage().ok()?;
    storage.filter(|_| !embed::options().forgets())
}

/// The settings as they were written; `None` at the first visit.
pub fn settings() -> Option<String> {
    local()?.get_item(SETTINGS).ok()?
}

/// Keeps the settings.
pub fn keep_settings(json: &str) {
    if let Some(storage) = local() {
        // Where it is refused, the next visit begins with the defaults.
        let _ = storage.set_item(SETTINGS, json);
    }
}

/// The conversation that this tab showed last, in a new tab the one that any tab showed last: empty for
/// none, `None` where nothing is known.
pub fn current() -> Option<String> {
    let of = |storage: Storage| storage.get_item(CURRENT).ok()?;
    session().and_then(of).or_else(|| local().and_then(of))
}

/// Keeps the conversation that this tab shows.
pub fn keep_current(id: &str) {
    for storage in [session(), local()].into_iter().flatten() {
        // Where it is refused, a reload shows the newest conversation.
        let _ = storage.set_item(CURRENT, id);
    }
}

/// Takes what the page could not store before it was left.
pub fn take_pending() -> Option<String> {
    let storage = session()?;
    let pending = storage.get_item(PENDING).ok()??;
    let _ = storage.remove_item(PENDING);
    Some(pending)
}

/// Keeps for the next page of this tab what is not stored yet.
pub fn keep_pending(json: &str) {
    if let Some(storage) = session() {
        // Where it is refused, the change of the last moment is lost.
        let _ = storage.set_item(PENDING, json);
    }
}

/// What was seen in an earlier visit, and is not shown again.
#[derive(Clone, Copy)]
pub enum Seen {
    /// The note about a slow device.
    SlowNote,
    /// The offer to install the page.
    Install,
}

impl Seen {
    fn entry(self) -> &'static str {
        match self {
            Self::SlowNote => NOTE_READ,
            Self::Install => INSTALL_OFFERED,
        }
    }
}

/// Whether it was seen.
pub fn is_seen(seen: Seen) -> bool {
    let entry = local().and_then(|storage| storage.get_item(seen.entry()).ok().flatten());
    entry.is_some()
}

/// Remembers that it was seen.
pub fn keep_seen(seen: Seen) {
    if let Some(storage) = local() {
        // A refusal only shows it again at the next visit.
        let _ = storage.set_item(seen.entry(), "1");
    }
}

/// The engines that were measured on software adapters.
pub fn engines() -> Records {
    let stored = || local()?.get_item(ENGINES).ok()?;
    let json = stored().unwrap_or_default();
    serde_json::from_str(&json).unwrap_or_default()
}

/// Remembers measured engines.
pub fn keep_engines(records: &Records) {
    if let (Some(storage), Ok(json)) = (local(), serde_json::to_string(records)) {
        // Where it is refused, the next visit measures again.
        let _ = storage.set_item(ENGINES, &json);
    }
}
