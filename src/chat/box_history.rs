//! What the user did to the boxes of a picture, with undo and redo.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chat::candidates::{BoxId, OwnBox};
use crate::geometry::BoxXyxy;

/// Most steps that can be taken back.
const MAX_STEPS: usize = 200;

/// The boxes of the user, and the proposals that are out of use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxEdits {
    /// The boxes of the user by number.
    pub own: BTreeMap<u32, OwnBox>,
    /// Proposals that were deleted or replaced by a box of the user. No question may point at them.
    pub removed: BTreeSet<BoxId>,
    /// Boxes that are not drawn. Questions may still point at them.
    pub hidden: BTreeSet<BoxId>,
}

/// The state of the boxes, and the states before and after it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxHistory {
    now: Arc<BoxEdits>,
    past: Vec<Arc<BoxEdits>>,
    future: Vec<Arc<BoxEdits>>,
    next_own: u32,
    /// The box that the last step reshaped, while the next may continue it.
    reshaping: Option<BoxId>,
}

impl BoxHistory {
    /// The state `now` without steps before it; the next box of the user gets at least the number
    /// `next_own`.
    pub fn restored(now: BoxEdits, next_own: u32) -> Self {
        let after_last = now
            .own
            .keys()
            .next_back()
            .map_or(0, |&last| last.saturating_add(1));
        Self {
            now: Arc::new(now),
            next_own: next_own.max(after_last),
            ..Self::default()
        }
    }

    /// The current state.
    pub fn now(&self) -> &BoxEdits {
        &self.now
    }

    /// The number of the next box of the user. Numbers are never used twice.
    pub fn next_own(&self) -> u32 {
        self.next_own
    }

    /// Whether a step can be taken back.
    pub fn can_undo(&self) -> bool {
        !self.past.is_empty()
    }

    /// Whether a step that was taken back can be done again.
    pub fn can_redo(&self) -> bool {
        !self.future.is_empty()
    }

    /// Adds a box of the user.
    pub fn draw(&mut self, own: OwnBox) {
        let number = self.take_number();
        self.step(|edits| {
            edits.own.insert(number, own);
        });
        self.reshaping = Some(BoxId::Own(number));
    }

    /// Adds boxes of the user in one step.
    pub fn draw_all(&mut self, boxes: impl IntoIterator<Item = OwnBox>) {
        let boxes: Vec<_> = boxes
            .into_iter()
            .map(|own| (self.take_number(), own))
            .collect();
        self.step(|edits| edits.own.extend(boxes));
    }

    /// Gives a box another shape. A proposal is replaced by a box of the user with the same `label`.
    /// With `continues` the step joins the one before if that drew or reshaped the same box: one
    /// undo takes both back. Returns the box's identity from now on.
    pub fn reshape(
        &mut self,
        id: BoxId,
        bbox: BoxXyxy,
        label: Option<String>,
        continues: bool,
    ) -> BoxId {
        let joins = continues && self.reshaping == Some(id);
        let BoxId::Own(number) = id else {
            let number = self.take_number();
            self.step(|edits| {
                edits.removed.insert(id);
                edits.hidden.remove(&id);
                edits.own.insert(number, OwnBox { bbox, label });
            });
            self.reshaping = Some(BoxId::Own(number));
            return BoxId::Own(number);
        };
        let change = |edits: &mut BoxEdits| {
            if let Some(own) = edits.own.get_mut(&number) {
                own.bbox = bbox;
            }
        };
        if joins {
            change(Arc::make_mut(&mut self.now));
        } else {
            self.step(change);
        }
        self.reshaping = Some(id);
        id
    }

    /// Deletes boxes of the user and takes proposals out of use.
    pub fn remove(&mut self, ids: impl IntoIterator<Item = BoxId>) {
        self.step(|edits| {
            for id in ids {
                edits.hidden.remove(&id);
                match id {
                    BoxId::Own(number) => {
                        edits.own.remove(&number);
                    }
                    BoxId::Found(..) => {
                        edits.removed.insert(id);
                    }
                }
            }
        });
    }

    /// Brings back all proposals that are out of use.
    pub fn restore(&mut self) {
        self.step(|edits| edits.removed.clear());
    }

    /// Hides boxes, or shows them again.
    pub fn hide(&mut self, ids: impl IntoIterator<Item = BoxId>, hide: bool) {
        self.step(|edits| {
            for id in ids {
                if hide {
                    edits.hidden.insert(id);
                } else {
                    edits.hidden.remove(&id);
                }
            }
        });
    }

    /// Takes the last step back.
    pub fn undo(&mut self) {
        if let Some(before) = self.past.pop() {
            self.future.push(std::mem::replace(&mut self.now, before));
        }
        self.reshaping = None;
    }

    /// Does the step again that was taken back last.
    pub fn redo(&mut self) {
        if let Some(after) = self.future.pop() {
            self.past.push(std::mem::replace(&mut self.now, after));
        }
        self.reshaping = None;
    }

    /// Forgets all that concerns proposals, in all states: they are replaced by those of another model.
    pub fn forget_proposals(&mut self) {
        let states = [&mut self.past, &mut self.future].into_iter().flatten();
        for state in states.chain([&mut self.now]) {
            let edits = Arc::make_mut(state);
            edits.removed.clear();
            edits.hidden.retain(|id| matches!(id, BoxId::Own(_)));
        }
        // States that differed in proposals only are the same now.
        self.past.dedup();
        self.future.dedup();
        self.past.pop_if(|state| *state == self.now);
        self.future.pop_if(|state| *state == self.now);
        self.reshaping = None;
    }

