//! Question templates of each task. The first training wording of a task is the string of the original
//! (`docs/reference/chatrex.md` section 10), misspellings included. Test wordings are never drawn for
//! training; they are new sentences of the words of training wordings.
//!
//! `[OBJ]` stands for categories, phrases or `<objK>` tags joined with `; `.

use serde::Serialize;

use super::Split;
use super::rng::Rng;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DialogueTask {
    /// All objects of a category, or of a category and colour.
    DetectOne,
    /// Several categories; an absent one among them is omitted from the answer.
    DetectSeveral,
    /// A category that is absent; the answer is the refusal sentence.
    DetectAbsent,
    /// The category of a box.
    Name,
    /// Colour and category of a box: `a red car`.
    ShortPhrase,
    /// Size, colour and category of a box: `a small red car`.
    Brief,
    /// The same with the position: `a small red car on the left`.
    Sentence,
    /// A number word and the group: `two <ground>dogs</ground><objects>…</objects>`.
    Count,
    /// All categories with their numbers, in one sentence.
    Caption,
    /// All categories with their numbers, one sentence each; single objects with their position.
    CaptionDetailed,
    /// The leftmost, rightmost, highest or lowest object.
    ReferPosition,
    /// The biggest or smallest object.
    ReferSize,
    /// The only object of its category and colour, among others of its category.
    ReferColour,
    /// The only object of its category on one side of another object.
    ReferRelation,
    /// The position of the only object of its category, grounded.
    Where,
    /// Whether there is one: `yes` or `no`.
    Exists,
    /// Whether one object is left of another: `yes` or `no`.
    Relation,
    /// The colour of a box.
    Colour,
    /// The number of objects, as a word.
    Total,
}

impl DialogueTask {
    /// Every task.
    pub const ALL: [DialogueTask; 19] = [
        DialogueTask::DetectOne,
        DialogueTask::DetectSeveral,
        DialogueTask::DetectAbsent,
        DialogueTask::Name,
        DialogueTask::ShortPhrase,
        DialogueTask::Brief,
        DialogueTask::Sentence,
        DialogueTask::Count,
        DialogueTask::Caption,
        DialogueTask::CaptionDetailed,
        DialogueTask::ReferPosition,
        DialogueTask::ReferSize,
        DialogueTask::ReferColour,
        DialogueTask::ReferRelation,
        DialogueTask::Where,
        DialogueTask::Exists,
        DialogueTask::Relation,
        DialogueTask::Colour,
        DialogueTask::Total,
    ];
}

/// A random wording of `task` for `split`, with `[OBJ]`.
pub(crate) fn wording(task: DialogueTask, split: Split, rng: &mut Rng) -> &'static str {
    let (train, test) = wordings(task);
    match split {
        Split::Test => test[rng.below(test.len())],
        // The original's string is what users most likely send: one third of the draws.
        _ if rng.chance(33) => train[0],
        _ => train[rng.below(train.len())],
    }
}

