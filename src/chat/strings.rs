//! The texts of the page: model manager, status, recovery, errors and figures of an answer, all in one
//! place.

pub use crate::chat::fault_strings::{ORIGINAL, of_model, original, sentence, translated};
use crate::chat::words::{self, Plural, Word, plural, say, text};

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
pub const ABOUT: Word = || text("About", "关于");
/// The promise of the page's About.
pub const ABOUT_PRIVACY: Word = || {
    text(
        "Pictures and questions stay in this browser. No tracking, no account, no other host.",
        "图片和问题都留在这个浏览器里。没有跟踪，不需要账号，也不连接其他主机。",
    )
};
/// Heading of the sample pictures in the page's About.
pub const SAMPLES: Word = || text("Sample pictures", "示例图片");
/// Heading of the manager.
pub const TITLE: Word = || text("Models", "模型");
/// Button that closes the manager.
pub const CLOSE: Word = || text("Close", "关闭");
/// Label of the address field.
pub const ADDRESS: Word = || {
    text(
        "Address of a model folder, or a hub's owner/name",
        "模型文件夹的地址，或模型站点上的“所有者/名称”",
    )
};
/// Heading of the ways to add a model.
pub const ADD: Word = || text("Add a model", "添加模型");
/// Button that reads the manifest at the address.
pub const LOOK: Word = || text("Show", "显示");
/// Button that opens the picker for a folder.
pub const FOLDER: Word = || text("Choose a folder", "选择文件夹");
/// Button that opens the picker for files.
pub const FILES: Word = || text("Choose files", "选择文件");
/// Text between address and files.
pub const OR: Word = || text("or use files you have:", "或者使用已有的文件：");
/// While a manifest is read.
pub const LOOKING: Word = || text("Reading its description…", "正在读取模型说明…");
/// Label of the licence checkbox.
pub const ACCEPT: Word = || {
    text(
        "I have read the licence and accept it",
        "我已阅读并接受许可证",
    )
};
/// Button that starts a download.
pub const DOWNLOAD: Word = || text("Download", "下载");
/// Button that starts an import from files.
pub const IMPORT: Word = || text("Import", "导入");
/// Button that dismisses a preview.
pub const NOT_NOW: Word = || text("Not now", "暂不");
/// Button that shows what an offered model is.
pub const GET: Word = || text("Get", "获取");
/// Button that loads a model into the engine.
pub const LOAD: Word = || text("Load", "加载");
/// Button that asks the lost question again.
pub const ASK_AGAIN: Word = || text("Ask again", "重新提问");
/// Button that loads the default model instead of one that does not fit.
pub const USE_SMALLER: Word = || text("Use the smaller model", "使用较小的模型");
/// Button that retries after a failure of the model.
pub const RESTART: Word = || text("Start the model again", "重新启动模型");
/// Button that hides a message.
pub const DISMISS: Word = || text("Dismiss", "知道了");
/// Hint about a draft with [`crate::chat::candidates::LOST_MARK`].
pub const LOST_MARK_HINT: Word = || {
    text(
        "A box you mention is no longer shown. Replace [?] by a number in the picture.",
        "你提到的一个框已不再显示。请把 [?] 换成图片中的编号。",
    )
};

/// Note where the browser refuses persistent storage.
pub fn volatile(is_safari: bool) -> String {
    match is_safari {
        false => text(
            "The browser did not promise to keep this model. It may be removed when the disk runs low.",
            "浏览器不保证保留此模型。磁盘空间不足时可能会将它移除。",
        ),
        true => text(
            "The browser did not promise to keep this model. It may be removed when the disk runs low or after 7 days without a visit.",
            "浏览器不保证保留此模型。磁盘空间不足或 7 天未访问时可能会将它移除。",
        ),
    }
    .to_owned()
}

