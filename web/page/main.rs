//! The page: starts the user interface.

mod batch_store;
mod decode;
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
    leptos::mount::mount_to_body(view::app::App);
}
