//! The configuration of a whole model folder, as its manifest stores it: which parts a model combines,
//! and their sizes.

use std::fmt::{Display, Formatter};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::image::prepare::SquareRecipe;
use crate::model::chatrex::{ChatRexConfig, ClipConvNextConfig};
use crate::model::class_projector::ClassProjectorConfig;
use crate::model::decoder::DecoderConfig;
use crate::model::nanodet::NanoDetConfig;
use crate::model::upn::UpnConfig;
use crate::text::prompt::{self, ChatTemplate};
use crate::weights::manifest::Manifest;

/// The name of the projector of boxes in a checkpoint.
pub const OBJECT_PROJECTOR: &str = "mm_object_projector";

/// A combination of parts that a manifest can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// UPN (or no proposer), CLIP and ConvNeXt, a decoder.
    ChatRex,
    /// A dense detector, whose class scores are also the features of boxes, and a decoder.
    DetectorChat,
    /// A decoder that answers text alone.
    Decoder,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 3] = [Self::ChatRex, Self::DetectorChat, Self::Decoder];

    /// The name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatRex => "chatrex",
            Self::DetectorChat => "detector-chat",
            Self::Decoder => "decoder",
        }
    }

    /// The family called `name`. `place` names the manifest in errors.
    ///
    /// # Errors
    /// There is none.
    fn of(name: &str, place: &str) -> Result<Self, Fault> {
        let found = Self::ALL.into_iter().find(|family| family.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Fault::new(
                FaultKind::Model,
                place,
                format!("is of the family {name:?}; this program knows {known}"),
                "Update the program, or use a model of a family it knows",
            )
            .code(ErrorCode::Unsupported)
        })
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The network that proposes boxes.
#[derive(Clone, Debug, PartialEq)]
pub enum ProposerConfig {
    /// The Universal Proposal Network.
    Upn(UpnConfig),
    /// A dense detector.
    Detector(NanoDetConfig),
}

/// The networks that turn picture and boxes into tokens of the decoder.
#[derive(Clone, Debug, PartialEq)]
pub enum TowersConfig {
    /// CLIP and ConvNeXt: visual tokens, and one token per box.
    ClipConvNext {
        /// Sizes.
        sizes: ClipConvNextConfig,
        /// Image preprocessing.
        recipe: SquareRecipe,
    },
    /// The detector's class scores of a box, projected: one token per box, none of the picture.
    Classes(ClassProjectorConfig),
}

/// The parts of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The proposal network; without it users draw all boxes.
    pub proposer: Option<ProposerConfig>,
    /// The vision towers; without them the decoder answers text alone.
    pub towers: Option<TowersConfig>,
    /// The decoder.
    pub llm: DecoderConfig,
    /// The chat template.
    pub template: ChatTemplate,
    /// The token that every prompt begins with, if the model has one.
    pub bos: Option<String>,
}

/// The `config` of the family `chatrex`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatRexParts {
    chatrex: ChatRexConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upn: Option<UpnConfig>,
    recipe: SquareRecipe,
    template: ChatTemplate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bos: Option<String>,
}

/// The `config` of the family `detector-chat`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DetectorChatParts {
    detector: NanoDetConfig,
    objects: ClassProjectorConfig,
    llm: DecoderConfig,
    template: ChatTemplate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bos: Option<String>,
}

/// The `config` of the family `decoder`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecoderParts {
    llm: DecoderConfig,
    template: ChatTemplate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bos: Option<String>,
}

impl ModelConfig {
    /// Parses the configuration of a manifest. `place` names the manifest in errors.
    ///
    /// # Errors
    /// The manifest is of an unknown family, or its configuration is invalid.
    pub fn of(manifest: &Manifest, place: &str) -> Result<Self, Fault> {
        let json = &manifest.config;
        let config: Self = match Family::of(&manifest.family, place)? {
            Family::ChatRex => parts::<ChatRexParts>(json, place)?.into(),
            Family::DetectorChat => parts::<DetectorChatParts>(json, place)?.into(),
            Family::Decoder => parts::<DecoderParts>(json, place)?.into(),
        };
        config.check(place)?;
        Ok(config)
    }

