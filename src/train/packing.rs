//! Scenes, boxes and dialogues as token sequences: the picture and its boxes once, then several
//! dialogues behind them, each seeing the picture, the boxes and itself (positions restart after
//! the boxes, so each dialogue reads as if it stood alone).
//!
//! Beside the answers every box has a target of its own: its index, the token before it. Pointing
//! needs that link at every box, and no answer teaches it as directly. Nothing reads these rows'
//! outputs later.

use std::collections::HashSet;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::model::chatrex::ChatRex;
use crate::model::decoder::{Layout, Sight};
use crate::scenes::{Dialogue, Dice, Scene, Task, dialogue};
use crate::text::prompt::{ChatTemplate, IMAGE_SLOT, OBJECT_SLOT, user_turn};
use crate::text::tokenizer::Tokenizer;
use crate::train::regions::Candidate;

/// How dialogues are chosen.
#[derive(Clone, Debug)]
pub struct Menu {
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

/// A scene's sequence: what all dialogues share, and the dialogues.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Up to the last box, with slots.
    pub prefix: Vec<i64>,
    /// The dialogues.
    pub turns: Vec<Turn>,
}

impl Sheet {
    /// Dialogues about `scene` over the boxes `candidates`, as `menu` says.
    pub fn new(
        scene: &Scene,
        candidates: &[Candidate],
        menu: &Menu,
        tokenizer: &Tokenizer,
        dice: &mut Dice,
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
        };
        let total = menu.tasks.iter().map(|(_, weight)| weight).sum::<usize>();
        let mut left = menu.tokens;
        let mut said = HashSet::new();
        for _ in 0..menu.tokens / 8 {
            let mut ball = dice.below(total);
            let task = menu
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
            let turn = (0..menu.shortest_of.max(1))
                .filter_map(|_| dialogue(scene, task, dice))
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
        self.prefix_len(visual) + self.turns.iter().map(|turn| turn.ids.len()).sum::<usize>()
    }

    fn prefix_len(&self, visual: usize) -> usize {
        self.prefix.len() - 1 + visual
    }
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
    let word = |id: i64| u32::try_from(id).expect("no slots behind the boxes");
    let mut ids = prompt[end + 1..]
        .iter()
        .map(|&id| word(id))
        .collect::<Vec<_>>();
    let begin = ids.len();
    let answer = tokenizer.encode_more(&format!("{answer}<|im_end|>"));
    ids.extend(answer.into_iter().map(word));
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
    /// Number of the dialogue within the batch; none for a box that should say its own index.
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
    sights: Vec<Vec<Sight>>,
    /// What should be said.
    pub targets: Vec<Target>,
    /// Task and number of boxes of each dialogue.
    pub turns: Vec<(Task, usize)>,
}

impl Packed {
    /// Lays out `sheets` for a vocabulary of `words` tokens, `visual` tokens per picture and
    /// `objects` rows of box vectors per picture.
    pub fn new(sheets: &[Sheet], words: usize, visual: usize, objects: usize) -> Self {
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
            let mut sights = vec![Sight::CAUSAL; shared];
            for turn in &sheet.turns {
                let own = positions.len();
                packed.rows.extend(turn.ids.iter().map(|&id| id as i32));
                positions.extend((shared as u32..).take(turn.ids.len()));
                sights.extend(std::iter::repeat_n(Sight { shared, own }, turn.ids.len()));
                let number = packed.turns.len();
                packed.turns.push((turn.task, boxes));
                for at in turn.answer..turn.ids.len() {
                    packed.targets.push(Target {
                        row: first + own + at - 1,
                        id: turn.ids[at],
                        turn: Some(number),
                    });
                }
            }
            for own in positions.len()..length {
                packed.rows.push(padding);
                positions.push(0);
                sights.push(Sight { shared: 0, own });
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
                model.llm.embed_tokens.val(),
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
