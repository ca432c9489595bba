//! The settings: light or dark, a reset, and the list of keys.

use chatrex::chat::kept_strings as words;
use chatrex::chat::layout_strings;
use chatrex::chat::settings::{LanguageChoice, Theme};
use chatrex::chat::words::Language;
use leptos::prelude::*;

use super::icons::{Icon, icon};
use super::keys::KeyList;
use super::state::app_state;
use crate::{locale, theme};

/// The button and its popover.
#[component]
pub fn SettingsPanel() -> impl IntoView {
    let app = app_state();
    let keep = app.keep;
    let keys: KeyList = expect_context();
    let choice = move |it: Theme| {
        let is_chosen = move || keep.settings.with(|s| s.theme == it);
        let choose = move || {
            keep.set(|settings| settings.theme = it);
            theme::apply(it);
        };
        view! { <Segment group="theme" key=it.key() lang=None label=move || it.label() is_chosen choose /> }
    };
    let language = move |it: LanguageChoice| {
        let is_chosen = move || keep.settings.with(|s| s.language == it);
        let choose = move || {
            keep.set(|settings| settings.language = it);
            locale::apply(it);
        };
        let lang = it.language().map(Language::tag);
        view! { <Segment group="language" key=it.key() lang label=move || it.label() is_chosen choose /> }
    };
    let reset = move |_| {
        app.reset_settings();
        keep.tell(words::RESET_DONE().to_owned());
    };
    view! {
        <button
            type="button"
            class="icon-button"
            popovertarget="settings"
            aria-label=words::SETTINGS
            title=move || format!("{} (Ctrl+,)", words::SETTINGS())
            data-testid="settings"
        >
            {icon(Icon::Settings)}
        </button>
        <div id="settings" class="about settings" popover="auto" tabindex="-1">
            <h2>{words::THEME}</h2>
            <fieldset class="segments">
                <legend class="hidden">{words::THEME}</legend>
                {Theme::ALL.map(choice).collect_view()}
            </fieldset>
            <h2>{words::LANGUAGE}</h2>
            <fieldset class="segments">
                <legend class="hidden">{words::LANGUAGE}</legend>
                {LanguageChoice::ALL.map(language).collect_view()}
            </fieldset>
            <button type="button" class="button" data-testid="reset-settings" on:click=reset>
                {words::RESET}
            </button>
            <button type="button" class="button" data-testid="settings-keys" on:click=move |_| keys.open()>
                {layout_strings::KEYS}
            </button>
        </div>
    }
}

/// A choice among others of its group; `lang` is the language of its label.
#[component]
fn Segment(
    group: &'static str,
    key: &'static str,
    lang: Option<&'static str>,
    label: impl Fn() -> &'static str + Send + 'static,
    is_chosen: impl Fn() -> bool + Send + 'static,
    choose: impl Fn() + 'static,
) -> impl IntoView {
    view! {
        <label>
            <input
                type="radio"
                name=group
                data-testid=format!("{group}-{key}")
                prop:checked=is_chosen
                on:change=move |_| choose()
            />
            <span lang=lang>{label}</span>
        </label>
    }
}
