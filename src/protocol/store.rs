//! What passes between a page and the library beside the engine, which keeps models in the
//! browser: surveys, downloads, imports, deletions.

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::memory::Fit;

/// Names a model by its manifest: the first 16 hexadecimal digits of the manifest's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelId(pub String);

/// How a kept model's name begins where [`crate::protocol::Request::Load`] asks for an address.
pub const KEPT: &str = "opfs:";

impl ModelId {
    /// The model as [`crate::protocol::Request::Load`] names it.
    pub fn to_load(&self) -> String {
        format!("{KEPT}{}", self.0)
    }

    /// The kept model that [`crate::protocol::Request::Load`] names, if it names one.
    pub fn of_load(model: &str) -> Option<Self> {
        model.strip_prefix(KEPT).map(|id| Self(id.to_owned()))
    }
}

/// What a page asks of the library.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreRequest {
    /// Say what is kept. Answered by [`StoreEvent::Listed`], as every change is.
    List,
    /// Read the manifest at an address. Answered by [`StoreEvent::Surveyed`].
    Survey {
        /// A base address, or a hub's `owner/name[@revision]`.
        address: String,
    },
    /// Read the manifest among files that travel beside the message.
    SurveyFiles,
    /// Bring a surveyed or partly kept model here, or go on after a pause.
    Keep {
        /// The model.
        model: ModelId,
    },
    /// Wait; what came is kept.
    Pause {
        /// The model.
        model: ModelId,
    },
    /// Give up.
    Cancel {
        /// The model.
        model: ModelId,
        /// Whether what came stays here for later.
        keep: bool,
    },
    /// Delete a kept model.
    Delete {
        /// The model.
        model: ModelId,
    },
}

/// What the library tells a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreEvent {
    /// Everything that is kept here.
    Listed {
        /// By name, then by the time it was added.
        models: Vec<StoredModel>,
    },
    /// A model that could be brought here.
    Surveyed(Survey),
    /// There is none.
    NotSurveyed {
        /// Why.
        fault: Fault,
    },
    /// More of a model has come, or it waits for the network.
    Moved {
        /// The model.
        model: ModelId,
        /// How far it is.
        moved: Moved,
    },
    /// All of a model is here.
    Complete {
        /// The model.
        model: ModelId,
    },
    /// Something about a model failed; what came is kept.
    Failed {
        /// The model.
        model: ModelId,
        /// What failed.
        fault: Fault,
    },
}

/// What a manifest says to a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Short name.
    pub name: String,
    /// How weights are stored, in a few words.
    pub precision: String,
    /// What it was trained on, in a sentence.
    pub trained_on: String,
    /// Name of the licence.
    pub licence: String,
    /// Text of the licence.
    pub licence_text: String,
    /// Bytes of all its files.
    pub bytes: u64,
}

/// A model that could be brought here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// The model.
    pub model: ModelId,
    /// What its manifest says.
    pub facts: Facts,
    /// Its address; none where it would come from files of the person.
    pub address: Option<String>,
    /// Whether it will run on this device; none before the device is known.
    pub fit: Option<Fit>,
}

/// A model that is kept here, whole or in part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredModel {
    /// The model.
    pub model: ModelId,
    /// What its manifest says.
    pub facts: Facts,
    /// Its address; none where it came from files of the person.
    pub address: Option<String>,
    /// Bytes that are here.
    pub done: u64,
    /// When it was last loaded, in milliseconds since 1970.
    pub used: Option<f64>,
    /// What is done with it.
    pub activity: Activity,
}

/// What is done with a kept model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Nothing.
    Idle,
    /// It is being brought here.
    Moving,
    /// That waits for the person.
    Paused,
    /// The engine has it.
    Loaded,
    /// Another tab has it.
    Elsewhere,
}

/// How far a model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes that are here and checked.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes that came so far, wrong and repeated ones included.
    pub fetched: u64,
    /// Pieces whose bytes were wrong and that came again.
    pub wrong: u32,
    /// Whether the network is waited for.
    pub waiting: bool,
}
