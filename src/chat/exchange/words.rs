//! The texts of the export dialog and of the files it writes.

use super::format::Format;
use super::marked::Scope;
use crate::chat::document::{Added, Document, SavedState};
use crate::chat::strings;
use crate::chat::words::{self, Plural, Word, plural, say, text};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::protocol::ImageSize;
use crate::text::prompt::MAX_BOXES;

/// Button that opens the dialog.
pub const OPEN: Word = || text("Export", "导出");
/// Heading of the dialog.
pub const TITLE: Word = || text("Export and import", "导出和导入");
/// Name of the choice of a format.
pub const FORMAT: Word = || text("Save as", "保存为");
/// Name of the choice of boxes.
pub const SCOPE: Word = || text("Boxes", "框");
/// Button that writes the file.
pub const SAVE: Word = || text("Save file", "保存文件");
/// Name of the slider for the line width.
pub const LINE: Word = || text("Line width", "线宽");
/// Name of the slider for the text size.
pub const TEXT: Word = || text("Text size", "文字大小");
/// Switch of the labels' words.
pub const LABELS: Word = || text("Words beside the numbers", "在编号旁显示文字");
/// Switch of the footer.
pub const FOOTER: Word = || {
    text(
        "Last question and answer below the picture",
        "在图片下方附上最后的问答",
    )
};
/// Name of the choice of how boxes are covered.
pub const COVER: Word = || text("Cover with", "遮盖方式");
/// Cover with black.
pub const BLACK: Word = || text("Black", "黑色");
/// Cover with a blur.
pub const BLUR: Word = || text("Blur", "模糊");
/// There is no box to cover.
pub const NOTHING_TO_COVER: Word = || {
    text(
        "Choose the boxes to cover first: select them in the picture.",
        "请先在图片中选中要遮盖的框。",
    )
};
/// Give boxes without a label a common one.
pub const AS_OBJECT: Word = || text("Save them as “object”", "保存为“object”");
/// Leave boxes without a label out.
pub const LEAVE_OUT: Word = || text("Leave them out", "不保存这些框");
/// Heading of the way in.
pub const IMPORT: Word = || text("Import", "导入");
/// Button that chooses files.
pub const CHOOSE: Word = || text("Choose files", "选择文件");
/// What can be imported.
pub const IMPORT_NOTE: Word = || {
    text(
        "A saved conversation (.html, .json), or boxes for this picture: COCO, Label Studio or labelled JSON (box_2d), Pascal VOC XML, CSV, YOLO .txt with data.yaml or classes.txt. Files can also be dropped on the page.",
        "保存过的对话（.html、.json），或这张图片的框：COCO、Label Studio 或带标签的 JSON（box_2d），Pascal VOC XML，CSV，带 data.yaml 或 classes.txt 的 YOLO .txt。也可以把文件拖到页面上。",
    )
};
/// Groups of formats.
pub const GROUPS: [Word; 3] = [
    || text("Picture", "图片"),
    || text("Conversation", "对话"),
    || text("Boxes", "框"),
];
/// Last line of the page.
pub const PAGE_FOOTER: Word = || {
    text(
        "Saved by ChatRex. Answers and boxes may be wrong. Drop this file on the ChatRex page to go on.",
        "由 ChatRex 保存。回答和框都可能有错。把此文件拖到 ChatRex 页面即可继续。",
    )
};
/// Heads of the table of boxes in Markdown.
pub const TABLE: Word = || {
    text(
        "| box | phrase | left, top, right, bottom |",
        "| 框 | 短语 | 左、上、右、下 |",
    )
};
/// While a file is made.
pub const WORKING: Word = || text("Making the file…", "正在生成文件…");
/// While files are read.
pub const READING: Word = || text("Reading the file…", "正在读取文件…");

