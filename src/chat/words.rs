//! The languages of the page, and how texts, numbers and dates are written in them.
//!
//! Rules. A text is written once per language in one call: [`text`], or `say!` where values stand in it,
//! so that a missing translation does not compile. Counts choose their words by [`plural`]; numbers go
//! through [`number`], [`percent`], [`bytes`] and [`moment`]. What they write comes from a [`Locale`], which
//! the page gives once with [`install`]; without one it is plain English.

use std::cell::RefCell;
use std::rc::Rc;

/// A language of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// Its tag, for `lang` and for the formats of the browser.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    /// The first of the tags that the page knows, else English.
    pub fn of_tags<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |tag: &str| {
            let primary = tag.split(['-', '_']).next().unwrap_or_default();
            match primary.to_ascii_lowercase().as_str() {
                "en" => Some(Self::English),
                "zh" => Some(Self::Chinese),
                _ => None,
            }
        };
        tags.into_iter().find_map(known).unwrap_or_default()
    }
}

/// A text without values, in the language of the moment. Views show it as it stands; they are drawn again
/// when the language changes.
pub type Word = fn() -> &'static str;

/// Which words a count takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plural {
    /// Those of one thing.
    One,
    /// Those of any other count.
    Other,
}

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// As it is.
    Plain,
    /// 1 is 100 percent.
    Percent,
    /// Kilobytes.
    Kilobyte,
    /// Megabytes.
    Megabyte,
    /// Gigabytes.
    Gigabyte,
}

/// What the browser knows about the language of the page.
pub trait Locale {
    /// The language.
    fn language(&self) -> Language;
    /// A number with this many decimals.
    fn number(&self, value: f64, style: Style, decimals: u8) -> String;
    /// The words of a count.
    fn plural(&self, count: f64) -> Plural;
    /// Date and time of day of a moment, in milliseconds since 1970.
    fn moment(&self, milliseconds: f64) -> String;
}

thread_local! {
    static LOCALE: RefCell<Rc<dyn Locale>> = RefCell::new(Rc::new(Plain(Language::English)));
}

/// Writes from now on in this locale, on this thread.
pub fn install(locale: impl Locale + 'static) {
    LOCALE.set(Rc::new(locale));
}

fn locale() -> Rc<dyn Locale> {
    LOCALE.with_borrow(Rc::clone)
}

/// The language of the page.
pub fn language() -> Language {
    locale().language()
}

/// The text of the page's language.
pub fn text(english: &'static str, chinese: &'static str) -> &'static str {
    match language() {
        Language::English => english,
        Language::Chinese => chinese,
    }
}

/// `format!` in the page's language: the format in English, that in Chinese, then the values of both.
macro_rules! say {
    ($english:literal, $chinese:literal $(, $($values:tt)*)?) => {
        match $crate::chat::words::language() {
            $crate::chat::words::Language::English => format!($english $(, $($values)*)?),
            $crate::chat::words::Language::Chinese => format!($chinese $(, $($values)*)?),
        }
    };
}
pub(crate) use say;

/// The words that a count takes.
pub fn plural(count: usize) -> Plural {
    locale().plural(count as f64)
}

/// A count.
pub fn count(count: usize) -> String {
    number(count as f64, 0)
}

/// A number with this many decimals.
pub fn number(value: f64, decimals: u8) -> String {
    locale().number(value, Style::Plain, decimals)
}

/// A share as percent: 0.43 is 43 percent.
pub fn percent(share: f64, decimals: u8) -> String {
    locale().number(share, Style::Percent, decimals)
}

/// A number of bytes in the unit that fits `of`.
pub fn bytes(bytes: u64, of: u64) -> String {
    let (scale, style) = scale(of);
    locale().number(bytes as f64 / scale, style, 1)
}

/// A number of bytes without its unit, that of [`bytes`] for `of`.
pub fn bare_bytes(bytes: u64, of: u64) -> String {
    number(bytes as f64 / scale(of).0, 1)
}

