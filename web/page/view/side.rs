//! The column beside the picture: the chat and the list of objects, one of them at a time.

use chatrex::chat::layout_strings as words;
use chatrex::chat::side::{Side, Tab};
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use super::ask::Ask;
use super::controls::Controls;
use super::conversation::{Spoken, Transcript};
use super::drawer::NotKept;
use super::export::ExportButtons;
use super::icons::{Icon, icon};
use super::naming::NameAll;
use super::objects::{BoxNumbers, Objects};
use super::stage::StageSize;
use super::state::{AppState, app_state};
use super::status::{DeviceNote, Knows, ProblemMessage};

/// The open tab.
#[derive(Clone, Copy)]
pub struct SideState(pub RwSignal<Side>);

impl SideState {
    /// The chat is open. It opens by itself when the user asks, or goes to the text box.
    pub fn new(app: AppState) -> Self {
        let state = Self(RwSignal::new(Side::default()));
        Effect::new(move |before: Option<u32>| {
            let requests = app.focus_draft.get();
            if before.is_some_and(|before| before != requests) && state.is_open(Tab::Objects) {
                state.choose(Tab::Chat);
                // The text box can take the focus once it is shown.
                request_animation_frame(|| focus("question"));
            }
            requests
        });
        Effect::new(move |before: Option<usize>| {
            let turns = app.turns.with(Vec::len);
            if before.is_some_and(|before| turns > before) {
                state.choose(Tab::Chat);
            }
            turns
        });
        Effect::new(move |was_busy: Option<bool>| {
            let is_busy = app.busy.get() && app.naming.with(Option::is_none);
            if was_busy == Some(true) && !is_busy {
                state.0.update(Side::answered);
            }
            is_busy
        });
        state
    }

    fn is_open(self, tab: Tab) -> bool {
        self.0.with_untracked(|side| side.open()) == tab
    }

    /// Opens a tab.
    pub fn choose(self, tab: Tab) {
        self.0.update(|side| side.choose(tab));
    }
}

/// The tabs and what belongs to them. Both stay in the document, so that nothing is lost in the hidden one.
#[component]
pub fn SideColumn() -> impl IntoView {
    let SideState(side) = expect_context();
    let stage: StageSize = expect_context();
    Effect::new(move |_| {
        if side.with(|side| side.open()) == Tab::Objects {
            stage.enlarge();
        }
    });
    let hidden = move |tab: Tab| move || side.with(|side| side.open() != tab);
    view! {
        <section class="right" aria-label=words::TABS>
            <ProblemMessage />
            <div class="side-head">
                <Tabs />
                <ExportButtons />
            </div>
            <div
                id="panel-chat"
                class="side-panel chat-panel"
                role="tabpanel"
                aria-labelledby="tab-chat"
                hidden=hidden(Tab::Chat)
            >
                <h2 class="hidden">{move || words::tab(Tab::Chat)}</h2>
                <Transcript>
                    <Knows />
                    <DeviceNote />
                    <NotKept />
                </Transcript>
                <Ask />
            </div>
            <div
                id="panel-objects"
                class="side-panel objects-panel"
                role="tabpanel"
                aria-labelledby="tab-objects"
                hidden=hidden(Tab::Objects)
            >
                <h2 class="hidden">{move || words::tab(Tab::Objects)}</h2>
                <Controls />
                <NameAll />
                <Objects />
                <BoxNumbers />
            </div>
            <Spoken />
        </section>
    }
}

#[component]
fn Tabs() -> impl IntoView {
    let app = app_state();
    let state: SideState = expect_context();
    let buttons = Tab::ALL.map(|tab| {
        let is_open = move || state.0.with(|side| side.open() == tab);
        let on_key = move |event: web_sys::KeyboardEvent| {
            let has_modifier = event.ctrl_key() || event.meta_key() || event.alt_key();
            if let Some(next) = tab.by_key(&event.key()).filter(|_| !has_modifier) {
                event.prevent_default();
                state.choose(next);
                focus(&format!("tab-{}", next.key()));
            }
        };
        view! {
            <button
                type="button"
                id=format!("tab-{}", tab.key())
                class="tab"
                role="tab"
                data-testid=format!("tab-{}", tab.key())
                aria-selected=move || is_open().to_string()
                aria-controls=format!("panel-{}", tab.key())
                tabindex=move || if is_open() { "0" } else { "-1" }
                on:click=move |_| state.choose(tab)
                on:keydown=on_key
            >
                {icon(match tab {
                    Tab::Chat => Icon::Chat,
                    Tab::Objects => Icon::Objects,
                })}
                <span>{move || words::tab(tab)}</span>
                {match tab {
                    Tab::Chat => view! { <News state /> }.into_any(),
                    Tab::Objects => view! {
                        <span class="count" data-testid="box-count">
                            {move || app.candidates.with(|c| c.boxes.len())}
                        </span>
                    }
                    .into_any(),
                }}
            </button>
        }
    });
    view! {
        <div class="tabs" role="tablist" aria-label=words::TABS>
            {buttons.collect_view()}
        </div>
    }
}

/// The dot of an answer that was not seen.
#[component]
fn News(state: SideState) -> impl IntoView {
    let has_news = Memo::new(move |_| state.0.with(|side| side.has_news()));
    view! {
        <Show when=move || has_news.get()>
            <span class="news" data-testid="news"><span class="hidden">{words::NEWS}</span></span>
        </Show>
    }
}

/// Moves the focus to an element.
fn focus(id: &str) {
    if let Some(element) = document().get_element_by_id(id) {
        // An element that cannot take the focus leaves it where it is.
        let _ = element.unchecked_into::<HtmlElement>().focus();
    }
}
