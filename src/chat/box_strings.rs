//! The texts about boxes: tools, zoom, the bar of the selection, the list and the filters.

use crate::chat::candidates::Candidates;
use crate::chat::strings;
use crate::chat::words::{self, Language, Word, language, say, text};
use crate::text::prompt::MAX_BOXES;

/// Tool that selects.
pub const SELECT: Word = || text("Select (V)", "选择（V）");
/// Button that selects the boxes that are most like the selected one.
pub const ALIKE: Word = || text("More like this", "选中相似的框");
/// Slider of the least likeness of the boxes that are selected.
pub const LIKENESS: Word = || text("Least likeness", "最低相似度");
/// Tool that moves the picture.
pub const HAND: Word = || text("Move the picture (H)", "移动图片（H）");
/// The tool that picks proposals.
pub const POINT: Word = || {
    text(
        "Pick by a click: the smallest box there, then larger ones (P)",
        "点击选取：先是那里最小的框，然后是更大的框（P）",
    )
};
/// Tool that draws.
pub const DRAW: Word = || text("Draw a box", "画框");
/// Group of the tools.
pub const TOOLS: Word = || text("Tools", "工具");
/// Button that takes the last step back.
pub const UNDO: Word = || text("Undo the last change of the boxes", "撤销对框的上一次修改");
/// Button that does it again.
pub const REDO: Word = || text("Redo the last change of the boxes", "重做对框的上一次修改");
/// Group of the buttons of undo and redo.
pub const STEPS: Word = || text("Changes of the boxes", "框的修改");
/// Group of the buttons of the view.
pub const VIEW: Word = || text("View of the picture", "图片视图");
/// Button that zooms in.
pub const ZOOM_IN: Word = || text("Zoom in", "放大");
/// Button that zooms out.
pub const ZOOM_OUT: Word = || text("Zoom out", "缩小");
/// Button that shows the whole picture.
pub const FIT: Word = || text("Fit", "适合窗口");
/// The same in full.
pub const FIT_NAME: Word = || text("Show the whole picture", "显示整张图片");
/// The keys of the picture, for a screen reader.
pub const KEYS: Word = || {
    text(
        "Keys: full stop and comma go from box to box, Enter asks about the selected ones, R draws, P picks, V selects, H moves the picture, arrow keys move the selected box or the picture, plus and minus zoom, 0 shows the whole picture, 1 shows it at full size, Delete removes, Control and Z takes back, B shows the bare picture while held, Escape lets go.",
        "按键：句号和逗号键在框之间切换，Enter 就选中的框提问，R 画框，P 选取，V 选择，H 移动图片，方向键移动选中的框或图片，加号和减号缩放，0 显示整张图片，1 按原始大小显示，Delete 删除，Control+Z 撤销，按住 B 只看图片，Escape 取消选择。",
    )
};
/// Label of the number fields of the selected box.
pub const NUMBERS: Word = || text("Selected box in picture pixels", "选中的框（图片像素）");
/// The number fields in short, and in full.
pub const NUMBER_FIELDS: [(&str, Word); 4] = [
    ("x", || {
        text("Left edge in picture pixels", "左边缘（图片像素）")
    }),
    ("y", || {
        text("Upper edge in picture pixels", "上边缘（图片像素）")
    }),
    ("w", || text("Width in picture pixels", "宽度（图片像素）")),
    ("h", || text("Height in picture pixels", "高度（图片像素）")),
];
/// The columns of the list.
pub const COLUMNS: [Word; 4] = [
    || text("No.", "编号"),
    || text("Label", "标签"),
    || text("Score", "得分"),
    || text("Area", "面积"),
];
/// Heading of the order of the list.
pub const SORT: Word = || text("Sort by", "排序方式");
/// The list.
pub const LIST: Word = || text("Objects in the picture", "图片中的物体");
/// What a row of the list says of a box that is not drawn.
pub const HIDDEN: Word = || text("hidden", "已隐藏");
/// In place of the score of a box of the user.
pub const YOURS: Word = || text("yours", "你的");
/// An empty list.
pub const LIST_EMPTY: Word = || text("Nothing here yet.", "这里还没有内容。");
/// What the button does that brings removed proposals back.
pub const RESTORE_NAME: Word = || text("Bring removed proposals back", "恢复已移除的候选框");
/// Slider of the score.
pub const SCORE: Word = || text("Minimum confidence", "最低置信度");
/// Slider of the overlap.
pub const OVERLAP: Word = || text("Merge overlapping boxes", "合并重叠的框");
/// Button that deletes a box of the user or takes a proposal out of use.
pub const DELETE: Word = || text("Delete", "删除");

