//! Warm-up of the towers: crowded scenes, one vector per box, and three heads that say which kind,
//! which colour and which size it is. The heads are not shipped.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::nn::{Linear, Loader};
use crate::scenes::{Kind, Rng, Scene, Size, Tint};
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::{
    Precision, Start, Weights, read_state, select_trained, write_state,
};
use crate::train::data_loader::DataLoader;
use crate::train::metrics::Metrics;
use crate::train::optimizer::AdamW;
use crate::train::regions::{Candidate, ProposalNoise, candidates};
use crate::train::schedule::{Budget, Schedule};
use crate::train::{Options, training_device};

/// Scenes per step.
const BATCH: usize = 16;
/// Most boxes per scene.
const BOXES: usize = 18;
/// Scenes of the fixed validation set.
const VALIDATION: u64 = 64;
/// Steps between two validations.
const EVERY: u64 = 100;

/// Classifies box vectors: which kind (the last class is background), colour, size.
#[derive(Module, Debug)]
pub struct RegionHeads {
    kind: Linear,
    tint: Linear,
    size: Linear,
}

/// What the heads should say about each box of a batch; -1 where there is nothing to say.
#[derive(Clone, Debug, Default)]
pub struct RegionLabels {
    kind: Vec<i32>,
    tint: Vec<i32>,
    size: Vec<i32>,
}

impl RegionHeads {
    /// Heads on vectors of width `width`.
    ///
    /// # Errors
    /// A misshapen tensor.
    pub fn load(at: &Loader, width: usize) -> Result<Self, Fault> {
        let head = |name, classes| Linear::load(&at.child(name), width, classes, true);
        Ok(Self {
            kind: head("kind", Kind::COUNT + 1)?,
            tint: head("tint", Tint::ALL.len() + 1)?,
            size: head("size", 3)?,
        })
    }

    /// Cross-entropy of all three, `objects` `[B, N, D]`.
    pub fn loss(&self, objects: Tensor<3>, labels: &RegionLabels) -> Tensor<1> {
        let [batch, rows, width] = objects.dims();
        let x = objects.reshape([batch * rows, width]);
        cross_entropy(self.kind.forward(x.clone()), &labels.kind)
            + cross_entropy(self.tint.forward(x.clone()), &labels.tint) * 0.5
            + cross_entropy(self.size.forward(x), &labels.size) * 0.3
    }

    /// Right answers over answers: kind of boxes on objects, colour of boxes on objects, object or
    /// background of all boxes.
    fn accuracy(&self, objects: Tensor<3>, labels: &RegionLabels) -> [(usize, usize); 3] {
        let [batch, rows, width] = objects.dims();
        let x = objects.reshape([batch * rows, width]);
        let kind = best_class(self.kind.forward(x.clone()));
        let tint = best_class(self.tint.forward(x));
        let background = Kind::COUNT as i32;
        let mut counts = [(0, 0); 3];
        let mut count = |which: usize, right: bool| {
            counts[which].0 += usize::from(right);
            counts[which].1 += 1;
        };
        for row in 0..batch * rows {
            let (truth, colour) = (labels.kind[row], labels.tint[row]);
            if truth < 0 {
                continue;
            }
            count(2, (truth == background) == (kind[row] == background));
            if truth != background {
                count(0, kind[row] == truth);
                count(1, tint[row] == colour);
            }
        }
        counts
    }
}

impl RegionLabels {
    /// Labels of the boxes of `scenes`, `rows` per scene. A box that overlaps an object without
    /// standing for it is left out, a box on background is background.
    pub fn new(scenes: &[(Scene, Vec<Candidate>)], rows: usize) -> Self {
        let mut labels = Self::default();
        for (scene, candidates) in scenes {
            for row in 0..rows {
                let [kind, tint, size] = match candidates.get(row) {
                    Some(candidate) => class_of(scene, candidate),
                    None => [-1; 3],
                };
                labels.kind.push(kind);
                labels.tint.push(tint);
                labels.size.push(size);
            }
        }
        labels
    }
}

/// The words for kinds and colours as tokens, in every form in which they stand in text.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    kinds: Vec<i32>,
    tints: Vec<i32>,
}

