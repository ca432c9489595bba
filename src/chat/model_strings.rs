//! The texts of the device card, the benchmark, the list of models, the way to a real model, and of how
//! questions are answered.

use crate::chat::bench::{Bench, Run};
use crate::chat::choices::Choices;
use crate::chat::conversation::{Earlier, Model};
use crate::chat::engine_choice::{Record, Speed};
use crate::chat::model_manager::Entry;
use crate::chat::real_model::RealModel;
use crate::chat::strings::{computes_on, verdict};
use crate::memory::{Fit, display_bytes};
use crate::protocol::store::{Quantization, ShardProgress, ShardState};
use crate::protocol::{DevicePreference, Hardware, ModelCard};

/// Heading of the device card.
pub const DEVICE: &str = "This device";
/// Button that copies the report.
pub const COPY_REPORT: &str = "Copy report";
/// Note beside it.
pub const REPORT_NOTE: &str =
    "For a report of a fault. It holds no picture and no words of the chat.";
/// Heading of the benchmark.
pub const BENCH: &str = "Speed on this device";
/// What the benchmark does.
pub const BENCH_NOTE: &str =
    "Asks the same question about the same picture three times. Your picture and chat stay.";
/// Button that begins the benchmark.
pub const BENCH_BEGIN: &str = "Measure";
/// Button that stops it.
pub const BENCH_STOP: &str = "Stop";
/// Button that copies the outcome.
pub const COPY_JSON: &str = "Copy as JSON";
/// After a stop.
pub const BENCH_STOPPED: &str = "Stopped. Nothing was measured.";
/// While something else runs.
pub const BENCH_BUSY: &str = "Possible once the model is loaded and nothing is running.";
/// Button that deletes every stored model.
pub const DELETE_ALL: &str = "Delete all models";
/// Leaves the confirmation.
pub const BACK: &str = "Back";
/// Button that runs a model that is not stored.
pub const RUN_UNSAVED: &str = "Run once without saving";
/// The same for files of the user.
pub const USE_IN_PLACE: &str = "Use in place";
/// What it means.
pub const USE_IN_PLACE_NOTE: &str = "Import copies the files into this browser. Used in place they are read where they are, and chosen again \
     at the next visit.";
/// Button that chooses a folder whose model is used in place.
pub const FOLDER_IN_PLACE: &str = "Use a folder in place";
/// Where such a model is.
pub const IN_FOLDER: &str = "In a folder of yours, used in place";
/// Button that forgets such a folder.
pub const FORGET: &str = "Forget";
/// After the browser or the user refused to let the page read it.
pub const FOLDER_REFUSED: &str = "The browser does not let this page read that folder.";
/// Heading of the files of a download.
pub const SHARDS: &str = "Files";
/// Heading of the card about real models.
pub const REAL: &str = "Load a real model: ChatRex or RexSeek";
/// What the card is about.
pub const REAL_NOTE: &str = "Their authors publish the weights for non-commercial research only, so this page \
     does not bring them. You download them once, turn them into a folder that this page reads, and choose the folder \
     here. Nothing is sent anywhere.";
/// Second step of the card.
pub const REAL_CONVERT: &str = "Choose the folder that holds both here: this page converts it, without sending anything. Or convert it faster with \
     the program of this project:";
/// Third step of the card.
pub const REAL_CHOOSE: &str =
    "A folder that the program made is chosen here too. It is checked and kept in this browser.";
/// Button that copies the command.
pub const COPY_COMMAND: &str = "Copy the command";
/// After copying.
pub const COPIED: &str = "Copied";
/// Before the device is known.
pub const NOT_JUDGED: &str = "Whether it fits here is known once a model is loaded.";
/// Label of the temperature.
pub const TEMPERATURE: &str = "Temperature";
/// Label of the share of the most likely tokens.
pub const TOP_P: &str = "Among the most likely that make up";
/// Label of the repetition penalty.
pub const PENALTY: &str = "Repetition penalty";
/// Label of the switch for constrained decoding.
pub const GRAMMAR: &str = "Name only boxes that there are";
/// Label of the system prompt.
pub const SYSTEM: &str = "System prompt";
/// Note below it.
pub const SYSTEM_NOTE: &str = "These words stand before every question. The model learned to name boxes with its own; \
     with others its boxes may be wrong.";
/// In the field of a model without a system prompt.
pub const SYSTEM_NONE: &str = "This model has none";
/// Button that makes the choices those of new conversations.
pub const MAKE_DEFAULT: &str = "Make default";
/// Note about the scope.
pub const SCOPE: &str = "For this conversation. New ones begin with your defaults.";
/// Where they are the defaults already.
pub const IS_DEFAULT: &str = "These are your defaults.";

