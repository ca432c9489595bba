//! The texts of the device card, the benchmark, the list of models, the way to a real model, and of how
//! questions are answered.

use crate::chat::bench::{Bench, Run};
use crate::chat::choices::Choices;
use crate::chat::conversation::{Earlier, Model};
use crate::chat::engine_choice::{Record, Speed};
use crate::chat::model_manager::Entry;
use crate::chat::real_model::RealModel;
use crate::chat::strings::{computes_on, verdict};
use crate::chat::words::{self, Word, say, text};
use crate::memory::{Fit, display_bytes};
use crate::protocol::store::{Quantization, ShardProgress, ShardState};
use crate::protocol::{DevicePreference, Hardware, ModelCard};

/// Heading of the device card.
pub const DEVICE: Word = || text("This device", "本设备");
/// Button that copies the report.
pub const COPY_REPORT: Word = || text("Copy report", "复制报告");
/// Note beside it.
pub const REPORT_NOTE: Word = || {
    text(
        "For a report of a fault. It holds no picture and no words of the chat.",
        "用于报告故障。不包含图片和对话内容。",
    )
};
/// Heading of the benchmark.
pub const BENCH: Word = || text("Speed on this device", "本设备上的速度");
/// What the benchmark does.
pub const BENCH_NOTE: Word = || {
    text(
        "Asks the same question about the same picture three times. Your picture and chat stay.",
        "就同一张图片把同一个问题问三遍。你的图片和对话不变。",
    )
};
/// Button that begins the benchmark.
pub const BENCH_BEGIN: Word = || text("Measure", "测量");
/// Button that stops it.
pub const BENCH_STOP: Word = || text("Stop", "停止");
/// Button that copies the outcome.
pub const COPY_JSON: Word = || text("Copy as JSON", "复制为 JSON");
/// After a stop.
pub const BENCH_STOPPED: Word = || text("Stopped. Nothing was measured.", "已停止。没有测量结果。");
/// While something else runs.
pub const BENCH_BUSY: Word = || {
    text(
        "Possible once the model is loaded and nothing is running.",
        "模型加载后且没有任务运行时可用。",
    )
};
/// Button that deletes every stored model.
pub const DELETE_ALL: Word = || text("Delete all models", "删除所有模型");
/// Leaves the confirmation.
pub const BACK: Word = || text("Back", "返回");
/// Button that runs a model that is not stored.
pub const RUN_UNSAVED: Word = || text("Run once without saving", "运行一次，不保存");
/// The same for files of the user.
pub const USE_IN_PLACE: Word = || text("Use in place", "就地使用");
/// What it means.
pub const USE_IN_PLACE_NOTE: Word = || {
    text(
        "Import copies the files into this browser. Used in place they are read where they are, and chosen again at the next visit.",
        "导入会把文件复制到此浏览器中。就地使用则从原位置读取，下次访问时需重新选择。",
    )
};
/// Button that chooses a folder whose model is used in place.
pub const FOLDER_IN_PLACE: Word = || text("Use a folder in place", "就地使用文件夹");
/// Where such a model is.
pub const IN_FOLDER: Word = || {
    text(
        "In a folder of yours, used in place",
        "在你的文件夹中，就地使用",
    )
};
/// Button that forgets such a folder.
pub const FORGET: Word = || text("Forget", "移除");
/// After the browser or the user refused to let the page read it.
pub const FOLDER_REFUSED: Word = || {
    text(
        "The browser does not let this page read that folder.",
        "浏览器不允许本页面读取那个文件夹。",
    )
};
/// Heading of the files of a download.
pub const SHARDS: Word = || text("Files", "文件");
/// Heading of the card about real models.
pub const REAL: Word = || {
    text(
        "Load a real model: ChatRex or RexSeek",
        "加载真正的模型：ChatRex 或 RexSeek",
    )
};
/// What the card is about.
pub const REAL_NOTE: Word = || {
    text(
        "Their authors publish the weights for non-commercial research only, so this page does not bring them. You download them once, turn them into a folder that this page reads, and choose the folder here. Nothing is sent anywhere.",
        "作者公布的权重只允许用于非商业研究，因此本页面不附带它们。你只需下载一次，转换成本页面能读取的文件夹，然后在这里选择该文件夹。不会向任何地方发送内容。",
    )
};
/// Second step of the card.
pub const REAL_CONVERT: Word = || {
    text(
        "Choose the folder that holds both here: this page converts it, without sending anything. Or convert it faster with the program of this project:",
        "在这里选择包含两者的文件夹：本页面会转换它，不发送任何内容。也可以用本项目的程序更快地转换：",
    )
};
/// Third step of the card.
pub const REAL_CHOOSE: Word = || {
    text(
        "A folder that the program made is chosen here too. It is checked and kept in this browser.",
        "程序生成的文件夹也在这里选择。它会经过检查并保存在此浏览器中。",
    )
};
/// Button that copies the command.
pub const COPY_COMMAND: Word = || text("Copy the command", "复制命令");
/// After copying.
pub const COPIED: Word = || text("Copied", "已复制");
/// Before the device is known.
pub const NOT_JUDGED: Word = || {
    text(
        "Whether it fits here is known once a model is loaded.",
        "加载一个模型后才能知道它能否在此运行。",
    )
};
/// Label of the temperature.
pub const TEMPERATURE: Word = || text("Temperature", "温度");
/// Label of the share of the most likely tokens.
pub const TOP_P: Word = || {
    text(
        "Among the most likely that make up",
        "只在累计概率达到此值的最可能词中选",
    )
};
/// Label of the repetition penalty.
pub const PENALTY: Word = || text("Repetition penalty", "重复惩罚");
/// Label of the switch for constrained decoding.
pub const GRAMMAR: Word = || text("Name only boxes that there are", "只提及存在的框");
/// Label of the system prompt.
pub const SYSTEM: Word = || text("System prompt", "系统提示词");
/// Note below it.
pub const SYSTEM_NOTE: Word = || {
    text(
        "These words stand before every question. The model learned to name boxes with its own; with others its boxes may be wrong.",
        "这些文字放在每个问题之前。模型是用自己的系统提示词学会标出框的；换成别的，框可能会出错。",
    )
};
/// In the field of a model without a system prompt.
pub const SYSTEM_NONE: Word = || text("This model has none", "此模型没有");
/// Button that makes the choices those of new conversations.
pub const MAKE_DEFAULT: Word = || text("Make default", "设为默认");
/// Note about the scope.
pub const SCOPE: Word = || {
    text(
        "For this conversation. New ones begin with your defaults.",
        "用于此对话。新对话使用你的默认设置。",
    )
};
/// Where they are the defaults already.
pub const IS_DEFAULT: Word = || text("These are your defaults.", "这些是你的默认设置。");

