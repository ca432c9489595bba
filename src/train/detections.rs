//! Proposals of a trained UPN on training scenes, so that the decoder is trained on the boxes it gets
//! in use. Computed once per run and cached in its output folder.

use std::io::ErrorKind;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::geometry::{Proposal, filter};
use crate::model::upn::{Upn, UpnConfig};
use crate::nn::Loader;
use crate::protocol::Granularity;
use crate::scenes::{Rng, Scene};
use crate::train::checkpoint::{Initializer, Weights, write_atomically};
use crate::train::regions::{LabeledBox, NMS_IOU, assign_objects};
use crate::train::upn::detect;
use crate::train::weights_in;

const FILE_NAME: &str = "detections.json";
/// Score threshold of cached proposals.
const MIN_SCORE: f32 = 0.08;
/// Scenes per parallel chunk.
const CHUNK: usize = 64;

/// Proposals on one scene, best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SceneDetections {
    /// The seed of [`Scene::draw`].
    pub seed: u64,
    /// Proposals in pixels of the scene.
    pub proposals: Vec<Proposal>,
}

/// Proposals on a list of scenes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    #[serde(rename = "sightings")]
    scenes: Vec<SceneDetections>,
}

impl Detections {
    /// Reads the cached detections in `out`. Without a cache, runs the network in `upn` on the scenes
    /// `seeds` and writes the cache.
    ///
    /// # Errors
    /// A file cannot be read or written, or weights have other shapes.
    pub fn load_or_compute(
        out: &Path,
        upn: &Path,
        seeds: impl Iterator<Item = u64>,
    ) -> Result<Self, Fault> {
        let path = out.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let advice = "Delete it; it is computed again with --upn";
                Fault::new(
                    FaultKind::File,
                    path.display().to_string(),
                    error.to_string(),
                    advice,
                )
                .code(ErrorCode::Corrupt)
            }),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::file(&path, error)),
            Err(_) => {
                let computed = Self::compute(upn, seeds)?;
                let text = serde_json::to_vec(&computed).expect("plain data serializes");
                write_atomically(&path, &text)?;
                Ok(computed)
            }
        }
    }

    fn compute(upn: &Path, seeds: impl Iterator<Item = u64>) -> Result<Self, Fault> {
        let initializer = Initializer::new(Weights::read(&weights_in(upn, "upn.safetensors"))?, 0);
        let network = Upn::load(
            &Loader::new(&initializer, &Device::flex()),
            &UpnConfig::nano(),
        )?;
        let seeds = seeds.collect::<Vec<_>>();
        let bar = indicatif::ProgressBar::new(seeds.len() as u64);
        bar.set_message("detecting boxes on training scenes");
        let mut scenes = Vec::with_capacity(seeds.len());
        for chunk in seeds.chunks(CHUNK) {
            let found = chunk
                .par_iter()
                .map(|&seed| detect_scene(&network.clone().no_grad(), seed))
                .collect::<Result<Vec<_>, Fault>>()?;
            scenes.extend(found);
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok(Self { scenes })
    }

    /// Number of scenes.
    pub fn len(&self) -> usize {
        self.scenes.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.scenes.is_empty()
    }

    /// The seed of scene `index`.
    pub fn seed(&self, index: usize) -> u64 {
        self.scenes[index].seed
    }

    /// Labeled boxes of scene `index`, which is `scene`, in random order: proposals with at least
    /// `score` after NMS, at most `limit`.
    pub fn labeled_boxes(
        &self,
        index: usize,
        scene: &Scene,
        score: f32,
        limit: usize,
        rng: &mut Rng,
    ) -> Vec<LabeledBox> {
        let proposals = &self.scenes[index].proposals;
        let kept = filter(proposals, score, f64::from(NMS_IOU), limit).kept;
        let mut boxes = kept
            .into_iter()
            .map(|i| proposals[i].bbox)
            .collect::<Vec<_>>();
        rng.shuffle(&mut boxes);
        let ground_truth = scene.objects.iter().map(|o| o.bbox).collect::<Vec<_>>();
        assign_objects(&boxes, &ground_truth)
    }
}

fn detect_scene(upn: &Upn, seed: u64) -> Result<SceneDetections, Fault> {
    let mut proposals = detect(upn, &Scene::draw(seed), Granularity::Coarse)?;
    proposals.retain(|p| p.score >= MIN_SCORE);
    Ok(SceneDetections { seed, proposals })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_pass_the_threshold_and_are_labeled() {
        let scene = Scene::draw(17);
        let mut proposals = scene
            .objects
            .iter()
            .map(|o| Proposal::unlabelled(o.bbox, 0.5))
            .collect::<Vec<_>>();
        proposals[0].score = 0.1;
        let detections = Detections {
            scenes: vec![SceneDetections {
                seed: 17,
                proposals,
            }],
        };
        let mut rng = Rng::new(1, 1);
        let found = detections.labeled_boxes(0, &scene, 0.3, 24, &mut rng);
        let mut objects = found.iter().map(|c| c.object).collect::<Vec<_>>();
        objects.sort();
        let expected = (1..scene.objects.len()).map(Some).collect::<Vec<_>>();
        assert_eq!(objects, expected);
        let few = detections.labeled_boxes(0, &scene, 0.3, 2, &mut rng);
        assert_eq!(few.len(), 2.min(scene.objects.len() - 1));
    }

    #[test]
    fn a_cache_is_read_and_a_damaged_one_is_reported() {
        let root = std::env::temp_dir().join(format!("chatrex-detections-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let cached = Detections {
            scenes: vec![SceneDetections {
                seed: 3,
                proposals: Vec::new(),
            }],
        };
        std::fs::write(root.join(FILE_NAME), serde_json::to_vec(&cached).unwrap()).unwrap();
        let nowhere = Path::new("nowhere");
        let read = Detections::load_or_compute(&root, nowhere, std::iter::empty());
        assert_eq!(read.unwrap(), cached);
        std::fs::write(root.join(FILE_NAME), "{").unwrap();
        let read = Detections::load_or_compute(&root, nowhere, std::iter::empty());
        assert!(read.unwrap_err().to_string().contains(FILE_NAME));
        std::fs::remove_dir_all(root).unwrap();
    }
}
