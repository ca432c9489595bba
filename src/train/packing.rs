//! Scenes, boxes and dialogues as packed token sequences: image and boxes once as a shared prefix, then
//! several dialogues. A dialogue attends to the prefix and to itself, and its positions continue after
//! the prefix, so its outputs equal those of a sequence with this dialogue alone.
//!
//! Beside the answers, the position before each box predicts the index token of the box. Pointing
//! needs this link, and answers train it only indirectly. [`AuxTarget`]s train the two look-ups that
//! answers consist of, index to category and category to indices, with few tokens.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::model::decoder::{AttentionSpan, Decoder, Layout};
use crate::scenes::{Dialogue, DialogueTask, Object, Rng, Scene, dialogue};
use crate::text::prompt::{ChatTemplate, IMAGE_SLOT, OBJECT_SLOT, user_turn};
use crate::text::tokenizer::Tokenizer;
use crate::train::regions::LabeledBox;

/// How dialogues are sampled.
#[derive(Clone, Debug)]
pub struct TaskMix {
    /// Tasks and their sampling weights.
    pub tasks: Vec<(DialogueTask, usize)>,
    /// Upper limit of the tokens of all dialogues of a scene.
    pub tokens: usize,
    /// Every dialogue is the shortest of this many samples.
    pub shortest_of: usize,
}

/// A dialogue as tokens.
#[derive(Clone, Debug)]
pub struct TokenizedDialogue<T = DialogueTask> {
    /// The task.
    pub task: T,
    /// Question and answer, without the prefix.
    pub ids: Vec<u32>,
    /// Index of the first answer token in `ids`.
    pub answer_start: usize,
}

/// An auxiliary sequence after the prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct AuxTarget {
    /// Input tokens.
    pub ids: Vec<u32>,
    /// The token that each input position predicts, if any.
    pub targets: Vec<Option<u32>>,
}

/// The sequence of a scene.
#[derive(Clone, Debug)]
pub struct PackedExample<T = DialogueTask> {
    /// Tokens up to the last box, with slots for image and boxes.
    pub prefix: Vec<i64>,
    /// The dialogues.
    pub dialogues: Vec<TokenizedDialogue<T>>,
    /// The auxiliary sequences.
    pub aux_targets: Vec<AuxTarget>,
}

impl PackedExample {
    /// Samples dialogues about `scene` with `boxes` as `task_mix` says.
    pub fn new(
        scene: &Scene,
        boxes: &[LabeledBox],
        task_mix: &TaskMix,
        tokenizer: &Tokenizer,
        rng: &mut Rng,
    ) -> Self {
        let mut box_of = vec![None; scene.objects.len()];
        for (index, labeled) in boxes.iter().enumerate() {
            if let Some(object) = labeled.object {
                box_of[object] = Some(index);
            }
        }
        let mut example = Self {
            prefix: prefix(boxes.len(), tokenizer),
            dialogues: Vec::new(),
            aux_targets: aux_targets(scene, boxes, tokenizer, rng),
        };
        let mut tokens_left = task_mix.tokens;
        let mut seen = HashSet::new();
        for _ in 0..task_mix.tokens / 8 {
            let task = rng.pick_weighted(&task_mix.tasks);
            let shortest = (0..task_mix.shortest_of.max(1))
                .filter_map(|_| dialogue(scene, task, rng))
                .filter_map(|d| tokenize(&d, &box_of, boxes.len(), tokenizer))
                .min_by_key(|dialogue| dialogue.ids.len());
            let Some(dialogue) = shortest else { continue };
            if dialogue.ids.len() > tokens_left {
                break;
            }
            if seen.insert(dialogue.ids.clone()) {
                tokens_left -= dialogue.ids.len();
                example.dialogues.push(dialogue);
            }
        }
        example
    }
}

impl<T> PackedExample<T> {
    /// Length of the sequence for an image of `visual` tokens.
    fn len(&self, visual: usize) -> usize {
        let dialogues = self.dialogues.iter().map(|dialogue| dialogue.ids.len());
        let aux = self.aux_targets.iter().map(|aux| aux.ids.len());
        self.prefix_len(visual) + dialogues.chain(aux).sum::<usize>()
    }

    fn prefix_len(&self, visual: usize) -> usize {
        let images = self.prefix.iter().filter(|&&id| id == IMAGE_SLOT).count();
        self.prefix.len() - images + images * visual
    }
}

