//! Kept conversations: what is written of one, how it is read again, and the list of all of them.
//!
//! Rules. A conversation is a [`Head`] for the list and a [`Snapshot`] of everything on the screen. What
//! cannot be read is skipped and stays stored. An answer that was not complete counts as stopped. A
//! conversation that another tab changed is not overwritten: this tab goes on with a copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chat::box_history::{BoxEdits, BoxHistory};
use crate::chat::candidates::{BoxId, Candidates, Filter};
use crate::chat::choices::Choices;
use crate::chat::conversation::{
    Conversation, Input, KeptFilter, LookState, Phase, Picture, Settings, Turn, Version,
};
use crate::chat::page_strings::UNNAMED;
use crate::chat::question::{Draft, QuestionKind};
use crate::error::Fault;
use crate::protocol::{
    Answer, Granularity, ImageSize, Link, LookTime, PictureId, Proposal, StopReason, TurnId,
};
use crate::text::answer_parser::Span;

/// The version that this page writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Another version of the page wrote it.
    Version(u32),
    /// It is damaged.
    Damaged,
}

/// A conversation as it was on the screen. Boxes are in pixels of the picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// Size of the picture; `None` if it was never opened.
    pub size: Option<ImageSize>,
    /// All proposals, best first, per granularity.
    pub proposals: BTreeMap<Granularity, Vec<Proposal>>,
    /// Duration of the last look.
    pub milliseconds: Option<LookTime>,
    /// The boxes of the user, and the proposals that are out of use.
    pub boxes: BoxEdits,
    /// The number of the next box of the user.
    pub next_own: u32,
    /// The names that the model gave to boxes.
    pub names: Vec<(BoxId, String)>,
    /// The granularity.
    pub granularity: Granularity,
    /// The filters, if the user moved them.
    pub filter: Option<Filter>,
    /// The filters of its model, if the user did not move them.
    #[serde(default)]
    pub model_filter: Option<Filter>,
    /// The turns, oldest first.
    pub turns: Vec<SavedTurn>,
    /// The question being written.
    pub draft: String,
    /// Its kind.
    pub kind: QuestionKind,
    /// How its questions are answered.
    #[serde(default)]
    pub choices: Option<Choices>,
}

/// A turn as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTurn {
    /// The question as the user sees it.
    pub shown: String,
    /// The question as the model reads it.
    pub question: String,
    /// The boxes that it was sent with.
    pub boxes: Option<Candidates>,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer so far.
    pub spans: Vec<Span>,
    /// The complete answer.
    pub answer: Option<Answer>,
    /// What the user wrote.
    #[serde(default)]
    pub draft: Draft,
    /// How the question was answered.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// How often it was asked again.
    #[serde(default)]
    pub retries: u32,
    /// Its other answers, in order.
    #[serde(default)]
    pub others: Vec<Version>,
    /// Place of the shown answer among all.
    #[serde(default)]
    pub version: usize,
    /// How sure the model was of each index.
    #[serde(default)]
    pub certainty: Vec<Link>,
    /// The user's boxes of a piece, by its index.
    #[serde(default)]
    pub links: BTreeMap<usize, Vec<u32>>,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// With an answer.
    Done,
    /// Without the end of an answer.
    Stopped,
    /// With a failure.
    Failed(Fault),
}

impl Snapshot {
    /// The conversation with the draft; `None` without a picture.
    pub fn of(conversation: &Conversation, draft: &str, kind: QuestionKind) -> Option<Self> {
        let Picture {
            id: _,
            size,
            look: _,
            milliseconds,
            proposals,
            boxes,
            names,
        } = conversation.picture()?;
        let proposals = proposals.iter().map(|(&g, all)| (g, all.to_vec()));
        let (filter, model_filter) = match conversation.kept_filter() {
            KeptFilter::Moved(filter) => (Some(filter), None),
            KeptFilter::OfModel(filter) => (None, Some(filter)),
        };
        Some(Self {
            version: VERSION,
            size: Some(*size),
            proposals: proposals.collect(),
            milliseconds: *milliseconds,
            boxes: boxes.now().clone(),
            next_own: boxes.next_own(),
            names: names.iter().map(|(&id, name)| (id, name.clone())).collect(),
            granularity: conversation.granularity(),
            filter,
            model_filter,
            turns: conversation.turns().iter().map(SavedTurn::of).collect(),
            draft: draft.to_owned(),
            kind,
            choices: Some(conversation.choices().clone()),
        })
    }

