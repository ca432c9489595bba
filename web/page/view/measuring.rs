//! What is measured: the benchmark, and the two engines of a software adapter.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use chatrex::chat::bench::{Bench, RUNS, TOKENS, Task};
use chatrex::chat::candidates::Filter;
use chatrex::chat::conversation::{Input, Model};
use chatrex::chat::engine_choice::{Adapter, Effect, Speed, TRIAL, TRIAL_TOKENS};
use chatrex::chat::model_manager::Choice;
use chatrex::chat::settings::Settings;
use chatrex::error::Fault;
use chatrex::protocol::{
    DevicePreference, Envelope, Event, ImageSize, LookTime, Question, Request, ToWorker,
};
use js_sys::{Function, Promise, Reflect, Uint8Array};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::state::AppState;
use super::workers::Trial;
use crate::link::{Link, Report};
use crate::{decode, memory};

/// A browser that does not tell its adapter in this time is not waited for.
const ADAPTER_TIME: Duration = Duration::from_secs(2);

impl AppState {
    /// Asks the browser for its adapter, and then loads the chosen model.
    pub(super) fn know_adapter(self) {
        let known = move |adapter: Option<Adapter>| {
            if self.adapter_known.get_value() {
                return;
            }
            self.adapter_known.set_value(true);
            self.engine.update(|engine| engine.know(adapter));
            if self.has_worker() {
                self.load_chosen();
            }
        };
        set_timeout(move || known(None), ADAPTER_TIME);
        spawn_local(async move { known(adapter().await) });
    }

    /// The engine for the chosen model.
    pub(super) fn choose_engine(self) -> DevicePreference {
        self.trial.set_value(None);
        let (name, bytes) = self.models.with_untracked(|models| {
            let choice = models.choice();
            // A stored model is locked by the worker that has it open, so it cannot be tried in another.
            let bytes = matches!(choice, Choice::BuiltIn(_)).then_some(0);
            (Settings::name(choice), bytes)
        });
        self.engine
            .try_update(|engine| engine.load(&name, bytes))
            .unwrap_or_default()
    }

    /// Measures the CPU path by what the user does.
    pub(super) fn measure(self, event: &Event) {
        let effect = match event {
            Event::Proposed { milliseconds, .. } => {
                let time = *milliseconds;
                self.engine.update_untracked(|engine| engine.on_found(time));
                None
            }
            Event::Done { answer, .. } => self
                .engine
                .try_update_untracked(|engine| engine.on_answer(answer))
                .flatten(),
            _ => None,
        };
        if effect == Some(Effect::Try) {
            self.start_trial();
        }
    }

    /// Does the last question again on the GPU path.
    fn start_trial(self) {
        let Some(Request::Ask {
            turn,
            picture,
            question,
        }) = self.last_ask.get_value()
        else {
            return self.end_trial(None);
        };
        let size = self.conversation.with_value(|c| {
            let of = c.picture().filter(|p| p.id == picture);
            of.map(|p| p.size)
        });
        let (Some(size), Some(pixels)) = (size, self.pixels(picture)) else {
            return self.end_trial(None);
        };
        let link = Rc::new(RefCell::new(None::<Link>));
        let found = Cell::new(LookTime::default());
        let sender = Rc::clone(&link);
        let send = move |body: Request, attachment: Option<JsValue>| {
            let message = Envelope {
                body: ToWorker::Engine(body),
                attachment,
            };
            if let Some(link) = &*sender.borrow() {
                // A worker that takes no messages ends with the limit of time.
                let _ = link.send(&message);
            }
        };
        let on_report = move |report: Report| match report {
            Report::Event(Event::Ready(card)) if card.device == "wgpu" => {
                let look = Request::Look {
                    picture,
                    size: Some(size),
                    granularity: Default::default(),
                };
                send(look, Some(pixels.buffer().into()));
            }
            Report::Event(Event::Proposed { milliseconds, .. }) => {
                found.set(milliseconds);
                let question = Question {
                    max_tokens: TRIAL_TOKENS,
                    ..question.clone()
                };
                let ask = Request::Ask {
                    turn,
                    picture,
                    question,
                };
                send(ask, None);
            }
            Report::Event(Event::Done { answer, .. }) => {
                let speed = Speed::of(found.get(), &answer);
                // Not while the worker's own handler runs.
                set_timeout(move || self.end_trial(Some(speed)), Duration::ZERO);
            }
            Report::Event(Event::Ready(_) | Event::Failed { .. }) | Report::Lost(_) => {
                set_timeout(move || self.end_trial(None), Duration::ZERO);
            }
            Report::Event(_) | Report::Store(_) => {}
        };
        let Ok(started) = Link::start(Rc::new(on_report)) else {
            return self.end_trial(None);
        };
        let load = Request::Load {
            model: self.chosen_address(),
            options: DevicePreference::Wgpu.into(),
        };
        let sent = started.send(&Envelope::from(ToWorker::Engine(load)));
        link.replace(Some(started));
        self.trial.set_value(Some(Trial { link }));
        if sent.is_err() {
            return self.end_trial(None);
        }
        let limit = Duration::from_millis(TRIAL as u64);
        set_timeout(
            move || {
                if self.trial.with_value(Option::is_some) {
                    self.end_trial(None);
                }
            },
            limit,
        );
    }

