//! The texts of the page's frame: tabs, the small picture, the list of keys.

use crate::chat::side::Tab;
use crate::chat::words::{Word, text};

/// The heading of the picture.
pub const PICTURE: Word = || text("Picture", "图片");
/// The group of the two tabs.
pub const TABS: Word = || text("Chat and objects", "对话与物体");
/// Said of the chat's tab while it has an answer that was not seen.
pub const NEWS: Word = || text("new answer", "有新回答");
/// Button over the small picture of a small screen.
pub const ENLARGE: Word = || text("Show the picture large", "放大显示图片");
/// What the page can be used for without a network.
pub const OFFLINE: Word = || text("Works offline", "可离线使用");
/// The same in full.
pub const OFFLINE_NAME: Word = || {
    text(
        "Everything needed is stored on this device",
        "所需的一切都已存储在本设备上",
    )
};
/// Opens the list of keys, and its heading.
pub const KEYS: Word = || text("Keys", "按键");
/// Note below the list of keys.
pub const KEYS_NOTE: Word = || {
    text(
        "Keys of a single letter work while the picture has the focus. On a Mac, Command is Ctrl.",
        "单字母按键在图片获得焦点时有效。在 Mac 上，Command 键相当于 Ctrl。",
    )
};

/// The name of a tab.
pub fn tab(tab: Tab) -> &'static str {
    match tab {
        Tab::Chat => text("Chat", "对话"),
        Tab::Objects => text("Objects", "物体"),
    }
}

/// A key and what it does. Alternatives are separated by a space; keys pressed together by a plus sign.
pub type KeyRow = (&'static str, Word);

/// Keys that belong together.
pub struct KeyGroup {
    /// Where they work.
    pub name: Word,
    /// The keys.
    pub rows: &'static [KeyRow],
}

/// All keys of the page.
pub static KEY_GROUPS: [KeyGroup; 5] = [
    KeyGroup {
        name: || text("Everywhere", "任何位置"),
        rows: &[
            ("? Ctrl+/", || text("Show this list", "显示此列表")),
            ("Esc", || {
                text(
                    "Let go of the selection and of highlights",
                    "取消选择和突出显示",
                )
            }),
            ("Shift+Esc", || text("Go to the text box", "转到输入框")),
            ("Alt+R", || {
                text("Ask the last question again", "重新问上一个问题")
            }),
            ("Ctrl+V", || {
                text("Open a picture from the clipboard", "从剪贴板打开图片")
            }),
            ("Ctrl+Shift+O", || text("Begin anew", "重新开始")),
            ("Ctrl+,", || text("Open the settings", "打开设置")),
            ("Ctrl+← Ctrl+→", || {
                text(
                    "Previous or next picture of several",
                    "多张图片中的上一张或下一张",
                )
            }),
        ],
    },
    KeyGroup {
        name: || text("Text box", "输入框"),
        rows: &[
            ("Enter", || text("Send", "发送")),
            ("Shift+Enter", || text("New line", "换行")),
            ("Esc", || {
                text(
                    "Stop the answer, or leave a kind of question",
                    "停止回答，或退出问题类型",
                )
            }),
            ("↑", || {
                text(
                    "In an empty box: the last question again",
                    "输入框为空时：取回上一个问题",
                )
            }),
            ("/", || {
                text(
                    "In an empty box: the kinds of question",
                    "输入框为空时：问题类型",
                )
            }),
            ("#3", || text("Name box 3", "提到 3 号框")),
        ],
    },
    KeyGroup {
        name: || text("Picture", "图片"),
        rows: &[
            ("V", || text("Select", "选择")),
            ("H", || text("Move the picture", "移动图片")),
            ("R N", || text("Draw boxes", "画框")),
            ("Space+drag", || {
                text("Move the picture with any tool", "使用任何工具时移动图片")
            }),
            ("Ctrl+wheel + -", || text("Zoom", "缩放")),
            ("0", || text("Whole picture", "整张图片")),
            ("1", || text("Full size", "原始大小")),
            (". ,", || text("Next or previous box", "下一个或上一个框")),
            ("B", || text("Without boxes, while held", "按住时不显示框")),
            ("Shift+H", || {
                text(
                    "Hide all boxes, or show them again",
                    "隐藏所有框，或重新显示",
                )
            }),
        ],
    },
    KeyGroup {
        name: || text("Selected boxes", "选中的框"),
        rows: &[
            ("Enter", || text("Ask about them", "就它们提问")),
            ("← ↑ → ↓", || {
                text(
                    "Move a box by 1 pixel, with Shift by 10",
                    "把框移动 1 像素，按住 Shift 移动 10 像素",
                )
            }),
            ("Delete", || text("Remove them", "移除它们")),
            ("Alt+H", || text("Hide them", "隐藏它们")),
            ("Ctrl+Z", || text("Undo", "撤销")),
            ("Ctrl+Y Ctrl+Shift+Z", || text("Redo", "重做")),
        ],
    },
    KeyGroup {
        name: || text("List of objects", "物体列表"),
        rows: &[
            ("↑ ↓", || {
                text(
                    "Next or previous row, with Shift select on the way",
                    "下一行或上一行，按住 Shift 同时选择",
                )
            }),
            ("Space", || {
                text("Select or deselect the row", "选择或取消选择该行")
            }),
            ("Ctrl+A", || text("Select all", "全选")),
            ("H", || {
                text(
                    "Hide the boxes, or show them again",
                    "隐藏这些框，或重新显示",
                )
            }),
            ("Enter", || {
                text("Ask about the selected boxes", "就选中的框提问")
            }),
            ("Delete", || text("Remove them", "移除它们")),
        ],
    },
];

/// The name of a key or a movement of the mouse, as the list shows it.
pub fn key_name(key: &str) -> String {
    match key {
        "drag" => text("drag", "拖动").into(),
        "wheel" => text("wheel", "滚轮").into(),
        "Space" => text("Space", "空格").into(),
        key => key.into(),
    }
}

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
            assert_eq!(keys.len(), all, "{}", (group.name)());
        }
    }
}
