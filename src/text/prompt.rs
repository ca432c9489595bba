//! Prompts: task templates, the user turn with its slots, and the chat template.
//!
//! The strings are interface constants of the trained models (`docs/reference/chatrex.md`, sections
//! 7.2 and 10), including a misspelling.

use serde::{Deserialize, Serialize};

use crate::error::{Fault, FaultKind};

/// Placeholder of the image in a prompt.
pub const IMAGE: &str = "<image>";

/// Placeholder of the features of the next box in a prompt.
pub const OBJECT: &str = "<objfeat>";

/// Token id of [`IMAGE`]; not in the vocabulary.
pub const IMAGE_SLOT: i64 = -200;

/// Token id of [`OBJECT`]; not in the vocabulary.
pub const OBJECT_SLOT: i64 = -300;

/// The number of index tokens, and so the most boxes of a prompt.
pub const MAX_BOXES: usize = 100;

/// A kind of question, with the wording that the models were trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// All boxes of one or more categories or phrases.
    Detect,
    /// The category of a box.
    Name,
    /// A short phrase about a box.
    Phrase,
    /// A brief description of a box.
    Describe,
    /// A sentence about a box.
    Sentence,
    /// The number of objects, and their boxes.
    Count,
    /// A one-sentence caption that names boxes.
    BriefCaption,
    /// A detailed caption that names boxes.
    DetailedCaption,
    /// Any question, answered with boxes.
    Grounded,
    /// Any question, without a template.
    Free,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 10] = [
        Self::Detect,
        Self::Name,
        Self::Phrase,
        Self::Describe,
        Self::Sentence,
        Self::Count,
        Self::BriefCaption,
        Self::DetailedCaption,
        Self::Grounded,
        Self::Free,
    ];

    /// The first training paraphrase; `[OBJ]` is the placeholder of the subjects.
    pub fn template(self) -> &'static str {
        match self {
            Self::Detect => {
                "Please detect [OBJ] in this image. Answer the question with object indexes."
            }
            Self::Name => {
                "What is the category name of [OBJ]? Answer the question with its category name in free format."
            }
            Self::Phrase => {
                "Can you provide me with a short phrase to describe [OBJ]? Answer the question with a short phrase."
            }
            Self::Describe => {
                "Can you provide me with a brief description of [OBJ]? Answer the question with brief description."
            }
            Self::Sentence => {
                "Can you provide a one sentence description of [OBJ] in the image? Answer the question with a one sentence description."
            }
            Self::Count => {
                "How many [OBJ] are there in this image? Answer the question with the number of objects and locate them with object indexes."
            }
            Self::BriefCaption => {
                "Please breifly describe this image in one sentence and detect all the mentioned objects. Answer the question with grounded answer."
            }
            Self::DetailedCaption => {
                "Please provide a detailed description of the image and detect all the mentioned objects. Answer the question with grounded object indexes."
            }
            Self::Grounded => "Answer the question in grounded format. [OBJ]",
            Self::Free => "[OBJ]",
        }
    }

    /// The question about `subjects`: categories, phrases, index tags, or the user's own question. The
    /// captions need none.
    pub fn question<S: AsRef<str>>(self, subjects: &[S]) -> String {
        let subjects: Vec<&str> = subjects.iter().map(AsRef::as_ref).collect();
        self.template().replace("[OBJ]", &subjects.join("; "))
    }
}

/// The index tag of box `index`.
pub fn index_tag(index: u32) -> String {
    format!("<obj{index}>")
}

/// The user turn about a picture with `boxes` boxes (`docs/reference/chatrex.md`, section 7.2).
///
/// # Errors
/// Those of [`check_question`]; more than [`MAX_BOXES`] boxes.
pub fn user_turn(boxes: usize, question: &str) -> Result<String, Fault> {
    check_turn(boxes, question)?;
    Ok(format!("{IMAGE}\n{}\n{question}", object_slots(boxes)))
}

/// The index tags of `boxes` boxes, each before the slot of its features.
fn object_slots(boxes: usize) -> String {
    (0..boxes as u32)
        .map(|index| index_tag(index) + OBJECT)
        .collect()
}