impl Vocabulary {
    /// Reads the words' tokens.
    ///
    /// # Errors
    /// A word is not one token.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, Fault> {
        let token = |text: String| match tokenizer.encode_continuation(&text)[..] {
            [id] => Ok(i32::try_from(id).expect("a word is no slot")),
            _ => Err(Fault::model(
                "tokenizer",
                format!("{text:?} should be one token"),
            )),
        };
        let forms = |word: &str| [word.to_owned(), format!(" {word}")];
        let kinds = Kind::all().flat_map(|kind| [forms(kind.word()), forms(kind.plural())]);
        let tints = Tint::ALL.iter().map(|tint| forms(tint.word()));
        Ok(Self {
            kinds: kinds.flatten().map(token).collect::<Result<_, _>>()?,
            tints: tints.flatten().map(token).collect::<Result<_, _>>()?,
        })
    }

    /// Cross-entropy of the box vectors `objects` `[B, N, D]` against the mean rows of `table`
    /// `[V, D]` for the words of each kind and of each colour. With box vectors among the words
    /// for them, looking up a kind is the same step as looking up an index.
    pub fn loss(&self, objects: Tensor<3>, table: Tensor<2>, labels: &RegionLabels) -> Tensor<1> {
        let [batch, rows, width] = objects.dims();
        let device = objects.device().inner();
        let x = objects.reshape([batch * rows, width]) * SHARPNESS;
        let against = |words: &[i32], forms: usize, labels: &[i32]| {
            let classes = words.len() / forms;
            let words = TensorData::new(words.to_vec(), [words.len()]);
            let means = table
                .clone()
                .select(0, Tensor::<1, Int>::from_data(words, &device))
                .reshape([classes, forms, width])
                .mean_dim(1)
                .reshape([classes, width]);
            let known = |&label: &i32| if label < classes as i32 { label } else { -1 };
            let labels = labels.iter().map(known).collect::<Vec<_>>();
            cross_entropy(x.clone().matmul(means.transpose()), &labels)
        };
        against(&self.kinds, 4, &labels.kind) + against(&self.tints, 2, &labels.tint)
    }
}

/// What products of box vectors and word vectors, both short, are multiplied by.
const SHARPNESS: f32 = 10.0;

fn class_of(scene: &Scene, candidate: &Candidate) -> [i32; 3] {
    let Some(index) = candidate.object else {
        let near = |b: &BoxXyxy| b.iou(&candidate.bbox) >= 0.3;
        let doubtful = scene.objects.iter().any(|o| near(&o.bbox));
        let kind = if doubtful { -1 } else { Kind::COUNT as i32 };
        return [kind, -1, -1];
    };
    let object = &scene.objects[index];
    let size = match scene.size(index) {
        Size::Small => 0,
        Size::Medium => 1,
        Size::Big => 2,
    };
    let tint = object.tint.map_or(Tint::ALL.len(), Tint::index);
    [object.kind.index() as i32, tint as i32, size]
}

/// Mean cross-entropy of `logits` `[R, C]` over the rows whose label is not negative.
pub fn cross_entropy(logits: Tensor<2>, labels: &[i32]) -> Tensor<1> {
    let device = logits.device().inner();
    let [rows, classes] = logits.dims();
    assert_eq!(rows, labels.len(), "one label per row");
    let kept = labels.iter().filter(|&&label| label >= 0).count().max(1);
    let mut weights = vec![0.0_f32; rows * classes];
    for (row, &label) in labels.iter().enumerate() {
        if label >= 0 {
            weights[row * classes + label as usize] = -1.0 / kept as f32;
        }
    }
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [rows, classes]), &device);
    (log_softmax(logits, 1) * weights).sum()
}

/// The class of the largest logit of each row of `[R, C]`.
pub fn best_class(logits: Tensor<2>) -> Vec<i32> {
    let data = logits.inner().argmax(1).into_data();
    data.convert::<i32>()
        .try_into_vec::<i32>()
        .expect("converted to i32")
}

/// Prepared pictures of some scenes and their boxes.
pub struct Pictures {
    /// Scenes with their candidates.
    pub scenes: Vec<(Scene, Vec<Candidate>)>,
    low: Vec<f32>,
    high: Vec<f32>,
    /// Candidate boxes in pixels of the high-resolution picture.
    pub boxes: Vec<Vec<BoxXyxy>>,
}

