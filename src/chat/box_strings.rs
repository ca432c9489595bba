//! The texts about boxes: tools, zoom, the bar of the selection, the list and the filters.

use crate::chat::candidates::Candidates;
use crate::text::prompt::MAX_BOXES;

/// Tool that selects.
pub const SELECT: &str = "Select (V)";
/// Button that selects the boxes that are most like the selected one.
pub const ALIKE: &str = "More like this";
/// Slider of the least likeness of the boxes that are selected.
pub const LIKENESS: &str = "Least likeness";
/// Tool that moves the picture.
pub const HAND: &str = "Move the picture (H)";
/// The tool that picks proposals.
pub const POINT: &str = "Pick by a click: the smallest box there, then larger ones (P)";
/// Tool that draws.
pub const DRAW: &str = "Draw a box";
/// Group of the tools.
pub const TOOLS: &str = "Tools";
/// Button that takes the last step back.
pub const UNDO: &str = "Undo the last change of the boxes";
/// Button that does it again.
pub const REDO: &str = "Redo the last change of the boxes";
/// Group of the buttons of undo and redo.
pub const STEPS: &str = "Changes of the boxes";
/// Group of the buttons of the view.
pub const VIEW: &str = "View of the picture";
/// Button that zooms in.
pub const ZOOM_IN: &str = "Zoom in";
/// Button that zooms out.
pub const ZOOM_OUT: &str = "Zoom out";
/// Button that shows the whole picture.
pub const FIT: &str = "Fit";
/// The same in full.
pub const FIT_NAME: &str = "Show the whole picture";
/// The keys of the picture, for a screen reader.
pub const KEYS: &str = "Keys: full stop and comma go from box to box, Enter asks about the selected ones, R \
                        draws, P picks, V selects, H moves the picture, arrow keys move the selected box or the \
                        picture, plus and minus zoom, 0 shows the whole picture, 1 shows it at full size, \
                        Delete removes, Control and Z takes back, B shows the bare picture while held, \
                        Escape lets go.";
/// Label of the number fields of the selected box.
pub const NUMBERS: &str = "Selected box in picture pixels";
/// The number fields in short, and in full.
pub const NUMBER_FIELDS: [(&str, &str); 4] = [
    ("x", "Left edge in picture pixels"),
    ("y", "Upper edge in picture pixels"),
    ("w", "Width in picture pixels"),
    ("h", "Height in picture pixels"),
];
/// The columns of the list.
pub const COLUMNS: [&str; 4] = ["No.", "Label", "Score", "Area"];
/// Heading of the order of the list.
pub const SORT: &str = "Sort by";
/// The list.
pub const LIST: &str = "Objects in the picture";
/// What a row of the list says of a box that is not drawn.
pub const HIDDEN: &str = "hidden";
/// An empty list.
pub const LIST_EMPTY: &str = "Nothing here yet.";
/// What the button does that brings removed proposals back.
pub const RESTORE_NAME: &str = "Bring removed proposals back";
/// Slider of the score.
pub const SCORE: &str = "Minimum confidence";
/// Slider of the overlap.
pub const OVERLAP: &str = "Merge overlapping boxes";
/// Button that deletes a box of the user or takes a proposal out of use.
pub const DELETE: &str = "Delete";

/// Name of the button that shows the picture at full size; it displays the scale.
pub fn zoom_name(percent: u32) -> String {
    format!("{percent} %, show the picture at 100 %")
}

/// Name of the number field of a slider.
pub fn as_number(slider: &str) -> String {
    format!("{slider}, as a number")
}

/// Name of a button that sorts.
pub fn sort_by(column: &str) -> String {
    format!("{SORT} {}", column.to_lowercase())
}

/// The scale of the picture.
pub fn zoom(percent: u32) -> String {
    format!("{percent} %")
}

/// How many boxes the next question may point at, out of how many.
pub fn box_count(boxes: &Candidates) -> String {
    let count = boxes.boxes.len();
    let noun = if count == 1 { "box" } else { "boxes" };
    let mut text = format!("{count} {noun} ({MAX_BOXES} is the most the chat can use)");
    if boxes.left_out > 0 {
        text = format!(
            "{count} {noun} ({MAX_BOXES} is the most the chat can use, {} more pass)",
            boxes.left_out
        );
    }
    text
}

/// Button that brings proposals back that the user took out of use.
pub fn restore(count: usize) -> String {
    format!("Bring {count} back")
}

/// A row of the list in full.
pub fn row_name(number: u32, label: &str, score: Option<f32>, share: f32, hidden: bool) -> String {
    let mut text = format!("Box {number}");
    if !label.is_empty() {
        text.push_str(&format!(", {label}"));
    }
    match score {
        Some(score) => text.push_str(&format!(", confidence {score:.2}")),
        None => text.push_str(", yours"),
    }
    text.push_str(&format!(", {} of the picture", area(share)));
    if hidden {
        text.push_str(&format!(", {HIDDEN}"));
    }
    text
}

/// The share of a box of the picture, 0 to 1, in percent.
pub fn area(share: f32) -> String {
    let percent = share * 100.0;
    if percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
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
            "Box 3, cat, confidence 0.50, 12 % of the picture, hidden"
        );
        let row = row_name(3, "", None, 0.0123, false);
        assert_eq!(row, "Box 3, yours, 1.2 % of the picture");
        assert_eq!(restore(2), "Bring 2 back");
    }
}
