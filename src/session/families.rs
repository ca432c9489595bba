//! Models of random weights of the families besides `chatrex`, from loading to answers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::convert::required_tensors::required_tensors;
use crate::image::Pixels;
use crate::memory::Residency;
use crate::model::chatrex::ChatRexConfig;
use crate::model::class_projector::ClassProjectorConfig;
use crate::model::config::{ModelConfig, ProposerConfig, TowersConfig};
use crate::model::decoder::DecoderConfig;
use crate::model::nanodet::NanoDetConfig;
use crate::protocol::DevicePreference;
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::weights::dtype::DType;
use crate::weights::manifest::{FileEntry, MANIFEST, PartLicence};
use crate::weights::sample::{Sample, SampleTensor};

const TOKENIZER: &[u8] = include_bytes!("../../assets/models/nano/tokenizer.json");

const CLASSES: [&str; 4] = ["cat", "dog", "teddy bear", "cup"];

/// A small decoder for nano's tokenizer.
fn llm() -> DecoderConfig {
    let tokenizer = Tokenizer::from_json(TOKENIZER, "nano", None).expect("nano's tokenizer");
    DecoderConfig {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: Some(16),
        ..ChatRexConfig::nano(tokenizer.vocab_size()).llm
    }
}

fn detector_chat() -> ModelConfig {
    ModelConfig {
        proposer: Some(ProposerConfig::Detector(NanoDetConfig {
            side: 64,
            classes: CLASSES.map(String::from).to_vec(),
            stem: 4,
            blocks: vec![1, 1, 1, 1],
            neck: 8,
            reg_max: 4,
            ..NanoDetConfig::nanodet_g()
        })),
        towers: Some(TowersConfig::Classes(ClassProjectorConfig {
            hidden: 8,
            power: 2,
            extremes: false,
            indices: false,
        })),
        ..decoder()
    }
}

fn decoder() -> ModelConfig {
    ModelConfig {
        proposer: None,
        towers: None,
        llm: llm(),
        template: ChatTemplate::qwen(),
        bos: None,
    }
}

/// A folder that is deleted with the value.
struct ModelFolder(PathBuf);

impl Drop for ModelFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Uniform values in `[-bound, bound]` from a linear congruential generator.
fn random(seed: &mut u64, count: usize, bound: f32) -> Vec<f32> {
    let mut next = || {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| (2.0 * next() - 1.0) * bound).collect()
}

/// Writes a model of random weights; `change` can replace the values of a tensor.
fn write(config: &ModelConfig, change: impl Fn(&str, &mut [f32])) -> ModelFolder {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let required = required_tensors(config).expect("a known combination of parts");
    let mut seed = 7;
    let values: Vec<Vec<u8>> = required
        .iter()
        .map(|tensor| {
            let count = tensor.shape.iter().product();
            let inputs: usize = tensor.shape.iter().skip(1).product();
            let mut values = match tensor.shape.len() {
                1 if tensor.name.contains("norm") => vec![1.0; count],
                1 => random(&mut seed, count, 0.1),
                _ => random(&mut seed, count, (3.0 / inputs as f32).sqrt()),
            };
            change(&tensor.name, &mut values);
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let tensors: Vec<SampleTensor> = required
        .iter()
        .zip(values)
        .map(|(tensor, bytes)| {
            let name = tensor.name.as_str();
            (
                tensor.part,
                name,
                DType::F32,
                tensor.shape.as_slice(),
                bytes,
            )
        })
        .collect();
    let Sample {
        mut manifest,
        shards,
    } = Sample::new(&tensors);
    let (family, json) = config.to_manifest().expect("a known combination of parts");
    manifest.family = family.name().into();
    manifest.config = json;
    manifest.tokenizer = FileEntry::describe("tokenizer.json", TOKENIZER);
    manifest.provenance.knows = Some("Four kinds".into());
    manifest.defaults.first_of_kind = Some(0.2);
    manifest.licence.parts.push(PartLicence {
        part: "detector".into(),
        name: "Apache-2.0".into(),
        text: String::new(),
        source: String::new(),
    });
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("chatrex-family-{}-{number}", std::process::id());
    let folder = ModelFolder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).expect("a writable temporary folder");
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.0.join(name), bytes).expect("a writable temporary folder");
    };
    let json = serde_json::to_vec(&manifest).expect("plain data");
    put(MANIFEST, &json);
    put("tokenizer.json", TOKENIZER);
    for (name, bytes) in shards {
        put(&name, &bytes);
    }
    folder
}

