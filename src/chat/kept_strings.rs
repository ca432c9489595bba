//! The texts about pictures, kept conversations and settings.

use crate::chat::history::Trouble;

/// The first sentence of the empty page.
pub const HERO: &str = "Ask about a picture. Nothing leaves this page.";
/// Before the link that chooses a file.
pub const DROP_HERE: &str = "Drop a picture, paste one, or ";
/// The link that chooses a file.
pub const CHOOSE_FILE: &str = "choose a file";
/// Between that link and the next.
pub const OR_USE: &str = " or use the ";
/// The link that opens the camera.
pub const CAMERA_LINK: &str = "camera";
/// Above the sample cards.
pub const OR_SAMPLE: &str = "Or try a sample";
/// Over the page while something is dragged over it.
pub const DROP_TO_OPEN: &str = "Drop to open";
/// Where a picture of another page came without its bytes.
pub const ADDRESS_ONLY: &str =
    "Only the address of that picture came along. Save the picture and drop the file here.";
/// Where another site refuses to give its picture.
pub const ADDRESS_REFUSED: &str =
    "That site does not let other pages read its pictures. Save it and drop it here.";
/// Label of the address field.
pub const ADDRESS: &str = "Address of a picture";
/// Button that opens the address.
pub const OPEN: &str = "Open";

/// The button that begins anew.
pub const NEW: &str = "New";
/// The button that opens pictures.
pub const OPEN_PICTURE: &str = "Open picture";
/// The button that removes the picture.
pub const REMOVE: &str = "Remove picture";
/// The message after that.
pub const CLOSED: &str = "The picture is in the history.";
/// The button of a message.
pub const UNDO: &str = "Undo";
/// The strip of pictures.
pub const STRIP: &str = "Pictures opened together";

/// The history.
pub const HISTORY: &str = "History";
/// Label of its search field.
pub const SEARCH: &str = "Search";
/// An empty history.
pub const NO_HISTORY: &str = "Nothing is kept yet.";
/// A search without results.
pub const NOTHING_FOUND: &str = "Nothing found.";
/// Button that renames.
pub const RENAME: &str = "Rename";
/// Button that keeps the new title.
pub const SAVE: &str = "Save";
/// Button that deletes.
pub const DELETE: &str = "Delete";
/// Button that deletes all.
pub const DELETE_ALL: &str = "Delete everything";
/// Button that goes back.
pub const BACK: &str = "Back";
/// The switch for all conversations.
pub const NO_KEEPING: &str = "Do not keep history";
/// The switch for the open conversation.
pub const TEMPORARY: &str = "Temporary chat: not kept";
/// After everything is deleted.
pub const ALL_DELETED: &str = "All pictures and chats are deleted.";
/// A record that is gone.
pub const NOT_THERE: &str = "it is not in the browser's storage any more";
/// A record that is damaged.
pub const DAMAGED: &str = "it is damaged or written by another version of the page";

/// The settings.
pub const SETTINGS: &str = "Settings";
/// The switch of the theme.
pub const THEME: &str = "Theme";
/// Button that resets.
pub const RESET: &str = "Reset settings";
/// After that.
pub const RESET_DONE: &str = "The settings are reset.";

/// The camera's dialog.
pub const CAMERA: &str = "Camera";
/// Its shutter.
pub const SHUTTER: &str = "Take picture";
/// Button that closes it.
pub const CLOSE: &str = "Close";
/// While the browser asks for permission.
pub const CAMERA_WAITS: &str = "Waiting for the camera…";
/// The user or the browser refuses the camera.
pub const CAMERA_DENIED: &str = "The camera is not allowed here. Allow it in the browser's settings for this page, or open a file.";
/// There is no camera, or it is in use.
pub const CAMERA_ABSENT: &str = "No camera was found, or another program uses it.";

/// A new version of the page is stored.
pub const NEW_VERSION: &str = "New version ready.";
/// Button that starts it.
pub const RELOAD: &str = "Reload";
/// Button that installs the page.
pub const INSTALL: &str = "Install";

/// After a picture was opened in place of another.
pub fn opened(name: &str) -> String {
    match name {
        "" => "Opened the picture.".to_owned(),
        name => format!("Opened {name}."),
    }
}

/// After conversations were deleted.
pub fn deleted(count: usize) -> String {
    match count {
        1 => "1 chat deleted.".to_owned(),
        count => format!("{count} chats deleted."),
    }
}

/// Files that were left out of several.
pub fn not_pictures(count: usize) -> String {
    match count {
        1 => "1 file is not a picture this browser can read.".to_owned(),
        count => format!("{count} files are not pictures this browser can read."),
    }
}

/// Where no file of a folder is a picture.
pub const NO_PICTURES: &str = "There is no picture in it. Your current picture is unchanged.";

/// The question before everything is deleted.
pub fn delete_all(count: usize) -> String {
    let chats = match count {
        1 => "the picture and chat".to_owned(),
        count => format!("all {count} pictures and chats"),
    };
    format!("Delete {chats} from this browser? This cannot be undone.")
}

/// Why nothing is kept.
pub fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoStorage => "This window keeps no history: the browser offers no storage here.",
        Trouble::Full => {
            "The browser has no room for more history. What is open works on, but is not kept."
        }
    }
}

/// Records that cannot be read.
pub fn skipped(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 chat cannot be read by this version and is left as it is.".to_owned()),
        count => Some(format!(
            "{count} chats cannot be read by this version and are left as they are."
        )),
    }
}

/// The name of a picture in the strip.
pub fn strip_name(place: usize, count: usize, title: &str) -> String {
    format!("Picture {} of {count}: {title}", place + 1)
}

/// Name of a button on one conversation.
pub fn on_chat(action: &str, title: &str) -> String {
    format!("{action}: {title}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_in_singular_and_plural() {
        let cases = [
            (deleted(1), "1 chat deleted."),
            (deleted(3), "3 chats deleted."),
            (
                not_pictures(1),
                "1 file is not a picture this browser can read.",
            ),
            (
                not_pictures(2),
                "2 files are not pictures this browser can read.",
            ),
            (
                delete_all(1),
                "Delete the picture and chat from this browser? This cannot be undone.",
            ),
            (
                delete_all(12),
                "Delete all 12 pictures and chats from this browser? This cannot be undone.",
            ),
            (opened(""), "Opened the picture."),
            (opened("coffee.jpg"), "Opened coffee.jpg."),
            (strip_name(0, 3, "a.jpg"), "Picture 1 of 3: a.jpg"),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
        assert_eq!(skipped(0), None);
        assert!(skipped(1).is_some_and(|text| text.starts_with("1 chat ")));
        assert!(skipped(2).is_some_and(|text| text.starts_with("2 chats ")));
    }
}