/// The auxiliary sequences of a scene: each group of an answer, which predicts its indices; the indices
/// of all labeled boxes, each of which predicts the first token of its category; and the phrases, each
/// of which predicts its first index. A phrase is the category for two boxes in three, else colour and
/// category.
fn aux_targets(
    scene: &Scene,
    boxes: &[LabeledBox],
    tokenizer: &Tokenizer,
    rng: &mut Rng,
) -> Vec<AuxTarget> {
    let labeled = boxes.iter().enumerate();
    let mut labeled = labeled
        .filter_map(|(index, b)| Some((index, &scene.objects[b.object?])))
        .collect::<Vec<_>>();
    let groups = sample_phrases(&labeled, rng);
    let mut aux_targets = Vec::new();
    for (phrase, indices) in &groups {
        aux_targets.push(group_target(phrase, indices, tokenizer));
    }
    rng.shuffle(&mut labeled);
    let mut groups = groups.into_iter().collect::<Vec<_>>();
    rng.shuffle(&mut groups);
    let index_to_category = labeled.iter().map(|(index, object)| {
        let index = tokens(&format!("<obj{index}>"), tokenizer);
        (index, first_token(object.category.word(), tokenizer))
    });
    let phrase_to_index = groups.iter().map(|(phrase, indices)| {
        let index = first_token(&format!("<obj{}>", indices[0]), tokenizer);
        (tokens(phrase, tokenizer), index)
    });
    aux_targets.push(lookup_target(index_to_category));
    aux_targets.push(lookup_target(phrase_to_index));
    aux_targets
}

/// A phrase for each of the `labeled` boxes, with the indices of all boxes that match it.
fn sample_phrases(labeled: &[(usize, &Object)], rng: &mut Rng) -> BTreeMap<String, Vec<usize>> {
    let mut groups = BTreeMap::new();
    for (_, object) in labeled {
        let phrase = match rng.chance(67) {
            true => object.category.word().to_owned(),
            false => object.name(),
        };
        let matching = labeled
            .iter()
            .filter(|(_, o)| phrase == o.category.word() || phrase == o.name())
            .map(|(index, _)| *index);
        groups.insert(phrase.clone(), matching.collect());
    }
    groups
}

/// `<ground>phrase</ground><objects>` and the indices; predicts the indices and `</objects>`.
pub(super) fn group_target(phrase: &str, indices: &[usize], tokenizer: &Tokenizer) -> AuxTarget {
    let mut ids = tokens(&format!("<ground>{phrase}</ground><objects>"), tokenizer);
    let mut targets = vec![None; ids.len() - 1];
    for index in indices {
        ids.extend(tokens(&format!("<obj{index}>"), tokenizer));
    }
    let end = tokens("</objects>", tokenizer);
    let predicted = ids[targets.len() + 1..].iter().chain(&end);
    targets.extend(predicted.copied().map(Some));
    AuxTarget { ids, targets }
}

/// One sequence of all `pairs`: the last token of each key predicts its value.
pub(super) fn lookup_target(pairs: impl Iterator<Item = (Vec<u32>, u32)>) -> AuxTarget {
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    for (key, value) in pairs {
        ids.extend(key);
        targets.resize(ids.len() - 1, None);
        targets.push(Some(value));
    }
    AuxTarget { ids, targets }
}

pub(super) fn tokens(text: &str, tokenizer: &Tokenizer) -> Vec<u32> {
    let ids = tokenizer.encode_continuation(text).into_iter();
    ids.map(|id| u32::try_from(id).expect("the text has no slots"))
        .collect()
}

pub(super) fn first_token(text: &str, tokenizer: &Tokenizer) -> u32 {
    tokens(text, tokenizer)[0]
}

/// The prompt up to the last slot of `boxes` boxes.
fn prefix(boxes: usize, tokenizer: &Tokenizer) -> Vec<i64> {
    let mut ids = prompt(boxes, "x", tokenizer);
    ids.truncate(end_of_slots(&ids));
    ids
}

/// Index after the last slot.
fn end_of_slots(ids: &[i64]) -> usize {
    let last = ids.iter().rposition(|&id| id < 0);
    last.expect("every prompt has an image slot") + 1
}

