//! The page in a frame: carries out what its host asks for, and tells it what happens.

use std::collections::BTreeSet;

use chatrex::chat::conversation::Input;
use chatrex::chat::document::LabelledBox;
use chatrex::chat::embed::Hosts;
use chatrex::chat::embed::host::{Effect as HostEffect, Host, Page};
use chatrex::chat::embed::message::{self, refused};
use chatrex::chat::embed::question::{Asked, draft};
use chatrex::error::{ErrorCode, Fault};
use chatrex::protocol::PictureId;
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::Value;
use web_sys::{Blob, MessageEvent};

use super::state::AppState;
use crate::{decode, embed};

/// What the page knows of its host.
#[derive(Clone, Copy)]
struct Frame {
    app: AppState,
    host: StoredValue<Host, LocalStorage>,
    /// The list of hosts, once it is fetched; messages before that wait.
    hosts: StoredValue<Option<Hosts>, LocalStorage>,
    early: StoredValue<Vec<MessageEvent>, LocalStorage>,
    /// The origin of the host that wrote first.
    origin: RwSignal<Option<String>>,
}

/// Marks the page as one in a frame and listens to its host; nothing in the page itself.
pub fn start(app: AppState) {
    let options = embed::options();
    let Some(words) = options.words() else {
        return;
    };
    if let Some(root) = document().document_element() {
        // Without the mark the page is not compact, and works all the same.
        let _ = root.set_attribute("data-embed", &words);
    }
    let frame = Frame {
        app,
        host: StoredValue::new_local(Host::default()),
        hosts: StoredValue::new_local(None),
        early: StoredValue::new_local(Vec::new()),
        origin: RwSignal::new(None),
    };
    window_event_listener(ev::message, move |event| frame.receive(event));
    spawn_local(async move {
        frame.hosts.set_value(Some(embed::hosts().await));
        let early = frame.early.try_update_value(std::mem::take);
        early
            .unwrap_or_default()
            .into_iter()
            .for_each(|event| frame.receive(event));
    });
    Effect::new(move |_| {
        app.model.track();
        app.picture.track();
        app.candidates.track();
        app.notice.track();
        app.can_ask.track();
        app.overlay.with(|overlay| overlay.selection().len());
        app.turns
            .with(|turns| turns.iter().for_each(|turn| turn.turn.track()));
        if frame.origin.with(Option::is_some) {
            untrack(|| frame.step(|host, page| host.compare(page)));
        }
    });
}

impl Frame {
    fn receive(self, event: MessageEvent) {
        if !embed::is_of_parent(&event) {
            return;
        }
        let is_allowed = self.hosts.with_value(|hosts| {
            let hosts = hosts.as_ref()?;
            Some(hosts.allow(&event.origin()))
        });
        match is_allowed {
            None => return self.early.update_value(|early| early.push(event)),
            Some(false) => return,
            Some(true) => {}
        }
        if self.origin.get_untracked().as_ref() != Some(&event.origin()) {
            self.origin.set(Some(event.origin()));
        }
        let (message, picture) = embed::read(&event.data());
        let host = |host: &mut Host, page: Page<'_>| host.receive(message, page);
        let effects = self.with(host);
        self.carry_out(effects, picture);
    }

    /// Calls `step` with the state of page and host.
    fn with(self, step: impl FnOnce(&mut Host, Page<'_>) -> Vec<HostEffect>) -> Vec<HostEffect> {
        let selection: BTreeSet<_> = (self.app.overlay).with_untracked(|o| o.selection().clone());
        let notice = self.app.notice.get_untracked();
        let effects = self.host.try_update_value(|host| {
            self.app.with_conversation(|conversation| {
                let page = Page {
                    conversation,
                    selection: &selection,
                    notice: notice.as_ref(),
                };
                step(host, page)
            })
        });
        effects.unwrap_or_default()
    }

    fn step(self, step: impl FnOnce(&mut Host, Page<'_>) -> Vec<HostEffect>) {
        let effects = self.with(step);
        self.carry_out(effects, None);
    }

    fn carry_out(self, effects: Vec<HostEffect>, mut picture: Option<Blob>) {
        for effect in effects {
            match effect {
                HostEffect::Post(message) => self.post(&message, None),
                HostEffect::Open { id, url, name } => {
                    let picture = picture.take();
                    spawn_local(async move { self.open(id, picture, url, name).await });
                }
                HostEffect::Ask(asked) => self.ask(&asked),
                HostEffect::Propose {
                    granularity,
                    filter,
                } => {
                    self.app.act(Input::Filter(filter));
                    self.app.act(Input::Prefer(granularity));
                    self.app.flush();
                    self.step(|host, page| host.compare(page));
                }
                HostEffect::Select(ids) => self.app.overlay.update(|o| o.select_all(ids)),
                HostEffect::Stop => self.app.act(Input::Stop),
                HostEffect::SendPicture(id) => {
                    let name = self.app.picture_name();
                    let picture = self.app.picture_file();
                    self.post(&message::picture(&id, &name), picture.as_ref());
                }
            }
        }
    }

    fn post(self, message: &Value, picture: Option<&Blob>) {
        if let Some(origin) = self.origin.get_untracked() {
            embed::post(&origin, message, picture);
        }
    }

    async fn open(self, id: Value, picture: Option<Blob>, url: Option<String>, name: String) {
        let opened = self.opened(picture, url, &name).await;
        self.step(|host, page| host.opened(&id, opened, page));
    }

    async fn opened(
        self,
        picture: Option<Blob>,
        url: Option<String>,
        name: &str,
    ) -> Result<PictureId, Fault> {
        let nothing = || {
            refused(
                Value::Null,
                ErrorCode::Cancelled,
                "another picture followed",
            )
            .fault
        };
        let blob = match (picture, url) {
            (Some(blob), _) => blob,
            (None, Some(url)) => decode::fetch(&url).await?,
            (None, None) => return Err(nothing()),
        };
        let file = decode::named(&blob, name).ok_or_else(nothing)?;
        self.app.notice.set(None);
        if !self.app.open_and_wait(file).await {
            return Err(self.app.notice.get_untracked().unwrap_or_else(nothing));
        }
        let id = self.app.with_conversation(|c| c.picture().map(|p| p.id));
        id.ok_or_else(nothing)
    }

    fn ask(self, asked: &Asked) {
        if !asked.boxes.is_empty() {
            let labelled = |&bbox| LabelledBox { bbox, label: None };
            let boxes = asked.boxes.iter().map(labelled).collect();
            self.app.act(Input::Import(boxes));
            self.app.flush();
        }
        let candidates = self.app.candidates.get_untracked();
        match draft(asked, &candidates) {
            Ok(draft) => self.app.act(Input::AskDraft(draft)),
            Err(fault) => self.step(|host, _| host.refused(&fault)),
        }
        self.step(|host, page| host.compare(page));
    }
}
