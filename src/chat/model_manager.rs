//! State machine of the model manager: inputs of the user and events of the model store go in,
//! effects come out.
//!
//! Rules. Only built-in models are fetched without an accepted licence. The store's list is
//! authoritative; an action of the user shows at once and the next list corrects it. When the worker
//! is lost, interrupted downloads resume in the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;

use crate::built_in::BuiltIn;
use crate::chat::conversation::Model;
use crate::error::{ErrorCode, Fault};
use crate::memory::{Fit, MemoryNeeds};
use crate::protocol::store::{
    Activity, DownloadProgress, ModelId, PICKED, Preview, ShardProgress, StoreEvent, StoreRequest,
    StoredModel,
};

/// The download rate is averaged over this many milliseconds.
const RATE_WINDOW: f64 = 5_000.0;

/// A model the engine can load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A built-in model, which is served with the page.
    BuiltIn(BuiltIn),
    /// A stored one.
    Stored(ModelId),
    /// One that is read where it is, and not stored.
    Unsaved {
        /// Its name.
        name: String,
        /// Its address; [`PICKED`] for files of the user.
        address: String,
    },
}

/// A model that the site offers beside the built-in ones.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// The address of its folder.
    #[serde(skip)]
    pub address: String,
}

/// The default model of the page.
impl Default for Choice {
    fn default() -> Self {
        Self::BuiltIn(BuiltIn::default())
    }
}

impl Choice {
    /// The model of the page at `address`: `?model=NAME` chooses a built-in one.
    pub fn of_address(address: &str) -> Self {
        Self::BuiltIn(Self::in_address(address).unwrap_or_default())
    }

    /// Whether the address of the page names a built-in model.
    pub fn is_in_address(address: &str) -> bool {
        Self::in_address(address).is_some()
    }

    fn in_address(address: &str) -> Option<BuiltIn> {
        let (address, _) = address.split_once('#').unwrap_or((address, ""));
        let (_, query) = address.split_once('?').unwrap_or((address, ""));
        let mut names = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("model="));
        names.next().and_then(BuiltIn::named)
    }
}

/// An action of the user or an event of the worker.
#[derive(Clone, Debug)]
pub enum Input {
    /// A new worker started.
    Started,
    /// The worker stopped.
    Lost,
    /// The model store sent an event.
    Event(Box<StoreEvent>),
    /// The site offers these models.
    Offered(Vec<Offer>),
    /// Preview the model at an address or of a hub's name.
    Preview(String),
    /// Preview the model in files, which are attached to the request.
    PreviewFiles,
    /// The licence of the previewed model is accepted, or no longer.
    Accept(bool),
    /// Download or import the previewed model.
    Download,
    /// Dismiss the preview.
    Dismiss,
    /// Continue the download of a partly stored model.
    Resume(ModelId),
    /// Pause a download.
    Pause(ModelId),
    /// Cancel a download.
    Cancel {
        /// The model.
        model: ModelId,
        /// Whether the pieces so far stay stored.
        keep: bool,
    },
    /// Delete a stored model.
    Delete(ModelId),
    /// Load another model into the engine.
    Load(Choice),
    /// Load the previewed model, or the one that there was no room for, without storing it.
    RunUnsaved,
    /// Load the model of this name in files of the user, which are attached to the request.
    LoadPicked(String),
    /// Delete all stored models that no other tab has locked.
    DeleteAll,
    /// Let the tab that has locked a model give it up, then load it here.
    UseHere(ModelId),
    /// Another tab wants a model.
    GiveUp(ModelId),
    /// Decide whether models that are not here would run.
    Judge(Vec<(String, MemoryNeeds)>),
}

/// What the page has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a request to the model store.
    Send(StoreRequest),
    /// Ask the browser for persistent storage.
    Persist,
    /// Load a model into the engine.
    Load(Choice),
    /// Ask the other tabs to give up a model.
    Claim(ModelId),
    /// Tell the user that another tab took this model over.
    TakenOver(String),
}

/// The preview of a model that is not stored yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PreviewState {
    /// No preview was requested.
    #[default]
    None,
    /// The manifest is being read.
    Loading,
    /// The model can be downloaded or imported.
    Ready {
        /// The model.
        preview: Preview,
        /// Whether its licence was accepted.
        accepted: bool,
    },
    /// The manifest cannot be used.
    Failed(Fault),
}

/// A stored model in the manager's list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As the store listed it.
    pub stored: StoredModel,
    /// Progress of its download.
    pub progress: DownloadProgress,
    /// Its files while they are downloaded, in load order.
    pub shards: Vec<ShardProgress>,
    /// Why the download stopped.
    pub fault: Option<Fault>,
    /// Times in milliseconds and the bytes received until then.
    samples: VecDeque<(f64, u64)>,
}