/// While the files of a checkpoint are opened.
pub const OPENING_CHECKPOINT: &str = "Reading the checkpoint…";
/// What converting means.
pub const MAKING_NOTE: &str = "These files are a published checkpoint. They are read from your disk, stored smaller in this \
     browser, and stay as they are.";
/// The choice of the precision.
pub const QUANTIZATION: &str = "Precision";
/// Button that begins to convert.
pub const CONVERT: &str = "Convert";
/// Button that ends it.
pub const CANCEL_MAKING: &str = "Cancel";
/// After a model was made.
pub const MADE: &str = "The model is ready. Load it from the list.";

/// A precision.
pub fn quantization(quantization: Quantization) -> &'static str {
    match quantization {
        Quantization::Q4 => "4 bits",
        Quantization::Q8 => "8 bits",
        Quantization::F16 => "f16",
    }
}

/// The progress of a conversion.
pub fn converting(done: u64, total: u64) -> String {
    match total {
        0 => "Making room…".to_owned(),
        total => format!(
            "Converted {} of {} · {} %",
            display_bytes(done),
            display_bytes(total),
            done * 100 / total
        ),
    }
}

/// The switch for earlier turns, and what it means for the model.
pub fn earlier(earlier: Earlier) -> String {
    match earlier.tokens {
        0 => "Include earlier turns (none yet)".to_owned(),
        1 => "Include earlier turns (1 token)".to_owned(),
        tokens => format!("Include earlier turns ({tokens} tokens)"),
    }
}

/// Whether the model was trained for it.
pub fn earlier_note(model: &Model) -> &'static str {
    match model {
        Model::Ready(card) if card.multi_turn => {
            "This model was trained on several questions about the same boxes."
        }
        _ => {
            "This model was trained on single questions. With earlier turns its answers may be worse. Only turns \
             about the same boxes are included."
        }
    }
}

/// The value of the repetition penalty.
pub fn penalty(choices: &Choices, card: Option<&ModelCard>) -> String {
    match choices.penalty(card) {
        1.0 => "none".to_owned(),
        penalty => format!("{penalty:.2}"),
    }
}

/// Bytes as powers of two, as limits are.
fn binary(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(size, _)| bytes >= *size);
    match unit {
        None => format!("{bytes} B"),
        Some((size, name)) if bytes.is_multiple_of(*size) => format!("{} {name}", bytes / size),
        Some((size, name)) => format!("{:.2} {name}", bytes as f64 / *size as f64),
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// The rows of the device card: name and value.
pub fn device_rows(card: &ModelCard, browser: &str) -> Vec<(&'static str, String)> {
    let mut rows = vec![("Computes on", computes_on(card))];
    match &card.hardware {
        Some(hardware) => rows.extend(hardware_rows(hardware)),
        None => rows.push(("Backend", "CPU, WebAssembly with SIMD".to_owned())),
    }
    if !browser.is_empty() {
        rows.push(("Browser", browser.to_owned()));
    }
    if !card.engine.is_empty() {
        rows.push(("Engine", card.engine.clone()));
    }
    rows
}

fn hardware_rows(hardware: &Hardware) -> Vec<(&'static str, String)> {
    let told = |text: &str| match text {
        "" => "not told by this browser".to_owned(),
        text => text.to_owned(),
    };
    let limits = hardware.limits;
    vec![
        ("Vendor", told(&hardware.vendor)),
        ("Architecture", told(&hardware.architecture)),
        ("Adapter", told(&hardware.description)),
        ("Backend", hardware.backend.clone()),
        ("f16 in shaders", yes(hardware.f16).to_owned()),
        ("Subgroups used", yes(hardware.subgroups).to_owned()),
        ("Fallback adapter", yes(hardware.fallback).to_owned()),
        ("Largest buffer", binary(limits.buffer)),
        ("Largest binding", binary(limits.binding)),
        ("Workgroup memory", binary(limits.workgroup_storage.into())),
        ("Workgroup size", limits.workgroup_size.to_string()),
        ("Workgroups per axis", limits.workgroups.to_string()),
        ("Storage buffers", limits.storage_buffers.to_string()),
    ]
}

/// The report for the clipboard: device, model and what was measured; no picture and no words.
pub fn report(
    card: &ModelCard,
    browser: &str,
    chosen: Option<&Record>,
    run: Option<Run>,
) -> String {
    let mut rows = device_rows(card, browser);
    rows.push((
        "Model",
        format!("{}, {}", card.name, display_bytes(card.weight_bytes)),
    ));
    rows.push(("Memory plan", verdict(&card.fit)));
    if let Some(text) = chosen.map(engine_choice) {
        rows.push(("Engine choice", text));
    }
    if let Some(run) = run {
        rows.extend(bench_rows(run));
    }
    let lines = rows
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}\n"));
    std::iter::once("ChatRex in the browser\n".to_owned())
        .chain(lines)
        .collect()
}

