//! The turns: questions, streamed answers, and phrases that highlight their boxes.

use chatrex::chat::answer::{self, AnswerPiece, Phrase, is_list};
use chatrex::chat::conversation::{Input, Model, Phase, Turn};
use chatrex::chat::overlay::{Highlight, Mentions};
use chatrex::chat::strings;
use js_sys::Reflect;
use leptos::html;
use leptos::prelude::*;
use web_sys::Element;

use super::state::{AppState, TurnSignal, app_state};
use super::status::ModelProgress;

/// The list follows the answer while its end is at most this many CSS pixels below the view.
const FOLLOW_DISTANCE: i32 = 120;

/// All turns, oldest first, and a welcome before the first.
#[component]
pub fn Transcript() -> impl IntoView {
    let app = app_state();
    let list = NodeRef::<html::Div>::new();
    follow_end(app, list);
    let finished = move || {
        app.turns.with(|turns| {
            turns
                .last()
                .and_then(|t| t.turn.with(|t| t.phase.ended().then(|| strings::spoken(t))))
        })
    };
    view! {
        <div class="transcript" node_ref=list tabindex="0" role="region" aria-label="Questions and answers">
            <Show when=move || app.turns.with(Vec::is_empty)>
                <Welcome />
            </Show>
            <For each=move || app.turns.get() key=|t| t.id children=|t| view! { <TurnView shown=t /> } />
        </div>
        <div class="hidden" role="log" aria-live="polite">
            {finished}
        </div>
    }
}

#[component]
fn Welcome() -> impl IntoView {
    view! {
        <div class="welcome">
            <p class="welcome-title">"Ask about this picture"</p>
            <p>
                "Find or count things by name, have the picture described, or click a box and ask what it is. Words in the answer point back at the boxes they mean."
            </p>
        </div>
    }
}

