//! The texts about batches and their review.

use crate::chat::batch::{Counts, ItemState, Status, TaskKind, Why};
use crate::chat::words::{Word, say, text};

/// The button that opens the batch, and its title.
pub const BATCH: Word = || text("Batch", "批处理");
/// The way to a batch from the empty page.
pub const MANY: Word = || text("Work through many pictures", "批量处理多张图片");
/// What it is for.
pub const NOTE: Word = || {
    text(
        "One task for many pictures. They are worked on one after the other, and everything stays on this device.",
        "对多张图片执行同一个任务。图片会逐张处理，所有内容都留在本设备上。",
    )
};
/// Button for files.
pub const FILES: Word = || text("Choose pictures", "选择图片");
/// Button for a folder.
pub const FOLDER: Word = || text("Choose a folder", "选择文件夹");
/// Name of the choice of the task.
pub const TASK: Word = || text("Task", "任务");
/// Name of the field for its words.
pub const WORDS: Word = || text("Words of the task", "任务的文字");
/// The switch for the history.
pub const IN_HISTORY: Word = || {
    text(
        "Also keep every answer in the history",
        "同时把每个回答存入历史记录",
    )
};
/// Button that begins.
pub const START: Word = || text("Start", "开始");
/// Button that takes the chosen pictures back.
pub const CLEAR: Word = || text("Clear", "清除");
/// While pictures are stored before the start.
pub const STORING: Word = || text("Storing the pictures…", "正在存储图片…");
/// Files without a picture among them.
pub const NO_PICTURES: Word = || text("There is no picture among them.", "其中没有图片。");
/// Button that works on.
pub const RESUME: Word = || text("Resume", "继续");
/// Button that pauses.
pub const PAUSE: Word = || text("Pause", "暂停");
/// Button that ends the batch.
pub const CANCEL: Word = || text("Cancel the rest", "取消其余图片");
/// Button that tries again.
pub const RETRY_FAILED: Word = || text("Retry failed", "重试失败的");
/// Button that works on what was left out.
pub const RETRY_SKIPPED: Word = || text("Work on skipped", "处理跳过的");
/// Button of a picture.
pub const SKIP: Word = || text("Skip", "跳过");
/// Button that shows a picture with its answer on the page.
pub const OPEN: Word = || text("Open", "打开");
/// Button that shows the batch.
pub const SHOW: Word = || text("Show", "显示");
/// Button that makes room for another batch.
pub const NEW: Word = || text("New batch", "新建批处理");
/// What it costs.
pub const NEW_WARNING: Word = || {
    text(
        "The results of this batch are then deleted. Save them first.",
        "这批结果随后会被删除。请先保存。",
    )
};
/// Button that agrees to it.
pub const DELETE: Word = || text("Delete and begin anew", "删除并重新开始");
/// Button that does not.
pub const KEEP: Word = || text("Keep it", "保留");
/// Name of the group of files.
pub const FILES_OUT: Word = || text("Save the results", "保存结果");
/// Button that saves lines.
pub const SAVE_LINES: Word = || text("Save JSONL", "保存 JSONL");
/// Button that saves the archive.
pub const SAVE_ZIP: Word = || text("Save ZIP", "保存 ZIP");
/// What the archive holds.
pub const ZIP_NOTE: Word = || {
    text(
        "The ZIP holds COCO, YOLO, Pascal VOC, the list of labels and the JSONL. Boxes without a label are saved as “object”.",
        "ZIP 中有 COCO、YOLO、Pascal VOC、标签列表和 JSONL。没有标签的框保存为“object”。",
    )
};
/// Switch of the archive.
pub const WITH_PICTURES: Word = || text("With the pictures", "包含图片");
/// Switch of both files.
pub const ONLY_ACCEPTED: Word = || text("Only accepted boxes", "只包含已接受的框");
/// Where the pictures do not fit into the archive.
pub const TOO_MUCH: &str = "the pictures are too large for one archive";
/// What helps then.
pub const WITHOUT_PICTURES: &str = "Save the ZIP without the pictures";
/// A batch that another tab has.
pub const IS_ELSEWHERE: &str = "it is open in another tab";
/// What helps then.
pub const CLOSE_OTHER: &str = "Close that tab, or go on there";
/// A batch that another tab left.
pub const WAS_ELSEWHERE: &str = "another tab left one that is kept";
/// What helps then.
pub const SAVE_OTHER: &str = "Save its results, or begin anew in its place";
/// In place of the batch while another tab has it.
pub const ELSEWHERE: Word = || {
    text(
        "The batch is open in another tab. Close that tab to work on it here.",
        "批处理正在另一个标签页中打开。关闭那个标签页即可在这里处理。",
    )
};
/// The list of pictures.
pub const PICTURES: Word = || text("Pictures of the batch", "这批图片");
/// While the model is loading.
pub const WAITS_FOR_MODEL: Word = || text("Waits for the model.", "正在等待模型。");
/// While the user's question runs.
pub const WAITS_FOR_USER: Word = || text("Waits for your question.", "正在等待你的问题完成。");
/// Where results are in memory only.
pub const NOT_KEPT: Word = || {
    text(
        "The browser keeps nothing here: save the results before you leave the page.",
        "浏览器不会在这里保存任何内容：离开页面前请先保存结果。",
    )
};

