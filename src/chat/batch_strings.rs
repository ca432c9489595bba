//! The texts about batches and their review.

use crate::chat::batch::{Counts, ItemState, Status, TaskKind, Why};

/// The button that opens the batch, and its title.
pub const BATCH: &str = "Batch";
/// The way to a batch from the empty page.
pub const MANY: &str = "Work through many pictures";
/// What it is for.
pub const NOTE: &str = "One task for many pictures. They are worked on one after the other, and everything stays on this device.";
/// Button for files.
pub const FILES: &str = "Choose pictures";
/// Button for a folder.
pub const FOLDER: &str = "Choose a folder";
/// Name of the choice of the task.
pub const TASK: &str = "Task";
/// Name of the field for its words.
pub const WORDS: &str = "Words of the task";
/// The switch for the history.
pub const IN_HISTORY: &str = "Also keep every answer in the history";
/// Button that begins.
pub const START: &str = "Start";
/// Button that takes the chosen pictures back.
pub const CLEAR: &str = "Clear";
/// While pictures are stored before the start.
pub const STORING: &str = "Storing the pictures…";
/// Files without a picture among them.
pub const NO_PICTURES: &str = "There is no picture among them.";
/// Button that works on.
pub const RESUME: &str = "Resume";
/// Button that pauses.
pub const PAUSE: &str = "Pause";
/// Button that ends the batch.
pub const CANCEL: &str = "Cancel the rest";
/// Button that tries again.
pub const RETRY_FAILED: &str = "Retry failed";
/// Button that works on what was left out.
pub const RETRY_SKIPPED: &str = "Work on skipped";
/// Button of a picture.
pub const SKIP: &str = "Skip";
/// Button that shows a picture with its answer on the page.
pub const OPEN: &str = "Open";
/// Button that shows the batch.
pub const SHOW: &str = "Show";
/// Button that makes room for another batch.
pub const NEW: &str = "New batch";
/// What it costs.
pub const NEW_WARNING: &str = "The results of this batch are then deleted. Save them first.";
/// Button that agrees to it.
pub const DELETE: &str = "Delete and begin anew";
/// Button that does not.
pub const KEEP: &str = "Keep it";
/// Name of the group of files.
pub const FILES_OUT: &str = "Save the results";
/// Button that saves lines.
pub const SAVE_LINES: &str = "Save JSONL";
/// Button that saves the archive.
pub const SAVE_ZIP: &str = "Save ZIP";
/// What the archive holds.
pub const ZIP_NOTE: &str = "The ZIP holds COCO, YOLO, Pascal VOC, the list of labels and the JSONL. Boxes without a label are saved as “object”.";
/// Switch of the archive.
pub const WITH_PICTURES: &str = "With the pictures";
/// Switch of both files.
pub const ONLY_ACCEPTED: &str = "Only accepted boxes";
/// Where the pictures do not fit into the archive.
pub const TOO_MUCH: &str = "the pictures are too large for one archive";
/// What helps then.
pub const WITHOUT_PICTURES: &str = "Save the ZIP without the pictures";
/// The list of pictures.
pub const PICTURES: &str = "Pictures of the batch";
/// While the model is loading.
pub const WAITS_FOR_MODEL: &str = "Waits for the model.";
/// While the user's question runs.
pub const WAITS_FOR_USER: &str = "Waits for your question.";
/// Where results are in memory only.
pub const NOT_KEPT: &str =
    "The browser keeps nothing here: save the results before you leave the page.";

/// Button that begins the review.
pub const REVIEW: &str = "Review";
/// Button that ends it.
pub const BACK: &str = "Back to the batch";
/// Button that accepts.
pub const ACCEPT: &str = "Accept";
/// Button that rejects.
pub const REJECT: &str = "Reject";
/// Button that draws.
pub const DRAW: &str = "Draw a missing box";
/// Button that adds the drawn box.
pub const ADD: &str = "Add the box";
/// Button that takes a step back.
pub const UNDO: &str = "Undo";
/// Button for the picture before.
pub const PREVIOUS: &str = "Previous picture";
/// Button for the picture behind.
pub const NEXT: &str = "Next picture";
/// Name of the order.
pub const ORDER: &str = "Order";
/// Order over all pictures.
pub const LEAST_SURE: &str = "Least certain first";
/// Order by pictures.
pub const BY_PICTURE: &str = "Picture by picture";
/// Name of the group of labels.
pub const LABELS: &str = "Label";
/// Field for another label.
pub const OTHER_LABEL: &str = "Another label";
/// Button that gives it.
pub const GIVE: &str = "Give";
/// The keys of the review.
pub const KEYS: &str = "Space accepts, X rejects, 1 to 9 give a label, R draws a missing box, left and right go to the previous and next box, Ctrl with them to the previous and next picture, Ctrl+Z takes back.";
/// The keys while a box is drawn.
pub const DRAW_KEYS: &str = "Drag on the picture, or move the box with the arrow keys and size it with Shift and the arrow keys. Enter or a number adds it, Escape drops it.";
/// Nothing is done yet.
pub const NOTHING_TO_REVIEW: &str = "There is no answer to review yet.";
/// A box without a label.
pub const NO_LABEL: &str = "No label";
/// An answer without boxes.
pub const NO_BOXES: &str = "No boxes";

