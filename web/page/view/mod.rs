//! The views: they draw the signals of [`state::AppState`] and forward the actions of the user. The
//! decisions and the texts with rules are in `chatrex::chat`; a label that never changes stands in its
//! view.

pub mod about;
pub mod answer;
pub mod app;
pub mod ask;
pub mod camera;
pub mod canvas;
pub mod controls;
pub mod conversation;
pub mod copy_menu;
pub mod drawer;
pub mod evidence;
pub mod export;
pub mod gallery;
pub mod incoming;
pub mod keeping;
pub mod kept;
pub mod links;
pub mod models;
pub mod naming;
pub mod objects;
pub mod original;
mod pane;
pub mod picture_keys;
pub mod pointer;
pub mod sampling_panel;
pub mod selection_bar;
pub mod settings;
pub mod start;
pub mod state;
pub mod status;
pub mod suggested;
pub mod toast;
pub mod tools;
