//! `chatrex train`: one training stage of nano, mini or small.

use std::path::PathBuf;

use super::names::finite;
use super::propose::DeviceName;
use crate::error::{Fault, FaultKind};
use crate::model::adapter::LoraConfig;
use crate::train;
use crate::train::adapter::lora_config;

/// Arguments of `chatrex train`.
#[derive(clap::Args)]
pub struct Options {
    /// The model; by default the one that the stage belongs to.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Training stage.
    #[arg(long, value_enum)]
    stage: train::TrainStage,
    /// Folder of initial weights: the output of a stage or an exported checkpoint.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Output folder of the `towers` stage; its towers replace those of `--from`.
    #[arg(long)]
    towers: Option<PathBuf>,
    /// Output folder of the `upn` stage; the decoder stages then train on the proposals of this network.
    #[arg(long)]
    upn: Option<PathBuf>,
    /// The language model that the stages `chats` and `adapter` read: a folder converted with --quant f32.
    #[arg(long)]
    base: Option<PathBuf>,
    /// The chats.json that the stage `adapter` mixes in.
    #[arg(long)]
    chats: Option<PathBuf>,
    /// Train the stages `labels` and `adapter` on this folder instead of drawn scenes: the output of
    /// `chatrex dialogues` or `chatrex scenes`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Model folder whose detector scores the boxes of `--data`; by default assets/models/mini.
    #[arg(long, value_name = "DIR", requires = "data")]
    detector: Option<PathBuf>,
    /// Rank of the changes of the stage `adapter` (LoRA) [default: 16].
    #[arg(long, value_name = "N")]
    lora_rank: Option<usize>,
    /// Their factor is this value divided by the rank [default: twice the rank].
    #[arg(long, value_name = "ALPHA", value_parser = finite::<f32>)]
    lora_alpha: Option<f32>,
    /// The changed matrices: q, k, v, o, gate, up, down, or their full names [default: q,k,v,o].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    lora_targets: Vec<String>,
    /// Output folder for weights, checkpoint and metrics.
    #[arg(long)]
    out: PathBuf,
    /// Training time in minutes.
    #[arg(long, default_value_t = 30.0, value_parser = finite::<f64>)]
    minutes: f64,
    /// Number of steps, instead of a time; the run is then bit-reproducible.
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device to train on; `auto` selects the CPU.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Resume from the checkpoint in `--out`.
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    Nano,
    Mini,
    Small,
}

impl Preset {
    fn of(stage: train::TrainStage) -> Self {
        match stage {
            train::TrainStage::LabelTokenizer | train::TrainStage::Labels => Self::Mini,
            train::TrainStage::Chats | train::TrainStage::Adapter => Self::Small,
            _ => Self::Nano,
        }
    }
}