    /// A number that no box of the user has or had.
    pub fn take_number(&mut self) -> u32 {
        self.next_own += 1;
        self.next_own - 1
    }

    /// Changes the state; a change that leaves it the same is no step.
    fn step(&mut self, change: impl FnOnce(&mut BoxEdits)) {
        let mut next = BoxEdits::clone(&self.now);
        change(&mut next);
        self.reshaping = None;
        if next == *self.now {
            return;
        }
        self.past
            .push(std::mem::replace(&mut self.now, Arc::new(next)));
        self.future.clear();
        if self.past.len() > MAX_STEPS {
            self.past.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Granularity;

    fn found(rank: u32) -> BoxId {
        BoxId::Found(Granularity::Coarse, rank)
    }

    fn at(x: f32) -> BoxXyxy {
        [x, 0., x + 10., 10.].into()
    }

    /// Own boxes with their left edges, removed and hidden ranks in a line.
    fn words(history: &BoxHistory) -> String {
        let BoxEdits {
            own,
            removed,
            hidden,
        } = history.now();
        let own: Vec<_> = (own.iter())
            .map(|(number, own)| format!("{number}@{}", own.bbox.x1))
            .collect();
        let name = |id: &BoxId| match id {
            BoxId::Own(number) => format!("own{number}"),
            BoxId::Found(_, rank) => rank.to_string(),
        };
        let removed: Vec<_> = removed.iter().map(name).collect();
        let hidden: Vec<_> = hidden.iter().map(name).collect();
        format!(
            "{}|{}|{}",
            own.join(" "),
            removed.join(" "),
            hidden.join(" ")
        )
    }

    #[test]
    fn every_step_can_be_taken_back_and_done_again() {
        let mut history = BoxHistory::default();
        type Step = fn(&mut BoxHistory);
        let steps: [(Step, &str); 8] = [
            (|h| h.draw(at(1.).into()), "0@1||"),
            (|h| h.draw(at(2.).into()), "0@1 1@2||"),
            (
                |h| {
                    h.reshape(BoxId::Own(1), at(5.), None, false);
                },
                "0@1 1@5||",
            ),
            (
                |h| {
                    h.reshape(found(7), at(9.), Some("cat".into()), false);
                },
                "0@1 1@5 2@9|7|",
            ),
            (
                |h| h.hide([found(3), BoxId::Own(0)], true),
                "0@1 1@5 2@9|7|3 own0",
            ),
            (|h| h.hide([found(3)], false), "0@1 1@5 2@9|7|own0"),
            (|h| h.remove([BoxId::Own(0), found(3)]), "1@5 2@9|3 7|"),
            (|h| h.restore(), "1@5 2@9||"),
        ];
        let mut states = vec![words(&history)];
        for (step, expected) in steps {
            step(&mut history);
            assert_eq!(words(&history), expected);
            states.push(words(&history));
        }
        for expected in states.iter().rev().skip(1) {
            history.undo();
            assert_eq!(&words(&history), expected);
        }
        assert!(!history.can_undo());
        history.undo();
        for expected in states.iter().skip(1) {
            history.redo();
            assert_eq!(&words(&history), expected);
        }
        assert!(!history.can_redo());
        assert_eq!(history.now().own[&2].label.as_deref(), Some("cat"));
    }

    #[test]
    fn a_new_step_after_undo_ends_redo_and_numbers_are_never_used_twice() {
        let mut history = BoxHistory::default();
        history.draw(at(1.).into());
        history.undo();
        assert!(history.can_redo());
        history.draw(at(2.).into());
        assert!(!history.can_redo());
        assert_eq!(words(&history), "1@2||");
        history.hide([found(1)], false);
        history.undo();
        assert_eq!(words(&history), "||", "a step that changes nothing is none");
    }

    #[test]
    fn a_drawn_box_that_gets_another_shape_is_one_step() {
        let mut history = BoxHistory::default();
        history.draw(at(1.).into());
        history.reshape(BoxId::Own(0), at(2.), None, true);
        assert_eq!(words(&history), "0@2||");
        history.undo();
        assert_eq!(words(&history), "||");
    }

    #[test]
    fn moves_that_continue_are_one_step() {
        let mut history = BoxHistory::default();
        history.draw(at(0.).into());
        let id = history.reshape(found(4), at(1.), None, true);
        assert_eq!(id, BoxId::Own(1));
        for x in 2..6 {
            history.reshape(id, at(x as f32), None, true);
        }
        history.reshape(BoxId::Own(0), at(50.), None, true);
        history.reshape(id, at(70.), None, true);
        for expected in ["0@50 1@5|4|", "0@0 1@5|4|", "0@0||", "||"] {
            history.undo();
            assert_eq!(words(&history), expected);
        }
    }

    #[test]
    fn another_model_leaves_only_what_concerns_boxes_of_the_user() {
        let mut history = BoxHistory::default();
        history.remove([found(1)]);
        history.draw(at(1.).into());
        history.hide([found(2), BoxId::Own(0)], true);
        history.hide([found(3)], true);
        history.forget_proposals();
        assert_eq!(words(&history), "0@1||own0");
        for expected in ["0@1||", "||", "||"] {
            history.undo();
            assert_eq!(words(&history), expected);
        }
        assert!(!history.can_undo());
    }

    #[test]
    fn the_oldest_steps_are_forgotten() {
        let mut history = BoxHistory::default();
        for x in 0..MAX_STEPS + 10 {
            history.draw(at(x as f32).into());
        }
        while history.can_undo() {
            history.undo();
        }
        assert_eq!(history.now().own.len(), 10);
    }
}
