//! Scenes, boxes and dialogues as token sequences: the picture and its boxes once, then several
//! dialogues behind them, each seeing the picture, the boxes and itself (positions restart after
//! the boxes, so each dialogue reads as if it stood alone).
//!
//! Beside the answers every box has a target of its own: its index, the token before it. Pointing
//! needs that link at every box, and no answer teaches it as directly. [`AuxTarget`]s practise the two
//! look-ups that all answers are made of, from an index to the kind and from a kind to its indices,
//! at a few tokens each. Nothing reads these rows' outputs later.

use std::collections::{BTreeMap, HashSet};

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::model::chatrex::ChatRex;
use crate::model::decoder::{AttentionSpan, Layout};
use crate::scenes::{Dialogue, Rng, Scene, Task, dialogue};
use crate::text::prompt::{ChatTemplate, IMAGE_SLOT, OBJECT_SLOT, user_turn};
use crate::text::tokenizer::Tokenizer;
use crate::train::regions::Candidate;

/// How dialogues are chosen.
#[derive(Clone, Debug)]
pub struct TaskMix {
    /// Tasks and how often each is tried.
    pub tasks: Vec<(Task, usize)>,
    /// Most tokens of all dialogues of a scene together.
    pub tokens: usize,
    /// Every question is the shortest of this many.
    pub shortest_of: usize,
}

/// A dialogue as tokens.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What is asked.
    pub task: Task,
    /// Question and answer, after the boxes.
    pub ids: Vec<u32>,
    /// Where the answer begins in `ids`.
    pub answer: usize,
}

/// Tokens without a question, and what some of them should say.
#[derive(Clone, Debug, PartialEq)]
pub struct AuxTarget {
    /// What is read, after the boxes.
    pub ids: Vec<u32>,
    /// What each of `ids` should say, where it should say something.
    pub says: Vec<Option<u32>>,
}

/// A scene's sequence: what all dialogues share, the dialogues and the drills.
#[derive(Clone, Debug)]
pub struct PackedExample {
    /// Up to the last box, with slots.
    pub prefix: Vec<i64>,
    /// The dialogues.
    pub turns: Vec<Turn>,
    /// The drills.
    pub aux_targets: Vec<AuxTarget>,
}

impl PackedExample {
    /// Dialogues about `scene` over the boxes `candidates`, as `task_mix` says.
    pub fn new(
        scene: &Scene,
        candidates: &[Candidate],
        task_mix: &TaskMix,
        tokenizer: &Tokenizer,
        rng: &mut Rng,
    ) -> Self {
        let mut box_of = vec![None; scene.objects.len()];
        for (index, candidate) in candidates.iter().enumerate() {
            if let Some(object) = candidate.object {
                box_of[object] = Some(index);
            }
        }
        let mut sheet = Self {
            prefix: prefix_of(candidates.len(), tokenizer),
            turns: Vec::new(),
            aux_targets: aux_targets(scene, candidates, tokenizer, rng),
        };
        let total = task_mix
            .tasks
            .iter()
            .map(|(_, weight)| weight)
            .sum::<usize>();
        let mut left = task_mix.tokens;
        let mut said = HashSet::new();
        for _ in 0..task_mix.tokens / 8 {
            let mut ball = rng.below(total);
            let task = task_mix
                .tasks
                .iter()
                .find_map(|&(task, weight)| {
                    if ball < weight {
                        return Some(task);
                    }
                    ball -= weight;
                    None
                })
                .expect("the ball is below the sum of weights");
            let turn = (0..task_mix.shortest_of.max(1))
                .filter_map(|_| dialogue(scene, task, rng))
                .filter_map(|d| turn_of(&d, &box_of, candidates.len(), tokenizer))
                .min_by_key(|turn| turn.ids.len());
            let Some(turn) = turn else { continue };
            if turn.ids.len() > left {
                break;
            }
            if said.insert(turn.ids.clone()) {
                left -= turn.ids.len();
                sheet.turns.push(turn);
            }
        }
        sheet
    }

    /// Tokens in all, for a picture of `visual` tokens.
    fn len(&self, visual: usize) -> usize {
        let turns = self.turns.iter().map(|turn| turn.ids.len());
        let aux_targets = self
            .aux_targets
            .iter()
            .map(|aux_target| aux_target.ids.len());
        self.prefix_len(visual) + turns.chain(aux_targets).sum::<usize>()
    }

    fn prefix_len(&self, visual: usize) -> usize {
        self.prefix.len() - 1 + visual
    }
}

