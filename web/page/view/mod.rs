//! The page's parts. They hold state in signals, forward what the person does and decide nothing:
//! the decisions are in `chatrex::chat`.

pub mod about;
pub mod app;
pub mod ask;
pub mod canvas;
pub mod controls;
pub mod conversation;
pub mod models;
pub mod objects;
pub mod sampling_panel;
pub mod state;
pub mod status;
