//! The words of an answer: Markdown with phrases that highlight their boxes, or a table of detections.

use chatrex::chat::answer::{AnswerPiece, Phrase};
use chatrex::chat::certainty;
use chatrex::chat::conversation::{Phase, Turn};
use chatrex::chat::conversation_strings as words;
use chatrex::chat::counts;
use chatrex::chat::detection::{self, Row, Table};
use chatrex::chat::markdown::{self, Block, Inline};
use chatrex::chat::overlay::{Highlight, Mentions};
use leptos::prelude::*;

use super::state::app_state;

/// The answer of a turn so far.
#[component]
pub fn AnswerBody(turn: RwSignal<Turn>) -> impl IntoView {
    let pieces = Memo::new(move |_| turn.with(Turn::pieces));
    let table = Memo::new(move |_| {
        let has_ended = turn.with(|t| matches!(t.phase, Phase::Done | Phase::Stopped));
        let asked = turn.with(|t| match t.phase {
            Phase::Done => t.draft.things(),
            _ => Vec::new(),
        });
        pieces.with(|pieces| {
            has_ended
                .then(|| detection::table(pieces, &asked))
                .flatten()
        })
    });
    let in_words = Memo::new(move |_| table.with(|t| t.as_ref().is_none_or(|t| !t.is_all)));
    view! {
        <Show when=move || in_words.get()>
            <Words turn pieces />
        </Show>
        {move || table.get().map(|table| view! { <Found turn table /> })}
    }
}

/// The answer as Markdown.
#[component]
fn Words(turn: RwSignal<Turn>, pieces: Memo<Vec<AnswerPiece>>) -> impl IntoView {
    let blocks = Memo::new(move |_| pieces.with(|pieces| markdown::blocks(pieces)));
    let keys = move || {
        blocks.with(|blocks| {
            let keys = blocks.iter().enumerate().map(|(index, block)| match block {
                // The words of a paragraph are keyed one by one, so that it can grow.
                Block::Paragraph(_) => (index, String::new()),
                block => (index, format!("{block:?}")),
            });
            keys.collect::<Vec<_>>()
        })
    };
    view! {
        <div class="words">
            <For
                each=keys
                key=Clone::clone
                children=move |(index, _)| {
                    let is_paragraph = blocks
                        .with_untracked(|b| matches!(b.get(index), Some(Block::Paragraph(_))));
                    if is_paragraph {
                        view! { <Paragraph turn blocks index /> }.into_any()
                    } else {
                        let block = blocks.with_untracked(|b| b.get(index).cloned());
                        block.map(|block| block_view(turn, block)).into_any()
                    }
                }
            />
        </div>
    }
}

/// A paragraph that may still grow; what is there already stays.
#[component]
fn Paragraph(turn: RwSignal<Turn>, blocks: Memo<Vec<Block>>, index: usize) -> impl IntoView {
    let runs = move || {
        blocks.with(|blocks| match blocks.get(index) {
            Some(Block::Paragraph(runs)) => runs.iter().cloned().enumerate().collect::<Vec<_>>(),
            _ => Vec::new(),
        })
    };
    view! {
        <p dir="auto">
            <For
                each=runs
                key=|(index, run)| (*index, format!("{run:?}"))
                children=move |(_, run)| inline_view(turn, run)
            />
        </p>
    }
}

