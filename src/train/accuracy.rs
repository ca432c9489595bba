//! What the decoder stages of nano and mini share: the accuracy of a batch, and the number of boxes that
//! the curriculum has reached.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::Fault;
use crate::text::tokenizer::Tokenizer;
use crate::train::packing::PackedBatch;

/// Accuracy of the argmax tokens of a batch, as `(correct, total)`.
pub struct Score<T> {
    /// Answers with all tokens correct, by task.
    pub exact: BTreeMap<T, (usize, usize)>,
    /// Index tokens of the dialogues that count for the curriculum.
    pub pointing: (usize, usize),
}

impl<T: Copy + Ord> Score<T> {
    /// Scores the argmax tokens. With teacher forcing, all tokens of an answer are correct exactly if
    /// greedy decoding produces this answer. `points` says whether a dialogue, by its task and its number
    /// of boxes, counts for the curriculum.
    pub fn of(
        packed: &PackedBatch<T>,
        predicted: &[i32],
        index_tokens: &[u32],
        points: impl Fn(T, usize) -> bool,
    ) -> Self {
        let mut correct = vec![true; packed.dialogues.len()];
        let mut pointing = (0, 0);
        for (target, &predicted) in packed.targets.iter().zip(predicted) {
            let Some(dialogue) = target.dialogue else {
                continue;
            };
            let hit = predicted == target.id as i32;
            correct[dialogue] &= hit;
            let (task, boxes) = packed.dialogues[dialogue];
            if points(task, boxes) && index_tokens.contains(&target.id) {
                pointing.0 += usize::from(hit);
                pointing.1 += 1;
            }
        }
        let mut exact = BTreeMap::new();
        for (&(task, _), correct) in packed.dialogues.iter().zip(correct) {
            add(&mut exact, task, (usize::from(correct), 1));
        }
        Self { exact, pointing }
    }

    /// Adds the exact answers to `sums`.
    pub fn add_exact(self, sums: &mut BTreeMap<T, (usize, usize)>) {
        for (task, counts) in self.exact {
            add(sums, task, counts);
        }
    }
}

fn add<T: Ord>(sums: &mut BTreeMap<T, (usize, usize)>, task: T, (correct, total): (usize, usize)) {
    let sum = sums.entry(task).or_insert((0, 0));
    sum.0 += correct;
    sum.1 += total;
}

/// The index tokens, and the token that ends a list of them.
///
/// # Errors
/// The vocabulary lacks one.
pub fn index_tokens(tokenizer: &Tokenizer) -> Result<Vec<u32>, Fault> {
    (0..100)
        .map(|index| tokenizer.id(&format!("<obj{index}>")))
        .chain([tokenizer.id("</objects>")])
        .collect()
}

/// The name of a task, as JSON has it.
///
/// # Panics
/// It does not serialize as a string.
pub fn task_name(task: impl Serialize) -> String {
    serde_json::to_value(task)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .expect("a task serializes as a string")
}

const BOXES_FILE: &str = "boxes.json";

/// Writes the number of boxes that the curriculum has reached.
///
/// # Errors
/// The file cannot be written.
pub fn write_boxes(folder: &Path, boxes: usize) -> Result<(), Fault> {
    let path = folder.join(BOXES_FILE);
    std::fs::write(&path, boxes.to_string()).map_err(|error| Fault::file(&path, error))
}

/// The number of boxes that the run in `folder` reached, if it wrote one.
pub fn read_boxes(folder: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(folder.join(BOXES_FILE)).ok()?;
    text.trim().parse().ok()
}
