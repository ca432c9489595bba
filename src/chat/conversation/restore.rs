//! Boxes and turns that come back from files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Conversation, Phase, Picture, Turn, Version};
use crate::chat::candidates::{BoxId, Candidate, Candidates, OwnBox};
use crate::chat::document::{Added, Document, LabelledBox, SavedAnswer, SavedState, SavedTurn};
use crate::chat::question::{Draft, QuestionKind};
use crate::geometry::{BoxXyxy, Granularity, Proposal};
use crate::protocol::{Request, TurnId};
use crate::text::prompt::MAX_BOXES;

/// Ranks from here on identify boxes of turns that are not among the proposals.
const FOREIGN_RANK: u32 = 1 << 30;

/// Boxes whose coordinates differ by at most this many pixels are the same.
const SAME_PIXELS: f32 = 0.5;

impl Picture {
    /// What an import of these boxes would do.
    pub fn added(&self, boxes: &[LabelledBox]) -> Added {
        self.clone().import(boxes)
    }

    /// Adds boxes of a file as boxes of the user, as many as a question can take.
    fn import(&mut self, boxes: &[LabelledBox]) -> Added {
        let mut outcome = Added::default();
        let mut new: Vec<OwnBox> = Vec::new();
        for LabelledBox { bbox, label } in boxes {
            let own = OwnBox {
                bbox: *bbox,
                label: label.clone(),
            };
            if self.number_of_own(&own).is_some()
                || new.iter().any(|other| is_same_own(other, &own))
            {
                outcome.known += 1;
            } else if self.room() == new.len() {
                outcome.surplus += 1;
            } else {
                new.push(own);
                outcome.added += 1;
            }
        }
        self.boxes.draw_all(new);
        outcome
    }

    /// How many more boxes of the user a question can take.
    fn room(&self) -> usize {
        MAX_BOXES.saturating_sub(self.edits().own.len())
    }

    fn number_of_own(&self, own: &OwnBox) -> Option<u32> {
        let mut all = self.edits().own.iter();
        let known = all.find(|(_, other)| is_same_own(other, own));
        known.map(|(&number, _)| number)
    }

    /// Adds a box of the user and returns its number, or that of the same box if there is one.
    fn add_own(&mut self, own: OwnBox) -> u32 {
        self.number_of_own(&own).unwrap_or_else(|| {
            let number = self.next_own();
            self.boxes.draw(own);
            number
        })
    }
}

impl Turn {
    /// The other answers, in order.
    pub fn saved_others(&self) -> Vec<SavedAnswer> {
        self.others.iter().map(SavedAnswer::from).collect()
    }
}

impl From<&Phase> for SavedState {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Done => Self::Done,
            Phase::Failed(fault) => Self::Failed(fault.clone()),
            _ => Self::Stopped,
        }
    }
}

impl From<&SavedState> for Phase {
    fn from(state: &SavedState) -> Self {
        match state {
            SavedState::Done => Self::Done,
            SavedState::Stopped => Self::Stopped,
            SavedState::Failed(fault) => Self::Failed(fault.clone()),
        }
    }
}

impl From<&Version> for SavedAnswer {
    fn from(version: &Version) -> Self {
        Self {
            state: SavedState::from(&version.phase),
            spans: version.spans.clone(),
            answer: version.answer.clone(),
            certainty: version.certainty.clone(),
            links: version.links.clone(),
        }
    }
}

impl From<&SavedAnswer> for Version {
    fn from(saved: &SavedAnswer) -> Self {
        Self {
            phase: Phase::from(&saved.state),
            spans: saved.spans.clone(),
            answer: saved.answer.clone(),
            settings: None,
            certainty: saved.certainty.clone(),
            links: saved.links.clone(),
        }
    }
}

impl Conversation {
    /// Adds boxes of a file.
    pub(super) fn import(&mut self, boxes: &[LabelledBox]) {
        if let Some(picture) = &mut self.session.picture {
            picture.import(boxes);
        }
    }