/// The label of an action on a stored model.
pub fn action(action: EntryAction) -> &'static str {
    match action {
        EntryAction::Resume => text("Resume", "继续下载"),
        EntryAction::Pause => text("Pause", "暂停"),
        EntryAction::AskCancel => text("Cancel", "取消"),
        EntryAction::Load => LOAD(),
        EntryAction::Unload => text("Unload", "卸载"),
        EntryAction::AskDelete | EntryAction::Delete => text("Delete", "删除"),
        EntryAction::UseHere => text("Use it here", "在此使用"),
        EntryAction::CheckAgain => text("Try again", "重试"),
        EntryAction::KeepPart => text("Keep what came", "保留已下载的部分"),
        EntryAction::DeletePart => text("Delete what came", "删除已下载的部分"),
        EntryAction::Back => text("Back", "返回"),
    }
}

/// The question of a confirmation.
pub fn confirmation(entry: &Entry, confirmation: Confirmation) -> String {
    let facts = &entry.stored.facts;
    match confirmation {
        Confirmation::None => String::new(),
        Confirmation::Cancel => say!(
            "{} is here already.",
            "已下载 {}。",
            size(entry.progress.done)
        ),
        Confirmation::Delete => {
            let (name, size) = (&facts.name, size(facts.bytes));
            say!(
                "Delete {name} ({size})? This cannot be undone.",
                "要删除 {name}（{size}）吗？此操作无法撤销。"
            )
        }
    }
}

/// Storage in use.
pub fn used(bytes: u64) -> String {
    if bytes == 0 {
        return text("Nothing stored yet", "尚未存储任何模型").to_owned();
    }
    say!("Used by this page: {}", "本页面占用：{}", size(bytes))
}

/// The heading of a preview.
pub fn preview(name: &str, precision: &str, bytes: u64) -> String {
    let size = size(bytes);
    say!("{name}, {precision}: {size}", "{name}，{precision}：{size}")
}

/// Precision and size of a stored model.
pub fn facts(entry: &Entry) -> String {
    let facts = &entry.stored.facts;
    format!("{} · {}", facts.precision, size(facts.bytes))
}

/// Whether a model fits this device, and why.
pub fn verdict(fit: &Fit) -> String {
    let verdict = match fit.verdict {
        Verdict::Fits => text("Fits", "可以运行"),
        Verdict::Tight => text("Tight", "勉强可以运行"),
        Verdict::WillNotRun => text("Will not run here", "无法在此运行"),
    };
    match translated(&fit.reason) {
        Some(reason) => say!("{verdict}: {reason}.", "{verdict}：{reason}。"),
        None => say!("{verdict}.", "{verdict}。"),
    }
}

/// The heading of a licence.
pub fn licence(name: &str) -> String {
    say!("Licence: {name}", "许可证：{name}")
}

/// The status of a stored model.
pub fn entry_status(entry: &Entry, status: &Status, progress: Option<Progress>) -> String {
    let (done, total) = (entry.progress.done, entry.progress.total);
    match status {
        Status::Partial => say!(
            "{} of {} is here",
            "已下载 {}，共 {}",
            size(done),
            size(total)
        ),
        Status::Downloading { waiting: true, .. } => say!(
            "Waiting for the network. {} of {} is safe.",
            "正在等待网络。已保存 {}，共 {}。",
            size(done),
            size(total)
        ),
        Status::Downloading { rate, left, .. } => {
            let share = words::percent(part(done, total), 0);
            let mut line = say!(
                "{} of {} · {share}",
                "{} / {} · {share}",
                size(done),
                size(total)
            );
            if let Some(rate) = rate {
                line.push_str(&say!(" · {}/s", " · {}/秒", size(*rate as u64)));
            }
            if let Some(seconds) = left {
                line.push_str(&say!(
                    " · about {} left",
                    " · 大约还需 {}",
                    duration(*seconds)
                ));
            }
            if entry.progress.wrong > 0 {
                line.push_str(&say!(
                    " · {} did not match the checksum and came again",
                    " · {}校验和不符，已重新下载",
                    parts(entry.progress.wrong)
                ));
            }
            line
        }
        Status::Paused => say!("Paused. {} is kept.", "已暂停。保留了 {}。", size(done)),
        Status::Ready => text("On this device", "已在本设备上").to_owned(),
        Status::Loading => loading(&entry.stored.facts.name, progress),
        Status::Loaded => text("Loaded", "已加载").to_owned(),
        Status::InOtherTab => text(
            "Model is in use in another tab.",
            "模型正在另一个标签页中使用。",
        )
        .to_owned(),
    }
}

