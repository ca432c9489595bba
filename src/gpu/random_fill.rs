//! Made-up numbers, on the device they are for: weights of a model that nobody has.
//!
//! The same numbers on every device.

use burn::backend::{Cube, DispatchDevice};
use burn::tensor::{DType, Device, Int, Shape, Tensor};
use burn_cubecl::tensor::CubeTensor;

use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::SweepReport;
use crate::gpu::upload::Upload;

/// Invocations per workgroup.
const GROUP: u32 = 256;

/// `shaders/random_fill.wgsl`.
pub const SHADER: Shader = Shader {
    name: "random_fill",
    text: include_str!("../../shaders/random_fill.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// What the numbers are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Words `base | (anything & mask)`.
    Words {
        /// Bits that vary.
        mask: u32,
        /// Bits that are set.
        base: u32,
    },
    /// Numbers in `[middle - reach, middle + reach)`.
    Floats {
        /// Their mean.
        middle: f32,
        /// How far they lie from it at most.
        reach: f32,
    },
}

impl Kind {
    fn sizes(self, count: u32, seed: u32) -> [u32; 8] {
        match self {
            Self::Words { mask, base } => [count, seed, mask, base, 0, 0, 0, 0],
            Self::Floats { middle, reach } => {
                [count, seed, 0, 0, 1, middle.to_bits(), reach.to_bits(), 0]
            }
        }
    }

    /// Number `index`, by its bits.
    fn at(self, index: u32, seed: u32) -> u32 {
        let state = index.wrapping_add(seed);
        let state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
        let hash = (word >> 22) ^ word;
        match self {
            Self::Words { mask, base } => base | (hash & mask),
            Self::Floats { middle, reach } => {
                (middle + reach * ((hash >> 8) as f32 / 8_388_608.0 - 1.0)).to_bits()
            }
        }
    }
}

/// `count` words.
///
/// # Panics
/// The device binds no buffer of that size.
pub fn words(count: usize, seed: u32, mask: u32, base: u32, device: &Device) -> Tensor<1, Int> {
    let kind = Kind::Words { mask, base };
    match on_gpu(count, seed, kind, device, DType::I32) {
        Some(made) => Tensor::from_primitive::<Cube>(made),
        None => on_host(count, seed, kind, device).integers(),
    }
}

/// `count` numbers in `[middle - reach, middle + reach)`.
///
/// # Panics
/// The device binds no buffer of that size.
pub fn floats(count: usize, seed: u32, middle: f32, reach: f32, device: &Device) -> Tensor<1> {
    let kind = Kind::Floats { middle, reach };
    match on_gpu(count, seed, kind, device, DType::F32) {
        Some(made) => Tensor::from_primitive::<Cube>(made),
        None => on_host(count, seed, kind, device).floats(),
    }
}

fn on_host(count: usize, seed: u32, kind: Kind, device: &Device) -> Upload {
    let mut upload = Upload::new(count, device);
    upload.push((0..count as u32).map(|i| kind.at(i, seed)).collect());
    upload
}

/// The kernel's numbers, where kernels run.
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
        "noise: {bytes} bytes, the device binds {limit}"
    );
    // Large ones have buffers of their own, which the driver gets back when they are dropped.
    let out = client.memory_dedicated_allocation((), |()| client.empty(bytes));
    launch(
        &SHADER,
        &client,
        count.div_ceil(GROUP as usize) as u64,
        &[],
        &[&out],
        &kind.sizes(count as u32, seed),
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

/// Compares the kernel on `device`, a graphics device, with the processor: the number of shapes.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    // One more group than one dimension holds is the last.
    let counts = [1, 255, 256, 257, 65_536 * GROUP as usize + 3];
    for count in counts {
        let seed = count as u32 * 77;
        let (mask, base) = (0x00ff_00ff, 0x2400_2400);
        let made = words(count, seed, mask, base, device);
        let made = made.into_data_async().await;
        let made: Vec<i32> = made
            .map_err(|error| format!("noise: {error:?}"))?
            .try_to_vec()
            .map_err(|error| format!("noise: {error:?}"))?;
        let kind = Kind::Words { mask, base };
        for (i, &word) in made.iter().enumerate() {
            let expected = kind.at(i as u32, seed);
            if word.cast_unsigned() != expected {
                return Err(format!("noise: word {i} is {word:x}, not {expected:x}"));
            }
        }
        let (middle, reach) = (1.0, 0.25);
        let made = floats(count, seed, middle, reach, device);
        let made = made.into_data_async().await;
        let made: Vec<f32> = made
            .map_err(|error| format!("noise: {error:?}"))?
            .try_to_vec()
            .map_err(|error| format!("noise: {error:?}"))?;
        let kind = Kind::Floats { middle, reach };
        for (i, &number) in made.iter().enumerate() {
            let expected = f32::from_bits(kind.at(i as u32, seed));
            let difference = (number - expected).abs();
            if difference.is_nan() || difference > 1e-6 {
                return Err(format!("noise: number {i} is {number}, not {expected}"));
            }
        }
    }
    swept.shapes = counts.len();
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_range() {
        let kind = Kind::Floats {
            middle: 0.0,
            reach: 2.0,
        };
        let made: Vec<f32> = (0..10_000).map(|i| f32::from_bits(kind.at(i, 5))).collect();
        let mean = made.iter().sum::<f32>() / made.len() as f32;
        assert!(mean.abs() < 0.05, "{mean}");
        assert!(made.iter().all(|v| (-2.0..2.0).contains(v)));
        assert!(made.iter().any(|v| *v < -1.9) && made.iter().any(|v| *v > 1.9));
    }

    #[cfg(feature = "native")]
    #[test]
    fn the_kernel_makes_the_processors_numbers() {
        let test = "the_kernel_makes_the_processors_numbers";
        if let Some(device) = crate::gpu::device::adapter_for_test(test) {
            pollster::block_on(sweep(&device)).expect("the same numbers");
        }
    }
}
