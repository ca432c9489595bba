//! The sentences of faults and of other texts that the engine and models bring, which are English there.
//!
//! Rules. A sentence that [`KNOWN`] holds is translated with its values. Of any other the page of another
//! language tells the cause, by its code, and offers the original beside it.

mod known;

use crate::chat::words::{Language, Word, language, text};
use crate::error::{ErrorCode, Fault};
use known::KNOWN;

/// Opens the [`original`].
pub const ORIGINAL: Word = || text("Original", "英文原文");

/// A fault as sentences; names of files and addresses keep their case.
pub fn sentence(fault: &Fault) -> String {
    match language() {
        Language::English => english(fault),
        Language::Chinese => chinese(fault),
    }
}

/// The English sentences of a fault where the page's language tells only their cause.
pub fn original(fault: &Fault) -> Option<String> {
    let is_known = language() == Language::English || translation(&fault.what).is_some();
    (!is_known).then(|| english(fault))
}

/// Whether the page tells this English text in every language.
pub fn is_known(english: &str) -> bool {
    translation(english).is_some()
}

/// A text of the engine or of a model in the page's language, where it is known in it.
pub fn translated(english: &str) -> Option<String> {
    match language() {
        Language::English => Some(english.to_owned()),
        Language::Chinese => translation(english),
    }
}

/// A text of a model in the page's language, or as the model brings it.
pub fn of_model(english: &str) -> String {
    translated(english).unwrap_or_else(|| english.to_owned())
}

fn english(fault: &Fault) -> String {
    // "That file" and "that picture" begin a sentence; other places are names.
    let colon = match fault.place.starts_with("that ") {
        true => " cannot be opened:",
        false => ":",
    };
    let what = fault.what.trim_end_matches('.');
    let mut text = format!("{}{colon} {what}.", fault.place);
    let is_name = fault.place.contains(['.', '/', '_']);
    if let Some(first) = text.get(..1).filter(|_| !is_name) {
        text = format!("{}{}", first.to_uppercase(), &text[1..]);
    }
    if !fault.advice.is_empty() {
        text.push_str(&format!(" {}.", fault.advice.trim_end_matches('.')));
    }
    text
}

fn chinese(fault: &Fault) -> String {
    let known = translation(&fault.what);
    let advice = translation(&fault.advice).filter(|_| known.is_some());
    let what = known.unwrap_or_else(|| cause(fault.code).to_owned());
    let place = translation(&fault.place);
    let place = place.as_deref().unwrap_or(&fault.place);
    let mut text = match fault.place.starts_with("that ") {
        true => format!("无法打开{place}：{what}。"),
        false => format!("{place}：{what}。"),
    };
    if let Some(advice) = advice {
        text.push_str(&format!("{advice}。"));
    }
    text
}

/// The cause of a fault in words.
fn cause(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unknown => text("the cause is not known", "原因不明"),
        ErrorCode::OutOfMemory => text("there is not enough memory", "内存不足"),
        ErrorCode::DeviceLost => text("the GPU was reset or removed", "GPU 已被重置或移除"),
        ErrorCode::DeviceFailed => text("the GPU failed", "GPU 出错"),
        ErrorCode::NoAdapter => text("there is no usable GPU", "没有可用的 GPU"),
        ErrorCode::ShaderRejected => text(
            "the GPU driver does not compile a shader",
            "GPU 驱动无法编译着色器",
        ),
        ErrorCode::WrongResult => text("the device computes wrong values", "设备的计算结果有误"),
        ErrorCode::Corrupt => text("the data are damaged", "数据已损坏"),
        ErrorCode::NotFound => text("it does not exist", "不存在"),
        ErrorCode::Unsupported => text("it is not supported", "不受支持"),
        ErrorCode::Forbidden => text("it is not allowed", "不允许"),
        ErrorCode::Cancelled => text("it was cancelled", "已取消"),
        ErrorCode::InvalidInput => text("it cannot be used", "无法使用"),
        ErrorCode::Quota => text("there is no space left", "没有剩余空间"),
        ErrorCode::InUse => text("it is in use elsewhere", "正在别处使用"),
        ErrorCode::Storage => text("it cannot be read or written", "无法读取或写入"),
        ErrorCode::Network => text("the network or the server failed", "网络或服务器出错"),
        ErrorCode::NotReady => text("something else is needed first", "尚未就绪"),
        ErrorCode::Protocol => text(
            "parts of the page do not understand each other",
            "页面各部分之间无法通信",
        ),
        ErrorCode::WorkerLost => text("the worker stopped", "工作线程已停止"),
    }
}