fn open(folder: &ModelFolder, load: impl Into<LoadOptions>) -> Result<Session, Fault> {
    Session::open(Model::Folder(folder.0.clone()), load.into())
}

fn question(boxes: &[BoxXyxy], text: &str) -> Question {
    Question {
        boxes: boxes.to_vec(),
        text: text.into(),
        max_tokens: 12,
        sampling: Sampling::default(),
        earlier: Vec::new(),
        system: None,
    }
}

fn picture() -> Pixels {
    Pixels::test_pattern(90, 60)
}

#[test]
fn a_detector_names_boxes_and_the_decoder_answers_about_them() {
    let folder = write(&detector_chat(), |_, _| ());
    let mut session = open(&folder, DevicePreference::Cpu).expect("a CPU");
    let card = session.card().clone();
    assert_eq!(card.classes, CLASSES);
    assert_eq!(card.knows.as_deref(), Some("Four kinds"));
    assert_eq!(card.licence_parts[0].part, "detector");
    assert_eq!(card.default_first_of_kind, Some(0.2));
    assert!(!card.text_only);
    let found = session.look(picture()).expect("a CPU");
    assert!(found.len() > 10, "{} boxes", found.len());
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    for proposal in &found {
        let label = proposal
            .label
            .as_deref()
            .expect("a detector names its boxes");
        assert!(CLASSES.contains(&label));
        let BoxXyxy { x1, y1, x2, y2 } = proposal.bbox;
        assert!(0.0 <= x1 && x1 <= x2 && x2 <= 90.0 && 0.0 <= y1 && y1 <= y2 && y2 <= 60.0);
    }
    let fine = session.propose(Granularity::Fine).expect("a CPU");
    assert_eq!(fine, found, "a detector has one list of boxes");

    let boxes: Vec<BoxXyxy> = found.iter().take(3).map(|found| found.bbox).collect();
    let first = session
        .answer(question(&boxes, "What is <obj2>?"))
        .expect("a question");
    let template = ChatTemplate::qwen();
    let slots = "<obj0><objfeat><obj1><objfeat><obj2><objfeat>";
    assert_eq!(
        first.prompt,
        template.first(&format!("{slots}\nWhat is <obj2>?"))
    );
    let alone = session.answer(question(&[], "Why?")).expect("no boxes");
    assert_eq!(alone.prompt, template.first("Why?"));
    assert!(alone.spans.iter().all(|span| span.objects.is_empty()));
    // A box of the user that no prediction overlaps, and one that leaves the picture.
    let own = [
        [1.0, 1.0, 3.0, 3.0].into(),
        [-20.0, 30.0, 400.0, 90.0].into(),
    ];
    session
        .answer(question(&own, "What is <obj1>?"))
        .expect("boxes of the user");
    let beyond = session
        .answer(question(&boxes, "<obj3>"))
        .expect_err("three boxes");
    assert!(beyond.what.contains("<obj3>"), "{beyond}");

    // A new picture has boxes of its own; the first one gives the first answer again.
    session.look(Pixels::test_pattern(30, 80)).expect("a CPU");
    session
        .answer(question(&boxes, "What is <obj2>?"))
        .expect("a question");
    assert_eq!(session.look(picture()).expect("a CPU"), found);
    let again = session
        .answer(question(&boxes, "What is <obj2>?"))
        .expect("a question");
    assert_eq!(again.text, first.text);
}

#[test]
fn thirty_questions_in_a_row_share_the_boxes() {
    let folder = write(&detector_chat(), |_, _| ());
    let mut session = open(&folder, DevicePreference::Cpu).expect("a CPU");
    let found = session.look(picture()).expect("a CPU");
    let boxes: Vec<BoxXyxy> = found.iter().take(20).map(|found| found.bbox).collect();
    let mut answers = Vec::new();
    for number in 0..30 {
        let text = format!("How many <obj{}> are there?", number % 3);
        let answer = session.answer(question(&boxes, &text)).expect("a question");
        answers.push((answer.text, answer.prefill_tokens));
    }
    let first = answers[0].1;
    assert!(
        answers[1..]
            .iter()
            .all(|(_, prefilled)| 2 * prefilled < first)
    );
    for (index, (text, _)) in answers.iter().enumerate() {
        assert_eq!(*text, answers[index % 3].0, "question {index}");
    }
}