/// While the files of a checkpoint are opened.
pub const OPENING_CHECKPOINT: Word = || text("Reading the checkpoint…", "正在读取检查点…");
/// What converting means.
pub const MAKING_NOTE: Word = || {
    text(
        "These files are a published checkpoint. They are read from your disk, stored smaller in this browser, and stay as they are.",
        "这些文件是公开发布的检查点。它们从你的磁盘读取，以较小的形式存储在此浏览器中，原文件保持不变。",
    )
};
/// The choice of the precision.
pub const QUANTIZATION: Word = || text("Precision", "精度");
/// Button that begins to convert.
pub const CONVERT: Word = || text("Convert", "转换");
/// Button that ends it.
pub const CANCEL_MAKING: Word = || text("Cancel", "取消");
/// After a model was made.
pub const MADE: Word = || {
    text(
        "The model is ready. Load it from the list.",
        "模型已就绪。请从列表中加载。",
    )
};

/// A precision.
pub fn quantization(quantization: Quantization) -> &'static str {
    match quantization {
        Quantization::Q4 => text("4 bits", "4 位"),
        Quantization::Q8 => text("8 bits", "8 位"),
        Quantization::F16 => text("f16", "f16"),
    }
}

/// The progress of a conversion.
pub fn converting(done: u64, total: u64) -> String {
    match total {
        0 => text("Making room…", "正在准备空间…").to_owned(),
        total => say!(
            "Converted {} of {} · {}",
            "已转换 {}，共 {} · {}",
            display_bytes(done),
            display_bytes(total),
            words::percent(done as f64 / total as f64, 0)
        ),
    }
}

/// The switch for earlier turns, and what it means for the model.
pub fn earlier(earlier: Earlier) -> String {
    match earlier.tokens {
        0 => text(
            "Include earlier turns (none yet)",
            "包含之前的问答（还没有）",
        )
        .to_owned(),
        1 => text(
            "Include earlier turns (1 token)",
            "包含之前的问答（1 个词元）",
        )
        .to_owned(),
        tokens => say!(
            "Include earlier turns ({tokens} tokens)",
            "包含之前的问答（{tokens} 个词元）"
        ),
    }
}