/// The status of a stored model.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Stored in part.
    Partial,
    /// A download or import is under way.
    Downloading {
        /// Bytes per second over the last seconds, once known.
        rate: Option<f64>,
        /// Seconds left at that rate.
        left: Option<f64>,
        /// Whether the download waits for the network.
        waiting: bool,
    },
    /// The user paused the download.
    Paused,
    /// Stored completely.
    Ready,
    /// The engine is loading it.
    Loading,
    /// The engine has loaded it.
    Loaded,
    /// Another tab has locked it.
    InOtherTab,
}

impl Status {
    /// Its name in the page's `data-state` attribute.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Downloading { .. } => "moving",
            Self::Paused => "paused",
            Self::Ready => "ready",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::InOtherTab => "elsewhere",
        }
    }
}

impl Status {
    /// What the user can do in this status.
    pub fn actions(&self) -> &'static [EntryAction] {
        use EntryAction as A;
        match self {
            Self::Partial => &[A::Resume, A::AskDelete],
            Self::Downloading { .. } => &[A::Pause, A::AskCancel],
            Self::Paused => &[A::Resume, A::AskCancel],
            Self::Ready => &[A::Load, A::AskDelete],
            Self::Loading | Self::Loaded => &[A::Unload],
            Self::InOtherTab => &[A::UseHere, A::CheckAgain],
        }
    }
}

/// A confirmation before an action that cannot be undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirmation {
    /// None is shown.
    #[default]
    None,
    /// Before a download is cancelled.
    Cancel,
    /// Before a model is deleted.
    Delete,
}

impl Confirmation {
    /// What the user can do; in `status` while no confirmation is shown.
    pub fn actions(self, status: &Status) -> &'static [EntryAction] {
        use EntryAction as A;
        match self {
            Self::None => status.actions(),
            Self::Cancel => &[A::KeepPart, A::DeletePart, A::Back],
            Self::Delete => &[A::Delete, A::Back],
        }
    }
}

/// An action on a stored model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryAction {
    /// Continue the download.
    Resume,
    /// Pause the download.
    Pause,
    /// Cancel the download, after a confirmation.
    AskCancel,
    /// Load it into the engine.
    Load,
    /// Load the default model in its place.
    Unload,
    /// Delete it, after a confirmation.
    AskDelete,
    /// Let the other tab give it up, and load it here.
    UseHere,
    /// Check again whether another tab has locked it.
    CheckAgain,
    /// Confirmed: cancel and keep the pieces.
    KeepPart,
    /// Confirmed: cancel and delete the pieces.
    DeletePart,
    /// Confirmed: delete it.
    Delete,
    /// Leave the confirmation.
    Back,
}

impl EntryAction {
    /// The `data-testid` of its button.
    pub fn key(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Pause => "pause",
            Self::AskCancel => "cancel",
            Self::Load => "load",
            Self::Unload => "unload",
            Self::AskDelete => "delete",
            Self::UseHere => "use-here",
            Self::CheckAgain => "again",
            Self::KeepPart => "cancel-keep",
            Self::DeletePart => "cancel-delete",
            Self::Delete => "delete-yes",
            Self::Back => "back",
        }
    }

    /// Whether its button is emphasized.
    pub fn is_primary(self) -> bool {
        matches!(self, Self::Resume | Self::Load | Self::UseHere)
    }

    /// The confirmation that is shown after the action, and the input for the manager.
    pub fn press(self, model: ModelId) -> (Confirmation, Option<Input>) {
        let input = match self {
            Self::AskCancel => return (Confirmation::Cancel, None),
            Self::AskDelete => return (Confirmation::Delete, None),
            Self::Back => return (Confirmation::None, None),
            Self::Resume => Input::Resume(model),
            Self::Pause => Input::Pause(model),
            Self::Load => Input::Load(Choice::Stored(model)),
            Self::Unload => Input::Load(Choice::default()),
            Self::UseHere => Input::UseHere(model),
            Self::CheckAgain => Input::Started,
            Self::KeepPart => Input::Cancel { model, keep: true },
            Self::DeletePart => Input::Cancel { model, keep: false },
            Self::Delete => Input::Delete(model),
        };
        (Confirmation::None, Some(input))
    }
}