/// The indices of all boxes on objects, each to say the first token of its kind; the kinds of the
/// scene, each to say its first index; and each kind as it stands in an answer, to say all its
/// indices. Two boxes in three are named by their kind alone, the others by their colour too.
fn aux_targets(
    scene: &Scene,
    candidates: &[Candidate],
    tokenizer: &Tokenizer,
    rng: &mut Rng,
) -> Vec<AuxTarget> {
    let standing = candidates.iter().enumerate();
    let mut standing = standing
        .filter_map(|(index, c)| Some((index, &scene.objects[c.object?])))
        .collect::<Vec<_>>();
    let mut groups = BTreeMap::<String, Vec<usize>>::new();
    for (_, object) in &standing {
        let phrase = match rng.chance(67) {
            true => object.kind.word().to_owned(),
            false => object.name(),
        };
        let alike = standing
            .iter()
            .filter(|(_, o)| phrase == o.kind.word() || phrase == o.name())
            .map(|(index, _)| *index);
        groups.insert(phrase.clone(), alike.collect());
    }
    let mut aux_targets = Vec::new();
    for (phrase, indices) in &groups {
        let mut ids = tokens(&format!("<ground>{phrase}</ground><objects>"), tokenizer);
        let mut says = vec![None; ids.len() - 1];
        for index in indices {
            ids.extend(tokens(&format!("<obj{index}>"), tokenizer));
        }
        let end = tokens("</objects>", tokenizer);
        says.extend(ids[says.len() + 1..].iter().chain(&end).copied().map(Some));
        aux_targets.push(AuxTarget { ids, says });
    }
    rng.shuffle(&mut standing);
    let mut groups = groups.into_iter().collect::<Vec<_>>();
    rng.shuffle(&mut groups);
    let roll = standing.iter().map(|(index, object)| {
        let index = tokens(&format!("<obj{index}>"), tokenizer);
        (index, first_token(object.kind.word(), tokenizer))
    });
    let calls = groups.iter().map(|(phrase, indices)| {
        let index = first_token(&format!("<obj{}>", indices[0]), tokenizer);
        (tokens(phrase, tokenizer), index)
    });
    for pairs in [roll.collect::<Vec<_>>(), calls.collect()] {
        let mut aux_target = AuxTarget {
            ids: Vec::new(),
            says: Vec::new(),
        };
        for (ids, says) in pairs {
            aux_target.ids.extend(ids);
            aux_target.says.resize(aux_target.ids.len() - 1, None);
            aux_target.says.push(Some(says));
        }
        aux_targets.push(aux_target);
    }
    aux_targets
}

fn tokens(text: &str, tokenizer: &Tokenizer) -> Vec<u32> {
    let ids = tokenizer.encode_continuation(text).into_iter();
    ids.map(|id| u32::try_from(id).expect("no slots in words"))
        .collect()
}

fn first_token(text: &str, tokenizer: &Tokenizer) -> u32 {
    tokens(text, tokenizer)[0]
}

fn prefix_of(boxes: usize, tokenizer: &Tokenizer) -> Vec<i64> {
    let mut ids = prompt_of(boxes, "x", tokenizer);
    let end = ids
        .iter()
        .rposition(|&id| id < 0)
        .expect("every prompt has a picture");
    ids.truncate(end + 1);
    ids
}

fn prompt_of(boxes: usize, question: &str, tokenizer: &Tokenizer) -> Vec<i64> {
    let user = user_turn(boxes, question).expect("drawn questions can be asked");
    tokenizer.encode(&ChatTemplate::qwen().first(&user))
}

/// The part of a dialogue behind the boxes; nothing where the boxes do not allow it.
pub fn turn_of(
    dialogue: &Dialogue,
    box_of: &[Option<usize>],
    boxes: usize,
    tokenizer: &Tokenizer,
) -> Option<Turn> {
    let (question, answer) = dialogue.render(box_of)?;
    let prompt = prompt_of(boxes, &question, tokenizer);
    let end = prompt
        .iter()
        .rposition(|&id| id < 0)
        .expect("every prompt has a picture");
    let mut ids = prompt[end + 1..]
        .iter()
        .map(|&id| u32::try_from(id).expect("no slots behind the boxes"))
        .collect::<Vec<_>>();
    let begin = ids.len();
    ids.extend(tokens(&format!("{answer}<|im_end|>"), tokenizer));
    Some(Turn {
        task: dialogue.task,
        ids,
        answer: begin,
    })
}

