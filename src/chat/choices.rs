//! How the questions of a conversation are answered, as the user chose it.
//!
//! Rules. A new conversation begins with the user's defaults; what is changed in one stays in it. What
//! was not chosen is the model's own.

use serde::{Deserialize, Serialize};

use crate::generate::sampling::Sampling;
use crate::protocol::ModelCard;

/// Smallest and largest limit of an answer in tokens.
pub const MAX_TOKENS: (u32, u32) = (16, 2048);

/// Smallest and largest repetition penalty that the page offers, and its step.
pub const PENALTY: (f32, f32, f32) = (1.0, 2.0, 0.05);

/// Smallest and largest share of the most likely tokens that the page offers, and its step.
pub const TOP_P: (f32, f32, f32) = (0.05, 1.0, 0.01);

/// Smallest and largest temperature that the page offers, and its step.
pub const TEMPERATURE: (f32, f32, f32) = (0.0, 2.0, 0.05);

/// Most characters of a system prompt.
pub const SYSTEM_LENGTH: usize = 1000;

/// The user's choices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choices {
    /// How tokens are sampled; the seed is the number of the request.
    pub sampling: Sampling,
    /// Most tokens of an answer.
    pub max_tokens: Option<u32>,
    /// The words of the system prompt.
    pub system: Option<String>,
    /// Whether earlier turns about the same boxes are sent with a question.
    pub earlier: bool,
}

/// A choice that can be brought back to its usual value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The temperature.
    Temperature,
    /// The share of the most likely tokens.
    TopP,
    /// The repetition penalty.
    Penalty,
    /// The limit of an answer.
    MaxTokens,
    /// The system prompt.
    System,
}

impl Choices {
    /// The choices with what a stored text may hold out of range brought back to the defaults.
    pub fn checked(mut self) -> Self {
        if self.sampling.check().is_err() {
            self.sampling = Sampling::default();
        }
        self.max_tokens = self
            .max_tokens
            .map(|limit| limit.clamp(MAX_TOKENS.0, MAX_TOKENS.1));
        self.system = self
            .system
            .filter(|words| words.chars().count() <= SYSTEM_LENGTH);
        self
    }

    /// Whether an item has its usual value.
    pub fn is_usual(&self, item: Item) -> bool {
        let mut usual = self.clone();
        usual.reset(item);
        usual == *self
    }

    /// Brings an item back to its usual value.
    pub fn reset(&mut self, item: Item) {
        let usual = Sampling::default();
        match item {
            Item::Temperature => self.sampling.temperature = usual.temperature,
            Item::TopP => self.sampling.top_p = usual.top_p,
            Item::Penalty => self.sampling.repetition_penalty = None,
            Item::MaxTokens => self.max_tokens = None,
            Item::System => self.system = None,
        }
    }

    /// Sets the temperature, in its range and on its steps.
    pub fn set_temperature(&mut self, value: f32) {
        let (low, high, step) = TEMPERATURE;
        self.sampling.temperature = (value.clamp(low, high) / step).round() / step.recip().round();
    }

    /// Sets the repetition penalty, in its range; that of the model is no choice.
    pub fn set_penalty(&mut self, value: f32, card: Option<&ModelCard>) {
        let value = (value.clamp(PENALTY.0, PENALTY.1) * 100.0).round() / 100.0;
        self.sampling.repetition_penalty = Some(value).filter(|value| *value != own_penalty(card));
    }

    /// The repetition penalty of the next answer.
    pub fn penalty(&self, card: Option<&ModelCard>) -> f32 {
        let chosen = self.sampling.repetition_penalty;
        chosen.unwrap_or_else(|| own_penalty(card))
    }

    /// Sets the system prompt; the model's own words are no choice.
    pub fn set_system(&mut self, words: &str, card: Option<&ModelCard>) {
        let words: String = words.chars().take(SYSTEM_LENGTH).collect();
        self.system = (words.trim() != own_system(card).trim()).then_some(words);
    }

    /// The system prompt of the next question.
    pub fn system<'a>(&'a self, card: Option<&'a ModelCard>) -> &'a str {
        self.system.as_deref().unwrap_or_else(|| own_system(card))
    }
}

/// The model's own repetition penalty.
fn own_penalty(card: Option<&ModelCard>) -> f32 {
    card.map_or(1.0, |card| card.default_repetition_penalty)
}

/// The model's own system prompt.
fn own_system(card: Option<&ModelCard>) -> &str {
    card.map_or("", |card| card.default_system.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::test_data::card;

    #[test]
    fn values_stay_in_their_ranges() {
        let mut choices = Choices::default();
        for (set, expected) in [
            (0.72, 0.7),
            (-1.0, 0.0),
            (9.0, 2.0),
            (0.05, 0.05),
            (1.999, 2.0),
        ] {
            choices.set_temperature(set);
            assert_eq!(choices.sampling.temperature, expected, "{set}");
        }
        let mut card = card();
        card.default_repetition_penalty = 1.05;
        for (set, expected) in [
            (1.3, Some(1.3)),
            (0.0, Some(1.0)),
            (7.0, Some(2.0)),
            (1.05, None),
        ] {
            choices.set_penalty(set, Some(&card));
            assert_eq!(choices.sampling.repetition_penalty, expected, "{set}");
        }
        assert_eq!(choices.penalty(Some(&card)), 1.05, "the model's own");
        assert_eq!(choices.penalty(None), 1.0);
    }

    #[test]
    fn the_models_own_words_are_no_choice() {
        let mut card = card();
        card.default_system = "You see boxes.".into();
        let mut choices = Choices::default();
        assert_eq!(choices.system(Some(&card)), "You see boxes.");
        for (set, expected) in [
            ("Be brief.", Some("Be brief.")),
            ("You see boxes. ", None),
            ("", Some("")),
        ] {
            choices.set_system(set, Some(&card));
            assert_eq!(choices.system.as_deref(), expected, "{set}");
        }
        choices.set_system(&"x".repeat(5000), None);
        assert_eq!(choices.system(None).len(), SYSTEM_LENGTH);
    }

    #[test]
    fn every_item_is_reset_alone() {
        let changed = Choices {
            sampling: Sampling {
                temperature: 1.0,
                top_p: 0.5,
                repetition_penalty: Some(1.2),
                grammar: false,
                ..Sampling::default()
            },
            max_tokens: Some(64),
            system: Some("Be brief.".into()),
            earlier: true,
        };
        let items = [
            Item::Temperature,
            Item::TopP,
            Item::Penalty,
            Item::MaxTokens,
            Item::System,
        ];
        for item in items {
            let mut reset = changed.clone();
            assert!(!reset.is_usual(item), "{item:?}");
            reset.reset(item);
            let usual = items.iter().filter(|other| reset.is_usual(**other)).count();
            assert_eq!((reset.is_usual(item), usual), (true, 1), "{item:?}");
        }
        assert!(items.iter().all(|item| Choices::default().is_usual(*item)));
    }

    #[test]
    fn a_stored_choice_out_of_range_is_brought_back() {
        let read = |json: &str| serde_json::from_str::<Choices>(json).expect(json).checked();
        let cases = [
            ("{}", Choices::default()),
            (r#"{"sampling":{"top_p":-1}}"#, Choices::default()),
            (
                r#"{"max_tokens":9999999}"#,
                Choices {
                    max_tokens: Some(2048),
                    ..Choices::default()
                },
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(read(json), expected, "{json}");
        }
        let long = Choices {
            system: Some("x".repeat(1001)),
            ..Choices::default()
        };
        assert_eq!(long.checked().system, None);
    }
}
