//! Pre-training of the vision towers: scenes with many objects, one embedding per box, and three heads
//! that classify its category, colour and size. The heads are not exported.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cpu::op::is_cpu;
use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::nn::{Linear, Loader};
use crate::scenes::{Category, Rng, Scene, Size, Tint};
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::{Initializer, Precision, Weights, set_trainable};
use crate::train::data_loader::DataLoader;
use crate::train::metrics::MetricsLog;
use crate::train::optimizer::AdamW;
use crate::train::regions::{LabeledBox, ProposalNoise, sample_boxes};
use crate::train::schedule::{Budget, LrSchedule};
use crate::train::state::{read_state, write_state};
use crate::train::{TrainOptions, training_device};

/// Scenes per step.
const BATCH: usize = 16;
/// Maximum number of boxes per scene.
const MAX_BOXES: usize = 18;
/// Number of validation scenes.
const VALIDATION_SCENES: u64 = 64;
/// Steps between two validations.
const VALIDATION_INTERVAL: u64 = 100;

/// Classifiers of box embeddings: category (the last class is background), colour, size.
#[derive(Module, Debug)]
pub struct RegionHeads {
    category: Linear,
    tint: Linear,
    size: Linear,
}

/// Class of each box of a batch, per head; -1 is ignored.
#[derive(Clone, Debug, Default)]
pub struct RegionLabels {
    category: Vec<i32>,
    tint: Vec<i32>,
    size: Vec<i32>,
}

impl RegionHeads {
    /// Loads the heads for embeddings of width `width`.
    ///
    /// # Errors
    /// A tensor has another shape.
    pub fn load(at: &Loader, width: usize) -> Result<Self, Fault> {
        let head = |name, classes| Linear::load(&at.child(name), width, classes, true);
        Ok(Self {
            category: head("kind", Category::COUNT + 1)?,
            tint: head("tint", Tint::ALL.len() + 1)?,
            size: head("size", 3)?,
        })
    }

    /// Weighted cross-entropy of all heads for box embeddings `[B, N, D]`.
    pub fn loss(&self, boxes: Tensor<3>, labels: &RegionLabels) -> Tensor<1> {
        let [batch, max_boxes, width] = boxes.dims();
        let x = boxes.reshape([batch * max_boxes, width]);
        cross_entropy(self.category.forward(x.clone()), &labels.category)
            + cross_entropy(self.tint.forward(x.clone()), &labels.tint) * 0.5
            + cross_entropy(self.size.forward(x), &labels.size) * 0.3
    }

    /// `(correct, total)` of: category of labeled boxes, colour of labeled boxes, object or background
    /// of all boxes.
    fn accuracy(&self, boxes: Tensor<3>, labels: &RegionLabels) -> [(usize, usize); 3] {
        let [batch, max_boxes, width] = boxes.dims();
        let x = boxes.reshape([batch * max_boxes, width]);
        let category = argmax(self.category.forward(x.clone()));
        let tint = argmax(self.tint.forward(x));
        let background = Category::COUNT as i32;
        let mut counts = [(0, 0); 3];
        let mut count = |which: usize, right: bool| {
            counts[which].0 += usize::from(right);
            counts[which].1 += 1;
        };
        for row in 0..batch * max_boxes {
            let (truth, colour) = (labels.category[row], labels.tint[row]);
            if truth < 0 {
                continue;
            }
            count(2, (truth == background) == (category[row] == background));
            if truth != background {
                count(0, category[row] == truth);
                count(1, tint[row] == colour);
            }
        }
        counts
    }
}

impl RegionLabels {
    /// Labels of the boxes of `scenes`, padded to `max_boxes` per scene. An unlabeled box is background,
    /// or ignored if it overlaps an object.
    pub fn new(scenes: &[(Scene, Vec<LabeledBox>)], max_boxes: usize) -> Self {
        let mut labels = Self::default();
        for (scene, boxes) in scenes {
            for row in 0..max_boxes {
                let [category, tint, size] = match boxes.get(row) {
                    Some(labeled) => class_of(scene, labeled),
                    None => [-1; 3],
                };
                labels.category.push(category);
                labels.tint.push(tint);
                labels.size.push(size);
            }
        }
        labels
    }
}

/// Loss that aligns box embeddings with the token embeddings of the words for their category and
/// colour, in all forms of the words.
#[derive(Clone, Debug)]
pub struct WordAlignment {
    categories: Vec<i32>,
    tints: Vec<i32>,
}