/// A token that the model should say.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Row (over all sequences) whose output should say it.
    pub row: usize,
    /// The token.
    pub id: u32,
    /// Number of the dialogue within the batch; none for a box and for a drill.
    pub turn: Option<usize>,
}

/// A batch of sheets.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Sequences.
    pub batch: usize,
    /// Length of every sequence, padding included.
    pub length: usize,
    rows: Vec<i32>,
    positions: Vec<Vec<u32>>,
    sights: Vec<Vec<AttentionSpan>>,
    /// What should be said.
    pub targets: Vec<Target>,
    /// Task and number of boxes of each dialogue.
    pub turns: Vec<(Task, usize)>,
}

impl Packed {
    /// Lays out `sheets` for a vocabulary of `words` tokens, `visual` tokens per picture and
    /// `objects` rows of box vectors per picture.
    pub fn new(sheets: &[PackedExample], words: usize, visual: usize, objects: usize) -> Self {
        let length = sheets.iter().map(|s| s.len(visual)).max().unwrap_or(0);
        let batch = sheets.len();
        let padding = (words + batch * (visual + objects)) as i32;
        let mut packed = Self {
            batch,
            length,
            rows: Vec::with_capacity(batch * length),
            positions: Vec::new(),
            sights: Vec::new(),
            targets: Vec::new(),
            turns: Vec::new(),
        };
        for (b, sheet) in sheets.iter().enumerate() {
            let first = packed.rows.len();
            let mut boxes = 0;
            let mut last_word = 0;
            for &id in &sheet.prefix {
                match id {
                    IMAGE_SLOT => {
                        let at = words + b * visual;
                        packed.rows.extend((at..at + visual).map(|row| row as i32));
                    }
                    OBJECT_SLOT => {
                        let at = words + batch * visual + b * objects + boxes;
                        packed.targets.push(Target {
                            row: packed.rows.len(),
                            id: last_word,
                            turn: None,
                        });
                        packed.rows.push(at as i32);
                        boxes += 1;
                    }
                    word => {
                        last_word = word as u32;
                        packed.rows.push(word as i32);
                    }
                }
            }
            let shared = sheet.prefix_len(visual);
            let mut positions = (0..shared as u32).collect::<Vec<_>>();
            let mut sights = vec![AttentionSpan::CAUSAL; shared];
            let mut stretch = |ids: &[u32]| {
                let own = positions.len();
                packed.rows.extend(ids.iter().map(|&id| id as i32));
                positions.extend((shared as u32..).take(ids.len()));
                sights.extend(std::iter::repeat_n(
                    AttentionSpan { shared, own },
                    ids.len(),
                ));
                first + own
            };
            for turn in &sheet.turns {
                let begin = stretch(&turn.ids);
                let number = packed.turns.len();
                packed.turns.push((turn.task, boxes));
                for at in turn.answer..turn.ids.len() {
                    packed.targets.push(Target {
                        row: begin + at - 1,
                        id: turn.ids[at],
                        turn: Some(number),
                    });
                }
            }
            for aux_target in &sheet.aux_targets {
                let begin = stretch(&aux_target.ids);
                for (at, id) in aux_target.says.iter().enumerate() {
                    packed.targets.extend(id.map(|id| Target {
                        row: begin + at,
                        id,
                        turn: None,
                    }));
                }
            }
            for own in positions.len()..length {
                packed.rows.push(padding);
                positions.push(0);
                sights.push(AttentionSpan { shared: 0, own });
            }
            packed.positions.push(positions);
            packed.sights.push(sights);
        }
        packed
    }

    /// Logits of the targets, `[targets, V]`, from projected visual tokens `[B, P, D]` and box
    /// vectors `[B, N, D]`.
    pub fn logits(
        &self,
        model: &ChatRex,
        visual: Tensor<3>,
        objects: Tensor<3>,
        device: &Device,
    ) -> Tensor<2> {
        let [_, _, width] = visual.dims();
        let table = Tensor::cat(
            vec![
                model.llm.embed_tokens.as_tensor(),
                visual.flatten(0, 1),
                objects.flatten(0, 1),
                Tensor::zeros([1, width], device),
            ],
            0,
        );
        let embeds = table
            .select(0, indices(self.rows.clone(), device))
            .reshape([self.batch, self.length, width]);
        let config = model.llm.config();
        let layout = Layout::packed(&self.positions, &self.sights, config, device);
        let hidden = model.llm.forward(embeds, &layout);
        let rows = self.targets.iter().map(|target| target.row as i32);
        let hidden = hidden
            .reshape([self.batch * self.length, width])
            .select(0, indices(rows.collect(), device));
        model.llm.logits(hidden)
    }