#[test]
fn a_decoder_answers_without_a_picture() {
    let folder = write(&decoder(), |_, _| ());
    let mut session = open(&folder, DevicePreference::Cpu).expect("a CPU");
    assert!(session.card().text_only && session.card().classes.is_empty());
    let before = session
        .answer(question(&[], "Why?"))
        .expect("no picture is needed");
    assert_eq!(before.prompt, ChatTemplate::qwen().first("Why?"));
    assert!(before.tokens > 0);
    assert_eq!(session.look(picture()), Ok(Vec::new()));
    let after = session
        .answer(question(&[], "Why?"))
        .expect("a picture may be open");
    assert_eq!(after.text, before.text);
    let long = "cat ".repeat(300);
    session
        .answer(question(&[], &long))
        .expect("a longer question");
    let again = session
        .answer(question(&[], "Why?"))
        .expect("a shorter one");
    assert_eq!(again.text, before.text);
    let boxes = [[0.0, 0.0, 9.0, 9.0].into()];
    let fault = session
        .answer(question(&boxes, "Why?"))
        .expect_err("it sees no boxes");
    assert!(fault.what.contains("with boxes"), "{fault}");
}

#[test]
fn outputs_of_the_detector_that_are_not_finite_are_reported() {
    let folder = write(&detector_chat(), |name, values| {
        if name.ends_with("gfl_cls.0.weight") || name.contains("cls_convs.0.") {
            values.fill(1e30);
        }
    });
    let mut session = open(&folder, DevicePreference::Cpu).expect("finite weights");
    let fault = session.look(picture()).expect_err("the products overflow");
    assert_eq!(fault.code, ErrorCode::WrongResult, "{fault}");
    let boxes = [[0.0, 0.0, 9.0, 9.0].into()];
    let fault = session
        .answer(question(&boxes, "Why?"))
        .expect_err("no predictions");
    assert_eq!(fault.code, ErrorCode::WrongResult, "{fault}");
}

#[test]
fn an_unknown_family_is_refused_by_name() {
    let folder = write(&decoder(), |_, _| ());
    let path = folder.0.join(MANIFEST);
    let text = std::fs::read_to_string(&path).expect("written above");
    let text = text.replace("\"family\":\"decoder\"", "\"family\":\"speech\"");
    std::fs::write(&path, text).expect("written above");
    let fault = open(&folder, DevicePreference::Cpu)
        .err()
        .expect("an unknown family");
    assert_eq!(fault.code, ErrorCode::Unsupported);
    assert!(
        fault.what.contains("\"speech\"") && fault.what.contains("detector-chat"),
        "{fault}"
    );
}

/// On a GPU, with all parts resident and with parts that are evicted.
#[test]
fn a_gpu_proposes_the_boxes_of_the_cpu() {
    let folder = write(&detector_chat(), |_, _| ());
    let mut cpu = open(&folder, DevicePreference::Cpu).expect("a CPU");
    let expected = cpu.look(picture()).expect("a CPU");
    let boxes: Vec<BoxXyxy> = expected.iter().take(5).map(|found| found.bbox).collect();
    let run = |memory| {
        let load = LoadOptions {
            memory,
            ..LoadOptions::from(DevicePreference::Wgpu)
        };
        let mut session = open(&folder, load)?;
        let found = session.look(picture())?;
        let answer = session.answer(question(&boxes, "What is <obj0>?"))?;
        let held = answer.gpu_bytes.expect("a GPU");
        assert!(held > 0, "{held} bytes");
        Ok((found, answer.text, session.card().fit.clone()))
    };
    let (found, answer, fit) = match run(None) {
        Ok(run) => run,
        Err(fault) => {
            let fault: Fault = fault;
            println!("a_gpu_proposes_the_boxes_of_the_cpu skipped: {fault}");
            return;
        }
    };
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!(
            (found.score - expected.score).abs() < 1e-3,
            "{found:?} {expected:?}"
        );
    }
    let least = fit.needs.peak(Residency::OneByOne);
    let (evicted, text, fit) = run(Some(least)).expect("it fits");
    assert_ne!(fit.residency, Residency::All);
    assert_eq!((evicted, text), (found, answer));
}
