//! The turns: questions, streamed answers, phrases that point into the picture.

use chatrex::chat::answer::{self, Phrase, Piece, is_list, pieces};
use chatrex::chat::conversation::{Input, LookState, Model, Phase, Turn};
use chatrex::chat::overlay::{Highlight, Mentions};
use chatrex::protocol::{Answer, StopReason};
use js_sys::Reflect;
use leptos::html;
use leptos::prelude::*;
use web_sys::Element;

use super::state::{AppState, TurnSignal, app_state};
use super::status::{ModelProgress, of};

/// A reader this close to the end follows the words as they come, in CSS pixels.
const FOLLOW: i32 = 120;

/// All turns, oldest first, and what to say before the first.
#[component]
pub fn Transcript() -> impl IntoView {
    let desk = app_state();
    let list = NodeRef::<html::Div>::new();
    follow_end(desk, list);
    let finished = move || {
        desk.turns.with(|turns| {
            turns
                .last()
                .and_then(|t| t.turn.with(|t| t.phase.ended().then(|| spoken(t))))
        })
    };
    view! {
        <div class="transcript" node_ref=list tabindex="0" role="region" aria-label="Questions and answers">
            <Show when=move || desk.turns.with(Vec::is_empty)>
                <Welcome />
            </Show>
            <For each=move || desk.turns.get() key=|t| t.id children=|t| view! { <TurnView shown=t /> } />
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
    let desk = app_state();
    let id = shown.id;
    let turn = RwSignal::from(shown.turn);
    let question = turn.with_untracked(|t| t.shown.clone());
    let state = move || turn.with(|t| t.phase.word());
    let parts = Memo::new(move |_| {
        turn.with(|t| pieces(&t.spans, t.boxes.as_ref().map_or(0, |b| b.boxes.len())))
    });
    let listed =
        Memo::new(move |_| turn.with(|t| t.phase.ended()) && parts.with(|parts| is_list(parts)));
    let waits = Memo::new(move |_| turn.with(|t| !t.phase.ended() && t.phase != Phase::Streaming));
    let ended = Memo::new(move |_| turn.with(|t| t.phase.ended()));
    let body = move || {
        if listed.get() {
            view! { <Found turn parts /> }.into_any()
        } else {
            let numbered = move || {
                let parts = parts.get();
                parts.into_iter().enumerate().collect::<Vec<_>>()
            };
            view! {
                <p class="words">
                    <For
                        each=numbered
                        key=|(place, piece)| (*place, key(piece))
                        children=move |(_, piece)| view! { <PieceView turn piece /> }
                    />
                </p>
            }
            .into_any()
        }
    };
    let outcome = move || {
        turn.with(|t| match &t.phase {
            Phase::Stopped if t.spans.is_empty() => {
                Some("Stopped before the first word.".to_owned())
            }
            Phase::Stopped => Some("Stopped.".to_owned()),
            Phase::Failed(_) => Some("This answer failed.".to_owned()),
            Phase::Done => match &t.answer {
                Some(answer) if answer.stop == StopReason::Length => Some(format!(
                    "Stopped at the length limit ({} tokens).",
                    answer.tokens
                )),
                _ if t
                    .spans
                    .iter()
                    .all(|s| s.text.trim().is_empty() && s.objects.is_empty()) =>
                {
                    Some("The model said nothing.".to_owned())
                }
                _ => None,
            },
            _ => None,
        })
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
                {move || outcome().map(|words| view! { <p class="outcome">{words}</p> })}
            </div>
            <Show when=move || ended.get()>
                <div class="turn-actions">
                    <button
                        type="button"
                        class="quiet"
                        data-testid="retry"
                        disabled=move || desk.busy.get()
                        on:click=move |_| desk.act(Input::Retry(id))
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

/// What is going on before the first word.
#[component]
fn Waiting(turn: RwSignal<Turn>) -> impl IntoView {
    let desk = app_state();
    let words = move || {
        turn.with(|t| match &t.phase {
            Phase::Queued => desk.model.with(|model| match model {
                Model::Ready(_) => desk.picture.with(|p| match p.as_ref().map(|p| &p.sight) {
                    Some(LookState::Looking(Some(p))) => format!("Looking for objects…{}", of(*p)),
                    _ => "Looking for objects…".to_owned(),
                }),
                Model::Failed(_) => "Waits until the model is started again.".to_owned(),
                Model::Loading(_) | Model::Absent => {
                    "Runs as soon as the model is loaded.".to_owned()
                }
            }),
            Phase::Looking => "Looking at the picture…".to_owned(),
            Phase::Reading(progress) => {
                format!(
                    "Reading the question…{}",
                    progress.map_or(String::new(), of)
                )
            }
            _ => String::new(),
        })
    };
    let loads = Memo::new(move |_| {
        desk.model.with(|m| matches!(m, Model::Loading(_)))
            && turn.with(|t| t.phase == Phase::Queued)
    });
    view! {
        <p class="waiting" data-testid="phase">
            <span class="dots" aria-hidden="true">
                <i></i>
                <i></i>
                <i></i>
            </span>
            {words}
        </p>
        <Show when=move || loads.get()>
            <ModelProgress />
        </Show>
    }
}

#[component]
fn PieceView(turn: RwSignal<Turn>, piece: Piece) -> impl IntoView {
    match piece {
        Piece::Words(words) => view! { <span>{words}</span> }.into_any(),
        Piece::Phrase(phrase) => view! { <PhraseButton turn phrase /> }.into_any(),
    }
}

/// Words that light their boxes, and light up when one of them is pointed at.
#[component]
fn PhraseButton(turn: RwSignal<Turn>, phrase: Phrase) -> impl IntoView {
    let desk = app_state();
    let cite = cite(turn, &phrase.objects);
    let lit = {
        let cite = cite.clone();
        Memo::new(move |_| {
            desk.overlay.with(|o| {
                let lit = o.highlighted();
                !lit.is_empty() && cite.boxes.iter().any(|id| lit.contains(id))
            })
        })
    };
    let pinned = {
        let cite = cite.clone();
        Memo::new(move |_| desk.overlay.with(|o| o.is_pinned(&cite)))
    };
    let enter = {
        let cite = cite.clone();
        move || desk.overlay.maybe_update(|o| o.hover(Some(cite.clone())))
    };
    let focus = enter.clone();
    let leave = move || desk.overlay.maybe_update(|o| o.hover(None));
    let pin = move |_| desk.overlay.update(|o| o.pin(cite.clone()));
    let count = phrase.objects.len();
    let text = phrase.text.clone();
    let name = match count {
        0 => format!("{}, no box", text.trim()),
        1 => format!("{}, 1 box, show in the picture", text.trim()),
        n => format!("{}, {n} boxes, show in the picture", text.trim()),
    };
    let objects = phrase
        .objects
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    view! {
        <button
            type="button"
            class=format!("phrase hue-{} dash-{}", phrase.hue(), phrase.dash())
            class:lit=move || lit.get()
            class:nothing={count == 0}
            data-testid="phrase"
            data-objects=objects
            aria-label=name
            aria-pressed=move || pinned.get().to_string()
            on:pointerenter=move |_| enter()
            on:pointerleave=move |_| leave()
            on:focus=move |_| focus()
            on:blur=move |_| leave()
            on:click=pin
        >
            {text}
            {(count > 1).then(|| view! { <span class="times">{format!("×{count}")}</span> })}
            {(phrase.missing > 0).then(|| view! { <span class="times">"no box"</span> })}
        </button>
    }
}

/// An answer that is only phrases, as a list.
#[component]
fn Found(turn: RwSignal<Turn>, parts: Memo<Vec<Piece>>) -> impl IntoView {
    let rows = move || {
        parts.with(|parts| {
            parts
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Phrase(phrase) => Some(phrase.clone()),
                    Piece::Words(_) => None,
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

/// One quiet line of speed; opens to where the time went.
#[component]
fn Figures(turn: RwSignal<Turn>) -> impl IntoView {
    let figures = move || {
        turn.with(|t| {
            let answer = t.answer.as_ref()?;
            let boxes = t.boxes.as_ref().map_or(0, |b| b.boxes.len());
            Some((line(answer), rows(answer, boxes)))
        })
    };
    let found = move || {
        let desk = app_state();
        let time = desk
            .picture
            .with(|p| p.as_ref().and_then(|p| p.milliseconds))?;
        Some((
            "Finding boxes",
            format!(
                "{}, of which {} to prepare",
                span(time.prepare + time.upn),
                span(time.prepare)
            ),
        ))
    };
    view! {
        {move || {
            figures()
                .map(|(line, mut rows)| {
                    if let Some(found) = found() {
                        rows.insert(0, found);
                    }
                    view! {
                        <details class="figures" data-testid="figures">
                            <summary>{line}</summary>
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

/// Offers the question again where the boxes are no longer those of the answer.
#[component]
fn BoxesChanged(turn: RwSignal<Turn>) -> impl IntoView {
    let desk = app_state();
    let changed = Memo::new(move |_| {
        let last = desk.turns.with(|turns| turns.last().map(|t| t.id));
        desk.candidates.with(|now| {
            turn.with(|t| {
                Some(t.id) == last && t.boxes.as_ref().is_some_and(|b| b.boxes != now.boxes)
            })
        })
    });
    let again = move |_| {
        let (shown, question) = turn.with_untracked(|t| (t.shown.clone(), t.question.clone()));
        desk.act(Input::Ask { shown, question });
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

fn cite(turn: RwSignal<Turn>, objects: &[u32]) -> Highlight {
    turn.with_untracked(|t| {
        let mentions = Mentions {
            turn: t.id,
            boxes: t.boxes.clone().unwrap_or_default(),
            phrases: Vec::new(),
        };
        mentions.cite(objects)
    })
}

fn key(piece: &Piece) -> String {
    match piece {
        Piece::Words(words) => words.clone(),
        Piece::Phrase(phrase) => {
            format!("\u{0}{}{:?}{}", phrase.text, phrase.objects, phrase.missing)
        }
    }
}

fn spoken(turn: &Turn) -> String {
    let parts = pieces(
        &turn.spans,
        turn.boxes.as_ref().map_or(0, |b| b.boxes.len()),
    );
    match &turn.phase {
        Phase::Failed(_) => String::new(),
        Phase::Stopped => format!("{} Stopped.", answer::plain(&parts)),
        _ => answer::plain(&parts),
    }
}

fn copy(turn: RwSignal<Turn>) {
    let text = turn.with_untracked(|t| {
        answer::plain(&pieces(
            &t.spans,
            t.boxes.as_ref().map_or(0, |b| b.boxes.len()),
        ))
    });
    let navigator = window().navigator();
    // Without a clipboard, or refused, the text can still be selected by hand.
    if Reflect::has(&navigator, &"clipboard".into()).unwrap_or(false) {
        let _ = navigator.clipboard().write_text(&text);
    }
}

fn span(milliseconds: f64) -> String {
    if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", milliseconds / 1000.0)
    }
}

fn rate(tokens: u32, milliseconds: f64) -> Option<f64> {
    (tokens > 0 && milliseconds > 0.0).then(|| f64::from(tokens) * 1000.0 / milliseconds)
}

fn line(answer: &Answer) -> String {
    let mut line = format!("{} tok", answer.tokens);
    if let Some(rate) = rate(answer.tokens.saturating_sub(1), answer.milliseconds.decode) {
        line.push_str(&format!(" · {rate:.1} tok/s"));
    }
    line.push_str(&format!(
        " · first word {}",
        span(answer.milliseconds.first_token)
    ));
    line
}

fn rows(answer: &Answer, boxes: usize) -> Vec<(&'static str, String)> {
    let time = &answer.milliseconds;
    let look = match time.look {
        0.0 => "kept from before".to_owned(),
        look => span(look),
    };
    let prefill = match rate(answer.prefill_tokens, time.prefill) {
        Some(rate) => format!(
            "{} tokens in {} · {rate:.0} tok/s",
            answer.prefill_tokens,
            span(time.prefill)
        ),
        None => format!("{} tokens", answer.prefill_tokens),
    };
    let stop = match answer.stop {
        StopReason::End => "the model ended it",
        StopReason::Length => "length limit",
        StopReason::Stopped => "stopped by you",
    };
    vec![
        ("Looking at the picture", look),
        ("Reading", prefill),
        ("Writing", span(time.decode)),
        ("End", stop.to_owned()),
        ("Boxes given", boxes.to_string()),
        ("Exact words", answer.prompt.clone()),
    ]
}

/// Keeps the end in view for a reader who is there: of the list, or of the page where the list is
/// as long as its turns.
fn follow_end(desk: AppState, list: NodeRef<html::Div>) {
    Effect::new(move |before: Option<usize>| {
        let turns = desk.turns.with(|turns| {
            if let Some(last) = turns.last() {
                last.turn.track();
            }
            turns.len()
        });
        let page = document().scrolling_element();
        let list = list.get_untracked().map(|list| Element::clone(&list));
        let scrolls = |e: &Element| e.scroll_height() > e.client_height();
        if let Some(scroller) = list.filter(scrolls).or(page) {
            let below = scroller.scroll_height() - scroller.scroll_top() - scroller.client_height();
            if below < FOLLOW || before.is_some_and(|before| before != turns) {
                request_animation_frame(move || scroller.set_scroll_top(scroller.scroll_height()));
            }
        }
        turns
    });
}
