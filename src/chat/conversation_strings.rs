//! The texts around questions and answers: the text box, the actions below an answer, and their
//! messages.

use crate::chat::answer::{AnswerPiece, Phrase};
use crate::chat::candidates::{Candidate, Candidates};
use crate::chat::certainty::Certainty;
use crate::chat::conversation::Turn;
use crate::chat::evidence::Evidence;
use crate::chat::question::Cited;
use crate::chat::strings;
use crate::chat::words::{self, Plural, Word, plural, say, text};
use crate::protocol::LookTime;

/// Note below the text box.
pub const HONEST: Word = || {
    text(
        "Each question is read on its own. Answers and boxes may be wrong.",
        "每个问题都单独处理。回答和框都可能有错。内置模型只懂英文，并用英文回答。",
    )
};
/// Button that stops an answer.
pub const STOP: Word = || text("Stop", "停止");
/// The same while the engine has not confirmed.
pub const STOPPING: Word = || text("Stopping", "正在停止");
/// Button that sends.
pub const SEND: Word = || text("Send", "发送");
/// Button that asks an edited question.
pub const SEND_EDITED: Word = || text("Ask this instead", "改问这个");
/// Button that goes to the end of the conversation.
pub const TO_LATEST: Word = || text("To latest", "回到最新");
/// Button that asks a question again.
pub const TRY_AGAIN: Word = || text("Try again", "重试");
/// The same where the next attempt is sampled.
pub const OTHER_WORDING: Word = || text("Another wording", "换个说法");
/// Button that lets an answer go on.
pub const CONTINUE: Word = || text("Continue", "继续");
/// Button that changes a question.
pub const EDIT: Word = || text("Edit this question", "修改这个问题");
/// Button that leaves the editing of a question.
pub const CANCEL: Word = || text("Cancel", "取消");
/// Note while a question is being edited.
pub const EDITING: Word = || {
    text(
        "You are changing an earlier question. Sending it removes the answers after it.",
        "你正在修改之前的问题。发送后，它后面的回答会被移除。",
    )
};
/// Note after an edited question was sent.
pub const DROPPED: Word = || {
    text(
        "The earlier question and what followed were removed.",
        "之前的问题及其后的内容已移除。",
    )
};
/// Button that brings them back.
pub const UNDO: Word = || text("Undo", "撤销");
/// Opens the menu of forms.
pub const COPY: Word = || text("Copy", "复制");
/// After copying.
pub const COPIED: Word = || text("Copied", "已复制");
/// Where the browser refuses.
pub const NOT_COPIED: Word = || {
    text(
        "The browser did not allow copying. Select the words and copy them by hand.",
        "浏览器不允许复制。请选中文字后手动复制。",
    )
};
/// Opens the words for the model.
pub const EXACT: Word = || text("Exact words", "实际措辞");
/// Mark beside it where they were changed.
pub const CHANGED: Word = || text("changed", "已修改");
/// Heading of the words for the model.
pub const EXACT_TITLE: Word = || text("The exact words for the model", "发给模型的实际措辞");
/// Note about them.
pub const EXACT_NOTE: Word = || {
    text(
        "The model was trained with these words. Change them if you like; <obj3> stands for box 3.",
        "模型是用这样的英文句子训练的。你可以修改它；<obj3> 代表 3 号框。",
    )
};
/// Button that brings back the usual words.
pub const EXACT_RESET: Word = || text("Back to the usual words", "恢复默认措辞");
/// Opens the settings of sampling.
pub const SETTINGS: Word = || text("How words are chosen", "如何选词");
/// The limit of an answer.
pub const MAX_TOKENS: Word = || {
    text(
        "Longest answer, in tokens (16 to 2048)",
        "回答的最大长度，以词元计（16 到 2048）",
    )
};
/// Button that restores a setting.
pub const RESET: Word = || text("Reset", "重置");
/// Name of the menu of kinds of question.
pub const MENU: Word = || text("Kinds of question", "问题类型");
/// Button that names every box.
pub const NAME_ALL: Word = || text("Name everything", "全部命名");
/// Title of that button.
pub const NAME_ALL_TITLE: Word = || {
    text(
        "Ask the model for the name of every box, one after the other",
        "让模型逐个说出每个框里是什么",
    )
};
/// Name of the strip of crops.
pub const EVIDENCE: Word = || text("The boxes of this answer", "这个回答中的框");
/// Heads of the table of a detection answer.
pub const TABLE_HEADS: [Word; 3] = [
    || text("Found", "找到的物体"),
    || text("Boxes", "框"),
    || text("In the picture", "在图片中"),
];
/// In place of the number of boxes where there are none.
pub const NONE: Word = || text("none", "无");
/// Button that highlights the boxes of a row.
pub const SHOW: Word = || text("Show", "显示");
/// Opens the boxes of a phrase.
pub const LINKS: Word = || text("Change its boxes", "修改它的框");
/// Restores the model's boxes of a phrase.
pub const LINKS_RESET: Word = || text("Back to the model's boxes", "恢复模型给出的框");
/// Adds the boxes that are selected in the picture.
pub const LINKS_ADD_SELECTED: Word = || text("Add the selected boxes", "添加选中的框");
/// First row of the list of boxes to add.
pub const LINKS_ADD: Word = || text("Add a box", "添加框");
/// Closes the boxes of a phrase.
pub const DONE: Word = || text("Done", "完成");
/// Mark on a phrase with boxes of the user.
pub const EDITED: Word = || text("your boxes", "你选的框");
/// Mark on a phrase without a box that exists.
pub const NO_BOX: Word = || text("no box", "没有框");
/// Name of the suggestions.
pub const SUGGESTIONS: Word = || text("Suggested questions", "建议的问题");
/// Mark of a slow device, in the model's button.
pub const SLOW: Word = || {
    text(
        "Runs on the main processor (CPU), not on a graphics card",
        "在处理器（CPU）上运行，没有使用显卡",
    )
};