/// The low-rank changes of `options`; `None` if they name none.
fn lora(options: &Options) -> Option<LoraConfig> {
    let Options {
        lora_rank,
        lora_alpha,
        lora_targets,
        ..
    } = options;
    if lora_rank.is_none() && lora_alpha.is_none() && lora_targets.is_empty() {
        return None;
    }
    let own = lora_config();
    let rank = lora_rank.unwrap_or(own.rank);
    let full = |name: &String| match name.as_str() {
        "q" | "k" | "v" | "o" => format!("self_attn.{name}_proj"),
        "gate" | "up" | "down" => format!("mlp.{name}_proj"),
        other => other.to_owned(),
    };
    Some(LoraConfig {
        rank,
        scale: lora_alpha.map_or(own.scale, |alpha| alpha / rank as f32),
        targets: match lora_targets.is_empty() {
            true => own.targets,
            false => lora_targets.iter().map(full).collect(),
        },
    })
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let preset = Preset::of(options.stage);
    if options.preset.is_some_and(|given| given != preset) {
        let stages = match preset {
            Preset::Mini => "mini",
            Preset::Small => "small",
            Preset::Nano => "nano",
        };
        return Err(Fault::new(
            FaultKind::Question,
            format!("--stage {}", options.stage.name()),
            format!("is a stage of {stages}"),
            format!("Leave out --preset, or give --preset {stages}"),
        ));
    }
    train::run(&train::TrainOptions {
        stage: options.stage,
        from: options.from.clone(),
        towers: options.towers.clone(),
        upn: options.upn.clone(),
        base: options.base.clone(),
        chats: options.chats.clone(),
        data: options.data.clone(),
        detector: options.detector.clone(),
        lora: lora(options),
        out: options.out.clone(),
        minutes: options.minutes,
        steps: options.steps,
        seed: options.seed,
        device: options.device.into(),
        resume: options.resume,
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::convert::options::Conversion;
    use crate::convert::{TestDetector, convert};
    use crate::device_preference::DevicePreference;
    use crate::memory::KvCacheDType;
    use crate::model::adapter::ADDED_EMBEDDINGS;
    use crate::model::decoder::{Decoder, KvCache};
    use crate::nn::Loader;
    use crate::train::adapter::{AdapterTrainee, Base};
    use crate::train::checkpoint::{Initializer, Precision, Weights};
    use crate::train::export::{SmallExportOptions, export_small};
    use crate::train::{TrainOptions, TrainStage};
    use crate::weights::quant::Rounding;
    use crate::weights::storage::QuantPreset;

    const BASE: &str = "tests/data/gguf/qwen2.gguf";

    fn conversion(out: &Path) -> Conversion {
        Conversion {
            model: BASE.into(),
            upn: None,
            adapter: None,
            detector: None,
            detector_side: None,
            out: out.into(),
            quant: QuantPreset::F32,
            group: 32,
            rounding: Rounding::Search,
            template: None,
            prefixes: Vec::new(),
            name: None,
        }
    }

    /// The logits after `ids`, and the tokens of the greedy answer.
    fn answer(decoder: &Decoder, ids: &[u32]) -> (Vec<f32>, Vec<u32>) {
        const TOKENS: usize = 12;
        let device = Device::flex();
        let length = ids.len() + TOKENS;
        let mut cache = KvCache::new(decoder.config(), length, KvCacheDType::F32, &device);
        let values = |logits: Tensor<1>| logits.into_data().try_to_vec::<f32>().expect("f32");
        let best = |logits: &[f32]| {
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            best.expect("a vocabulary") as u32
        };
        let first = values(decoder.prefill(decoder.embed(ids).unsqueeze(), &mut cache));
        let mut said = vec![best(&first)];
        while said.len() < TOKENS {
            let next = values(decoder.step(said[said.len() - 1], &mut cache));
            said.push(best(&next));
        }
        (first, said)
    }

    /// An adapter that is trained on drawn scenes, exported and merged by the converter answers as the language
    /// model with the adapter beside it.
    #[test]
    fn a_merged_model_answers_as_the_unmerged_one() {
        let root = tempfile::tempdir().expect("a folder");
        let path = |name: &str| root.path().join(name);
        convert(&conversion(&path("base")), &()).expect("a language model");
        TestDetector::detector().write(root.path());
        let lora = LoraConfig {
            rank: 3,
            scale: 2.5,
            targets: vec!["self_attn.q_proj".into(), "mlp.down_proj".into()],
        };
        train::run(&TrainOptions {
            stage: TrainStage::Adapter,
            from: None,
            towers: None,
            upn: None,
            base: Some(path("base")),
            chats: None,
            data: None,
            detector: None,
            lora: Some(lora.clone()),
            out: path("run"),
            minutes: 0.0,
            steps: Some(3),
            seed: 4,
            device: DevicePreference::Cpu,
            resume: false,
        })
        .expect("a run");
        let file = path("run").join("weights.safetensors");
        // Values that f16 holds, so that the export rounds nothing.
        let trained = Weights::read(&file).expect("weights");
        trained.write(&file, Precision::F16).expect("rounded");
        let trained = Weights::read(&file).expect("weights");
        trained.write(&file, Precision::F32).expect("written");
        export_small(&SmallExportOptions {
            weights: file,
            base: path("base"),
            base_file: Some(BASE.into()),
            out: path("adapter"),
            score: 0.3,
            first_of_kind: 0.1,
            nms: 0.5,
            made_by: Vec::new(),
        })
        .expect("an adapter");
        let merged = Conversion {
            adapter: Some(path("adapter")),
            detector: Some(path("model.json")),
            ..conversion(&path("merged"))
        };
        convert(&merged, &()).expect("a merged model");

        let device = Device::flex();
        let (base, tokenizer) = Base::read(&path("base")).expect("a language model");
        assert!(trained.tensors[ADDED_EMBEDDINGS].values.len() > 1000);
        let initializer = Initializer::new(trained, 0);
        let at = Loader::new(&initializer, &device);
        let trainee = AdapterTrainee::load(&at, &lora, &base, &tokenizer).expect("an adapter");
        let (model, _) = Base::read(&path("merged")).expect("a merged model");
        let model = model.decoder(&device).expect("a decoder");
        let plain = base.decoder(&device).expect("a decoder");
        let tag = tokenizer.id("<obj3>").expect("a tag");
        let ids = [5, 1, 40, tag, 7];
        let ((unmerged, said), (merged, again)) =
            (answer(&trainee.changed(), &ids), answer(&model, &ids));
        assert_eq!(said, again);
        assert_eq!(unmerged.len(), merged.len());
        for (a, b) in unmerged.iter().zip(&merged) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        // The changes are not nothing.
        let (before, _) = answer(&plain, &ids[..3]);
        let (after, _) = answer(&model, &ids[..3]);
        assert_ne!(before[..20], after[..20]);
    }

    #[test]
    fn names_of_matrices_are_completed() {
        use clap::Parser;
        #[derive(Parser)]
        struct Program {
            #[command(flatten)]
            options: Options,
        }
        let parse = |more: &[&str]| {
            let all = ["train", "--stage", "adapter", "--out", "x"];
            let program = Program::try_parse_from(all.iter().chain(more)).expect("options");
            lora(&program.options)
        };
        assert_eq!(parse(&[]), None);
        let given = parse(&[
            "--lora-rank",
            "8",
            "--lora-alpha",
            "4",
            "--lora-targets",
            "q,up,self_attn.k_proj",
        ]);
        let given = given.expect("changes");
        assert_eq!((given.rank, given.scale), (8, 0.5));
        assert_eq!(
            given.targets,
            ["self_attn.q_proj", "mlp.up_proj", "self_attn.k_proj"]
        );
        let rank_alone = parse(&["--lora-rank", "4"]).expect("changes");
        assert_eq!((rank_alone.scale, rank_alone.targets.len()), (2.0, 4));
    }
}
