//! Fills a GPU buffer with deterministic random values: weights of a benchmark. The values are the same
//! on every device.

use burn::backend::{Cube, DispatchDevice};
use burn::tensor::{DType, Device, Int, Shape, Tensor};
use burn_cubecl::tensor::CubeTensor;

use crate::generate::sampling::pcg;
use crate::gpu::launch::launch;
use crate::gpu::readback::{read, read_ids};
use crate::gpu::shader::Shader;
use crate::gpu::testing::SweepReport;
use crate::gpu::uniforms::{Uniforms as _, uniforms};
use crate::gpu::upload::Upload;

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 256;

/// Values of `u.kind`.
const KIND_U32: u32 = 0;
const KIND_UNIFORM: u32 = 1;

uniforms! {
    /// Uniforms of `shaders/random_fill.wgsl`.
    struct RandomFillUniforms {
        /// Number of values.
        count: u32,
        /// Added to the index of a value before it is hashed.
        seed: u32,
        /// KIND_U32 or KIND_UNIFORM.
        kind: u32,
        /// KIND_U32: bits that vary.
        mask: u32,
        /// KIND_U32: bits that are set.
        base: u32,
        /// KIND_UNIFORM: the middle of the interval.
        mean: f32,
        /// KIND_UNIFORM: half the width of the interval.
        range: f32,
    }
}

/// `shaders/random_fill.wgsl`.
pub const SHADER: Shader = Shader {
    name: "random_fill",
    text: include_str!("../../shaders/random_fill.wgsl"),
    uniforms: RandomFillUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE), ("KIND_U32", KIND_U32)],
    imports: &[],
};

/// A distribution of random values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `base | (hash & mask)`.
    U32 {
        /// Bits that vary.
        mask: u32,
        /// Bits that are set.
        base: u32,
    },
    /// Uniform in `[mean - range, mean + range)`.
    Uniform {
        /// The middle of the interval.
        mean: f32,
        /// Half the width of the interval.
        range: f32,
    },
}

impl Kind {
    fn uniforms(self, count: u32, seed: u32) -> RandomFillUniforms {
        let (kind, [mask, base], [mean, range]) = match self {
            Self::U32 { mask, base } => (KIND_U32, [mask, base], [0.0; 2]),
            Self::Uniform { mean, range } => (KIND_UNIFORM, [0; 2], [mean, range]),
        };
        RandomFillUniforms {
            count,
            seed,
            kind,
            mask,
            base,
            mean,
            range,
        }
    }

    /// The bits of value `index`.
    fn at(self, index: u32, seed: u32) -> u32 {
        let hash = pcg(index.wrapping_add(seed));
        match self {
            Self::U32 { mask, base } => base | (hash & mask),
            Self::Uniform { mean, range } => {
                (mean + range * ((hash >> 8) as f32 / 8_388_608.0 - 1.0)).to_bits()
            }
        }
    }
}

/// `count` values `base | (hash & mask)`.
///
/// # Panics
/// The device cannot bind a buffer of that size.
pub fn random_u32(
    count: usize,
    seed: u32,
    mask: u32,
    base: u32,
    device: &Device,
) -> Tensor<1, Int> {
    let kind = Kind::U32 { mask, base };
    match on_gpu(count, seed, kind, device, DType::I32) {
        Some(values) => Tensor::from_primitive::<Cube>(values),
        None => on_cpu(count, seed, kind, device).integers(),
    }
}

/// `count` values, uniform in `[mean - range, mean + range)`.
///
/// # Panics
/// The device cannot bind a buffer of that size.
pub fn uniform(count: usize, seed: u32, mean: f32, range: f32, device: &Device) -> Tensor<1> {
    let kind = Kind::Uniform { mean, range };
    match on_gpu(count, seed, kind, device, DType::F32) {
        Some(values) => Tensor::from_primitive::<Cube>(values),
        None => on_cpu(count, seed, kind, device).floats(),
    }
}

fn on_cpu(count: usize, seed: u32, kind: Kind, device: &Device) -> Upload {
    let mut upload = Upload::new(count, device);
    upload.push((0..count as u32).map(|i| kind.at(i, seed)).collect());
    upload
}

/// The values from the kernel; `None` if `device` is not a GPU.
fn on_gpu(
    count: usize,
    seed: u32,
    kind: Kind,
    device: &Device,
    dtype: DType,
) -> Option<CubeTensor> {
    let DispatchDevice::Cube(device) = device.as_dispatch() else {
        return None;
    };
    let client = device.client();
    let (bytes, limit) = (4 * count, client.properties().memory.max_page_size);
    assert!(
        bytes as u64 <= limit,
        "random_fill: {bytes} bytes, the device binds {limit}"
    );
    // A dedicated buffer goes back to the driver when the tensor is dropped.
    let out = client.memory_dedicated_allocation((), |()| client.empty(bytes));
    launch(
        &SHADER,
        &client,
        count.div_ceil(WORKGROUP_SIZE as usize) as u64,
        &[],
        &[&out],
        &kind.uniforms(count as u32, seed),
    );
    let shape = Shape::from([count]);
    Some(CubeTensor::new_contiguous(
        client,
        device.clone(),
        shape,
        out,
        dtype,
    ))
}

/// Compares the kernel on `device`, a GPU, with the CPU.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    // The last needs more workgroups than one dimension holds.
    let counts = [1, 255, 256, 257, 65_536 * WORKGROUP_SIZE as usize + 3];
    for count in counts {
        let seed = count as u32 * 77;
        let (mask, base) = (0x00ff_00ff, 0x2400_2400);
        let values = read_ids("random_fill", random_u32(count, seed, mask, base, device)).await;
        let values = values.map_err(|fault| fault.to_string())?;
        let kind = Kind::U32 { mask, base };
        for (i, &value) in values.iter().enumerate() {
            let expected = kind.at(i as u32, seed);
            if value != expected {
                return Err(format!(
                    "random_fill: value {i} is {value:x}, expected {expected:x}"
                ));
            }
        }
        let (mean, range) = (1.0, 0.25);
        let values = read("random_fill", uniform(count, seed, mean, range, device)).await;
        let values = values.map_err(|fault| fault.to_string())?;
        let kind = Kind::Uniform { mean, range };
        for (i, &value) in values.iter().enumerate() {
            let expected = f32::from_bits(kind.at(i as u32, seed));
            let error = (value - expected).abs();
            if error.is_nan() || error > 1e-6 {
                return Err(format!(
                    "random_fill: value {i} is {value}, expected {expected}"
                ));
            }
        }
    }
    report.shapes = counts.len();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fill_their_interval() {
        let kind = Kind::Uniform {
            mean: 0.0,
            range: 2.0,
        };
        let values: Vec<f32> = (0..10_000).map(|i| f32::from_bits(kind.at(i, 5))).collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.05, "{mean}");
        assert!(values.iter().all(|v| (-2.0..2.0).contains(v)));
        assert!(values.iter().any(|v| *v < -1.9) && values.iter().any(|v| *v > 1.9));
    }
}
