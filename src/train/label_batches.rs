//! Batches of label scenes for the decoders of mini and small: class scores and positions of boxes, and
//! questions with answers behind them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::class_projector::{ClassProjectorConfig, ScoredBoxes};
use crate::scenes::Rng;
use crate::scenes::labels::{KINDS, LabelScene, LabelTask, label_dialogue, superlative};
use crate::text::prompt::{ChatTemplate, OBJECT_SLOT, box_turn, index_tag};
use crate::text::tokenizer::Tokenizer;
use crate::train::chats::Chat;
use crate::train::data::{DataDialogue, DataSet};
use crate::train::packing::{
    AuxTarget, PackedBatch, PackedExample, TokenizedDialogue, first_token, group_target,
    lookup_target, tokens,
};

/// Groups of an answer among the auxiliary targets of a scene, at most.
const AUX_GROUPS: usize = 4;
/// Boxes among the auxiliary targets of a scene, at most.
const AUX_BOXES: usize = 12;
/// Superlatives among the auxiliary targets of a scene, at most.
const AUX_SUPERLATIVES: usize = 6;
/// [`Rng`] stream of training scenes.
pub(super) const TRAINING_STREAM: u64 = 201;
/// [`Rng`] stream of validation scenes.
pub(super) const VALIDATION_STREAM: u64 = 202;

/// Class scores, positions and packed sequences of some scenes.
pub(super) struct LabelBatch {
    /// Number of scenes.
    pub scenes: usize,
    /// `[scenes, max_boxes, K]`.
    pub scores: Vec<f32>,
    /// `[scenes, max_boxes, F]`.
    pub positions: Vec<f32>,
    /// Boxes of the scene with most boxes.
    pub max_boxes: usize,
    /// Boxes and dialogues.
    pub packed: PackedBatch<LabelTask>,
}

/// Builds batches.
pub(super) struct BatchBuilder {
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
    pub seed: u64,
    /// Scenes of a batch.
    pub scenes: usize,
    /// Tokens of the dialogues of a scene, at most.
    pub dialogue_tokens: usize,
    /// Boxes of a validation scene, at most.
    pub validation_boxes: usize,
    /// Sampling weights of the tasks.
    pub tasks: &'static [(LabelTask, usize)],
    /// The dialogues of [`LabelTask::Chat`].
    pub chats: Vec<Chat>,
    /// The user's data, in place of drawn scenes.
    pub data: Option<Arc<DataSet>>,
}

/// Share of the recorded answers among the dialogues of the user's data, in percent.
const CHAT_SHARE: usize = 8;

/// A scene, the questions about it if they are given, and what remains is drawn from.
type Drawn<'a> = (LabelScene, Option<&'a [DataDialogue]>, Rng);

impl BatchBuilder {
    pub fn training(&self, step: u64, boxes: usize) -> LabelBatch {
        let scenes = (0..self.scenes as u64).map(|i| {
            let number = step * self.scenes as u64 + i;
            let mut rng = Rng::new(self.seed ^ number.rotate_left(32), TRAINING_STREAM);
            let Some(data) = &self.data else {
                return (LabelScene::draw(boxes, &mut rng), None, rng);
            };
            let drawn = data.draw(boxes, &mut rng);
            (drawn.scene.clone(), Some(&drawn.dialogues[..]), rng)
        });
        self.batch(scenes.collect())
    }

    pub fn validation(&self, first: u64) -> LabelBatch {
        let scenes = (first..first + self.scenes as u64).map(|number| {
            let mut rng = Rng::new(number, VALIDATION_STREAM);
            let data = self.data.as_ref();
            match data.and_then(|data| data.validation(number as usize)) {
                Some(held) => (held.scene.clone(), Some(&held.dialogues[..]), rng),
                None => (LabelScene::draw(self.validation_boxes, &mut rng), None, rng),
            }
        });
        self.batch(scenes.collect())
    }

    fn batch(&self, scenes: Vec<Drawn>) -> LabelBatch {
        let counts = scenes.iter().map(|(scene, ..)| scene.objects.len());
        let max_boxes = counts.max().unwrap_or(0);
        let (mut scores, mut positions, mut examples) = (Vec::new(), Vec::new(), Vec::new());
        for (scene, given, mut rng) in scenes {
            let padding = max_boxes - scene.objects.len();
            let mut boxes: Vec<[f32; 4]> = scene.objects.iter().map(|o| o.bbox).collect();
            boxes.resize(max_boxes, [0.0; 4]);
            let first = scores.len();
            for object in &scene.objects {
                scores.extend(&object.scores);
            }
            scores.resize(scores.len() + padding * KINDS.len(), 0.0);
            let boxes = ScoredBoxes {
                boxes: &boxes,
                scores: &scores[first..],
            };
            positions.extend(boxes.position_features(&ClassProjectorConfig::MINI));
            examples.push(self.example(&scene, given, &mut rng));
        }
        LabelBatch {
            scenes: examples.len(),
            scores,
            positions,
            max_boxes,
            packed: PackedBatch::new(&examples, self.tokenizer.vocab_size(), 0, max_boxes),
        }
    }