/// Whether the model was trained for it.
pub fn earlier_note(model: &Model) -> &'static str {
    match model {
        Model::Ready(card) if card.multi_turn => text(
            "This model was trained on several questions about the same boxes.",
            "此模型用针对相同框的多个问题训练过。",
        ),
        _ => text(
            "This model was trained on single questions. With earlier turns its answers may be worse. Only turns about the same boxes are included.",
            "此模型只用单个问题训练。带上之前的问答，回答可能变差。只会包含针对相同框的问答。",
        ),
    }
}

/// The value of the repetition penalty.
pub fn penalty(choices: &Choices, card: Option<&ModelCard>) -> String {
    match choices.penalty(card) {
        1.0 => text("none", "无").to_owned(),
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
    if is {
        text("yes", "是")
    } else {
        text("no", "否")
    }
}

/// The rows of the device card: name and value.
pub fn device_rows(card: &ModelCard, browser: &str) -> Vec<(&'static str, String)> {
    let mut rows = vec![(text("Computes on", "运算设备"), computes_on(card))];
    match &card.hardware {
        Some(hardware) => rows.extend(hardware_rows(hardware)),
        None => rows.push((
            text("Backend", "后端"),
            text("CPU, WebAssembly with SIMD", "CPU，带 SIMD 的 WebAssembly").to_owned(),
        )),
    }
    if !browser.is_empty() {
        rows.push((text("Browser", "浏览器"), browser.to_owned()));
    }
    if !card.engine.is_empty() {
        rows.push((text("Engine", "引擎"), card.engine.clone()));
    }
    rows
}

fn hardware_rows(hardware: &Hardware) -> Vec<(&'static str, String)> {
    let told = |told: &str| match told {
        "" => text("not told by this browser", "此浏览器未提供").to_owned(),
        told => told.to_owned(),
    };
    let limits = hardware.limits;
    vec![
        (text("Vendor", "厂商"), told(&hardware.vendor)),
        (text("Architecture", "架构"), told(&hardware.architecture)),
        (text("Adapter", "适配器"), told(&hardware.description)),
        (text("Backend", "后端"), hardware.backend.clone()),
        (
            text("f16 in shaders", "着色器中的 f16"),
            yes(hardware.f16).to_owned(),
        ),
        (
            text("Subgroups used", "使用子组"),
            yes(hardware.subgroups).to_owned(),
        ),
        (
            text("Fallback adapter", "后备适配器"),
            yes(hardware.fallback).to_owned(),
        ),
        (text("Largest buffer", "最大缓冲区"), binary(limits.buffer)),
        (text("Largest binding", "最大绑定"), binary(limits.binding)),
        (
            text("Workgroup memory", "工作组内存"),
            binary(limits.workgroup_storage.into()),
        ),
        (
            text("Workgroup size", "工作组大小"),
            limits.workgroup_size.to_string(),
        ),
        (
            text("Workgroups per axis", "每轴工作组数"),
            limits.workgroups.to_string(),
        ),
        (
            text("Storage buffers", "存储缓冲区"),
            limits.storage_buffers.to_string(),
        ),
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
        text("Model", "模型"),
        format!("{}, {}", card.name, display_bytes(card.weight_bytes)),
    ));
    rows.push((text("Memory plan", "内存方案"), verdict(&card.fit)));
    if let Some(choice) = chosen.map(engine_choice) {
        rows.push((text("Engine choice", "引擎选择"), choice));
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
        say!(
            "boxes in {boxes}, {} a token",
            "找框 {boxes}，每个词元 {}",
            milliseconds(speed.token)
        )
    };
    let chosen = match record.device {
        DevicePreference::Cpu => text("The CPU path is used", "使用 CPU 路径"),
        _ => text("The imitated graphics card is used", "使用软件模拟的显卡"),
    };
    match (&record.cpu, &record.gpu) {
        (Some(cpu), Some(gpu)) => say!(
            "{chosen}. Measured here: CPU {}; imitated graphics card {}.",
            "{chosen}。在此测得：CPU {}；模拟的显卡 {}。",
            speed(cpu),
            speed(gpu)
        ),
        (Some(cpu), None) => say!(
            "{chosen}. Measured here: CPU {}; the imitated graphics card took too long.",
            "{chosen}。在此测得：CPU {}；模拟的显卡耗时过长。",
            speed(cpu)
        ),
        _ => say!("{chosen}.", "{chosen}。"),
    }
}