/// Description of a built-in model in the model manager.
pub fn description(model: BuiltIn) -> &'static str {
    match model {
        BuiltIn::Mini => text(
            "The small model for photographs, part of this page. It finds 80 kinds of everyday things and answers briefly.",
            "用于照片的小模型，随本页面提供。它能找出 80 种日常物体，并用英文简短回答。",
        ),
        BuiltIn::Nano => text(
            "A very small model for drawn scenes, part of this page. It finds stickers of common things and answers briefly.",
            "用于绘制场景的极小模型，随本页面提供。它能找出常见物体的贴纸，并用英文简短回答。",
        ),
    }
}

/// Description and size of a model that the site offers.
pub fn offer(name: &str, bytes: u64) -> String {
    let description = match name {
        "small" => text(
            "The detector of mini with SmolLM2, a general language model of 135 million weights. It answers in longer sentences, invents more and is slower.",
            "mini 的检测器加上 SmolLM2（有 1.35 亿个权重的通用语言模型）。它用更长的英文句子回答，更容易编造内容，速度也更慢。",
        ),
        _ => text("A model of this site.", "本站提供的模型。"),
    };
    let size = size(bytes);
    say!(
        "{description} {size} to download.",
        "{description}需下载 {size}。"
    )
}

/// Description of a built-in model in the page's About, which also shows [`knows`].
pub fn about(model: BuiltIn) -> &'static str {
    match model {
        BuiltIn::Mini => text(
            "mini is a small model of this project for photographs. It cannot read text, recognise people or know anything else about the world. It is not ChatRex-7B.",
            "mini 是本项目用于照片的小模型，只用英文回答。它不能识别文字，不能认人，也没有关于世界的其他知识。它不是 ChatRex-7B。",
        ),
        BuiltIn::Nano => text(
            "nano is a very small ChatRex, trained by this project on pictures it drew itself: stickers of about two dozen kinds of thing, among them cats, dogs, apples, carrots, cars, bicycles, clocks, houses, trees and mushrooms, on varied backgrounds. It can say what they are, how many, which colour, how large and where. On photographs it finds boxes, but its words are mostly wrong. It cannot read text, recognise people or know anything else about the world.",
            "nano 是一个极小的 ChatRex，由本项目用自己绘制的图片训练：在各种背景上贴有二十多种物体的贴纸，例如猫、狗、苹果、胡萝卜、汽车、自行车、时钟、房子、树和蘑菇。它能用英文说出这些是什么、有多少、什么颜色、多大、在哪里。在照片上它能找到框，但回答多半是错的。它不能识别文字，不能认人，也没有关于世界的其他知识。",
        ),
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
        Model::Ready(_) if is_chosen => text("Loaded", "已加载").to_owned(),
        Model::Loading(progress) if is_chosen => loading(built_in.name(), *progress),
        _ => String::new(),
    }
}

/// A model that is being loaded into the engine.
fn loading(name: &str, progress: Option<Progress>) -> String {
    let known = progress.filter(|p| p.total > 0);
    match known.map(|p| (p.stage, amount(p.done, p.total))) {
        Some((Stage::Fetch, amount)) => format!("{name} {amount}"),
        Some((Stage::Upload, amount)) => {
            say!("Checking and uploading {amount}", "正在检查并上传 {amount}")
        }
        _ => say!("Loading {name}…", "正在加载 {name}…"),
    }
}

/// The chosen model while it is being loaded.
pub fn loading_chosen(manager: &ModelManager, progress: Option<Progress>) -> String {
    match manager.choice() {
        Choice::BuiltIn(model) => loading(model.name(), progress),
        Choice::Stored(_) | Choice::Unsaved { .. } => loading(
            manager.chosen_name().unwrap_or(text("the model", "模型")),
            progress,
        ),
    }
}

