//! The turns: questions, streamed answers, and what can be done with them.

use chatrex::chat::conversation::{Input, Model, Phase, Turn};
use chatrex::chat::conversation_strings as words;
use chatrex::chat::page_strings;
use chatrex::chat::question::Draft;
use chatrex::chat::{language, strings};
use chatrex::protocol::TurnId;
use leptos::html;
use leptos::prelude::*;

use super::answer::AnswerBody;
use super::copy_menu::CopyMenu;
use super::evidence::{EvidenceStrip, provide_source};
use super::icons::{Icon, icon};
use super::links::LinkEditor;
use super::scroll::Place;
use super::state::{TurnSignal, app_state};
use super::status::ModelProgress;
use super::suggested::Suggested;

/// All turns, oldest first, and a welcome before the first.
#[component]
pub fn Transcript(
    /// Notes before the first turn.
    children: Children,
) -> impl IntoView {
    let app = app_state();
    provide_source(app);
    let list = NodeRef::<html::Div>::new();
    let place = Place::new(app, list);
    place.follow_end();
    place.keep_distance();
    Effect::new(move |before: Option<u32>| {
        let now = app.go_to_latest.get();
        if before.is_some() {
            place.go_to_end();
        }
        now
    });
    view! {
        <div
            class="transcript"
            node_ref=list
            tabindex="0"
            role="region"
            aria-label=page_strings::TRANSCRIPT
            on:scroll=move |_| place.on_scroll()
        >
            <div class="notes">{children()}</div>
            <Show when=move || app.turns.with(Vec::is_empty)>
                <Welcome />
            </Show>
            <For each=move || app.turns.get() key=|t| t.id children=|t| view! { <TurnView shown=t /> } />
            <Suggested />
            <p class="small-print">{words::HONEST}</p>
        </div>
    }
}

/// The last answer for a screen reader, once it is complete.
#[component]
pub fn Spoken() -> impl IntoView {
    let app = app_state();
    let finished = move || {
        app.latest_turn()
            .and_then(|t| t.turn.with(|t| t.phase.ended().then(|| strings::spoken(t))))
    };
    view! {
        <div class="hidden" role="log" aria-live="polite">
            {finished}
        </div>
    }
}

#[component]
fn Welcome() -> impl IntoView {
    view! {
        <div class="welcome">
            <p class="welcome-title">{page_strings::WELCOME}</p>
            <p>
                {page_strings::WELCOME_NOTE}
            </p>
        </div>
    }
}

#[component]
fn TurnView(shown: TurnSignal) -> impl IntoView {
    let id = shown.id;
    let turn = RwSignal::from(shown.turn);
    let question = turn.with_untracked(|t| t.shown.clone());
    let asked = question.clone();
    let question_language = move || language::of(&asked);
    let state = move || turn.with(|t| t.phase.name());
    let answer_language =
        move || turn.with(|t| t.spans.iter().find_map(|span| language::of(&span.text)));
    let is_empty = Memo::new(move |_| turn.with(|t| t.spans.is_empty()));
    let waits = Memo::new(move |_| {
        let waits = turn.with(|t| !t.phase.ended() && t.phase != Phase::Streaming);
        waits || turn.with(|t| t.extending && !t.phase.ended())
    });
    let ended = Memo::new(move |_| turn.with(|t| t.phase.ended()));
    view! {
        <article class="turn">
            <div class="asked">
                <span class="hidden">{page_strings::YOU}</span>
                <p class="question" data-testid="asked" dir="auto" lang=question_language>
                    {question}
                </p>
                <EditButton turn />
            </div>
            <div
                class="answer"
                data-testid="answer"
                data-state=state
                dir="auto"
                lang=answer_language
                aria-busy=move || (!ended.get()).to_string()
            >
                <Show when=move || !is_empty.get()>
                    <AnswerBody turn />
                </Show>
                <Show when=move || waits.get()>
                    <Waiting turn />
                </Show>
                <Outcome turn />
            </div>
            <EvidenceStrip turn />
            <LinkEditor turn />
            <Show when=move || ended.get()>
                <div class="turn-actions">
                    <RetryButton turn />
                    <Versions turn />
                    <CopyMenu turn />
                    <Figures turn />
                </div>
                <BoxesChanged turn id />
            </Show>
        </article>
    }
}

/// The pencil at a question.
#[component]
fn EditButton(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let edit = move |_| {
        let turn = turn.get_untracked();
        app.editing.set(Some(turn.id));
        app.take_up(&turn);
    };
    view! {
        <button
            type="button"
            class="quiet edit"
            data-testid="edit"
            aria-label=words::EDIT
            title=words::EDIT
            disabled=move || app.busy.get()
            on:click=edit
        >
            {icon(Icon::Edit)}
        </button>
    }
}

