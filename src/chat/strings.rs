//! The texts of the page: model manager, status, recovery, errors and figures of an answer, all in one
//! place.

use crate::built_in::BuiltIn;
use crate::chat::answer::{self, Phrase};
use crate::chat::candidates::{Candidates, Filter};
use crate::chat::conversation::{LookState, Model, Phase, Picture, Turn};
use crate::chat::model_manager::{Choice, Confirmation, Entry, EntryAction, ModelManager, Status};
use crate::chat::recovery::{Recovery, is_too_large};
use crate::error::{ErrorCode, Fault};
use crate::generate::sampling::Sampling;
use crate::memory::{Fit, Verdict};
use crate::progress::{Progress, Stage};
use crate::protocol::{Answer, LookTime, ModelCard, StopReason};
use crate::text::prompt::MAX_BOXES;

/// Opens what there is to say about the page.
pub const ABOUT: &str = "About";
/// The promise of the page's About.
pub const ABOUT_PRIVACY: &str =
    "Pictures and questions stay in this browser. No tracking, no account, no other host.";
/// Heading of the sample pictures in the page's About.
pub const SAMPLES: &str = "Sample pictures";
/// Heading of the manager.
pub const TITLE: &str = "Models";
/// Button that closes the manager.
pub const CLOSE: &str = "Close";
/// Label of the address field.
pub const ADDRESS: &str = "Address of a model folder, or a hub's owner/name";
/// Heading of the ways to add a model.
pub const ADD: &str = "Add a model";
/// Button that reads the manifest at the address.
pub const LOOK: &str = "Show";
/// Button that opens the picker for a folder.
pub const FOLDER: &str = "Choose a folder";
/// Button that opens the picker for files.
pub const FILES: &str = "Choose files";
/// Text between address and files.
pub const OR: &str = "or use files you have:";
/// While a manifest is read.
pub const LOOKING: &str = "Reading its description…";
/// Label of the licence checkbox.
pub const ACCEPT: &str = "I have read the licence and accept it";
/// Button that starts a download.
pub const DOWNLOAD: &str = "Download";
/// Button that starts an import from files.
pub const IMPORT: &str = "Import";
/// Button that dismisses a preview.
pub const NOT_NOW: &str = "Not now";
/// Button that shows what an offered model is.
pub const GET: &str = "Get";
/// Button that loads a model into the engine.
pub const LOAD: &str = "Load";
/// Note where the browser refuses persistent storage.
const VOLATILE: &str = "The browser did not promise to keep this model. It may be removed when the \
                        disk runs low";
/// The addition in Safari.
const VOLATILE_SAFARI: &str = " or after 7 days without a visit";
/// Button that asks the lost question again.
pub const ASK_AGAIN: &str = "Ask again";
/// Button that loads the default model instead of one that does not fit.
pub const USE_SMALLER: &str = "Use the smaller model";
/// Button that retries after a failure of the model.
pub const RESTART: &str = "Start the model again";
/// Button that hides a message.
pub const DISMISS: &str = "Dismiss";
/// Hint about a draft with [`crate::chat::candidates::LOST_MARK`].
pub const LOST_MARK_HINT: &str =
    "A box you mention is no longer shown. Replace [?] by a number in the picture.";

/// Note where the browser refuses persistent storage.
pub fn volatile(is_safari: bool) -> String {
    let more = if is_safari { VOLATILE_SAFARI } else { "" };
    format!("{VOLATILE}{more}.")
}

/// The label of an action on a stored model.
pub fn action(action: EntryAction) -> &'static str {
    match action {
        EntryAction::Resume => "Resume",
        EntryAction::Pause => "Pause",
        EntryAction::AskCancel => "Cancel",
        EntryAction::Load => LOAD,
        EntryAction::Unload => "Unload",
        EntryAction::AskDelete | EntryAction::Delete => "Delete",
        EntryAction::CheckAgain => "Try again",
        EntryAction::KeepPart => "Keep what came",
        EntryAction::DeletePart => "Delete what came",
        EntryAction::Back => "Back",
    }
}

/// The question of a confirmation.
pub fn confirmation(entry: &Entry, confirmation: Confirmation) -> String {
    let facts = &entry.stored.facts;
    match confirmation {
        Confirmation::None => String::new(),
        Confirmation::Cancel => format!("{} is here already.", size(entry.progress.done)),
        Confirmation::Delete => {
            let (name, size) = (&facts.name, size(facts.bytes));
            format!("Delete {name} ({size})? This cannot be undone.")
        }
    }
}

