//! The text box, the kinds of question, and the buttons to send and stop.

use chatrex::chat::page_strings;
use std::time::Duration;

use chatrex::chat::candidates::LOST_MARK;
use chatrex::chat::conversation::Input;
use chatrex::chat::conversation_strings as words;
use chatrex::chat::language;
use chatrex::chat::overlay::Highlight;
use chatrex::chat::question::{self, ChipAction, Cited, Draft, QuestionKind};
use chatrex::chat::strings;
use chatrex::chat::words::Word;
use js_sys::Reflect;
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use web_sys::KeyboardEvent;

use super::icons::{Icon, icon};
use super::sampling_panel::{SamplingButton, SamplingPanel};
use super::stage::StageSize;
use super::state::{AppState, app_state};

/// Key code that browsers report while an input method composes.
const COMPOSING: u32 = 229;

/// How long an edited question can be undone.
const UNDO_TIME: Duration = Duration::from_secs(10);

type TextBox = NodeRef<html::Textarea>;

/// Whether a key belongs to an input method that is composing.
pub fn is_composing(event: &KeyboardEvent) -> bool {
    event.is_composing() || event.key_code() == COMPOSING
}

/// The menu of kinds that `/` opens.
#[derive(Clone, Copy)]
struct Menu {
    /// Its rows; empty while it is closed.
    rows: Memo<Vec<QuestionKind>>,
    /// The row that Enter takes.
    active: RwSignal<usize>,
    /// True after Escape, until other words are typed.
    is_closed: RwSignal<bool>,
}

impl Menu {
    fn new(app: AppState) -> Self {
        let is_closed = RwSignal::new(false);
        let rows = Memo::new(move |_| match is_closed.get() {
            true => Vec::new(),
            false => app.draft.with(|draft| QuestionKind::menu(draft)),
        });
        Self {
            rows,
            active: RwSignal::new(0),
            is_closed,
        }
    }

    fn is_open(self) -> bool {
        self.rows.with(|rows| !rows.is_empty())
    }

    fn active_row(self) -> Option<usize> {
        let count = self.rows.with(Vec::len);
        count.checked_sub(1).map(|last| self.active.get().min(last))
    }

    fn typed(self) {
        self.is_closed.set(false);
        self.active.set(0);
    }

    /// Keys of the open menu; false if it does not take the key.
    fn on_key(self, app: AppState, event: &KeyboardEvent) -> bool {
        let Some(active) = untrack(|| self.active_row()) else {
            return false;
        };
        let count = self.rows.with_untracked(Vec::len);
        match event.key().as_str() {
            "ArrowDown" => self.active.set((active + 1) % count),
            "ArrowUp" => self.active.set((active + count - 1) % count),
            "Enter" | "Tab" if !event.shift_key() => {
                if let Some(&kind) = self.rows.with_untracked(Vec::clone).get(active) {
                    choose(app, kind);
                }
            }
            "Escape" => self.is_closed.set(true),
            _ => return false,
        }
        true
    }
}

/// Takes a kind from the menu; the text box is empty then.
fn choose(app: AppState, kind: QuestionKind) {
    app.kind.set(kind);
    app.exact.set(None);
    app.draft.set(String::new());
    app.focus_draft.update(|count| *count += 1);
}