/// The state of the engine's model, in the page's bar.
pub fn model_state(manager: &ModelManager, model: &Model) -> String {
    match model {
        Model::Absent => text("No model", "没有模型").to_owned(),
        Model::Loading(progress) => loading_chosen(manager, *progress),
        Model::Ready(card) => say!("{} · ready", "{} · 已就绪", card.name),
        Model::Failed(_) => text("Model not running", "模型未运行").to_owned(),
    }
}

/// A download in the page's bar: `name 43% · 9 min`.
pub fn downloading(entry: &Entry) -> String {
    let share = words::percent(part(entry.progress.done, entry.progress.total), 0);
    let name = &entry.stored.facts.name;
    match entry.left() {
        Some(seconds) if !entry.progress.waiting => {
            format!("{name} {share} · {}", duration(seconds))
        }
        _ => format!("{name} {share}"),
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
        return text("No picture yet.", "还没有图片。").to_owned();
    };
    let (found, own) = candidates.counts();
    let left_out = candidates.left_out;
    match &picture.look {
        LookState::Waiting if found > 0 => {
            say!("{}, found earlier.", "之前找到了 {}。", objects(found))
        }
        LookState::Waiting if !matches!(model, Model::Ready(_)) => text(
            "Boxes appear once the model is loaded.",
            "模型加载后就会显示框。",
        )
        .to_owned(),
        LookState::Waiting => text("Waiting…", "等待中…").to_owned(),
        LookState::Looking(progress) => looking(*progress),
        LookState::Failed(_) => text(
            "No boxes could be found in this picture.",
            "无法在这张图片中找框。",
        )
        .to_owned(),
        LookState::Done if found == 0 && own == 0 => say!(
            "No objects above {}. Lower the confidence, switch to “Parts too”, or draw a box.",
            "没有置信度高于 {} 的物体。可以降低置信度、改用“也找部件”，或者自己画框。",
            words::number(f64::from(filter.score), 2)
        ),
        LookState::Done if left_out > 0 => say!(
            "{} found; the chat can use the best {}.",
            "找到了 {}；对话可以使用其中最好的 {} 个。",
            objects(found + left_out),
            MAX_BOXES - own
        ),
        LookState::Done => {
            let time = picture.milliseconds.map_or(0.0, |t| t.total()) / 1000.0;
            say!(
                "Found {} in {} s.",
                "找到了 {}，用时 {} 秒。",
                objects(found),
                words::number(time, 1)
            )
        }
    }
}

/// While a file is being decoded.
pub const OPENING: Word = || text("Opening the picture…", "正在打开图片…");

fn looking(progress: Option<Progress>) -> String {
    say!(
        "Looking for objects…{}",
        "正在寻找物体…{}",
        suffix(progress)
    )
}

/// What a turn waits for before the first word of its answer.
pub fn waiting(turn: &Turn, model: &Model, picture: Option<&Picture>) -> String {
    match &turn.phase {
        Phase::Queued => match model {
            Model::Ready(_) => match picture.map(|p| &p.look) {
                Some(LookState::Looking(progress)) => looking(*progress),
                _ => looking(None),
            },
            Model::Failed(_) => text(
                "Waits until the model is started again.",
                "等待模型重新启动。",
            )
            .to_owned(),
            Model::Loading(_) | Model::Absent => text(
                "Runs as soon as the model is loaded.",
                "模型加载后立即运行。",
            )
            .to_owned(),
        },
        Phase::Looking => text("Looking at the picture…", "正在看图片…").to_owned(),
        Phase::Reading(progress) => say!(
            "Reading the question…{}",
            "正在读问题…{}",
            suffix(*progress)
        ),
        _ => String::new(),
    }
}

