//! The page's parts. They hold state in signals, forward what the person does and decide nothing:
//! the decisions are in `chatrex::chat`.

pub mod about;
pub mod app;
pub mod ask;
pub mod canvas;
pub mod choosing;
pub mod controls;
pub mod conversation;
pub mod models;
pub mod objects;
pub mod state;
pub mod status;
pub mod task;
pub mod words;
