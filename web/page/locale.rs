//! The language of the page: from the browser or the settings, `lang` and `dir` of the document, and the
//! browser's formats for numbers and dates.

use std::cell::RefCell;
use std::collections::HashMap;

use chatrex::chat::settings::LanguageChoice;
use chatrex::chat::words::{self, Language, Locale, Plural, Style};
use js_sys::{Array, Date, Function, Intl, JsString, Object, Reflect};
use leptos::prelude::*;
use leptos::reactive::graph::Observer;
use wasm_bindgen::JsValue;

thread_local! {
    static LANGUAGE: ArcRwSignal<Language> = ArcRwSignal::new(Language::default());
}

/// Writes in the language of the choice from now on. What shows texts is drawn again.
pub fn apply(choice: LanguageChoice) {
    let language = choice.language().unwrap_or_else(of_browser);
    let root = document().document_element();
    if let Some(root) = root {
        let direction = if is_mirrored() { "rtl" } else { "ltr" };
        for (name, value) in [("lang", language.tag()), ("dir", direction)] {
            // The document takes every attribute.
            let _ = root.set_attribute(name, value);
        }
    }
    LANGUAGE.with(|now| {
        if now.get_untracked() != language {
            now.set(language);
        }
    });
}

/// Gives the words of the page their language and formats.
pub fn install() {
    words::install(Browser::default());
}

/// The first language of the browser that the page knows.
fn of_browser() -> Language {
    let tags: Vec<String> = window()
        .navigator()
        .languages()
        .iter()
        .filter_map(|tag| tag.as_string())
        .collect();
    Language::of_tags(tags.iter().map(String::as_str))
}

/// `?dir=rtl` lays the page out from right to left. No language of the page needs it; tests check with it
/// that the layout follows.
fn is_mirrored() -> bool {
    let query = window().location().search().unwrap_or_default();
    let query = query.trim_start_matches('?');
    query.split('&').any(|part| part == "dir=rtl")
}

/// The formats of the browser.
#[derive(Default)]
struct Browser {
    numbers: RefCell<HashMap<(Language, Style, u8), Function>>,
    plurals: RefCell<HashMap<Language, Intl::PluralRules>>,
    moments: RefCell<HashMap<Language, Function>>,
}

impl Locale for Browser {
    fn language(&self) -> Language {
        LANGUAGE.with(|now| match Observer::get() {
            Some(_) => now.get(),
            None => now.get_untracked(),
        })
    }

    fn number(&self, value: f64, style: Style, decimals: u8) -> String {
        let language = self.language();
        let mut numbers = self.numbers.borrow_mut();
        let format = numbers
            .entry((language, style, decimals))
            .or_insert_with(|| {
                Intl::NumberFormat::new(&tags(language), &number_options(style, decimals)).format()
            });
        written(format, &value.into())
    }

    fn plural(&self, count: f64) -> Plural {
        let language = self.language();
        let mut plurals = self.plurals.borrow_mut();
        let rules = plurals
            .entry(language)
            .or_insert_with(|| Intl::PluralRules::new(&tags(language), &Object::new()));
        match String::from(rules.select(count)).as_str() {
            "one" => Plural::One,
            _ => Plural::Other,
        }
    }

    fn moment(&self, milliseconds: f64) -> String {
        let language = self.language();
        let mut moments = self.moments.borrow_mut();
        let format = moments.entry(language).or_insert_with(|| {
            let options = options(&[
                ("dateStyle", "medium".into()),
                ("timeStyle", "short".into()),
            ]);
            Intl::DateTimeFormat::new(&tags(language), &options).format()
        });
        written(format, &Date::new(&milliseconds.into()).into())
    }
}

/// The browser's own variant of the language before the language, as `en-GB` before `en`.
fn tags(language: Language) -> Array {
    let all = window().navigator().languages();
    let own = all.iter().filter(|tag| {
        let tag = tag.as_string().unwrap_or_default();
        Language::of_tags([tag.as_str()]) == language && tag.starts_with(&language.tag()[..2])
    });
    let tags: Array = own.take(1).collect();
    tags.push(&language.tag().into());
    tags
}

fn number_options(style: Style, decimals: u8) -> Object {
    let unit = |unit: &str| [("style", "unit".into()), ("unit", unit.into())].to_vec();
    let mut all = match style {
        Style::Plain => Vec::new(),
        Style::Percent => vec![("style", "percent".into())],
        Style::Kilobyte => unit("kilobyte"),
        Style::Megabyte => unit("megabyte"),
        Style::Gigabyte => unit("gigabyte"),
    };
    for name in ["minimumFractionDigits", "maximumFractionDigits"] {
        all.push((name, decimals.into()));
    }
    options(&all)
}

fn options(all: &[(&str, JsValue)]) -> Object {
    let object = Object::new();
    for (name, value) in all {
        // An object takes every property.
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object
}

/// What a format of the browser writes.
fn written(format: &Function, value: &JsValue) -> String {
    let text = format.call1(&JsValue::UNDEFINED, value);
    text.map_or_else(|_| String::new(), |text| JsString::from(text).into())
}