/// The form in which the user writes a question.
#[component]
pub fn Ask() -> impl IntoView {
    let app = app_state();
    let text_box = TextBox::new();
    let stage: StageSize = expect_context();
    let menu = Menu::new(app);
    let ready =
        Memo::new(move |_| app.can_ask.get() && !menu.is_open() && app.written().is_complete());
    Effect::new(move |before: Option<u32>| {
        let requests = app.focus_draft.get();
        if before.is_some_and(|before| before != requests) {
            focus(text_box);
        }
        requests
    });
    let controls = move || menu.is_open().then_some("kinds");
    let active = move || menu.active_row().map(row_id);
    view! {
        <form
            class="ask"
            on:submit=move |event| {
                event.prevent_default();
                if ready.get_untracked() {
                    app.send_draft();
                    focus(text_box);
                }
            }
        >
            <Show when=move || app.is_far.get()>
                <div class="to-latest">
                    <button
                        type="button"
                        class="button small"
                        data-testid="to-latest"
                        on:click=move |_| app.go_to_latest.update(|count| *count += 1)
                    >
                        {words::TO_LATEST}
                    </button>
                </div>
            </Show>
            <UndoEdit />
            <Editing text_box />
            <div class="chips">
                <div class="kind-chips" role="group" aria-label=words::MENU>
                    {QuestionKind::CHIPS.map(|kind| view! { <Chip kind text_box /> }).collect_view()}
                </div>
                <button
                    type="button"
                    class="quiet action"
                    popovertarget="exact"
                    title=words::EXACT
                    data-testid="exact-open"
                >
                    {icon(Icon::Words)}
                    <span class="hidden">{words::EXACT}</span>
                    <Show when=move || app.exact.with(Option::is_some)>
                        <span class="times">{words::CHANGED}</span>
                    </Show>
                </button>
                <SamplingButton />
            </div>
            <div class="field">
                <Kinds menu />
                <div class="writing">
                    <Tokens text_box />
                    <label class="hidden" for="question">
                        {page_strings::YOUR_QUESTION}
                    </label>
                    <textarea
                        id="question"
                        node_ref=text_box
                        rows="1"
                        dir="auto"
                        lang=move || app.draft.with(|draft| language::of(draft))
                        data-testid="question"
                        autocomplete="off"
                        aria-haspopup="listbox"
                        aria-autocomplete="list"
                        aria-controls=controls
                        aria-activedescendant=active
                        placeholder=move || app.kind.get().placeholder()
                        prop:value=move || app.draft.get()
                        on:input=move |event| {
                            menu.typed();
                            on_input(app, text_box, &event);
                        }
                        on:keydown=move |event| on_key(app, menu, ready, &event)
                        on:focus=move |_| stage.shrink()
                    ></textarea>
                </div>
                <SendOrStop ready text_box />
            </div>
            <Show when=move || app.draft.with(|draft| draft.contains(LOST_MARK))>
                <p class="hint">{strings::LOST_MARK_HINT}</p>
            </Show>
            <p class="small-print">{words::HONEST}</p>
        </form>
        <ExactWords ready />
        <SamplingPanel />
    }
}

/// Words are typed: numbers of boxes become marks, except while an input method composes.
fn on_input(app: AppState, text_box: TextBox, event: &ev::Event) {
    let typed = event_target_value(event);
    let composes = Reflect::get(event, &"isComposing".into());
    app.exact.set(None);
    let text_box = text_box.get_untracked();
    let caret = text_box
        .as_ref()
        .and_then(|t| t.selection_start().ok().flatten());
    let (Some(text_box), Some(caret), false) =
        (text_box, caret, composes.is_ok_and(|c| c.is_truthy()))
    else {
        app.draft.set(typed);
        return;
    };
    let candidates = app.candidates.get_untracked();
    let (text, caret) = question::typed_hashes(&typed, caret as usize, &candidates);
    if text != typed {
        text_box.set_value(&text);
        // A caret that cannot be set stands at the end.
        let _ = text_box.set_selection_range(caret as u32, caret as u32);
    }
    app.draft.set(text);
}

/// Keys in the text box: Enter sends, Escape stops or goes back a step, the up arrow brings the last
/// question back. Keys of an input method do nothing.
fn on_key(app: AppState, menu: Menu, ready: Memo<bool>, event: &KeyboardEvent) {
    if is_composing(event) {
        return;
    }
    if menu.on_key(app, event) {
        event.prevent_default();
        return;
    }
    match event.key().as_str() {
        "Enter" if !event.shift_key() => {
            if ready.get_untracked() {
                app.send_draft();
            }
        }
        "Escape" if app.busy.get_untracked() => app.act(Input::Stop),
        "Escape" if app.editing.get_untracked().is_some() => app.clear_draft(),
        "Escape" if app.kind.get_untracked() != QuestionKind::Free => {
            app.kind.set(QuestionKind::Free);
            app.exact.set(None);
        }
        "ArrowUp" if app.draft.with_untracked(String::is_empty) => {
            let turns = app.turns.get_untracked();
            let Some(last) = turns.last() else {
                return;
            };
            app.take_up(&last.turn.get_untracked());
        }
        _ => return,
    }
    event.prevent_default();
}

