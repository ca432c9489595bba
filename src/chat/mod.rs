//! The conversation as plain state machines: an input goes in, the state changes, requests for
//! the engine come out. Knows no browser, no worker and no clock.

pub mod answer;
pub mod box_drawing;
pub mod candidates;
pub mod conversation;
pub mod model_manager;
pub mod overlay;
pub mod question;
pub mod strings;
