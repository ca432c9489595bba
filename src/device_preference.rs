//! Which device computes, as the user asks for it.

use serde::{Deserialize, Serialize};

/// Which device the engine should compute on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevicePreference {
    /// The GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The GPU only.
    Wgpu,
    /// The CPU.
    Cpu,
}
