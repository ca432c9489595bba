//! The dense detector: `nanodet`, recorded from the published weights (`tests/reference/nanodet.mjs`).

use burn::tensor::{Device, Tensor, TensorData};

use super::fixture::{Array, Computed, Fixture};
use crate::error::Fault;
use crate::gpu::readback::read;
use crate::image::Pixels;
use crate::model::nanodet::{NanoDet, NanoDetConfig};
use crate::nn::Loader;

/// NanoDet-g with the weights of the shipped model, on a picture whose pixels stand for 2 x 2 pixels of
/// the input. Scores and maps are recorded at every so many elements, and all scores of the best cells.
pub(super) async fn nanodet(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let config = NanoDetConfig::nanodet_g();
    let weights = fixture.weights_of(&fixture.config_at::<String>("/weights")?)?;
    let network = NanoDet::load(&Loader::new(&weights, device), &config)?;
    weights.finish(&["__pad.*"])?;
    let pixels = doubled(fixture, fixture.array("in.pixels")?)?;
    let input = config.recipe().prepare(&pixels);
    let shape = [1, 3, input.height, input.width];
    let input = Tensor::<4>::from_data(TensorData::new(input.values, shape), device);
    let output = network.forward(input);

    let mut computed = Computed::new();
    let scores = read("scores", output.scores).await?;
    let classes = config.classes.len();
    let best = fixture.array("in.best")?.i64().into_iter();
    let rows = best
        .map(|cell| {
            let start = usize::try_from(cell).ok()?.checked_mul(classes)?;
            scores.get(start..)?.get(..classes)
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| fixture.fault("`in.best` is not a list of cells"))?;
    let mut put = |key: String, values: Vec<f32>| {
        let values = values.into_iter().map(f64::from).collect::<Vec<_>>();
        computed.put_array(key, Array::new(&[values.len()], values));
    };
    put("out.best_scores".into(), rows.concat());
    put("out.scores".into(), every(&scores, fixture, "/score_step")?);
    for (level, map) in output.maps.into_iter().enumerate() {
        let map = read("map", map).await?;
        put(
            format!("out.map{level}"),
            every(&map, fixture, "/map_step")?,
        );
    }
    let [_, cells, edges] = output.boxes.dims();
    let boxes = output.boxes.reshape([cells, edges]);
    computed.put("out.boxes", boxes).await?;
    Ok(computed)
}

/// The elements at multiples of the step at `pointer` in `config.json`.
fn every<T: Copy>(values: &[T], fixture: &Fixture, pointer: &str) -> Result<Vec<T>, Fault> {
    let step: usize = fixture.config_at(pointer)?;
    Ok(values.iter().step_by(step.max(1)).copied().collect())
}

/// The recorded picture `[H, W, 3]` with every pixel repeated in both directions.
fn doubled(fixture: &Fixture, small: &Array) -> Result<Pixels, Fault> {
    let &[height, width, 3] = small.shape.as_slice() else {
        return Err(fixture.fault("`in.pixels` needs the shape [H, W, 3]"));
    };
    let bytes = small.u8();
    let mut rgb = Vec::with_capacity(4 * bytes.len());
    for y in 0..2 * height {
        for x in 0..2 * width {
            rgb.extend_from_slice(&bytes[(y / 2 * width + x / 2) * 3..][..3]);
        }
    }
    Pixels::new(2 * width as u32, 2 * height as u32, rgb)
}
