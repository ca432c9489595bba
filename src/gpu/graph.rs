//! Command-graph capture: launches are captured once and replayed at a tenth of their CPU cost.

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use cubecl::client::Graph;

use crate::error::{Fault, FaultKind};

/// Captured launches, which can be replayed on the same buffers.
///
/// The memory pages of these buffers stay allocated as long as the graph exists.
#[derive(Debug)]
pub struct CapturedGraph(Graph);

impl CapturedGraph {
    /// Runs `work` once and captures it. `None` if the device has no graph capture; `work` was run in
    /// that case too.
    ///
    /// `work` must launch the same kernels on the same buffers each time, and neither read back nor
    /// upload.
    ///
    /// # Panics
    /// `device` is not a GPU.
    pub async fn of(device: &Device, work: impl Fn()) -> Option<Self> {
        let DispatchDevice::Cube(device) = device.as_dispatch() else {
            panic!("graph capture: not a GPU");
        };
        let client = device.client();
        let prepared = client.graph_prepare();
        // This run allocates the buffers that the captured run uses: a capture must not allocate.
        work();
        let graph = match prepared {
            Ok(()) => {
                let waited = client.sync().await;
                let started = waited.and_then(|()| client.start_capture());
                if started.is_ok() {
                    work();
                }
                let stopped = client.stop_capture();
                started.and(stopped)
            }
            Err(error) => Err(error),
        };
        graph.map(Self).ok()
    }

    /// Launches the captured work once more, after all earlier launches.
    ///
    /// # Errors
    /// The device fails.
    pub fn replay(&self) -> Result<(), Fault> {
        // SAFETY: the graph keeps the pages of its buffers, and one client, so one stream, orders replays
        // and readbacks.
        unsafe { self.0.replay() }.map_err(|error| {
            Fault::new(
                FaultKind::Device,
                "GPU",
                format!("captured work could not be replayed: {error:?}"),
                "Reload the model, or use another device",
            )
            .code_of(&format!("{error:?}"))
        })
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::{Int, Tensor};

    use super::*;
    use crate::gpu::device::adapter_for_test;
    use crate::gpu::sampling::{GpuSampler, SamplingConfig};

    #[test]
    fn captured_work_is_replayed() {
        let Some(device) = adapter_for_test("captured_work_is_replayed") else {
            return;
        };
        let sampler = GpuSampler::new(50, SamplingConfig::greedy(), 20, 7, &device);
        let logits = Tensor::<1>::zeros([50], &device).slice_fill(31..32, 1.0);
        let read = |x: Tensor<1, Int>| x.into_data().try_to_vec::<i32>().expect("i32");
        sampler.sample(logits.clone());
        let graph = pollster::block_on(CapturedGraph::of(&device, || {
            sampler.sample(logits.clone())
        }));
        let graph = graph.expect("this device captures graphs");
        assert_eq!(
            read(sampler.position()),
            [8],
            "capturing does not run the work"
        );
        for _ in 0..3 {
            graph.replay().expect("a replay");
        }
        assert_eq!(read(sampler.position()), [11]);
        let ids = read(sampler.output_ids());
        assert_eq!(ids[..5], [31; 5]);
        assert_eq!(ids[5..], [0; 15]);
    }
}
