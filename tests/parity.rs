//! The recorded fixtures of the original implementation on the CPU, and variations of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use chatrex::diagnostics::parity::{FIXTURES, Report, run};
use chatrex::memory::KvCacheDType;
use half::bf16;
use safetensors::tensor::{SafeTensors, TensorView};
use safetensors::{Dtype, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The recordings in the repository.
const GOLDEN: &str = "tests/data/golden";

fn compare(golden: &Path, only: Option<&str>) -> Report {
    run(golden, only, &Device::flex(), KvCacheDType::F32).unwrap_or_else(|fault| panic!("{fault}"))
}

#[test]
fn every_fixture_agrees() {
    let report = compare(Path::new(GOLDEN), None);
    assert_eq!(report.failed, 0, "{}", report.table());
    assert_eq!(report.skipped, 0);
    assert_eq!(report.fixtures.len(), FIXTURES.len());
}

/// A copy of some fixtures that a test may change.
struct Variation(TempDir);

impl Variation {
    fn of(fixtures: &[&str]) -> Self {
        let variation = Self(tempfile::tempdir().expect("a temporary folder"));
        let golden = Path::new(GOLDEN);
        let tolerances = "tolerances.json";
        std::fs::copy(golden.join(tolerances), variation.path(tolerances)).expect("a file");
        for fixture in fixtures {
            copy(&golden.join(fixture), &variation.path(fixture));
        }
        variation
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Changes a JSON file.
    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(file);
        let text = std::fs::read(&path).expect("a recorded file");
        let mut value = serde_json::from_slice(&text).expect("JSON");
        change(&mut value);
        std::fs::write(&path, value.to_string()).expect("a writable folder");
    }

    /// Changes the tensors of a safetensors file.
    fn edit_tensors(&self, file: &str, change: impl FnOnce(&mut Tensors)) {
        let path = self.path(file);
        let bytes = std::fs::read(&path).expect("a recorded file");
        let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
            .expect("a safetensors file")
            .iter()
            .map(|(name, view)| {
                let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                (name.to_string(), tensor)
            })
            .collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            (name.clone(), view.expect("shape and values agree"))
        });
        let file = serialize(views, None).expect("small tensors");
        std::fs::write(&path, file).expect("a writable folder");
    }

    fn compare(&self, fixture: &str) -> Report {
        compare(self.0.path(), Some(fixture))
    }
}

/// Dtype, shape and bytes by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a writable folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a file");
        }
    }
}

const SHARD: &str = "checkpoint/chatrex/model-00001-of-00002.safetensors";
const HEAD: &str = "lm_head.weight";

/// The recorded checkpoint with untied embeddings: its own head is then part of the model, so the
/// recorded weights get it too.
fn untied_checkpoint() -> Variation {
    let variation = Variation::of(&["checkpoint", "rexseek", "upn"]);
    variation.edit("checkpoint/chatrex/config.json", |config| {
        config["tie_word_embeddings"] = json!(false);
    });
    let mut head = None;
    variation.edit_tensors(SHARD, |tensors| head = tensors.get(HEAD).cloned());
    let (dtype, shape, bytes) = head.expect("the recorded checkpoint has a head");
    assert_eq!(dtype, Dtype::BF16);
    let halves = bytes.as_chunks::<2>().0.iter();
    let values = halves
        .flat_map(|half| bf16::from_le_bytes(*half).to_f32().to_le_bytes())
        .collect();
    variation.edit_tensors("rexseek/weights.safetensors", |tensors| {
        tensors.insert(HEAD.into(), (Dtype::F32, shape, values));
    });
    variation
}

#[test]
fn a_checkpoint_with_untied_embeddings_agrees() {
    let report = untied_checkpoint().compare("checkpoint");
    assert!(report.is_good(), "{}", report.table());
}