/// The Chinese of an English text; `None` where it is not known.
fn translation(english: &str) -> Option<String> {
    if english.is_empty() {
        return None;
    }
    let english = english.trim_end_matches('.');
    KNOWN.iter().find_map(|(known, chinese)| {
        let values = values(known, english)?;
        let mut text = (*chinese).to_owned();
        for (place, value) in values.iter().enumerate() {
            let value = translation(value).unwrap_or_else(|| (*value).to_owned());
            text = text.replace(&format!("{{{place}}}"), &value);
        }
        Some(text)
    })
}

/// The values in `text` where `pattern` has `{}`; `None` where the words around them differ.
fn values<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = pattern.split("{}");
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut values = Vec::new();
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        let end = match (part.is_empty(), is_last) {
            (_, true) => rest
                .len()
                .checked_sub(part.len())
                .filter(|&end| rest.is_char_boundary(end) && rest[end..] == *part)?,
            (true, false) => return None,
            (false, false) => rest.find(part)?,
        };
        values.push(&rest[..end]);
        rest = &rest[end + part.len()..];
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::words::speak;
    use crate::error::FaultKind;

    #[test]
    fn faults_become_sentences() {
        let cases = [
            (
                ("that file", "it is empty", ""),
                "That file cannot be opened: it is empty.",
                "无法打开该文件：文件是空的。",
            ),
            (
                ("a.bin", "is loaded", "Unload it first, then delete it."),
                "a.bin: is loaded. Unload it first, then delete it.",
                "a.bin：已加载。请先卸载，再删除。",
            ),
            (
                ("models/a", "is short", "Choose the files again"),
                "models/a: is short. Choose the files again.",
                "models/a：数据已损坏。",
            ),
            (("über", "x", ""), "über: x.", "über：数据已损坏。"),
        ];
        for ((place, what, advice), english, chinese) in cases {
            let fault = Fault::new(FaultKind::Model, place, what, advice);
            assert_eq!(sentence(&fault), english);
            assert_eq!(original(&fault), None);
            speak(Language::Chinese);
            assert_eq!(sentence(&fault), chinese);
            let is_told = chinese.contains("数据已损坏");
            assert_eq!(original(&fault).is_some(), is_told, "{what}");
            speak(Language::English);
        }
    }

    #[test]
    fn values_keep_their_places() {
        for (pattern, text, expected) in [
            ("is {} of {} MB", "is 3 of 4 MB", Some(vec!["3", "4"])),
            ("{} is", "a b is", Some(vec!["a b"])),
            ("it {}", "it ", Some(vec![""])),
            ("a", "a", Some(vec![])),
            ("a", "ab", None),
            ("is {} MB", "is 3 GB", None),
            ("ends {}b", "ends 框", None),
        ] {
            assert_eq!(values(pattern, text), expected, "{pattern}");
        }
    }

    #[test]
    fn every_translation_names_all_values() {
        for (english, chinese) in KNOWN {
            let count = english.matches("{}").count();
            for place in 0..count {
                assert!(chinese.contains(&format!("{{{place}}}")), "{english}");
            }
            assert_eq!(chinese.matches('{').count(), count, "{english}");
            assert!(
                !english.ends_with('.') && !chinese.ends_with('。'),
                "{english}"
            );
        }
    }
}