#[component]
fn TurnView(shown: TurnSignal) -> impl IntoView {
    let app = app_state();
    let id = shown.id;
    let turn = RwSignal::from(shown.turn);
    let question = turn.with_untracked(|t| t.shown.clone());
    let state = move || turn.with(|t| t.phase.name());
    let pieces = Memo::new(move |_| turn.with(Turn::pieces));
    let listed =
        Memo::new(move |_| turn.with(|t| t.phase.ended()) && pieces.with(|pieces| is_list(pieces)));
    let waits = Memo::new(move |_| turn.with(|t| !t.phase.ended() && t.phase != Phase::Streaming));
    let ended = Memo::new(move |_| turn.with(|t| t.phase.ended()));
    let body = move || {
        if listed.get() {
            view! { <PhraseList turn pieces /> }.into_any()
        } else {
            let numbered = move || {
                let pieces = pieces.get();
                pieces.into_iter().enumerate().collect::<Vec<_>>()
            };
            view! {
                <p class="words">
                    <For
                        each=numbered
                        key=|(index, piece)| (*index, key(piece))
                        children=move |(_, piece)| view! { <PieceView turn piece /> }
                    />
                </p>
            }
            .into_any()
        }
    };
    view! {
        <article class="turn">
            <p class="question" data-testid="asked">
                <span class="hidden">"You: "</span>
                {question}
            </p>
            <div
                class="answer"
                data-testid="answer"
                data-state=state
                aria-busy=move || (!ended.get()).to_string()
            >
                <Show when=move || waits.get()>
                    <Waiting turn />
                </Show>
                {body}
                {move || turn.with(strings::outcome).map(|text| view! { <p class="outcome">{text}</p> })}
            </div>
            <Show when=move || ended.get()>
                <div class="turn-actions">
                    <button
                        type="button"
                        class="quiet"
                        data-testid="retry"
                        disabled=move || app.busy.get()
                        on:click=move |_| app.act(Input::Retry(id))
                    >
                        "Try again"
                    </button>
                    <button type="button" class="quiet" on:click=move |_| copy(turn)>
                        "Copy"
                    </button>
                    <Figures turn />
                </div>
                <BoxesChanged turn />
            </Show>
        </article>
    }
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
        <p class="waiting" data-testid="phase">
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

#[component]
fn PieceView(turn: RwSignal<Turn>, piece: AnswerPiece) -> impl IntoView {
    match piece {
        AnswerPiece::Text(text) => view! { <span>{text}</span> }.into_any(),
        AnswerPiece::Phrase(phrase) => view! { <PhraseButton turn phrase /> }.into_any(),
    }
}

/// A phrase that highlights its boxes, and is highlighted with any of them.
#[component]
fn PhraseButton(turn: RwSignal<Turn>, phrase: Phrase) -> impl IntoView {
    let app = app_state();
    let highlight = StoredValue::new(highlight(turn, &phrase.objects));
    let is_lit = Memo::new(move |_| {
        app.overlay.with(|o| {
            let lit = o.highlighted();
            highlight.with_value(|h| h.boxes.iter().any(|id| lit.contains(id)))
        })
    });
    let is_pinned =
        Memo::new(move |_| highlight.with_value(|h| app.overlay.with(|o| o.is_pinned(h))));
    let enter = move || {
        let hovered = highlight.get_value();
        app.overlay.maybe_update(|o| o.hover(Some(hovered)));
    };
    let leave = move || app.overlay.maybe_update(|o| o.hover(None));
    let pin = move |_| {
        let pinned = highlight.get_value();
        app.overlay.update(|o| o.pin(pinned.clone()));
        if app.overlay.with_untracked(|o| o.is_pinned(&pinned)) {
            app.reveal(&pinned);
        }
    };
    let count = phrase.objects.len();
    let class = format!("phrase hue-{} dash-{}", phrase.hue(), phrase.dash());
    let name = strings::phrase_name(&phrase);
    let objects = phrase
        .objects
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    view! {
        <button
            type="button"
            class=class
            class:lit=move || is_lit.get()
            class:nothing={count == 0}
            data-testid="phrase"
            data-objects=objects
            aria-label=name
            aria-pressed=move || is_pinned.get().to_string()
            on:pointerenter=move |_| enter()
            on:pointerleave=move |_| leave()
            on:focus=move |_| enter()
            on:blur=move |_| leave()
            on:click=pin
        >
            {phrase.text}
            {(count > 1).then(|| view! { <span class="times">{format!("×{count}")}</span> })}
            {(phrase.missing > 0).then(|| view! { <span class="times">"no box"</span> })}
        </button>
    }
}

/// An answer of phrases only, as a list.
#[component]
fn PhraseList(turn: RwSignal<Turn>, pieces: Memo<Vec<AnswerPiece>>) -> impl IntoView {
    let rows = move || {
        pieces.with(|pieces| {
            pieces
                .iter()
                .filter_map(|piece| match piece {
                    AnswerPiece::Phrase(phrase) => Some(phrase.clone()),
                    AnswerPiece::Text(_) => None,
                })
                .map(|phrase| {
                    let numbers = phrase.objects.iter().map(|o| format!("[{o}]"));
                    let numbers = numbers.collect::<Vec<_>>().join(" ");
                    view! {
                        <li>
                            <PhraseButton turn phrase />
                            <span class="numbers">{numbers}</span>
                        </li>
                    }
                })
                .collect_view()
        })
    };
    view! { <ul class="found">{rows}</ul> }
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
            let boxes = t.boxes.as_ref().map_or(0, |b| b.boxes.len());
            Some((
                strings::speed(answer),
                strings::figures(answer, boxes, found),
            ))
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
fn BoxesChanged(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let changed = Memo::new(move |_| {
        let last = app.turns.with(|turns| turns.last().map(|t| t.id));
        app.candidates.with(|now| {
            turn.with(|t| {
                Some(t.id) == last && t.boxes.as_ref().is_some_and(|b| b.boxes != now.boxes)
            })
        })
    });
    let again = move |_| {
        let (shown, question) = turn.with_untracked(|t| (t.shown.clone(), t.question.clone()));
        app.act(Input::Ask { shown, question });
    };
    view! {
        <Show when=move || changed.get()>
            <p class="changed">
                "The boxes changed after this answer. "
                <button type="button" class="link" on:click=again>
                    "Ask again"
                </button>
                " with the new ones."
            </p>
        </Show>
    }
}

fn highlight(turn: RwSignal<Turn>, objects: &[u32]) -> Highlight {
    turn.with_untracked(|t| {
        let mentions = Mentions {
            turn: t.id,
            boxes: t.boxes.clone().unwrap_or_default(),
            phrases: Vec::new(),
        };
        mentions.highlight(objects)
    })
}

/// A key of a piece for the list view: equal pieces have equal keys.
fn key(piece: &AnswerPiece) -> String {
    match piece {
        AnswerPiece::Text(text) => text.clone(),
        AnswerPiece::Phrase(phrase) => {
            format!("\u{0}{}{:?}{}", phrase.text, phrase.objects, phrase.missing)
        }
    }
}

fn copy(turn: RwSignal<Turn>) {
    let text = turn.with_untracked(|t| answer::plain(&t.pieces()));
    let navigator = window().navigator();
    // Without access to the clipboard the user can still select the text.
    if Reflect::has(&navigator, &"clipboard".into()).unwrap_or(false) {
        let _ = navigator.clipboard().write_text(&text);
    }
}

/// Scrolls to the end of the answer while the user is there: in the list, or in the page where the list
/// does not scroll.
fn follow_end(app: AppState, list: NodeRef<html::Div>) {
    Effect::new(move |before: Option<usize>| {
        let turns = app.turns.with(|turns| {
            if let Some(last) = turns.last() {
                last.turn.track();
            }
            turns.len()
        });
        let page = document().scrolling_element();
        let list = list.get_untracked().map(|list| Element::clone(&list));
        let is_scrollable = |e: &Element| e.scroll_height() > e.client_height();
        if let Some(scroller) = list.filter(is_scrollable).or(page) {
            let below = scroller.scroll_height() - scroller.scroll_top() - scroller.client_height();
            if below < FOLLOW_DISTANCE || before.is_some_and(|before| before != turns) {
                request_animation_frame(move || scroller.set_scroll_top(scroller.scroll_height()));
            }
        }
        turns
    });
}
