//! The self-test of a model folder: expected output of the first decoder layer, for other devices.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::disk::OutputFolder;
use crate::error::Fault;
use crate::model::decoder::{Decoder, DecoderConfig};
use crate::nn::{Init, Loader, Weight, WeightMap, WeightSource};
use crate::weights::download::Downloader;
use crate::weights::manifest::{Manifest, Part, SelfTest};
use crate::weights::source::BlockingRuntime;

/// Rows of the self-test's input.
const SELF_TEST_ROWS: usize = 7;

/// Runs the first decoder layer, as it was stored in `out`, on the CPU.
///
/// # Errors
/// The shards cannot be read, or the output is not finite.
pub(super) fn self_test(
    out: &Path,
    manifest: &Manifest,
    config: &DecoderConfig,
) -> Result<SelfTest, Fault> {
    let device = Device::flex();
    let is_used =
        |name: &str| name.starts_with("model.layers.0.") || name.starts_with("model.norm.");
    let mut weights = WeightMap::new(&device, is_used);
    let folder = OutputFolder(out.to_path_buf());
    let downloader = Downloader::new(manifest, &folder, None, &BlockingRuntime, &|_| ());
    pollster::block_on(downloader.tensors(&[Part::Decoder], &mut weights))?;
    let one_layer = DecoderConfig {
        num_hidden_layers: 1,
        tie_word_embeddings: true,
        ..config.clone()
    };
    let source = WithoutEmbedding(weights);
    let decoder = Decoder::load(&Loader::new(&source, &device), &one_layer)?;
    let expected: Vec<f32> = decoder
        .self_test(SELF_TEST_ROWS)
        .into_data()
        .try_to_vec()
        .expect("f32 values");
    let largest = expected
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    if !largest.is_finite() {
        return Err(Fault::model(
            out.display().to_string(),
            "the first decoder layer computes values that are not finite",
        ));
    }
    Ok(SelfTest {
        rows: SELF_TEST_ROWS,
        expected,
        tolerance: (largest * 2e-3).max(1e-6),
    })
}

/// Weights of a decoder without its embedding, which the self-test does not use.
struct WithoutEmbedding(WeightMap);

impl WeightSource for WithoutEmbedding {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        init: &Init,
        device: &Device,
    ) -> Result<Tensor<1>, Fault> {
        self.0.tensor(name, shape, init, device)
    }

    fn weight(
        &self,
        stem: &str,
        shape: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<Weight, Fault> {
        if stem == "model.embed_tokens" {
            return Ok(Weight::Device(Vec::new()));
        }
        self.0.weight(stem, shape, init, device)
    }
}