    /// Adds the boxes of the user and the turns of a document. A turn that is there already is skipped.
    /// The parameters are taken over, and proposals shown until the engine sends its own, where there was
    /// neither a turn nor a box of the user.
    pub(super) fn restore(&mut self, document: &Document, out: &mut Vec<Request>) {
        let Some(picture) = &mut self.session.picture else {
            return;
        };
        let size = (picture.size.width, picture.size.height);
        if size != (document.picture.width, document.picture.height) {
            return;
        }
        let is_new = self.session.turns.is_empty() && picture.edits().own.is_empty();
        let mut numbers = BTreeMap::new();
        for saved in &document.boxes {
            if let BoxId::Own(number) = saved.id.0
                && picture.room() > 0
            {
                let own = OwnBox {
                    bbox: saved.bbox,
                    label: saved.label.clone(),
                };
                numbers.insert(number, picture.add_own(own));
            }
        }
        let granularity = document.parameters.granularity;
        if is_new {
            let found = document.boxes.iter().filter_map(|saved| {
                Some(Proposal {
                    bbox: saved.bbox,
                    score: saved.score?,
                    label: saved.label.clone(),
                })
            });
            let known = picture.proposals.entry(granularity);
            known.or_insert_with(|| Arc::new(found.collect()));
            self.granularity = granularity;
            self.filter = document.parameters.filter();
            self.filter_touched = true;
            self.session.choices.sampling = document.parameters.sampling;
            self.request_look(out);
        }
        for turn in &document.turns {
            self.restore_turn(turn, &mut numbers);
        }
        self.rematch_turns(Granularity::Coarse);
        self.rematch_turns(Granularity::Fine);
    }

    /// Adds a turn before the running one, else at the end. `numbers` maps numbers of boxes of the user in
    /// the document to those in the picture.
    fn restore_turn(&mut self, saved: &SavedTurn, numbers: &mut BTreeMap<u32, u32>) {
        let is_same = |turn: &super::Turn| {
            let boxes = turn.boxes.as_ref().map_or(&[][..], |set| &set.boxes);
            turn.shown == saved.shown
                && turn.spans == saved.spans
                && boxes.len() == saved.boxes.len()
                && (boxes.iter().zip(&saved.boxes)).all(|(a, b)| is_same(&a.bbox, &b.bbox))
        };
        if self.session.turns.iter().any(is_same) {
            return;
        }
        let running = self.active().is_some().then(|| self.session.turns.pop());
        let mut boxes: Vec<Candidate> = saved.boxes.iter().map(Candidate::from).collect();
        if let Some(picture) = &mut self.session.picture {
            for candidate in &mut boxes {
                if let BoxId::Own(number) = &mut candidate.id {
                    let known = numbers.entry(*number);
                    *number = *known.or_insert_with(|| picture.boxes.take_number());
                }
            }
        }
        let set = Candidates { boxes, left_out: 0 };
        let free = || Draft::new(QuestionKind::Free, saved.shown.clone());
        let draft = saved.draft.clone().unwrap_or_else(free);
        let id = self.next_request();
        let mut turn = super::Turn::new(id, saved.shown.clone(), saved.question.clone(), draft);
        turn.boxes = Some(Arc::new(set));
        turn.phase = Phase::from(&saved.state);
        turn.spans.clone_from(&saved.spans);
        turn.answer.clone_from(&saved.answer);
        turn.certainty.clone_from(&saved.certainty);
        turn.links.clone_from(&saved.links);
        turn.others = saved.others.iter().map(Version::from).collect();
        turn.version = saved.version.min(turn.others.len());
        self.session.turns.push(turn);
        self.session.turns.extend(running.flatten());
    }

    /// Gives the boxes of turns the ranks of equal proposals: the proposals of another model, or the order
    /// of a document, differ from what the turn was asked with. A box without an equal one keeps a rank
    /// that no proposal has.
    pub(super) fn rematch_turns(&mut self, granularity: Granularity) {
        let picture = self.session.picture.as_ref();
        let Some(proposals) = picture.and_then(|p| p.proposals.get(&granularity)) else {
            return;
        };
        for turn in &mut self.session.turns {
            let id = turn.id;
            if let Some(set) = &mut turn.boxes {
                let matched = rematched(set, proposals, granularity, id);
                if matched != **set {
                    *set = Arc::new(matched);
                }
            }
        }
    }
}

fn rematched(
    set: &Candidates,
    proposals: &[Proposal],
    granularity: Granularity,
    turn: TurnId,
) -> Candidates {
    let mut set = set.clone();
    for (place, candidate) in set.boxes.iter_mut().enumerate() {
        let BoxId::Found(of, rank) = candidate.id else {
            continue;
        };
        let is_equal = |p: &Proposal| is_same(&p.bbox, &candidate.bbox);
        if of != granularity || proposals.get(rank as usize).is_some_and(is_equal) {
            continue;
        }
        let foreign = FOREIGN_RANK + turn.0 * MAX_BOXES as u32 + place as u32;
        let equal = proposals.iter().position(is_equal);
        candidate.id = BoxId::Found(of, equal.map_or(foreign, |rank| rank as u32));
    }
    set
}

fn is_same_own(a: &OwnBox, b: &OwnBox) -> bool {
    is_same(&a.bbox, &b.bbox) && a.label == b.label
}