fn prompt(boxes: usize, question: &str, tokenizer: &Tokenizer) -> Vec<i64> {
    let user = user_turn(boxes, question).expect("generated questions are valid");
    tokenizer.encode(&ChatTemplate::qwen().first(&user))
}

/// A dialogue as tokens after the prefix of `boxes` boxes; `None` if it cannot be rendered with
/// `box_of`.
pub fn tokenize(
    dialogue: &Dialogue,
    box_of: &[Option<usize>],
    boxes: usize,
    tokenizer: &Tokenizer,
) -> Option<TokenizedDialogue> {
    let (question, answer) = dialogue.render(box_of)?;
    let prompt = prompt(boxes, &question, tokenizer);
    let mut ids = prompt[end_of_slots(&prompt)..]
        .iter()
        .map(|&id| u32::try_from(id).expect("no slots after the boxes"))
        .collect::<Vec<_>>();
    let answer_start = ids.len();
    ids.extend(tokens(&format!("{answer}<|im_end|>"), tokenizer));
    Some(TokenizedDialogue {
        task: dialogue.task,
        ids,
        answer_start,
    })
}

/// A position with a target token.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Row, counted over all sequences, that predicts the token.
    pub row: usize,
    /// The token.
    pub id: u32,
    /// Index of the dialogue in the batch; `None` for boxes and auxiliary sequences.
    pub dialogue: Option<usize>,
}

/// A batch of packed sequences.
#[derive(Clone, Debug)]
pub struct PackedBatch<T = DialogueTask> {
    /// Number of sequences.
    pub batch: usize,
    /// Length of every sequence, padding included.
    pub length: usize,
    /// Number of tokens of the vocabulary.
    vocab: usize,
    /// Per position: a token, or the row of a slot or of padding as [`TableSizes`] numbers them.
    rows: Vec<i32>,
    positions: Vec<Vec<u32>>,
    spans: Vec<Vec<AttentionSpan>>,
    /// The targets.
    pub targets: Vec<Target>,
    /// Task and number of boxes of each dialogue.
    pub dialogues: Vec<(T, usize)>,
}

/// Sizes that number the rows of embeddings: the vocabulary, then `visual` rows per image, then `boxes`
/// rows per image, then one row of zeros for padding.
#[derive(Clone, Copy)]
struct TableSizes {
    vocab: usize,
    visual: usize,
    boxes: usize,
    batch: usize,
}

impl TableSizes {
    fn visual_row(self, example: usize) -> usize {
        self.vocab + example * self.visual
    }

    fn box_row(self, example: usize, index: usize) -> usize {
        self.vocab + self.batch * self.visual + example * self.boxes + index
    }

    fn padding_row(self) -> usize {
        self.vocab + self.batch * (self.visual + self.boxes)
    }
}

impl<T: Copy> PackedBatch<T> {
    /// Packs `examples` for a vocabulary of `vocab` tokens, `visual` tokens per image and `boxes` box
    /// embeddings per image.
    pub fn new(examples: &[PackedExample<T>], vocab: usize, visual: usize, boxes: usize) -> Self {
        let length = examples.iter().map(|e| e.len(visual)).max().unwrap_or(0);
        let batch = examples.len();
        let sizes = TableSizes {
            vocab,
            visual,
            boxes,
            batch,
        };
        let mut packed = Self {
            batch,
            length,
            vocab,
            rows: Vec::with_capacity(batch * length),
            positions: Vec::new(),
            spans: Vec::new(),
            targets: Vec::new(),
            dialogues: Vec::new(),
        };
        for (index, example) in examples.iter().enumerate() {
            packed.push(index, example, sizes);
        }
        packed
    }

