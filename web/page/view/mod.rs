//! The views: they draw the signals of [`state::AppState`] and forward the actions of the user. The
//! decisions and the texts with rules are in `chatrex::chat`; a label that never changes stands in its
//! view.

pub mod about;
pub mod answer;
pub mod app;
pub mod ask;
pub mod batch_list;
pub mod batch_panel;
pub mod batch_parts;
pub mod batch_run;
pub mod batching;
pub mod camera;
pub mod canvas;
pub mod controls;
pub mod conversation;
pub mod copy_menu;
pub mod drawer;
pub mod embed;
pub mod evidence;
pub mod export;
pub mod gallery;
pub mod incoming;
pub mod keeping;
pub mod kept;
pub mod links;
pub mod models;
pub mod naming;
pub mod network;
pub mod objects;
pub mod pane;
pub mod picture_keys;
pub mod pointer;
pub mod review_panel;
pub mod review_picture;
pub mod sampling_panel;
pub mod selection_bar;
pub mod settings;
pub mod share;
pub mod start;
pub mod state;
pub mod status;
pub mod suggested;
pub mod toast;
pub mod tools;
