//! The configuration of a whole model folder, as its manifest stores it.

use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::image::prepare::SquareRecipe;
use crate::model::chatrex::ChatRexConfig;
use crate::model::upn::UpnConfig;
use crate::text::prompt::ChatTemplate;
use crate::weights::manifest::Manifest;

/// The `config` of a manifest of the family `chatrex`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Vision towers, projectors and decoder.
    pub chatrex: ChatRexConfig,
    /// The proposal network; without it users draw all boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upn: Option<UpnConfig>,
    /// Image preprocessing of the vision towers.
    pub recipe: SquareRecipe,
    /// The chat template.
    pub template: ChatTemplate,
    /// The token that every prompt begins with, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<String>,
}

impl ModelConfig {
    /// Parses the configuration of a manifest. `place` names the manifest in errors.
    ///
    /// # Errors
    /// The manifest is of another family, or its configuration is invalid.
    pub fn of(manifest: &Manifest, place: &str) -> Result<Self, Fault> {
        if manifest.family != "chatrex" {
            let family = &manifest.family;
            return Err(Fault::model(
                place,
                format!("is of the family {family:?}; the supported family is \"chatrex\""),
            ));
        }
        serde_json::from_value(manifest.config.clone())
            .map_err(|error| Fault::model(place, format!("config: {error}")))
    }
}
