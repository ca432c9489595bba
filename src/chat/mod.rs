//! The page's logic as plain state machines and functions: an input goes in, the state changes,
//! requests for the engine come out. Knows no browser, no worker and no clock.

pub mod answer;
pub mod box_drawing;
pub mod candidates;
pub mod conversation;
pub mod history;
pub mod incoming;
pub mod kept_strings;
pub mod model_manager;
pub mod overlay;
pub mod question;
pub mod recovery;
pub mod samples;
pub mod settings;
pub mod strings;
#[cfg(test)]
mod test_data;
