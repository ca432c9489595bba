//! The boxes of a phrase, to be corrected by the user.

use chatrex::chat::answer::{AnswerPiece, Phrase};
use chatrex::chat::conversation::{Input, Turn};
use chatrex::chat::conversation_strings as words;
use leptos::html;
use leptos::prelude::*;

use super::state::app_state;

/// Adds boxes to a phrase of this turn and removes them.
#[component]
pub fn LinkEditor(turn: RwSignal<Turn>) -> impl IntoView {
    let app = app_state();
    let id = turn.with_untracked(|t| t.id);
    let piece = Memo::new(move |_| {
        let open = app.relinking.get();
        open.filter(|(turn, _)| *turn == id).map(|(_, piece)| piece)
    });
    let phrase = Memo::new(move |_| -> Option<Phrase> {
        match turn.with(Turn::pieces).into_iter().nth(piece.get()?)? {
            AnswerPiece::Phrase(phrase) => Some(phrase),
            AnswerPiece::Text(_) => None,
        }
    });
    let is_open = Memo::new(move |_| phrase.with(Option::is_some));
    view! {
        <Show when=move || is_open.get()>
            <Editor turn piece phrase />
        </Show>
    }
}

#[component]
fn Editor(
    turn: RwSignal<Turn>,
    piece: Memo<Option<usize>>,
    phrase: Memo<Option<Phrase>>,
) -> impl IntoView {
    let app = app_state();
    let first = NodeRef::<html::Button>::new();
    let id = turn.with_untracked(|t| t.id);
    let objects = move || phrase.with(|p| p.as_ref().map_or(Vec::new(), |p| p.objects.clone()));
    let is_edited = move || phrase.with(|p| p.as_ref().is_some_and(|p| p.edited));
    let set = move |objects: Option<Vec<u32>>| {
        if let Some(piece) = piece.get_untracked() {
            app.act(Input::Relink(id, piece, objects));
        }
    };
    let remove = move |number: u32| {
        let left = untrack(objects).into_iter().filter(|&o| o != number);
        set(Some(left.collect()));
    };
    let add = move |numbers: Vec<u32>| {
        let mut all = untrack(objects);
        all.extend(
            numbers
                .iter()
                .filter(|n| !all.contains(n))
                .copied()
                .collect::<Vec<_>>(),
        );
        set(Some(all));
    };
    let title = move || phrase.with(|p| p.as_ref().map(words::links_title));
    let others = move || {
        let linked = objects();
        turn.with(|t| {
            let boxes = t.boxes.iter().flat_map(|b| b.boxes.iter().enumerate());
            let others = boxes.filter(|(number, _)| !linked.contains(&(*number as u32)));
            let options = others.map(|(number, candidate)| {
                view! { <option value=number.to_string()>{words::option(number, candidate)}</option> }
            });
            options.collect_view()
        })
    };
    let selected = move || {
        let selection = app.overlay.with(|o| o.selection().clone());
        turn.with(|t| {
            let boxes = t.boxes.clone().unwrap_or_default();
            let numbers = selection.iter().filter_map(|&id| boxes.number(id));
            numbers.collect::<Vec<_>>()
        })
    };
    let close = move |_| app.relinking.set(None);
    Effect::new(move |_| {
        if let Some(first) = first.get() {
            // The focus goes where the boxes can be changed.
            let _ = first.focus();
        }
    });
    view! {
        <div class="links" role="group" aria-label=title data-testid="link-editor">
            <b dir="auto">{title}</b>
            <For
                each=objects
                key=|number| *number
                children=move |number| {
                    view! {
                        <button
                            type="button"
                            class="token"
                            data-testid="unlink"
                            aria-label=move || words::remove_box(number)
                            title=move || words::remove_box(number)
                            on:click=move |_| remove(number)
                        >
                            {number}
                            <span aria-hidden="true">"×"</span>
                        </button>
                    }
                }
            />
            <select
                data-testid="link-add"
                aria-label=words::LINKS_ADD
                prop:value=""
                on:change=move |event| {
                    if let Ok(number) = event_target_value(&event).parse() {
                        add(vec![number]);
                    }
                }
            >
                <option value="">{words::LINKS_ADD}</option>
                {others}
            </select>
            <Show when=move || !selected().is_empty()>
                <button type="button" class="quiet" on:click=move |_| add(untrack(selected))>
                    {words::LINKS_ADD_SELECTED}
                </button>
            </Show>
            <Show when=is_edited>
                <button type="button" class="quiet" data-testid="link-reset" on:click=move |_| set(None)>
                    {words::LINKS_RESET}
                </button>
            </Show>
            <button node_ref=first type="button" class="quiet" data-testid="link-done" on:click=close>
                {words::DONE}
            </button>
        </div>
    }
}