/// Button that removes a kind from the draft.
pub const REMOVE: Word = || text("Remove", "移除");

/// The name of a button with what it acts on.
pub fn of(action: &str, what: &str) -> String {
    say!("{action}: {what}", "{action}：{what}")
}

/// How sure the model was of the boxes of a phrase.
pub fn certainty(certainty: &Certainty) -> String {
    let percent = |probability: f32| words::percent(f64::from(probability), 0);
    let Certainty {
        object,
        probability,
        runner_up,
    } = certainty;
    let first = percent(*probability);
    match runner_up {
        Some(other) => say!(
            "Box {object}: {first}, next box {}: {}. Hold Alt to see it",
            "{object} 号框：{first}，其次是 {} 号框：{}。按住 Alt 查看",
            other.object,
            percent(other.probability)
        ),
        None => say!("Box {object}: {first}", "{object} 号框：{first}"),
    }
}

/// The title of the boxes of a phrase.
pub fn links_title(phrase: &Phrase) -> String {
    let text = phrase.text.trim();
    say!("Boxes of “{text}”", "“{text}”的框")
}

/// The mark where the answer says another number than it links boxes.
pub fn mismatch(said: u32, phrase: &Phrase) -> String {
    let shown = phrase.objects.len();
    say!(
        "says {said}, shows {shown}",
        "说 {said} 个，显示 {shown} 个"
    )
}

/// The mark on a phrase some of whose boxes do not exist.
pub fn missing(phrase: &Phrase) -> Option<String> {
    let n = phrase.missing;
    match (n, phrase.objects.is_empty()) {
        (0, _) => None,
        (_, true) => Some(NO_BOX().to_owned()),
        (_, false) => Some(match plural(n) {
            Plural::One => say!("{n} box does not exist", "{n} 个框不存在"),
            Plural::Other => say!("{n} boxes do not exist", "{n} 个框不存在"),
        }),
    }
}

/// The name of a phrase for a screen reader.
pub fn phrase_name(phrase: &Phrase, said: Option<u32>) -> String {
    let mut name = strings::phrase_name(phrase);
    if let Some(said) = said {
        name.push_str(&say!(", the answer says {said}", "，回答说有 {said} 个"));
    }
    if phrase.edited {
        name.push_str(text(", boxes chosen by you", "，框由你选择"));
    }
    name
}

/// The name of a crop for a screen reader.
pub fn evidence_name(evidence: &Evidence) -> String {
    let phrase = evidence.phrase.text.trim();
    say!(
        "Box {}, {phrase}, show in the picture",
        "{} 号框，{phrase}，在图片中显示",
        evidence.number
    )
}

/// After the crops where there are more boxes.
pub fn more(count: usize) -> String {
    let count = words::count(count);
    say!("and {count} more", "还有 {count} 个")
}

/// A box in the draft: its number and what it is.
pub fn cited(cited: &Cited) -> String {
    match &cited.label {
        Some(label) => format!("{} {label}", cited.number),
        None => say!("Box {}", "{} 号框", cited.number),
    }
}

