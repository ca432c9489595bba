//! Making a model of a published checkpoint: the files are opened in a worker of their own, the user reads
//! what they become, and that worker converts them.
//!
//! Rules. Nothing is written before the licence is accepted. To cancel, the worker is ended; a folder that
//! is not complete is deleted. A failure says what is wrong and keeps nothing.

use crate::error::Fault;
use crate::memory::MemoryNeeds;
use crate::protocol::store::{Convertible, ModelId, Quantization, StoreEvent, StoreRequest};

/// The endings of files that a checkpoint consists of.
const ENDINGS: [&str; 3] = [".safetensors", ".pth", ".gguf"];

/// The manifest of a model folder.
const MANIFEST: &str = "model.json";

/// Whether files are a published checkpoint, and not a model folder.
pub fn is_checkpoint<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let mut has_weights = false;
    for name in names {
        if name == MANIFEST {
            return false;
        }
        has_weights |= ENDINGS.iter().any(|ending| name.ends_with(ending));
    }
    has_weights
}

/// The name of the model that a checkpoint becomes: that of its folder, else of its first weights.
pub fn name_of(folder: Option<&str>, names: &[String]) -> String {
    let is_weights = |name: &&String| ENDINGS.iter().any(|ending| name.ends_with(ending));
    let first = names.iter().find(is_weights).map(String::as_str);
    let stem = |name: &str| {
        name.rsplit_once('.')
            .map_or(name, |(stem, _)| stem)
            .to_owned()
    };
    match folder.map(str::trim).filter(|folder| !folder.is_empty()) {
        Some(folder) => folder.to_owned(),
        None => first.map_or_else(|| "model".to_owned(), stem),
    }
}

/// An action of the user, or an event of the worker.
#[derive(Clone, Debug)]
pub enum Input {
    /// Files were chosen; they are attached to the request.
    Choose {
        /// Name of the model.
        name: String,
        /// Its files are those of an earlier choice with another quantization.
        quantization: Quantization,
    },
    /// The licence is accepted, or no longer.
    Accept(bool),
    /// Convert.
    Begin,
    /// End it, whatever runs.
    Cancel,
    /// The worker sent an event.
    Event(Box<StoreEvent>),
    /// The worker is gone.
    Lost(Fault),
}

/// What the page has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a worker in place of any other.
    Start,
    /// Send it a request, with the files.
    Send(StoreRequest),
    /// End it; what it wrote is deleted with the next list of the models.
    End,
    /// Ask the browser for persistent storage.
    Persist,
    /// Decide whether the model would run here.
    Judge(String, MemoryNeeds),
    /// A model was made.
    Made(ModelId),
}

/// The state.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Making {
    /// Nothing was chosen.
    #[default]
    None,
    /// The files are being opened.
    Opening {
        /// Name of the model.
        name: String,
        /// How its weights are to be stored.
        quantization: Quantization,
    },
    /// They can be converted.
    Ready {
        /// What they become.
        convertible: Box<Convertible>,
        /// How the weights are to be stored.
        quantization: Quantization,
        /// Whether the licence is accepted.
        accepted: bool,
    },
    /// They are being converted.
    Running {
        /// Name of the model.
        name: String,
        /// Bytes written.
        done: u64,
        /// Bytes to write; 0 where unknown.
        total: u64,
    },
    /// They cannot be converted.
    Failed(Fault),
}

