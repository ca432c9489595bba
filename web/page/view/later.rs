//! Views that are built after the page was drawn.

use std::time::Duration;

use leptos::prelude::*;

/// After this time the page was drawn, and takes input.
const DELAY: Duration = Duration::from_millis(50);

/// What is inside a closed dialog: it is built after the page was drawn, so that the page is there sooner.
#[component]
pub fn Later(children: ChildrenFn) -> impl IntoView {
    let is_due = RwSignal::new(false);
    let build = move || {
        // The dialog may be gone by then.
        let _ = is_due.try_set(true);
    };
    set_timeout(build, DELAY);
    view! { <Show when=move || is_due.get()>{children()}</Show> }
}
