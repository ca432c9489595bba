//! The messages between a page and the model store of its worker: previews, downloads, imports and
//! deletions of models in the browser's storage.
//!
//! `#[serde(rename)]` keeps the JSON of earlier versions.

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::memory::{Fit, MemoryNeeds};

/// Identity of a model: the first 16 hexadecimal digits of its manifest's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelId(pub String);

/// Prefix of a stored model where [`crate::protocol::Request::Load`] takes an address.
pub const STORED_PREFIX: &str = "opfs:";

/// Where [`crate::protocol::Request::Load`] takes an address: the model in the files that are attached to
/// it, read where they are.
pub const PICKED: &str = "files:";

impl ModelId {
    /// The model as [`crate::protocol::Request::Load`] names it.
    pub fn to_address(&self) -> String {
        format!("{STORED_PREFIX}{}", self.0)
    }

    /// The stored model that [`crate::protocol::Request::Load`] names, if it names one.
    pub fn from_address(model: &str) -> Option<Self> {
        let id = model.strip_prefix(STORED_PREFIX)?;
        Some(Self(id.to_owned()))
    }
}

/// A request of a page to the model store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreRequest {
    /// List the stored models. Answered by [`StoreEvent::Listed`], as is every change.
    List,
    /// Read the manifest at an address. Answered by [`StoreEvent::Previewed`] or
    /// [`StoreEvent::PreviewFailed`].
    #[serde(rename = "Survey")]
    Preview {
        /// A base address, or a hub's `owner/name[@revision]`.
        address: String,
    },
    /// Read the manifest among the files attached to the message.
    #[serde(rename = "SurveyFiles")]
    PreviewFiles,
    /// Download a previewed or partly stored model, or continue after a pause.
    #[serde(rename = "Keep")]
    Download {
        /// The model.
        model: ModelId,
    },
    /// Pause a download; the pieces so far stay stored.
    Pause {
        /// The model.
        model: ModelId,
    },
    /// Cancel a download.
    Cancel {
        /// The model.
        model: ModelId,
        /// Whether the pieces so far stay stored.
        keep: bool,
    },
    /// Delete a stored model.
    Delete {
        /// The model.
        model: ModelId,
    },
    /// Decide whether a model that is not here would run. Answered by [`StoreEvent::Judged`] once the device
    /// is known.
    Judge {
        /// Its name.
        name: String,
        /// What it needs.
        needs: MemoryNeeds,
    },
    /// Open the published checkpoint in the files attached to the message, in a worker of its own. Answered
    /// by [`StoreEvent::Convertible`] or [`StoreEvent::ConversionFailed`].
    Inspect {
        /// Its name.
        name: String,
        /// How its weights are to be stored.
        quantization: Quantization,
    },
    /// Convert the checkpoint that was opened. The worker is busy until [`StoreEvent::Converted`] or
    /// [`StoreEvent::ConversionFailed`].
    Convert,
}

/// How the weights of a converted model are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 4 bits, in groups of 32.
    #[default]
    Q4,
    /// 8 bits, in groups of 32.
    Q8,
    /// f16.
    F16,
}

impl Quantization {
    /// All, the smallest first.
    pub const ALL: [Self; 3] = [Self::Q4, Self::Q8, Self::F16];
}

/// A published checkpoint that can be converted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Convertible {
    /// Of the model folder that it becomes.
    pub facts: Facts,
    /// What that folder needs on a GPU.
    pub needs: MemoryNeeds,
    /// What a user should know about it.
    pub warnings: Vec<String>,
}

/// A message of the model store to a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoreEvent {
    /// All stored models.
    Listed {
        /// By name, then by the time of the first download.
        models: Vec<StoredModel>,
    },
    /// A model that can be downloaded or imported.
    #[serde(rename = "Surveyed")]
    Previewed(Preview),
    /// There is no usable manifest.
    #[serde(rename = "NotSurveyed")]
    PreviewFailed {
        /// Why.
        fault: Fault,
    },
    /// Progress of a download.
    #[serde(rename = "Moved")]
    Progress {
        /// The model.
        model: ModelId,
        /// Bytes so far.
        #[serde(rename = "moved")]
        progress: DownloadProgress,
        /// Its files, in load order.
        #[serde(default)]
        shards: Vec<ShardProgress>,
    },
    /// A model is stored completely.
    Complete {
        /// The model.
        model: ModelId,
    },
    /// An operation on a model failed; the pieces so far stay stored.
    Failed {
        /// The model.
        model: ModelId,
        /// What failed.
        fault: Fault,
    },
    /// Whether a model that is not here would run.
    Judged {
        /// Its name.
        name: String,
        /// The memory plan for this device.
        fit: Fit,
    },
    /// A checkpoint can be converted.
    Convertible(Box<Convertible>),
    /// Progress of a conversion.
    Converting {
        /// Bytes written.
        done: u64,
        /// Bytes to write.
        total: u64,
    },
    /// A converted model is stored.
    Converted {
        /// The model.
        model: ModelId,
    },
    /// A checkpoint cannot be converted; nothing of it is stored.
    ConversionFailed {
        /// Why.
        fault: Fault,
    },
}

/// The part of a manifest that the user reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Short name.
    pub name: String,
    /// Weight formats, in a few words.
    pub precision: String,
    /// Training data, in a sentence.
    pub trained_on: String,
    /// Name of the licence.
    pub licence: String,
    /// Text of the licence.
    pub licence_text: String,
    /// Bytes of all files.
    pub bytes: u64,
}

