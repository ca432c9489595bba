//! The settings that the page keeps between visits.
//!
//! Rules. A setting that cannot be read has its default; the others are kept. A threshold is kept only
//! if the user moved it.

use crate::chat::words::{Language, text};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::built_in::BuiltIn;
use crate::chat::candidates::Filter;
use crate::chat::choices::Choices;
use crate::chat::model_manager::Choice;
use crate::protocol::Granularity;
use crate::protocol::store::ModelId;

/// The beginning of the name of a stored model.
const STORED: &str = "stored:";

/// The beginning of the name of a model that is not stored; a later visit does not find it.
const UNSAVED: &str = "unsaved:";

/// Light or dark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the system.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// All of them, in the order of the switch.
    pub const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    /// Its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::System => text("System", "跟随系统"),
            Self::Light => text("Light", "浅色"),
            Self::Dark => text("Dark", "深色"),
        }
    }

    /// The word in its `data-testid`.
    pub fn key(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// Whether the page is dark; `None` leaves it to the system.
    pub fn is_dark(self) -> Option<bool> {
        match self {
            Self::System => None,
            Self::Light => Some(false),
            Self::Dark => Some(true),
        }
    }
}

/// The language that the user chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LanguageChoice {
    /// The first of the browser's languages that the page knows.
    #[default]
    #[serde(rename = "system")]
    System,
    /// English.
    #[serde(rename = "en")]
    English,
    /// Simplified Chinese.
    #[serde(rename = "zh-CN")]
    Chinese,
}

impl LanguageChoice {
    /// All of them, in the order of the switch.
    pub const ALL: [Self; 3] = [Self::System, Self::English, Self::Chinese];

    /// Its label: languages are called as they call themselves.
    pub fn label(self) -> &'static str {
        match self {
            Self::System => Theme::System.label(),
            Self::English => "English",
            Self::Chinese => "简体中文",
        }
    }

    /// The word in its `data-testid`.
    pub fn key(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }

    /// The language that was chosen; `None` leaves it to the system.
    pub fn language(self) -> Option<Language> {
        match self {
            Self::System => None,
            Self::English => Some(Language::English),
            Self::Chinese => Some(Language::Chinese),
        }
    }
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The model that was chosen last, as [`Settings::name`] writes it.
    pub model: Option<String>,
    /// How the questions of a new conversation are answered.
    pub choices: Choices,
    /// The filters, if the user moved them.
    pub filter: Option<Filter>,
    /// The granularity.
    pub granularity: Granularity,
    /// Light or dark.
    pub theme: Theme,
    /// The language of the page.
    pub language: LanguageChoice,
    /// Whether conversations are kept.
    pub keep_history: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            choices: Choices::default(),
            filter: None,
            granularity: Granularity::default(),
            theme: Theme::default(),
            language: LanguageChoice::default(),
            keep_history: true,
        }
    }
}

impl Settings {
    /// Reads a stored text.
    pub fn read(json: &str) -> Self {
        let stored: Value = serde_json::from_str(json).unwrap_or_default();
        let default = Self::default();
        Self {
            model: part(&stored, "model").unwrap_or(default.model),
            choices: part(&stored, "choices")
                .or_else(|| sampling_alone(&stored))
                .map_or(default.choices, Choices::checked),
            filter: part(&stored, "filter").filter(Filter::is_in_range),
            granularity: part(&stored, "granularity").unwrap_or(default.granularity),
            theme: part(&stored, "theme").unwrap_or(default.theme),
            language: part(&stored, "language").unwrap_or(default.language),
            keep_history: part(&stored, "keep_history").unwrap_or(default.keep_history),
        }
    }

    /// The text that is stored.
    ///
    /// # Panics
    /// Never: it is plain data.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// The text that is stored in place of `stored`, which another tab may have written: only what differs from
    /// `before` is changed in it.
    pub fn stored_over(&self, before: &Self, stored: Option<&str>) -> String {
        let parts = |settings: &Self| -> Map<String, Value> {
            serde_json::from_str(&settings.to_json()).expect("an object")
        };
        let stored = stored.and_then(|json| serde_json::from_str::<Map<String, Value>>(json).ok());
        let mut stored = stored.unwrap_or_default();
        let before = parts(before);
        for (name, value) in parts(self) {
            if before.get(&name) != Some(&value) || !stored.contains_key(&name) {
                stored.insert(name, value);
            }
        }
        Value::Object(stored).to_string()
    }