fn is_same(a: &BoxXyxy, b: &BoxXyxy) -> bool {
    let (a, b): ([f32; 4], [f32; 4]) = ((*a).into(), (*b).into());
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME_PIXELS)
}

#[cfg(test)]
mod tests {
    use crate::chat::candidates::BoxId;
    use crate::chat::conversation::{Conversation, Input, Phase};
    use crate::chat::document::{Added, Document, LabelledBox};
    use crate::chat::overlay::Mentions;
    use crate::chat::test_data::{after, load, open, proposed, ready, saved};
    use crate::protocol::{Granularity, PictureId};

    const A: PictureId = PictureId(1);

    fn restore(document: Document) -> Input {
        Input::Restore(Box::new(document))
    }

    fn labels(c: &Conversation) -> Vec<(BoxId, Option<&str>)> {
        let boxes = c.candidates().boxes.iter();
        boxes.map(|b| (b.id, b.label.as_deref())).collect()
    }

    const FOUND: [BoxId; 2] = [
        BoxId::Found(Granularity::Coarse, 0),
        BoxId::Found(Granularity::Coarse, 1),
    ];

    #[test]
    fn boxes_of_a_file_become_boxes_of_the_user_once() {
        let labelled = |x: f32, label: Option<&str>| LabelledBox {
            bbox: [x, 0., x + 5., 5.].into(),
            label: label.map(str::to_owned),
        };
        let boxes = vec![labelled(50., Some("cup")), labelled(60., None)];
        let mut c = after([open(A), Input::Import(boxes.clone()), Input::Import(boxes)]);
        let own = [(BoxId::Own(0), Some("cup")), (BoxId::Own(1), None)];
        assert_eq!(labels(&c), own);
        let many: Vec<_> = (0..200).map(|x| labelled(x as f32 * 6., None)).collect();
        let picture = c.picture().expect("opened");
        let expected = Added {
            added: 98,
            known: 1,
            left_out: 0,
            surplus: 101,
        };
        assert_eq!(picture.added(&many), expected);
        c.step(Input::Import(many));
        assert_eq!(c.candidates().boxes.len(), 100);
    }

    #[test]
    fn a_saved_conversation_goes_on_with_its_boxes_turns_and_parameters() {
        let c = after([open(A), restore(saved())]);
        let expected = [
            (FOUND[0], Some("cat")),
            (FOUND[1], None),
            (BoxId::Own(0), Some("my lamp")),
        ];
        assert_eq!(labels(&c), expected);
        assert_eq!(c.filter().score, 0.5);
        let turn = &c.turns()[0];
        assert_eq!(
            (&turn.shown[..], &turn.phase),
            ("What is here?", &Phase::Done)
        );
        let mentions = Mentions::of(turn).expect("phrases");
        assert_eq!(
            mentions.highlight(&[0, 2]).boxes,
            [FOUND[0], BoxId::Own(0)].into()
        );
        assert!(c.can_ask());
    }

    #[test]
    fn a_second_import_of_the_same_conversation_changes_nothing() {
        let mut c = after([open(A), restore(saved())]);
        let (turns, boxes) = (c.turns().to_vec(), c.candidates().clone());
        c.step(restore(saved()));
        assert_eq!((c.turns(), c.candidates()), (&turns[..], &boxes));
    }

    #[test]
    fn turns_follow_their_boxes_when_the_engine_proposes() {
        let ask = || Input::Ask {
            shown: "and now?".into(),
            question: "and now?".into(),
        };
        let coarse = || proposed(A, Granularity::Coarse);
        let mut document = saved();
        document.turns[0].boxes.swap(0, 1);
        document.turns[0].boxes[1].bbox.x1 = 3.0;
        let c = after([open(A), ask(), restore(document), load(), ready(), coarse()]);
        assert_eq!(c.turns().len(), 2);
        assert_eq!(
            c.turns()[1].shown,
            "and now?",
            "the running turn stays the last"
        );
        let boxes = &c.turns()[0].boxes.as_ref().expect("its own").boxes;
        assert_eq!(boxes[0].id, FOUND[1]);
        let foreign = boxes[1].id;
        assert!(!FOUND.contains(&foreign), "{foreign:?} is another box");
        assert_eq!(c.candidates().number(foreign), None);
    }

    #[test]
    fn a_conversation_about_another_size_is_ignored() {
        let mut document = saved();
        document.picture.width = 99;
        let c = after([open(A), restore(document)]);
        assert!(c.turns().is_empty() && c.candidates().boxes.is_empty());
    }
}
