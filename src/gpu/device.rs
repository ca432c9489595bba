//! Opens the device that tensors and kernels use: a GPU by wgpu, or the CPU.

use std::sync::OnceLock;

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use burn::tensor::wgpu::wgpu::{self, AdapterInfo, DeviceType};
use cubecl::MemoryScope;

use crate::device_preference::DevicePreference;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::gpu::shader::{use_subgroups, uses_subgroups};
pub use crate::hardware::is_software_name;
use crate::hardware::{Hardware, Limits};

/// Kernel launches per submission to the GPU. A submission costs as much as several launches, and a
/// decoded token of nano takes a few hundred.
const LAUNCHES_PER_SUBMISSION: usize = 64;

/// An open device and its description.
#[derive(Clone, Debug)]
pub struct Opened {
    /// burn's handle.
    pub device: Device,
    /// `wgpu` or `cpu`.
    pub kind: &'static str,
    /// The name of the adapter, or the architecture of the CPU.
    pub adapter: String,
    /// Whether no GPU computes: a software adapter or the CPU.
    pub software: bool,
    wgpu: Option<wgpu::Device>,
    info: Option<AdapterInfo>,
    has_f16: bool,
}

impl Opened {
    /// What is known of the GPU; `None` for the CPU. In a browser the start script tells more than wgpu.
    pub fn hardware(&self) -> Option<Hardware> {
        let (device, info) = (self.wgpu.as_ref()?, self.info.as_ref()?);
        if let Some(told) = TOLD.get() {
            return Some(Hardware {
                subgroups: uses_subgroups(),
                ..told.clone()
            });
        }
        let limits = device.limits();
        Some(Hardware {
            vendor: match info.vendor {
                0 => String::new(),
                vendor => format!("{vendor:#06x}"),
            },
            architecture: String::new(),
            description: [&*info.name, &*info.driver, &*info.driver_info]
                .join(" ")
                .trim()
                .to_owned(),
            backend: format!("{:?}", info.backend),
            f16: self.has_f16,
            subgroups: uses_subgroups(),
            fallback: self.software,
            limits: Limits {
                buffer: limits.max_buffer_size,
                binding: limits.max_storage_buffer_binding_size,
                workgroup_storage: limits.max_compute_workgroup_storage_size,
                workgroup_size: limits.max_compute_invocations_per_workgroup,
                workgroups: limits.max_compute_workgroups_per_dimension,
                storage_buffers: limits.max_storage_buffers_per_shader_stage,
            },
        })
    }

    /// The largest buffer that a kernel can bind, in bytes; `None` for the CPU.
    pub fn largest_binding(&self) -> Option<u64> {
        let limits = self.wgpu.as_ref()?.limits();
        Some(
            limits
                .max_buffer_size
                .min(limits.max_storage_buffer_binding_size),
        )
    }

    /// Whether the device has subgroups, as far as wgpu knows; in a browser wgpu does not know.
    pub fn has_subgroups(&self) -> bool {
        let features = self.wgpu.as_ref().map(wgpu::Device::features);
        features.is_some_and(|features| features.contains(wgpu::Features::SUBGROUP))
    }

    /// Whether `bytes` can be allocated now: allocates and frees them. WebGPU offers no better test,
    /// although a driver may promise memory that it does not have.
    pub async fn has_room(&self, bytes: u64) -> bool {
        let (Some(device), Some(largest)) = (&self.wgpu, self.largest_binding()) else {
            return true;
        };
        let step = largest.min(TEST_ALLOCATION);
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

/// Bytes of all buffers that this program holds on the GPU of `device`; `None` for the CPU.
pub fn allocated(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => {
            let report = device.client().memory_report(MemoryScope::Device);
            Some(report.usage().bytes_reserved)
        }
        _ => None,
    }
}

/// The size of a buffer of a test allocation, in bytes.
const TEST_ALLOCATION: u64 = 256 << 20;

/// Opens a device. `Auto` takes a GPU if there is one, else the CPU; natively a software adapter
/// (llvmpipe, SwiftShader) does not count as a GPU, in a browser any WebGPU adapter does.
///
/// # Errors
/// `Wgpu` without an adapter, or the adapter gives no device.
pub async fn open(preference: DevicePreference) -> Result<Opened, Fault> {
    match preference {
        DevicePreference::Cpu => Ok(cpu()),
        DevicePreference::Wgpu => gpu().await,
        DevicePreference::Auto => match gpu().await {
            Ok(opened) if !opened.software || cfg!(target_family = "wasm") => Ok(opened),
            _ => Ok(cpu()),
        },
    }
}

fn cpu() -> Opened {
    Opened {
        device: Device::flex(),
        kind: "cpu",
        adapter: format!("{} CPU", std::env::consts::ARCH),
        software: true,
        wgpu: None,
        info: None,
        has_f16: false,
    }
}

/// What the start script of a browser tells of the adapter.
static TOLD: OnceLock<Hardware> = OnceLock::new();

/// Sets what the start script of a browser tells of the adapter whose device is being opened, as the JSON
/// of a [`Hardware`]. Anything else is ignored.
pub fn tell(json: &str) {
    if let Ok(hardware) = serde_json::from_str(json) {
        // There is one device; the first report is that of its adapter.
        let _ = TOLD.set(hardware);
    }
}

static GPU: OnceLock<Result<Opened, Fault>> = OnceLock::new();

/// The GPU and its adapter's name, if it was opened.
pub(super) fn opened() -> Option<(&'static wgpu::Device, &'static str)> {
    let opened = GPU.get()?.as_ref().ok()?;
    Some((opened.wgpu.as_ref()?, &opened.adapter))
}

/// The GPU, opened once per process: burn's runtime cannot unregister it. Some drivers crash if two
/// threads open them at once, so other threads wait.
#[cfg(not(target_family = "wasm"))]
async fn gpu() -> Result<Opened, Fault> {
    GPU.get_or_init(|| pollster::block_on(open_gpu())).clone()
}

/// The GPU, opened once per process.
#[cfg(target_family = "wasm")]
async fn gpu() -> Result<Opened, Fault> {
    if let Some(opened) = GPU.get() {
        return opened.clone();
    }
    let opened = open_gpu().await;
    GPU.get_or_init(|| opened).clone()
}

async fn open_gpu() -> Result<Opened, Fault> {
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
                wgpu: Some(setup.device),
                has_f16: setup
                    .adapter
                    .features()
                    .contains(wgpu::Features::SHADER_F16),
                info: Some(info.clone()),
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
                "GPU",
                error.to_string(),
                "Choose the CPU, or install a GPU driver",
            )
            .code(ErrorCode::NoAdapter)
        });
    // In a browser the start script sets it.
    if let Ok(opened) = &opened
        && opened.has_subgroups()
        && !opened.software
    {
        use_subgroups(true);
    }
    opened
}

fn is_software(info: &AdapterInfo) -> bool {
    info.device_type == DeviceType::Cpu || is_software_name(&info.name)
}

/// The GPU for a test. Without an adapter the test prints that it is skipped, or fails if
/// `CHATREX_NEED_ADAPTER` is set.
#[cfg(all(test, feature = "native"))]
pub(crate) fn adapter_for_test(test: &str) -> Option<Device> {
    match pollster::block_on(gpu()) {
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