fn scale(bytes: u64) -> (f64, Style) {
    match bytes {
        1_000_000_000.. => (1e9, Style::Gigabyte),
        100_000.. => (1e6, Style::Megabyte),
        _ => (1e3, Style::Kilobyte),
    }
}

/// Date and time of day of a moment, in milliseconds since 1970.
pub fn moment(milliseconds: f64) -> String {
    locale().moment(milliseconds)
}

/// A locale without a browser.
struct Plain(Language);

impl Locale for Plain {
    fn language(&self) -> Language {
        self.0
    }

    fn number(&self, value: f64, style: Style, decimals: u8) -> String {
        let value = match style {
            Style::Percent => value * 100.0,
            _ => value,
        };
        let text = grouped(&format!("{value:.*}", usize::from(decimals)));
        match style {
            Style::Plain => text,
            Style::Percent => text + "%",
            Style::Kilobyte => text + " kB",
            Style::Megabyte => text + " MB",
            Style::Gigabyte => text + " GB",
        }
    }

    fn plural(&self, count: f64) -> Plural {
        match self.0 {
            Language::English if count == 1.0 => Plural::One,
            _ => Plural::Other,
        }
    }

    fn moment(&self, milliseconds: f64) -> String {
        format!("{milliseconds:.0} ms")
    }
}

/// Commas between groups of three digits.
fn grouped(number: &str) -> String {
    let whole = number.find('.').unwrap_or(number.len());
    let first = number.find(|c: char| c.is_ascii_digit()).unwrap_or(whole);
    let mut out = String::with_capacity(number.len() + 4);
    for (place, character) in number.char_indices() {
        let is_border = place > first && place < whole && (whole - place).is_multiple_of(3);
        if is_border {
            out.push(',');
        }
        out.push(character);
    }
    out
}

/// Writes plainly in a language on this thread, for tests.
#[cfg(test)]
pub(crate) fn speak(language: Language) {
    install(Plain(language));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_tag_decides() {
        for (tags, expected) in [
            (vec![], Language::English),
            (vec!["zh-CN", "en"], Language::Chinese),
            (vec!["zh-Hant-TW"], Language::Chinese),
            (vec!["ZH"], Language::Chinese),
            (vec!["fr", "de-CH"], Language::English),
            (vec!["fr", "zh"], Language::Chinese),
            (vec!["en-GB", "zh"], Language::English),
            (vec!["zha"], Language::English),
        ] {
            assert_eq!(
                Language::of_tags(tags.iter().copied()),
                expected,
                "{tags:?}"
            );
        }
    }

    #[test]
    fn a_text_is_in_the_language_of_the_moment() {
        let three = 3;
        assert_eq!(text("box", "框"), "box");
        assert_eq!(say!("{three} of {}", "{} 之 {three}", 5), "3 of 5");
        speak(Language::Chinese);
        assert_eq!(text("box", "框"), "框");
        assert_eq!(say!("{three} of {}", "{} 之 {three}", 5), "5 之 3");
        assert_eq!(plural(1), Plural::Other);
        speak(Language::English);
        assert_eq!(plural(1), Plural::One);
        assert_eq!(plural(0), Plural::Other);
    }

    #[test]
    fn numbers_take_the_unit_that_fits() {
        for (value, expected) in [
            (0, "0.0 kB"),
            (99_999, "100.0 kB"),
            (100_000, "0.1 MB"),
            (4_130_000, "4.1 MB"),
            (4_100_000_000, "4.1 GB"),
            (4_100_000_000_000, "4,100.0 GB"),
        ] {
            assert_eq!(bytes(value, value), expected);
        }
        assert_eq!(bare_bytes(2_100_000, 4_100_000), "2.1");
        assert_eq!(number(-1234.5, 1), "-1,234.5");
        assert_eq!(count(999), "999");
        assert_eq!(percent(0.431, 0), "43%");
        assert_eq!(percent(0.0123, 1), "1.2%");
    }
}
