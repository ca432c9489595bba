//! Preprocessing of images and post-processing of proposals: `preprocess`, `upn_resize_table`,
//! `upn_postprocess`.

use burn::tensor::Device;
use serde::Deserialize;
use serde_json::Value;

use super::fixture::{Array, Computed, Fixture};
use super::text::tokenizer_of;
use crate::error::Fault;
use crate::geometry::{Proposal, filter, proposals};
use crate::image::Pixels;
use crate::image::prepare::{Planar, ShortSideRecipe, SquareRecipe};
use crate::image::resize::Canvas;
use crate::text::prompt::{ChatTemplate, user_turn};

#[derive(Deserialize)]
struct Sizes {
    aux: u32,
    low: u32,
    upn_size: u32,
    upn_max: u32,
}

#[derive(Deserialize)]
struct ImageCase {
    index: usize,
    question: String,
    n_boxes: usize,
}

/// Both recipes on recorded images: at a small size in full, at the real size in samples.
pub(super) async fn preprocess(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    let background: [u8; 3] = fixture.config_at("/background")?;
    let images: Vec<ImageCase> = fixture.config_at("/images")?;
    let tokenizer = tokenizer_of(fixture)?;
    for ImageCase {
        index,
        question,
        n_boxes,
    } in images
    {
        let prompt = ChatTemplate::qwen().first(&user_turn(n_boxes, &question)?);
        computed.put_array(
            format!("{index}.input_ids"),
            Array::integers(tokenizer.encode(&prompt)),
        );
        let pixels = recorded_pixels(fixture, &format!("{index}.raw_u8"))?;
        let square = Canvas::square(&pixels, background).to_pixels();
        computed.put_array(
            format!("{index}.square_u8"),
            Array::new(
                &[square.height as usize, square.width as usize, 3],
                square.rgb,
            ),
        );
        let boxes = fixture.array(&format!("{index}.boxes_xyxy"))?;
        for scale in ["small", "real"] {
            let sizes: Sizes = fixture.config_at(&format!("/{scale}"))?;
            let recipe = SquareRecipe {
                high: sizes.aux,
                low: sizes.low,
                background,
                ..SquareRecipe::CHATREX
            };
            let (high, low) = recipe.prepare(&pixels);
            let placed = boxes.values.as_chunks::<4>().0.iter().flat_map(|&b| {
                <[f32; 4]>::from(recipe.box_to_high(pixels.width, pixels.height, b))
            });
            let at = format!("{index}.{scale}");
            computed.put_array(format!("{at}.gt_boxes"), Array::new(&boxes.shape, placed));
            computed.put_array(format!("{at}.pixel_values_aux"), sampled(&high, 1));
            computed.put_array(format!("{at}.pixel_values"), sampled(&low, 1));
            computed.put_array(format!("{at}.pixel_values_aux_s16"), sampled(&high, 16));
            computed.put_array(format!("{at}.pixel_values_s7"), sampled(&low, 7));
            computed.put_array(format!("{at}.aux_mean"), mean(&high));
            computed.put_array(format!("{at}.low_mean"), mean(&low));

            let upn = ShortSideRecipe {
                size: sizes.upn_size,
                max: sizes.upn_max,
                ..ShortSideRecipe::UPN
            }
            .prepare(&pixels);
            let at = format!("{index}.upn_{scale}");
            let shape = [3, upn.height as i64, upn.width as i64];
            computed.put_array(format!("{at}.shape"), Array::integers(shape));
            computed.put_array(format!("{at}.image"), sampled(&upn, 1));
            computed.put_array(format!("{at}.image_s16"), sampled(&upn, 16));
            computed.put_array(format!("{at}.mean"), mean(&upn));
        }
    }
    Ok(computed)
}

/// The recorded bytes `[H, W, 3]` under `key` as an image.
///
/// # Errors
/// They are missing or of another shape.
pub(super) fn recorded_pixels(fixture: &Fixture, key: &str) -> Result<Pixels, Fault> {
    let array = fixture.array(key)?;
    match array.shape[..] {
        [height, width, 3] => Pixels::new(width as u32, height as u32, array.u8()),
        _ => Err(fixture.fault(&format!("`{key}` has shape {:?}", array.shape))),
    }
}

/// Every `step`-th row and column, `[3, H, W]`.
fn sampled(planar: &Planar, step: usize) -> Array {
    let rows = (0..planar.height).step_by(step);
    let columns = (0..planar.width).step_by(step);
    let values = (0..3).flat_map(|channel| {
        let columns = columns.clone();
        rows.clone().flat_map(move |y| {
            let row = (channel * planar.height + y) * planar.width;
            columns.clone().map(move |x| planar.values[row + x])
        })
    });
    Array::new(&[3, rows.len(), columns.len()], values)
}

fn mean(planar: &Planar) -> Array {
    let sum: f64 = planar.values.iter().copied().map(f64::from).sum();
    Array::new(&[], [sum / planar.values.len() as f64])
}

/// The resize rule of UPN on a table of image sizes.
pub(super) async fn upn_resize_table(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let table = fixture.array("table")?;
    let rows = table.i64();
    let computed_rows = rows.as_chunks::<6>().0.iter().flat_map(|row| {
        let [width, height, size, max, ..] = row.map(|value| value as u32);
        let recipe = ShortSideRecipe {
            size,
            max,
            ..ShortSideRecipe::UPN
        };
        let (out_width, out_height) = recipe.target(width, height);
        [width, height, size, max, out_height, out_width]
    });
    let mut computed = Computed::new();
    computed.put_array("table", Array::new(&table.shape, computed_rows));
    Ok(computed)
}