/// The name of a format.
pub fn format(format: Format) -> &'static str {
    match format {
        Format::Annotated => text("Picture with boxes (PNG)", "带框的图片（PNG）"),
        Format::Redacted => text("Picture with covered boxes (PNG)", "遮盖框的图片（PNG）"),
        Format::Page => text(
            "Page that works by itself (HTML)",
            "可独立打开的网页（HTML）",
        ),
        Format::Document => text(
            "Everything, to import again (JSON)",
            "全部内容，可再次导入（JSON）",
        ),
        Format::Markdown => text("Text (Markdown)", "文本（Markdown）"),
        Format::Coco => text("COCO (JSON)", "COCO（JSON）"),
        Format::Yolo => text("YOLO, Ultralytics (ZIP)", "YOLO，Ultralytics（ZIP）"),
        Format::Voc => text("Pascal VOC (XML)", "Pascal VOC（XML）"),
        Format::Csv => text("Table (CSV)", "表格（CSV）"),
        Format::Box2d => text(
            "Labelled list, box_2d (JSON)",
            "带标签的列表，box_2d（JSON）",
        ),
        Format::LabelStudio => text("Label Studio (JSON)", "Label Studio（JSON）"),
    }
}

/// What is worth knowing about a format.
pub fn note(format: Format) -> Option<&'static str> {
    match format {
        Format::Page => Some(text(
            "One file with the picture as it is, the boxes and the answers. It opens in any browser without a network. Dropped here, it goes on.",
            "一个文件，包含原图、框和回答。无需网络，任何浏览器都能打开。拖回这里即可继续。",
        )),
        Format::Document => Some(text(
            "The picture itself is not in this file. Open it first to import the file again.",
            "此文件不包含图片本身。再次导入前请先打开图片。",
        )),
        Format::Yolo => Some(text(
            "The archive holds the picture as it is, the labels and data.yaml.",
            "压缩包中有原图、标签和 data.yaml。",
        )),
        Format::LabelStudio => Some(text(
            "Found boxes are predictions, yours are annotations. The project needs an Image with the name image and the value $image, and RectangleLabels with the name label.",
            "找到的框是预测，你画的框是标注。项目需要名为 image、值为 $image 的 Image，以及名为 label 的 RectangleLabels。",
        )),
        Format::Redacted => Some(text(
            "The new file has the full size and no metadata such as the place of the photograph. Black hides more surely than blur.",
            "新文件保持原始尺寸，不含拍摄地点等元数据。黑色比模糊更可靠。",
        )),
        _ => None,
    }
}

/// The group of a format: a place in [`GROUPS`].
pub fn group(format: Format) -> usize {
    match format {
        Format::Annotated | Format::Redacted => 0,
        Format::Page | Format::Document | Format::Markdown => 1,
        _ => 2,
    }
}

/// The name of a scope.
pub fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::All => text("All", "全部"),
        Scope::Shown => text("Shown", "已显示"),
        Scope::Mentioned => text("Mentioned", "提到的"),
        Scope::Own => text("Mine", "我的"),
        Scope::Selected => text("Selected", "选中的"),
    }
}

/// `3 boxes`.
pub fn boxes(count: usize) -> String {
    match count {
        0 => text("no boxes", "没有框").to_owned(),
        count => strings::boxes(count),
    }
}

/// The question about boxes without a label.
pub fn unlabelled(count: usize) -> String {
    let n = words::count(count);
    match plural(count) {
        Plural::One => say!("{n} box has no label", "{n} 个框没有标签"),
        Plural::Other => say!("{n} boxes have no label", "{n} 个框没有标签"),
    }
}

/// The request to decide about them before the file is written.
pub fn decide(count: usize) -> String {
    say!(
        "{}. Choose what happens to such boxes, then save.",
        "{}。请先选择如何处理这些框，然后保存。",
        unlabelled(count)
    )
}

/// A file is on its way; `count` is the number of boxes where it has some.
pub fn saved(name: &str, count: Option<usize>, bytes: u64) -> String {
    let size = strings::size(bytes);
    match count.map(boxes) {
        Some(boxes) => say!(
            "Sent to your downloads: {name} ({boxes}, {size}).",
            "已发送到下载文件夹：{name}（{boxes}，{size}）。"
        ),
        None => say!(
            "Sent to your downloads: {name} ({size}).",
            "已发送到下载文件夹：{name}（{size}）。"
        ),
    }
}