/// The button that removes a box from the draft or from a phrase.
pub fn remove_box(number: u32) -> String {
    say!("Remove box {number}", "移除 {number} 号框")
}

/// A box in a list of boxes.
pub fn option(number: usize, candidate: &Candidate) -> String {
    match &candidate.label {
        Some(label) => say!("Box {number}, {label}", "{number} 号框，{label}"),
        None => say!("Box {number}", "{number} 号框"),
    }
}

/// What the button [`CONTINUE`] does.
pub fn continues(limit: u32) -> String {
    let limit = words::count(limit as usize);
    say!(
        "The model starts over and may write up to {limit} tokens; the words so far stay until then.",
        "模型会从头开始，最多可写 {limit} 个词元；在此之前保留现有文字。"
    )
}

/// Which of several answers is shown.
pub fn version(turn: &Turn) -> String {
    format!("{} / {}", turn.version + 1, turn.versions())
}

/// While boxes are being named.
pub fn naming(done: usize, all: usize) -> String {
    let now = (done + 1).min(all);
    say!(
        "Naming box {now} of {all}",
        "正在命名第 {now} 个框，共 {all} 个"
    )
}

/// Whether the boxes of an answer differ from those for the next question.
pub fn boxes_changed(turn: &Turn, now: &Candidates) -> bool {
    turn.boxes
        .as_ref()
        .is_some_and(|then| !then.has_boxes_of(now))
}

/// The figures of an answer by name, with the boxes that it names and that do not exist.
pub fn figures(turn: &Turn, found: Option<LookTime>) -> Vec<(&'static str, String)> {
    let Some(answer) = &turn.answer else {
        return Vec::new();
    };
    let boxes = turn.boxes.as_ref().map_or(0, |b| b.boxes.len());
    let mut rows = strings::figures(answer, boxes, found);
    let missing: usize = crate::chat::answer::pieces(&turn.spans, boxes)
        .iter()
        .map(|piece| match piece {
            AnswerPiece::Phrase(phrase) => phrase.missing,
            AnswerPiece::Text(_) => 0,
        })
        .sum();
    if missing > 0 {
        rows.insert(
            rows.len() - 1,
            (
                text("Boxes that do not exist", "不存在的框"),
                words::count(missing),
            ),
        );
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::answer;
    use crate::chat::question::Draft;
    use crate::protocol::{Answer, AskTime, StopReason, TurnId};
    use crate::text::answer_parser::spans;

    #[test]
    fn boxes_that_do_not_exist_are_counted() {
        let mut turn = Turn::new(TurnId(0), String::new(), String::new(), Draft::default());
        assert!(figures(&turn, None).is_empty(), "no answer yet");
        let answer = |text: &str| Answer {
            prompt: String::new(),
            text: text.into(),
            spans: spans(text),
            tokens: 1,
            prefill_tokens: 1,
            question_tokens: 0,
            gpu_bytes: None,
            stop: StopReason::End,
            milliseconds: AskTime::default(),
        };
        for (text, expected) in [
            (
                "a <ground>cat</ground><objects><obj0><obj1></objects> <obj7>",
                Some("3"),
            ),
            ("nothing", None),
        ] {
            let answer = answer(text);
            turn.spans.clone_from(&answer.spans);
            turn.answer = Some(answer);
            let rows = figures(&turn, None);
            let found = rows
                .iter()
                .find(|(name, _)| *name == "Boxes that do not exist");
            assert_eq!(found.map(|(_, count)| count.as_str()), expected, "{text}");
        }
    }

    #[test]
    fn marks_on_a_phrase_say_what_is_wrong() {
        let phrase = |text: &str, boxes| match answer::pieces(&spans(text), boxes).remove(0) {
            AnswerPiece::Phrase(phrase) => phrase,
            AnswerPiece::Text(text) => panic!("{text}"),
        };
        let text = "<ground>two cats</ground><objects><obj0><obj5><obj6></objects>";
        for (boxes, expected) in [
            (0, Some("no box")),
            (3, Some("2 boxes do not exist")),
            (6, Some("1 box does not exist")),
            (7, None),
        ] {
            assert_eq!(
                missing(&phrase(text, boxes)).as_deref(),
                expected,
                "{boxes}"
            );
        }
        let mut one = phrase(text, 3);
        assert_eq!(mismatch(2, &one), "says 2, shows 1");
        one.edited = true;
        assert_eq!(
            phrase_name(&one, Some(2)),
            "two cats, 1 box, show in the picture, the answer says 2, boxes chosen by you"
        );
    }
}