/// The note below an answer that did not end as usual.
pub fn outcome(turn: &Turn) -> Option<String> {
    let is_empty = (turn.spans.iter()).all(|s| s.text.trim().is_empty() && s.objects.is_empty());
    match &turn.phase {
        Phase::Stopped if turn.spans.is_empty() => {
            Some(text("Stopped before the first word.", "在第一个词之前停止了。").to_owned())
        }
        Phase::Stopped => Some(text("Stopped.", "已停止。").to_owned()),
        Phase::Failed(_) => Some(text("This answer failed.", "回答失败。").to_owned()),
        Phase::Done => match &turn.answer {
            Some(answer) if answer.stop == StopReason::Length => Some(say!(
                "Stopped at the length limit ({}).",
                "达到长度上限（{}），已停止。",
                tokens(answer.tokens)
            )),
            _ if is_empty => {
                Some(text("The model said nothing.", "模型没有说任何内容。").to_owned())
            }
            _ => None,
        },
        _ => None,
    }
}

/// An ended answer for a screen reader.
pub fn spoken(turn: &Turn) -> String {
    let said = answer::plain(&turn.pieces());
    match &turn.phase {
        Phase::Failed(_) => String::new(),
        Phase::Stopped => say!("{said} Stopped.", "{said} 已停止。"),
        _ => said,
    }
}

/// The name of a phrase for a screen reader.
pub fn phrase_name(phrase: &Phrase) -> String {
    let words = phrase.text.trim();
    match phrase.objects.len() {
        0 => say!("{words}, no box", "{words}，没有框"),
        n => say!(
            "{words}, {}, show in the picture",
            "{words}，{}，在图片中显示",
            boxes(n)
        ),
    }
}

/// The name of the picture for a screen reader; `phrases` are those of the shown answer.
pub fn picture_name(boxes: usize, phrases: Option<&[Phrase]>) -> String {
    let boxes = self::boxes(boxes);
    match phrases {
        Some(phrases) => {
            let phrases: Vec<_> = phrases.iter().map(|p| p.text.trim()).collect();
            say!(
                "The picture, with {boxes}. Mentioned: {}",
                "图片，有 {boxes}。提到：{}",
                phrases.join(", ")
            )
        }
        None => say!("The picture, with {boxes}", "图片，有 {boxes}"),
    }
}

/// Note about proposals that exceed the limit of the prompt.
pub fn left_out(candidates: &Candidates) -> Option<String> {
    let left_out = candidates.left_out;
    (left_out > 0).then(|| {
        let left_out = words::count(left_out);
        say!(
            "{left_out} more pass, but {MAX_BOXES} is the most the chat can use.",
            "另有 {left_out} 个符合条件，但对话最多使用 {MAX_BOXES} 个。"
        )
    })
}

/// The value of the slider for the IoU threshold.
pub fn nms(threshold: f64) -> String {
    match threshold {
        all if all >= 1.0 => text("keep all", "全部保留").to_owned(),
        threshold => words::number(threshold, 2),
    }
}

/// The value of the slider for the temperature.
pub fn temperature(sampling: Sampling) -> String {
    match sampling.temperature {
        0.0 => text("the most likely word", "最可能的词").to_owned(),
        temperature => words::number(f64::from(temperature), 2),
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
            text(
                "The browser found no graphics card that it can use; hardware acceleration may be off.",
                "浏览器没有找到可用的显卡；硬件加速可能已关闭。",
            )
        } else if is_secure {
            text(
                "This browser does not offer WebGPU here.",
                "此浏览器在这里不提供 WebGPU。",
            )
        } else {
            text(
                "This page did not come over https, and browsers then keep the graphics card and storage from it.",
                "此页面不是通过 https 打开的，因此浏览器不让它使用显卡和存储空间。",
            )
        };
        say!(
            "Runs on the main processor (CPU), not on a graphics card, so it is slower. {reason}",
            "在处理器（CPU）上运行，没有使用显卡，所以较慢。{reason}"
        )
    } else {
        say!(
            "The graphics card is imitated in software here{}, so it is slower.",
            "这里的显卡由软件模拟{}，所以较慢。",
            adapter(card)
        )
    })
}

/// What the loaded model computes on, in the page's About.
pub fn computes_on(card: &ModelCard) -> String {
    match (card.device.as_str(), card.software) {
        ("cpu", _) => text(
            "The main processor (CPU) of this device",
            "本设备的处理器（CPU）",
        )
        .to_owned(),
        (_, true) => say!(
            "A graphics card imitated in software{}",
            "由软件模拟的显卡{}",
            adapter(card)
        ),
        (_, false) => say!("The graphics card{}", "显卡{}", adapter(card)),
    }
}