/// The rows of the menu of kinds.
#[component]
fn Kinds(menu: Menu) -> impl IntoView {
    let app = app_state();
    let rows = move || {
        let rows = menu.rows.get().into_iter().enumerate();
        rows.map(|(row, kind)| {
            view! {
                <li
                    id=row_id(row)
                    role="option"
                    class:active=move || menu.active_row() == Some(row)
                    aria-selected=move || (menu.active_row() == Some(row)).to_string()
                    data-testid=format!("kind-{}", kind.command())
                    on:pointerenter=move |_| menu.active.set(row)
                    on:mousedown=|event| event.prevent_default()
                    on:click=move |_| choose(app, kind)
                >
                    <b>{format!("/{}", kind.command())}</b>
                    <span>{kind.explanation()}</span>
                </li>
            }
        })
        .collect_view()
    };
    view! {
        <Show when=move || menu.is_open()>
            <ul id="kinds" class="kinds" role="listbox" aria-label=words::MENU data-testid="kinds">
                {rows}
            </ul>
        </Show>
    }
}

fn row_id(row: usize) -> String {
    format!("kind-row-{row}")
}

/// The boxes that the draft names, and a kind without a chip; each can be removed.
#[component]
fn Tokens(text_box: TextBox) -> impl IntoView {
    let app = app_state();
    let kind = move || {
        Some(app.kind.get())
            .filter(|k| *k != QuestionKind::Free && !QuestionKind::CHIPS.contains(k))
    };
    let cited = move || {
        let candidates = app.candidates.get();
        app.draft.with(|draft| question::cited(draft, &candidates))
    };
    let kind_token = move || {
        kind().map(|kind| {
            view! {
                <button
                    type="button"
                    class="token"
                    aria-label=words::of(words::REMOVE(), kind.label())
                    on:click=move |_| {
                        app.kind.set(QuestionKind::Free);
                        focus(text_box);
                    }
                >
                    {kind.label()}
                    <span aria-hidden="true">"×"</span>
                </button>
            }
        })
    };
    view! {
        <div class="tokens">
            {kind_token}
            <For
                each=cited
                key=|cited| (cited.number, cited.label.clone())
                children=move |cited| view! { <BoxToken cited text_box /> }
            />
        </div>
    }
}

#[component]
fn BoxToken(cited: Cited, text_box: TextBox) -> impl IntoView {
    let app = app_state();
    let number = cited.number;
    let cited = StoredValue::new(cited);
    let name = move || cited.with_value(words::cited);
    let id = app
        .candidates
        .with_untracked(|c| c.get(number).map(|b| b.id));
    let hover = move |on: bool| {
        let highlight = id.filter(|_| on).map(Highlight::one);
        app.overlay.maybe_update(|o| o.hover(highlight));
    };
    let remove = move |_| {
        hover(false);
        app.draft
            .update(|draft| *draft = question::without_mark(draft, number));
        app.exact.set(None);
        focus(text_box);
    };
    view! {
        <button
            type="button"
            class="token"
            data-testid="cited"
            data-index=number
            aria-label=move || words::of(&words::remove_box(number), &name())
            title=move || words::remove_box(number)
            on:pointerenter=move |_| hover(true)
            on:pointerleave=move |_| hover(false)
            on:focus=move |_| hover(true)
            on:blur=move |_| hover(false)
            on:click=remove
        >
            <span dir="auto">{name}</span>
            <span aria-hidden="true">"×"</span>
        </button>
    }
}

#[component]
fn SendOrStop(ready: Memo<bool>, text_box: TextBox) -> impl IntoView {
    let app = app_state();
    let label = move || match app.editing.get() {
        Some(_) => words::SEND_EDITED,
        None => words::SEND,
    };
    let send = move || {
        view! {
            <button
                type="submit"
                class="send primary"
                title=label
                data-testid="send"
                disabled=move || !ready.get()
            >
                {icon(Icon::Send)}
                <span class="hidden">{label}</span>
            </button>
        }
    };
    let stop = move |_| {
        app.act(Input::Stop);
        focus(text_box);
    };
    let stop_label = move || match app.stopping.get() {
        true => words::STOPPING,
        false => words::STOP,
    };
    view! {
        <Show when=move || app.busy.get() fallback=send>
            <button
                type="button"
                class="send stop"
                title=stop_label
                data-testid="stop"
                aria-disabled=move || app.stopping.get().to_string()
                on:click=stop
            >
                {icon(Icon::Stop)}
                <span class="hidden">{stop_label}</span>
            </button>
        </Show>
    }
}

