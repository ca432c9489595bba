//! The sample pictures of the page: what they show, their questions and their origin.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::built_in::BuiltIn;
use crate::chat::model_manager::Choice;
use crate::chat::question::Draft;
use crate::chat::words::text;

/// Folder of the pictures, relative to the page.
pub const FOLDER: &str = "samples/";

/// A sample picture and the question that the page asks about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sample {
    /// File name in [`FOLDER`].
    pub file: String,
    /// The model whose kinds the picture shows: photographs are for `mini`, drawn scenes for `nano`.
    pub model: String,
    /// What the picture shows.
    pub alt: String,
    /// The same in Chinese.
    pub alt_zh: String,
    /// The question, as the model reads it.
    pub question: String,
    /// The same in Chinese, as the user reads it.
    pub question_zh: String,
    /// Who made it and where it comes from.
    pub source: String,
    /// Its licence.
    pub licence: String,
}

impl Sample {
    /// What the picture shows, in the page's language.
    pub fn shown_alt(&'static self) -> &'static str {
        text(&self.alt, &self.alt_zh)
    }

    /// The question in the page's language.
    pub fn shown_question(&'static self) -> &'static str {
        text(&self.question, &self.question_zh)
    }

    /// The question as it is asked.
    pub fn draft(&'static self) -> Draft {
        Draft::translated(&self.question, &self.question_zh)
    }

    /// Its address, relative to the page.
    pub fn address(&self) -> String {
        format!("{FOLDER}{}", self.file)
    }
}

/// All samples.
pub fn all() -> &'static [Sample] {
    static ALL: LazyLock<Vec<Sample>> = LazyLock::new(|| {
        let json = include_str!("../../web/static/samples/samples.json");
        serde_json::from_str(json).expect("samples.json is part of the program")
    });
    &ALL
}

/// The samples for a model, the first one first: drawn scenes for `nano`, photographs for others.
pub fn of(choice: &Choice) -> Vec<&'static Sample> {
    let model = match choice {
        Choice::BuiltIn(BuiltIn::Nano) => BuiltIn::Nano,
        Choice::BuiltIn(BuiltIn::Mini) | Choice::Stored(_) | Choice::Unsaved { .. } => {
            BuiltIn::Mini
        }
    };
    let samples = all().iter();
    samples.filter(|s| s.model == model.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::store::ModelId;

    #[test]
    fn every_model_has_samples_of_its_own() {
        let stored = Choice::Stored(ModelId("model".into()));
        let mini = Choice::BuiltIn(BuiltIn::Mini);
        let nano = Choice::BuiltIn(BuiltIn::Nano);
        assert_eq!(of(&stored), of(&mini));
        assert!(of(&mini).len() >= 4);
        assert_eq!(of(&nano)[0].address(), "samples/scene.png");
        assert_eq!(of(&mini).len() + of(&nano).len(), all().len());
    }

    #[test]
    fn every_sample_has_a_question_an_origin_and_a_licence() {
        for sample in all() {
            let path = format!("web/static/{}", sample.address());
            assert!(std::path::Path::new(&path).is_file(), "{path}");
            for text in [
                &sample.alt,
                &sample.alt_zh,
                &sample.question,
                &sample.question_zh,
                &sample.source,
                &sample.licence,
            ] {
                assert!(!text.trim().is_empty(), "{}", sample.file);
            }
        }
    }
}