/// The name of a kind of task.
pub fn task(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Find => "Find…",
        TaskKind::Count => "Count…",
        TaskKind::Describe => "Describe",
        TaskKind::NameAll => "Name everything",
        TaskKind::Free => "Ask in your own words",
    }
}

/// The placeholder of its words.
pub fn placeholder(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Find => "What to find, for example: cat; tree",
        TaskKind::Count => "What to count, for example: apples",
        TaskKind::Free => "The same question for every picture",
        TaskKind::Describe | TaskKind::NameAll => "",
    }
}

/// The state of a picture.
pub fn state(state: &ItemState) -> &'static str {
    match state {
        ItemState::Waiting => "Waiting",
        ItemState::Running => "Running",
        ItemState::Done(_) => "Done",
        ItemState::Failed(_) => "Failed",
        ItemState::Skipped(Why::Duplicate) => "Skipped: the same file is there already",
        ItemState::Skipped(Why::User | Why::Cancelled) => "Skipped",
    }
}

/// `5 pictures`.
pub fn pictures(count: usize) -> String {
    match count {
        1 => "1 picture".to_owned(),
        count => format!("{count} pictures"),
    }
}

/// The button that takes the pictures that were opened together.
pub fn group(count: usize) -> String {
    format!("The {count} opened pictures")
}

/// `3 boxes`.
pub fn boxes(count: usize) -> String {
    match count {
        0 => NO_BOXES.to_owned(),
        1 => "1 box".to_owned(),
        count => format!("{count} boxes"),
    }
}

/// How many pictures are chosen, and how many were left out.
pub fn chosen(count: usize, left_out: usize) -> String {
    match left_out {
        0 => format!("{} chosen.", pictures(count)),
        1 => format!("{} chosen, 1 other file left out.", pictures(count)),
        other => format!("{} chosen, {other} other files left out.", pictures(count)),
    }
}

/// Where the page stands: the counts and the milliseconds left.
pub fn progress(status: Status, counts: Counts, left: Option<f64>) -> String {
    let mut text = format!("{} of {} done", counts.done, counts.all());
    for (count, what) in [(counts.failed, "failed"), (counts.skipped, "skipped")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    let end = match (status, left) {
        (Status::Running, Some(left)) => format!(", about {} left.", time(left)),
        (Status::Pausing, _) => ". Pauses after this picture.".to_owned(),
        (Status::Paused, _) => ". Paused.".to_owned(),
        (Status::Running | Status::Finished, _) => ".".to_owned(),
    };
    text + &end
}

/// Milliseconds in words.
fn time(milliseconds: f64) -> String {
    let seconds = (milliseconds / 1000.0).ceil().max(1.0);
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5_400.0 => format!("{:.0} min", (s / 60.0).ceil()),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// How far the review is.
pub fn reviewed(decided: usize, all: usize) -> String {
    format!("{decided} of {all} reviewed")
}

/// What is shown: the name of the picture and its place.
pub fn place(index: usize, count: usize, name: &str) -> String {
    format!("Picture {} of {count}: {name}", index + 1)
}

/// How sure the model is.
pub fn certainty(certainty: f32) -> String {
    format!("{:.0} % certain", certainty * 100.0)
}

/// A verdict in one word.
pub fn verdict(accepted: Option<bool>) -> &'static str {
    match accepted {
        None => "Open",
        Some(true) => "Accepted",
        Some(false) => "Rejected",
    }
}

/// A label that a key gives.
pub fn key_label(place: usize, label: &str) -> String {
    format!("{} {label}", place + 1)
}

/// More pictures than a batch takes.
pub fn too_many(count: usize, most: usize) -> String {
    format!("{count} pictures are too many for one batch; {most} are the most")
}

/// What is saved.
pub fn scope(only_accepted: bool) -> &'static str {
    match only_accepted {
        true => "Accepted and corrected boxes are saved.",
        false => "All boxes that the model named are saved.",
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