fn block_view(turn: RwSignal<Turn>, block: Block) -> AnyView {
    let inlines = move |runs: Vec<Inline>| inline_views(turn, runs);
    let blocks = move |blocks: Vec<Block>| {
        let views = blocks.into_iter().map(|block| block_view(turn, block));
        views.collect::<Vec<_>>()
    };
    match block {
        Block::Paragraph(runs) => view! { <p dir="auto">{inlines(runs)}</p> }.into_any(),
        Block::Heading(runs) => {
            view! { <p dir="auto" class="title">{inlines(runs)}</p> }.into_any()
        }
        Block::List(first, items) => {
            let items = items
                .into_iter()
                .map(|item| view! { <li dir="auto">{blocks(item)}</li> });
            let items = items.collect_view();
            match first {
                Some(first) => view! { <ol start=first.to_string()>{items}</ol> }.into_any(),
                None => view! { <ul>{items}</ul> }.into_any(),
            }
        }
        Block::Code(_, runs) => view! {
            <pre tabindex="0"><code>{inlines(runs)}</code></pre>
        }
        .into_any(),
        Block::Quote(inside) => view! { <blockquote>{blocks(inside)}</blockquote> }.into_any(),
        Block::Table(head, rows) => {
            let head = head
                .into_iter()
                .map(|cell| view! { <th scope="col">{inlines(cell)}</th> });
            let head = head.collect_view();
            let rows = rows.into_iter().map(|row| {
                let cells = row
                    .into_iter()
                    .map(|cell| view! { <td>{inlines(cell)}</td> });
                view! { <tr>{cells.collect_view()}</tr> }
            });
            let rows = rows.collect_view();
            view! {
                <div class="wide" tabindex="0" role="group">
                    <table>
                        <thead><tr>{head}</tr></thead>
                        <tbody>{rows}</tbody>
                    </table>
                </div>
            }
            .into_any()
        }
        Block::Rule => view! { <hr /> }.into_any(),
    }
}

fn inline_views(turn: RwSignal<Turn>, runs: Vec<Inline>) -> Vec<AnyView> {
    runs.into_iter().map(|run| inline_view(turn, run)).collect()
}

fn inline_view(turn: RwSignal<Turn>, run: Inline) -> AnyView {
    match run {
        Inline::Text(text) => view! { <span>{text}</span> }.into_any(),
        Inline::Phrase(_, phrase) if phrase.open => {
            view! { <span class="phrase-open">{phrase.text}</span> }.into_any()
        }
        Inline::Phrase(piece, phrase) => view! { <PhraseButton turn piece phrase /> }.into_any(),
        Inline::Strong(inside) => {
            view! { <strong>{inline_views(turn, inside)}</strong> }.into_any()
        }
        Inline::Emphasis(inside) => view! { <em>{inline_views(turn, inside)}</em> }.into_any(),
        Inline::Code(inside) => view! { <code>{inline_views(turn, inside)}</code> }.into_any(),
    }
}

/// A phrase that highlights its boxes, and is highlighted with any of them.
#[component]
fn PhraseButton(turn: RwSignal<Turn>, piece: usize, phrase: Phrase) -> impl IntoView {
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
    let certainty = Memo::new(move |_| {
        turn.with(|t| {
            if t.certainty.is_empty() {
                return None;
            }
            let boxes = t.boxes.as_ref().map_or(0, |boxes| boxes.boxes.len());
            let of_spans = certainty::of_spans(&t.spans, boxes, &t.certainty);
            of_spans
                .get(piece)
                .copied()
                .flatten()
                .filter(|_| !phrase.edited)
        })
    });
    // With Alt the boxes that the model nearly named instead.
    let second = move || {
        let other = certainty.get_untracked()?.runner_up?;
        Some(self::highlight(turn, &[other.object]))
    };
    let enter = move |alt: bool| {
        let second = if alt { second() } else { None };
        let hovered = second.unwrap_or_else(|| highlight.get_value());
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
    let relink = move || {
        let (id, ended) = turn.with_untracked(|t| (t.id, t.phase.ended()));
        if ended {
            app.relinking.set(Some((id, piece)));
        }
        ended
    };
    let has_ended = move || turn.with(|t| t.phase.ended());
    let said = turn.with_untracked(|t| counts::mismatch(&t.pieces(), piece));
    let said = said.filter(|_| !phrase.edited);
    let count = phrase.objects.len();
    let class = format!("phrase hue-{} dash-{}", phrase.hue(), phrase.dash());
    let words = StoredValue::new(phrase.clone());
    let name = move || words.with_value(|p| words::phrase_name(p, said));
    let mismatch = move || said.map(|said| words.with_value(|p| words::mismatch(said, p)));
    let title = move || words.with_value(words::links_title);
    let numbers = phrase.objects.iter().map(u32::to_string);
    let objects = numbers.collect::<Vec<_>>().join(",");
    let missing = move || words.with_value(words::missing);
    let edited = phrase.edited;
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
            title=move || certainty.get().map(|c| words::certainty(&c))
            class:doubt=move || certainty.get().is_some_and(|c| c.is_doubtful())
            on:pointerenter=move |event| enter(event.alt_key())
            on:pointermove=move |event| enter(event.alt_key())
            on:pointerleave=move |_| leave()
            on:focus=move |_| enter(false)
            on:blur=move |_| leave()
            on:click=pin
            on:contextmenu=move |event| {
                if relink() {
                    event.prevent_default();
                }
            }
        >
            {phrase.text}
            {(count > 1).then(|| view! { <span class="times">{format!("×{count}")}</span> })}
            {move || missing().map(|text| view! { <span class="times" data-testid="missing">{text}</span> })}
            {move || mismatch().map(|text| view! { <span class="times doubtful" data-testid="mismatch">{text}</span> })}
            {edited.then(|| view! { <span class="times" data-testid="edited">{words::EDITED}</span> })}
        </button>
        <Show when=move || is_pinned.get() && has_ended()>
            <button
                type="button"
                class="phrase-more"
                data-testid="relink"
                aria-label=move || words::of(words::LINKS(), &title())
                title=words::LINKS
                on:click=move |_| {
                    relink();
                }
            >
                "…"
            </button>
        </Show>
    }
}