/// A model that can be downloaded or imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// The model.
    pub model: ModelId,
    /// From its manifest.
    pub facts: Facts,
    /// Its address; `None` for files of the user.
    pub address: Option<String>,
    /// Memory plan for this device; `None` before the device is known.
    pub fit: Option<Fit>,
}

/// A model that is stored, completely or in part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredModel {
    /// The model.
    pub model: ModelId,
    /// From its manifest.
    pub facts: Facts,
    /// Its address; `None` for files of the user.
    pub address: Option<String>,
    /// Bytes stored so far.
    pub done: u64,
    /// Time of the last load, in milliseconds since 1970.
    pub used: Option<f64>,
    /// The operation under way.
    pub activity: Activity,
    /// Memory plan for this device; `None` before the device is known.
    #[serde(default)]
    pub fit: Option<Fit>,
}

/// A file of a model that is being downloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardProgress {
    /// Its name.
    pub name: String,
    /// Bytes stored and verified.
    pub done: u64,
    /// Its length.
    pub total: u64,
    /// What happens to it.
    pub state: ShardState,
}

/// What happens to a file of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// Nothing yet.
    Waiting,
    /// Bytes arrive.
    Downloading,
    /// All bytes are here, and the last ones are hashed.
    Checking,
    /// Stored and verified.
    Done,
}

impl ShardState {
    /// The state of a file of `total` bytes: `done` are verified, `arrived` came since, and `requests` are open.
    pub fn of(total: u64, done: u64, arrived: u64, requests: u32) -> Self {
        match () {
            () if done >= total => Self::Done,
            () if done + arrived >= total => Self::Checking,
            () if requests > 0 || arrived > 0 => Self::Downloading,
            () => Self::Waiting,
        }
    }
}

/// The operation under way on a stored model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// None.
    Idle,
    /// A download or import.
    #[serde(rename = "Moving")]
    Downloading,
    /// A download that the user paused.
    Paused,
    /// The engine has loaded it.
    Loaded,
    /// Another tab has locked it.
    #[serde(rename = "Elsewhere")]
    InOtherTab,
}

/// Progress of a download.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadProgress {
    /// Bytes stored and verified.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes received so far, damaged and repeated ones included.
    pub fetched: u64,
    /// Pieces with a wrong checksum, which were fetched again.
    pub wrong: u32,
    /// Whether the download waits for the network.
    pub waiting: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::{FromWorker, ToWorker};

    fn id() -> ModelId {
        ModelId("00112233aabbccdd".into())
    }

    #[test]
    fn a_stored_model_has_an_address_of_its_own() {
        assert_eq!(id().to_address(), "opfs:00112233aabbccdd");
        assert_eq!(ModelId::from_address(&id().to_address()), Some(id()));
        assert_eq!(ModelId::from_address("https://host/models/nano"), None);
    }

    /// The JSON that pages and workers exchange.
    #[test]
    fn requests_and_events_keep_their_json() {
        let model = id();
        let requests = [
            (StoreRequest::List, json!({"Shelf": "List"})),
            (
                StoreRequest::Preview {
                    address: "owner/name".into(),
                },
                json!({"Shelf": {"Survey": {"address": "owner/name"}}}),
            ),
            (StoreRequest::PreviewFiles, json!({"Shelf": "SurveyFiles"})),
            (
                StoreRequest::Download {
                    model: model.clone(),
                },
                json!({"Shelf": {"Keep": {"model": model}}}),
            ),
            (
                StoreRequest::Cancel {
                    model: model.clone(),
                    keep: true,
                },
                json!({"Shelf": {"Cancel": {"model": model, "keep": true}}}),
            ),
        ];
        for (request, json) in requests {
            let message = ToWorker::Store(request);
            assert_eq!(serde_json::to_value(&message).expect("plain data"), json);
            let read: ToWorker = serde_json::from_value(json).expect("its own JSON");
            assert_eq!(read, message);
        }
        let progress = DownloadProgress {
            done: 1,
            total: 2,
            fetched: 3,
            wrong: 4,
            waiting: true,
        };
        let moved = json!({"done": 1, "total": 2, "fetched": 3, "wrong": 4, "waiting": true});
        let shard = ShardProgress {
            name: "upn.safetensors".into(),
            done: 1,
            total: 2,
            state: ShardState::Downloading,
        };
        let event = FromWorker::Store(StoreEvent::Progress {
            model: model.clone(),
            progress,
            shards: vec![shard],
        });
        let shard = json!({
            "name": "upn.safetensors", "done": 1, "total": 2, "state": "downloading",
        });
        assert_eq!(
            serde_json::to_value(event).expect("plain data"),
            json!({"Shelf": {"Moved": {"model": model, "moved": moved, "shards": [shard]}}})
        );
        for (of, state) in [
            ((10, 0, 0, 0), ShardState::Waiting),
            ((10, 0, 0, 1), ShardState::Downloading),
            ((10, 4, 3, 0), ShardState::Downloading),
            ((10, 4, 6, 1), ShardState::Checking),
            ((10, 10, 0, 0), ShardState::Done),
            ((0, 0, 0, 0), ShardState::Done),
        ] {
            let (total, done, arrived, requests) = of;
            assert_eq!(
                ShardState::of(total, done, arrived, requests),
                state,
                "{of:?}"
            );
        }
        for (activity, word) in [
            (Activity::Downloading, "Moving"),
            (Activity::InOtherTab, "Elsewhere"),
        ] {
            assert_eq!(serde_json::to_value(activity).expect("a word"), word);
        }
    }
}
