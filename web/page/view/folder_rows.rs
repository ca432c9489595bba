//! Models that are used in place from folders of the user.

use chatrex::chat::model_manager::Input;
use chatrex::chat::model_strings as words;
use chatrex::chat::strings;
use leptos::prelude::*;
use leptos::task::spawn_local;

use super::making::preview_files;
use super::state::{AppState, app_state};
use crate::embed;
use crate::folders::{self, Folder};

/// Lets the user choose a folder, whose model is used in place.
#[component]
pub fn FolderButton() -> impl IntoView {
    let app = app_state();
    let choose = move |_| {
        spawn_local(async move {
            if let Some(folder) = Folder::choose().await {
                preview_files(app, &folder.files().await);
                app.folder.set_value(Some(folder));
            }
        });
    };
    folders::are_offered().then(|| {
        view! {
            <button type="button" class="button small" data-testid="folder-in-place" on:click=choose>
                {words::FOLDER_IN_PLACE}
            </button>
        }
    })
}

impl AppState {
    /// The model in the chosen folder is used in place: the folder is remembered.
    pub fn keep_folder(self, name: String) {
        let folder = self.folder.get_value();
        if let Some(folder) = folder {
            spawn_local(async move {
                folders::keep(&name, &folder).await;
                self.list_folders().await;
            });
        }
    }

    /// Reads the remembered folders; a frame has none, and keeps nothing.
    pub async fn list_folders(self) {
        if embed::options().is_embedded {
            return;
        }
        self.folders.set(folders::names().await);
    }

    fn load_folder(self, name: String) {
        spawn_local(async move {
            let folder = folders::find(&name).await;
            let Some(folder) = folder else {
                return self.list_folders().await;
            };
            if !folder.is_allowed().await {
                return self.keep.tell(words::FOLDER_REFUSED().to_owned());
            }
            let files = folder.files().await;
            self.pick(&files);
            self.manage(Input::LoadPicked(name));
        });
    }
}

/// The rows of the remembered folders.
#[component]
pub fn FolderRows() -> impl IntoView {
    let app = app_state();
    let row = move |name: String| {
        let name = StoredValue::new(name);
        let forget = move |_| {
            spawn_local(async move {
                folders::forget(&name.get_value()).await;
                app.list_folders().await;
            });
        };
        view! {
            <li class="model" data-testid="folder-model">
                <div class="model-head">
                    <h3>{name.get_value()}</h3>
                    <span class="facts">{words::IN_FOLDER}</span>
                </div>
                <div class="model-actions">
                    <button
                        type="button"
                        class="button small primary"
                        data-testid="folder-load"
                        on:click=move |_| app.load_folder(name.get_value())
                    >
                        {strings::LOAD}
                    </button>
                    <button type="button" class="button small" data-testid="folder-forget" on:click=forget>
                        {words::FORGET}
                    </button>
                </div>
            </li>
        }
    };
    view! { <For each=move || app.folders.get() key=String::clone children=row /> }
}