/// The user turn of a model that sees boxes, but not the picture: boxes and question, or the question
/// alone if there are no boxes.
///
/// # Errors
/// Those of [`user_turn`].
pub fn box_turn(boxes: usize, question: &str) -> Result<String, Fault> {
    check_turn(boxes, question)?;
    Ok(match boxes {
        0 => question.to_string(),
        _ => format!("{}\n{question}", object_slots(boxes)),
    })
}

/// The user turn of a model that reads text alone: the question.
///
/// # Errors
/// Those of [`check_question`]; there are boxes.
pub fn text_turn(boxes: usize, question: &str) -> Result<String, Fault> {
    if boxes > 0 {
        return Err(fault(
            "comes with boxes, and this model reads text alone".to_string(),
            "Ask without boxes, or open a model that sees pictures",
        ));
    }
    check_question(question, 0)?;
    Ok(question.to_string())
}

/// Checks a question and the number of its boxes.
fn check_turn(boxes: usize, question: &str) -> Result<(), Fault> {
    check_question(question, boxes)?;
    if boxes > MAX_BOXES {
        return Err(fault(
            format!("has {boxes} boxes, the limit is {MAX_BOXES}"),
            "Ask about fewer boxes",
        ));
    }
    Ok(())
}

/// Checks the user's question about `boxes` boxes.
///
/// # Errors
/// The question is empty, contains a placeholder, or names a box that does not exist.
pub fn check_question(question: &str, boxes: usize) -> Result<(), Fault> {
    if question.trim().is_empty() {
        return Err(fault("nothing is asked".to_string(), "Write a question"));
    }
    for placeholder in [IMAGE, OBJECT] {
        if question.contains(placeholder) {
            return Err(fault(
                format!("contains `{placeholder}`, which is a control word of the model"),
                "Remove it; the picture and its boxes are always part of the question",
            ));
        }
    }
    let missing = question
        .split("<obj")
        .skip(1)
        .filter_map(|rest| {
            let (number, _) = rest.split_once('>')?;
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            digits.then_some(number)
        })
        .find(|number| number.parse().map_or(true, |index: usize| index >= boxes));
    let Some(number) = missing else { return Ok(()) };
    Err(fault(
        match boxes {
            0 => format!("names <obj{number}>, but there are no boxes"),
            1 => format!("names <obj{number}>, but the only box is <obj0>"),
            _ => format!(
                "names <obj{number}>, but there are {boxes} boxes, <obj0> to <obj{}>",
                boxes - 1
            ),
        },
        "Name one of the boxes shown, or show more boxes",
    ))
}

fn fault(what: String, advice: &str) -> Fault {
    Fault::new(FaultKind::Question, "question", what, advice)
}

/// The chat template of a language model; the strings come from the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatTemplate {
    /// The start of a conversation; empty for the Qwen2.5 models as they are used here.
    #[serde(default)]
    pub system: String,
    /// A question and the start of its answer; `{user}` is the placeholder of the user turn.
    pub turn: String,
    /// The text between an answer and the next turn.
    pub between: String,
    /// Tokens that end an answer.
    pub stop: Vec<String>,
}

impl ChatTemplate {
    /// The template of the Qwen2.5 models, without a system turn.
    pub fn qwen() -> Self {
        Self {
            system: String::new(),
            turn: "<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n".to_string(),
            between: "<|im_end|>\n".to_string(),
            stop: vec!["<|im_end|>".to_string(), "<|endoftext|>".to_string()],
        }
    }

    /// The template of Vicuna, without its optional system prompt (`docs/reference/chatrex.md`,
    /// section 7.2).
    pub fn vicuna() -> Self {
        Self {
            system: String::new(),
            turn: "USER: {user} ASSISTANT:".to_string(),
            between: "</s>".to_string(),
            stop: vec!["</s>".to_string()],
        }
    }

    /// The prompt of a conversation that starts with the user turn `user`.
    pub fn first(&self, user: &str) -> String {
        format!("{}{}", self.system, self.turn.replace("{user}", user))
    }

    /// The words of the system prompt, without the marks around them.
    pub fn system_words(&self) -> &str {
        let (before, after) = self.system_marks();
        let words = self.system.strip_prefix(before).unwrap_or(&self.system);
        words.strip_suffix(after).unwrap_or(words)
    }

