//! The texts of the page's frame: tabs, the small picture, the list of keys.

use crate::chat::side::Tab;

/// The heading of the picture.
pub const PICTURE: &str = "Picture";
/// The group of the two tabs.
pub const TABS: &str = "Chat and objects";
/// Said of the chat's tab while it has an answer that was not seen.
pub const NEWS: &str = "new answer";
/// Button over the small picture of a small screen.
pub const ENLARGE: &str = "Show the picture large";
/// What the page can be used for without a network.
pub const OFFLINE: &str = "Works offline";
/// The same in full.
pub const OFFLINE_NAME: &str = "Everything needed is stored on this device";
/// Opens the list of keys, and its heading.
pub const KEYS: &str = "Keys";
/// Note below the list of keys.
pub const KEYS_NOTE: &str =
    "Keys of a single letter work while the picture has the focus. On a Mac, Command is Ctrl.";

/// The name of a tab.
pub fn tab(tab: Tab) -> &'static str {
    match tab {
        Tab::Chat => "Chat",
        Tab::Objects => "Objects",
    }
}

/// A key and what it does. Alternatives are separated by a space; keys pressed together by a plus sign.
pub type KeyRow = (&'static str, &'static str);

/// Keys that belong together.
pub struct KeyGroup {
    /// Where they work.
    pub name: &'static str,
    /// The keys.
    pub rows: &'static [KeyRow],
}

/// All keys of the page.
pub static KEY_GROUPS: [KeyGroup; 5] = [
    KeyGroup {
        name: "Everywhere",
        rows: &[
            ("? Ctrl+/", "Show this list"),
            ("Esc", "Let go of the selection and of highlights"),
            ("Shift+Esc", "Go to the text box"),
            ("Alt+R", "Ask the last question again"),
            ("Ctrl+V", "Open a picture from the clipboard"),
            ("Ctrl+Shift+O", "Begin anew"),
            ("Ctrl+,", "Open the settings"),
            ("Ctrl+← Ctrl+→", "Previous or next picture of several"),
        ],
    },
    KeyGroup {
        name: "Text box",
        rows: &[
            ("Enter", "Send"),
            ("Shift+Enter", "New line"),
            ("Esc", "Stop the answer, or leave a kind of question"),
            ("↑", "In an empty box: the last question again"),
            ("/", "In an empty box: the kinds of question"),
            ("#3", "Name box 3"),
        ],
    },
    KeyGroup {
        name: "Picture",
        rows: &[
            ("V", "Select"),
            ("H", "Move the picture"),
            ("R N", "Draw boxes"),
            ("Space+drag", "Move the picture with any tool"),
            ("Ctrl+wheel + -", "Zoom"),
            ("0", "Whole picture"),
            ("1", "Full size"),
            (". ,", "Next or previous box"),
            ("B", "Without boxes, while held"),
            ("Shift+H", "Hide all boxes, or show them again"),
        ],
    },
    KeyGroup {
        name: "Selected boxes",
        rows: &[
            ("Enter", "Ask about them"),
            ("← ↑ → ↓", "Move a box by 1 pixel, with Shift by 10"),
            ("Delete", "Remove them"),
            ("Alt+H", "Hide them"),
            ("Ctrl+Z", "Undo"),
            ("Ctrl+Y Ctrl+Shift+Z", "Redo"),
        ],
    },
    KeyGroup {
        name: "List of objects",
        rows: &[
            ("↑ ↓", "Next or previous row, with Shift select on the way"),
            ("Space", "Select or deselect the row"),
            ("Ctrl+A", "Select all"),
            ("H", "Hide the boxes, or show them again"),
            ("Enter", "Ask about the selected boxes"),
            ("Delete", "Remove them"),
        ],
    },
];

/// The alternatives of a key, each as the keys that are pressed together. A plus sign alone is a key.
pub fn alternatives(keys: &str) -> Vec<Vec<&str>> {
    keys.split(' ')
        .map(|keys| match keys {
            "+" => vec!["+"],
            keys => keys.split('+').collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart() {
        let cases: [(&str, &[&[&str]]); 4] = [
            ("Enter", &[&["Enter"]]),
            (
                "Ctrl+Y Ctrl+Shift+Z",
                &[&["Ctrl", "Y"], &["Ctrl", "Shift", "Z"]],
            ),
            ("Ctrl+wheel + -", &[&["Ctrl", "wheel"], &["+"], &["-"]]),
            ("? Ctrl+/", &[&["?"], &["Ctrl", "/"]]),
        ];
        for (keys, expected) in cases {
            assert_eq!(alternatives(keys), expected, "{keys}");
        }
    }

    #[test]
    fn no_key_is_listed_twice_in_a_group() {
        for group in &KEY_GROUPS {
            let mut keys: Vec<_> = (group.rows.iter())
                .flat_map(|(keys, _)| alternatives(keys))
                .collect();
            let all = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), all, "{}", group.name);
        }
    }
}