impl Making {
    /// Applies one input; returns the effects in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Choose { name, quantization } => {
                *self = Self::Opening {
                    name: name.clone(),
                    quantization,
                };
                let inspect = StoreRequest::Inspect { name, quantization };
                vec![Effect::Start, Effect::Send(inspect)]
            }
            Input::Accept(yes) => {
                if let Self::Ready { accepted, .. } = self {
                    *accepted = yes;
                }
                Vec::new()
            }
            Input::Begin => match self {
                Self::Ready {
                    convertible,
                    accepted: true,
                    ..
                } => {
                    let name = convertible.facts.name.clone();
                    let (done, total) = (0, 0);
                    *self = Self::Running { name, done, total };
                    vec![Effect::Persist, Effect::Send(StoreRequest::Convert)]
                }
                _ => Vec::new(),
            },
            Input::Cancel => match std::mem::take(self) {
                Self::None => Vec::new(),
                _ => vec![Effect::End],
            },
            Input::Event(event) => self.on_event(*event),
            Input::Lost(fault) => match self {
                Self::None | Self::Failed(_) => Vec::new(),
                _ => self.fail(fault),
            },
        }
    }

    fn fail(&mut self, fault: Fault) -> Vec<Effect> {
        *self = Self::Failed(fault);
        vec![Effect::End]
    }

    fn on_event(&mut self, event: StoreEvent) -> Vec<Effect> {
        match (event, &mut *self) {
            (StoreEvent::Convertible(convertible), Self::Opening { quantization, .. }) => {
                let judge = Effect::Judge(convertible.facts.name.clone(), convertible.needs);
                *self = Self::Ready {
                    convertible,
                    quantization: *quantization,
                    accepted: false,
                };
                vec![judge]
            }
            (StoreEvent::Converting { done, total }, Self::Running { name, .. }) => {
                let name = name.clone();
                *self = Self::Running { name, done, total };
                Vec::new()
            }
            (StoreEvent::Converted { model }, Self::Running { .. }) => {
                *self = Self::None;
                vec![Effect::End, Effect::Made(model)]
            }
            (
                StoreEvent::ConversionFailed { fault },
                Self::Opening { .. } | Self::Running { .. },
            ) => self.fail(fault),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;
    use crate::protocol::store::Facts;

    fn convertible() -> StoreEvent {
        StoreEvent::Convertible(Box::new(Convertible {
            facts: Facts {
                name: "big".into(),
                precision: "q4".into(),
                trained_on: String::new(),
                licence: "some".into(),
                licence_text: "text".into(),
                bytes: 100,
            },
            needs: MemoryNeeds::default(),
            warnings: Vec::new(),
        }))
    }

    fn event(event: StoreEvent) -> Input {
        Input::Event(Box::new(event))
    }

    fn choose() -> Input {
        Input::Choose {
            name: "big".into(),
            quantization: Quantization::Q8,
        }
    }

    fn fault() -> Fault {
        Fault::new(FaultKind::Model, "x.safetensors", "is cut", "")
    }

    fn running() -> Making {
        let mut making = Making::default();
        for input in [
            choose(),
            event(convertible()),
            Input::Accept(true),
            Input::Begin,
        ] {
            making.step(input);
        }
        assert!(matches!(making, Making::Running { .. }), "{making:?}");
        making
    }

    #[test]
    fn nothing_is_converted_before_the_licence_is_accepted() {
        let mut making = Making::default();
        let effects = making.step(choose());
        let inspect = StoreRequest::Inspect {
            name: "big".into(),
            quantization: Quantization::Q8,
        };
        assert_eq!(effects, [Effect::Start, Effect::Send(inspect)]);
        assert_eq!(making.step(Input::Begin), [], "not opened");
        let judge = Effect::Judge("big".into(), MemoryNeeds::default());
        assert_eq!(making.step(event(convertible())), [judge]);
        assert_eq!(making.step(Input::Begin), [], "not accepted");
        making.step(Input::Accept(true));
        let convert = Effect::Send(StoreRequest::Convert);
        assert_eq!(making.step(Input::Begin), [Effect::Persist, convert]);
        assert_eq!(making.step(Input::Begin), [], "once");
    }

    #[test]
    fn a_conversion_ends_with_a_model() {
        let mut making = running();
        let progress = StoreEvent::Converting { done: 5, total: 10 };
        assert_eq!(making.step(event(progress)), []);
        assert!(matches!(
            making,
            Making::Running {
                done: 5,
                total: 10,
                ..
            }
        ));
        let model = ModelId("0011223344556677".into());
        let converted = StoreEvent::Converted {
            model: model.clone(),
        };
        let effects = making.step(event(converted));
        assert_eq!(effects, [Effect::End, Effect::Made(model)]);
        assert_eq!(making, Making::None);
    }

    #[test]
    fn a_cancel_and_a_failure_end_the_worker() {
        let failed = || event(StoreEvent::ConversionFailed { fault: fault() });
        for (input, expected) in [
            (Input::Cancel, Making::None),
            (failed(), Making::Failed(fault())),
            (Input::Lost(fault()), Making::Failed(fault())),
        ] {
            let mut making = running();
            assert_eq!(making.step(input.clone()), [Effect::End], "{input:?}");
            assert_eq!(making, expected);
            // What still comes of that worker changes nothing.
            assert_eq!(making.step(event(convertible())), []);
            assert_eq!(making.step(failed()), []);
            assert_eq!(making, expected);
        }
        assert_eq!(Making::default().step(Input::Cancel), []);
    }

    #[test]
    fn files_are_a_checkpoint_or_a_model() {
        for (names, expected) in [
            (
                &["config.json", "model-00001-of-00002.safetensors"][..],
                true,
            ),
            (&["upn_large.pth"], true),
            (&["model.gguf"], true),
            (&["model.json", "decoder.safetensors"], false),
            (&["photo.jpg", "config.json"], false),
            (&[], false),
        ] {
            assert_eq!(is_checkpoint(names.iter().copied()), expected, "{names:?}");
        }
        let names = ["config.json".to_owned(), "small.q8.gguf".to_owned()];
        assert_eq!(name_of(Some("ChatRex-7B"), &names), "ChatRex-7B");
        assert_eq!(name_of(Some(" "), &names), "small.q8");
        assert_eq!(name_of(None, &[]), "model");
    }
}
