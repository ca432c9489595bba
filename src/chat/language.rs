//! The language of words as far as their script tells it, for the `lang` attribute.

use crate::chat::words::{self, Language};

/// The language tag of `text`: that of the first script in it that belongs to one language, or a tag
/// without a language for scripts of several. Latin letters are taken for English; `None` on an English
/// page, and where there are no letters.
pub fn of(text: &str) -> Option<&'static str> {
    let has_latin = text.contains(|c: char| c.is_ascii_alphabetic());
    let mut shared = None;
    for character in text.chars() {
        match character as u32 {
            // Kana tell Japanese from Chinese, so they decide even after Han characters.
            0x3041..=0x30FF => return Some("ja"),
            0xAC00..=0xD7A3 | 0x1100..=0x11FF => return Some("ko"),
            0x0E01..=0x0E5B => return Some("th"),
            0x0370..=0x03FF => return Some("el"),
            0x0590..=0x05FF => return Some("he"),
            0x10A0..=0x10FF => return Some("ka"),
            0x0530..=0x058F => return Some("hy"),
            0x4E00..=0x9FFF | 0x3400..=0x4DBF => shared = shared.or(Some("zh")),
            0x0600..=0x06FF => shared = shared.or(Some("ar")),
            0x0400..=0x04FF => shared = shared.or(Some("ru")),
            0x0900..=0x097F => shared = shared.or(Some("hi")),
            _ => {}
        }
    }
    shared.or((has_latin && words::language() != Language::English).then_some("en"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_tells_the_language() {
        for (text, expected) in [
            ("How many birds?", None),
            ("12 !", None),
            ("مرحبا (2 birds)", Some("ar")),
            ("猫はどこ", Some("ja")),
            ("猫在哪里", Some("zh")),
            ("고양이", Some("ko")),
            ("где кот?", Some("ru")),
            ("שלום", Some("he")),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        words::speak(Language::Chinese);
        assert_eq!(of("two birds"), Some("en"));
        assert_eq!(of("12 !"), None);
        assert_eq!(of("猫 cat"), Some("zh"));
    }
}
