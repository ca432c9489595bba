//! Preprocessing of pictures outside the engine, on other threads.

use super::{Engine, Host};
use crate::image::Pixels;
use crate::image::detector_recipe::DetectorRecipe;
use crate::image::prepare::{Planar, ShortSideRecipe, SquareRecipe};
use crate::model::config::{ModelConfig, ProposerConfig, TowersConfig};

/// The preprocessing of a model, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    proposer: Option<ProposerRecipe>,
    towers: Option<SquareRecipe>,
}

#[derive(Clone, Debug, PartialEq)]
enum ProposerRecipe {
    Upn(ShortSideRecipe),
    Detector(DetectorRecipe),
}

/// A picture as the networks of a model read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// For the proposal network.
    pub(super) proposer: Option<Planar>,
    /// For the towers: high and low resolution.
    pub(super) towers: Option<(Planar, Planar)>,
}

impl Preparation {
    fn of(config: &ModelConfig) -> Self {
        Self {
            proposer: config.proposer.as_ref().map(|proposer| match proposer {
                ProposerConfig::Upn(config) => ProposerRecipe::Upn(config.recipe()),
                ProposerConfig::Detector(config) => ProposerRecipe::Detector(config.recipe()),
            }),
            towers: match &config.towers {
                Some(TowersConfig::ClipConvNext { recipe, .. }) => Some(recipe.clone()),
                _ => None,
            },
        }
    }

    /// Nothing is preprocessed; the engine does it.
    pub fn none() -> Self {
        Self {
            proposer: None,
            towers: None,
        }
    }

    /// Without the images for the towers, for a client that asks no question.
    #[must_use]
    pub fn without_towers(self) -> Self {
        Self {
            towers: None,
            ..self
        }
    }

    /// Preprocesses a picture as the engine does.
    pub fn prepare(&self, pixels: &Pixels) -> Prepared {
        Prepared {
            proposer: self.proposer.as_ref().map(|recipe| match recipe {
                ProposerRecipe::Upn(recipe) => recipe.prepare(pixels),
                ProposerRecipe::Detector(recipe) => recipe.prepare(pixels),
            }),
            towers: self.towers.as_ref().map(|recipe| recipe.prepare(pixels)),
        }
    }
}

impl Prepared {
    /// Bytes of its values.
    pub fn bytes(&self) -> usize {
        let towers = self.towers.iter().flat_map(|(high, low)| [high, low]);
        let images = self.proposer.iter().chain(towers);
        images.map(|image| image.values.len() * 4).sum()
    }

    /// Its images.
    #[cfg(test)]
    pub(crate) fn images_mut(&mut self) -> impl Iterator<Item = &mut Planar> {
        let towers = self.towers.iter_mut().flat_map(|(high, low)| [high, low]);
        self.proposer.iter_mut().chain(towers)
    }
}

impl<H: Host> Engine<H> {
    /// The preprocessing of the loaded model; `None` without a model.
    pub fn preparation(&self) -> Option<Preparation> {
        let model = self.model.as_ref();
        model.map(|model| Preparation::of(&model.config))
    }
}
