//! Light or dark. The style sheet follows the system by media queries; a choice of the user overrides
//! these, so that every colour is written once.

use chatrex::chat::settings::Theme;
use wasm_bindgen::JsCast;
use web_sys::{CssMediaRule, CssStyleSheet, Document, Element, HtmlElement};

const DARK: &str = "(prefers-color-scheme: dark)";
const LIGHT: &str = "(prefers-color-scheme: light)";

/// Applies a theme to the page.
pub fn apply(theme: Theme) {
    let Some(document) = web_sys::window().and_then(|window| window.document()) else {
        return;
    };
    if let Some(root) = document.document_element() {
        let scheme = match theme.is_dark() {
            None => "light dark",
            Some(true) => "dark",
            Some(false) => "light",
        };
        let style = root.unchecked_ref::<HtmlElement>().style();
        // A browser that refuses it stays with the system.
        let _ = style.set_property("color-scheme", scheme);
    }
    override_rules(&document, theme);
    let Ok(metas) = document.query_selector_all("meta[name=theme-color]") else {
        return;
    };
    for index in 0..metas.length() {
        if let Some(meta) = metas.item(index) {
            let meta = meta.unchecked_into::<Element>();
            let media = meta.get_attribute("media").unwrap_or_default();
            if let Some(media) = overridden(&media, theme) {
                let _ = meta.set_attribute("media", &media);
            }
        }
    }
}

fn override_rules(document: &Document, theme: Theme) {
    let sheets = document.style_sheets();
    for index in 0..sheets.length() {
        let Some(sheet) = sheets.item(index) else {
            continue;
        };
        // A sheet of an extension may not be read.
        let Ok(rules) = sheet.unchecked_into::<CssStyleSheet>().css_rules() else {
            continue;
        };
        for index in 0..rules.length() {
            let rule = rules.item(index);
            if let Some(rule) = rule.and_then(|rule| rule.dyn_into::<CssMediaRule>().ok()) {
                let media = rule.media();
                if let Some(text) = overridden(&media.media_text(), theme) {
                    media.set_media_text(&text);
                }
            }
        }
    }
}

/// The query of a rule for light or for dark under a theme; `None` for other rules. It begins like the
/// one in the style sheet, so that it is found again.
fn overridden(media: &str, theme: Theme) -> Option<String> {
    let (own, other, is_dark) = if media.starts_with(DARK) {
        (DARK, LIGHT, true)
    } else if media.starts_with(LIGHT) {
        (LIGHT, DARK, false)
    } else {
        return None;
    };
    Some(match theme.is_dark() {
        None => own.to_owned(),
        Some(dark) if dark == is_dark => format!("{own}, {other}"),
        Some(_) => format!("{own} and {other}"),
    })
}