    /// The tokens that should be said, as labels.
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
    use crate::train::regions::{ProposalNoise, candidates};

    fn sheet(seed: u64) -> (PackedExample, Scene, Vec<Candidate>, Tokenizer) {
        let tokenizer = crate::train::nano_tokenizer().unwrap();
        let scene = Scene::draw(seed);
        let mut rng = Rng::new(seed, 0);
        let found = candidates(&scene, ProposalNoise::PROPOSALS, 24, &mut rng);
        let task_mix = TaskMix {
            tasks: vec![(Task::Name, 1), (Task::DetectOne, 1)],
            tokens: 120,
            shortest_of: 1,
        };
        let sheet = PackedExample::new(&scene, &found, &task_mix, &tokenizer, &mut rng);
        (sheet, scene, found, tokenizer)
    }

    #[test]
    fn drills_practise_what_is_true() {
        for seed in 0..20 {
            let (sheet, scene, found, tokenizer) = sheet(seed);
            let [finds @ .., roll, calls] = &sheet.aux_targets[..] else {
                panic!("every sheet has a roll and calls");
            };
            let mut phrase = Vec::new();
            for (&id, says) in calls.ids.iter().zip(&calls.says) {
                phrase.push(id);
                let Some(says) = says else { continue };
                let phrase = tokenizer.decode(&std::mem::take(&mut phrase));
                let find = finds.iter().find(|find| {
                    let answer = tokenizer.decode(&find.ids);
                    answer.starts_with(&format!("<ground>{phrase}</ground>"))
                });
                let first = find.and_then(|find| find.says.iter().flatten().next());
                assert_eq!(first, Some(says), "{phrase}");
            }
            for (id, says) in roll.ids.iter().zip(&roll.says) {
                let index = tokenizer.decode(&[*id]);
                let index = index[4..index.len() - 1].parse::<usize>().unwrap();
                let object = found[index].object.expect("only boxes on objects");
                let word = scene.objects[object].kind.word();
                let said = tokenizer.decode(&[says.unwrap()]);
                assert!(word.starts_with(&said), "{word} begins with {said}");
            }
            for find in finds {
                let answer = tokenizer.decode(&find.ids);
                let (phrase, listed) = answer
                    .strip_prefix("<ground>")
                    .and_then(|rest| rest.split_once("</ground><objects>"))
                    .expect("a group");
                let alike = |c: &Candidate| {
                    let object = c.object.map(|o| &scene.objects[o]);
                    object.is_some_and(|o| o.name() == phrase || o.kind.word() == phrase)
                };
                let expected = (0..found.len())
                    .filter(|&i| alike(&found[i]))
                    .map(|i| format!("<obj{i}>"))
                    .collect::<String>();
                assert_eq!(listed, expected, "seed {seed}: {phrase}");
                let said = find.says.iter().flatten().copied().collect::<Vec<_>>();
                assert_eq!(tokenizer.decode(&said), format!("{expected}</objects>"));
                let begin = find.ids.len() + 1 - said.len();
                assert_eq!(find.ids[begin..], said[..said.len() - 1]);
            }
        }
    }

    #[test]
    fn every_stretch_follows_the_boxes_and_sees_itself() {
        let (sheet, _, found, tokenizer) = sheet(4);
        let visual = 36;
        let words = tokenizer.vocab_size();
        let packed = Packed::new(std::slice::from_ref(&sheet), words, visual, found.len());
        let shared = sheet.prefix_len(visual);
        assert_eq!(packed.length, sheet.len(visual));
        let mut own = shared;
        let turns = sheet.turns.iter().map(|turn| &turn.ids);
        for ids in turns.chain(sheet.aux_targets.iter().map(|aux_target| &aux_target.ids)) {
            for (offset, &id) in ids.iter().enumerate() {
                let row = own + offset;
                assert_eq!(packed.rows[row], id as i32);
                assert_eq!(packed.positions[0][row] as usize, shared + offset);
                assert_eq!(packed.sights[0][row], AttentionSpan { shared, own });
            }
            own += ids.len();
        }
        assert_eq!(own, packed.length);
        let practised = sheet
            .aux_targets
            .iter()
            .flat_map(|d| d.says.iter().flatten());
        let answered = sheet.turns.iter().map(|t| t.ids.len() - t.answer);
        let expected = found.len() + practised.count() + answered.sum::<usize>();
        assert_eq!(packed.targets.len(), expected);
    }
}
