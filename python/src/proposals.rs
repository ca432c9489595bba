//! The proposals of a picture, from which users choose with their own thresholds.

use chatrex::geometry::{Granularity, Selection};
use chatrex::protocol::{LookTime, ModelCard};
use chatrex::{Fault, Proposal};
use pyo3::prelude::*;

use crate::fault::{invalid, or_raise};

/// All proposals of a picture.
#[pyclass(frozen)]
pub struct Proposals {
    /// The number of the picture.
    #[pyo3(get)]
    picture: u32,
    all: Vec<Proposal>,
    defaults: Selection,
    time: LookTime,
}

/// The thresholds of a choice, where the user gave any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thresholds {
    score: Option<f32>,
    nms: Option<f64>,
}

impl Thresholds {
    /// Checks numbers of the user.
    ///
    /// # Errors
    /// One is not finite.
    pub fn checked(score: Option<f32>, nms: Option<f64>) -> Result<Self, Fault> {
        let finite = |name, value: Option<f64>| match value {
            Some(value) if !value.is_finite() => Err(invalid(
                name,
                format!("is {value}, expected a finite number"),
                "",
            )),
            _ => Ok(()),
        };
        finite("score", score.map(f64::from))?;
        finite("nms", nms)?;
        Ok(Self { score, nms })
    }

    /// At most `limit` of `all`, best first. A score of the user applies to all labels, as with `--score`.
    pub fn choose(self, all: &[Proposal], defaults: Selection, limit: usize) -> Vec<Proposal> {
        let kept = defaults.with(self.score, self.nms).choose(all, limit).kept;
        kept.into_iter().map(|index| all[index].clone()).collect()
    }
}

impl Proposals {
    /// Those of picture `picture`, with the defaults of the model.
    pub fn new(picture: u32, all: Vec<Proposal>, time: LookTime, card: &ModelCard) -> Self {
        Self {
            picture,
            all,
            defaults: card.selection(),
            time,
        }
    }
}

#[pymethods]
impl Proposals {
    /// Every proposal, best first, as a JSON list.
    fn all(&self) -> String {
        json(&self.all)
    }

    /// Those that pass the thresholds, best first, at most `limit`, as a JSON list.
    #[pyo3(signature = (score=None, nms=None, limit=None))]
    fn choose(
        &self,
        py: Python<'_>,
        score: Option<f32>,
        nms: Option<f64>,
        limit: Option<usize>,
    ) -> PyResult<String> {
        let thresholds = or_raise(py, Thresholds::checked(score, nms))?;
        let limit = limit.unwrap_or(usize::MAX);
        Ok(json(&thresholds.choose(&self.all, self.defaults, limit)))
    }

    /// Durations in milliseconds, as a JSON object.
    fn milliseconds(&self) -> String {
        json(&self.time)
    }
}

/// The JSON of plain data.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// A granularity by its name.
///
/// # Errors
/// There is none of this name.
pub fn granularity(name: &str) -> Result<Granularity, Fault> {
    match name {
        "coarse" => Ok(Granularity::Coarse),
        "fine" => Ok(Granularity::Fine),
        _ => Err(invalid(
            "granularity",
            format!("is {name:?}"),
            "Use \"coarse\" for whole objects or \"fine\" for parts too",
        )),
    }
}