impl WordAlignment {
    /// Looks up the tokens of the words.
    ///
    /// # Errors
    /// A word is not one token.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, Fault> {
        let token = |text: String| match tokenizer.encode_continuation(&text)[..] {
            [id] => Ok(i32::try_from(id).expect("a word has no slot")),
            _ => Err(Fault::model(
                "tokenizer",
                format!("{text:?} should be one token"),
            )),
        };
        let forms = |word: &str| [word.to_owned(), format!(" {word}")];
        let categories =
            Category::all().flat_map(|category| [forms(category.word()), forms(category.plural())]);
        let tints = Tint::ALL.iter().map(|tint| forms(tint.word()));
        Ok(Self {
            categories: categories.flatten().map(token).collect::<Result<_, _>>()?,
            tints: tints.flatten().map(token).collect::<Result<_, _>>()?,
        })
    }

    /// Cross-entropy of box embeddings `boxes` `[B, N, D]` against the mean embedding of each
    /// category and of each colour in `table` `[V, D]`. With box embeddings close to those of their
    /// words, looking up a category is the same operation as looking up an index.
    pub fn loss(&self, boxes: Tensor<3>, table: Tensor<2>, labels: &RegionLabels) -> Tensor<1> {
        let [batch, max_boxes, width] = boxes.dims();
        let device = boxes.device().inner();
        let x = boxes.reshape([batch * max_boxes, width]) * LOGIT_SCALE;
        let loss_against = |tokens: &[i32], forms: usize, labels: &[i32]| {
            let classes = tokens.len() / forms;
            let tokens = TensorData::new(tokens.to_vec(), [tokens.len()]);
            let means = table
                .clone()
                .select(0, Tensor::<1, Int>::from_data(tokens, &device))
                .reshape([classes, forms, width])
                .mean_dim(1)
                .reshape([classes, width]);
            let with_word = |&label: &i32| if label < classes as i32 { label } else { -1 };
            let labels = labels.iter().map(with_word).collect::<Vec<_>>();
            cross_entropy(x.clone().matmul(means.transpose()), &labels)
        };
        loss_against(&self.categories, 4, &labels.category)
            + loss_against(&self.tints, 2, &labels.tint)
    }
}

/// Scale of the products of box and word embeddings, whose norms are small.
const LOGIT_SCALE: f32 = 10.0;

fn class_of(scene: &Scene, labeled: &LabeledBox) -> [i32; 3] {
    let Some(index) = labeled.object else {
        let overlaps = |b: &BoxXyxy| b.iou(&labeled.bbox) >= 0.3;
        let ambiguous = scene.objects.iter().any(|o| overlaps(&o.bbox));
        let category = if ambiguous {
            -1
        } else {
            Category::COUNT as i32
        };
        return [category, -1, -1];
    };
    let object = &scene.objects[index];
    let size = match scene.size(index) {
        Size::Small => 0,
        Size::Medium => 1,
        Size::Big => 2,
    };
    let tint = object.tint.map_or(Tint::ALL.len(), Tint::index);
    [object.category.index() as i32, tint as i32, size]
}

/// Mean cross-entropy of `logits` `[R, C]` over the rows with a non-negative label.
pub fn cross_entropy(logits: Tensor<2>, labels: &[i32]) -> Tensor<1> {
    let device = logits.device().inner();
    if is_cpu(&device) {
        return crate::cpu::cross_entropy::cross_entropy(logits, labels);
    }
    let [rows, classes] = logits.dims();
    assert_eq!(rows, labels.len(), "one label per row");
    let labeled = labels.iter().filter(|&&label| label >= 0).count().max(1);
    let mut weights = vec![0.0_f32; rows * classes];
    for (row, &label) in labels.iter().enumerate() {
        if label >= 0 {
            weights[row * classes + label as usize] = -1.0 / labeled as f32;
        }
    }
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [rows, classes]), &device);
    (log_softmax(logits, 1) * weights).sum()
}

/// The argmax of each row of `[R, C]`.
pub fn argmax(logits: Tensor<2>) -> Vec<i32> {
    let data = logits.inner().argmax(1).into_data();
    data.convert::<i32>()
        .try_into_vec::<i32>()
        .expect("converted to i32")
}

/// Preprocessed images of some scenes with their boxes.
pub struct ImageBatch {
    /// Scenes with their labeled boxes.
    pub scenes: Vec<(Scene, Vec<LabeledBox>)>,
    low: Vec<f32>,
    high: Vec<f32>,
    /// Boxes in pixels of the high-resolution image.
    pub boxes: Vec<Vec<BoxXyxy>>,
}