    fn push(&mut self, index: usize, example: &PackedExample<T>, sizes: TableSizes) {
        let first = self.rows.len();
        let boxes = self.push_prefix(index, &example.prefix, sizes);
        let shared = example.prefix_len(sizes.visual);
        let mut positions = (0..shared as u32).collect::<Vec<_>>();
        let mut spans = vec![AttentionSpan::CAUSAL; shared];
        let mut push_sequence = |ids: &[u32], rows: &mut Vec<i32>| {
            let own = positions.len();
            rows.extend(ids.iter().map(|&id| id as i32));
            positions.extend((shared as u32..).take(ids.len()));
            spans.extend(std::iter::repeat_n(
                AttentionSpan {
                    prefix_len: shared,
                    start: own,
                },
                ids.len(),
            ));
            first + own
        };
        for dialogue in &example.dialogues {
            let start = push_sequence(&dialogue.ids, &mut self.rows);
            let number = self.dialogues.len();
            self.dialogues.push((dialogue.task, boxes));
            for at in dialogue.answer_start..dialogue.ids.len() {
                self.targets.push(Target {
                    row: start + at - 1,
                    id: dialogue.ids[at],
                    dialogue: Some(number),
                });
            }
        }
        for aux in &example.aux_targets {
            let start = push_sequence(&aux.ids, &mut self.rows);
            for (at, id) in aux.targets.iter().enumerate() {
                self.targets.extend(id.map(|id| Target {
                    row: start + at,
                    id,
                    dialogue: None,
                }));
            }
        }
        for own in positions.len()..self.length {
            self.rows.push(sizes.padding_row() as i32);
            positions.push(0);
            spans.push(AttentionSpan {
                prefix_len: 0,
                start: own,
            });
        }
        self.positions.push(positions);
        self.spans.push(spans);
    }

    /// Appends the rows of a prefix, with the preceding index token as the target of each box. Returns
    /// the number of boxes.
    fn push_prefix(&mut self, index: usize, prefix: &[i64], sizes: TableSizes) -> usize {
        let (mut boxes, mut last_token) = (0, 0);
        for &id in prefix {
            match id {
                IMAGE_SLOT => {
                    let first = sizes.visual_row(index);
                    let rows = first..first + sizes.visual;
                    self.rows.extend(rows.map(|row| row as i32));
                }
                OBJECT_SLOT => {
                    self.targets.push(Target {
                        row: self.rows.len(),
                        id: last_token,
                        dialogue: None,
                    });
                    self.rows.push(sizes.box_row(index, boxes) as i32);
                    boxes += 1;
                }
                token => {
                    last_token = token as u32;
                    self.rows.push(token as i32);
                }
            }
        }
        boxes
    }

    /// Logits of the targets, `[targets, V]`, from projected visual tokens `[B, P, D]`, if the model
    /// has any, and box embeddings `[B, N, D]`, if there are boxes.
    pub fn logits(
        &self,
        llm: &Decoder,
        visual: Option<Tensor<3>>,
        boxes: Option<Tensor<3>>,
        device: &Device,
    ) -> Tensor<2> {
        let config = llm.config();
        let width = config.hidden_size;
        let words = self.rows.iter().map(|&row| row as usize);
        let words: BTreeSet<usize> = words.filter(|&row| row < self.vocab).collect();
        let ids: Vec<u32> = words.iter().map(|&id| id as u32).collect();
        let mut parts = vec![llm.embed(&ids)];
        parts.extend(
            [visual, boxes]
                .into_iter()
                .flatten()
                .map(|part| part.flatten(0, 1)),
        );
        parts.push(Tensor::zeros([1, width], device));
        let table = Tensor::cat(parts, 0);
        let place: HashMap<usize, i32> = words.into_iter().zip(0..).collect();
        let after_words = place.len() as i32 - self.vocab as i32;
        let rows = self.rows.iter();
        let rows = rows.map(|&row| match place.get(&(row as usize)) {
            Some(&place) => place,
            None => row + after_words,
        });
        let embeddings = table.select(0, indices(rows.collect(), device)).reshape([
            self.batch,
            self.length,
            width,
        ]);
        let layout = Layout::packed(&self.positions, &self.spans, config, device);
        let hidden = llm.forward(embeddings, &layout);
        let rows = self.targets.iter().map(|target| target.row as i32);
        let hidden = hidden
            .reshape([self.batch * self.length, width])
            .select(0, indices(rows.collect(), device));
        llm.logits(hidden)
    }

    /// The target tokens as labels.
    pub fn labels(&self) -> Vec<i32> {
        self.targets.iter().map(|target| target.id as i32).collect()
    }
}