/// Name of the button that shows the picture at full size; it displays the scale.
pub fn zoom_name(percent: u32) -> String {
    let (now, full) = (zoom(percent), zoom(100));
    say!(
        "{now}, show the picture at {full}",
        "{now}，按 {full} 显示图片"
    )
}

/// Name of the number field of a slider.
pub fn as_number(slider: &str) -> String {
    say!("{slider}, as a number", "{slider}，输入数值")
}

/// Name of a button that sorts.
pub fn sort_by(column: &str) -> String {
    match language() {
        Language::English => format!("{} {}", SORT(), column.to_lowercase()),
        Language::Chinese => format!("按{column}排序"),
    }
}

/// The scale of the picture.
pub fn zoom(percent: u32) -> String {
    words::percent(f64::from(percent) / 100.0, 0)
}

/// How many boxes the next question may point at, out of how many.
pub fn box_count(boxes: &Candidates) -> String {
    let count = strings::boxes(boxes.boxes.len());
    match boxes.left_out {
        0 => say!(
            "{count} ({MAX_BOXES} is the most the chat can use)",
            "{count}（对话最多使用 {MAX_BOXES} 个）"
        ),
        left_out => say!(
            "{count} ({MAX_BOXES} is the most the chat can use, {} more pass)",
            "{count}（对话最多使用 {MAX_BOXES} 个，另有 {} 个符合条件）",
            words::count(left_out)
        ),
    }
}

/// Button that brings proposals back that the user took out of use.
pub fn restore(count: usize) -> String {
    let count = words::count(count);
    say!("Bring {count} back", "恢复 {count} 个")
}

/// A row of the list in full.
pub fn row_name(number: u32, label: &str, score: Option<f32>, share: f32, hidden: bool) -> String {
    let mut text = say!("Box {number}", "{number} 号框");
    if !label.is_empty() {
        text.push_str(&say!(", {label}", "，{label}"));
    }
    match score {
        Some(score) => {
            let score = words::number(f64::from(score), 2);
            text.push_str(&say!(", confidence {score}", "，置信度 {score}"));
        }
        None => text.push_str(&say!(", {}", "，{}", YOURS())),
    }
    text.push_str(&say!(", {} of the picture", "，占图片的 {}", area(share)));
    if hidden {
        text.push_str(&say!(", {}", "，{}", HIDDEN()));
    }
    text
}

/// The share of a box of the picture, 0 to 1, in percent.
pub fn area(share: f32) -> String {
    let decimals = if share < 0.0995 { 1 } else { 0 };
    words::percent(f64::from(share), decimals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::candidates::{BoxId, Candidate};

    #[test]
    fn counts_rows_and_shares_read_well() {
        let some = |count: usize, left_out| Candidates {
            boxes: vec![
                Candidate {
                    id: BoxId::Own(0),
                    bbox: [0., 0., 1., 1.].into(),
                    score: None,
                    label: None,
                };
                count
            ],
            left_out,
        };
        let cases = [
            (0, 0, "0 boxes (100 is the most the chat can use)"),
            (1, 0, "1 box (100 is the most the chat can use)"),
            (
                100,
                7,
                "100 boxes (100 is the most the chat can use, 7 more pass)",
            ),
        ];
        for (count, left_out, expected) in cases {
            assert_eq!(box_count(&some(count, left_out)), expected);
        }
        let row = row_name(3, "cat", Some(0.5), 0.123, true);
        assert_eq!(
            row,
            "Box 3, cat, confidence 0.50, 12% of the picture, hidden"
        );
        let row = row_name(3, "", None, 0.0123, false);
        assert_eq!(row, "Box 3, yours, 1.2% of the picture");
        assert_eq!(restore(2), "Bring 2 back");
    }
}
