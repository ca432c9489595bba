//! The model manager: what the person does and what the library says go in, the state changes,
//! requests come out.
//!
//! Rules. Nothing but the demo model is fetched before its licence was accepted. What the library
//! lists is the truth; the person's presses show at once and are corrected by the next list. When
//! the worker is lost, what was moving goes on in the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chat::conversation::Model;
use crate::error::Fault;
use crate::protocol::store::{
    Activity, ModelId, Moved, StoreEvent, StoreRequest, StoredModel, Survey,
};

/// The rate is that of this many milliseconds.
const WINDOW: f64 = 5_000.0;

/// A model the engine can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The small one beside the page.
    #[default]
    Demo,
    /// A kept one.
    Kept(ModelId),
}

/// What the person does, and what the library says.
#[derive(Clone, Debug)]
pub enum Input {
    /// A new worker runs.
    Started,
    /// The worker is gone.
    Lost,
    /// The library said something.
    Heard(Box<StoreEvent>),
    /// Look at an address or a hub's name.
    Survey(String),
    /// Look at files, which travel beside the request.
    SurveyFiles,
    /// The licence of the surveyed model is accepted, or not any more.
    Accept(bool),
    /// Bring the surveyed model here.
    Begin,
    /// Put the survey away.
    Forget,
    /// Go on with a model that is here in part.
    Resume(ModelId),
    /// Pause.
    Pause(ModelId),
    /// Give up, and keep or delete what came.
    Cancel {
        /// The model.
        model: ModelId,
        /// Whether what came stays.
        keep: bool,
    },
    /// Delete a kept model.
    Delete(ModelId),
    /// Give the engine another model.
    Load(Choice),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the library.
    Send(StoreRequest),
    /// Ask the browser to keep what is stored.
    Persist,
    /// Load a model into the engine.
    Load(Choice),
}

/// What is known of a model that could be brought here.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Search {
    /// Nothing was asked for.
    #[default]
    Idle,
    /// Its manifest is being read.
    Looking,
    /// It can be had.
    Found {
        /// What it is.
        survey: Survey,
        /// Whether its licence was accepted.
        accepted: bool,
    },
    /// It cannot.
    Failed(Fault),
}

/// A kept model.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// As the library listed it.
    pub shelved: StoredModel,
    /// How far it is.
    pub moved: Moved,
    /// Why it stopped.
    pub fault: Option<Fault>,
    /// When how many bytes had come.
    samples: VecDeque<(f64, u64)>,
}

/// Where a kept model stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Some of it is here.
    Partial,
    /// It comes.
    Moving {
        /// Bytes per second over the last seconds, once known.
        rate: Option<f64>,
        /// Seconds left at that rate.
        left: Option<f64>,
        /// Whether the network is waited for.
        waiting: bool,
    },
    /// It waits for the person.
    Paused,
    /// All of it is here.
    Ready,
    /// The engine takes it.
    Loading,
    /// The engine has it.
    Loaded,
    /// Another tab has it.
    Elsewhere,
}