/// Storage in use.
pub fn used(bytes: u64) -> String {
    if bytes == 0 {
        return "Nothing stored yet".to_owned();
    }
    format!("Used by this page: {}", size(bytes))
}

/// The heading of a preview.
pub fn preview(name: &str, precision: &str, bytes: u64) -> String {
    format!("{name}, {precision}: {}", size(bytes))
}

/// Precision and size of a stored model.
pub fn facts(entry: &Entry) -> String {
    let facts = &entry.stored.facts;
    format!("{} · {}", facts.precision, size(facts.bytes))
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

/// The status of a stored model.
pub fn entry_status(entry: &Entry, status: &Status, progress: Option<Progress>) -> String {
    let (done, total) = (entry.progress.done, entry.progress.total);
    match status {
        Status::Partial => format!("{} of {} is here", size(done), size(total)),
        Status::Downloading { waiting: true, .. } => format!(
            "Waiting for the network. {} of {} is safe.",
            size(done),
            size(total)
        ),
        Status::Downloading { rate, left, .. } => {
            let mut text = format!(
                "{} of {} · {} %",
                size(done),
                size(total),
                percent(done, total)
            );
            if let Some(rate) = rate {
                text.push_str(&format!(" · {}/s", size(*rate as u64)));
            }
            if let Some(seconds) = left {
                text.push_str(&format!(" · about {} left", duration(*seconds)));
            }
            if entry.progress.wrong > 0 {
                text.push_str(&format!(
                    " · {} did not match the checksum and came again",
                    parts(entry.progress.wrong)
                ));
            }
            text
        }
        Status::Paused => format!("Paused. {} is kept.", size(done)),
        Status::Ready => "On this device".to_owned(),
        Status::Loading => loading(&entry.stored.facts.name, progress),
        Status::Loaded => "Loaded".to_owned(),
        Status::InOtherTab => "In use in another tab. Unload it there, then try again.".to_owned(),
    }
}

/// Description of a built-in model in the model manager.
pub fn description(model: BuiltIn) -> &'static str {
    match model {
        BuiltIn::Mini => {
            "The small model for photographs, part of this page. It finds 80 kinds of everyday things \
             and answers briefly."
        }
        BuiltIn::Nano => {
            "A very small model for drawn scenes, part of this page. It finds stickers of common \
             things and answers briefly."
        }
    }
}

/// Description and size of a model that the site offers.
pub fn offer(name: &str, bytes: u64) -> String {
    let description = match name {
        "small" => {
            "The detector of mini with SmolLM2, a general language model of 135 million weights. It answers \
             in longer sentences, invents more and is slower."
        }
        _ => "A model of this site.",
    };
    format!("{description} {} to download.", size(bytes))
}

/// Description of a built-in model in the page's About, which also shows [`knows`].
pub fn about(model: BuiltIn) -> &'static str {
    match model {
        BuiltIn::Mini => {
            "mini is a small model of this project for photographs. It cannot read text, recognise people or \
             know anything else about the world. It is not ChatRex-7B."
        }
        BuiltIn::Nano => {
            "nano is a very small ChatRex, trained by this project on pictures it drew itself: \
             stickers of about two dozen kinds of thing, among them cats, dogs, apples, \
             carrots, cars, bicycles, clocks, houses, trees and mushrooms, on varied \
             backgrounds. It can say what they are, how many, which colour, how large and \
             where. On photographs it finds boxes, but its words are mostly wrong. It cannot \
             read text, recognise people or know anything else about the world."
        }
    }
}

/// What the loaded model knows, in a line.
pub fn knows(model: &Model) -> Option<&str> {
    match model {
        Model::Ready(card) => card.knows.as_deref(),
        _ => None,
    }
}

/// The status of a built-in model.
pub fn built_in_status(built_in: BuiltIn, manager: &ModelManager, model: &Model) -> String {
    let is_chosen = *manager.choice() == Choice::BuiltIn(built_in);
    match model {
        Model::Ready(_) if is_chosen => "Loaded".to_owned(),
        Model::Loading(progress) if is_chosen => loading(built_in.name(), *progress),
        _ => String::new(),
    }
}

/// A model that is being loaded into the engine.
fn loading(name: &str, progress: Option<Progress>) -> String {
    let Some(Progress { stage, done, total }) = progress.filter(|p| p.total > 0) else {
        return format!("Loading {name}…");
    };
    match stage {
        Stage::Fetch => format!("{name} {}", amount(done, total)),
        Stage::Upload => format!("Checking and uploading {}", amount(done, total)),
        _ => format!("Compiling shaders {} %", percent(done, total)),
    }
}