/// Sorting by score, box scaling and the filter of UPN under the recorded settings.
pub(super) async fn upn_postprocess(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let sizes: Vec<[u32; 2]> = fixture.config_at("/image_sizes_hw")?;
    let images = ranked(
        &sizes,
        fixture.array("in.pred_boxes")?,
        fixture.array("in.pred_logits")?,
    );
    let mut computed = Computed::new();
    put_ranked(&mut computed, "out", &images);

    let settings = fixture
        .config()
        .get("filters")
        .and_then(Value::as_object)
        .ok_or_else(|| fixture.fault("config.json has no `filters`"))?;
    for (setting, recorded) in settings {
        let number = |name: &str| {
            setting
                .split(',')
                .find_map(|part| {
                    part.strip_prefix(name)?
                        .strip_prefix('=')?
                        .parse::<f64>()
                        .ok()
                })
                .ok_or_else(|| fixture.fault(&format!("filter `{setting}` has no `{name}`")))
        };
        let recorded: Recorded = Recorded::deserialize(recorded)
            .map_err(|error| fixture.fault(&format!("filter `{setting}`: {error}")))?;
        let (min_score, nms) = (number("min_score")?, number("nms")?);
        computed.put_json(
            recorded
                .differences(&images, min_score, nms, 0.0, 1e-6)
                .into_iter()
                .map(|difference| format!("{setting}: {difference}")),
        );
    }
    Ok(computed)
}

/// The result of the original's filter: per image, boxes truncated to whole pixels and scores rounded
/// to two decimals. The original stops at the first image without a kept box; later images are not
/// recorded.
#[derive(Deserialize)]
pub(super) struct Recorded {
    original_xyxy_boxes: Vec<Vec<[f64; 4]>>,
    scores: Vec<Vec<f64>>,
}

impl Recorded {
    /// Compares with this crate's filter on the ranked proposals of every image. Boxes may differ by
    /// `pixels`, scores by `score`.
    pub(super) fn differences(
        &self,
        images: &[Vec<Proposal>],
        min_score: f64,
        nms: f64,
        pixels: f64,
        score: f64,
    ) -> Vec<String> {
        let mut differences = Vec::new();
        for (index, ranked) in images.iter().enumerate() {
            let kept = filter(ranked, min_score as f32, nms, usize::MAX).kept;
            let (Some(boxes), Some(scores)) =
                (self.original_xyxy_boxes.get(index), self.scores.get(index))
            else {
                if index == self.original_xyxy_boxes.len() && !kept.is_empty() {
                    differences.push(format!(
                        "image {index}: {} boxes, expected none",
                        kept.len()
                    ));
                }
                continue;
            };
            if boxes.len() != kept.len() {
                let expected = boxes.len();
                differences.push(format!(
                    "image {index}: {} boxes, expected {expected}",
                    kept.len()
                ));
                continue;
            }
            for (position, &proposal) in kept.iter().enumerate() {
                let corners = <[f32; 4]>::from(ranked[proposal].bbox)
                    .map(f64::from)
                    .map(f64::trunc);
                let close = corners
                    .iter()
                    .zip(&boxes[position])
                    .all(|(actual, expected)| (actual - expected).abs() <= pixels);
                let rounded = f64::from((ranked[proposal].score * 100.0).round_ties_even() / 100.0);
                if !close || (rounded - scores[position]).abs() > score {
                    differences.push(format!(
                        "image {index}, box {position}: {corners:?} at {rounded}, expected {:?} at {}",
                        boxes[position], scores[position]
                    ));
                }
            }
        }
        differences
    }
}

/// Ranked proposals per image of `sizes` (height, width) from `boxes` `[B, N, 4]` and `logits`
/// `[B, N, 1]`.
pub(super) fn ranked(sizes: &[[u32; 2]], boxes: &Array, logits: &Array) -> Vec<Vec<Proposal>> {
    let count = boxes.shape[1];
    let boxes = boxes.f32();
    let boxes = boxes.as_chunks::<4>().0;
    let logits = logits.f32();
    sizes
        .iter()
        .enumerate()
        .map(|(index, &[height, width])| {
            let rows = index * count..(index + 1) * count;
            proposals(&boxes[rows.clone()], &logits[rows], width, height)
        })
        .collect()
}

/// Puts ranked proposals under `{at}.sorted_xyxy` `[B, N, 4]` and `{at}.sorted_scores` `[B, N, 1]`.
pub(super) fn put_ranked(computed: &mut Computed, at: &str, images: &[Vec<Proposal>]) {
    let (batch, count) = (images.len(), images.first().map_or(0, Vec::len));
    let all = || images.iter().flatten();
    let corners = all().flat_map(|proposal| <[f32; 4]>::from(proposal.bbox));
    computed.put_array(
        format!("{at}.sorted_xyxy"),
        Array::new(&[batch, count, 4], corners),
    );
    let scores = all().map(|proposal| proposal.score);
    computed.put_array(
        format!("{at}.sorted_scores"),
        Array::new(&[batch, count, 1], scores),
    );
}