    /// The template with other words of the system prompt; without words it has none.
    pub fn with_system(&self, words: &str) -> Self {
        let words = words.trim();
        let (before, after) = self.system_marks();
        let system = match words.is_empty() {
            true => String::new(),
            false => format!("{before}{words}{after}"),
        };
        Self {
            system,
            ..self.clone()
        }
    }

    /// What stands before and after the words of a system prompt: those of the templates that mark turns
    /// (ChatML), else a space as in Vicuna's.
    fn system_marks(&self) -> (&'static str, &'static str) {
        match self.turn.starts_with("<|im_start|>") {
            true => ("<|im_start|>system\n", "<|im_end|>\n"),
            false => ("", " "),
        }
    }

    /// The continuation after an answer, with the next user turn `user`.
    pub fn next(&self, user: &str) -> String {
        format!("{}{}", self.between, self.turn.replace("{user}", user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_turn_has_one_slot_per_box() {
        let turn = |boxes| user_turn(boxes, "What is <obj1>?");
        assert_eq!(
            turn(2).as_deref(),
            Ok("<image>\n<obj0><objfeat><obj1><objfeat>\nWhat is <obj1>?")
        );
        assert_eq!(user_turn(0, "What?").as_deref(), Ok("<image>\n\nWhat?"));
        assert!(turn(1).is_err() && turn(101).is_err() && turn(100).is_ok());
    }

    #[test]
    fn a_turn_without_the_picture_has_no_image_slot() {
        assert_eq!(
            box_turn(2, "What is <obj1>?").as_deref(),
            Ok("<obj0><objfeat><obj1><objfeat>\nWhat is <obj1>?")
        );
        assert_eq!(box_turn(0, "What?").as_deref(), Ok("What?"));
        assert!(box_turn(101, "?").is_err() && box_turn(1, "a <image>").is_err());
        assert_eq!(text_turn(0, "Why?").as_deref(), Ok("Why?"));
        let boxes = text_turn(3, "Why?").expect_err("boxes").what;
        assert!(boxes.contains("with boxes"), "{boxes}");
        assert!(text_turn(0, " ").is_err() && text_turn(0, "<obj0>").is_err());
    }

    #[test]
    fn questions_are_checked() {
        let what =
            |question: &str, boxes| check_question(question, boxes).expect_err(question).what;
        assert!(what(" \n", 3).contains("nothing"));
        assert!(what("a <image> b", 3).contains("<image>"));
        assert!(what("<objfeat>", 3).contains("<objfeat>"));
        let beyond = what("is <obj2> left of <obj12>?", 12);
        assert!(
            beyond.contains("<obj12>") && beyond.contains("12 boxes"),
            "{beyond}"
        );
        assert!(what("<obj0>", 0).contains("no boxes"));
        assert!(what("<obj99999999999999999999999>", 5).contains("5 boxes"));
        assert_eq!(check_question("<obj11> <obj> <objx> <obj", 12), Ok(()));
    }

    #[test]
    fn a_system_prompt_stands_between_its_marks() {
        let with = |template: ChatTemplate, words: &str| template.with_system(words);
        let cases = [
            (
                ChatTemplate::qwen(),
                "Be brief.",
                "<|im_start|>system\nBe brief.<|im_end|>\n",
            ),
            (ChatTemplate::vicuna(), " Be brief. ", "Be brief. "),
            (ChatTemplate::qwen(), " \n", ""),
        ];
        for (template, words, expected) in cases {
            let changed = with(template, words);
            assert_eq!(changed.system, expected);
            assert_eq!(changed.system_words(), words.trim());
            assert!(changed.first("Hi").starts_with(expected));
            assert_eq!(with(changed, "").system, "", "{words}");
        }
    }

    #[test]
    fn tasks_have_a_wording_and_templates_keep_braces() {
        assert_eq!(
            Task::Detect.question(&["person", "pigeon"]),
            "Please detect person; pigeon in this image. Answer the question with object indexes."
        );
        for task in Task::ALL {
            assert!(!task.question(&["cup"]).contains("[OBJ]"));
        }
        let template = ChatTemplate::qwen();
        let prompt = template.first("a {user} b");
        assert_eq!(
            prompt,
            "<|im_start|>user\na {user} b<|im_end|>\n<|im_start|>assistant\n"
        );
    }
}