/// Training and test wordings of `task`.
pub(super) fn wordings(task: DialogueTask) -> (&'static [&'static str], &'static [&'static str]) {
    match task {
        DialogueTask::DetectOne
        | DialogueTask::DetectSeveral
        | DialogueTask::DetectAbsent
        | DialogueTask::ReferPosition
        | DialogueTask::ReferSize
        | DialogueTask::ReferColour
        | DialogueTask::ReferRelation => (
            &[
                "Please detect [OBJ] in this image. Answer the question with object indexes.",
                "Detect [OBJ] in this image. Answer the question with object indexes.",
                "Can you find [OBJ] in this image? Answer the question with object indexes.",
                "Please find [OBJ]. Answer the question with object indexes.",
                "Locate [OBJ] in the image. Answer with object indexes.",
                "Where can you see [OBJ]? Answer with object indexes.",
                "Please locate [OBJ] and answer with object indexes.",
                "Find [OBJ] in this picture. Answer the question with object indexes.",
                "Detect [OBJ].",
                "Find [OBJ].",
                "Show me [OBJ].",
                "Can you detect [OBJ] in the picture?",
            ],
            &[
                "Please show me [OBJ] in this picture. Answer with object indexes.",
                "Can you locate [OBJ] in the image? Answer the question with object indexes.",
                "Please detect [OBJ] and answer with object indexes.",
            ],
        ),
        DialogueTask::Name => (
            &[
                "What is the category name of [OBJ]? Answer the question with its category name in free format.",
                "What is the category of [OBJ]? Answer the question with its category name in free format.",
                "Can you tell me the category name of [OBJ]? Answer the question with its category name.",
                "Please tell me the name of [OBJ]. Answer with its category name.",
                "What is [OBJ]? Answer the question with its category name.",
                "Name the category of [OBJ]. Answer with its category name in free format.",
                "What is [OBJ] in this image?",
                "What is [OBJ]?",
                "Name [OBJ].",
            ],
            &[
                "Please tell me the category of [OBJ]. Answer with its category name in free format.",
                "Can you name [OBJ] in this image? Answer the question with its category name.",
                "Tell me the category name of [OBJ].",
            ],
        ),
        DialogueTask::ShortPhrase => (
            &[
                "Can you provide me with a short phrase to describe [OBJ]? Answer the question with a short phrase.",
                "Can you provide me with a short phrase description of [OBJ]? Answer the question with short phrases.",
                "Please describe [OBJ] with a short phrase.",
                "Give me a short phrase to describe [OBJ]. Answer with a short phrase.",
                "Describe [OBJ] in a short phrase.",
                "Describe [OBJ] with a short phrase. Answer the question with a short phrase.",
            ],
            &[
                "Please give me a short phrase description of [OBJ]. Answer with a short phrase.",
                "Can you describe [OBJ] in a short phrase? Answer the question with a short phrase.",
            ],
        ),
        DialogueTask::Brief => (
            &[
                "Can you provide me with a brief description of [OBJ]? Answer the question with brief description.",
                "Please give me a brief description of [OBJ].",
                "Describe [OBJ] briefly. Answer the question with brief description.",
                "Can you describe [OBJ] briefly?",
                "Give a brief description of [OBJ]. Answer with brief description.",
            ],
            &[
                "Please provide a brief description of [OBJ]. Answer the question with brief description.",
                "Can you give me a brief description of [OBJ]?",
            ],
        ),
        DialogueTask::Sentence => (
            &[
                "Can you provide a one sentence description of [OBJ] in the image? Answer the question with a one sentence description.",
                "Can you provide a one sentence description of [OBJ] in the image? Answer the question with one sentence description.",
                "Please describe [OBJ] in one sentence.",
                "Give me a one sentence description of [OBJ]. Answer with one sentence description.",
                "Describe [OBJ] in the image in one sentence.",
            ],
            &[
                "Please give me a one sentence description of [OBJ] in the image. Answer with a one sentence description.",
                "Can you describe [OBJ] in one sentence?",
            ],
        ),
        DialogueTask::Count => (
            &[
                "How many [OBJ] are there in this image? Answer the question with the number of objects and locate them with object indexes.",
                "Please count [OBJ] in this image. Answer the question with the number of objects and locate them with object indexes.",
                "What is the number of [OBJ] in this image? Answer with the number of objects and object indexes.",
                "Count the number of [OBJ]. Answer with the number of objects and locate them with object indexes.",
                "How many [OBJ] can you see? Answer with the number of objects and locate them.",
                "How many [OBJ] are there?",
                "Count [OBJ] in the picture.",
            ],
            &[
                "How many [OBJ] can you see in this picture? Answer the question with the number of objects and locate them with object indexes.",
                "Please count the number of [OBJ]. Answer with the number of objects and object indexes.",
            ],
        ),
        DialogueTask::Caption => (
            &[
                "Please breifly describe this image in one sentence and detect all the mentioned objects. Answer the question with grounded answer.",
                "Please briefly describe this image and detect all the mentioned objects. Answer with grounded object indexes.",
                "Describe this image in one sentence and detect all the mentioned objects. Answer with grounded answer.",
                "Can you briefly describe the image and locate the mentioned objects? Answer the question with grounded answer.",
                "Give me a brief description of this image with grounded object indexes.",
                "Briefly describe this picture and detect all the mentioned objects.",
                "Describe this image briefly. Answer with grounded answer.",
            ],
            &[
                "Please describe this picture in one sentence and locate all the mentioned objects. Answer the question with grounded answer.",
                "Can you give me a brief description of the image and detect all the mentioned objects? Answer with grounded object indexes.",
            ],
        ),
        DialogueTask::CaptionDetailed => (
            &[
                "Please provide a detailed description of the image and detect all the mentioned objects. Answer the question with grounded object indexes.",
                "Describe this image in detail and detect all the mentioned objects. Answer with grounded object indexes.",
                "Can you provide a detailed description of this image? Answer the question with grounded object indexes.",
                "Give me a detailed description of the picture and locate all the mentioned objects.",
                "Please describe the image in detail. Answer with grounded object indexes.",
            ],
            &[
                "Please give me a detailed description of this picture and detect all the mentioned objects. Answer with grounded object indexes.",
                "Can you describe the image in detail and locate all the mentioned objects? Answer the question with grounded object indexes.",
            ],
        ),
        DialogueTask::Where => (
            &[
                "Answer the question in grounded format. Where is the [OBJ]?",
                "Answer the question in grounded format. Question: Where is the [OBJ]?",
                "Answer the question in grounded format. Where can you see the [OBJ] in this image?",
                "Answer the question in grounded format. Can you tell me where the [OBJ] is?",
                "Where is the [OBJ]?",
            ],
            &[
                "Answer the question in grounded format. Where is the [OBJ] in this image?",
                "Answer the question in grounded format. Where can you see the [OBJ]?",
            ],
        ),
        DialogueTask::Exists => (
            &[
                "Is there [OBJ] in this image? Please answer the question with yes or no.",
                "Is there [OBJ] in this image?",
                "Is there [OBJ]?",
                "Can you see [OBJ] in the picture? Answer yes or no.",
                "Can you see [OBJ]?",
                "Is there [OBJ] in the picture? Please answer yes or no.",
            ],
            &[
                "Can you see [OBJ] in this image? Please answer the question with yes or no.",
                "Is there [OBJ] in the picture?",
            ],
        ),
        DialogueTask::Relation => (
            &[
                "Is [OBJ]? Please answer the question with yes or no.",
                "Is [OBJ] in this image? Answer yes or no.",
                "Is [OBJ]?",
                "Please tell me: is [OBJ]?",
            ],
            &[
                "Is [OBJ] in this picture? Please answer the question with yes or no.",
                "Please answer yes or no: is [OBJ]?",
            ],
        ),
        DialogueTask::Colour => (
            &[
                "What colour is [OBJ]?",
                "What is the colour of [OBJ]?",
                "What color is [OBJ]?",
                "Which colour has [OBJ]?",
                "Please tell me the colour of [OBJ].",
                "What is the color of [OBJ]? Answer the question using a single word or phrase.",
                "Can you tell me what colour [OBJ] is?",
            ],
            &[
                "Please tell me what colour [OBJ] is.",
                "What colour is [OBJ]? Answer the question using a single word or phrase.",
            ],
        ),
        DialogueTask::Total => (
            &[
                "How many things are there in this image?",
                "How many objects are there?",
                "How many objects can you see in this picture?",
                "What is the number of things in this image?",
                "Count all the things.",
                "How many things are there?",
            ],
            &[
                "How many objects are there in this image?",
                "How many things can you see in this picture?",
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn words(text: &str) -> impl Iterator<Item = String> {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|w| !w.is_empty())
            .map(str::to_lowercase)
    }

    #[test]
    fn test_wordings_are_new_sentences_of_known_words() {
        let known: HashSet<String> = DialogueTask::ALL
            .iter()
            .flat_map(|&t| wordings(t).0)
            .flat_map(|w| words(w))
            .collect();
        let trained: HashSet<&str> = DialogueTask::ALL
            .iter()
            .flat_map(|&t| wordings(t).0)
            .copied()
            .collect();
        for task in DialogueTask::ALL {
            let (train, test) = wordings(task);
            assert!(train.len() >= 4 && test.len() >= 2, "{task:?}");
            for &wording in test {
                assert!(!trained.contains(wording), "{wording}");
                for word in words(wording) {
                    assert!(known.contains(&word), "{word} in {wording}");
                }
            }
        }
    }
}