impl Status {
    /// The word for it, for tests and style.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Moving { .. } => "moving",
            Self::Paused => "paused",
            Self::Ready => "ready",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl Item {
    fn new(shelved: StoredModel) -> Self {
        let moved = Moved {
            done: shelved.done,
            total: shelved.facts.bytes,
            ..Moved::default()
        };
        Self {
            shelved,
            moved,
            fault: None,
            samples: VecDeque::new(),
        }
    }

    /// Bytes per second over the last seconds.
    pub fn rate(&self) -> Option<f64> {
        let (&(from, before), &(to, now)) = (self.samples.front()?, self.samples.back()?);
        (to - from >= 500.0).then(|| (now - before) as f64 / (to - from) * 1000.0)
    }

    /// Seconds left at that rate.
    pub fn left(&self) -> Option<f64> {
        let missing = self.moved.total.saturating_sub(self.moved.done) as f64;
        self.rate().filter(|&r| r > 0.0).map(|rate| missing / rate)
    }

    fn sample(&mut self, now: f64) {
        self.samples.push_back((now, self.moved.fetched));
        while self.samples.get(1).is_some_and(|s| now - s.0 >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// True when all of it is here.
    pub fn is_whole(&self) -> bool {
        self.shelved.done >= self.shelved.facts.bytes
    }
}

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelManager {
    items: Vec<Item>,
    search: Search,
    /// The model the engine was last given.
    choice: Choice,
    /// What goes on as soon as the next worker runs.
    interrupted: BTreeSet<ModelId>,
    /// What went wrong with a model that is not on the list.
    fault: Option<Fault>,
}

impl ModelManager {
    /// The kept models, in the library's order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// One of them.
    pub fn item(&self, model: &ModelId) -> Option<&Item> {
        self.items.iter().find(|item| item.shelved.model == *model)
    }

    /// What is known of a model that could be brought here.
    pub fn search(&self) -> &Search {
        &self.search
    }

    /// The model the engine was last given.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// What went wrong with a model that is not on the list.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Bytes of all kept models; whole files are reserved before they come.
    pub fn used(&self) -> u64 {
        self.items.iter().map(|i| i.shelved.facts.bytes).sum()
    }

    /// The model on its way, the first if there are several.
    pub fn moving(&self) -> Option<&Item> {
        let mut items = self.items.iter();
        items.find(|item| item.shelved.activity == Activity::Moving)
    }

    /// Where a kept model stands while the engine's model stands at `engine`.
    pub fn stand(&self, item: &Item, engine: &Model) -> Status {
        let chosen = self.choice == Choice::Kept(item.shelved.model.clone());
        match item.shelved.activity {
            Activity::Moving => Status::Moving {
                rate: item.rate(),
                left: item.left(),
                waiting: item.moved.waiting,
            },
            Activity::Paused => Status::Paused,
            Activity::Elsewhere => Status::Elsewhere,
            Activity::Idle | Activity::Loaded if chosen => match engine {
                Model::Loading(_) => Status::Loading,
                Model::Ready(_) => Status::Loaded,
                Model::Absent | Model::Failed(_) => Self::at_rest(item),
            },
            Activity::Idle | Activity::Loaded => Self::at_rest(item),
        }
    }

    fn at_rest(item: &Item) -> Status {
        match item.is_whole() {
            true => Status::Ready,
            false => Status::Partial,
        }
    }

    /// Takes one input at `now`, in milliseconds since whenever; gives what is to be done.
    pub fn step(&mut self, input: Input, now: f64) -> Vec<Effect> {
        match input {
            Input::Started => vec![Effect::Send(StoreRequest::List)],
            Input::Lost => {
                let moving = self.items.iter_mut();
                for item in moving.filter(|i| i.shelved.activity == Activity::Moving) {
                    self.interrupted.insert(item.shelved.model.clone());
                    item.moved.waiting = true;
                    item.samples.clear();
                }
                if self.search == Search::Looking {
                    self.search = Search::Idle;
                }
                Vec::new()
            }
            Input::Heard(event) => self.hear(*event, now),
            Input::Survey(address) => {
                if address.trim().is_empty() {
                    return Vec::new();
                }
                self.search = Search::Looking;
                vec![Effect::Send(StoreRequest::Survey { address })]
            }
            Input::SurveyFiles => {
                self.search = Search::Looking;
                vec![Effect::Send(StoreRequest::SurveyFiles)]
            }
            Input::Accept(yes) => {
                if let Search::Found { accepted, .. } = &mut self.search {
                    *accepted = yes;
                }
                Vec::new()
            }
            Input::Begin => match std::mem::take(&mut self.search) {
                Search::Found {
                    survey,
                    accepted: true,
                } => {
                    self.fault = None;
                    let model = survey.model;
                    self.change(&model, Activity::Moving);
                    vec![Effect::Persist, Effect::Send(StoreRequest::Keep { model })]
                }
                other => {
                    self.search = other;
                    Vec::new()
                }
            },
            Input::Forget => {
                self.search = Search::Idle;
                self.fault = None;
                Vec::new()
            }
            Input::Resume(model) => {
                self.change(&model, Activity::Moving);
                vec![Effect::Persist, Effect::Send(StoreRequest::Keep { model })]
            }
            Input::Pause(model) => {
                self.change(&model, Activity::Paused);
                vec![Effect::Send(StoreRequest::Pause { model })]
            }
            Input::Cancel { model, keep } => {
                self.interrupted.remove(&model);
                vec![Effect::Send(StoreRequest::Cancel { model, keep })]
            }
            Input::Delete(model) => vec![Effect::Send(StoreRequest::Delete { model })],
            Input::Load(choice) => {
                self.choice = choice.clone();
                if let Choice::Kept(model) = &choice
                    && let Some(item) = self.item_mut(model)
                {
                    item.fault = None;
                }
                vec![Effect::Load(choice)]
            }
        }
    }

    fn hear(&mut self, event: StoreEvent, now: f64) -> Vec<Effect> {
        match event {
            StoreEvent::Listed { models } => return self.listed(models),
            StoreEvent::Surveyed(survey) => {
                let accepted = false;
                self.search = Search::Found { survey, accepted };
            }
            StoreEvent::NotSurveyed { fault } => self.search = Search::Failed(fault),
            StoreEvent::Moved { model, moved } => {
                if let Some(item) = self.item_mut(&model) {
                    item.moved = Moved {
                        // The library's tally is of shards; the tokenizer comes before it.
                        done: moved.done
                            + (item.shelved.facts.bytes
                                - moved.total.min(item.shelved.facts.bytes)),
                        total: item.shelved.facts.bytes,
                        ..moved
                    };
                    item.sample(now);
                }
            }
            StoreEvent::Complete { model } => {
                if let Some(item) = self.item_mut(&model) {
                    item.shelved.done = item.shelved.facts.bytes;
                    item.shelved.activity = Activity::Idle;
                    item.fault = None;
                }
            }
            StoreEvent::Failed { model, fault } => match self.item_mut(&model) {
                Some(item) => item.fault = Some(fault),
                None => self.fault = Some(fault),
            },
        }
        Vec::new()
    }

    fn listed(&mut self, models: Vec<StoredModel>) -> Vec<Effect> {
        let mut known: BTreeMap<ModelId, Item> = std::mem::take(&mut self.items)
            .into_iter()
            .map(|item| (item.shelved.model.clone(), item))
            .collect();
        for shelved in models {
            let item = match known.remove(&shelved.model) {
                Some(mut item) => {
                    if shelved.activity != Activity::Moving {
                        item.samples.clear();
                        item.moved = Item::new(shelved.clone()).moved;
                    }
                    item.shelved = shelved;
                    item
                }
                None => Item::new(shelved),
            };
            self.items.push(item);
        }
        let interrupted = std::mem::take(&mut self.interrupted);
        let mut orders = Vec::new();
        for model in interrupted {
            if self.item(&model).is_some_and(|item| !item.is_whole()) {
                self.change(&model, Activity::Moving);
                orders.push(Effect::Send(StoreRequest::Keep { model }));
            }
        }
        orders
    }

    fn item_mut(&mut self, model: &ModelId) -> Option<&mut Item> {
        let mut items = self.items.iter_mut();
        items.find(|item| item.shelved.model == *model)
    }

    fn change(&mut self, model: &ModelId, activity: Activity) {
        if let Some(item) = self.item_mut(model) {
            item.shelved.activity = activity;
            item.samples.clear();
            item.fault = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;
    use crate::protocol::store::Facts;

    fn heard(event: StoreEvent) -> Input {
        Input::Heard(Box::new(event))
    }

    fn id() -> ModelId {
        ModelId("00112233aabbccdd".into())
    }

    fn facts() -> Facts {
        Facts {
            name: "big".into(),
            precision: "q4".into(),
            trained_on: String::new(),
            licence: "some".into(),
            licence_text: "text".into(),
            bytes: 1_010,
        }
    }

    fn shelved(done: u64, activity: Activity) -> Input {
        heard(StoreEvent::Listed {
            models: vec![StoredModel {
                model: id(),
                facts: facts(),
                address: None,
                done,
                used: None,
                activity,
            }],
        })
    }

    fn surveyed() -> Input {
        heard(StoreEvent::Surveyed(Survey {
            model: id(),
            facts: facts(),
            address: None,
            fit: None,
        }))
    }

    fn moved(done: u64, fetched: u64) -> Input {
        let moved = Moved {
            done,
            total: 1_000,
            fetched,
            ..Moved::default()
        };
        heard(StoreEvent::Moved { model: id(), moved })
    }

    fn fault() -> Fault {
        Fault::new(FaultKind::Network, "a.safetensors", "is short", "")
    }

    fn keep() -> Effect {
        Effect::Send(StoreRequest::Keep { model: id() })
    }

    fn stand(library: &ModelManager) -> &'static str {
        let item = library.item(&id()).expect("it is listed");
        library.stand(item, &Model::Loading(None)).word()
    }

    #[test]
    fn nothing_comes_before_the_licence_is_accepted() {
        let mut library = ModelManager::default();
        let asked = library.step(Input::Survey("a/b".into()), 0.);
        assert_eq!(asked.len(), 1);
        assert_eq!(library.step(Input::Begin, 0.), []);
        library.step(surveyed(), 0.);
        assert_eq!(library.step(Input::Begin, 0.), []);
        library.step(Input::Accept(true), 0.);
        assert_eq!(library.step(Input::Begin, 0.), [Effect::Persist, keep()]);
        assert_eq!(library.search(), &Search::Idle);
    }

    #[test]
    fn a_new_survey_must_be_accepted_again() {
        let mut library = ModelManager::default();
        library.step(surveyed(), 0.);
        library.step(Input::Accept(true), 0.);
        library.step(surveyed(), 0.);
        assert_eq!(library.step(Input::Begin, 0.), []);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut library = ModelManager::default();
        library.step(shelved(10, Activity::Moving), 0.);
        library.step(moved(0, 0), 0.);
        let item = |library: &ModelManager| library.item(&id()).expect("listed").clone();
        assert_eq!(item(&library).rate(), None, "one sample says nothing");
        for second in 1..=4_u64 {
            library.step(moved(second * 10, second * 10), second as f64 * 1000.);
        }
        assert_eq!(item(&library).rate(), Some(10.));
        for second in 5..=10_u64 {
            let bytes = 40 + (second - 4) * 50;
            library.step(moved(bytes, bytes), second as f64 * 1000.);
        }
        assert_eq!(item(&library).rate(), Some(50.));
        assert_eq!(item(&library).left(), Some((1_000 - 340) as f64 / 50.));
        assert_eq!(item(&library).moved.done, 350, "the tokenizer is counted");
        library.step(Input::Pause(id()), 10_000.);
        assert_eq!(item(&library).rate(), None);
        assert_eq!(stand(&library), "paused");
    }

    #[test]
    fn a_model_goes_its_way() {
        let mut library = ModelManager::default();
        library.step(shelved(510, Activity::Idle), 0.);
        assert_eq!(stand(&library), "partial");
        assert_eq!(
            library.step(Input::Resume(id()), 0.),
            [Effect::Persist, keep()]
        );
        assert_eq!(stand(&library), "moving");
        library.step(
            heard(StoreEvent::Failed {
                model: id(),
                fault: fault(),
            }),
            0.,
        );
        library.step(shelved(610, Activity::Idle), 0.);
        assert_eq!(stand(&library), "partial");
        assert_eq!(library.items()[0].fault, Some(fault()));
        library.step(Input::Resume(id()), 0.);
        assert_eq!(library.items()[0].fault, None);
        library.step(heard(StoreEvent::Complete { model: id() }), 0.);
        assert_eq!(stand(&library), "ready");
        let choice = Choice::Kept(id());
        let orders = library.step(Input::Load(choice.clone()), 0.);
        assert_eq!(orders, [Effect::Load(choice)]);
        assert_eq!(stand(&library), "loading");
        library.step(Input::Load(Choice::Demo), 0.);
        assert_eq!(stand(&library), "ready");
        library.step(heard(StoreEvent::Listed { models: vec![] }), 0.);
        assert!(library.items().is_empty());
    }

    #[test]
    fn what_was_moving_goes_on_in_the_next_worker() {
        let mut library = ModelManager::default();
        library.step(shelved(510, Activity::Moving), 0.);
        library.step(Input::Lost, 0.);
        assert_eq!(
            library.step(Input::Started, 0.),
            [Effect::Send(StoreRequest::List)]
        );
        assert_eq!(library.step(shelved(510, Activity::Idle), 0.), [keep()]);
        assert_eq!(stand(&library), "moving");
        assert_eq!(library.step(shelved(510, Activity::Moving), 0.), []);
        library.step(shelved(510, Activity::Paused), 0.);
        library.step(Input::Lost, 0.);
        assert_eq!(library.step(shelved(510, Activity::Idle), 0.), []);
    }

    #[test]
    fn what_fails_before_it_is_listed_is_told_too() {
        let mut library = ModelManager::default();
        library.step(
            heard(StoreEvent::Failed {
                model: id(),
                fault: fault(),
            }),
            0.,
        );
        assert_eq!(library.fault(), Some(&fault()));
        library.step(Input::Forget, 0.);
        assert_eq!(library.fault(), None);
    }
}