impl ImageBatch {
    /// Preprocesses `scenes` for `config`.
    pub fn prepare(scenes: Vec<(Scene, Vec<LabeledBox>)>, config: &ChatRexConfig) -> Self {
        let recipe = config.towers.recipe();
        let (mut low, mut high, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
        for (scene, labeled) in &scenes {
            let (large, small) = recipe.prepare(&scene.pixels);
            high.extend(large.values);
            low.extend(small.values);
            let (width, height) = (scene.pixels.width, scene.pixels.height);
            let found = labeled.iter().map(|b| b.bbox).collect::<Vec<_>>();
            boxes.push(recipe.boxes(width, height, &found));
        }
        Self {
            scenes,
            low,
            high,
            boxes,
        }
    }

    /// Low-resolution and high-resolution images, `[B, 3, side, side]` each.
    pub fn tensors(&self, config: &ChatRexConfig, device: &Device) -> (Tensor<4>, Tensor<4>) {
        let tensor = |values: &[f32], side: usize| {
            let shape = [self.scenes.len(), 3, side, side];
            Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        (
            tensor(&self.low, config.towers.image_low),
            tensor(&self.high, config.towers.image_aux),
        )
    }

    /// Maximum number of boxes per image.
    pub fn max_boxes(&self) -> usize {
        self.boxes.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// Progress of a run, stored in its checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct TowersTrainerState {
    step: u64,
    seed: u64,
    seconds: f64,
}

/// The model and its auxiliary heads.
#[derive(Module, Debug)]
pub struct Trainee {
    /// The model.
    pub model: ChatRex,
    /// The heads, which are not exported.
    pub heads: RegionHeads,
}

impl Trainee {
    fn box_embeddings(&self, images: &ImageBatch, device: &Device) -> Tensor<3> {
        let (low, high) = images.tensors(self.model.config(), device);
        let (_, pyramid) = self.model.towers.forward(low, high);
        let features = self.model.towers.box_features(&pyramid, &images.boxes);
        self.model.towers.project_objects(features)
    }

    fn validate(&self, device: &Device) -> [f64; 3] {
        let mut sums = [(0, 0); 3];
        for first in (0..VALIDATION_SCENES).step_by(BATCH) {
            let scenes = (first..first + BATCH as u64).map(|i| {
                let scene = Scene::draw(800_000 + i);
                let mut rng = Rng::new(scene.seed, VALIDATION_STREAM);
                let found = sample_boxes(&scene, ProposalNoise::PROPOSALS, MAX_BOXES, &mut rng);
                (scene, found)
            });
            let images = ImageBatch::prepare(scenes.collect(), self.model.config());
            let labels = RegionLabels::new(&images.scenes, images.max_boxes());
            let counts = self
                .heads
                .accuracy(self.box_embeddings(&images, device), &labels);
            for (sum, count) in sums.iter_mut().zip(counts) {
                sum.0 += count.0;
                sum.1 += count.1;
            }
        }
        sums.map(|(right, all)| right as f64 / f64::from(all.max(1) as u32))
    }
}

/// [`Rng`] stream of validation boxes.
const VALIDATION_STREAM: u64 = 77;
/// [`Rng`] stream of training boxes.
const TRAINING_STREAM: u64 = 78;

/// Seed of training scene `number` of the run with seed `seed`.
pub fn training_seed(seed: u64, number: u64) -> u64 {
    Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number, 1).below(800_000) as u64
}

fn draw_batch(seed: u64, step: u64, config: &ChatRexConfig) -> ImageBatch {
    let scenes = (0..BATCH as u64).map(|i| {
        let number = step * BATCH as u64 + i;
        let mut rng = Rng::new(seed ^ number.rotate_left(32), TRAINING_STREAM);
        let scene = Scene::draw_with(training_seed(seed, number), 9..=12);
        let noise = ProposalNoise {
            background: 4,
            ..ProposalNoise::PROPOSALS
        };
        let found = sample_boxes(&scene, noise, MAX_BOXES, &mut rng);
        (scene, found)
    });
    ImageBatch::prepare(scenes.collect(), config)
}

/// Runs the `towers` stage.
///
/// # Errors
/// A file cannot be read or written, or weights have other shapes.
pub fn run(options: &TrainOptions, config: &ChatRexConfig, weights: Weights) -> Result<(), Fault> {
    let device = training_device(options.device)?;
    let state_path = options.out.join("state.safetensors");
    let mut optimizer = AdamW::default();
    let mut state = TowersTrainerState {
        seed: options.seed,
        ..TowersTrainerState::default()
    };
    let weights = if options.resume {
        let (weights, read) = read_state(&state_path, &mut optimizer)?;
        state = read;
        weights
    } else {
        weights
    };
    let initializer = Initializer::new(weights, state.seed);
    let at = Loader::new(&initializer, &device);
    let trainee = Trainee {
        model: ChatRex::load(&at, config)?,
        heads: RegionHeads::load(&at.child("warmup"), config.llm.hidden_size)?,
    };
    let is_trained_part = |name: &str| {
        ["vision_tower", "mm_object_projector", "warmup"]
            .iter()
            .any(|part| name.starts_with(part))
    };
    // With earlier weights only the towers are trained. The projector stays fixed, so that a decoder
    // trained on its embeddings stays compatible.
    let is_trainable = |name: &str| match &options.from {
        Some(_) => name.starts_with("vision_tower"),
        None => is_trained_part(name),
    };
    let mut trainee = set_trainable(trainee, &initializer, is_trainable);
    let schedule = LrSchedule {
        peak: if options.from.is_some() { 2e-3 } else { 3e-3 },
        warmup: 30,
        hold: 0.3,
        floor: 0.03,
    };
    let budget = Budget::start(options.minutes, options.steps, state.seconds);
    let mut metrics = MetricsLog::open(&options.out, options.resume, "towers")?;
    let shared = config.clone();
    let seed = state.seed;
    let mut loader = DataLoader::start(state.step, 1, move |step| draw_batch(seed, step, &shared));
    let mut running_loss = None::<f64>;
    let inner_device = device.clone().inner();
    while !budget.is_over(state.step) {
        let progress = budget.progress(state.step);
        let images = loader.next_batch();
        let labels = RegionLabels::new(&images.scenes, images.max_boxes());
        let loss = trainee
            .heads
            .loss(trainee.box_embeddings(&images, &inner_device), &labels);
        let loss_value = f64::from(loss.clone().into_scalar::<f32>());
        let lr = schedule.lr(state.step, progress);
        let grad_norm;
        (trainee, grad_norm) = optimizer.step(trainee, &initializer, loss.backward(), |_| lr);
        state.step += 1;
        let mean_loss = running_loss.map_or(loss_value, |old| old * 0.95 + loss_value * 0.05);
        running_loss = Some(mean_loss);
        metrics.show(progress, format!("step {} loss {mean_loss:.3}", state.step));
        let last = budget.is_over(state.step);
        if state.step.is_multiple_of(VALIDATION_INTERVAL) || last {
            let [category, tint, object] = trainee.valid().validate(&inner_device);
            state.seconds = budget.seconds();
            metrics.log(metrics_entry(&[
                ("step", state.step as f64),
                ("seconds", state.seconds),
                ("loss", mean_loss),
                ("rate", lr),
                ("norm", f64::from(grad_norm)),
                ("kind_accuracy", category),
                ("tint_accuracy", tint),
                ("object_accuracy", object),
            ]))?;
            let weights = Weights::of_module(&trainee, &initializer);
            write_state(&state_path, &weights, &optimizer, &state)?;
            let mut trained = weights;
            trained.tensors.retain(|name, _| is_trained_part(name));
            trained.write(&options.out.join("weights.safetensors"), Precision::F32)?;
            metrics.plot()?;
        }
    }
    Ok(())
}

/// A line of the metrics log.
pub fn metrics_entry(values: &[(&str, f64)]) -> Map<String, Value> {
    values
        .iter()
        .map(|&(name, value)| (name.to_owned(), Value::from(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_embeddings_equal_to_their_words_have_no_loss() {
        let device = Device::flex();
        let tokenizer = crate::train::nano_tokenizer().unwrap();
        let alignment = WordAlignment::new(&tokenizer).unwrap();
        // The embedding of token t is the t-th unit vector.
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
        let boxes = Tensor::from_data(TensorData::new(vector, [1, 1, size]), &device);
        let loss = |category: &str, tint: Option<Tint>| {
            let category = Category::all().find(|k| k.word() == category).unwrap();
            let labels = RegionLabels {
                category: vec![category.index() as i32],
                tint: vec![tint.map_or(Tint::ALL.len(), Tint::index) as i32],
                size: vec![-1],
            };
            let loss = alignment.loss(boxes.clone(), table.clone(), &labels);
            loss.into_scalar::<f32>()
        };
        let red = Tint::ALL.into_iter().find(|tint| tint.word() == "red");
        let blue = Tint::ALL.into_iter().find(|tint| tint.word() == "blue");
        assert!(loss("dog", red) < 1e-3);
        assert!(loss("dog", None) < 1e-3, "natural colours have no word");
        assert!(loss("cat", red) > 10.0);
        assert!(loss("dog", blue) > 10.0);
    }

    #[test]
    fn cross_entropy_ignores_unlabeled_rows() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_floats([[0.0, 0.0], [3.0, -9.0], [1.0, 1.0]], &device);
        let loss = cross_entropy(logits.clone(), &[0, -1, 1]).into_scalar::<f32>();
        assert!((loss - std::f32::consts::LN_2).abs() < 1e-6);
        assert_eq!(argmax(logits)[1], 0);
    }
}