    /// The sequence of a scene, with the questions that are `given` about it or drawn ones.
    pub fn example(
        &self,
        scene: &LabelScene,
        given: Option<&[DataDialogue]>,
        rng: &mut Rng,
    ) -> PackedExample<LabelTask> {
        let prompt = |question: &str| self.prompt(scene.objects.len(), question);
        let mut prefix = prompt("?");
        let shared = self.prefix_len(&prefix);
        prefix.truncate(shared);
        let mut example = PackedExample {
            prefix,
            dialogues: Vec::new(),
            aux_targets: self.aux_targets(scene, rng),
        };
        let (mut tokens_left, mut seen) = (self.dialogue_tokens, HashSet::new());
        for _ in 0..self.dialogue_tokens / 8 {
            let drawn = match given {
                Some(given) => self.given_dialogue(given, rng),
                None => {
                    let task = rng.pick_weighted(self.tasks);
                    let drawn = self.dialogue(scene, task, rng);
                    drawn.map(|(question, answer)| (task, question, answer))
                }
            };
            let Some((task, question, answer)) = drawn else {
                continue;
            };
            let prompt = prompt(&question);
            let ids = prompt[shared..].iter();
            let mut ids: Vec<u32> = ids
                .map(|&id| u32::try_from(id).expect("no slots after the boxes"))
                .collect();
            let answer_start = ids.len();
            ids.extend(tokens(
                &format!("{answer}{}", self.template.stop[0]),
                &self.tokenizer,
            ));
            let fits = ids.len() <= tokens_left || example.dialogues.is_empty();
            if fits && seen.insert(ids.clone()) {
                tokens_left = tokens_left.saturating_sub(ids.len());
                example.dialogues.push(TokenizedDialogue {
                    task,
                    ids,
                    answer_start,
                });
            }
        }
        example
    }

    /// One of the `given` questions, or a recorded answer.
    fn given_dialogue(
        &self,
        given: &[DataDialogue],
        rng: &mut Rng,
    ) -> Option<(LabelTask, String, String)> {
        if !self.chats.is_empty() && rng.chance(CHAT_SHARE) {
            let chat = rng.pick(&self.chats);
            return Some((LabelTask::Chat, chat.question.clone(), chat.answer.clone()));
        }
        let given = (!given.is_empty()).then(|| rng.pick(given))?;
        Some((given.task, given.question.clone(), given.answer.clone()))
    }

    /// A question of `task` and its answer.
    fn dialogue(
        &self,
        scene: &LabelScene,
        task: LabelTask,
        rng: &mut Rng,
    ) -> Option<(String, String)> {
        if task == LabelTask::Chat {
            let chat = (!self.chats.is_empty()).then(|| rng.pick(&self.chats))?;
            return Some((chat.question.clone(), chat.answer.clone()));
        }
        let dialogue = label_dialogue(scene, task, rng)?;
        Some((dialogue.question, dialogue.answer))
    }

    /// The prompt of a question about `boxes` boxes, with slots.
    pub fn prompt(&self, boxes: usize, question: &str) -> Vec<i64> {
        let user = box_turn(boxes, question).expect("generated questions are valid");
        self.tokenizer.encode(&self.template.first(&user))
    }

    /// Length of the part of a prompt that all questions about the boxes share: up to the last slot, or
    /// up to the question.
    fn prefix_len(&self, prompt: &[i64]) -> usize {
        if let Some(slot) = prompt.iter().rposition(|&id| id == OBJECT_SLOT) {
            return slot + 1;
        }
        let (before, _) = self.template.turn.split_once("{user}").unwrap_or_default();
        let head = format!("{}{before}", self.template.system);
        self.tokenizer.encode(&head).len()
    }

    /// Up to [`AUX_GROUPS`] groups, each of which predicts its indices; up to [`AUX_BOXES`] index tokens,
    /// each of which predicts the first token of its kind; and up to [`AUX_SUPERLATIVES`] superlatives,
    /// each of which predicts its index.
    fn aux_targets(&self, scene: &LabelScene, rng: &mut Rng) -> Vec<AuxTarget> {
        let tokenizer = &self.tokenizer;
        let mut kinds = scene.kinds();
        rng.shuffle(&mut kinds);
        let mut targets: Vec<AuxTarget> = kinds
            .iter()
            .take(AUX_GROUPS)
            .map(|&kind| {
                let indices = scene.indices(|k| k == kind);
                group_target(KINDS[kind].name, &indices, tokenizer)
            })
            .collect();
        let mut named = scene.indices(|_| true);
        rng.shuffle(&mut named);
        named.truncate(AUX_BOXES);
        if !named.is_empty() {
            targets.push(lookup_target(named.into_iter().map(|index| {
                let kind = scene.objects[index].kind.expect("named boxes have kinds");
                let tag = tokens(&index_tag(index as u32), tokenizer);
                (tag, first_token(KINDS[kind].name, tokenizer))
            })));
        }
        let mut superlatives: Vec<_> = (0..AUX_SUPERLATIVES)
            .filter_map(|_| superlative(scene, rng))
            .collect();
        superlatives.sort();
        superlatives.dedup();
        rng.shuffle(&mut superlatives);
        if !superlatives.is_empty() {
            targets.push(lookup_target(superlatives.into_iter().map(
                |(phrase, index)| {
                    let tag = first_token(&index_tag(index as u32), tokenizer);
                    (tokens(&format!(" {phrase}"), tokenizer), tag)
                },
            )));
        }
        targets
    }
}