    /// Checks the sizes that the networks divide by or allocate before a tensor is compared with them.
    fn check(&self, place: &str) -> Result<(), Fault> {
        if let Some(detector) = self.detector() {
            detector.check(place)?;
        }
        let fault = |what: String| Err(Fault::model(place, format!("config: {what}")));
        if let Some(TowersConfig::Classes(ClassProjectorConfig { hidden, power, .. })) = self.towers
            && !((1..=1 << 16).contains(&hidden) && (1..=64).contains(&power))
        {
            return fault(format!(
                "has objects of {hidden} hidden units and power {power}"
            ));
        }
        let llm = &self.llm;
        let (heads, kv_heads) = (llm.num_attention_heads, llm.num_key_value_heads);
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return fault(format!("has {heads} query heads for {kv_heads} key heads"));
        }
        if !llm.head_width().is_multiple_of(2) {
            return fault(format!("has heads of odd width {}", llm.head_width()));
        }
        let sizes = [
            ("hidden_size", llm.hidden_size, 1 << 20),
            ("intermediate_size", llm.intermediate_size, 1 << 24),
            ("num_hidden_layers", llm.num_hidden_layers, 1 << 12),
            ("num_attention_heads", heads, 1 << 12),
            ("vocab_size", llm.vocab_size, 1 << 24),
            ("head_dim", llm.head_width(), 1 << 16),
        ];
        match sizes
            .iter()
            .find(|(_, size, most)| !(1..=*most).contains(size))
        {
            Some((name, size, _)) => fault(format!("has {name} {size}")),
            None => Ok(()),
        }
    }

    /// The family and the `config` of a manifest.
    ///
    /// # Errors
    /// No family combines these parts.
    pub fn to_manifest(&self) -> Result<(Family, Value), Fault> {
        let (llm, template, bos) = (self.llm.clone(), self.template.clone(), self.bos.clone());
        let json = match (&self.proposer, &self.towers) {
            (
                None | Some(ProposerConfig::Upn(_)),
                Some(TowersConfig::ClipConvNext { sizes, recipe }),
            ) => serde_json::to_value(ChatRexParts {
                chatrex: ChatRexConfig {
                    llm,
                    towers: sizes.clone(),
                },
                upn: self.upn().cloned(),
                recipe: recipe.clone(),
                template,
                bos,
            }),
            (Some(ProposerConfig::Detector(detector)), Some(TowersConfig::Classes(objects))) => {
                serde_json::to_value(DetectorChatParts {
                    detector: detector.clone(),
                    objects: *objects,
                    llm,
                    template,
                    bos,
                })
            }
            _ => serde_json::to_value(DecoderParts { llm, template, bos }),
        };
        let family = self.family()?;
        Ok((family, json.expect("configurations are plain data")))
    }

    /// A model of the family `chatrex` with the chat template of Qwen2.5.
    pub fn from_chatrex(chatrex: ChatRexConfig, upn: Option<UpnConfig>) -> Self {
        Self {
            proposer: upn.map(ProposerConfig::Upn),
            towers: Some(TowersConfig::ClipConvNext {
                recipe: chatrex.towers.recipe(),
                sizes: chatrex.towers,
            }),
            llm: chatrex.llm,
            template: ChatTemplate::qwen(),
            bos: None,
        }
    }

    /// The family that combines these parts.
    ///
    /// # Errors
    /// There is none.
    pub fn family(&self) -> Result<Family, Fault> {
        match (&self.proposer, &self.towers) {
            (None | Some(ProposerConfig::Upn(_)), Some(TowersConfig::ClipConvNext { .. })) => {
                Ok(Family::ChatRex)
            }
            (Some(ProposerConfig::Detector(_)), Some(TowersConfig::Classes(_))) => {
                Ok(Family::DetectorChat)
            }
            (None, None) => Ok(Family::Decoder),
            _ => Err(Fault::model(
                "model",
                "combines a proposal network and vision towers that no family has",
            )
            .code(ErrorCode::Unsupported)),
        }
    }

    /// The configuration of UPN, if it is the proposal network.
    pub fn upn(&self) -> Option<&UpnConfig> {
        match &self.proposer {
            Some(ProposerConfig::Upn(upn)) => Some(upn),
            _ => None,
        }
    }

    /// The configuration of the detector, if it is the proposal network.
    pub fn detector(&self) -> Option<&NanoDetConfig> {
        match &self.proposer {
            Some(ProposerConfig::Detector(detector)) => Some(detector),
            _ => None,
        }
    }

    /// The kinds that the detector knows; none of UPN, whose boxes have no names.
    pub fn classes(&self) -> &[String] {
        self.detector().map_or(&[], |detector| &detector.classes)
    }

    /// Towers and decoder of the family `chatrex`.
    pub fn chatrex(&self) -> Option<ChatRexConfig> {
        match &self.towers {
            Some(TowersConfig::ClipConvNext { sizes, .. }) => Some(ChatRexConfig {
                llm: self.llm.clone(),
                towers: sizes.clone(),
            }),
            _ => None,
        }
    }

    /// Tokens of a picture without its boxes.
    pub fn visual_tokens(&self) -> usize {
        match &self.towers {
            Some(TowersConfig::ClipConvNext { sizes, .. }) => sizes.visual_tokens(),
            _ => 0,
        }
    }

    /// The user turn with `boxes` boxes, with the slots that the towers fill.
    ///
    /// # Errors
    /// The question cannot be asked of this model.
    pub fn user_turn(&self, boxes: usize, question: &str) -> Result<String, Fault> {
        match &self.towers {
            Some(TowersConfig::ClipConvNext { .. }) => prompt::user_turn(boxes, question),
            Some(TowersConfig::Classes(_)) => prompt::box_turn(boxes, question),
            None => prompt::text_turn(boxes, question),
        }
    }
}

