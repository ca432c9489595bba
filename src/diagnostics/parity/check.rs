//! `tolerances.json`, which says what counts and how closely it must agree, and the comparison itself.
//!
//! Per fixture, globs over the keys of `io.safetensors` give the largest absolute error; 0 means equal.
//! Where several globs match a key, the one with the most literal characters is used. `json` stands for
//! the recorded JSON results; keys that start with `_` are notes.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::fixture::{Array, Computed, Fixture, Recordings, read_json};
use super::glob::glob;
use crate::error::Fault;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// The key of `io.safetensors`, or `json`.
    pub key: String,
    /// The largest absolute difference, for `json` the number of differences; null if it cannot be
    /// measured (not computed, another shape, NaN).
    pub error: Option<f64>,
    /// The largest error that passes.
    pub tolerance: f64,
    /// Whether the error is within the tolerance.
    pub pass: bool,
    /// Why it failed, if the numbers do not tell.
    #[serde(skip)]
    pub note: String,
}

impl Check {
    /// A check that failed without an error value.
    pub fn failed(key: &str, tolerance: f64, note: &str) -> Self {
        Self {
            key: key.to_string(),
            error: None,
            tolerance,
            pass: false,
            note: note.to_string(),
        }
    }
}

/// The content of `tolerances.json`.
pub struct Tolerances {
    fixtures: BTreeMap<String, CountedKeys>,
}

#[derive(Default)]
struct CountedKeys {
    globs: Vec<(String, f64)>,
    json: bool,
}

impl Tolerances {
    /// Reads `tolerances.json`.
    ///
    /// # Errors
    /// The file cannot be read, or an entry is neither a note, nor `json`, nor a number.
    pub fn read(files: &dyn Recordings, path: &Path) -> Result<Self, Fault> {
        Self::parse(&read_json(files, path)?).map_err(|what| Fault::file(path, what))
    }

    fn parse(content: &Value) -> Result<Self, String> {
        let content = content.as_object().ok_or("expected an object")?;
        let mut fixtures = BTreeMap::new();
        for (name, entries) in content.iter().filter(|(name, _)| !name.starts_with('_')) {
            let entries = entries
                .as_object()
                .ok_or_else(|| format!("`{name}`: expected an object"))?;
            let mut counted = CountedKeys::default();
            for (key, value) in entries.iter().filter(|(key, _)| !key.starts_with('_')) {
                if key == "json" {
                    counted.json = true;
                } else {
                    let tolerance = value
                        .as_f64()
                        .ok_or_else(|| format!("`{name}`, `{key}`: expected a number"))?;
                    counted.globs.push((key.clone(), tolerance));
                }
            }
            fixtures.insert(name.clone(), counted);
        }
        Ok(Self { fixtures })
    }

    /// The tolerance of `key`, if it counts.
    fn tolerance(&self, fixture: &str, key: &str) -> Option<f64> {
        self.fixtures
            .get(fixture)?
            .globs
            .iter()
            .filter(|(pattern, _)| glob(pattern, key))
            .max_by_key(|(pattern, _)| pattern.bytes().filter(|&byte| byte != b'*').count())
            .map(|&(_, tolerance)| tolerance)
    }

    /// One check per counted key of the fixture, then one for its JSON results if they count.
    /// `computed` is the implementation's result or its error.
    pub(super) fn checks(
        &self,
        name: &str,
        fixture: &Fixture,
        computed: Result<&Computed, &str>,
    ) -> Vec<Check> {
        let mut checks: Vec<Check> = fixture
            .keys()
            .filter_map(|key| Some((key, self.tolerance(name, key)?)))
            .map(|(key, tolerance)| match (computed, fixture.array(key)) {
                (Err(reason), _) => Check::failed(key, tolerance, reason),
                (Ok(computed), Ok(expected)) => match computed.arrays.get(key) {
                    Some(actual) => compare(key, tolerance, actual, expected),
                    None => Check::failed(key, tolerance, "not computed"),
                },
                (Ok(_), Err(fault)) => Check::failed(key, tolerance, &fault.to_string()),
            })
            .collect();
        if self.fixtures.get(name).is_some_and(|counted| counted.json) {
            checks.push(match computed.map(|computed| &computed.json) {
                Err(reason) => Check::failed("json", 0.0, reason),
                Ok(None) => Check::failed("json", 0.0, "not computed"),
                Ok(Some(differences)) => Check {
                    key: "json".to_string(),
                    error: Some(differences.len() as f64),
                    tolerance: 0.0,
                    pass: differences.is_empty(),
                    note: differences.join("; "),
                },
            });
        }
        checks
    }
}

fn compare(key: &str, tolerance: f64, actual: &Array, expected: &Array) -> Check {
    if actual.shape != expected.shape {
        let note = format!("shape {:?}, expected {:?}", actual.shape, expected.shape);
        return Check::failed(key, tolerance, &note);
    }
    let mut error = 0.0;
    let mut worst_index = 0;
    for (index, (&a, &e)) in actual.values.iter().zip(&expected.values).enumerate() {
        if a == e {
            continue;
        }
        let difference = (a - e).abs();
        if !difference.is_finite() {
            let note = format!("{a} at {index}, expected {e}");
            return Check::failed(key, tolerance, &note);
        }
        if difference > error {
            (error, worst_index) = (difference, index);
        }
    }
    let pass = error <= tolerance;
    Check {
        key: key.to_string(),
        error: Some(error),
        tolerance,
        pass,
        note: if pass {
            String::new()
        } else {
            let (a, e) = (actual.values[worst_index], expected.values[worst_index]);
            format!("{a} at {worst_index}, expected {e}")
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_literal_glob_is_used_and_notes_are_ignored() {
        let content = serde_json::json!({
            "_read_me": "x",
            "box": {"*.out": 1e-4, "exact.out": 0, "_note": "y", "json": ["z"]},
        });
        let tolerances = Tolerances::parse(&content).expect("well formed");
        assert_eq!(tolerances.tolerance("box", "exact.out"), Some(0.0));
        assert_eq!(tolerances.tolerance("box", "tiny.out"), Some(1e-4));
        assert_eq!(tolerances.tolerance("box", "_note"), None);
        assert_eq!(tolerances.tolerance("other", "tiny.out"), None);
        assert!(tolerances.fixtures["box"].json);
    }

    fn passes(actual: &[f64], expected: &[f64]) -> bool {
        let array = |values: &[f64]| Array::new(&[values.len()], values.iter().copied());
        compare("k", 0.5, &array(actual), &array(expected)).pass
    }

    #[test]
    fn comparison_handles_shapes_infinities_and_nan() {
        const INF: f64 = f64::INFINITY;
        assert!(passes(&[1.0, INF, -INF], &[1.5, INF, -INF]));
        assert!(!passes(&[1.0], &[1.6]));
        assert!(!passes(&[INF], &[-INF]));
        assert!(!passes(&[INF], &[1e300]));
        assert!(!passes(&[f64::NAN], &[0.0]));
        assert!(!passes(&[f64::NAN], &[f64::NAN]));
        assert!(!passes(&[0.0], &[f64::NAN]));
        assert!(!passes(&[0.0, 0.0], &[0.0]));
    }
}