/// What came of an import of boxes.
pub fn imported(name: &str, outcome: Added) -> String {
    let mut line = match outcome.added {
        0 => say!("Nothing new in {name}.", "{name} 中没有新内容。"),
        count => say!("Added {} of {name}.", "已从 {name} 添加 {}。", boxes(count)),
    };
    let notes = [
        (outcome.known, text("there already", "已经存在")),
        (
            outcome.left_out,
            text("not an upright box inside the picture", "不是图片内的正框"),
        ),
        (
            outcome.surplus,
            text("beyond what the chat can use", "超出对话可用的数量"),
        ),
    ];
    for (count, why) in notes.into_iter().filter(|(count, _)| *count > 0) {
        line.push_str(&say!(
            " Left out: {} {why}.",
            "跳过 {} 个：{why}。",
            words::count(count)
        ));
    }
    if outcome.surplus > 0 {
        line.push_str(&say!(
            " {MAX_BOXES} boxes are the most.",
            "最多 {MAX_BOXES} 个框。"
        ));
    }
    line
}

/// A saved conversation is shown again.
pub fn restored(name: &str, document: &Document) -> String {
    let count = document.turns.len();
    let answers = match plural(count) {
        Plural::One => say!("{count} answer", "{count} 个回答"),
        Plural::Other => say!("{count} answers", "{count} 个回答"),
    };
    say!(
        "Opened {name}: {answers}, {}.",
        "已打开 {name}：{answers}，{}。",
        boxes(document.boxes.len())
    )
}

/// A conversation that belongs to another picture than the open one.
pub fn other_picture(place: &str, document: &Document, open: Option<ImageSize>) -> Fault {
    let (name, width, height) = (
        &document.picture.name,
        document.picture.width,
        document.picture.height,
    );
    let what = match open {
        Some(open) => format!(
            "it belongs to {name}, a picture of {width} × {height} pixels, and the open one has {} × {}",
            open.width, open.height
        ),
        None => format!(
            "it belongs to {name}, a picture of {width} × {height} pixels, and none is open"
        ),
    };
    let advice = format!("Open {name} first; nothing was changed");
    Fault::new(FaultKind::File, place, what, advice).code(ErrorCode::InvalidInput)
}

/// The text alternative of the picture in the page.
pub fn picture_alt(document: &Document) -> String {
    let picture = &document.picture;
    say!(
        "{}, {} × {} pixels",
        "{}，{} × {} 像素",
        picture.name,
        picture.width,
        picture.height
    )
}

/// Below the name of the picture in Markdown.
pub fn picture_note(size: ImageSize) -> String {
    let ImageSize { width, height } = size;
    say!(
        "Picture of {width} × {height} pixels. Answers and boxes may be wrong.",
        "图片尺寸为 {width} × {height} 像素。回答和框都可能有错。"
    )
}

/// The note below an answer that did not end as usual.
pub fn ended(state: &SavedState) -> Option<&'static str> {
    match state {
        SavedState::Done => None,
        SavedState::Stopped => Some(text("Stopped.", "已停止。")),
        SavedState::Failed(_) => Some(text("This answer failed.", "回答失败。")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_tells_what_was_left_out_and_why() {
        let added = |added, known, left_out, surplus| Added {
            added,
            known,
            left_out,
            surplus,
        };
        let cases = [
            (added(1, 0, 0, 0), "Added 1 box of a.json."),
            (
                added(0, 3, 0, 0),
                "Nothing new in a.json. Left out: 3 there already.",
            ),
            (
                added(12, 0, 2, 4),
                "Added 12 boxes of a.json. Left out: 2 not an upright box inside the picture. \
                 Left out: 4 beyond what the chat can use. 100 boxes are the most.",
            ),
        ];
        for (outcome, expected) in cases {
            assert_eq!(imported("a.json", outcome), expected);
        }
    }

    #[test]
    fn every_format_has_a_name_and_a_group() {
        for format in Format::ALL {
            assert!(GROUPS.get(group(format)).is_some(), "{format:?}");
            assert!(!super::format(format).is_empty());
        }
        assert_eq!(
            saved("a.csv", Some(1), 1_200),
            "Sent to your downloads: a.csv (1 box, 1.2 kB)."
        );
        assert_eq!(
            saved("a.json", None, 300),
            "Sent to your downloads: a.json (0.3 kB)."
        );
    }
}