/// Which engine was chosen for a software adapter, and why.
pub fn engine_choice(record: &Record) -> String {
    let speed = |speed: &Speed| {
        let boxes = milliseconds(speed.detector);
        format!("boxes in {boxes}, {} a token", milliseconds(speed.token))
    };
    let chosen = match record.device {
        DevicePreference::Cpu => "The CPU path is used",
        _ => "The imitated graphics card is used",
    };
    match (&record.cpu, &record.gpu) {
        (Some(cpu), Some(gpu)) => format!(
            "{chosen}. Measured here: CPU {}; imitated graphics card {}.",
            speed(cpu),
            speed(gpu)
        ),
        (Some(cpu), None) => format!(
            "{chosen}. Measured here: CPU {}; the imitated graphics card took too long.",
            speed(cpu)
        ),
        _ => format!("{chosen}."),
    }
}

fn milliseconds(value: f64) -> String {
    match value {
        long if long >= 1000.0 => format!("{:.1} s", long / 1000.0),
        short if short >= 10.0 => format!("{short:.0} ms"),
        short => format!("{short:.1} ms"),
    }
}

/// The state of the benchmark.
pub fn bench_state(bench: &Bench) -> String {
    let (done, all) = bench.progress();
    match () {
        () if bench.is_stopping() => "Stopping…".to_owned(),
        () if bench.is_running() => format!("Run {} of {all}…", (done + 1).min(all)),
        () if bench.was_stopped() => BENCH_STOPPED.to_owned(),
        () => String::new(),
    }
}