impl Entry {
    fn new(stored: StoredModel) -> Self {
        let progress = DownloadProgress {
            done: stored.done,
            total: stored.facts.bytes,
            ..DownloadProgress::default()
        };
        Self {
            stored,
            progress,
            shards: Vec::new(),
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
        let missing = self.progress.total.saturating_sub(self.progress.done) as f64;
        self.rate().filter(|&r| r > 0.0).map(|rate| missing / rate)
    }

    fn sample(&mut self, now: f64) {
        self.samples.push_back((now, self.progress.fetched));
        while self
            .samples
            .get(1)
            .is_some_and(|s| now - s.0 >= RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// True when it is stored completely.
    pub fn is_complete(&self) -> bool {
        self.stored.done >= self.stored.facts.bytes
    }
}

/// The state of the model manager.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelManager {
    entries: Vec<Entry>,
    offers: Vec<Offer>,
    preview: PreviewState,
    /// The model last loaded into the engine.
    choice: Choice,
    /// Downloads that resume once the next worker runs.
    interrupted: BTreeSet<ModelId>,
    /// The failure of a model that is not on the list.
    fault: Option<Fault>,
    /// The model whose download began last, and whether there was no room for it.
    begun: Option<(Preview, bool)>,
    /// Models that are deleted once the engine has let them go.
    deleting: BTreeSet<ModelId>,
    /// The model that is loaded once another tab has given it up.
    claimed: Option<ModelId>,
    /// Memory plans of models that are not here, by name.
    judged: BTreeMap<String, Fit>,
}

impl ModelManager {
    /// A manager whose model is `choice`.
    pub fn with_choice(choice: Choice) -> Self {
        Self {
            choice,
            ..Self::default()
        }
    }

    /// The stored models, in the store's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The models that the site offers and that are not stored.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> {
        let is_stored = |offer: &Offer| {
            let addresses = self.entries.iter().map(|entry| &entry.stored.address);
            addresses.flatten().any(|stored| *stored == offer.address)
        };
        self.offers.iter().filter(move |offer| !is_stored(offer))
    }

    /// A stored model.
    pub fn entry(&self, model: &ModelId) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.stored.model == *model)
    }

    /// The preview of a model that is not stored yet.
    pub fn preview(&self) -> &PreviewState {
        &self.preview
    }

    /// Short name of the stored model that was last loaded into the engine; `None` for a built-in model
    /// and for a model that is no longer stored.
    pub fn chosen_name(&self) -> Option<&str> {
        match &self.choice {
            Choice::BuiltIn(_) => None,
            Choice::Unsaved { name, .. } => Some(name),
            Choice::Stored(model) => self
                .entry(model)
                .map(|entry| entry.stored.facts.name.as_str()),
        }
    }

    /// The model last loaded into the engine.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The failure of a model that is not on the list.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The model that there was no room for.
    pub fn without_room(&self) -> Option<&Preview> {
        let (preview, is_without) = self.begun.as_ref()?;
        is_without.then_some(preview)
    }

    /// The memory plan of a model that is not here, once it is known.
    pub fn judged(&self, name: &str) -> Option<&Fit> {
        self.judged.get(name)
    }

    /// Bytes of a stored or offered model, as far as they are known.
    pub fn bytes(&self, choice: &Choice) -> Option<u64> {
        match choice {
            Choice::BuiltIn(_) => Some(0),
            Choice::Stored(model) => Some(self.entry(model)?.stored.facts.bytes),
            Choice::Unsaved { .. } => None,
        }
    }

    /// Whether there is a model that can be deleted.
    pub fn can_delete(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.stored.activity != Activity::InOtherTab)
    }

    /// Bytes of storage in use; the full size of a model is reserved before its download.
    pub fn used(&self) -> u64 {
        self.entries.iter().map(|e| e.stored.facts.bytes).sum()
    }

    /// The first model that is being downloaded.
    pub fn downloading(&self) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.stored.activity == Activity::Downloading)
    }

    /// The status of a stored model, given the model of the engine.
    pub fn status(&self, entry: &Entry, engine: &Model) -> Status {
        let chosen = self.choice == Choice::Stored(entry.stored.model.clone());
        match entry.stored.activity {
            Activity::Downloading => Status::Downloading {
                rate: entry.rate(),
                left: entry.left(),
                waiting: entry.progress.waiting,
            },
            Activity::Paused => Status::Paused,
            Activity::InOtherTab => Status::InOtherTab,
            Activity::Idle | Activity::Loaded if chosen => match engine {
                Model::Loading(_) => Status::Loading,
                Model::Ready(_) => Status::Loaded,
                Model::Absent | Model::Failed(_) => Self::idle_status(entry),
            },
            Activity::Idle | Activity::Loaded => Self::idle_status(entry),
        }
    }

    fn idle_status(entry: &Entry) -> Status {
        match entry.is_complete() {
            true => Status::Ready,
            false => Status::Partial,
        }
    }

    /// Applies one input at time `now`, in milliseconds since any fixed time; returns the effects in
    /// order.
    pub fn step(&mut self, input: Input, now: f64) -> Vec<Effect> {
        match input {
            Input::Started => vec![Effect::Send(StoreRequest::List)],
            Input::Lost => {
                let entries = self.entries.iter_mut();
                for entry in entries.filter(|e| e.stored.activity == Activity::Downloading) {
                    self.interrupted.insert(entry.stored.model.clone());
                    entry.progress.waiting = true;
                    entry.samples.clear();
                }
                if self.preview == PreviewState::Loading {
                    self.preview = PreviewState::None;
                }
                Vec::new()
            }
            Input::Event(event) => self.on_event(*event, now),
            Input::Offered(offers) => {
                self.offers = offers;
                Vec::new()
            }
            Input::Preview(address) => {
                if address.trim().is_empty() {
                    return Vec::new();
                }
                self.preview = PreviewState::Loading;
                vec![Effect::Send(StoreRequest::Preview { address })]
            }
            Input::PreviewFiles => {
                self.preview = PreviewState::Loading;
                vec![Effect::Send(StoreRequest::PreviewFiles)]
            }
            Input::Accept(yes) => {
                if let PreviewState::Ready { accepted, .. } = &mut self.preview {
                    *accepted = yes;
                }
                Vec::new()
            }
            Input::Download => match std::mem::take(&mut self.preview) {
                PreviewState::Ready {
                    preview,
                    accepted: true,
                } => {
                    self.fault = None;
                    let model = preview.model.clone();
                    self.begun = Some((preview, false));
                    self.download(model)
                }
                other => {
                    self.preview = other;
                    Vec::new()
                }
            },
            Input::Dismiss => {
                self.preview = PreviewState::None;
                self.fault = None;
                self.begun = None;
                Vec::new()
            }
            Input::RunUnsaved => self.run_unsaved(),
            Input::LoadPicked(name) => {
                let address = PICKED.to_owned();
                self.step(Input::Load(Choice::Unsaved { name, address }), now)
            }
            Input::DeleteAll => self.delete_all(),
            Input::UseHere(model) => {
                self.claimed = Some(model.clone());
                vec![Effect::Claim(model), Effect::Send(StoreRequest::List)]
            }
            Input::GiveUp(model) => self.give_up(&model),
            Input::Judge(models) => {
                let judge = |(name, needs)| Effect::Send(StoreRequest::Judge { name, needs });
                models.into_iter().map(judge).collect()
            }
            Input::Resume(model) => self.download(model),
            Input::Pause(model) => {
                self.set_activity(&model, Activity::Paused);
                vec![Effect::Send(StoreRequest::Pause { model })]
            }
            Input::Cancel { model, keep } => {
                self.interrupted.remove(&model);
                vec![Effect::Send(StoreRequest::Cancel { model, keep })]
            }
            Input::Delete(model) => vec![Effect::Send(StoreRequest::Delete { model })],
            Input::Load(choice) => {
                self.claimed = None;
                self.choice = choice.clone();
                if let Choice::Stored(model) = &choice
                    && let Some(entry) = self.entry_mut(model)
                {
                    entry.fault = None;
                }
                vec![Effect::Load(choice)]
            }
        }
    }

    fn on_event(&mut self, event: StoreEvent, now: f64) -> Vec<Effect> {
        match event {
            StoreEvent::Listed { models } => return self.on_list(models),
            StoreEvent::Previewed(preview) => {
                let accepted = false;
                self.preview = PreviewState::Ready { preview, accepted };
            }
            StoreEvent::PreviewFailed { fault } => self.preview = PreviewState::Failed(fault),
            StoreEvent::Progress {
                model,
                progress,
                shards,
            } => {
                if let Some(entry) = self.entry_mut(&model) {
                    entry.shards = shards;
                    let bytes = entry.stored.facts.bytes;
                    entry.progress = DownloadProgress {
                        // The store counts shards only; the tokenizer was stored before them.
                        done: progress.done + (bytes - progress.total.min(bytes)),
                        total: bytes,
                        ..progress
                    };
                    entry.sample(now);
                }
            }
            StoreEvent::Complete { model } => {
                if let Some(entry) = self.entry_mut(&model) {
                    entry.stored.done = entry.stored.facts.bytes;
                    entry.stored.activity = Activity::Idle;
                    entry.shards.clear();
                    entry.fault = None;
                }
                self.begun = None;
            }
            StoreEvent::Failed { model, fault } => {
                if let Some((preview, is_without)) = &mut self.begun {
                    *is_without = preview.model == model && fault.code == ErrorCode::Quota;
                }
                match self.entry_mut(&model) {
                    Some(entry) => entry.fault = Some(fault),
                    None => self.fault = Some(fault),
                }
            }
            StoreEvent::Judged { name, fit } => {
                self.judged.insert(name, fit);
            }
            // Of a worker that converts; see `chat::making`.
            StoreEvent::Convertible(_)
            | StoreEvent::Converting { .. }
            | StoreEvent::Converted { .. }
            | StoreEvent::ConversionFailed { .. } => {}
        }
        Vec::new()
    }

    fn on_list(&mut self, models: Vec<StoredModel>) -> Vec<Effect> {
        let mut known: BTreeMap<ModelId, Entry> = std::mem::take(&mut self.entries)
            .into_iter()
            .map(|entry| (entry.stored.model.clone(), entry))
            .collect();
        for stored in models {
            let entry = match known.remove(&stored.model) {
                Some(mut entry) => {
                    if stored.activity != Activity::Downloading {
                        entry.samples.clear();
                        entry.shards.clear();
                        entry.progress = Entry::new(stored.clone()).progress;
                    }
                    entry.stored = stored;
                    entry
                }
                None => Entry::new(stored),
            };
            self.entries.push(entry);
        }
        let interrupted = std::mem::take(&mut self.interrupted);
        let mut effects = Vec::new();
        for model in interrupted {
            if self.entry(&model).is_some_and(|entry| !entry.is_complete()) {
                self.set_activity(&model, Activity::Downloading);
                effects.push(Effect::Send(StoreRequest::Download { model }));
            }
        }
        effects.extend(self.delete_idle());
        effects.extend(self.load_claimed());
        effects
    }

    /// Loads the previewed model, or the one without room, where it is.
    fn run_unsaved(&mut self) -> Vec<Effect> {
        let preview = match std::mem::take(&mut self.preview) {
            PreviewState::Ready {
                preview,
                accepted: true,
            } => Some(preview),
            other => {
                self.preview = other;
                self.begun
                    .take_if(|(_, is_without)| *is_without)
                    .map(|(preview, _)| preview)
            }
        };
        let Some(preview) = preview else {
            return Vec::new();
        };
        self.fault = None;
        let choice = Choice::Unsaved {
            name: preview.facts.name,
            address: preview.address.unwrap_or_else(|| PICKED.to_owned()),
        };
        self.choice = choice.clone();
        vec![Effect::Load(choice)]
    }

    /// Deletes what is idle now; what is loaded or moving once it was let go.
    fn delete_all(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for entry in &self.entries {
            let model = entry.stored.model.clone();
            match entry.stored.activity {
                Activity::InOtherTab => continue,
                Activity::Downloading | Activity::Paused => {
                    let keep = false;
                    effects.push(Effect::Send(StoreRequest::Cancel { model, keep }));
                }
                Activity::Idle | Activity::Loaded => {
                    self.deleting.insert(model);
                }
            }
        }
        let is_chosen =
            matches!(&self.choice, Choice::Stored(model) if self.deleting.contains(model));
        if is_chosen {
            self.choice = Choice::default();
            effects.push(Effect::Load(Choice::default()));
        }
        effects.extend(self.delete_idle());
        effects
    }

    fn delete_idle(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for model in std::mem::take(&mut self.deleting) {
            match self.entry(&model).map(|entry| entry.stored.activity) {
                None => {}
                Some(Activity::Idle) => effects.push(Effect::Send(StoreRequest::Delete { model })),
                Some(_) => {
                    self.deleting.insert(model);
                }
            }
        }
        effects
    }

    /// Loads a model that another tab has given up.
    fn load_claimed(&mut self) -> Vec<Effect> {
        let Some(model) = self.claimed.clone() else {
            return Vec::new();
        };
        let entry = self.entry(&model);
        match entry.map(|entry| (entry.stored.activity, entry.is_complete())) {
            Some((Activity::InOtherTab, _)) => Vec::new(),
            Some((Activity::Idle, true)) => self.step(Input::Load(Choice::Stored(model)), 0.0),
            _ => {
                self.claimed = None;
                Vec::new()
            }
        }
    }

    /// Another tab wants `model`: this one lets it go, and keeps what it stored.
    fn give_up(&mut self, model: &ModelId) -> Vec<Effect> {
        let Some(entry) = self.entry(model) else {
            return Vec::new();
        };
        let name = entry.stored.facts.name.clone();
        let activity = entry.stored.activity;
        let is_moving = matches!(activity, Activity::Downloading | Activity::Paused);
        let is_loaded = self.choice == Choice::Stored(model.clone());
        let mut effects = Vec::new();
        if is_moving {
            let (model, keep) = (model.clone(), true);
            effects.push(Effect::Send(StoreRequest::Cancel { model, keep }));
        }
        if is_loaded {
            self.choice = Choice::default();
            effects.push(Effect::Load(Choice::default()));
        }
        if is_moving || is_loaded {
            effects.push(Effect::TakenOver(name));
        }
        effects
    }

    fn download(&mut self, model: ModelId) -> Vec<Effect> {
        self.set_activity(&model, Activity::Downloading);
        vec![
            Effect::Persist,
            Effect::Send(StoreRequest::Download { model }),
        ]
    }

    fn entry_mut(&mut self, model: &ModelId) -> Option<&mut Entry> {
        let mut entries = self.entries.iter_mut();
        entries.find(|entry| entry.stored.model == *model)
    }

    fn set_activity(&mut self, model: &ModelId, activity: Activity) {
        if let Some(entry) = self.entry_mut(model) {
            entry.stored.activity = activity;
            entry.samples.clear();
            entry.fault = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;
    use crate::protocol::store::Facts;

    fn event(event: StoreEvent) -> Input {
        Input::Event(Box::new(event))
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

    fn listed(done: u64, activity: Activity) -> Input {
        event(StoreEvent::Listed {
            models: vec![StoredModel {
                model: id(),
                facts: facts(),
                address: None,
                done,
                used: None,
                activity,
                fit: None,
            }],
        })
    }

    fn previewed() -> Input {
        event(StoreEvent::Previewed(Preview {
            model: id(),
            facts: facts(),
            address: None,
            fit: None,
        }))
    }

    fn progress(done: u64, fetched: u64) -> Input {
        let progress = DownloadProgress {
            done,
            total: 1_000,
            fetched,
            ..DownloadProgress::default()
        };
        event(StoreEvent::Progress {
            model: id(),
            progress,
            shards: Vec::new(),
        })
    }

    fn fault() -> Fault {
        Fault::new(FaultKind::Network, "a.safetensors", "is short", "")
    }

    fn download() -> Effect {
        Effect::Send(StoreRequest::Download { model: id() })
    }

    fn status(manager: &ModelManager) -> &'static str {
        let entry = manager.entry(&id()).expect("it is listed");
        manager.status(entry, &Model::Loading(None)).name()
    }

    #[test]
    fn the_address_of_the_page_can_name_a_built_in_model() {
        let nano = Choice::BuiltIn(BuiltIn::Nano);
        for (address, expected) in [
            ("http://host/", Choice::default()),
            ("http://host/?model=nano", nano.clone()),
            ("http://host/index.html?a=b&model=nano#model=x", nano),
            ("http://host/?model=", Choice::default()),
            ("http://host/?model=unknown", Choice::default()),
        ] {
            assert_eq!(Choice::of_address(address), expected, "{address}");
        }
    }

    #[test]
    fn an_offer_is_listed_until_it_is_stored() {
        let json = r#"[{"name": "small", "bytes": 100}, {"name": "other", "bytes": 2}]"#;
        let mut offers: Vec<Offer> = serde_json::from_str(json).expect("a list of offers");
        for offer in &mut offers {
            offer.address = format!("https://host/models/{}", offer.name);
        }
        let mut manager = ModelManager::default();
        assert_eq!(manager.step(Input::Offered(offers), 0.), []);
        let names = |manager: &ModelManager| {
            let offers = manager.offers();
            offers.map(|offer| offer.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&manager), ["small", "other"]);
        manager.step(listed(0, Activity::Downloading), 0.);
        assert_eq!(names(&manager), ["small", "other"], "another model");
        let Input::Event(mut event) = listed(0, Activity::Downloading) else {
            panic!("an event");
        };
        if let StoreEvent::Listed { models } = &mut *event {
            models[0].address = Some("https://host/models/small".into());
        }
        manager.step(Input::Event(event), 0.);
        assert_eq!(names(&manager), ["other"]);
    }

    #[test]
    fn nothing_is_downloaded_before_the_licence_is_accepted() {
        let mut manager = ModelManager::default();
        let asked = manager.step(Input::Preview("a/b".into()), 0.);
        assert_eq!(asked.len(), 1);
        assert_eq!(manager.step(Input::Download, 0.), []);
        manager.step(previewed(), 0.);
        assert_eq!(manager.step(Input::Download, 0.), []);
        manager.step(Input::Accept(true), 0.);
        assert_eq!(
            manager.step(Input::Download, 0.),
            [Effect::Persist, download()]
        );
        assert_eq!(manager.preview(), &PreviewState::None);
    }

    #[test]
    fn a_new_preview_must_be_accepted_again() {
        let mut manager = ModelManager::default();
        manager.step(previewed(), 0.);
        manager.step(Input::Accept(true), 0.);
        manager.step(previewed(), 0.);
        assert_eq!(manager.step(Input::Download, 0.), []);
    }

    #[test]
    fn the_rate_is_averaged_over_the_last_seconds() {
        let mut manager = ModelManager::default();
        manager.step(listed(10, Activity::Downloading), 0.);
        manager.step(progress(0, 0), 0.);
        let entry = |manager: &ModelManager| manager.entry(&id()).expect("listed").clone();
        assert_eq!(entry(&manager).rate(), None, "one sample is not enough");
        for second in 1..=4_u64 {
            manager.step(progress(second * 10, second * 10), second as f64 * 1000.);
        }
        assert_eq!(entry(&manager).rate(), Some(10.));
        for second in 5..=10_u64 {
            let bytes = 40 + (second - 4) * 50;
            manager.step(progress(bytes, bytes), second as f64 * 1000.);
        }
        assert_eq!(entry(&manager).rate(), Some(50.));
        assert_eq!(entry(&manager).left(), Some((1_000 - 340) as f64 / 50.));
        assert_eq!(
            entry(&manager).progress.done,
            350,
            "the tokenizer is counted"
        );
        manager.step(Input::Pause(id()), 10_000.);
        assert_eq!(entry(&manager).rate(), None);
        assert_eq!(status(&manager), "paused");
    }

    #[test]
    fn a_model_passes_through_every_status() {
        let mut manager = ModelManager::default();
        manager.step(listed(510, Activity::Idle), 0.);
        assert_eq!(status(&manager), "partial");
        assert_eq!(
            manager.step(Input::Resume(id()), 0.),
            [Effect::Persist, download()]
        );
        assert_eq!(status(&manager), "moving");
        manager.step(
            event(StoreEvent::Failed {
                model: id(),
                fault: fault(),
            }),
            0.,
        );
        manager.step(listed(610, Activity::Idle), 0.);
        assert_eq!(status(&manager), "partial");
        assert_eq!(manager.entries()[0].fault, Some(fault()));
        manager.step(Input::Resume(id()), 0.);
        assert_eq!(manager.entries()[0].fault, None);
        manager.step(event(StoreEvent::Complete { model: id() }), 0.);
        assert_eq!(status(&manager), "ready");
        let choice = Choice::Stored(id());
        let effects = manager.step(Input::Load(choice.clone()), 0.);
        assert_eq!(effects, [Effect::Load(choice)]);
        assert_eq!(status(&manager), "loading");
        manager.step(Input::Load(Choice::default()), 0.);
        assert_eq!(status(&manager), "ready");
        manager.step(event(StoreEvent::Listed { models: vec![] }), 0.);
        assert!(manager.entries().is_empty());
    }

    #[test]
    fn interrupted_downloads_resume_in_the_next_worker() {
        let mut manager = ModelManager::default();
        manager.step(listed(510, Activity::Downloading), 0.);
        manager.step(Input::Lost, 0.);
        assert_eq!(
            manager.step(Input::Started, 0.),
            [Effect::Send(StoreRequest::List)]
        );
        assert_eq!(manager.step(listed(510, Activity::Idle), 0.), [download()]);
        assert_eq!(status(&manager), "moving");
        assert_eq!(manager.step(listed(510, Activity::Downloading), 0.), []);
        manager.step(listed(510, Activity::Paused), 0.);
        manager.step(Input::Lost, 0.);
        assert_eq!(manager.step(listed(510, Activity::Idle), 0.), []);
    }

    #[test]
    fn a_failure_of_an_unlisted_model_is_shown() {
        let mut manager = ModelManager::default();
        manager.step(
            event(StoreEvent::Failed {
                model: id(),
                fault: fault(),
            }),
            0.,
        );
        assert_eq!(manager.fault(), Some(&fault()));
        manager.step(Input::Dismiss, 0.);
        assert_eq!(manager.fault(), None);
    }

    #[test]
    fn every_status_has_its_actions() {
        let downloading = Status::Downloading {
            rate: None,
            left: None,
            waiting: false,
        };
        let cases = [
            (Status::Partial, Confirmation::None, "resume delete"),
            (downloading, Confirmation::None, "pause cancel"),
            (Status::Paused, Confirmation::None, "resume cancel"),
            (Status::Ready, Confirmation::None, "load delete"),
            (Status::Loading, Confirmation::None, "unload"),
            (Status::Loaded, Confirmation::None, "unload"),
            (Status::InOtherTab, Confirmation::None, "use-here again"),
            (Status::Ready, Confirmation::Delete, "delete-yes back"),
            (
                Status::Paused,
                Confirmation::Cancel,
                "cancel-keep cancel-delete back",
            ),
        ];
        for (status, confirmation, expected) in cases {
            let actions = confirmation.actions(&status).iter();
            let keys: Vec<_> = actions.map(|action| action.key()).collect();
            assert_eq!(keys.join(" "), expected, "{status:?}");
        }
    }

    #[test]
    fn deleting_and_cancelling_need_a_confirmation() {
        use EntryAction as A;
        let press = |action: A| {
            let (confirmation, input) = action.press(id());
            let mut manager = ModelManager::default();
            let effects = input.map(|input| manager.step(input, 0.));
            (confirmation, effects.unwrap_or_default())
        };
        let send = |request| vec![Effect::Send(request)];
        let cancel = |keep| send(StoreRequest::Cancel { model: id(), keep });
        let cases = [
            (A::AskDelete, Confirmation::Delete, vec![]),
            (A::AskCancel, Confirmation::Cancel, vec![]),
            (A::Back, Confirmation::None, vec![]),
            (A::KeepPart, Confirmation::None, cancel(true)),
            (A::DeletePart, Confirmation::None, cancel(false)),
            (
                A::Delete,
                Confirmation::None,
                send(StoreRequest::Delete { model: id() }),
            ),
            (
                A::Unload,
                Confirmation::None,
                vec![Effect::Load(Choice::default())],
            ),
            (A::CheckAgain, Confirmation::None, send(StoreRequest::List)),
        ];
        for (action, confirmation, effects) in cases {
            assert_eq!(press(action), (confirmation, effects), "{action:?}");
        }
    }

    fn failed(code: ErrorCode) -> Input {
        event(StoreEvent::Failed {
            model: id(),
            fault: fault().code(code),
        })
    }

    #[test]
    fn a_model_without_room_can_run_unsaved() {
        for (code, can_run) in [(ErrorCode::Quota, true), (ErrorCode::Network, false)] {
            let mut manager = ModelManager::default();
            manager.step(previewed(), 0.);
            manager.step(Input::Accept(true), 0.);
            manager.step(Input::Download, 0.);
            assert_eq!(manager.without_room(), None);
            manager.step(failed(code), 0.);
            assert_eq!(manager.without_room().is_some(), can_run, "{code:?}");
            let unsaved = Choice::Unsaved {
                name: "big".into(),
                address: PICKED.into(),
            };
            let effects = manager.step(Input::RunUnsaved, 0.);
            match can_run {
                true => assert_eq!(effects, [Effect::Load(unsaved)]),
                false => assert_eq!(effects, []),
            }
            assert_eq!(manager.chosen_name(), can_run.then_some("big"));
        }
    }

    #[test]
    fn a_previewed_model_runs_unsaved_only_with_its_licence_accepted() {
        let mut manager = ModelManager::default();
        manager.step(previewed(), 0.);
        assert_eq!(manager.step(Input::RunUnsaved, 0.), []);
        manager.step(Input::Accept(true), 0.);
        let effects = manager.step(Input::RunUnsaved, 0.);
        assert!(matches!(
            &effects[..],
            [Effect::Load(Choice::Unsaved { .. })]
        ));
        assert_eq!(manager.preview(), &PreviewState::None);
    }

    #[test]
    fn deleting_everything_waits_for_what_is_loaded() {
        let delete = || Effect::Send(StoreRequest::Delete { model: id() });
        let mut idle = ModelManager::default();
        idle.step(listed(1_010, Activity::Idle), 0.);
        assert!(idle.can_delete());
        assert_eq!(idle.step(Input::DeleteAll, 0.), [delete()]);

        let mut loaded = ModelManager::with_choice(Choice::Stored(id()));
        loaded.step(listed(1_010, Activity::Loaded), 0.);
        let effects = loaded.step(Input::DeleteAll, 0.);
        assert_eq!(effects, [Effect::Load(Choice::default())]);
        assert_eq!(loaded.step(listed(1_010, Activity::Loaded), 0.), []);
        assert_eq!(loaded.step(listed(1_010, Activity::Idle), 0.), [delete()]);
        assert_eq!(loaded.step(listed(1_010, Activity::Idle), 0.), [], "once");

        let mut moving = ModelManager::default();
        moving.step(listed(10, Activity::Downloading), 0.);
        let cancel = StoreRequest::Cancel {
            model: id(),
            keep: false,
        };
        assert_eq!(moving.step(Input::DeleteAll, 0.), [Effect::Send(cancel)]);

        let mut elsewhere = ModelManager::default();
        elsewhere.step(listed(10, Activity::InOtherTab), 0.);
        assert!(!elsewhere.can_delete());
        assert_eq!(elsewhere.step(Input::DeleteAll, 0.), []);
    }

    #[test]
    fn a_model_in_another_tab_is_claimed_and_loaded_once_it_is_free() {
        let mut here = ModelManager::default();
        here.step(listed(1_010, Activity::InOtherTab), 0.);
        let claim = here.step(Input::UseHere(id()), 0.);
        assert_eq!(claim[0], Effect::Claim(id()));
        assert_eq!(here.step(listed(1_010, Activity::InOtherTab), 0.), []);
        let load = [Effect::Load(Choice::Stored(id()))];
        assert_eq!(here.step(listed(1_010, Activity::Idle), 0.), load);
        assert_eq!(here.step(listed(1_010, Activity::Idle), 0.), [], "once");

        // A model that is here in part is not loaded.
        let mut part = ModelManager::default();
        part.step(listed(10, Activity::InOtherTab), 0.);
        part.step(Input::UseHere(id()), 0.);
        assert_eq!(part.step(listed(10, Activity::Idle), 0.), []);

        let mut there = ModelManager::with_choice(Choice::Stored(id()));
        assert_eq!(there.step(Input::GiveUp(id()), 0.), [], "not listed");
        there.step(listed(1_010, Activity::Loaded), 0.);
        let given = there.step(Input::GiveUp(id()), 0.);
        let told = Effect::TakenOver("big".into());
        assert_eq!(given, [Effect::Load(Choice::default()), told]);
        assert_eq!(
            there.step(Input::GiveUp(id()), 0.),
            [],
            "it is not used any more"
        );
    }

    #[test]
    fn the_files_of_a_download_are_shown_until_it_ends() {
        let shard = ShardProgress {
            name: "upn.safetensors".into(),
            done: 1,
            total: 10,
            state: crate::protocol::store::ShardState::Downloading,
        };
        let mut manager = ModelManager::default();
        manager.step(listed(10, Activity::Downloading), 0.);
        let progress = StoreEvent::Progress {
            model: id(),
            progress: DownloadProgress::default(),
            shards: vec![shard.clone()],
        };
        manager.step(event(progress), 0.);
        assert_eq!(manager.entries()[0].shards, [shard]);
        manager.step(event(StoreEvent::Complete { model: id() }), 0.);
        assert_eq!(manager.entries()[0].shards, []);
    }

    #[test]
    fn models_that_are_not_here_are_judged() {
        let mut manager = ModelManager::default();
        let needs = MemoryNeeds::default();
        let name = String::from("ChatRex-7B");
        let asked = manager.step(Input::Judge(vec![(name.clone(), needs)]), 0.);
        let judge = StoreRequest::Judge {
            name: name.clone(),
            needs,
        };
        assert_eq!(asked, [Effect::Send(judge)]);
        let fit = crate::chat::test_data::card().fit;
        let answer = StoreEvent::Judged {
            name: name.clone(),
            fit: fit.clone(),
        };
        manager.step(event(answer), 0.);
        assert_eq!(manager.judged(&name), Some(&fit));
    }
}