/// The chosen model while it is being loaded.
pub fn loading_chosen(manager: &ModelManager, progress: Option<Progress>) -> String {
    match manager.choice() {
        Choice::BuiltIn(model) => loading(model.name(), progress),
        Choice::Stored(_) => loading(manager.chosen_name().unwrap_or("the model"), progress),
    }
}

/// The state of the engine's model, in the page's bar.
pub fn model_state(manager: &ModelManager, model: &Model) -> String {
    match model {
        Model::Absent => "No model".to_owned(),
        Model::Loading(progress) => loading_chosen(manager, *progress),
        Model::Ready(card) => format!("{} · ready", card.name),
        Model::Failed(_) => "Model not running".to_owned(),
    }
}

/// A download in the page's bar: `name 43 % · 9 min`.
pub fn downloading(entry: &Entry) -> String {
    let part = percent(entry.progress.done, entry.progress.total);
    let name = &entry.stored.facts.name;
    match entry.left() {
        Some(seconds) if !entry.progress.waiting => {
            format!("{name} {part} % · {}", duration(seconds))
        }
        _ => format!("{name} {part} %"),
    }
}

/// The state of the picture and its boxes.
pub fn status(
    model: &Model,
    picture: Option<&Picture>,
    candidates: &Candidates,
    filter: Filter,
) -> String {
    let Some(picture) = picture else {
        return "No picture yet.".to_owned();
    };
    let (found, own) = candidates.counts();
    let left_out = candidates.left_out;
    match &picture.look {
        LookState::Waiting if found > 0 => format!("{found} objects, found earlier."),
        LookState::Waiting if !matches!(model, Model::Ready(_)) => {
            "Boxes appear once the model is loaded.".to_owned()
        }
        LookState::Waiting => "Waiting…".to_owned(),
        LookState::Looking(progress) => looking(*progress),
        LookState::Failed(_) => "No boxes could be found in this picture.".to_owned(),
        LookState::Done if found == 0 && own == 0 => format!(
            "No objects above {:.2}. Lower the confidence, switch to “Parts too”, or draw a box.",
            filter.score
        ),
        LookState::Done if left_out > 0 => format!(
            "{} objects found; the chat can use the best {}.",
            found + left_out,
            MAX_BOXES - own
        ),
        LookState::Done => {
            let time = picture.milliseconds.map_or(0.0, |t| t.prepare + t.upn) / 1000.0;
            let objects = if found == 1 { "object" } else { "objects" };
            format!("Found {found} {objects} in {time:.1} s.")
        }
    }
}

/// While a file is being decoded.
pub const OPENING: &str = "Opening the picture…";

fn looking(progress: Option<Progress>) -> String {
    format!("Looking for objects…{}", suffix(progress))
}

/// What a turn waits for before the first word of its answer.
pub fn waiting(turn: &Turn, model: &Model, picture: Option<&Picture>) -> String {
    match &turn.phase {
        Phase::Queued => match model {
            Model::Ready(_) => match picture.map(|p| &p.look) {
                Some(LookState::Looking(progress)) => looking(*progress),
                _ => looking(None),
            },
            Model::Failed(_) => "Waits until the model is started again.".to_owned(),
            Model::Loading(_) | Model::Absent => "Runs as soon as the model is loaded.".to_owned(),
        },
        Phase::Looking => "Looking at the picture…".to_owned(),
        Phase::Reading(progress) => format!("Reading the question…{}", suffix(*progress)),
        _ => String::new(),
    }
}