    fn end_trial(self, speed: Option<Speed>) {
        self.trial.set_value(None);
        let effects = self.engine.try_update(|engine| engine.on_trial(speed));
        for effect in effects.unwrap_or_default() {
            match effect {
                Effect::Remember => self
                    .engine
                    .with_untracked(|engine| memory::keep_engines(engine.records())),
                Effect::Load => self.load_chosen(),
                Effect::Try => {}
            }
        }
    }

    /// Begins the benchmark with the sample of the chosen model.
    pub fn begin_bench(self) {
        let Some(sample) = self.samples().first().copied() else {
            return;
        };
        spawn_local(async move {
            let opened = async { decode::open(&decode::fetch(&sample.address()).await?).await };
            let opened = match opened.await {
                Ok(opened) => opened,
                Err(fault) => return self.notice.set(Some(fault)),
            };
            let can_lend = self.with_conversation(|c| c.can_lend());
            let filter = self.model.with_untracked(|model| match model {
                Model::Ready(card) => Some(Filter::of(card)),
                _ => None,
            });
            let (true, Some(filter)) = (can_lend, filter) else {
                return;
            };
            let task = Task {
                picture: sample.file.clone(),
                size: ImageSize {
                    width: opened.width,
                    height: opened.height,
                },
                question: sample.question.clone(),
                runs: RUNS,
                max_tokens: TOKENS,
            };
            self.bench_pixels.set_value(Some(opened.rgb));
            self.act(Input::Lend);
            let (bench, request) = Bench::begin(task, filter);
            self.bench.set(Some(bench));
            self.send_for_bench(request);
        });
    }

    fn send_for_bench(self, request: Request) {
        let pixels = |pixels: &Option<Uint8Array>| {
            let copy = decode::copied(pixels.as_ref()?);
            Some(JsValue::from(copy.buffer()))
        };
        let attachment = match request {
            Request::Look { .. } => self.bench_pixels.with_value(pixels),
            _ => None,
        };
        self.send(Envelope {
            body: ToWorker::Engine(request),
            attachment,
        });
    }

    pub(super) fn on_bench_event(self, event: &Event) {
        let step = |bench: &mut Option<Bench>| {
            let bench = bench.as_mut().filter(|bench| bench.is_running())?;
            let request = bench.on_event(event);
            Some((request, bench.is_running()))
        };
        let Some((request, is_running)) = self.bench.try_update(step).flatten() else {
            return;
        };
        if let Some(request) = request {
            self.send_for_bench(request);
        }
        if !is_running {
            self.return_engine();
        }
    }

    /// The user stops the benchmark.
    pub fn stop_bench(self) {
        let stop = |bench: &mut Option<Bench>| bench.as_mut()?.stop();
        if let Some(request) = self.bench.try_update(stop).flatten() {
            self.send_for_bench(request);
        }
    }

    /// The worker is gone.
    pub(super) fn lose_bench(self, fault: &Fault) {
        if self.is_benching() {
            self.bench.update(|bench| {
                if let Some(bench) = bench {
                    bench.lose(fault);
                }
            });
            self.return_engine();
        }
    }

    /// Another model is loaded: what was measured says nothing about it.
    pub(super) fn end_bench(self) {
        let was_running = self.is_benching();
        self.bench.set(None);
        if was_running {
            self.return_engine();
        }
    }

    fn is_benching(self) -> bool {
        self.bench
            .with_untracked(|bench| bench.as_ref().is_some_and(Bench::is_running))
    }

    fn return_engine(self) {
        self.bench_pixels.set_value(None);
        self.act(Input::Return);
    }
}

/// The adapter as the browser tells it; `None` if there is none.
async fn adapter() -> Option<Adapter> {
    let get = |object: &JsValue, name: &str| {
        let value = Reflect::get(object, &name.into()).ok();
        value.filter(|value| !value.is_undefined() && !value.is_null())
    };
    let gpu = get(&window().navigator(), "gpu")?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into().ok()?;
    let promise: Promise = request.call0(&gpu).ok()?.dyn_into().ok()?;
    let adapter = JsFuture::from(promise).await.ok()?;
    let info = get(&adapter, "info")?;
    let text = |name: &str| get(&info, name).and_then(|value| value.as_string());
    let names = ["vendor", "architecture", "device", "description"].map(text);
    let names: Vec<_> = names
        .into_iter()
        .flatten()
        .filter(|n| !n.is_empty())
        .collect();
    let fallback = get(&info, "isFallbackAdapter").or_else(|| get(&adapter, "isFallbackAdapter"));
    Some(Adapter {
        name: names.join(" "),
        fallback: fallback.is_some_and(|is| is.is_truthy()),
    })
}
