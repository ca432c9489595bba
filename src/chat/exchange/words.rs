//! The texts of the export dialog and of the files it writes.

use super::format::Format;
use super::marked::Scope;
use crate::chat::document::{Added, Document, SavedState};
use crate::chat::strings;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::protocol::ImageSize;
use crate::text::prompt::MAX_BOXES;

/// Button that opens the dialog.
pub const OPEN: &str = "Export";
/// Heading of the dialog.
pub const TITLE: &str = "Export and import";
/// Name of the choice of a format.
pub const FORMAT: &str = "Save as";
/// Name of the choice of boxes.
pub const SCOPE: &str = "Boxes";
/// Button that writes the file.
pub const SAVE: &str = "Save file";
/// Name of the slider for the line width.
pub const LINE: &str = "Line width";
/// Name of the slider for the text size.
pub const TEXT: &str = "Text size";
/// Switch of the labels' words.
pub const LABELS: &str = "Words beside the numbers";
/// Switch of the footer.
pub const FOOTER: &str = "Last question and answer below the picture";
/// Name of the choice of how boxes are covered.
pub const COVER: &str = "Cover with";
/// Cover with black.
pub const BLACK: &str = "Black";
/// Cover with a blur.
pub const BLUR: &str = "Blur";
/// There is no box to cover.
pub const NOTHING_TO_COVER: &str = "Choose the boxes to cover first: select them in the picture.";
/// Give boxes without a label a common one.
pub const AS_OBJECT: &str = "Save them as “object”";
/// Leave boxes without a label out.
pub const LEAVE_OUT: &str = "Leave them out";
/// Heading of the way in.
pub const IMPORT: &str = "Import";
/// Button that chooses files.
pub const CHOOSE: &str = "Choose files";
/// What can be imported.
pub const IMPORT_NOTE: &str = "A saved conversation (.html, .json), or boxes for this picture: COCO, Label Studio or labelled JSON (box_2d), Pascal VOC XML, CSV, YOLO .txt with data.yaml or classes.txt. Files can also be dropped on the page.";
/// Groups of formats.
pub const GROUPS: [&str; 3] = ["Picture", "Conversation", "Boxes"];
/// Last line of the page.
pub const PAGE_FOOTER: &str = "Saved by ChatRex. Answers and boxes may be wrong. Drop this file on the ChatRex page to go on.";
/// While a file is made.
pub const WORKING: &str = "Making the file…";
/// While files are read.
pub const READING: &str = "Reading the file…";

/// The name of a format.
pub fn format(format: Format) -> &'static str {
    match format {
        Format::Annotated => "Picture with boxes (PNG)",
        Format::Redacted => "Picture with covered boxes (PNG)",
        Format::Page => "Page that works by itself (HTML)",
        Format::Document => "Everything, to import again (JSON)",
        Format::Markdown => "Text (Markdown)",
        Format::Coco => "COCO (JSON)",
        Format::Yolo => "YOLO, Ultralytics (ZIP)",
        Format::Voc => "Pascal VOC (XML)",
        Format::Csv => "Table (CSV)",
        Format::Box2d => "Labelled list, box_2d (JSON)",
        Format::LabelStudio => "Label Studio (JSON)",
    }
}

/// What is worth knowing about a format.
pub fn note(format: Format) -> Option<&'static str> {
    match format {
        Format::Page => Some(
            "One file with the picture as it is, the boxes and the answers. It opens in any browser without a \
             network. Dropped here, it goes on.",
        ),
        Format::Document => {
            Some("The picture itself is not in this file. Open it first to import the file again.")
        }
        Format::Yolo => Some("The archive holds the picture as it is, the labels and data.yaml."),
        Format::LabelStudio => Some(
            "Found boxes are predictions, yours are annotations. The project needs an Image with the name image \
             and the value $image, and RectangleLabels with the name label.",
        ),
        Format::Redacted => Some(
            "The new file has the full size and no metadata such as the place of the photograph. Black hides more \
             surely than blur.",
        ),
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
        Scope::All => "All",
        Scope::Shown => "Shown",
        Scope::Mentioned => "Mentioned",
        Scope::Own => "Mine",
        Scope::Selected => "Selected",
    }
}

/// `3 boxes`.
pub fn boxes(count: usize) -> String {
    match count {
        0 => "no boxes".to_owned(),
        1 => "1 box".to_owned(),
        count => format!("{count} boxes"),
    }
}

/// The question about boxes without a label.
pub fn unlabelled(count: usize) -> String {
    match count {
        1 => "1 box has no label".to_owned(),
        count => format!("{count} boxes have no label"),
    }
}

/// The request to decide about them before the file is written.
pub fn decide(count: usize) -> String {
    format!(
        "{}. Choose what happens to such boxes, then save.",
        unlabelled(count)
    )
}

/// A file is on its way; `count` is the number of boxes where it has some.
pub fn saved(name: &str, count: Option<usize>, bytes: u64) -> String {
    let count = count.map(|count| format!("{}, ", boxes(count)));
    let count = count.unwrap_or_default();
    format!(
        "Sent to your downloads: {name} ({count}{}).",
        strings::size(bytes)
    )
}

/// What came of an import of boxes.
pub fn imported(name: &str, outcome: Added) -> String {
    let mut text = match outcome.added {
        0 => format!("Nothing new in {name}."),
        count => format!("Added {} of {name}.", boxes(count)),
    };
    let notes = [
        (outcome.known, "there already"),
        (outcome.left_out, "not an upright box inside the picture"),
        (outcome.surplus, "beyond what the chat can use"),
    ];
    for (count, why) in notes.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(" Left out: {} {why}.", count));
    }
    if outcome.surplus > 0 {
        text.push_str(&format!(" {MAX_BOXES} boxes are the most."));
    }
    text
}

/// A saved conversation is shown again.
pub fn restored(name: &str, document: &Document) -> String {
    let answers = match document.turns.len() {
        1 => "1 answer".to_owned(),
        count => format!("{count} answers"),
    };
    format!("Opened {name}: {answers}, {}.", boxes(document.boxes.len()))
}

/// A conversation that belongs to another picture than the open one.
pub fn other_picture(place: &str, document: &Document, open: Option<ImageSize>) -> Fault {
    let picture = &document.picture;
    let open = match open {
        Some(size) => format!("the open one has {} × {}", size.width, size.height),
        None => "none is open".to_owned(),
    };
    Fault::new(
        FaultKind::File,
        place,
        format!(
            "it belongs to {}, a picture of {} × {} pixels, and {open}",
            picture.name, picture.width, picture.height
        ),
        format!("Open {} first; nothing was changed", picture.name),
    )
    .code(ErrorCode::InvalidInput)
}

/// The text alternative of the picture in the page.
pub fn picture_alt(document: &Document) -> String {
    let picture = &document.picture;
    format!(
        "{}, {} × {} pixels",
        picture.name, picture.width, picture.height
    )
}

/// The note below an answer that did not end as usual.
pub fn ended(state: &SavedState) -> Option<&'static str> {
    match state {
        SavedState::Done => None,
        SavedState::Stopped => Some("Stopped."),
        SavedState::Failed(_) => Some("This answer failed."),
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
