//! The language of words as far as their script tells it, for the `lang` attribute.

/// The language tag of `text`: that of the first script in it that belongs to one language, or a tag
/// without a language for scripts of several. `None` for Latin letters, which follow the page.
pub fn of(text: &str) -> Option<&'static str> {
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
    shared
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
    }
}