/// ` (name)` of the adapter, or nothing where the browser hides its name.
fn adapter(card: &ModelCard) -> String {
    match card.adapter.as_str() {
        "" | "WebGPU adapter" => String::new(),
        name => say!(" ({name})", "（{name}）"),
    }
}

/// The state of the recovery; empty where there is nothing to say.
pub fn recovery(recovery: Recovery) -> &'static str {
    match recovery {
        Recovery::None => "",
        Recovery::Restoring => text(
            "The GPU was reset (driver, sleep or memory). Restoring…",
            "GPU 已被重置（驱动、休眠或内存）。正在恢复…",
        ),
        Recovery::Restarting => text(
            "The model stopped. Picture and chat are safe. Restoring…",
            "模型已停止。图片和对话都安全。正在恢复…",
        ),
        Recovery::Restored => text("Restored.", "已恢复。"),
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
    let name = manager.chosen_name();
    let name = name.unwrap_or(text("this model", "此模型"));
    say!(
        "Not enough GPU memory for {name}. Your picture and chat are safe.",
        "GPU 内存不足以运行 {name}。你的图片和对话都安全。"
    )
}

/// The small print of an error.
pub fn error_code(fault: &Fault) -> String {
    say!("Error code: {:?}", "错误代码：{:?}", fault.code)
}

/// One line about the speed of an answer.
pub fn speed(answer: &Answer) -> String {
    let mut line = tokens(answer.tokens);
    let after_first = answer.tokens.saturating_sub(1);
    if let Some(rate) = per_second(after_first, answer.milliseconds.decode) {
        let rate = words::number(rate, 1);
        line.push_str(&say!(" · {rate} a second", " · 每秒 {rate} 个"));
    }
    let first = milliseconds(answer.milliseconds.first_token);
    line.push_str(&say!(
        " · first word after {first}",
        " · {first}后出现第一个词"
    ));
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
        0.0 => text("kept from before", "沿用之前的结果").to_owned(),
        look => milliseconds(look),
    };
    let prefill = match per_second(answer.prefill_tokens, time.prefill) {
        Some(rate) => say!(
            "{} in {} · {} a second",
            "{}，用时 {} · 每秒 {} 个",
            tokens(answer.prefill_tokens),
            milliseconds(time.prefill),
            words::number(rate, 0)
        ),
        None => tokens(answer.prefill_tokens),
    };
    let stop = match answer.stop {
        StopReason::End => text("the model ended it", "模型自行结束"),
        StopReason::Length => text("length limit", "达到长度上限"),
        StopReason::Stopped => text("stopped by you", "被你停止"),
    };
    let found = found.map(|time| {
        let all = milliseconds(time.total());
        let prepare = milliseconds(time.prepare);
        (
            text("Finding boxes", "找框"),
            say!(
                "{all}, of which {prepare} to prepare",
                "{all}，其中准备 {prepare}"
            ),
        )
    });
    let memory = answer.gpu_bytes.map(|bytes| {
        (
            text("GPU memory", "GPU 内存"),
            say!("{} allocated by this page", "本页面已分配 {}", size(bytes)),
        )
    });
    let rows = [
        (text("Looking at the picture", "看图片"), look),
        (text("Reading", "读问题"), prefill),
        (text("Writing", "写回答"), milliseconds(time.decode)),
        (text("End", "结束"), stop.to_owned()),
        (text("Boxes given", "给出的框"), words::count(boxes)),
        (text("Exact words", "实际措辞"), answer.prompt.clone()),
    ];
    found.into_iter().chain(memory).chain(rows).collect()
}

fn per_second(tokens: u32, milliseconds: f64) -> Option<f64> {
    (tokens > 0 && milliseconds > 0.0).then(|| f64::from(tokens) * 1000.0 / milliseconds)
}