/// How the answer ended, and the button that lets it go on.
#[component]
fn Outcome(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let id = turn.with_untracked(|t| t.id);
    let limit = Memo::new(move |_| turn.with(Turn::higher_limit));
    view! {
        {move || {
            turn.with(strings::outcome)
                .map(|text| {
                    view! {
                        <p class="outcome" lang=page_language>
                            {text}
                            {move || {
                                limit
                                    .get()
                                    .map(|limit| {
                                        view! {
                                            " "
                                            <button
                                                type="button"
                                                class="link"
                                                data-testid="continue"
                                                title=words::continues(limit)
                                                disabled=move || app.busy.get()
                                                on:click=move |_| app.act(Input::Continue(id))
                                            >
                                                {words::CONTINUE}
                                            </button>
                                            " "
                                            {words::continues(limit)}
                                        }
                                    })
                            }}
                        </p>
                    }
                })
        }}
    }
}

#[component]
fn RetryButton(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let id = turn.with_untracked(|t| t.id);
    let text = move || match turn.with(|t| t.rewords(app.sampling.get())) {
        true => words::OTHER_WORDING,
        false => words::TRY_AGAIN,
    };
    view! {
        <button
            type="button"
            class="quiet action"
            title=move || format!("{} (Alt+R)", text()())
            data-testid="retry"
            disabled=move || app.busy.get()
            on:click=move |_| app.act(Input::Retry(id))
        >
            {icon(Icon::Retry)}
            <span class="hidden">{text}</span>
        </button>
    }
}

/// The switch between several answers.
#[component]
fn Versions(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let id = turn.with_untracked(|t| t.id);
    let is_first = move || turn.with(|t| t.version == 0);
    let is_last = move || turn.with(|t| t.version + 1 >= t.versions());
    let go = move |back: bool| {
        let now = turn.with_untracked(|t| t.version);
        let next = if back { now.saturating_sub(1) } else { now + 1 };
        app.act(Input::Version(id, next));
    };
    view! {
        <Show when=move || turn.with(|t| t.versions() > 1)>
            <span class="versions" role="group" aria-label=page_strings::ANSWERS>
                <button
                    type="button"
                    class="quiet"
                    data-testid="version-before"
                    aria-label=page_strings::ANSWER_BEFORE
                    disabled=move || is_first() || app.busy.get()
                    on:click=move |_| go(true)
                >
                    "‹"
                </button>
                <span role="status" data-testid="version">{move || turn.with(words::version)}</span>
                <button
                    type="button"
                    class="quiet"
                    data-testid="version-after"
                    aria-label=page_strings::ANSWER_AFTER
                    disabled=move || is_last() || app.busy.get()
                    on:click=move |_| go(false)
                >
                    "›"
                </button>
            </span>
        </Show>
    }
}

/// The language of notes in an answer, which may be in another one.
fn page_language() -> &'static str {
    chatrex::chat::words::language().tag()
}

/// What the turn waits for before the first word.
#[component]
fn Waiting(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let text = move || {
        let (model, picture) = (app.model.read(), app.picture.read());
        turn.with(|t| strings::waiting(t, &model, picture.as_ref()))
    };
    let is_loading = Memo::new(move |_| {
        app.model.with(|m| matches!(m, Model::Loading(_)))
            && turn.with(|t| t.phase == Phase::Queued)
    });
    view! {
        <p class="waiting" lang=page_language data-testid="phase">
            <span class="dots" aria-hidden="true">
                <i></i>
                <i></i>
                <i></i>
            </span>
            {text}
        </p>
        <Show when=move || is_loading.get()>
            <ModelProgress />
        </Show>
    }
}

/// The speed of an answer in a line, which opens to all figures.
#[component]
fn Figures(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let figures = move || {
        let found = app
            .picture
            .with(|p| p.as_ref().and_then(|p| p.milliseconds));
        turn.with(|t| {
            let answer = t.answer.as_ref()?;
            Some((strings::speed(answer), words::figures(t, found)))
        })
    };
    view! {
        {move || {
            figures()
                .map(|(speed, rows)| {
                    view! {
                        <details class="figures" data-testid="figures">
                            <summary>{speed}</summary>
                            <dl>
                                {rows
                                    .into_iter()
                                    .map(|(name, value)| view! { <dt>{name}</dt><dd>{value}</dd> })
                                    .collect_view()}
                            </dl>
                        </details>
                    }
                })
        }}
    }
}

/// Offers to ask again where the candidates differ from the boxes of the answer.
#[component]
fn BoxesChanged(turn: RwSignal<Turn>, id: TurnId) -> impl IntoView {
    let app = app_state();
    let changed = Memo::new(move |_| {
        let last = app.turns.with(|turns| turns.last().map(|t| t.id));
        let changed = || {
            app.candidates
                .with(|now| turn.with(|t| words::boxes_changed(t, now)))
        };
        last == Some(id) && changed()
    });
    let again = move |_| {
        let draft: Draft = turn.with_untracked(|t| t.draft.clone());
        app.act(Input::AskDraft(draft));
    };
    view! {
        <Show when=move || changed.get()>
            <p class="changed">
                {page_strings::BOXES_CHANGED}
                <button type="button" class="link" on:click=again>
                    {page_strings::ASK_AGAIN}
                </button>
                {page_strings::WITH_NEW_BOXES}
            </p>
        </Show>
    }
}