impl Pictures {
    /// Prepares `scenes` as `config` says.
    pub fn prepare(scenes: Vec<(Scene, Vec<Candidate>)>, config: &ChatRexConfig) -> Self {
        let recipe = config.recipe();
        let (mut low, mut high, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
        for (scene, candidates) in &scenes {
            let (large, small) = recipe.prepare(&scene.pixels);
            high.extend(large.values);
            low.extend(small.values);
            let (width, height) = (scene.pixels.width, scene.pixels.height);
            let found = candidates.iter().map(|c| c.bbox).collect::<Vec<_>>();
            boxes.push(recipe.boxes(width, height, &found));
        }
        Self {
            scenes,
            low,
            high,
            boxes,
        }
    }

    /// Low and high resolution, `[B, 3, side, side]`.
    pub fn tensors(&self, config: &ChatRexConfig, device: &Device) -> (Tensor<4>, Tensor<4>) {
        let tensor = |values: &[f32], side: usize| {
            let shape = [self.scenes.len(), 3, side, side];
            Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        (
            tensor(&self.low, config.image_low),
            tensor(&self.high, config.image_aux),
        )
    }

    /// Most boxes of one picture.
    pub fn rows(&self) -> usize {
        self.boxes.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// Where a run stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    step: u64,
    seed: u64,
    seconds: f64,
}

/// The model and the heads that are trained beside it.
#[derive(Module, Debug)]
pub struct Trained {
    /// What is shipped.
    pub model: ChatRex,
    /// What is not.
    pub heads: RegionHeads,
}

impl Trained {
    fn objects(&self, pictures: &Pictures, device: &Device) -> Tensor<3> {
        let (low, high) = pictures.tensors(self.model.config(), device);
        let (_, pyramid) = self.model.towers.forward(low, high);
        let features = self.model.towers.box_features(&pyramid, &pictures.boxes);
        self.model.towers.project_objects(features)
    }

    fn validate(&self, device: &Device) -> [f64; 3] {
        let mut sums = [(0, 0); 3];
        for first in (0..VALIDATION).step_by(BATCH) {
            let scenes = (first..first + BATCH as u64).map(|i| {
                let scene = Scene::draw(800_000 + i);
                let mut rng = Rng::new(scene.seed, VALIDATION_STREAM);
                let found = candidates(&scene, ProposalNoise::PROPOSALS, BOXES, &mut rng);
                (scene, found)
            });
            let pictures = Pictures::prepare(scenes.collect(), self.model.config());
            let labels = RegionLabels::new(&pictures.scenes, pictures.rows());
            let counts = self
                .heads
                .accuracy(self.objects(&pictures, device), &labels);
            for (sum, count) in sums.iter_mut().zip(counts) {
                sum.0 += count.0;
                sum.1 += count.1;
            }
        }
        sums.map(|(right, all)| right as f64 / f64::from(all.max(1) as u32))
    }
}

/// The stream of [`Rng`] that validation boxes are thrown from.
const VALIDATION_STREAM: u64 = 77;
/// The stream that training scenes and boxes are thrown from.
const TRAINING_STREAM: u64 = 78;

/// A training scene's seed, from the run's seed and the scene's number within the run.
pub fn training_seed(seed: u64, number: u64) -> u64 {
    Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number, 1).below(800_000) as u64
}

fn draw_batch(seed: u64, step: u64, config: &ChatRexConfig) -> Pictures {
    let scenes = (0..BATCH as u64).map(|i| {
        let number = step * BATCH as u64 + i;
        let mut rng = Rng::new(seed ^ number.rotate_left(32), TRAINING_STREAM);
        let scene = Scene::draw_with(training_seed(seed, number), 9..=12);
        let noise = ProposalNoise {
            background: 4,
            ..ProposalNoise::PROPOSALS
        };
        let found = candidates(&scene, noise, BOXES, &mut rng);
        (scene, found)
    });
    Pictures::prepare(scenes.collect(), config)
}

/// Runs the warm-up.
///
/// # Errors
/// Files that cannot be read or written.
pub fn run(options: &Options, config: &ChatRexConfig, weights: Weights) -> Result<(), Fault> {
    let device = training_device(options.device)?;
    let state = options.out.join("state.safetensors");
    let mut optimizer = AdamW::default();
    let mut position = Position {
        seed: options.seed,
        ..Position::default()
    };
    let weights = if options.resume {
        let (weights, read) = read_state(&state, &mut optimizer)?;
        position = read;
        weights
    } else {
        weights
    };
    let start = Start::new(weights, position.seed);
    let at = Loader::new(&start, &device);
    let trained = Trained {
        model: ChatRex::load(&at, config)?,
        heads: RegionHeads::load(&at.child("warmup"), config.llm.hidden_size)?,
    };
    let ours = |name: &str| {
        ["vision_tower", "mm_object_projector", "warmup"]
            .iter()
            .any(|part| name.starts_with(part))
    };
    // From earlier weights only the towers move, so that a decoder trained on the vectors of the
    // earlier ones still understands the new ones.
    let moves = |name: &str| match &options.from {
        Some(_) => name.starts_with("vision_tower"),
        None => ours(name),
    };
    let mut trained = select_trained(trained, &start, moves);
    let schedule = Schedule {
        peak: if options.from.is_some() { 2e-3 } else { 3e-3 },
        warmup: 30,
        hold: 0.3,
        floor: 0.03,
    };
    let budget = Budget::start(options.minutes, options.steps, position.seconds);
    let mut metrics = Metrics::open(&options.out, options.resume, "towers")?;
    let shared = config.clone();
    let seed = position.seed;
    let mut feed = DataLoader::start(position.step, 1, move |step| {
        draw_batch(seed, step, &shared)
    });
    let mut running = None::<f64>;
    let plain = device.clone().inner();
    while !budget.is_over(position.step) {
        let fraction = budget.fraction(position.step);
        let pictures = feed.take();
        let labels = RegionLabels::new(&pictures.scenes, pictures.rows());
        let loss = trained
            .heads
            .loss(trained.objects(&pictures, &plain), &labels);
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let rate = schedule.rate(position.step, fraction);
        let norm;
        (trained, norm) = optimizer.step(trained, &start, loss.backward(), |_| rate);
        position.step += 1;
        let smooth = running.map_or(value, |old| old * 0.95 + value * 0.05);
        running = Some(smooth);
        metrics.show(fraction, format!("step {} loss {smooth:.3}", position.step));
        let last = budget.is_over(position.step);
        if position.step.is_multiple_of(EVERY) || last {
            let [kind, tint, object] = trained.valid().validate(&plain);
            position.seconds = budget.seconds();
            metrics.log(entry(&[
                ("step", position.step as f64),
                ("seconds", position.seconds),
                ("loss", smooth),
                ("rate", rate),
                ("norm", f64::from(norm)),
                ("kind_accuracy", kind),
                ("tint_accuracy", tint),
                ("object_accuracy", object),
            ]))?;
            let weights = Weights::of_module(&trained, &start);
            write_state(&state, &weights, &optimizer, &position)?;
            let mut kept = weights;
            kept.tensors.retain(|name, _| ours(name));
            kept.write(&options.out.join("weights.safetensors"), Precision::F32)?;
            metrics.draw()?;
        }
    }
    Ok(())
}

/// A line of metrics.
pub fn entry(values: &[(&str, f64)]) -> Map<String, Value> {
    values
        .iter()
        .map(|&(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_vectors_among_their_words_cost_nothing() {
        let device = Device::flex();
        let tokenizer = crate::train::nano_tokenizer().unwrap();
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        // A table in which token t is the t-th unit vector.
        let size = tokenizer.vocab_size();
        let table = Tensor::<2>::eye(size, &device);
        let word = |text: &str| match tokenizer.encode_continuation(text)[..] {
            [id] => id as usize,
            _ => panic!("{text} is not one token"),
        };
        let mut vector = vec![0.0_f32; size];
        for form in ["dog", " dog", "dogs", " dogs", "red", " red"] {
            vector[word(form)] = 10.0;
        }
        let objects = Tensor::from_data(TensorData::new(vector, [1, 1, size]), &device);
        let loss = |kind: &str, tint: Option<Tint>| {
            let kind = Kind::all().find(|k| k.word() == kind).unwrap();
            let labels = RegionLabels {
                kind: vec![kind.index() as i32],
                tint: vec![tint.map_or(Tint::ALL.len(), Tint::index) as i32],
                size: vec![-1],
            };
            let loss = vocabulary.loss(objects.clone(), table.clone(), &labels);
            loss.into_scalar::<f32>()
        };
        let red = Tint::ALL.into_iter().find(|tint| tint.word() == "red");
        let blue = Tint::ALL.into_iter().find(|tint| tint.word() == "blue");
        assert!(loss("dog", red) < 1e-3);
        assert!(loss("dog", None) < 1e-3, "its own colours have no word");
        assert!(loss("cat", red) > 10.0);
        assert!(loss("dog", blue) > 10.0);
    }

    #[test]
    fn cross_entropy_skips_unlabelled_rows() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[0.0, 0.0], [3.0, -9.0], [1.0, 1.0]], &device);
        let loss = cross_entropy(logits.clone(), &[0, -1, 1]).into_scalar::<f32>();
        assert!((loss - std::f32::consts::LN_2).abs() < 1e-6);
        assert_eq!(best_class(logits)[1], 0);
    }
}
