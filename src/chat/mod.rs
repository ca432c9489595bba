//! The page's logic as plain state machines and functions: an input goes in, the state changes,
//! requests for the engine come out. Knows no browser, no worker and no clock.

pub mod answer;
pub mod box_drawing;
pub mod box_edit;
pub mod box_history;
pub mod box_strings;
pub mod candidates;
pub mod certainty;
pub mod conversation;
pub mod conversation_strings;
pub mod copying;
pub mod counts;
pub mod detection;
pub mod document;
pub mod evidence;
pub mod exchange;
pub mod fault_strings;
pub mod history;
pub mod incoming;
pub mod kept_strings;
pub mod kind_words;
pub mod labels;
pub mod language;
pub mod markdown;
pub mod model_manager;
pub mod object_list;
pub mod overlay;
pub mod page_strings;
pub mod pointing;
pub mod question;
pub mod recovery;
pub mod samples;
pub mod settings;
pub mod strings;
pub mod suggestions;
#[cfg(test)]
mod test_data;
pub mod viewport;
pub mod words;