fn indices(rows: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::regions::{ProposalNoise, sample_boxes};

    fn example(seed: u64) -> (PackedExample, Scene, Vec<LabeledBox>, Tokenizer) {
        let tokenizer = crate::train::nano_tokenizer().unwrap();
        let scene = Scene::draw(seed);
        let mut rng = Rng::new(seed, 0);
        let boxes = sample_boxes(&scene, ProposalNoise::PROPOSALS, 24, &mut rng);
        let task_mix = TaskMix {
            tasks: vec![(DialogueTask::Name, 1), (DialogueTask::DetectOne, 1)],
            tokens: 120,
            shortest_of: 1,
        };
        let example = PackedExample::new(&scene, &boxes, &task_mix, &tokenizer, &mut rng);
        (example, scene, boxes, tokenizer)
    }

    #[test]
    fn auxiliary_targets_match_the_scene() {
        for seed in 0..20 {
            let (example, scene, boxes, tokenizer) = example(seed);
            let [groups @ .., index_to_category, phrase_to_index] = &example.aux_targets[..] else {
                panic!("every example has both look-ups");
            };
            let mut phrase = Vec::new();
            for (&id, target) in phrase_to_index.ids.iter().zip(&phrase_to_index.targets) {
                phrase.push(id);
                let Some(target) = target else { continue };
                let phrase = tokenizer.decode(&std::mem::take(&mut phrase));
                let group = groups.iter().find(|group| {
                    let answer = tokenizer.decode(&group.ids);
                    answer.starts_with(&format!("<ground>{phrase}</ground>"))
                });
                let first = group.and_then(|group| group.targets.iter().flatten().next());
                assert_eq!(first, Some(target), "{phrase}");
            }
            for (id, target) in index_to_category.ids.iter().zip(&index_to_category.targets) {
                let index = tokenizer.decode(&[*id]);
                let index = index[4..index.len() - 1].parse::<usize>().unwrap();
                let object = boxes[index].object.expect("only labeled boxes occur");
                let word = scene.objects[object].category.word();
                let predicted = tokenizer.decode(&[target.unwrap()]);
                assert!(
                    word.starts_with(&predicted),
                    "{word} begins with {predicted}"
                );
            }
            for group in groups {
                let answer = tokenizer.decode(&group.ids);
                let (phrase, listed) = answer
                    .strip_prefix("<ground>")
                    .and_then(|rest| rest.split_once("</ground><objects>"))
                    .expect("a group");
                let matches = |b: &LabeledBox| {
                    let object = b.object.map(|o| &scene.objects[o]);
                    object.is_some_and(|o| o.name() == phrase || o.category.word() == phrase)
                };
                let expected = (0..boxes.len())
                    .filter(|&i| matches(&boxes[i]))
                    .map(|i| format!("<obj{i}>"))
                    .collect::<String>();
                assert_eq!(listed, expected, "seed {seed}: {phrase}");
                let targets = group.targets.iter().flatten().copied().collect::<Vec<_>>();
                assert_eq!(tokenizer.decode(&targets), format!("{expected}</objects>"));
                let start = group.ids.len() + 1 - targets.len();
                assert_eq!(group.ids[start..], targets[..targets.len() - 1]);
            }
        }
    }

    #[test]
    fn every_sequence_follows_the_prefix_and_attends_to_itself() {
        let (example, _, boxes, tokenizer) = example(4);
        let visual = 36;
        let vocab = tokenizer.vocab_size();
        let packed = PackedBatch::new(std::slice::from_ref(&example), vocab, visual, boxes.len());
        let shared = example.prefix_len(visual);
        assert_eq!(packed.length, example.len(visual));
        let mut own = shared;
        let dialogues = example.dialogues.iter().map(|dialogue| &dialogue.ids);
        for ids in dialogues.chain(example.aux_targets.iter().map(|aux| &aux.ids)) {
            for (offset, &id) in ids.iter().enumerate() {
                let row = own + offset;
                assert_eq!(packed.rows[row], id as i32);
                assert_eq!(packed.positions[0][row] as usize, shared + offset);
                assert_eq!(
                    packed.spans[0][row],
                    AttentionSpan {
                        prefix_len: shared,
                        start: own
                    }
                );
            }
            own += ids.len();
        }
        assert_eq!(own, packed.length);
        let aux = example.aux_targets.iter();
        let aux = aux.flat_map(|aux| aux.targets.iter().flatten());
        let answers = example.dialogues.iter();
        let answers = answers.map(|dialogue| dialogue.ids.len() - dialogue.answer_start);
        let expected = boxes.len() + aux.count() + answers.sum::<usize>();
        assert_eq!(packed.targets.len(), expected);
    }
}
