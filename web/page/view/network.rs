//! What the page requested and sent since it was loaded.

use std::time::Duration;

use chatrex::chat::network::{Host, Report};
use chatrex::chat::network_strings as words;
use js_sys::{Function, Reflect};
use leptos::html;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use super::copy_menu::CopyButton;
use super::timer::repeat;
use crate::embed;

/// Time between two looks while the list is open.
const PERIOD: Duration = Duration::from_millis(500);

/// The list, closed at first.
#[component]
pub fn Network() -> impl IntoView {
    let details = NodeRef::<html::Details>::new();
    let report = RwSignal::new(Report::default());
    let copied = RwSignal::new(None::<bool>);
    let look = move || {
        let now = read();
        if report.with_untracked(|known| *known != now) {
            report.set(now);
        }
    };
    let is_open = RwSignal::new(false);
    let toggle = move |_| {
        copied.set(None);
        is_open.set(
            details
                .get_untracked()
                .is_some_and(|details| details.open()),
        );
    };
    Effect::new(move |_| {
        if is_open.get() {
            look();
            repeat(PERIOD, look);
        }
    });
    let rows = move || report.with(|report| report.hosts(&embed::address()));
    view! {
        <details class="network" node_ref=details data-testid="network" on:toggle=toggle>
            <summary>{words::NETWORK}</summary>
            <p><b data-testid="network-sent">{move || report.with(words::sent)}</b></p>
            <table>
                <thead>
                    <tr>
                        <th scope="col">{words::HOST}</th>
                        <th scope="col">{words::REQUESTS}</th>
                        <th scope="col">{words::RECEIVED}</th>
                        <th scope="col">{words::SENT}</th>
                        <th scope="col">{words::BLOCKED}</th>
                    </tr>
                </thead>
                <tbody>{move || rows().into_iter().map(row).collect_view()}</tbody>
            </table>
            <Show when=move || report.with(|report| !report.worker)>
                <p>{words::NO_WORKER}</p>
            </Show>
            <p class="hint">{words::NETWORK_COUNTED}</p>
            <CopyButton
                test_id="network-copy"
                class="button small"
                label=words::COPY_REPORT
                copied
                text=|| words::report(&read(), &embed::address())
            />
        </details>
    }
}

fn row(host: Host) -> impl IntoView {
    view! {
        <tr data-testid="network-host" data-host=host.name.clone() data-own=host.is_own.to_string()>
            <th scope="row">
                <span translate="no">{host.name.clone()}</span>
                {host.is_own.then(|| view! { <small>" " {words::THIS_SITE}</small> })}
            </th>
            <td>{host.requests}</td>
            <td>{move || words::bytes(host.received)}</td>
            <td data-bytes=host.sent>{move || words::bytes(host.sent)}</td>
            <td>{host.refused}</td>
        </tr>
    }
}

/// What `network.js` recorded.
fn read() -> Report {
    let report = Reflect::get(&window(), &"networkReport".into()).ok();
    let report = report.and_then(|report| report.dyn_into::<Function>().ok());
    let json = report.and_then(|report| report.call0(&window()).ok()?.as_string());
    Report::read(&json.unwrap_or_default())
}