/// The note below an answer that did not end as usual.
pub fn outcome(turn: &Turn) -> Option<String> {
    let is_empty = (turn.spans.iter()).all(|s| s.text.trim().is_empty() && s.objects.is_empty());
    match &turn.phase {
        Phase::Stopped if turn.spans.is_empty() => {
            Some("Stopped before the first word.".to_owned())
        }
        Phase::Stopped => Some("Stopped.".to_owned()),
        Phase::Failed(_) => Some("This answer failed.".to_owned()),
        Phase::Done => match &turn.answer {
            Some(answer) if answer.stop == StopReason::Length => Some(format!(
                "Stopped at the length limit ({} tokens).",
                answer.tokens
            )),
            _ if is_empty => Some("The model said nothing.".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

/// An ended answer for a screen reader.
pub fn spoken(turn: &Turn) -> String {
    let text = answer::plain(&turn.pieces());
    match &turn.phase {
        Phase::Failed(_) => String::new(),
        Phase::Stopped => format!("{text} Stopped."),
        _ => text,
    }
}

/// The name of a phrase for a screen reader.
pub fn phrase_name(phrase: &Phrase) -> String {
    let text = phrase.text.trim();
    match phrase.objects.len() {
        0 => format!("{text}, no box"),
        1 => format!("{text}, 1 box, show in the picture"),
        n => format!("{text}, {n} boxes, show in the picture"),
    }
}

/// The name of the picture for a screen reader; `phrases` are those of the shown answer.
pub fn picture_name(boxes: usize, phrases: Option<&[Phrase]>) -> String {
    let name = format!("The picture, with {boxes} boxes");
    match phrases {
        Some(phrases) => {
            let phrases: Vec<_> = phrases.iter().map(|p| p.text.trim()).collect();
            format!("{name}. Mentioned: {}", phrases.join(", "))
        }
        None => name,
    }
}

/// Note about proposals that exceed the limit of the prompt.
pub fn left_out(candidates: &Candidates) -> Option<String> {
    let left_out = candidates.left_out;
    (left_out > 0)
        .then(|| format!("{left_out} more pass, but {MAX_BOXES} is the most the chat can use."))
}

/// The value of the slider for the IoU threshold.
pub fn nms(threshold: f64) -> String {
    match threshold {
        all if all >= 1.0 => "keep all".to_owned(),
        threshold => format!("{threshold:.2}"),
    }
}

/// The value of the slider for the temperature.
pub fn temperature(sampling: Sampling) -> String {
    match sampling.temperature {
        0.0 => "the most likely word".to_owned(),
        temperature => format!("{temperature:.2}"),
    }
}

/// Note where no GPU computes; `has_webgpu` tells whether the browser offers WebGPU, `is_secure` whether
/// the page came over https or from this device.
pub fn device_note(card: &ModelCard, has_webgpu: bool, is_secure: bool) -> Option<String> {
    if !card.software {
        return None;
    }
    Some(if card.device == "cpu" {
        let reason = if has_webgpu {
            "The browser found no graphics card that it can use; hardware acceleration may be off."
        } else if is_secure {
            "This browser does not offer WebGPU here."
        } else {
            "This page did not come over https, and browsers then keep the graphics card and storage \
             from it."
        };
        format!(
            "Runs on the main processor (CPU), not on a graphics card, so it is slower. {reason}"
        )
    } else {
        format!(
            "The graphics card is imitated in software here{}, so it is slower.",
            adapter(card)
        )
    })
}

/// What the loaded model computes on, in the page's About.
pub fn computes_on(card: &ModelCard) -> String {
    match (card.device.as_str(), card.software) {
        ("cpu", _) => "The main processor (CPU) of this device".to_owned(),
        (_, true) => format!("A graphics card imitated in software{}", adapter(card)),
        (_, false) => format!("The graphics card{}", adapter(card)),
    }
}

/// ` (name)` of the adapter, or nothing where the browser hides its name.
fn adapter(card: &ModelCard) -> String {
    match card.adapter.as_str() {
        "" | "WebGPU adapter" => String::new(),
        name => format!(" ({name})"),
    }
}

/// The state of the recovery; empty where there is nothing to say.
pub fn recovery(recovery: Recovery) -> &'static str {
    match recovery {
        Recovery::None => "",
        Recovery::Restoring => "The GPU was reset (driver, sleep or memory). Restoring…",
        Recovery::Restarting => "The model stopped. Picture and chat are safe. Restoring…",
        Recovery::Restored => "Restored.",
    }
}

/// The GPU was lost where the page does not start the model again by itself.
const DEVICE_LOST: &str =
    "The GPU was reset (driver, sleep or memory). Your picture and chat are safe.";

/// A fault of the engine in the words that fit the chosen model.
pub fn error(fault: &Fault, manager: &ModelManager) -> String {
    if fault.code == ErrorCode::DeviceLost {
        return DEVICE_LOST.to_owned();
    }
    if !is_too_large(fault, manager.choice()) {
        return sentence(fault);
    }
    let name = manager.chosen_name().unwrap_or("this model");
    format!("Not enough GPU memory for {name}. Your picture and chat are safe.")
}

/// The small print of an error.
pub fn error_code(fault: &Fault) -> String {
    format!("Error code: {:?}", fault.code)
}

/// A fault as sentences; names of files and addresses keep their case.
pub fn sentence(fault: &Fault) -> String {
    // "That file" and "that picture" begin a sentence; other places are names.
    let colon = match fault.place.starts_with("that ") {
        true => " cannot be opened:",
        false => ":",
    };
    let what = fault.what.trim_end_matches('.');
    let mut text = format!("{}{colon} {what}.", fault.place);
    let is_name = fault.place.contains(['.', '/', '_']);
    if let Some(first) = text.get(..1).filter(|_| !is_name) {
        text = format!("{}{}", first.to_uppercase(), &text[1..]);
    }
    if !fault.advice.is_empty() {
        text.push_str(&format!(" {}.", fault.advice.trim_end_matches('.')));
    }
    text
}

/// One line about the speed of an answer.
pub fn speed(answer: &Answer) -> String {
    let tokens = if answer.tokens == 1 {
        "token"
    } else {
        "tokens"
    };
    let mut line = format!("{} {tokens}", answer.tokens);
    let after_first = answer.tokens.saturating_sub(1);
    if let Some(rate) = per_second(after_first, answer.milliseconds.decode) {
        line.push_str(&format!(" · {rate:.1} a second"));
    }
    let first = milliseconds(answer.milliseconds.first_token);
    line.push_str(&format!(" · first word after {first}"));
    line
}

/// The figures of an answer by name; `boxes` is the number of boxes in its question.
pub fn figures(
    answer: &Answer,
    boxes: usize,
    found: Option<LookTime>,
) -> Vec<(&'static str, String)> {
    let time = &answer.milliseconds;
    let look = match time.look {
        0.0 => "kept from before".to_owned(),
        look => milliseconds(look),
    };
    let prefill = match per_second(answer.prefill_tokens, time.prefill) {
        Some(rate) => format!(
            "{} tokens in {} · {rate:.0} a second",
            answer.prefill_tokens,
            milliseconds(time.prefill)
        ),
        None => format!("{} tokens", answer.prefill_tokens),
    };
    let stop = match answer.stop {
        StopReason::End => "the model ended it",
        StopReason::Length => "length limit",
        StopReason::Stopped => "stopped by you",
    };
    let found = found.map(|time| {
        let all = milliseconds(time.prepare + time.upn);
        let prepare = milliseconds(time.prepare);
        (
            "Finding boxes",
            format!("{all}, of which {prepare} to prepare"),
        )
    });
    let rows = [
        ("Looking at the picture", look),
        ("Reading", prefill),
        ("Writing", milliseconds(time.decode)),
        ("End", stop.to_owned()),
        ("Boxes given", boxes.to_string()),
        ("Exact words", answer.prompt.clone()),
    ];
    found.into_iter().chain(rows).collect()
}

fn per_second(tokens: u32, milliseconds: f64) -> Option<f64> {
    (tokens > 0 && milliseconds > 0.0).then(|| f64::from(tokens) * 1000.0 / milliseconds)
}

fn milliseconds(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", milliseconds / 1000.0)
    }
}

/// ` 60 %`, or nothing where the total is unknown.
fn suffix(progress: Option<Progress>) -> String {
    match progress.filter(|p| p.total > 0) {
        Some(progress) => format!(" {} %", percent(progress.done, progress.total)),
        None => String::new(),
    }
}

/// Whole percents.
pub fn percent(done: u64, total: u64) -> u64 {
    (done * 100).checked_div(total).unwrap_or(0).min(100)
}

/// `2.1 of 4.1 MB`.
fn amount(done: u64, total: u64) -> String {
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

fn duration(seconds: f64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation::Input;
    use crate::chat::model_manager;
    use crate::chat::test_data::{after, card, load, open, proposed, ready};
    use crate::error::FaultKind;
    use crate::protocol::store::{Activity, Facts, ModelId, StoreEvent, StoredModel};
    use crate::protocol::{AskTime, Event, Granularity, PictureId};

    const A: PictureId = PictureId(1);

    fn progress(stage: Stage, done: u64, total: u64) -> Option<Progress> {
        Some(Progress { stage, done, total })
    }

    /// A manager whose chosen model is nano, or a stored one called `big`.
    fn manager(stored: bool) -> ModelManager {
        let mut manager = ModelManager::with_choice(Choice::BuiltIn(BuiltIn::Nano));
        if stored {
            let model = ModelId("00112233aabbccdd".into());
            let facts = Facts {
                name: "big".into(),
                precision: "q4".into(),
                trained_on: String::new(),
                licence: String::new(),
                licence_text: String::new(),
                bytes: 4_000_000_000,
            };
            let models = vec![StoredModel {
                model: model.clone(),
                facts,
                address: None,
                done: 2_000_000_000,
                used: None,
                activity: Activity::Idle,
            }];
            let listed = Box::new(StoreEvent::Listed { models });
            manager.step(model_manager::Input::Event(listed), 0.0);
            manager.step(model_manager::Input::Load(Choice::Stored(model)), 0.0);
        }
        manager
    }

    fn fault(code: ErrorCode) -> Fault {
        Fault::new(FaultKind::Device, "GPU", "is lost", "Reload the page").code(code)
    }

    #[test]
    fn faults_become_sentences() {
        let cases = [
            (
                ("that file", "it is empty", ""),
                "That file cannot be opened: it is empty.",
            ),
            (
                ("a.bin", "is short.", "Try again."),
                "a.bin: is short. Try again.",
            ),
            (
                ("models/a", "is short", "Wait"),
                "models/a: is short. Wait.",
            ),
            (("up_proj", "holds NaN", ""), "up_proj: holds NaN."),
            (("über", "x", ""), "über: x."),
        ];
        for ((place, what, advice), expected) in cases {
            let fault = Fault::new(FaultKind::File, place, what, advice);
            assert_eq!(sentence(&fault), expected);
        }
        assert_eq!(
            error_code(&fault(ErrorCode::DeviceLost)),
            "Error code: DeviceLost"
        );
    }

    #[test]
    fn a_stored_model_without_memory_is_named() {
        let lost = "GPU: is lost. Reload the page.";
        let big = "Not enough GPU memory for big. Your picture and chat are safe.";
        let cases = [
            (false, ErrorCode::OutOfMemory, lost),
            (false, ErrorCode::DeviceFailed, lost),
            (true, ErrorCode::DeviceFailed, lost),
            (false, ErrorCode::DeviceLost, DEVICE_LOST),
            (true, ErrorCode::DeviceLost, DEVICE_LOST),
            (true, ErrorCode::OutOfMemory, big),
        ];
        for (stored, code, expected) in cases {
            assert_eq!(error(&fault(code), &manager(stored)), expected, "{code:?}");
        }
    }

    #[test]
    fn the_model_is_shown_in_every_state() {
        let failed = Model::Failed(fault(ErrorCode::DeviceLost));
        let fetch = Model::Loading(progress(Stage::Fetch, 2_100_000, 4_100_000));
        let upload = Model::Loading(progress(Stage::Upload, 1_000, 2_000));
        let compile = Model::Loading(progress(Stage::Compile, 3, 4));
        let unknown = Model::Loading(progress(Stage::Fetch, 3, 0));
        let cases = [
            (false, Model::Absent, "No model"),
            (false, Model::Loading(None), "Loading nano…"),
            (true, unknown, "Loading big…"),
            (false, fetch.clone(), "nano 2.1 of 4.1 MB"),
            (true, fetch, "big 2.1 of 4.1 MB"),
            (false, upload, "Checking and uploading 1.0 of 2.0 kB"),
            (false, compile, "Compiling shaders 75 %"),
            (false, Model::Ready(card()), "nano · ready"),
            (false, failed, "Model not running"),
        ];
        for (stored, model, expected) in cases {
            assert_eq!(model_state(&manager(stored), &model), expected, "{model:?}");
        }
        let ready = Model::Ready(card());
        assert_eq!(
            built_in_status(BuiltIn::Nano, &manager(false), &ready),
            "Loaded"
        );
        assert_eq!(built_in_status(BuiltIn::Nano, &manager(true), &ready), "");
        let loading = Model::Loading(None);
        assert_eq!(
            built_in_status(BuiltIn::Nano, &manager(false), &loading),
            "Loading nano…"
        );
    }

    #[test]
    fn a_stored_model_is_shown_in_every_status() {
        let downloading = |rate, left, waiting| Status::Downloading {
            rate,
            left,
            waiting,
        };
        let cases = [
            (Status::Partial, "2.0 GB of 4.0 GB is here"),
            (
                downloading(None, None, true),
                "Waiting for the network. 2.0 GB of 4.0 GB is safe.",
            ),
            (downloading(None, None, false), "2.0 GB of 4.0 GB · 50 %"),
            (
                downloading(Some(5e6), Some(410.0), false),
                "2.0 GB of 4.0 GB · 50 % · 5.0 MB/s · about 7 min left",
            ),
            (Status::Paused, "Paused. 2.0 GB is kept."),
            (Status::Ready, "On this device"),
            (Status::Loading, "Loading big…"),
            (Status::Loaded, "Loaded"),
            (
                Status::InOtherTab,
                "In use in another tab. Unload it there, then try again.",
            ),
        ];
        let manager = manager(true);
        let mut entry = manager.entries()[0].clone();
        for (status, expected) in cases {
            assert_eq!(entry_status(&entry, &status, None), expected);
        }
        entry.progress.wrong = 1;
        let text = entry_status(&entry, &downloading(None, None, false), None);
        assert!(
            text.ends_with("one part did not match the checksum and came again"),
            "{text}"
        );
        assert_eq!(super::downloading(&entry), "big 50 %");
        assert_eq!(facts(&entry), "q4 · 4.0 GB");
        let questions = [
            (Confirmation::None, ""),
            (Confirmation::Cancel, "2.0 GB is here already."),
            (
                Confirmation::Delete,
                "Delete big (4.0 GB)? This cannot be undone.",
            ),
        ];
        for (state, expected) in questions {
            assert_eq!(confirmation(&entry, state), expected);
        }
    }

    #[test]
    fn the_status_tells_what_is_known_of_the_boxes() {
        let none = Filter {
            score: 0.95,
            nms: 0.8,
            ..Filter::default()
        };
        let boxes = || proposed(A, Granularity::Coarse);
        let failed = Input::Event(Event::Failed {
            turn: None,
            picture: Some(A),
            fault: fault(ErrorCode::DeviceFailed),
        });
        let looking = Input::Event(Event::Progress(Progress {
            stage: Stage::Propose,
            done: 1,
            total: 3,
        }));
        let cases = [
            (vec![], "No picture yet."),
            (vec![open(A)], "Boxes appear once the model is loaded."),
            (vec![open(A), load(), ready()], "Looking for objects…"),
            (
                vec![open(A), load(), ready(), looking],
                "Looking for objects… 33 %",
            ),
            (
                vec![open(A), load(), ready(), boxes()],
                "Found 2 objects in 1.4 s.",
            ),
            (
                vec![open(A), load(), ready(), boxes(), load()],
                "2 objects, found earlier.",
            ),
            (
                vec![open(A), load(), ready(), boxes(), Input::Filter(none)],
                "No objects above 0.95. Lower the confidence, switch to “Parts too”, or draw a box.",
            ),
            (
                vec![open(A), load(), ready(), failed],
                "No boxes could be found in this picture.",
            ),
        ];
        for (inputs, expected) in cases {
            let c = after(inputs);
            let text = status(c.model(), c.picture(), c.candidates(), c.filter());
            assert_eq!(text, expected);
        }
        let mut many = Candidates {
            left_out: 7,
            ..Candidates::default()
        };
        let c = after([open(A), load(), ready(), boxes()]);
        many.boxes.clone_from(&c.candidates().boxes);
        assert_eq!(
            status(c.model(), c.picture(), &many, c.filter()),
            "9 objects found; the chat can use the best 100."
        );
        assert_eq!(left_out(c.candidates()), None);
        assert!(left_out(&many).is_some_and(|text| text.starts_with("7 more pass")));
    }

    #[test]
    fn a_turn_tells_what_it_waits_for_and_how_it_ended() {
        let c = after([
            open(A),
            Input::Ask {
                shown: "what?".into(),
                question: "what?".into(),
            },
        ]);
        let turn = &c.turns()[0];
        let loaded = Model::Ready(card());
        let failed = Model::Failed(fault(ErrorCode::WorkerLost));
        let phase = |phase| Turn {
            phase,
            ..turn.clone()
        };
        let reading = progress(Stage::Read, 10, 40);
        let cases = [
            (
                turn.clone(),
                &Model::Absent,
                "Runs as soon as the model is loaded.",
            ),
            (
                turn.clone(),
                &failed,
                "Waits until the model is started again.",
            ),
            (turn.clone(), &loaded, "Looking for objects…"),
            (phase(Phase::Looking), &loaded, "Looking at the picture…"),
            (
                phase(Phase::Reading(None)),
                &loaded,
                "Reading the question…",
            ),
            (
                phase(Phase::Reading(reading)),
                &loaded,
                "Reading the question… 25 %",
            ),
            (phase(Phase::Streaming), &loaded, ""),
        ];
        for (turn, model, expected) in cases {
            assert_eq!(waiting(&turn, model, c.picture()), expected);
        }
        let answered = |stop| Turn {
            answer: Some(timed(stop)),
            ..phase(Phase::Done)
        };
        let cases = [
            (phase(Phase::Streaming), None),
            (
                phase(Phase::Stopped),
                Some("Stopped before the first word."),
            ),
            (
                phase(Phase::Failed(fault(ErrorCode::DeviceLost))),
                Some("This answer failed."),
            ),
            (
                answered(StopReason::Length),
                Some("Stopped at the length limit (11 tokens)."),
            ),
            (answered(StopReason::End), Some("The model said nothing.")),
        ];
        for (turn, expected) in cases {
            assert_eq!(outcome(&turn).as_deref(), expected, "{:?}", turn.phase);
        }
    }

    fn timed(stop: StopReason) -> Answer {
        Answer {
            prompt: "prompt".into(),
            text: String::new(),
            spans: Vec::new(),
            tokens: 11,
            prefill_tokens: 300,
            stop,
            milliseconds: AskTime {
                look: 0.0,
                prefill: 1_500.0,
                first_token: 1_600.0,
                decode: 500.0,
            },
        }
    }

    #[test]
    fn figures_give_durations_and_rates() {
        let answer = timed(StopReason::Stopped);
        assert_eq!(
            speed(&answer),
            "11 tokens · 20.0 a second · first word after 1.6 s"
        );
        let found = LookTime {
            prepare: 100.0,
            upn: 900.0,
        };
        let rows = figures(&answer, 7, Some(found));
        let expected = [
            ("Finding boxes", "1.0 s, of which 100 ms to prepare"),
            ("Looking at the picture", "kept from before"),
            ("Reading", "300 tokens in 1.5 s · 200 a second"),
            ("Writing", "500 ms"),
            ("End", "stopped by you"),
            ("Boxes given", "7"),
            ("Exact words", "prompt"),
        ];
        let rows: Vec<_> = rows.iter().map(|(name, text)| (*name, &**text)).collect();
        assert_eq!(rows, expected);
        assert_eq!(figures(&answer, 7, None).len(), expected.len() - 1);
    }

    #[test]
    fn a_software_device_is_told_with_its_reason() {
        let on = |device: &str, software| ModelCard {
            device: device.into(),
            adapter: "llvmpipe".into(),
            software,
            ..*card()
        };
        assert_eq!(device_note(&on("wgpu", false), true, true), None);
        let cases = [
            (
                on("wgpu", true),
                true,
                true,
                "imitated in software here (llvmpipe)",
            ),
            (on("cpu", true), true, true, "found no graphics card"),
            (on("cpu", true), false, true, "does not offer WebGPU"),
            (on("cpu", true), false, false, "did not come over https"),
        ];
        for (card, has_webgpu, is_secure, expected) in cases {
            let note = device_note(&card, has_webgpu, is_secure).expect("it is slow");
            assert!(note.contains(expected), "{note}");
        }
        assert_eq!(
            computes_on(&on("cpu", true)),
            "The main processor (CPU) of this device"
        );
        assert_eq!(
            computes_on(&on("wgpu", false)),
            "The graphics card (llvmpipe)"
        );
    }

    #[test]
    fn every_state_of_the_recovery_has_its_text() {
        let cases = [
            (Recovery::None, ""),
            (Recovery::Restoring, "The GPU was reset"),
            (Recovery::Restarting, "The model stopped"),
            (Recovery::Restored, "Restored."),
        ];
        for (state, expected) in cases {
            assert!(recovery(state).starts_with(expected), "{state:?}");
            assert_eq!(recovery(state).is_empty(), expected.is_empty());
        }
    }

    #[test]
    fn sizes_and_durations_take_the_unit_that_fits() {
        let cases = [
            (0, "0.0 kB"),
            (99_999, "100.0 kB"),
            (100_000, "0.1 MB"),
            (4_130_000, "4.1 MB"),
            (4_100_000_000, "4.1 GB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
        let cases = [
            (0.2, "1 s"),
            (59.0, "59 s"),
            (60.0, "1 min"),
            (7_199.0, "120 min"),
            (7_200.0, "2 h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
        for (done, total, expected) in [(1, 0, 0), (1, 3, 33), (5, 3, 100)] {
            assert_eq!(percent(done, total), expected);
        }
    }
}