    /// The input that shows the conversation again; its picture gets the number `id`.
    pub fn restore(self, id: PictureId) -> Input {
        let proposals = self
            .proposals
            .into_iter()
            .map(|(g, all)| (g, Arc::new(all)));
        let picture = Picture {
            id,
            size: self.size.unwrap_or(ImageSize {
                width: 1,
                height: 1,
            }),
            look: LookState::Waiting,
            milliseconds: self.milliseconds,
            proposals: proposals.collect(),
            boxes: BoxHistory::restored(self.boxes, self.next_own),
            names: self.names.into_iter().collect(),
        };
        Input::Resume {
            picture: Box::new(picture),
            turns: self.turns.into_iter().map(SavedTurn::restore).collect(),
            granularity: self.granularity,
            filter: match self.filter {
                Some(filter) => Some(KeptFilter::Moved(filter)),
                None => self.model_filter.map(KeptFilter::OfModel),
            },
            choices: self.choices,
        }
    }

    /// The text that is stored.
    ///
    /// # Panics
    /// Never: it is plain data with text as keys.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data with text as keys")
    }

    /// Reads a stored text.
    ///
    /// # Errors
    /// Another version, or damaged.
    pub fn read(json: &str) -> Result<Self, Unreadable> {
        let mut snapshot: Self = read(json)?;
        let is_sound = snapshot
            .size
            .is_none_or(|size| size.width > 0 && size.height > 0);
        if !is_sound {
            return Err(Unreadable::Damaged);
        }
        for filter in [&mut snapshot.filter, &mut snapshot.model_filter] {
            *filter = filter.filter(|f| f.is_in_range());
        }
        Ok(snapshot)
    }
}

impl SavedTurn {
    fn of(turn: &Turn) -> Self {
        Self {
            shown: turn.shown.clone(),
            question: turn.question.clone(),
            boxes: turn.boxes.as_deref().cloned(),
            outcome: match &turn.phase {
                Phase::Done => Outcome::Done,
                Phase::Failed(fault) => Outcome::Failed(fault.clone()),
                Phase::Queued
                | Phase::Looking
                | Phase::Reading(_)
                | Phase::Streaming
                | Phase::Stopped => Outcome::Stopped,
            },
            spans: turn.spans.clone(),
            answer: turn.answer.clone(),
            draft: turn.draft.clone(),
            settings: turn.settings,
            retries: turn.retries,
            others: turn.others.clone(),
            version: turn.version,
            certainty: turn.certainty.clone(),
            links: turn.links.clone(),
        }
    }

    /// The conversation numbers it.
    fn restore(self) -> Turn {
        // Only the length limit and the end of an answer leave it complete.
        let is_complete = |a: &Answer| a.stop != StopReason::Stopped;
        let phase = match self.outcome {
            Outcome::Done if self.answer.as_ref().is_some_and(is_complete) => Phase::Done,
            Outcome::Done | Outcome::Stopped => Phase::Stopped,
            Outcome::Failed(fault) => Phase::Failed(fault),
        };
        let mut turn = Turn::new(TurnId(0), self.shown, self.question, self.draft);
        turn.boxes = self.boxes.map(Arc::new);
        turn.phase = phase;
        turn.spans = self.spans;
        turn.answer = self.answer;
        turn.settings = self.settings;
        turn.retries = self.retries;
        turn.version = self.version.min(self.others.len());
        turn.others = self.others;
        turn.certainty = self.certainty;
        turn.links = self.links;
        turn
    }
}