/// A detection answer as a table, with what was not found.
#[component]
fn Found(turn: RwSignal<Turn>, table: Table) -> impl IntoView {
    let rows = table
        .rows
        .into_iter()
        .map(|row| view! { <FoundRow turn row /> });
    view! {
        <table class="found" data-testid="found">
            <thead>
                <tr>
                    {words::TABLE_HEADS.map(|head| view! { <th scope="col">{head}</th> }).collect_view()}
                </tr>
            </thead>
            <tbody>{rows.collect_view()}</tbody>
        </table>
    }
}

#[component]
fn FoundRow(turn: RwSignal<Turn>, row: Row) -> impl IntoView {
    let app = app_state();
    let Some((piece, phrase)) = row.found else {
        return view! {
            <tr data-testid="not-found">
                <th scope="row" dir="auto">{row.text}</th>
                <td class="none">{words::NONE}</td>
                <td></td>
            </tr>
        }
        .into_any();
    };
    let highlight = StoredValue::new(highlight(turn, &phrase.objects));
    let is_pinned =
        Memo::new(move |_| highlight.with_value(|h| app.overlay.with(|o| o.is_pinned(h))));
    let count = phrase.objects.len();
    let swatch = format!("swatch hue-{}", phrase.hue());
    let text = row.text;
    let name = move || format!("{} {text}", words::SHOW());
    view! {
        <tr>
            <th scope="row">
                <PhraseButton turn piece phrase />
            </th>
            <td class="figure">
                <span class=swatch aria-hidden="true"></span>
                {count}
            </td>
            <td>
                <button
                    type="button"
                    class="quiet"
                    data-testid="show-found"
                    aria-label=name
                    aria-pressed=move || is_pinned.get().to_string()
                    disabled={count == 0}
                    on:click=move |_| app.overlay.update(|o| o.pin(highlight.get_value()))
                >
                    {words::SHOW}
                </button>
            </td>
        </tr>
    }
    .into_any()
}

/// The boxes of a turn's question with these numbers.
pub fn highlight(turn: RwSignal<Turn>, objects: &[u32]) -> Highlight {
    turn.with_untracked(|t| {
        let mentions = Mentions {
            turn: t.id,
            boxes: t.boxes.clone().unwrap_or_default(),
            phrases: Vec::new(),
        };
        mentions.highlight(objects)
    })
}