/// Button that begins the review.
pub const REVIEW: Word = || text("Review", "审核");
/// Button that ends it.
pub const BACK: Word = || text("Back to the batch", "返回批处理");
/// Button that accepts.
pub const ACCEPT: Word = || text("Accept", "接受");
/// Button that rejects.
pub const REJECT: Word = || text("Reject", "拒绝");
/// Button that draws.
pub const DRAW: Word = || text("Draw a missing box", "画出漏掉的框");
/// Button that adds the drawn box.
pub const ADD: Word = || text("Add the box", "添加此框");
/// Button that takes a step back.
pub const UNDO: Word = || text("Undo", "撤销");
/// Button for the picture before.
pub const PREVIOUS: Word = || text("Previous picture", "上一张图片");
/// Button for the picture behind.
pub const NEXT: Word = || text("Next picture", "下一张图片");
/// Name of the order.
pub const ORDER: Word = || text("Order", "顺序");
/// Order over all pictures.
pub const LEAST_SURE: Word = || text("Least certain first", "最不确定的在前");
/// Order by pictures.
pub const BY_PICTURE: Word = || text("Picture by picture", "逐张图片");
/// Name of the group of labels.
pub const LABELS: Word = || text("Label", "标签");
/// Field for another label.
pub const OTHER_LABEL: Word = || text("Another label", "其他标签");
/// Button that gives it.
pub const GIVE: Word = || text("Give", "赋予");
/// The keys of the review.
pub const KEYS: Word = || {
    text(
        "Space accepts, X rejects, 1 to 9 give a label, R draws a missing box, left and right go to the previous and next box, Ctrl with them to the previous and next picture, Ctrl+Z takes back.",
        "空格键接受，X 拒绝，1 到 9 赋予标签，R 画出漏掉的框，左右方向键切换到上一个和下一个框，按住 Ctrl 则切换到上一张和下一张图片，Ctrl+Z 撤销。",
    )
};
/// The keys while a box is drawn.
pub const DRAW_KEYS: Word = || {
    text(
        "Drag on the picture, or move the box with the arrow keys and size it with Shift and the arrow keys. Enter or a number adds it, Escape drops it.",
        "在图片上拖动，或用方向键移动框，用 Shift 加方向键调整大小。Enter 或数字键添加，Escape 放弃。",
    )
};
/// Nothing is done yet.
pub const NOTHING_TO_REVIEW: Word =
    || text("There is no answer to review yet.", "还没有可审核的回答。");
/// A box without a label.
pub const NO_LABEL: Word = || text("No label", "没有标签");
/// An answer without boxes.
pub const NO_BOXES: Word = || text("No boxes", "没有框");

/// The name of a kind of task.
pub fn task(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Find => text("Find…", "查找…"),
        TaskKind::Count => text("Count…", "计数…"),
        TaskKind::Describe => text("Describe", "描述"),
        TaskKind::NameAll => text("Name everything", "全部命名"),
        TaskKind::Free => text("Ask in your own words", "用自己的话提问"),
    }
}

/// The placeholder of its words.
pub fn placeholder(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Find => text(
            "What to find, for example: cat; tree",
            "要找什么，例如：cat; tree",
        ),
        TaskKind::Count => text(
            "What to count, for example: apples",
            "要数什么，例如：apples",
        ),
        TaskKind::Free => text(
            "The same question for every picture",
            "对每张图片问同一个问题",
        ),
        TaskKind::Describe | TaskKind::NameAll => "",
    }
}

/// The state of a picture.
pub fn state(state: &ItemState) -> &'static str {
    match state {
        ItemState::Waiting => text("Waiting", "等待中"),
        ItemState::Running => text("Running", "运行中"),
        ItemState::Done(_) => text("Done", "完成"),
        ItemState::Failed(_) => text("Failed", "失败"),
        ItemState::Skipped(Why::Duplicate) => text(
            "Skipped: the same file is there already",
            "已跳过：同样的文件已经有了",
        ),
        ItemState::Skipped(Why::User | Why::Cancelled) => text("Skipped", "已跳过"),
    }
}

/// `5 pictures`.
pub fn pictures(count: usize) -> String {
    match count {
        1 => text("1 picture", "1 张图片").to_owned(),
        count => say!("{count} pictures", "{count} 张图片"),
    }
}

/// The button that takes the pictures that were opened together.
pub fn group(count: usize) -> String {
    say!("The {count} opened pictures", "已打开的 {count} 张图片")
}

/// `3 boxes`.
pub fn boxes(count: usize) -> String {
    match count {
        0 => NO_BOXES().to_owned(),
        1 => text("1 box", "1 个框").to_owned(),
        count => say!("{count} boxes", "{count} 个框"),
    }
}