/// What the list shows of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// [`VERSION`].
    pub version: u32,
    /// Its key.
    pub id: String,
    /// Name of the picture's file; empty for a pasted one.
    pub name: String,
    /// The title that the user gave it.
    pub renamed: Option<String>,
    /// The questions, oldest first.
    pub questions: Vec<String>,
    /// The model that was loaded last.
    pub model: String,
    /// When it began, in milliseconds since 1970.
    pub created: f64,
    /// When it was changed last.
    pub changed: f64,
    /// The pictures that were opened together have the same group.
    pub group: Option<String>,
    /// Counts the changes.
    pub revision: u32,
}

impl Head {
    /// The user's title, else the first question, else the name of the file.
    pub fn title(&self) -> &str {
        let first = self.questions.first().map(String::as_str);
        let all = [self.renamed.as_deref(), first, Some(&*self.name)];
        let mut titles = all.into_iter().flatten().filter(|t| !t.trim().is_empty());
        titles.next().unwrap_or_else(UNNAMED)
    }

    /// Whether every word of `query` occurs in title, questions or name, in any case.
    pub fn matches(&self, query: &str) -> bool {
        let text = [self.title(), &self.name, &self.questions.join("\n")].join("\n");
        let text = text.to_lowercase();
        let query = query.to_lowercase();
        query.split_whitespace().all(|word| text.contains(word))
    }

    /// The text that is stored.
    ///
    /// # Panics
    /// Never: it is plain data with text as keys.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data with text as keys")
    }

    /// Reads a stored text.
    ///
    /// # Errors
    /// Another version, or damaged.
    pub fn read(json: &str) -> Result<Self, Unreadable> {
        read(json)
    }
}

fn read<T: DeserializeOwned>(json: &str) -> Result<T, Unreadable> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(json).map_err(|_| Unreadable::Damaged)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    serde_json::from_str(json).map_err(|_| Unreadable::Damaged)
}

/// Where a change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// To the record, as this revision.
    Write(u32),
    /// To a copy: another tab changed the record.
    Copy,
}

/// Where a change is written: `stored` is the revision in the store, `seen` the one that this tab read
/// or wrote last. A record that another tab deleted is written again: here it is in use.
pub fn save(stored: Option<u32>, seen: u32) -> Save {
    match stored {
        Some(stored) if stored != seen => Save::Copy,
        _ => Save::Write(seen.saturating_add(1)),
    }
}

/// Why conversations are not kept at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The browser offers no storage here, as in some private windows.
    NoStorage,
    /// The browser has no room left.
    Full,
}

/// The list of kept conversations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shelf {
    heads: Vec<Head>,
    /// How many records could not be read.
    pub skipped: usize,
    /// What the user searches for.
    pub query: String,
    /// Why nothing is kept.
    pub trouble: Option<Trouble>,
}

