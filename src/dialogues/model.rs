//! The steps that a model makes: a grounded caption, descriptions of regions, referring expressions, a
//! grounded conversation. Every text passes the filter; what it drops is kept with the reason.

use super::contents::Contents;
use super::record::{ANNOTATIONS, MadeBy, RULES, made_by};
use super::text::{Reason, check_length, judge, rewrite};
use super::truth::{REGIONS, ask, group, name};
use crate::error::Fault;
use crate::eval::EvalModel;
use crate::image::Pixels;
use crate::scenes::{DialogueTask, Rng};
use crate::text::answer_parser::Span;
use crate::text::prompt::index_tag;

/// IoU from which a box of the grounder is that of the object.
const SAME_OBJECT: f32 = 0.5;
/// Questions of the grounded conversation.
const QUESTIONS: [&str; 4] = [
    "Answer the question in grounded format. What can you see in this image?",
    "Answer the question in grounded format. Which things are in this picture?",
    "Answer the question in grounded format. What is the most important thing here?",
    "Answer the question in grounded format. What is happening in this image?",
];

/// A question with its answer, or a text that was left out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub(super) task: &'static str,
    pub(super) question: String,
    pub(super) answer: String,
    pub(super) made_by: Vec<MadeBy>,
    /// Why it is left out.
    pub(super) dropped: Option<Reason>,
}

/// A model with the picture that it is asked about.
pub(super) struct Steps<'a> {
    pub(super) model: &'a mut dyn EvalModel,
    /// Its name.
    pub(super) name: &'a str,
    pub(super) pixels: &'a Pixels,
    pub(super) contents: &'a Contents,
}

impl Steps<'_> {
    /// Everything that the model says about the picture.
    ///
    /// # Errors
    /// A fault of the model.
    pub(super) fn all(&mut self, rng: &mut Rng) -> Result<Vec<Made>, Fault> {
        let mut made = vec![self.caption(rng)?];
        let mut things: Vec<usize> = (0..self.contents.things.len()).collect();
        rng.shuffle(&mut things);
        for &thing in things.iter().take(REGIONS) {
            made.extend(self.region(thing, rng)?);
        }
        made.push(self.conversation(rng)?);
        Ok(made)
    }

    fn say(&mut self, question: &str) -> Result<(String, Vec<Span>), Fault> {
        let answer = self
            .model
            .ask(self.pixels, &self.contents.boxes, question)?;
        Ok((answer.text.trim().to_owned(), answer.spans))
    }

    fn boxes_by(&self) -> &str {
        match self.contents.proposed {
            true => self.name,
            false => ANNOTATIONS,
        }
    }

    /// An answer with boxes, which is kept as the model grounded it.
    fn grounded(
        &mut self,
        task: &'static str,
        question: String,
        step: &str,
    ) -> Result<Made, Fault> {
        let (answer, spans) = self.say(&question)?;
        let plain: String = spans.iter().map(|span| span.text.as_str()).collect();
        let count = self.contents.boxes.len();
        let mut indices = spans.iter().flat_map(|span| &span.objects);
        let has_boxes = spans.iter().any(|span| !span.objects.is_empty());
        let inside = indices.all(|index| (*index as usize) < count);
        let dropped = match (check_length(&plain), has_boxes && inside) {
            (Err(reason), _) => Some(reason),
            (Ok(()), false) => Some(Reason::NoBox),
            (Ok(()), true) => None,
        };
        let steps = [
            ("boxes", self.boxes_by()),
            (step, self.name),
            ("ground", self.name),
            ("filter", RULES),
        ];
        Ok(Made {
            task,
            question,
            answer,
            made_by: made_by(&steps),
            dropped,
        })
    }

    fn caption(&mut self, rng: &mut Rng) -> Result<Made, Fault> {
        let question = ask(DialogueTask::Caption, "", rng);
        self.grounded(name(DialogueTask::Caption), question, "caption")
    }

    fn conversation(&mut self, rng: &mut Rng) -> Result<Made, Fault> {
        let question = (*rng.pick(&QUESTIONS)).to_owned();
        self.grounded("conversation", question, "answer")
    }

    /// A description of an object, and the referring expression in it.
    fn region(&mut self, thing: usize, rng: &mut Rng) -> Result<Vec<Made>, Fault> {
        let about = &self.contents.things[thing];
        let (kind, index) = (about.kind.clone(), about.index);
        let question = ask(DialogueTask::Sentence, &index_tag(index as u32), rng);
        let (description, _) = self.say(&question)?;
        let boxes_by = self.boxes_by().to_owned();
        let described = |more: &[(&str, &str)]| {
            let first = [
                ("boxes", boxes_by.as_str()),
                ("describe", self.name),
                ("filter", RULES),
            ];
            made_by(&[&first[..], more].concat())
        };
        let mut made = vec![Made {
            task: name(DialogueTask::Sentence),
            question,
            answer: description.clone(),
            made_by: described(&[]),
            dropped: judge(&description, &kind).err(),
        }];
        if made[0].dropped.is_some() {
            return Ok(made);
        }
        let expression = rewrite(&description, &kind);
        let steps = described(&[("rewrite", RULES), ("verify", self.name)]);
        let Some(expression) = expression else {
            made.push(Made {
                task: "refer",
                question: description,
                answer: String::new(),
                made_by: steps,
                dropped: Some(Reason::NoExpression),
            });
            return Ok(made);
        };
        let question = ask(DialogueTask::ReferPosition, &expression, rng);
        let (_, spans) = self.say(&question)?;
        let first = spans.iter().find_map(|span| span.objects.first());
        let boxes = &self.contents.boxes;
        let found = first.and_then(|first| boxes.get(*first as usize));
        let is_own = found.is_some_and(|found| found.iou(&boxes[index]) >= SAME_OBJECT);
        made.push(Made {
            task: "refer",
            question,
            answer: group(&kind, &[index]),
            made_by: steps,
            dropped: (!is_own).then_some(Reason::NotFound),
        });
        Ok(made)
    }
}
