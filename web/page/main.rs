//! The page: starts the user interface.

use leptos::prelude::*;

use view::app::App;

mod batch_store;
mod decode;
mod early;
mod embed;
mod export;
mod folders;
mod link;
mod locale;
#[path = "../locks.rs"]
mod locks;
mod memory;
mod offers;
mod offline;
mod pause;
mod persist;
mod shared;
mod store;
mod tabs;
mod theme;
mod view;

fn main() {
    console_error_panic_hook::set_once();
    locale::install();
    early::take(|early| {
        leptos::mount::mount_to_body(move || view! { <App early /> });
    });
}
