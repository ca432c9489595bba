//! Licences of weights, as a manifest states them.

use serde::{Deserialize, Serialize};

/// The licence of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// SPDX expression or common name.
    pub name: String,
    /// Text or notice shown to users.
    pub text: String,
    /// The licences of parts that come from others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartLicence>,
}

/// The licence of a part of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartLicence {
    /// The part, for users, e.g. `detector`.
    pub part: String,
    /// SPDX expression or common name.
    pub name: String,
    /// Text or notice shown to users.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Where the part comes from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

impl Licence {
    /// The text of the licence and the notices of all parts.
    pub fn notices(&self) -> String {
        let own = (!self.text.is_empty()).then(|| self.text.clone());
        let parts = self.parts.iter().map(PartLicence::notice);
        let notices: Vec<String> = own.into_iter().chain(parts).collect();
        notices.join("\n\n")
    }
}

impl PartLicence {
    /// The part, its licence and its source in a line, and the text below.
    fn notice(&self) -> String {
        let Self {
            part,
            name,
            text,
            source,
        } = self;
        let mut notice = format!("{part}: {name}");
        if !source.is_empty() {
            notice.push_str(&format!(" ({source})"));
        }
        if !text.is_empty() {
            notice.push_str(&format!("\n{text}"));
        }
        notice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_name_every_part() {
        let mut licence = Licence {
            name: "MIT".into(),
            text: "Free.".into(),
            parts: Vec::new(),
        };
        assert_eq!(licence.notices(), "Free.");
        licence.parts = vec![
            PartLicence {
                part: "detector".into(),
                name: "Apache-2.0".into(),
                text: "Notice.".into(),
                source: "nanodet".into(),
            },
            PartLicence {
                part: "decoder".into(),
                name: "MIT".into(),
                text: String::new(),
                source: String::new(),
            },
        ];
        assert_eq!(
            licence.notices(),
            "Free.\n\ndetector: Apache-2.0 (nanodet)\nNotice.\n\ndecoder: MIT"
        );
    }
}