/// The medians of the benchmark: name and value.
pub fn bench_rows(run: Run) -> [(&'static str, String); 5] {
    [
        ("Finding boxes", milliseconds(run.detector)),
        ("Looking at the picture", milliseconds(run.vision)),
        ("Reading", format!("{:.0} tokens a second", run.prefill)),
        ("Writing", format!("{:.1} tokens a second", run.decode)),
        ("First word after", milliseconds(run.first_word)),
    ]
}

/// When a stored model was loaded last, at time `now`; both in milliseconds since 1970.
pub fn last_used(entry: &Entry, now: f64) -> String {
    const DAY: f64 = 86_400_000.0;
    let Some(used) = entry.stored.used else {
        return "Never used yet".to_owned();
    };
    match ((now - used) / DAY).floor() {
        days if days < 1.0 => "Used in the last 24 hours".to_owned(),
        1.0 => "Last used a day ago".to_owned(),
        days => format!("Last used {days:.0} days ago"),
    }
}

/// A file of a download.
pub fn shard(shard: &ShardProgress) -> String {
    let state = match shard.state {
        ShardState::Waiting => "waiting",
        ShardState::Downloading => "downloading",
        ShardState::Checking => "checking",
        ShardState::Done => "done",
    };
    let (done, total) = (display_bytes(shard.done), display_bytes(shard.total));
    match shard.state {
        ShardState::Downloading | ShardState::Checking => {
            format!("{}: {state}, {done} of {total}", shard.name)
        }
        ShardState::Waiting | ShardState::Done => format!("{}: {state}, {total}", shard.name),
    }
}

/// The confirmation before every model is deleted.
pub fn delete_all(count: usize, bytes: u64) -> String {
    let models = if count == 1 { "1 model" } else { "all models" };
    format!(
        "Delete {models} ({})? This cannot be undone.",
        display_bytes(bytes)
    )
}

/// After another tab took a model over.
pub fn taken_over(name: &str) -> String {
    format!("Another tab uses {name} now.")
}

/// What a real model needs, and whether it would run here.
pub fn real_model(model: &RealModel, fit: Option<&Fit>) -> String {
    let size = display_bytes(model.download);
    let published = display_bytes(model.published);
    let fits = fit.map_or_else(|| NOT_JUDGED.to_owned(), verdict);
    format!("{published} to download, {size} as a folder in 4 bits. {fits}")
}

/// First step of the card: what to download.
pub fn real_download(model: &RealModel, upn: &str, upn_hub: &str) -> String {
    let name = model.name;
    format!(
        "Download the files of {name} and the detector's file {upn} ({upn_hub}) from their authors:"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::real_model::REAL_MODELS;
    use crate::chat::test_data::card;
    use crate::memory::Verdict;
    use crate::protocol::Limits;
    use crate::protocol::store::{Activity, Facts, ModelId, StoredModel};

    #[test]
    fn the_report_names_device_and_model() {
        let mut card = card();
        card.engine = "1.2.3".into();
        card.fit.reason = "needs 5 GB of GPU memory".into();
        card.hardware = Some(Hardware {
            vendor: "nvidia".into(),
            backend: "WebGPU".into(),
            f16: true,
            limits: Limits {
                buffer: 4 << 30,
                binding: (2 << 30) - 4,
                workgroup_storage: 32768,
                ..Limits::default()
            },
            ..Hardware::default()
        });
        let text = report(&card, "Chromium 150", None, None);
        for line in [
            "Vendor: nvidia",
            "Architecture: not told by this browser",
            "Backend: WebGPU",
            "f16 in shaders: yes",
            "Subgroups used: no",
            "Fallback adapter: no",
            "Largest buffer: 4 GiB",
            "Largest binding: 2.00 GiB",
            "Workgroup memory: 32 KiB",
            "Browser: Chromium 150",
            "Engine: 1.2.3",
            "Model: nano, 0.0 MB",
            "Memory plan: Fits: needs 5 GB of GPU memory.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        card.hardware = None;
        assert!(report(&card, "", None, None).contains("Backend: CPU"));
    }

    #[test]
    fn the_engine_of_a_software_adapter_is_explained() {
        let speed = |token| Speed {
            detector: 1500.0,
            token,
            first_word: 10.0,
        };
        let record = |device, gpu| Record {
            device,
            cpu: Some(speed(25.0)),
            gpu,
        };
        for (record, expected) in [
            (
                record(DevicePreference::Cpu, Some(speed(250.0))),
                "The CPU path is used. Measured here: CPU boxes in 1.5 s, 25 ms a token; imitated graphics \
                 card boxes in 1.5 s, 250 ms a token.",
            ),
            (
                record(DevicePreference::Cpu, None),
                "The CPU path is used. Measured here: CPU boxes in 1.5 s, 25 ms a token; the imitated graphics \
                 card took too long.",
            ),
            (
                Record {
                    device: DevicePreference::Wgpu,
                    cpu: None,
                    gpu: None,
                },
                "The imitated graphics card is used.",
            ),
        ] {
            assert_eq!(engine_choice(&record), expected);
        }
    }

    #[test]
    fn a_stored_model_says_when_it_was_used() {
        let mut manager = crate::chat::model_manager::ModelManager::default();
        let day = 86_400_000.0;
        let mut words = |used| {
            let models = vec![StoredModel {
                model: ModelId("0011223344556677".into()),
                facts: Facts {
                    name: "big".into(),
                    precision: "q4".into(),
                    trained_on: String::new(),
                    licence: String::new(),
                    licence_text: String::new(),
                    bytes: 1,
                },
                address: None,
                done: 1,
                used,
                activity: Activity::Idle,
                fit: None,
            }];
            let listed = crate::protocol::store::StoreEvent::Listed { models };
            let event = crate::chat::model_manager::Input::Event(Box::new(listed));
            manager.step(event, 0.0);
            last_used(&manager.entries()[0], 10.0 * day)
        };
        assert_eq!(words(None), "Never used yet");
        assert_eq!(words(Some(9.5 * day)), "Used in the last 24 hours");
        assert_eq!(words(Some(8.5 * day)), "Last used a day ago");
        assert_eq!(words(Some(3.0 * day)), "Last used 7 days ago");
    }

    #[test]
    fn files_and_real_models_are_described() {
        let of = |state| {
            shard(&ShardProgress {
                name: "a.safetensors".into(),
                done: 1_000_000,
                total: 2_000_000,
                state,
            })
        };
        assert_eq!(of(ShardState::Waiting), "a.safetensors: waiting, 2.0 MB");
        assert_eq!(
            of(ShardState::Checking),
            "a.safetensors: checking, 1.0 MB of 2.0 MB"
        );
        let model = &REAL_MODELS[1];
        assert!(real_model(model, None).ends_with(NOT_JUDGED));
        let mut fit = card().fit;
        fit.verdict = Verdict::WillNotRun;
        fit.reason = "needs too much".into();
        assert_eq!(
            real_model(model, Some(&fit)),
            "16.52 GB to download, 5.15 GB as a folder in 4 bits. Will not run here: needs too much."
        );
    }

    #[test]
    fn earlier_turns_are_counted_in_tokens() {
        for (tokens, expected) in [
            (0, "Include earlier turns (none yet)"),
            (1, "Include earlier turns (1 token)"),
            (120, "Include earlier turns (120 tokens)"),
        ] {
            assert_eq!(earlier(Earlier { turns: 1, tokens }), expected);
        }
        assert!(earlier_note(&Model::Ready(card())).contains("single questions"));
        let mut trained = card();
        trained.multi_turn = true;
        assert!(earlier_note(&Model::Ready(trained)).contains("was trained on several"));
    }
}
