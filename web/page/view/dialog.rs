//! Opens and closes the dialogs of the page.

use leptos::html;
use leptos::prelude::*;

/// Shows a dialog.
pub fn show(dialog: NodeRef<html::Dialog>) {
    if let Some(dialog) = dialog.get_untracked() {
        // Fails only if it is open already.
        let _ = dialog.show_modal();
    }
}

/// Closes a dialog.
pub fn close(dialog: NodeRef<html::Dialog>) {
    if let Some(dialog) = dialog.get_untracked() {
        dialog.close();
    }
}