impl Shelf {
    /// Takes the stored records in place of those before.
    pub fn fill<'a>(&mut self, records: impl IntoIterator<Item = &'a str>) {
        self.heads.clear();
        self.skipped = 0;
        for record in records {
            match Head::read(record) {
                Ok(head) => self.put(head),
                Err(_) => self.skipped += 1,
            }
        }
    }

    /// Adds a conversation, or replaces it.
    pub fn put(&mut self, head: Head) {
        self.remove(&head.id);
        let newer = |h: &Head| h.changed.total_cmp(&head.changed).is_gt();
        let place = self.heads.iter().take_while(|h| newer(h)).count();
        self.heads.insert(place, head);
    }

    /// Removes a conversation from the list.
    pub fn remove(&mut self, id: &str) {
        self.heads.retain(|h| h.id != id);
    }

    /// Removes all of them.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.skipped = 0;
    }

    /// A conversation by its key.
    pub fn get(&self, id: &str) -> Option<&Head> {
        self.heads.iter().find(|h| h.id == id)
    }

    /// All conversations, the one changed last first.
    pub fn all(&self) -> &[Head] {
        &self.heads
    }

    /// Those that match the query.
    pub fn found(&self) -> impl Iterator<Item = &Head> {
        self.heads.iter().filter(|h| h.matches(&self.query))
    }

    /// The pictures that were opened together with `id`, in their order; none for a single one.
    pub fn group(&self, id: &str) -> Vec<&Head> {
        let group = self.get(id).and_then(|h| h.group.as_deref());
        let mut all: Vec<_> = match group {
            Some(group) => {
                let heads = self.heads.iter();
                heads
                    .filter(|h| h.group.as_deref() == Some(group))
                    .collect()
            }
            None => Vec::new(),
        };
        all.sort_by(|a, b| a.created.total_cmp(&b.created));
        if all.len() < 2 { Vec::new() } else { all }
    }

    /// The picture `step` places after `id` in its group; `None` at the ends.
    pub fn neighbor(&self, id: &str, step: isize) -> Option<&Head> {
        let group = self.group(id);
        let place = group.iter().position(|h| h.id == id)?;
        group.get(place.checked_add_signed(step)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation::Model;
    use crate::chat::test_data::{after, load, open, proposed, ready};
    use crate::protocol::{AskTime, Event, Request};

    const A: PictureId = PictureId(1);
    const B: PictureId = PictureId(7);

    fn ask(words: &str) -> Input {
        Input::Ask {
            shown: words.into(),
            question: words.into(),
        }
    }

    fn span(text: &str, objects: &[u32]) -> Span {
        Span {
            text: text.into(),
            objects: objects.to_vec(),
            ..Span::default()
        }
    }

    fn done(turn: u32) -> Input {
        Input::Event(Event::Done {
            turn: TurnId(turn),
            answer: Answer {
                prompt: "p".into(),
                text: "a cup".into(),
                spans: vec![span("a ", &[]), span("cup", &[1])],
                tokens: 3,
                prefill_tokens: 9,
                question_tokens: 0,
                gpu_bytes: None,
                stop: StopReason::End,
                milliseconds: AskTime::default(),
            },
        })
    }

    /// An answered turn, and one in the middle of its answer.
    fn conversation() -> Conversation {
        after([
            load(),
            open(A),
            ready(),
            proposed(A, Granularity::Coarse),
            Input::Draw([1., 2., 3., 4.].into()),
            Input::Filter(Filter {
                score: 0.2,
                ..Filter::default()
            }),
            ask("first?"),
            done(0),
            ask("second?"),
            Input::Event(Event::Said {
                turn: TurnId(1),
                spans: vec![span("half", &[])],
            }),
        ])
    }

    fn snapshot() -> Snapshot {
        Snapshot::of(&conversation(), "and [2]?", QuestionKind::Find).expect("a picture")
    }

    fn restored(before: impl IntoIterator<Item = Input>) -> (Conversation, Vec<Request>) {
        let mut conversation = after(before);
        let requests = conversation.step(snapshot().restore(B));
        (conversation, requests)
    }

    #[test]
    fn a_conversation_is_read_as_it_was_written() {
        let snapshot = snapshot();
        assert_eq!(Snapshot::read(&snapshot.to_json()), Ok(snapshot.clone()));
        assert_eq!(snapshot.draft, "and [2]?");
        assert_eq!(Snapshot::of(&after([load()]), "", QuestionKind::Free), None);
    }

    #[test]
    fn a_restored_conversation_shows_the_same_and_asks_nothing() {
        for before in [vec![], vec![load()], vec![load(), ready()]] {
            let was = conversation();
            let (mut now, mut requests) = restored(before.clone());
            if before.len() < 2 {
                now.step(load());
                requests.extend(now.step(ready()));
            }
            assert_eq!(requests, [], "{before:?}");
            assert_eq!(now.candidates(), was.candidates());
            assert_eq!(now.filter(), was.filter());
            assert_eq!(now.candidates().number(BoxId::Own(0)), Some(2));
            let picture = now.picture().expect("restored");
            assert_eq!(
                (picture.look.clone(), picture.next_own()),
                (LookState::Done, 1)
            );
            let [first, second] = now.turns() else {
                panic!("{:?}", now.turns());
            };
            assert_eq!(
                (&first.phase, &second.phase),
                (&Phase::Done, &Phase::Stopped)
            );
            assert_eq!(first.pieces(), was.turns()[0].pieces());
            assert_eq!(first.boxes, was.turns()[0].boxes);
            assert_eq!(second.spans, [span("half", &[])]);
            assert!(now.can_ask() && matches!(now.model(), Model::Ready(_)));
        }
    }

    #[test]
    fn filters_that_nobody_moved_are_those_of_the_model_before_it_is_ready_too() {
        let asked = [load(), open(A), ready(), proposed(A, Granularity::Coarse)];
        let was = after(asked);
        assert_ne!(was.filter(), Filter::default(), "the model has its own");
        let json = Snapshot::of(&was, "", QuestionKind::Find)
            .expect("a picture")
            .to_json();
        let restore = || Snapshot::read(&json).expect("readable").restore(B);
        let mut now = after([restore()]);
        for input in [load(), ready()] {
            assert_eq!(now.candidates(), was.candidates());
            assert_eq!((now.filter(), now.moved_filter()), (was.filter(), None));
            now.step(input);
        }
        let moved = Filter {
            score: 0.9,
            ..Filter::default()
        };
        let now = after([Input::Filter(moved), restore()]);
        assert_eq!(now.filter(), moved, "the user's stay");
        let older = json.replacen("\"model_filter\"", "\"later\"", 1);
        let older = Snapshot::read(&older).expect("readable without it");
        assert_eq!(after([older.restore(B)]).filter(), Filter::default());
    }

    #[test]
    fn the_first_question_to_a_restored_picture_brings_it_to_the_engine() {
        let (mut now, _) = restored([load(), ready()]);
        let shown = now.candidates().clone();
        let requests = now.step(ask("third?"));
        let [Request::Look { picture, size, .. }] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert_eq!((*picture, size.is_some()), (B, true));
        let requests = now.step(proposed(B, Granularity::Coarse));
        let [Request::Ask { turn, question, .. }] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert_eq!(*turn, TurnId(2), "numbers go on");
        assert_eq!(question.boxes.len(), shown.boxes.len());
        assert_eq!(now.turns()[2].boxes, Some(shown));
        let (mut now, _) = restored([load(), ready()]);
        let first = now.turns()[0].id;
        assert!(matches!(
            now.step(Input::Retry(first))[..],
            [Request::Look { .. }]
        ));
    }

    #[test]
    fn another_model_looks_at_a_restored_picture_and_a_closed_one_is_gone() {
        let (mut now, _) = restored([load(), ready()]);
        let other = Input::Load {
            model: "other".into(),
            device: crate::protocol::DevicePreference::Auto,
        };
        now.step(other);
        let mut card = crate::chat::test_data::card();
        card.asked_for = "other".into();
        let requests = now.step(Input::Event(Event::Ready(card)));
        assert!(
            matches!(requests[..], [Request::Look { .. }]),
            "{requests:?}"
        );
        let mut now = conversation();
        assert!(matches!(
            now.step(Input::Close)[..],
            [Request::Stop { turn: TurnId(1) }]
        ));
        assert!(now.picture().is_none() && now.turns().is_empty() && !now.can_ask());
        assert!(now.candidates().boxes.is_empty());
    }

    #[test]
    fn settings_can_be_reset() {
        let mut now = conversation();
        now.step(Input::Sampling(crate::generate::sampling::Sampling {
            temperature: 0.5,
            ..Default::default()
        }));
        now.step(Input::ResetSettings);
        assert_eq!(now.sampling(), Default::default());
        assert_eq!((now.filter().score, now.moved_filter()), (0.5, None));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_skipped() {
        let json = snapshot().to_json();
        let cases = [
            (String::new(), Unreadable::Damaged),
            ("{}".into(), Unreadable::Damaged),
            (json[..json.len() / 2].into(), Unreadable::Damaged),
            (
                json.replacen("\"version\":1", "\"version\":2", 1),
                Unreadable::Version(2),
            ),
            (
                json.replacen("\"width\":100", "\"width\":0", 1),
                Unreadable::Damaged,
            ),
            (
                json.replacen("\"turns\":[", "\"turns\":[7,", 1),
                Unreadable::Damaged,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(Snapshot::read(&text), Err(expected), "{text}");
        }
        let mut shelf = Shelf::default();
        let good = head("a", 1.0, None).to_json();
        let newer = good.replacen("\"version\":1", "\"version\":9", 1);
        shelf.fill([&*good, "", &newer]);
        assert_eq!((shelf.all().len(), shelf.skipped), (1, 2));
    }

    #[test]
    fn a_filter_out_of_range_and_a_reused_number_are_corrected() {
        let mut odd = snapshot();
        odd.next_own = 0;
        let out_of_range = Filter {
            score: 7.0,
            ..Filter::default()
        };
        (odd.filter, odd.model_filter) = (Some(out_of_range), Some(out_of_range));
        let read = Snapshot::read(&odd.to_json()).expect("readable");
        assert_eq!((read.filter, read.model_filter), (None, None));
        let now = after([read.restore(A)]);
        assert_eq!(now.picture().map(Picture::next_own), Some(1));
    }

    fn head(id: &str, changed: f64, group: Option<&str>) -> Head {
        Head {
            version: VERSION,
            id: id.into(),
            created: changed,
            changed,
            group: group.map(str::to_owned),
            ..Head::default()
        }
    }

    #[test]
    fn titles_and_search() {
        let mut head = head("a", 1.0, None);
        assert_eq!(head.title(), UNNAMED());
        head.name = "coffee.jpg".into();
        assert_eq!(head.title(), "coffee.jpg");
        head.questions = vec!["Where is the Cup?".into(), "And the spoon?".into()];
        assert_eq!(head.title(), "Where is the Cup?");
        for (query, expected) in [
            ("", true),
            ("cup", true),
            ("SPOON coffee", true),
            ("cup saucer", false),
        ] {
            assert_eq!(head.matches(query), expected, "{query}");
        }
        head.renamed = Some("Breakfast".into());
        assert_eq!(head.title(), "Breakfast");
        head.renamed = Some("  ".into());
        assert_eq!(head.title(), "Where is the Cup?");
    }

    #[test]
    fn the_newest_comes_first_and_groups_keep_their_order() {
        let mut shelf = Shelf::default();
        for (id, changed, group) in [
            ("a", 1.0, Some("g")),
            ("b", 3.0, None),
            ("c", 2.0, Some("g")),
            ("d", 4.0, Some("alone")),
        ] {
            shelf.put(head(id, changed, group));
        }
        let ids = |shelf: &Shelf| shelf.found().map(|h| h.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&shelf), ["d", "b", "c", "a"]);
        shelf.put(Head {
            changed: 9.0,
            ..shelf.get("a").expect("is there").clone()
        });
        assert_eq!(ids(&shelf), ["a", "d", "b", "c"]);
        let group = shelf
            .group("c")
            .iter()
            .map(|h| h.id.clone())
            .collect::<Vec<_>>();
        assert_eq!(group, ["a", "c"]);
        assert!(shelf.group("d").is_empty() && shelf.group("b").is_empty());
        for (id, step, expected) in [
            ("a", 1, Some("c")),
            ("a", -1, None),
            ("c", 1, None),
            ("c", -1, Some("a")),
            ("b", 1, None),
        ] {
            let found = shelf.neighbor(id, step).map(|h| h.id.as_str());
            assert_eq!(found, expected, "{id} {step}");
        }
        shelf.remove("a");
        assert_eq!(ids(&shelf), ["d", "b", "c"]);
        shelf.query = "nothing".into();
        assert!(ids(&shelf).is_empty());
    }

    #[test]
    fn another_tabs_changes_are_not_overwritten() {
        for (stored, seen, expected) in [
            (None, 0, Save::Write(1)),
            (Some(4), 4, Save::Write(5)),
            (Some(5), 4, Save::Copy),
            (Some(3), 4, Save::Copy),
            (None, 4, Save::Write(5)),
        ] {
            assert_eq!(save(stored, seen), expected, "{stored:?} {seen}");
        }
    }
}