fn milliseconds(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        say!("{} ms", "{} 毫秒", words::number(milliseconds, 0))
    } else {
        say!("{} s", "{} 秒", words::number(milliseconds / 1000.0, 1))
    }
}

/// ` 60%`, or nothing where the total is unknown.
fn suffix(progress: Option<Progress>) -> String {
    match progress.filter(|p| p.total > 0) {
        Some(progress) => {
            let share = words::percent(part(progress.done, progress.total), 0);
            say!(" {share}", "{share}")
        }
        None => String::new(),
    }
}

/// Whole percents.
pub fn percent(done: u64, total: u64) -> u64 {
    (done * 100).checked_div(total).unwrap_or(0).min(100)
}

/// `2.1 of 4.1 MB`.
fn amount(done: u64, total: u64) -> String {
    let (done, total) = (words::bare_bytes(done, total), words::bytes(total, total));
    say!("{done} of {total}", "{done} / {total}")
}

/// `4.1 GB`.
pub fn size(bytes: u64) -> String {
    words::bytes(bytes, bytes)
}

fn duration(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ 0..60 => say!("{seconds} s", "{seconds} 秒"),
        seconds @ 60..7_200 => say!("{} min", "{} 分钟", seconds.div_ceil(60)),
        seconds => say!("{} h", "{} 小时", seconds.div_ceil(3_600)),
    }
}

fn parts(count: u32) -> String {
    match plural(count as usize) {
        Plural::One => text("one part", "有一部分").to_owned(),
        Plural::Other => say!("{count} parts", "有 {count} 部分"),
    }
}

/// `3 boxes`.
pub fn boxes(count: usize) -> String {
    let n = words::count(count);
    match plural(count) {
        Plural::One => say!("{n} box", "{n} 个框"),
        Plural::Other => say!("{n} boxes", "{n} 个框"),
    }
}

/// `3 objects`.
fn objects(count: usize) -> String {
    let n = words::count(count);
    match plural(count) {
        Plural::One => say!("{n} object", "{n} 个物体"),
        Plural::Other => say!("{n} objects", "{n} 个物体"),
    }
}

/// `3 tokens`.
fn tokens(count: u32) -> String {
    let n = words::count(count as usize);
    match plural(count as usize) {
        Plural::One => say!("{n} token", "{n} 个词元"),
        Plural::Other => say!("{n} tokens", "{n} 个词元"),
    }
}

/// `43%`.
pub fn whole_percent(percent: u64) -> String {
    words::percent(percent as f64 / 100.0, 0)
}

/// The share of whole percents that is done.
fn part(done: u64, total: u64) -> f64 {
    percent(done, total) as f64 / 100.0
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
                fit: None,
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
        let unknown = Model::Loading(progress(Stage::Fetch, 3, 0));
        let cases = [
            (false, Model::Absent, "No model"),
            (false, Model::Loading(None), "Loading nano…"),
            (true, unknown, "Loading big…"),
            (false, fetch.clone(), "nano 2.1 of 4.1 MB"),
            (true, fetch, "big 2.1 of 4.1 MB"),
            (false, upload, "Checking and uploading 1.0 of 2.0 kB"),
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
            (downloading(None, None, false), "2.0 GB of 4.0 GB · 50%"),
            (
                downloading(Some(5e6), Some(410.0), false),
                "2.0 GB of 4.0 GB · 50% · 5.0 MB/s · about 7 min left",
            ),
            (Status::Paused, "Paused. 2.0 GB is kept."),
            (Status::Ready, "On this device"),
            (Status::Loading, "Loading big…"),
            (Status::Loaded, "Loaded"),
            (Status::InOtherTab, "Model is in use in another tab."),
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
        assert_eq!(super::downloading(&entry), "big 50%");
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
                "Looking for objects… 33%",
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
                "Reading the question… 25%",
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
            question_tokens: 0,
            gpu_bytes: None,
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
        let on_gpu = Answer {
            gpu_bytes: Some(107_000_000),
            ..answer
        };
        let rows = figures(&on_gpu, 7, None);
        assert_eq!(
            rows[0],
            ("GPU memory", "107.0 MB allocated by this page".to_owned())
        );
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
