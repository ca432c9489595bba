//! What the trained proposal network finds on training scenes, so that the decoder learns on the
//! boxes it will see. Made once per run and kept beside its state.

use std::io::ErrorKind;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, FaultKind};
use crate::geometry::{Proposal, filter};
use crate::model::upn::{Upn, UpnConfig};
use crate::nn::Loader;
use crate::protocol::Granularity;
use crate::scenes::{Rng, Scene};
use crate::train::checkpoint::{Start, Weights, replace};
use crate::train::regions::{Candidate, NMS_IOU, label};
use crate::train::upn::detect;
use crate::train::weights_in;

const FILE: &str = "detections.json";
/// Proposals below this score are not kept.
const LEAST_SCORE: f32 = 0.08;
/// Scenes looked at together.
const PORTION: usize = 64;

/// A scene's seed and what was found on it, best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// The seed of [`Scene::draw`].
    pub seed: u64,
    /// Proposals in pixels of the scene.
    pub proposals: Vec<Proposal>,
}

/// Sightings of some scenes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    sightings: Vec<Sighting>,
}

impl Detections {
    /// The detections that `out` holds, or else those of the network in `upn` on the scenes
    /// `seeds`, which are then written to `out`.
    ///
    /// # Errors
    /// Files that cannot be read or written, weights of another shape.
    pub fn kept_or_made(
        out: &Path,
        upn: &Path,
        seeds: impl Iterator<Item = u64>,
    ) -> Result<Self, Fault> {
        let path = out.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let advice = "Delete it; it is made again from --upn";
                Fault::new(
                    FaultKind::File,
                    path.display().to_string(),
                    error.to_string(),
                    advice,
                )
            }),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::file(&path, error)),
            Err(_) => {
                let made = Self::make(upn, seeds)?;
                let text = serde_json::to_vec(&made).expect("numbers and lists are JSON");
                replace(&path, &text)?;
                Ok(made)
            }
        }
    }

    fn make(upn: &Path, seeds: impl Iterator<Item = u64>) -> Result<Self, Fault> {
        let start = Start::new(Weights::read(&weights_in(upn, "upn.safetensors"))?, 0);
        let network = Upn::load(&Loader::new(&start, &Device::flex()), &UpnConfig::nano())?;
        let seeds = seeds.collect::<Vec<_>>();
        let bar = indicatif::ProgressBar::new(seeds.len() as u64);
        bar.set_message("looking at training scenes");
        let mut sightings = Vec::with_capacity(seeds.len());
        for portion in seeds.chunks(PORTION) {
            let found = portion
                .par_iter()
                .map(|&seed| sight(&network.clone().no_grad(), seed))
                .collect::<Result<Vec<_>, Fault>>()?;
            sightings.extend(found);
            bar.inc(portion.len() as u64);
        }
        bar.finish_and_clear();
        Ok(Self { sightings })
    }

    /// Scenes looked at.
    pub fn len(&self) -> usize {
        self.sightings.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.sightings.is_empty()
    }

    /// The seed of scene `index`.
    pub fn seed(&self, index: usize) -> u64 {
        self.sightings[index].seed
    }

    /// Candidates of scene `index`, which is `scene`, in random order: what passes a filter of
    /// least score `score`, at most `limit`.
    pub fn candidates(
        &self,
        index: usize,
        scene: &Scene,
        score: f32,
        limit: usize,
        rng: &mut Rng,
    ) -> Vec<Candidate> {
        let proposals = &self.sightings[index].proposals;
        let passing = filter(proposals, score, f64::from(NMS_IOU), limit).kept;
        let mut boxes = passing
            .into_iter()
            .map(|i| proposals[i].bbox)
            .collect::<Vec<_>>();
        rng.shuffle(&mut boxes);
        let truth = scene.objects.iter().map(|o| o.bbox).collect::<Vec<_>>();
        label(&boxes, &truth)
    }
}

fn sight(upn: &Upn, seed: u64) -> Result<Sighting, Fault> {
    let mut proposals = detect(upn, &Scene::draw(seed), Granularity::Coarse)?;
    proposals.retain(|p| p.score >= LEAST_SCORE);
    Ok(Sighting { seed, proposals })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_those_that_pass_and_know_their_objects() {
        let scene = Scene::draw(17);
        let mut proposals = scene
            .objects
            .iter()
            .map(|o| Proposal {
                bbox: o.bbox,
                score: 0.5,
            })
            .collect::<Vec<_>>();
        proposals[0].score = 0.1;
        let detections = Detections {
            sightings: vec![Sighting {
                seed: 17,
                proposals,
            }],
        };
        let mut rng = Rng::new(1, 1);
        let found = detections.candidates(0, &scene, 0.3, 24, &mut rng);
        let mut objects = found.iter().map(|c| c.object).collect::<Vec<_>>();
        objects.sort();
        let expected = (1..scene.objects.len()).map(Some).collect::<Vec<_>>();
        assert_eq!(objects, expected);
        let few = detections.candidates(0, &scene, 0.3, 2, &mut rng);
        assert_eq!(few.len(), 2.min(scene.objects.len() - 1));
    }

    #[test]
    fn what_was_kept_is_read_and_damage_is_named() {
        let root = std::env::temp_dir().join(format!("chatrex-sightings-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let kept = Detections {
            sightings: vec![Sighting {
                seed: 3,
                proposals: Vec::new(),
            }],
        };
        std::fs::write(root.join(FILE), serde_json::to_vec(&kept).unwrap()).unwrap();
        let nowhere = Path::new("nowhere");
        let read = Detections::kept_or_made(&root, nowhere, std::iter::empty());
        assert_eq!(read.unwrap(), kept);
        std::fs::write(root.join(FILE), "{").unwrap();
        let read = Detections::kept_or_made(&root, nowhere, std::iter::empty());
        assert!(read.unwrap_err().to_string().contains(FILE));
        std::fs::remove_dir_all(root).unwrap();
    }
}
