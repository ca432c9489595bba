//! The models of the family by name, and their sizes.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::chatrex::ChatRexConfig;
use crate::model::upn::UpnConfig;

/// A model whose sizes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// ChatRex-7B on Vicuna-7B, with UPN-Large.
    #[serde(rename = "chatrex-7b")]
    ChatRex7b,
    /// RexSeek-3B on Qwen2.5-3B, with UPN-Large.
    #[serde(rename = "rexseek-3b")]
    RexSeek3b,
    /// UPN-Large alone.
    #[serde(rename = "upn-large")]
    UpnLarge,
    /// The small model that this project trains.
    #[serde(rename = "nano")]
    Nano,
}

/// Vocabulary size of [`Preset::Nano`] without its tokenizer; about that of the trained model.
const NANO_VOCAB_SIZE: usize = 1024;

impl Preset {
    /// All presets.
    pub const ALL: [Self; 4] = [Self::ChatRex7b, Self::RexSeek3b, Self::UpnLarge, Self::Nano];

    /// The presets that can answer questions: all but UPN alone.
    pub const WITH_DECODER: [Self; 3] = [Self::ChatRex7b, Self::RexSeek3b, Self::Nano];

    /// The presets of which other projects published checkpoints.
    pub const PUBLISHED: [Self; 3] = [Self::ChatRex7b, Self::RexSeek3b, Self::UpnLarge];

    /// The name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatRex7b => "chatrex-7b",
            Self::RexSeek3b => "rexseek-3b",
            Self::UpnLarge => "upn-large",
            Self::Nano => "nano",
        }
    }

    /// Sizes of vision towers, projectors and decoder; `None` for UPN alone.
    pub fn chatrex(self) -> Option<ChatRexConfig> {
        match self {
            Self::ChatRex7b => Some(ChatRexConfig::chatrex_7b()),
            Self::RexSeek3b => Some(ChatRexConfig::rexseek_3b()),
            Self::UpnLarge => None,
            Self::Nano => Some(ChatRexConfig::nano(NANO_VOCAB_SIZE)),
        }
    }

    /// Sizes of the proposal network.
    pub fn upn(self) -> UpnConfig {
        match self {
            Self::ChatRex7b | Self::RexSeek3b | Self::UpnLarge => UpnConfig::large(),
            Self::Nano => UpnConfig::nano(),
        }
    }
}

/// Replaces the number of decoder layers by `layers`, and the number of blocks in every stage of
/// the vision towers and of UPN by `depth`; `None` keeps all.
pub fn set_depths(
    chatrex: &mut ChatRexConfig,
    upn: &mut UpnConfig,
    layers: Option<usize>,
    depth: Option<usize>,
) {
    if let Some(layers) = layers {
        chatrex.llm.num_hidden_layers = layers;
    }
    if let Some(depth) = depth {
        // The last block of the low-resolution tower is never computed.
        chatrex.towers.clip.num_hidden_layers = depth + 1;
        chatrex.towers.convnext.depths.fill(depth);
        upn.backbone.depths.fill(depth);
        upn.num_encoder_layers = depth;
        upn.num_decoder_layers = depth;
    }
}

impl Display for Preset {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| format!("is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_on_the_command_line_and_in_json() {
        for preset in Preset::ALL {
            assert_eq!(preset.name().parse(), Ok(preset));
            assert_eq!(
                serde_json::to_value(preset).expect("a unit variant"),
                preset.name()
            );
        }
        assert!("nan".parse::<Preset>().is_err());
    }

    #[test]
    fn all_but_upn_alone_can_answer() {
        for preset in Preset::ALL {
            let answers = Preset::WITH_DECODER.contains(&preset);
            assert_eq!(preset.chatrex().is_some(), answers, "{preset}");
        }
    }
}
