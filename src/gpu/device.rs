//! Opens the device that everything computes on.

use std::sync::OnceLock;

use burn::tensor::Device;
use burn::tensor::wgpu::wgpu::{self, AdapterInfo, DeviceType};

use crate::device_preference::DevicePreference;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::gpu::launch::use_subgroups;

/// Launches collected before they are handed to the graphics device: a decoded token of nano takes
/// a few hundred, and a submission costs as much as several launches.
const LAUNCHES_PER_SUBMISSION: usize = 64;

/// A device, and what a person may want to know of it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// burn's handle.
    pub device: Device,
    /// `wgpu` or `cpu`.
    pub kind: &'static str,
    /// The adapter's own name, or that of the processor's kind.
    pub adapter: String,
    /// True when no graphics card computes: a software adapter, or the processor.
    pub software: bool,
    graphics: Option<wgpu::Device>,
}

impl Opened {
    /// The largest buffer that a kernel can bind, in bytes; `None` on the processor.
    pub fn largest_binding(&self) -> Option<u64> {
        let limits = self.graphics.as_ref()?.limits();
        Some(
            limits
                .max_buffer_size
                .min(limits.max_storage_buffer_binding_size),
        )
    }

    /// Whether the device was made with subgroups, as far as wgpu knows: in a browser it knows nothing
    /// of them.
    pub fn has_subgroups(&self) -> bool {
        let features = self.graphics.as_ref().map(wgpu::Device::features);
        features.is_some_and(|features| features.contains(wgpu::Features::SUBGROUP))
    }

    /// Whether `bytes` more can be had now, found out by asking for them and giving them back. A
    /// driver may promise memory it has not; nothing better can be asked of WebGPU.
    pub async fn has_room(&self, bytes: u64) -> bool {
        let (Some(device), Some(largest)) = (&self.graphics, self.largest_binding()) else {
            return true;
        };
        let step = largest.min(TESTED_BUFFER);
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffers: Vec<wgpu::Buffer> = (0..bytes.div_ceil(step))
            .map(|index| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size: step.min(bytes - index * step).next_multiple_of(4),
                    usage: wgpu::BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            })
            .collect();
        let refused = scope.pop().await.is_some();
        buffers.iter().for_each(wgpu::Buffer::destroy);
        !refused
    }
}

/// Buffers of a test allocation are of this size.
const TESTED_BUFFER: u64 = 256 << 20;

/// Opens a device. `Auto` takes a graphics card where there is one: natively an adapter that
/// computes on the processor (llvmpipe, SwiftShader) does not count, in a browser any WebGPU adapter
/// does.
///
/// # Errors
/// `Wgpu` where there is no adapter, or the adapter gives no device.
pub async fn open(preference: DevicePreference) -> Result<Opened, Fault> {
    match preference {
        DevicePreference::Cpu => Ok(processor()),
        DevicePreference::Wgpu => graphics().await,
        DevicePreference::Auto => match graphics().await {
            Ok(opened) if !opened.software || cfg!(target_family = "wasm") => Ok(opened),
            _ => Ok(processor()),
        },
    }
}

fn processor() -> Opened {
    Opened {
        device: Device::flex(),
        kind: "cpu",
        adapter: format!("{} processor", std::env::consts::ARCH),
        software: true,
        graphics: None,
    }
}

static GRAPHICS: OnceLock<Result<Opened, Fault>> = OnceLock::new();

/// The graphics device and its adapter's name, where one was opened.
pub(super) fn opened() -> Option<(&'static wgpu::Device, &'static str)> {
    let opened = GRAPHICS.get()?.as_ref().ok()?;
    Some((opened.graphics.as_ref()?, &opened.adapter))
}

/// The graphics device, opened once per process: burn's runtime registers it for good.
async fn graphics() -> Result<Opened, Fault> {
    if let Some(opened) = GRAPHICS.get() {
        return opened.clone();
    }
    let opened = Device::wgpu_options()
        .tasks_max(LAUNCHES_PER_SUBMISSION)
        .init_with_setup_async()
        .await
        .map(|(device, setup)| {
            let info = setup.adapter.get_info();
            Opened {
                device,
                kind: "wgpu",
                software: is_software(&info),
                graphics: Some(setup.device),
                adapter: if info.name.is_empty() {
                    "WebGPU adapter".to_owned()
                } else {
                    info.name
                },
            }
        })
        .map_err(|error| {
            Fault::new(
                FaultKind::Device,
                "graphics device",
                error.to_string(),
                "Choose the processor, or install a graphics driver",
            )
            .code(ErrorCode::NoAdapter)
        });
    // In a browser the page's own script says it.
    if let Ok(opened) = &opened
        && opened.has_subgroups()
        && !opened.software
    {
        use_subgroups(true);
    }
    GRAPHICS.get_or_init(|| opened).clone()
}

fn is_software(info: &AdapterInfo) -> bool {
    info.device_type == DeviceType::Cpu || is_software_name(&info.name)
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

/// The graphics device for a test. A test without an adapter says so and passes, or fails where
/// `CHATREX_NEED_ADAPTER` is set.
#[cfg(all(test, feature = "native"))]
pub(crate) fn adapter_for_test(test: &str) -> Option<Device> {
    match pollster::block_on(graphics()) {
        Ok(opened) => Some(opened.device),
        Err(fault) if std::env::var_os("CHATREX_NEED_ADAPTER").is_some() => {
            panic!("{test}: {fault}")
        }
        Err(fault) => {
            println!("{test} skipped: {fault}");
            None
        }
    }
}
