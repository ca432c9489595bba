//! Batches for UPN: preprocessed images of similar aspect ratio with normalized boxes as targets.

use burn::tensor::{Device, Tensor, TensorData};

use crate::image::prepare::ShortSideRecipe;
use crate::model::upn::PaddingMask;
use crate::scenes::{Rng, Scene};

/// Scenes per step.
pub const BATCH: usize = 8;
/// Batches per pool; the scenes of a pool are sorted by aspect ratio.
pub const POOL_BATCHES: u64 = 8;

/// Preprocessed images and their boxes.
#[derive(Clone, Debug)]
pub struct UpnBatch {
    /// `[B, 3, H, W]`, zero in the padding.
    pub pixels: Vec<f32>,
    /// The padding mask.
    pub mask: PaddingMask,
    /// Per image: boxes `cx, cy, w, h`, normalized to the unpadded image.
    pub targets: Vec<Vec<[f32; 4]>>,
}

impl UpnBatch {
    /// Preprocesses `scenes` with `recipe` and pads them to a common size.
    pub fn prepare(scenes: &[Scene], recipe: &ShortSideRecipe) -> Self {
        let images = scenes
            .iter()
            .map(|scene| recipe.prepare(&scene.pixels))
            .collect::<Vec<_>>();
        let sizes = images
            .iter()
            .map(|image| [image.height, image.width])
            .collect::<Vec<_>>();
        let mask = PaddingMask::from_sizes(&sizes);
        let mut pixels = vec![0.0; scenes.len() * 3 * mask.height * mask.width];
        let planes = pixels.chunks_mut(mask.height * mask.width);
        let sources = images.iter().flat_map(|image| {
            let plane = image.height * image.width;
            image
                .values
                .chunks(plane)
                .map(move |values| (values, image.width))
        });
        for (plane, (values, width)) in planes.zip(sources) {
            for (row, values) in plane.chunks_mut(mask.width).zip(values.chunks(width)) {
                row[..width].copy_from_slice(values);
            }
        }
        Self {
            pixels,
            mask,
            targets: scenes.iter().map(targets).collect(),
        }
    }

    /// The images, `[B, 3, H, W]`.
    pub fn image(&self, device: &Device) -> Tensor<4> {
        let PaddingMask {
            batch,
            height,
            width,
            ..
        } = self.mask;
        let data = TensorData::new(self.pixels.clone(), [batch, 3, height, width]);
        Tensor::from_data(data, device)
    }
}

/// The boxes of a scene, normalized `cx, cy, w, h`.
fn targets(scene: &Scene) -> Vec<[f32; 4]> {
    let (width, height) = (scene.pixels.width as f32, scene.pixels.height as f32);
    scene
        .objects
        .iter()
        .map(|object| {
            let b = object.bbox;
            [
                (b.x1 + b.x2) / 2.0 / width,
                (b.y1 + b.y2) / 2.0 / height,
                (b.x2 - b.x1) / width,
                (b.y2 - b.y1) / height,
            ]
        })
        .collect()
}

/// The batches `pool * POOL_BATCHES` and following of a run, in random order. Scenes of similar aspect
/// ratio share a batch, which keeps the padding small.
pub fn draw_pool(seed: u64, pool: u64, recipe: &ShortSideRecipe) -> Vec<UpnBatch> {
    let scenes_per_pool = POOL_BATCHES * BATCH as u64;
    let first = Rng::new(seed, 1).below(700_000) as u64 + pool * scenes_per_pool;
    let mut scenes = (0..scenes_per_pool)
        .map(|index| Scene::draw((first + index) % 800_000))
        .collect::<Vec<_>>();
    let shape = |scene: &Scene| scene.pixels.width as f32 / scene.pixels.height as f32;
    scenes.sort_by(|a, b| shape(a).total_cmp(&shape(b)));
    let mut batches = scenes
        .chunks(BATCH)
        .map(|scenes| UpnBatch::prepare(scenes, recipe))
        .collect::<Vec<_>>();
    Rng::new(seed, 2 + pool).shuffle(&mut batches);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upn::UpnConfig;

    #[test]
    fn images_are_padded_with_zeros_on_the_right_and_below() {
        let scenes = [Scene::draw(1), Scene::draw(2)];
        let recipe = UpnConfig::nano().recipe();
        let batch = UpnBatch::prepare(&scenes, &recipe);
        let (height, width) = (batch.mask.height, batch.mask.width);
        for (image, scene) in scenes.iter().enumerate() {
            let alone = recipe.prepare(&scene.pixels);
            for channel in 0..3 {
                for row in 0..height {
                    for column in 0..width {
                        let at = ((image * 3 + channel) * height + row) * width + column;
                        let inside = row < alone.height && column < alone.width;
                        let expected = if inside {
                            alone.values[(channel * alone.height + row) * alone.width + column]
                        } else {
                            0.0
                        };
                        assert_eq!(batch.pixels[at], expected);
                    }
                }
            }
        }
    }
}