fn parts<T: DeserializeOwned>(json: &Value, place: &str) -> Result<T, Fault> {
    serde_json::from_value(json.clone())
        .map_err(|error| Fault::model(place, format!("config: {error}")))
}

impl From<ChatRexParts> for ModelConfig {
    fn from(parts: ChatRexParts) -> Self {
        Self {
            proposer: parts.upn.map(ProposerConfig::Upn),
            towers: Some(TowersConfig::ClipConvNext {
                sizes: parts.chatrex.towers,
                recipe: parts.recipe,
            }),
            llm: parts.chatrex.llm,
            template: parts.template,
            bos: parts.bos,
        }
    }
}

impl From<DetectorChatParts> for ModelConfig {
    fn from(parts: DetectorChatParts) -> Self {
        Self {
            proposer: Some(ProposerConfig::Detector(parts.detector)),
            towers: Some(TowersConfig::Classes(parts.objects)),
            llm: parts.llm,
            template: parts.template,
            bos: parts.bos,
        }
    }
}

impl From<DecoderParts> for ModelConfig {
    fn from(parts: DecoderParts) -> Self {
        Self {
            proposer: None,
            towers: None,
            llm: parts.llm,
            template: parts.template,
            bos: parts.bos,
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::weights::manifest::MANIFEST;
    use crate::weights::sample::Sample;

    fn manifest(family: &str, config: Value) -> Manifest {
        let mut manifest = Sample::floats().manifest;
        manifest.family = family.into();
        manifest.config = config;
        manifest
    }

    fn nano() -> Manifest {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/models/nano/model.json");
        let json = std::fs::read(path).expect("nano's manifest");
        Manifest::parse(&json, MANIFEST).expect("nano's manifest")
    }

    /// The configuration of a `detector-chat` model.
    fn detector_chat() -> Value {
        json!({
            "detector": NanoDetConfig::nanodet_g(),
            "objects": ClassProjectorConfig::MINI,
            "llm": ChatRexConfig::nano(100).llm,
            "template": ChatTemplate::qwen(),
        })
    }

    fn decoder() -> Value {
        json!({
            "llm": ChatRexConfig::nano(100).llm,
            "template": ChatTemplate::vicuna(),
            "bos": "<s>",
        })
    }

    #[test]
    fn every_family_round_trips() {
        for (family, json) in [
            (Family::ChatRex, nano().config),
            (Family::DetectorChat, detector_chat()),
            (Family::Decoder, decoder()),
        ] {
            let config = ModelConfig::of(&manifest(family.name(), json.clone()), MANIFEST)
                .unwrap_or_else(|fault| panic!("{family}: {fault}"));
            assert_eq!(config.family(), Ok(family));
            let (name, written) = config.to_manifest().expect("a known family");
            assert_eq!(name, family);
            let keys = |json: &Value| {
                json.as_object()
                    .expect("an object")
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
            };
            assert_eq!(keys(&written), keys(&json), "{family}");
            let again = ModelConfig::of(&manifest(family.name(), written), MANIFEST);
            assert_eq!(again, Ok(config));
        }
    }

    /// What is written for nano are the bytes of its manifest.
    #[test]
    fn the_configuration_of_nano_keeps_its_bytes() {
        let config = ModelConfig::of(&nano(), MANIFEST).expect("nano's configuration");
        let (_, written) = config.to_manifest().expect("a known family");
        let compact = |text: &str| text.split_whitespace().collect::<String>();
        let file = include_str!("../../assets/models/nano/model.json");
        let written = compact(&written.to_string());
        assert!(
            compact(file).contains(&format!("\"config\":{written}")),
            "{written}"
        );
    }

    #[test]
    fn parts_follow_the_family() {
        let of = |family: Family, json| {
            ModelConfig::of(&manifest(family.name(), json), MANIFEST).expect("a known family")
        };
        let nano = of(Family::ChatRex, nano().config);
        assert!(nano.upn().is_some() && nano.chatrex().is_some() && nano.classes().is_empty());
        let turn = nano.user_turn(1, "What?").expect("a question");
        assert_eq!(turn, "<image>\n<obj0><objfeat>\nWhat?");
        let mini = of(Family::DetectorChat, detector_chat());
        assert_eq!((mini.classes().len(), mini.visual_tokens()), (80, 0));
        let turn = mini.user_turn(1, "What?").expect("a question");
        assert_eq!(turn, "<obj0><objfeat>\nWhat?");
        let text = of(Family::Decoder, decoder());
        assert!(text.proposer.is_none() && text.user_turn(1, "What?").is_err());
        assert_eq!(text.user_turn(0, "What?").as_deref(), Ok("What?"));
        let mixed = ModelConfig {
            proposer: mini.proposer,
            ..nano
        };
        let fault = mixed.to_manifest().expect_err("no family has these parts");
        assert_eq!(fault.code, ErrorCode::Unsupported);
    }

    #[test]
    fn unknown_families_and_wrong_configurations_are_refused() {
        let fault =
            ModelConfig::of(&manifest("detector-talk", decoder()), "m").expect_err("no family");
        assert_eq!(fault.code, ErrorCode::Unsupported);
        for name in ["\"detector-talk\"", "chatrex", "detector-chat", "decoder"] {
            assert!(fault.what.contains(name), "{fault}");
        }
        let llm = |field: &str, value: usize| {
            let mut json = decoder();
            json["llm"][field] = json!(value);
            json
        };
        let mut surplus = decoder();
        surplus["detector"] = json!({});
        let mut no_class = detector_chat();
        no_class["detector"]["classes"] = json!([]);
        for (family, json, says) in [
            ("decoder", surplus, "unknown field `detector`"),
            ("detector-chat", no_class, "0 classes"),
            ("detector-chat", decoder(), "missing field `detector`"),
            ("chatrex", json!({}), "missing field `chatrex`"),
            ("decoder", llm("num_key_value_heads", 0), "for 0 key heads"),
            (
                "decoder",
                llm("num_key_value_heads", 4),
                "6 query heads for 4 key heads",
            ),
            ("decoder", llm("head_dim", 0), "head_dim 0"),
            ("decoder", llm("head_dim", 7), "odd width 7"),
            (
                "decoder",
                llm("vocab_size", usize::MAX),
                "vocab_size 18446744073709551615",
            ),
        ] {
            let fault = ModelConfig::of(&manifest(family, json), "m").expect_err(says);
            assert!(fault.what.contains(says), "{says}: {fault}");
        }
    }
}
