//! The outlines on buttons, drawn for this page on a grid of 24 units.

use chatrex::chat::words::Word;
use leptos::prelude::*;

/// An outline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icon {
    /// Arrow of the mouse.
    Select,
    /// Arrows in four directions.
    Hand,
    /// Cross hairs.
    Point,
    /// A box with a plus sign.
    Draw,
    /// Arrow back.
    Undo,
    /// Arrow forth.
    Redo,
    /// Minus sign.
    Less,
    /// Plus sign.
    More,
    /// Four corners.
    Fit,
    /// A clock that is turned back.
    History,
    /// A sheet with a pen.
    New,
    /// A picture with a plus sign.
    Picture,
    /// A camera.
    Camera,
    /// A keyboard.
    Keys,
    /// A gear.
    Settings,
    /// The letter i in a circle.
    About,
    /// A pen.
    Edit,
    /// A turning arrow.
    Retry,
    /// Two sheets.
    Copy,
    /// Two sliders.
    Sliders,
    /// Lines of text.
    Words,
    /// Arrow out of the page.
    Export,
    /// Arrow into the page.
    Import,
    /// A bin.
    Remove,
    /// Arrow upwards.
    Send,
    /// A square.
    Stop,
    /// A hook.
    Check,
    /// A speech bubble.
    Chat,
    /// Two boxes.
    Objects,
    /// Two arrows apart.
    Enlarge,
    /// A slow clock.
    Slow,
    /// A label on a string.
    Name,
    /// Four squares, one of them apart.
    Alike,
}

impl Icon {
    fn path(self) -> &'static str {
        match self {
            Self::Select => "M5 3l14 8-6.5 1.6L9 19z",
            Self::Hand => {
                "M12 3v18M3 12h18M9.5 5.5L12 3l2.5 2.5M9.5 18.5L12 21l2.5-2.5M5.5 9.5L3 12l2.5 2.5M18.5 9.5L21 12l-2.5 2.5"
            }
            Self::Point => "M12 2v6M12 16v6M2 12h6M16 12h6M11 12h2M12 11v2",
            Self::Draw => {
                "M12 19H6a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1h12a1 1 0 0 1 1 1v6M18 16v6M15 19h6"
            }
            Self::Undo => "M8 5L4 9l4 4M4 9h10a5 5 0 0 1 0 10H8",
            Self::Redo => "M16 5l4 4-4 4M20 9H10a5 5 0 0 0 0 10h6",
            Self::Less => "M6 12h12",
            Self::More => "M12 6v12M6 12h12",
            Self::Fit => {
                "M4 9V5a1 1 0 0 1 1-1h4M15 4h4a1 1 0 0 1 1 1v4M20 15v4a1 1 0 0 1-1 1h-4M9 20H5a1 1 0 0 1-1-1v-4"
            }
            Self::History => "M4.5 9.5A8 8 0 1 1 4 12M4 5v4.5h4.5M12 8v4.5l3 2",
            Self::New => {
                "M12 5H6a1 1 0 0 0-1 1v12a1 1 0 0 0 1 1h12a1 1 0 0 0 1-1v-6M18.2 3.2l2.6 2.6-8.3 8.3-3.4.8.8-3.4z"
            }
            Self::Picture => {
                "M12 5H5a1 1 0 0 0-1 1v13a1 1 0 0 0 1 1h13a1 1 0 0 0 1-1v-7M4 16.5l4.5-4.5 4.5 4.5 2.5-2.5 3.5 3.5M18 3v6M15 6h6"
            }
            Self::Camera => {
                "M4 8h3.5L9 5h6l1.5 3H20v11H4zM12 16.5a3.3 3.3 0 1 0 0-6.6 3.3 3.3 0 0 0 0 6.6z"
            }
            Self::Keys => {
                "M3 7h18v10.5H3zM6.7 10.5h.01M10.2 10.5h.01M13.7 10.5h.01M17.2 10.5h.01M8 14.2h8"
            }
            Self::Settings => {
                "M12 17.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM12 14.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4zM12 6.5V3.5M12 20.5v-3M6.5 12h-3M20.5 12h-3M8.1 8.1L6 6M18 18l-2.1-2.1M8.1 15.9L6 18M18 6l-2.1 2.1"
            }
            Self::About => "M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17zM12 11v5.5M12 7.7h.01",
            Self::Edit => {
                "M4.5 19.5l.8-4L15.8 5a1.8 1.8 0 0 1 2.5 0l.7.7a1.8 1.8 0 0 1 0 2.5L8.5 18.7zM14 6.8l3.2 3.2"
            }
            Self::Retry => "M19.5 9.5A8 8 0 1 0 20 12M20 5v4.5h-4.5",
            Self::Copy => "M9 9h10.5v10.5H9zM5.5 15h-1V4.5H15v1",
            Self::Sliders => {
                "M4 7.5h7M16.5 7.5H20M4 16.5h3.5M13 16.5h7M13.7 10.2a2.7 2.7 0 1 0 0-5.4 2.7 2.7 0 0 0 0 5.4zM10.2 19.2a2.7 2.7 0 1 0 0-5.4 2.7 2.7 0 0 0 0 5.4z"
            }
            Self::Words => "M4 6.5h16M4 12h11M4 17.5h7",
            Self::Export => "M12 4v11M7.5 10.5L12 15l4.5-4.5M4.5 16v3.5h15V16",
            Self::Import => "M12 15V4M7.5 8.5L12 4l4.5 4.5M4.5 16v3.5h15V16",
            Self::Remove => {
                "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l.8 12.5h9.4L17.5 7M10.3 10.5v5.5M13.7 10.5v5.5"
            }
            Self::Send => "M12 19.5v-15M5.5 11L12 4.5l6.5 6.5",
            Self::Stop => "M7.5 7.5h9v9h-9z",
            Self::Check => "M5 12.5l4.5 4.5L19 7.5",
            Self::Chat => "M4.5 5h15v11.5h-9l-4 3.5v-3.5h-2z",
            Self::Objects => "M4.5 4.5h10v10h-10zM10 17.5v2h9.5V10h-2",
            Self::Enlarge => "M14 4.5h5.5V10M10 19.5H4.5V14M19.5 4.5L13 11M4.5 19.5L11 13",
            Self::Name => "M4.5 4.5h7.2l8 8-7.2 7.2-8-8zM8.4 8.4h.01",
            Self::Alike => {
                "M4.5 4.5h6v6h-6zM4.5 13.5h6v6h-6zM13.5 4.5h6v6h-6zM16.5 13.5l3 3-3 3-3-3z"
            }
            Self::Slow => "M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17zM12 7.5V12l-3 3",
        }
    }
}

/// Draws an outline in the colour of the text. The button around it has the name.
pub fn icon(icon: Icon) -> impl IntoView {
    view! {
        <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
            <path d=icon.path() />
        </svg>
    }
}

/// A button that shows an outline, with its name for the pointer and for screen readers.
#[component]
pub fn IconButton(
    id: &'static str,
    name: Word,
    #[prop(optional)] class: &'static str,
    #[prop(default = true.into(), into)] enabled: Signal<bool>,
    press: impl Fn() + 'static,
    shape: Icon,
) -> impl IntoView {
    view! {
        <button
            type="button"
            class=class
            data-testid=id
            title=name
            aria-label=name
            disabled=move || !enabled.get()
            on:click=move |_| press()
        >
            {icon(shape)}
        </button>
    }
}
