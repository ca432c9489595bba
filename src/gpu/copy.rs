//! One buffer into another: the pace of a device's memory, which kernels that read weights are
//! measured by.

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Tensor};

use crate::gpu::buffer::{alloc, from_buffer, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::random_fill;
use crate::gpu::testing::SweepReport;

/// Invocations per workgroup.
const GROUP: u32 = 64;

/// `shaders/copy.wgsl`.
pub const SHADER: Shader = Shader {
    name: "copy",
    text: include_str!("../../shaders/copy.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// How many values a buffer can hold on a graphics device; no limit elsewhere.
pub fn most(device: &Device) -> usize {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => {
            let limit = device.client().properties().memory.max_page_size;
            usize::try_from(limit / 4).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    }
}

/// `x` in a buffer of its own, on a graphics device.
///
/// # Panics
/// `x` is empty, its length no multiple of four, or it is not on a graphics device.
pub fn copy(x: Tensor<1>) -> Tensor<1> {
    let [count] = x.dims();
    assert!(count > 0 && count.is_multiple_of(4), "copy: {count} values");
    let x = to_buffer("copy", x);
    let out = alloc("copy", &x.client, count);
    let quads = count / 4;
    let groups = quads.div_ceil(GROUP as usize) as u64;
    let sizes = [quads as u32, 0, 0, 0];
    launch(&SHADER, &x.client, groups, &[&x.handle], &[&out], &sizes);
    from_buffer(&x, out, [count])
}

/// Copies on `device`, a graphics device, and compares: the number of shapes.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    let counts = [4, 1020, 1024, 1028, 4 * (65_536 * GROUP as usize + 3)];
    for count in counts {
        let x = random_fill::floats(count, 7, 0.0, 1.0, device);
        let wrong = with_nan_fill(|| copy(x.clone())).equal(x).bool_not();
        let wrong = wrong.int().sum().into_data_async().await;
        let wrong: i64 = wrong
            .map_err(|error| format!("copy: {error:?}"))?
            .iter::<i64>()
            .sum();
        if wrong != 0 {
            return Err(format!("copy: {wrong} of {count} values differ"));
        }
    }
    swept.shapes = counts.len();
    Ok(swept)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn copies_are_the_same() {
        if let Some(device) = adapter_for_test("copies_are_the_same") {
            pollster::block_on(sweep(&device)).expect("the same values");
        }
    }
}