/// How many pictures are chosen, and how many were left out.
pub fn chosen(count: usize, left_out: usize) -> String {
    match left_out {
        0 => say!("{} chosen.", "已选择 {}。", pictures(count)),
        1 => say!(
            "{} chosen, 1 other file left out.",
            "已选择 {}，跳过 1 个其他文件。",
            pictures(count)
        ),
        other => say!(
            "{} chosen, {other} other files left out.",
            "已选择 {}，跳过 {other} 个其他文件。",
            pictures(count)
        ),
    }
}

/// Where the page stands: the counts and the milliseconds left.
pub fn progress(status: Status, counts: Counts, left: Option<f64>) -> String {
    let mut line = say!(
        "{} of {} done",
        "已完成 {}，共 {}",
        counts.done,
        counts.all()
    );
    for (count, what) in [
        (counts.failed, text("failed", "失败")),
        (counts.skipped, text("skipped", "跳过")),
    ] {
        if count > 0 {
            line.push_str(&say!(", {count} {what}", "，{count} 张{what}"));
        }
    }
    let end = match (status, left) {
        (Status::Running, Some(left)) => say!(", about {} left.", "，大约还需 {}。", time(left)),
        (Status::Pausing, _) => {
            text(". Pauses after this picture.", "。处理完这张图片后暂停。").to_owned()
        }
        (Status::Paused, _) => text(". Paused.", "。已暂停。").to_owned(),
        (Status::Running | Status::Finished, _) => text(".", "。").to_owned(),
    };
    line + &end
}

/// Milliseconds in words.
fn time(milliseconds: f64) -> String {
    let seconds = (milliseconds / 1000.0).ceil().max(1.0);
    match seconds {
        s if s < 90.0 => say!("{s:.0} s", "{s:.0} 秒"),
        s if s < 5_400.0 => say!("{:.0} min", "{:.0} 分钟", (s / 60.0).ceil()),
        s => say!("{:.1} h", "{:.1} 小时", s / 3_600.0),
    }
}

/// How far the review is.
pub fn reviewed(decided: usize, all: usize) -> String {
    say!("{decided} of {all} reviewed", "已审核 {decided} / {all}")
}

/// What is shown: the name of the picture and its place.
pub fn place(index: usize, count: usize, name: &str) -> String {
    say!(
        "Picture {} of {count}: {name}",
        "第 {} 张图片，共 {count} 张：{name}",
        index + 1
    )
}

/// How sure the model is.
pub fn certainty(certainty: f32) -> String {
    say!("{:.0} % certain", "{:.0}% 确定", certainty * 100.0)
}

/// A verdict in one word.
pub fn verdict(accepted: Option<bool>) -> &'static str {
    match accepted {
        None => text("Open", "打开"),
        Some(true) => text("Accepted", "已接受"),
        Some(false) => text("Rejected", "已拒绝"),
    }
}

/// A label that a key gives.
pub fn key_label(place: usize, label: &str) -> String {
    format!("{} {label}", place + 1)
}

/// More pictures than a batch takes.
pub fn too_many(count: usize, most: usize) -> String {
    say!(
        "{count} pictures are too many for one batch; {most} are the most",
        "一批不能有 {count} 张图片，最多 {most} 张"
    )
}

/// What is saved.
pub fn scope(only_accepted: bool) -> &'static str {
    match only_accepted {
        true => text(
            "Accepted and corrected boxes are saved.",
            "保存已接受和修正过的框。",
        ),
        false => text(
            "All boxes that the model named are saved.",
            "保存模型提到的所有框。",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_counts_and_time() {
        let counts = |done, failed, skipped, left| Counts {
            done,
            failed,
            skipped,
            left,
        };
        let cases = [
            (Status::Running, counts(0, 0, 0, 5), None, "0 of 5 done."),
            (
                Status::Running,
                counts(2, 1, 0, 2),
                Some(20_400.0),
                "2 of 5 done, 1 failed, about 21 s left.",
            ),
            (
                Status::Running,
                counts(1, 0, 0, 400),
                Some(4e6),
                "1 of 401 done, about 67 min left.",
            ),
            (
                Status::Paused,
                counts(1, 0, 1, 1),
                Some(2e7),
                "1 of 3 done, 1 skipped. Paused.",
            ),
            (
                Status::Pausing,
                counts(1, 0, 0, 1),
                None,
                "1 of 2 done. Pauses after this picture.",
            ),
            (
                Status::Finished,
                counts(1, 1, 0, 0),
                None,
                "1 of 2 done, 1 failed.",
            ),
        ];
        for (status, counts, left, expected) in cases {
            assert_eq!(progress(status, counts, left), expected);
        }
        assert_eq!(time(2e7), "5.6 h");
        assert_eq!(chosen(1, 2), "1 picture chosen, 2 other files left out.");
    }
}
