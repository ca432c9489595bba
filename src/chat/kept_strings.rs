//! The texts about pictures, kept conversations and settings.

use crate::chat::history::Trouble;
use crate::chat::words::{self, Plural, Word, plural, say, text};

/// The first sentence of the empty page.
pub const HERO: Word = || {
    text(
        "Ask about a picture. Nothing leaves this page.",
        "就一张图片提问，内容不会离开本页面。",
    )
};
/// Before the link that chooses a file.
pub const DROP_HERE: Word = || text("Drop a picture, paste one, or ", "拖入或粘贴一张图片，或者");
/// The link that chooses a file.
pub const CHOOSE_FILE: Word = || text("choose a file", "选择文件");
/// Between that link and the next.
pub const OR_USE: Word = || text(" or use the ", "，也可以使用");
/// The link that opens the camera.
pub const CAMERA_LINK: Word = || text("camera", "相机");
/// Above the sample cards.
pub const OR_SAMPLE: Word = || text("Or try a sample", "或者试试示例图片");
/// Over the page while something is dragged over it.
pub const DROP_TO_OPEN: Word = || text("Drop to open", "松开即可打开");
/// Where a picture of another page came without its bytes.
pub const ADDRESS_ONLY: Word = || {
    text(
        "Only the address of that picture came along. Save the picture and drop the file here.",
        "只得到了那张图片的地址。请先保存图片，再把文件拖到这里。",
    )
};
/// Where another site refuses to give its picture.
pub const ADDRESS_REFUSED: Word = || {
    text(
        "That site does not let other pages read its pictures. Save it and drop it here.",
        "那个网站不允许其他页面读取它的图片。请先保存，再拖到这里。",
    )
};
/// Label of the address field.
pub const ADDRESS: Word = || text("Address of a picture", "图片的地址");
/// Button that opens the address.
pub const OPEN: Word = || text("Open", "打开");

/// The button that begins anew.
pub const NEW: Word = || text("New", "新建");
/// The button that opens pictures.
pub const OPEN_PICTURE: Word = || text("Open picture", "打开图片");
/// The button that removes the picture.
pub const REMOVE: Word = || text("Remove picture", "移除图片");
/// The message after that.
pub const CLOSED: Word = || text("The picture is in the history.", "图片已存入历史记录。");
/// The button of a message.
pub const UNDO: Word = || text("Undo", "撤销");
/// The strip of pictures.
pub const STRIP: Word = || text("Pictures opened together", "一起打开的图片");

/// The history.
pub const HISTORY: Word = || text("History", "历史记录");
/// Label of its search field.
pub const SEARCH: Word = || text("Search", "搜索");
/// An empty history.
pub const NO_HISTORY: Word = || text("Nothing is kept yet.", "还没有保存任何内容。");
/// A search without results.
pub const NOTHING_FOUND: Word = || text("Nothing found.", "没有找到。");
/// Button that renames.
pub const RENAME: Word = || text("Rename", "重命名");
/// Button that keeps the new title.
pub const SAVE: Word = || text("Save", "保存");
/// Button that deletes.
pub const DELETE: Word = || text("Delete", "删除");
/// Button that deletes all.
pub const DELETE_ALL: Word = || text("Delete everything", "全部删除");
/// Button that goes back.
pub const BACK: Word = || text("Back", "返回");
/// The switch for all conversations.
pub const NO_KEEPING: Word = || text("Do not keep history", "不保存历史记录");
/// The switch for the open conversation.
pub const TEMPORARY: Word = || text("Temporary chat: not kept", "临时对话：不保存");
/// After everything is deleted.
pub const ALL_DELETED: Word = || {
    text(
        "All pictures and chats are deleted.",
        "所有图片和对话均已删除。",
    )
};
/// A record that is gone.
pub const NOT_THERE: &str = "it is not in the browser's storage any more";
/// A record that is damaged.
pub const DAMAGED: &str = "it is damaged or written by another version of the page";

/// The settings.
pub const SETTINGS: Word = || text("Settings", "设置");
/// The switch of the theme.
pub const THEME: Word = || text("Theme", "主题");
/// The switch of the language, in every language.
pub const LANGUAGE: Word = || text("Language", "语言 (Language)");
/// Button that resets.
pub const RESET: Word = || text("Reset settings", "重置设置");
/// After that.
pub const RESET_DONE: Word = || text("The settings are reset.", "设置已重置。");

