//! What is known of the device that computes, for a report.

use serde::{Deserialize, Serialize};

/// A GPU adapter and what the engine's device may do. Fields are empty where nothing tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// Vendor, e.g. `nvidia`; natively its PCI number.
    pub vendor: String,
    /// Architecture, e.g. `ampere`.
    pub architecture: String,
    /// What else the browser or the driver says of the adapter.
    pub description: String,
    /// The programming interface: `WebGPU`, `Vulkan`, `Metal`, `Dx12`.
    pub backend: String,
    /// Whether the adapter computes with f16.
    pub f16: bool,
    /// Whether the engine's kernels use subgroups.
    pub subgroups: bool,
    /// Whether the adapter is a fallback: it imitates a GPU in software.
    pub fallback: bool,
    /// The limits of the device that decide what runs.
    pub limits: Limits,
}

/// Limits of a device; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Largest buffer in bytes.
    pub buffer: u64,
    /// Largest part of a buffer that a kernel can bind, in bytes.
    pub binding: u64,
    /// Shared memory of a workgroup in bytes.
    pub workgroup_storage: u32,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Workgroups along one axis of a dispatch.
    pub workgroups: u32,
    /// Storage buffers that a kernel can bind.
    pub storage_buffers: u32,
}

/// Whether an adapter's name is that of a software renderer: Mesa, SwiftShader or Windows.
pub fn is_software_name(name: &str) -> bool {
    let name = name.to_lowercase();
    [
        "llvmpipe",
        "lavapipe",
        "swiftshader",
        "basic render",
        "warp",
    ]
    .iter()
    .any(|software| name.contains(software))
}
