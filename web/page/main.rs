//! The page: starts the user interface.

mod decode;
mod export;
mod link;
mod locale;
mod memory;
mod offers;
mod offline;
mod persist;
mod store;
mod theme;
mod view;

fn main() {
    console_error_panic_hook::set_once();
    locale::install();
    leptos::mount::mount_to_body(view::app::App);
}