fn milliseconds(value: f64) -> String {
    match value {
        long if long >= 1000.0 => say!("{:.1} s", "{:.1} 秒", long / 1000.0),
        short if short >= 10.0 => say!("{short:.0} ms", "{short:.0} 毫秒"),
        short => say!("{short:.1} ms", "{short:.1} 毫秒"),
    }
}

/// The state of the benchmark.
pub fn bench_state(bench: &Bench) -> String {
    let (done, all) = bench.progress();
    match () {
        () if bench.is_stopping() => text("Stopping…", "正在停止…").to_owned(),
        () if bench.is_running() => say!(
            "Run {} of {all}…",
            "第 {} 次，共 {all} 次…",
            (done + 1).min(all)
        ),
        () if bench.was_stopped() => BENCH_STOPPED().to_owned(),
        () => String::new(),
    }
}

/// The medians of the benchmark: name and value.
pub fn bench_rows(run: Run) -> [(&'static str, String); 5] {
    [
        (text("Finding boxes", "找框"), milliseconds(run.detector)),
        (
            text("Looking at the picture", "看图片"),
            milliseconds(run.vision),
        ),
        (
            text("Reading", "读问题"),
            say!("{:.0} tokens a second", "每秒 {:.0} 个词元", run.prefill),
        ),
        (
            text("Writing", "写回答"),
            say!("{:.1} tokens a second", "每秒 {:.1} 个词元", run.decode),
        ),
        (
            text("First word after", "第一个词出现于"),
            milliseconds(run.first_word),
        ),
    ]
}

/// When a stored model was loaded last, at time `now`; both in milliseconds since 1970.
pub fn last_used(entry: &Entry, now: f64) -> String {
    const DAY: f64 = 86_400_000.0;
    let Some(used) = entry.stored.used else {
        return text("Never used yet", "尚未使用过").to_owned();
    };
    match ((now - used) / DAY).floor() {
        days if days < 1.0 => text("Used in the last 24 hours", "最近 24 小时内使用过").to_owned(),
        1.0 => text("Last used a day ago", "一天前使用过").to_owned(),
        days => say!("Last used {days:.0} days ago", "{days:.0} 天前使用过"),
    }
}

/// A file of a download.
pub fn shard(shard: &ShardProgress) -> String {
    let state = match shard.state {
        ShardState::Waiting => text("waiting", "等待中"),
        ShardState::Downloading => text("downloading", "下载中"),
        ShardState::Checking => text("checking", "检查中"),
        ShardState::Done => text("done", "完成"),
    };
    let (done, total) = (display_bytes(shard.done), display_bytes(shard.total));
    match shard.state {
        ShardState::Downloading | ShardState::Checking => {
            say!(
                "{}: {state}, {done} of {total}",
                "{}：{state}，{done} / {total}",
                shard.name
            )
        }
        ShardState::Waiting | ShardState::Done => {
            say!("{}: {state}, {total}", "{}：{state}，{total}", shard.name)
        }
    }
}

/// The confirmation before every model is deleted.
pub fn delete_all(count: usize, bytes: u64) -> String {
    let models = if count == 1 {
        text("1 model", "1 个模型")
    } else {
        text("all models", "所有模型")
    };
    say!(
        "Delete {models} ({})? This cannot be undone.",
        "要删除{models}（{}）吗？此操作无法撤销。",
        display_bytes(bytes)
    )
}

/// After another tab took a model over.
pub fn taken_over(name: &str) -> String {
    say!(
        "Another tab uses {name} now.",
        "另一个标签页正在使用 {name}。"
    )
}

/// What a real model needs, and whether it would run here.
pub fn real_model(model: &RealModel, fit: Option<&Fit>) -> String {
    let size = display_bytes(model.download);
    let published = display_bytes(model.published);
    let fits = fit.map_or_else(|| NOT_JUDGED().to_owned(), verdict);
    say!(
        "{published} to download, {size} as a folder in 4 bits. {fits}",
        "需下载 {published}，4 位的文件夹占 {size}。{fits}"
    )
}

/// First step of the card: what to download.
pub fn real_download(model: &RealModel, upn: &str, upn_hub: &str) -> String {
    let name = model.name;
    say!(
        "Download the files of {name} and the detector's file {upn} ({upn_hub}) from their authors:",
        "从作者处下载 {name} 的文件和检测器文件 {upn}（{upn_hub}）："
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
        assert!(real_model(model, None).ends_with(NOT_JUDGED()));
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