#[test]
fn a_wrong_head_of_a_checkpoint_is_noticed() {
    let variation = untied_checkpoint();
    variation.edit_tensors("rexseek/weights.safetensors", |tensors| {
        tensors.get_mut(HEAD).expect("inserted above").2[3] ^= 0x40;
    });
    let report = variation.compare("checkpoint");
    assert_eq!((report.passed, report.failed), (0, 1));
    assert!(
        report.table().contains("lm_head.weight differs"),
        "{}",
        report.table()
    );

    let variation = untied_checkpoint();
    variation.edit_tensors("rexseek/weights.safetensors", |tensors| {
        tensors.remove(HEAD);
    });
    let table = variation.compare("checkpoint").table();
    assert!(table.contains("lm_head.weight is not recorded"), "{table}");
}

/// Without a stored head, embeddings are tied whatever the configuration says.
#[test]
fn a_checkpoint_without_a_head_agrees() {
    for tied in [true, false] {
        let variation = Variation::of(&["checkpoint", "rexseek", "upn"]);
        variation.edit("checkpoint/chatrex/config.json", |config| {
            config["tie_word_embeddings"] = json!(tied);
        });
        variation.edit_tensors(SHARD, |tensors| {
            tensors.remove(HEAD).expect("a head");
        });
        variation.edit("checkpoint/chatrex/model.safetensors.index.json", |index| {
            let map = index["weight_map"].as_object_mut().expect("an index");
            map.remove(HEAD).expect("a listed head");
        });
        let report = variation.compare("checkpoint");
        assert!(report.is_good(), "{tied}: {}", report.table());
    }
}

/// A changed weight, and a weight that is not recorded.
#[test]
fn differences_of_a_checkpoint_are_named() {
    let variation = Variation::of(&["checkpoint", "rexseek", "upn"]);
    variation.edit_tensors("rexseek/weights.safetensors", |tensors| {
        tensors.get_mut("model.norm.weight").expect("a norm").2[3] ^= 0x40;
    });
    variation.edit_tensors("upn/weights.safetensors", |tensors| {
        tensors
            .remove("transformer.decoder.norm.bias")
            .expect("a norm");
    });
    let report = variation.compare("checkpoint");
    assert_eq!((report.passed, report.failed), (0, 1));
    let table = report.table();
    for difference in [
        "model.norm.weight differs",
        "transformer.decoder.norm.bias is not recorded",
    ] {
        assert!(table.contains(difference), "{table}");
    }
}

/// A tied decoder is an untied one whose head is the embedding.
#[test]
fn a_decoder_whose_head_is_its_embedding_agrees() {
    let variation = Variation::of(&["qwen2_tied"]);
    variation.edit("qwen2_tied/config.json", |config| {
        config["tie_word_embeddings"] = json!(false);
    });
    variation.edit_tensors("qwen2_tied/weights.safetensors", |tensors| {
        let embedding = tensors["model.embed_tokens.weight"].clone();
        tensors.insert(HEAD.into(), embedding);
    });
    let report = variation.compare("qwen2_tied");
    assert!(report.is_good(), "{}", report.table());
}

/// Recordings with fewer cases than those in the repository.
#[test]
fn fixtures_with_fewer_cases_agree() {
    let variation = Variation::of(&["swin", "upn", "box_encoder", "ms_deform_attn", "roi_align"]);
    for (fixture, removed) in [
        ("swin", vec!["batch."]),
        ("upn", vec!["batch", "single_coarse."]),
        ("box_encoder", vec!["sine720.", "fp16_rounding."]),
        ("ms_deform_attn", vec!["module.in.ref2", "module.out.ref2"]),
    ] {
        variation.edit_tensors(&format!("{fixture}/io.safetensors"), |tensors| {
            let before = tensors.len();
            tensors.retain(|key, _| !removed.iter().any(|start| key.starts_with(start)));
            assert!(tensors.len() < before, "{fixture}");
        });
        let report = variation.compare(fixture);
        assert!(report.is_good(), "{}", report.table());
    }
    variation.edit("roi_align/config.json", |config| {
        config["cases"][0]["aligned"] = json!(true);
    });
    let report = variation.compare("roi_align");
    assert_eq!(report.failed, 1, "only that case: {}", report.table());
    assert!(report.passed > 1);
}