    /// The name of a model in the settings.
    pub fn name(choice: &Choice) -> String {
        match choice {
            Choice::BuiltIn(model) => model.name().to_owned(),
            Choice::Stored(ModelId(id)) => format!("{STORED}{id}"),
            Choice::Unsaved { name, .. } => format!("{UNSAVED}{name}"),
        }
    }

    /// The model that was chosen last, if this version knows it.
    pub fn choice(&self) -> Option<Choice> {
        let name = self.model.as_deref()?;
        match name.strip_prefix(STORED) {
            Some(id) if !id.is_empty() => Some(Choice::Stored(ModelId(id.to_owned()))),
            Some(_) => None,
            None => BuiltIn::named(name).map(Choice::BuiltIn),
        }
    }
}

/// The choices as earlier versions kept them.
fn sampling_alone(stored: &Value) -> Option<Choices> {
    let sampling = part(stored, "sampling")?;
    Some(Choices {
        sampling,
        ..Choices::default()
    })
}

fn part<T: DeserializeOwned>(stored: &Value, key: &str) -> Option<T> {
    serde_json::from_value(stored.get(key)?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::sampling::Sampling;

    #[test]
    fn a_change_keeps_what_another_tab_changed() {
        let before = Settings::default();
        let now = Settings {
            theme: Theme::Dark,
            ..before.clone()
        };
        let other = Settings {
            model: Some("stored:abc".into()),
            keep_history: false,
            ..Settings::default()
        };
        let stored = now.stored_over(&before, Some(&other.to_json()));
        let expected = Settings {
            theme: Theme::Dark,
            ..other
        };
        assert_eq!(Settings::read(&stored), expected);
        for unreadable in [None, Some("{"), Some("[]")] {
            let stored = now.stored_over(&before, unreadable);
            assert_eq!(Settings::read(&stored), now, "{unreadable:?}");
        }
        let newer = now.stored_over(&before, Some(r#"{"unknown": 1, "theme": "light"}"#));
        assert!(newer.contains(r#""unknown":1"#), "{newer}");
        assert_eq!(Settings::read(&newer), now);
    }

    #[test]
    fn settings_are_read_as_they_were_written() {
        let settings = Settings {
            model: Some("stored:abc".into()),
            choices: Choices {
                sampling: Sampling {
                    temperature: 0.5,
                    ..Sampling::default()
                },
                max_tokens: Some(64),
                system: Some("Be brief.".into()),
                earlier: true,
            },
            filter: Some(Filter {
                score: 0.25,
                ..Filter::default()
            }),
            granularity: Granularity::Fine,
            theme: Theme::Dark,
            language: LanguageChoice::Chinese,
            keep_history: false,
        };
        assert_eq!(Settings::read(&settings.to_json()), settings);
    }

    #[test]
    fn what_cannot_be_read_has_its_default_alone() {
        let dark = Settings {
            theme: Theme::Dark,
            ..Settings::default()
        };
        let cases = [
            ("", Settings::default()),
            ("[1]", Settings::default()),
            (r#"{"theme":"dark","model":7}"#, dark.clone()),
            (r#"{"theme":"dark","sampling":{"top_p":-1}}"#, dark.clone()),
            (
                r#"{"theme":"dark","filter":{"score":9,"nms":1}}"#,
                dark.clone(),
            ),
            (r#"{"theme":"dark","keep_history":"maybe"}"#, dark),
            (r#"{"theme":"pink"}"#, Settings::default()),
        ];
        for (json, expected) in cases {
            assert_eq!(Settings::read(json), expected, "{json}");
        }
    }

    #[test]
    fn sampling_of_earlier_versions_is_taken_over() {
        let settings = Settings::read(r#"{"sampling":{"temperature":0.5}}"#);
        assert_eq!(settings.choices.sampling.temperature, 0.5);
    }

    #[test]
    fn a_model_is_found_by_its_name() {
        let stored = Choice::Stored(ModelId("abc".into()));
        for choice in [stored, Choice::BuiltIn(BuiltIn::Nano)] {
            let settings = Settings {
                model: Some(Settings::name(&choice)),
                ..Settings::default()
            };
            assert_eq!(settings.choice(), Some(choice));
        }
        for name in [Some("stored:"), Some("giant"), None] {
            let settings = Settings {
                model: name.map(str::to_owned),
                ..Settings::default()
            };
            assert_eq!(settings.choice(), None, "{name:?}");
        }
    }
}
