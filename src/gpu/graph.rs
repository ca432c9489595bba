//! Launches that are recorded once and replayed: a replay costs the host a tenth of launching.

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use cubecl::client::Graph;

use crate::error::{Fault, FaultKind};

/// The launches of some work, ready to be made again on the same buffers.
///
/// The pages of all buffers that the work touched stay allocated as long as this does.
#[derive(Debug)]
pub struct CapturedGraph(Graph);

impl CapturedGraph {
    /// Does `work`, and then records it. `None` where the device records nothing: the work is done
    /// all the same.
    ///
    /// `work` launches the same kernels on the same buffers each time, reads nothing and writes
    /// nothing from the host.
    ///
    /// # Panics
    /// `device` is not a graphics device.
    pub async fn of(device: &Device, work: impl Fn()) -> Option<Self> {
        let DispatchDevice::Cube(device) = device.as_dispatch() else {
            panic!("recording: not a graphics device");
        };
        let client = device.client();
        let prepared = client.graph_prepare();
        // This run leaves behind the buffers that the recorded one takes: it may allocate nothing.
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

    /// Makes the launches once more, after all that was launched before.
    ///
    /// # Errors
    /// The device refuses.
    pub fn replay(&self) -> Result<(), Fault> {
        // SAFETY: the recording keeps the pages of its buffers; engine and reader use one client, so
        // that everything is ordered by one stream.
        unsafe { self.0.replay() }.map_err(|error| {
            Fault::new(
                FaultKind::Device,
                "graphics device",
                format!("recorded work could not be repeated: {error:?}"),
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
    fn recorded_work_is_done_again() {
        let Some(device) = adapter_for_test("recorded_work_is_done_again") else {
            return;
        };
        let sampler = GpuSampler::new(50, SamplingConfig::greedy(), 20, 7, &device);
        let logits = Tensor::<1>::zeros([50], &device).slice_fill(31..32, 1.0);
        let read = |x: Tensor<1, Int>| x.into_data().try_to_vec::<i32>().expect("i32");
        sampler.sample(logits.clone());
        let recording = pollster::block_on(CapturedGraph::of(&device, || {
            sampler.sample(logits.clone())
        }));
        let recording = recording.expect("this device records");
        assert_eq!(read(sampler.position()), [8], "recording is not doing");
        for _ in 0..3 {
            recording.replay().expect("a replay");
        }
        assert_eq!(read(sampler.position()), [11]);
        let said = read(sampler.output_ids());
        assert_eq!(said[..5], [31; 5]);
        assert_eq!(said[5..], [0; 15]);
    }
}
