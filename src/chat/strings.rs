//! The words of the model manager, all in one place.

use crate::chat::model_manager::{Item, Status};
use crate::memory::{Fit, Verdict};
use crate::progress::{Progress, Stage};

/// The model beside the page.
pub const DEMO: &str = "nano";
/// What it is.
pub const DEMO_WHAT: &str =
    "The small demo model, part of this page. It finds common things and answers briefly.";
/// Heading of the manager.
pub const TITLE: &str = "Models";
/// Closes the manager.
pub const CLOSE: &str = "Close";
/// Label of the field for an address.
pub const ADDRESS: &str = "Address of a model folder, or a hub's owner/name";
/// Heading over the ways to get a model.
pub const ADD: &str = "Add a model";
/// Reads the manifest at the address.
pub const LOOK: &str = "Look";
/// Opens the picker for a folder.
pub const FOLDER: &str = "Choose a folder";
/// Opens the picker for files.
pub const FILES: &str = "Choose files";
/// Between address and files.
pub const OR: &str = "or use files you have:";
/// While a manifest is read.
pub const LOOKING: &str = "Reading the manifest…";
/// Beside the box that must be ticked.
pub const ACCEPT: &str = "I have read the licence and accept it";
/// Brings a model here from an address.
pub const DOWNLOAD: &str = "Download";
/// Brings a model here from files.
pub const IMPORT: &str = "Import";
/// Puts a survey away.
pub const NOT_NOW: &str = "Not now";
/// Buttons of a model.
pub const PAUSE: &str = "Pause";
/// Goes on.
pub const RESUME: &str = "Resume";
/// Gives up.
pub const CANCEL: &str = "Cancel";
/// Gives a model to the engine.
pub const LOAD: &str = "Load";
/// Takes it from there.
pub const UNLOAD: &str = "Unload";
/// Removes it.
pub const DELETE: &str = "Delete";
/// Takes a question back.
pub const BACK: &str = "Back";
/// Keeps the part that came.
pub const KEEP_PART: &str = "Keep what came";
/// Removes the part that came.
pub const DELETE_PART: &str = "Delete what came";
/// Asks again whether the other tab is done.
pub const AGAIN: &str = "Try again";
/// Shown when the browser gave no promise.
pub const VOLATILE: &str = "The browser did not promise to keep this model. It may be removed when \
                            the disk runs low";
/// And in Safari.
pub const VOLATILE_SAFARI: &str = " or after 7 days without a visit";
/// While a worker that stopped is replaced.
pub const RESTARTING: &str = "The model stopped. Picture and chat are safe. Restoring…";
/// While a worker starts again for its device was lost.
pub const RESTORING: &str = "The graphics device was reset (driver, sleep or memory). Restoring…";
/// Once it has.
pub const RESTORED: &str = "Restored.";
/// Puts the lost question again.
pub const ASK_AGAIN: &str = "Ask again";
/// Where a model does not fit.
pub const USE_SMALLER: &str = "Use the smaller model";

/// The question before a model is deleted.
pub fn delete(name: &str, bytes: u64) -> String {
    format!("Delete {name} ({})? This cannot be undone.", size(bytes))
}

/// The question before a download ends.
pub fn cancel(done: u64) -> String {
    format!("{} is here already.", size(done))
}

/// What this page stores.
pub fn used(bytes: u64) -> String {
    if bytes == 0 {
        return "Nothing stored yet".to_owned();
    }
    format!("Used by this page: {}", size(bytes))
}

/// A model that does not fit the graphics memory.
pub fn too_large(name: &str) -> String {
    format!("Not enough graphics memory for {name}. Your picture and chat are safe.")
}

/// The heading of a survey.
pub fn offer(name: &str, precision: &str, bytes: u64) -> String {
    format!("{name}, {precision}: {}", size(bytes))
}

/// Whether a model fits this device, and why.
pub fn verdict(fit: &Fit) -> String {
    let verdict = match fit.verdict {
        Verdict::Fits => "Fits",
        Verdict::Tight => "Tight",
        Verdict::WillNotRun => "Will not run here",
    };
    format!("{verdict}: {}.", fit.reason)
}

/// The heading of a licence.
pub fn licence(name: &str) -> String {
    format!("Licence: {name}")
}

/// Where a kept model stands.
pub fn stand(item: &Item, stand: &Status, progress: Option<Progress>) -> String {
    let (done, total) = (item.moved.done, item.moved.total);
    match stand {
        Status::Partial => format!("{} of {} is here", size(done), size(total)),
        Status::Moving { waiting: true, .. } => format!(
            "Waiting for the network. {} of {} is safe.",
            size(done),
            size(total)
        ),
        Status::Moving { rate, left, .. } => {
            let mut words = format!(
                "{} of {} · {} %",
                size(done),
                size(total),
                percent(done, total)
            );
            if let Some(rate) = rate {
                words.push_str(&format!(" · {}/s", size(*rate as u64)));
            }
            if let Some(seconds) = left {
                words.push_str(&format!(" · about {} left", time(*seconds)));
            }
            if item.moved.wrong > 0 {
                words.push_str(&format!(
                    " · {} did not match the checksum and came again",
                    parts(item.moved.wrong)
                ));
            }
            words
        }
        Status::Paused => format!("Paused. {} is kept.", size(done)),
        Status::Ready => "On this device".to_owned(),
        Status::Loading => loading(&item.shelved.facts.name, progress),
        Status::Loaded => "Loaded".to_owned(),
        Status::Elsewhere => "In use in another tab. Unload it there, then try again.".to_owned(),
    }
}

/// A model on its way into the engine.
pub fn loading(name: &str, progress: Option<Progress>) -> String {
    let Some(Progress { stage, done, total }) = progress.filter(|p| p.total > 0) else {
        return format!("Loading {name}…");
    };
    match stage {
        Stage::Fetch => format!("{name} {}", of(done, total)),
        Stage::Upload => format!("Checking and uploading {}", of(done, total)),
        _ => format!("Compiling shaders {} %", percent(done, total)),
    }
}

/// A download in the chip: `name 43 % · 9 min`.
pub fn moving(item: &Item) -> String {
    let part = percent(item.moved.done, item.moved.total);
    let name = &item.shelved.facts.name;
    match item.left() {
        Some(seconds) if !item.moved.waiting => format!("{name} {part} % · {}", time(seconds)),
        _ => format!("{name} {part} %"),
    }
}

/// Whole percents.
pub fn percent(done: u64, total: u64) -> u64 {
    (done * 100).checked_div(total).unwrap_or(0).min(100)
}

/// `2.1 of 4.1 MB`.
fn of(done: u64, total: u64) -> String {
    let (scale, unit) = scale(total);
    format!(
        "{:.1} of {:.1} {unit}",
        done as f64 / scale,
        total as f64 / scale
    )
}

/// `4.1 GB`.
pub fn size(bytes: u64) -> String {
    let (scale, unit) = scale(bytes);
    format!("{:.1} {unit}", bytes as f64 / scale)
}

fn scale(bytes: u64) -> (f64, &'static str) {
    match bytes {
        1_000_000_000.. => (1e9, "GB"),
        100_000.. => (1e6, "MB"),
        _ => (1e3, "kB"),
    }
}

fn time(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..7_200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3_600)),
    }
}

fn parts(count: u32) -> String {
    match count {
        1 => "one part".to_owned(),
        count => format!("{count} parts"),
    }
}
