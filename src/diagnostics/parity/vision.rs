//! Vision towers, box encoder and projectors: `clip_vision`, `convnext`, `projectors`, `roi_align`,
//! `box_encoder`.

use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::fixture::{Array, Computed, Fixture};
use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::gpu::buffer::is_gpu;
use crate::gpu::roi_align::{self, roi_align_reference};
use crate::image::prepare::round_to_f16;
use crate::model::clip_vit::{ClipVit, ClipVitConfig};
use crate::model::convnext::{ConvNext, ConvNextConfig};
use crate::model::projector::Projector;
use crate::model::roi_encoder;
use crate::nn::Loader;

/// The low-resolution tower.
pub(super) async fn clip_vision(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    const ROOT: &str = "vision_tower.vision_model";
    let config: ClipVitConfig = fixture.config_as()?;
    let weights = fixture.weights()?;
    let tower = ClipVit::load(&Loader::new(&weights, device).child(ROOT), &config)?;
    let unused = config
        .unused_names()
        .into_iter()
        .flat_map(|name| [format!("{ROOT}.{name}"), format!("{ROOT}.{name}.*")])
        .collect::<Vec<_>>();
    weights.finish(&unused.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut computed = Computed::new();
    let pixels = fixture.tensor("in.pixel_values", device)?;
    computed.put("out.features", tower.forward(pixels)).await?;
    Ok(computed)
}

/// The high-resolution tower on every recorded input.
pub(super) async fn convnext(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let config: ConvNextConfig = fixture.config_as()?;
    let weights = fixture.weights()?;
    let trunk = ConvNext::load(&Loader::new(&weights, device), &config)?;
    weights.finish(&[])?;
    let mut computed = Computed::new();
    for case in cases(fixture, ".in.images") {
        let images = fixture.tensor(&format!("{case}.in.images"), device)?;
        for (i, level) in trunk.forward(images).into_iter().enumerate() {
            computed.put(format!("{case}.out.level{i}"), level).await?;
        }
    }
    Ok(computed)
}

/// The recorded projectors.
pub(super) async fn projectors(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let width: usize = fixture.config_at("/hidden_size")?;
    let weights = fixture.weights()?;
    let mut computed = Computed::new();
    for name in cases(fixture, ".in") {
        let x: Tensor<3> = fixture.tensor(&format!("{name}.in"), device)?;
        let at = Loader::new(&weights, device).child(&name);
        let projector = Projector::load(&at, x.dims()[2], width)?;
        computed
            .put(format!("{name}.out"), projector.forward(x))
            .await?;
    }
    weights.finish(&[])?;
    Ok(computed)
}

#[derive(Deserialize)]
struct RoiCase {
    name: String,
    feat: String,
    spatial_scale: f32,
    output_size: usize,
    sampling_ratio: i64,
    aligned: bool,
}

/// RoIAlign: the kernel on a GPU, its reference on the CPU. Cases with other options than the
/// model's are not computed.
pub(super) async fn roi_align(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    for case in fixture.config_at::<Vec<RoiCase>>("/cases")? {
        if case.aligned || case.sampling_ratio > 0 {
            continue;
        }
        let features = format!("feat.{}", case.feat);
        let boxes = boxes(fixture, &format!("{}.boxes", case.name))?;
        let (scale, cells) = (case.spatial_scale, case.output_size);
        let key = format!("{}.out", case.name);
        if is_gpu(device) {
            let features = fixture.tensor(&features, device)?;
            let aligned = roi_align::roi_align(features, &boxes, scale, cells);
            computed.put(key, aligned).await?;
            continue;
        }
        let features = fixture.array(&features)?;
        let &[1, channels, height, width] = features.shape.as_slice() else {
            return Err(fixture.fault("a feature map needs the shape [1, C, H, W]"));
        };
        let size = [channels, height, width];
        let aligned = roi_align_reference(&features.f32(), size, &boxes, scale, cells);
        let shape = [boxes.len(), channels, cells, cells];
        computed.put_array(key, Array::new(&shape, aligned));
    }
    Ok(computed)
}

#[derive(Deserialize)]
struct BoxCase {
    image_hw: [usize; 2],
    output_size: usize,
    box_dtype: String,
}

/// The whole box encoder, its position embedding alone, and the rounding of boxes to f16.
pub(super) async fn box_encoder(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    for (name, case) in fixture.config_at::<serde_json::Map<String, Value>>("/cases")? {
        let case = BoxCase::deserialize(&case)
            .map_err(|error| fixture.fault(&format!("config.json, case `{name}`: {error}")))?;
        let mut boxes = boxes(fixture, &format!("{name}.in.boxes_xyxy"))?;
        match case.box_dtype.trim_start_matches("torch.") {
            "float32" => {}
            "float16" => boxes.iter_mut().for_each(|b| *b = round_to_f16(*b)),
            other => {
                let what = format!("config.json, case `{name}`: unknown box_dtype {other}");
                return Err(fixture.fault(&what));
            }
        }
        let pyramid = (0..)
            .map(|i| format!("{name}.in.level{i}"))
            .take_while(|key| fixture.has(key))
            .map(|key| fixture.tensor(&key, device))
            .collect::<Result<Vec<Tensor<4>>, _>>()?;
        let encoded =
            roi_encoder::encode_cells(&pyramid, &[boxes], case.image_hw, case.output_size);
        computed.put(format!("{name}.out"), encoded).await?;
    }
    for name in cases(fixture, ".in_cxcywh") {
        let boxes = fixture.array(&format!("{name}.in_cxcywh"))?.f32();
        let recorded = fixture.array(&format!("{name}.out"))?;
        let width = *recorded.shape.last().unwrap_or(&0);
        let mut values = vec![0.0; recorded.values.len()];
        for (cxcywh, out) in boxes
            .as_chunks::<4>()
            .0
            .iter()
            .zip(values.chunks_exact_mut(width.max(1)))
        {
            roi_encoder::position_embedding(*cxcywh, out);
        }
        computed.put_array(format!("{name}.out"), Array::new(&recorded.shape, values));
    }
    for name in cases(fixture, ".in_fp32") {
        let key = format!("{name}.in_fp32");
        let rounded = boxes(fixture, &key)?
            .into_iter()
            .flat_map(|b| <[f32; 4]>::from(round_to_f16(b)))
            .collect::<Vec<_>>();
        let shape = &fixture.array(&key)?.shape;
        computed.put_array(format!("{name}.out"), Array::new(shape, rounded));
    }
    Ok(computed)
}

/// All keys that end in `suffix`, without it.
fn cases(fixture: &Fixture, suffix: &str) -> Vec<String> {
    fixture
        .keys()
        .filter_map(|key| Some(key.strip_suffix(suffix)?.to_owned()))
        .collect()
}

fn boxes(fixture: &Fixture, key: &str) -> Result<Vec<BoxXyxy>, Fault> {
    let values = fixture.array(key)?.f32();
    Ok(values
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| b.into())
        .collect())
}