/// The camera's dialog.
pub const CAMERA: Word = || text("Camera", "相机");
/// Its shutter.
pub const SHUTTER: Word = || text("Take picture", "拍照");
/// Button that closes it.
pub const CLOSE: Word = || text("Close", "关闭");
/// While the browser asks for permission.
pub const CAMERA_WAITS: Word = || text("Waiting for the camera…", "正在等待相机…");
/// The user or the browser refuses the camera.
pub const CAMERA_DENIED: Word = || {
    text(
        "The camera is not allowed here. Allow it in the browser's settings for this page, or open a file.",
        "此页面未获准使用相机。请在浏览器设置中允许本页面使用相机，或者打开文件。",
    )
};
/// There is no camera, or it is in use.
pub const CAMERA_ABSENT: Word = || {
    text(
        "No camera was found, or another program uses it.",
        "没有找到相机，或者相机正被其他程序占用。",
    )
};

/// A new version of the page is stored.
pub const NEW_VERSION: Word = || text("New version ready.", "新版本已就绪。");
/// Button that starts it.
pub const RELOAD: Word = || text("Reload", "重新加载");
/// Button that installs the page.
pub const INSTALL: Word = || text("Install", "安装");

/// After a picture was opened in place of another.
pub fn opened(name: &str) -> String {
    match name {
        "" => text("Opened the picture.", "已打开图片。").to_owned(),
        name => say!("Opened {name}.", "已打开 {name}。"),
    }
}

/// After conversations were deleted.
pub fn deleted(count: usize) -> String {
    let n = words::count(count);
    match plural(count) {
        Plural::One => say!("{n} chat deleted.", "已删除 {n} 个对话。"),
        Plural::Other => say!("{n} chats deleted.", "已删除 {n} 个对话。"),
    }
}

/// Files that were left out of several.
pub fn not_pictures(count: usize) -> String {
    let n = words::count(count);
    match plural(count) {
        Plural::One => say!(
            "{n} file is not a picture this browser can read.",
            "有 {n} 个文件不是此浏览器能读取的图片。"
        ),
        Plural::Other => say!(
            "{n} files are not pictures this browser can read.",
            "有 {n} 个文件不是此浏览器能读取的图片。"
        ),
    }
}

/// Where no file of a folder is a picture.
pub const NO_PICTURES: Word = || {
    text(
        "There is no picture in it. Your current picture is unchanged.",
        "里面没有图片。当前图片未改变。",
    )
};

/// The question before everything is deleted.
pub fn delete_all(count: usize) -> String {
    let n = words::count(count);
    match plural(count) {
        Plural::One => say!(
            "Delete the picture and chat from this browser? This cannot be undone.",
            "要从此浏览器中删除图片和对话吗？此操作无法撤销。"
        ),
        Plural::Other => say!(
            "Delete all {n} pictures and chats from this browser? This cannot be undone.",
            "要从此浏览器中删除全部 {n} 组图片和对话吗？此操作无法撤销。"
        ),
    }
}

/// Why nothing is kept.
pub fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoStorage => text(
            "This window keeps no history: the browser offers no storage here.",
            "此窗口不保存历史记录：浏览器在这里不提供存储空间。",
        ),
        Trouble::Full => text(
            "The browser has no room for more history. What is open works on, but is not kept.",
            "浏览器没有空间保存更多历史记录。当前内容可以继续使用，但不会保存。",
        ),
    }
}

/// Records that cannot be read.
pub fn skipped(count: usize) -> Option<String> {
    let n = words::count(count);
    (count > 0).then(|| match plural(count) {
        Plural::One => say!(
            "{n} chat cannot be read by this version and is left as it is.",
            "有 {n} 个对话无法由此版本读取，保持原样。"
        ),
        Plural::Other => say!(
            "{n} chats cannot be read by this version and are left as they are.",
            "有 {n} 个对话无法由此版本读取，保持原样。"
        ),
    })
}

/// The name of a picture in the strip.
pub fn strip_name(place: usize, count: usize, title: &str) -> String {
    let place = place + 1;
    say!(
        "Picture {place} of {count}: {title}",
        "第 {place} 张图片，共 {count} 张：{title}"
    )
}

/// Name of a button on one conversation.
pub fn on_chat(action: &str, title: &str) -> String {
    say!("{action}: {title}", "{action}：{title}")
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