/// Tells that an earlier question is being changed.
#[component]
fn Editing(text_box: TextBox) -> impl IntoView {
    let app = app_state();
    let cancel = move || {
        app.clear_draft();
        focus(text_box);
    };
    let is_shown = Signal::derive(move || app.editing.get().is_some());
    view! {
        <Note id="editing" is_shown text=words::EDITING button="edit-cancel" action=words::CANCEL press=cancel />
    }
}

/// Brings back, for a while, what an edited question replaced.
#[component]
fn UndoEdit() -> impl IntoView {
    let app = app_state();
    Effect::new(move |_| {
        if let Some(edit) = app.last_edit.get() {
            set_timeout(
                move || {
                    if app.last_edit.get_untracked() == Some(edit) {
                        app.act(Input::KeepEdit);
                    }
                },
                UNDO_TIME,
            );
        }
    });
    let undo = move || app.act(Input::UndoEdit);
    let is_shown = Signal::derive(move || app.last_edit.get().is_some());
    view! {
        <Note id="edited-note" is_shown text=words::DROPPED button="undo-edit" action=words::UNDO press=undo />
    }
}

/// A sentence above the text box with a button, announced when it is shown.
#[component]
fn Note(
    id: &'static str,
    is_shown: Signal<bool>,
    text: Word,
    button: &'static str,
    action: Word,
    press: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    view! {
        <div role="status">
            <Show when=move || is_shown.get()>
                <p class="editing" data-testid=id>
                    <span>{text}</span>
                    <button type="button" class="quiet" data-testid=button on:click=move |_| press()>
                        {action}
                    </button>
                </p>
            </Show>
        </div>
    }
}

/// The words for the model, which can be changed before they are sent.
#[component]
fn ExactWords(ready: Memo<bool>) -> impl IntoView {
    let app = app_state();
    let usual = move || {
        let candidates = app.candidates.get();
        let draft = Draft::new(app.kind.get(), app.draft.get());
        draft.phrase(&candidates).1
    };
    let shown = move || app.exact.get().unwrap_or_else(usual);
    let panel = NodeRef::<html::Div>::new();
    let send = move |_| {
        if ready.get_untracked() {
            app.send_draft();
            if let Some(panel) = panel.get_untracked() {
                // Without the popover API it is not open.
                let _ = panel.hide_popover();
            }
        }
    };
    view! {
        <div
            id="exact"
            class="aside"
            popover="auto"
            role="group"
            aria-label=words::EXACT_TITLE
            node_ref=panel
        >
            <h2>{words::EXACT_TITLE}</h2>
            <p class="hint">{words::EXACT_NOTE}</p>
            <textarea
                rows="5"
                dir="auto"
                aria-label=words::EXACT_TITLE
                data-testid="exact"
                prop:value=shown
                on:input=move |event| app.exact.set(Some(event_target_value(&event)))
            ></textarea>
            <div class="aside-actions">
                <button
                    type="button"
                    class="button small"
                    data-testid="exact-reset"
                    disabled=move || app.exact.with(Option::is_none)
                    on:click=move |_| app.exact.set(None)
                >
                    {words::EXACT_RESET}
                </button>
                <button
                    type="button"
                    class="button small primary"
                    data-testid="exact-send"
                    disabled=move || !ready.get()
                    on:click=send
                >
                    {words::SEND}
                </button>
            </div>
        </div>
    }
}

#[component]
fn Chip(kind: QuestionKind, text_box: TextBox) -> impl IntoView {
    let app = app_state();
    let on_click = move |_| {
        let marks = app.selection_marks().join("; ");
        match kind.on_chip(&marks, app.can_ask.get_untracked()) {
            ChipAction::Ask(words) => app.ask(kind, &words),
            ChipAction::Toggle => {
                app.exact.set(None);
                app.kind.update(|now| {
                    *now = if *now == kind {
                        QuestionKind::Free
                    } else {
                        kind
                    }
                });
                focus(text_box);
            }
        }
    };
    view! {
        <button
            type="button"
            class="chip-button"
            data-testid=format!("chip-{}", kind.key())
            aria-pressed=move || (app.kind.get() == kind).to_string()
            on:click=on_click
        >
            {move || kind.label()}
        </button>
    }
}

fn focus(text_box: TextBox) {
    if let Some(text_box) = text_box.get_untracked() {
        // An element that cannot take the focus leaves it where it is.
        let _ = text_box.focus();
    }
}
