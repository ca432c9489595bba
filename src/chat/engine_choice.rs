//! Which engine a software adapter gets: the GPU path on the imitated graphics card, or the CPU path.
//!
//! Rules. A real GPU is always taken. On a software adapter a small model begins on the CPU. The first
//! picture and answer there are measured; then the GPU path does the same work in a worker of its own, within a
//! limit of time. The faster one is remembered for the adapter and the model. A large model is not
//! measured: it gets the GPU path as before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hardware::is_software_name;
use crate::protocol::{Answer, DevicePreference, LookTime};

/// Models up to this many bytes are measured on both engines.
pub const SMALL: u64 = 100_000_000;

/// The longest trial of the GPU path, in milliseconds.
pub const TRIAL: f64 = 120_000.0;

/// Tokens of an answer in a trial.
pub const TRIAL_TOKENS: u32 = 12;

/// The name under which an engine is remembered for every adapter.
const EVERY: &str = "*";

/// What a browser says of its adapter before the engine starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapter {
    /// Vendor, architecture and description.
    pub name: String,
    /// Whether the browser calls it a fallback.
    pub fallback: bool,
}

impl Adapter {
    /// Whether it imitates a graphics card.
    pub fn is_software(&self) -> bool {
        self.fallback || is_software_name(&self.name)
    }
}

/// How fast an engine did the same work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Finding boxes, in milliseconds.
    pub detector: f64,
    /// A token of the answer after the first, in milliseconds.
    pub token: f64,
    /// From the question to the first word, in milliseconds.
    pub first_word: f64,
}

impl Speed {
    /// The speed of an answer about a new picture.
    pub fn of(look: LookTime, answer: &Answer) -> Self {
        let time = answer.milliseconds;
        let after_first = answer.tokens.saturating_sub(1).max(1);
        Self {
            detector: look.total(),
            token: time.decode / f64::from(after_first),
            first_word: time.first_token,
        }
    }

    /// The time of an answer of usual length about a new picture.
    fn answer(&self) -> f64 {
        const USUAL: f64 = 30.0;
        self.detector + self.first_word + USUAL * self.token
    }
}

/// The engine that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The engine.
    pub device: DevicePreference,
    /// The CPU path, where it was measured.
    #[serde(default)]
    pub cpu: Option<Speed>,
    /// The GPU path, where it was measured and came to its end.
    #[serde(default)]
    pub gpu: Option<Speed>,
}

/// The engines that are remembered, by adapter and model.
pub type Records = BTreeMap<String, Record>;

/// What the page has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// Do the first picture and question again on the GPU path, in another worker.
    Try,
    /// Remember the records.
    Remember,
    /// Load the model again, on the engine that is now chosen.
    Load,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// Nothing to measure.
    #[default]
    Settled,
    /// The CPU path is measured with what the user asks.
    Cpu { look: Option<LookTime> },
    /// The GPU path does the same work.
    Gpu { cpu: Speed },
}

/// The choice of the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineChoice {
    adapter: Option<Adapter>,
    records: Records,
    /// The model, by the name that settings give it.
    model: String,
    state: State,
}

impl EngineChoice {
    /// With what was remembered.
    pub fn new(records: Records) -> Self {
        Self {
            records,
            ..Self::default()
        }
    }

    /// What the browser said of its adapter.
    pub fn know(&mut self, adapter: Option<Adapter>) {
        self.adapter = adapter;
    }

    /// What is remembered.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The record of the current model on this adapter.
    pub fn record(&self) -> Option<&Record> {
        let adapter = self.adapter.as_ref().filter(|a| a.is_software())?;
        let key = key(adapter, &self.model);
        self.records.get(EVERY).or_else(|| self.records.get(&key))
    }

    /// The engine for a model of `bytes`, which is loaded now.
    pub fn load(&mut self, model: &str, bytes: Option<u64>) -> DevicePreference {
        self.model = model.to_owned();
        self.state = State::Settled;
        let is_software = self.adapter.as_ref().is_some_and(Adapter::is_software);
        if !is_software {
            return DevicePreference::Auto;
        }
        if let Some(record) = self.record() {
            // The adapter may be gone since: `Auto` then takes the CPU, where `Wgpu` fails.
            return match record.device {
                DevicePreference::Cpu => DevicePreference::Cpu,
                DevicePreference::Wgpu | DevicePreference::Auto => DevicePreference::Auto,
            };
        }
        match bytes.is_some_and(|bytes| bytes <= SMALL) {
            true => {
                self.state = State::Cpu { look: None };
                DevicePreference::Cpu
            }
            false => DevicePreference::Auto,
        }
    }

    /// The CPU path found boxes.
    pub fn on_found(&mut self, time: LookTime) {
        if let State::Cpu { look } = &mut self.state {
            *look = Some(time);
        }
    }

    /// The CPU path answered.
    pub fn on_answer(&mut self, answer: &Answer) -> Option<Effect> {
        let State::Cpu { look: Some(look) } = self.state else {
            return None;
        };
        // A single token says nothing about the next ones.
        if answer.tokens < 2 {
            return None;
        }
        let cpu = Speed::of(look, answer);
        self.state = State::Gpu { cpu };
        Some(Effect::Try)
    }

    /// The trial ended: with its speed, or without where it failed or took too long.
    pub fn on_trial(&mut self, gpu: Option<Speed>) -> Vec<Effect> {
        let (State::Gpu { cpu }, Some(adapter)) = (self.state, &self.adapter) else {
            return Vec::new();
        };
        self.state = State::Settled;
        let is_faster = gpu.is_some_and(|gpu| gpu.answer() < cpu.answer());
        let device = match is_faster {
            true => DevicePreference::Wgpu,
            false => DevicePreference::Cpu,
        };
        let record = Record {
            device,
            cpu: Some(cpu),
            gpu,
        };
        self.records.insert(key(adapter, &self.model), record);
        match is_faster {
            true => vec![Effect::Remember, Effect::Load],
            false => vec![Effect::Remember],
        }
    }
}

fn key(adapter: &Adapter, model: &str) -> String {
    format!("{} / {model}", adapter.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{AskTime, StopReason};

    fn adapter(name: &str, fallback: bool) -> Option<Adapter> {
        Some(Adapter {
            name: name.into(),
            fallback,
        })
    }

    fn answer(tokens: u32, decode: f64) -> Answer {
        Answer {
            prompt: String::new(),
            text: String::new(),
            spans: Vec::new(),
            tokens,
            prefill_tokens: 9,
            question_tokens: 9,
            gpu_bytes: None,
            stop: StopReason::End,
            milliseconds: AskTime {
                first_token: 100.0,
                decode,
                ..AskTime::default()
            },
        }
    }

    const LOOK: LookTime = LookTime {
        prepare: 10.0,
        upn: 90.0,
    };

    #[test]
    fn only_a_small_model_on_a_software_adapter_begins_on_the_cpu() {
        let swiftshader = || adapter("google swiftshader", false);
        let forced = Records::from([(
            EVERY.to_owned(),
            Record {
                device: DevicePreference::Wgpu,
                cpu: None,
                gpu: None,
            },
        )]);
        let none = Records::default;
        use DevicePreference::{Auto, Cpu};
        for (adapter, records, bytes, expected) in [
            (None, none(), Some(8_000_000), Auto),
            (
                adapter("nvidia ampere", false),
                none(),
                Some(8_000_000),
                Auto,
            ),
            (
                adapter("nvidia ampere", false),
                forced.clone(),
                Some(1),
                Auto,
            ),
            (adapter("", true), none(), Some(8_000_000), Cpu),
            (swiftshader(), none(), Some(8_000_000), Cpu),
            (swiftshader(), none(), Some(4_000_000_000), Auto),
            (swiftshader(), none(), None, Auto),
            (swiftshader(), forced.clone(), Some(8_000_000), Auto),
        ] {
            let mut choice = EngineChoice::new(records);
            choice.know(adapter.clone());
            assert_eq!(
                choice.load("nano", bytes),
                expected,
                "{adapter:?} {bytes:?}"
            );
        }
    }

    #[test]
    fn the_faster_engine_is_remembered() {
        let speed = |token| {
            Some(Speed {
                detector: 100.0,
                token,
                first_word: 100.0,
            })
        };
        use DevicePreference::{Cpu, Wgpu};
        for (gpu, device, effects) in [
            (None, Cpu, vec![Effect::Remember]),
            (speed(50.0), Cpu, vec![Effect::Remember]),
            (speed(5.0), Wgpu, vec![Effect::Remember, Effect::Load]),
        ] {
            let mut choice = EngineChoice::default();
            choice.know(adapter("swiftshader", true));
            assert_eq!(choice.load("nano", Some(1)), Cpu);
            assert_eq!(choice.on_answer(&answer(11, 100.0)), None, "no look yet");
            choice.on_found(LOOK);
            assert_eq!(choice.on_answer(&answer(1, 0.0)), None, "one token");
            assert_eq!(choice.on_answer(&answer(11, 100.0)), Some(Effect::Try));
            assert_eq!(choice.on_answer(&answer(11, 100.0)), None, "once");
            assert_eq!(choice.on_trial(gpu), effects, "{gpu:?}");
            assert_eq!(choice.on_trial(gpu), [], "once");
            let record = *choice.record().expect("remembered");
            assert_eq!((record.device, record.gpu), (device, gpu));
            assert_eq!(record.cpu.map(|cpu| cpu.token), Some(10.0));
            let json = serde_json::to_string(choice.records()).expect("plain data");
            let mut next = EngineChoice::new(serde_json::from_str(&json).expect("its own JSON"));
            next.know(adapter("swiftshader", true));
            let expected = if device == Cpu {
                Cpu
            } else {
                DevicePreference::Auto
            };
            assert_eq!(next.load("nano", Some(1)), expected);
            assert_eq!(
                next.on_answer(&answer(11, 100.0)),
                None,
                "nothing is measured"
            );
            assert_eq!(next.load("other", Some(1)), Cpu, "another model");
        }
    }

    #[test]
    fn another_model_ends_a_measurement() {
        let mut choice = EngineChoice::default();
        choice.know(adapter("llvmpipe", false));
        choice.load("nano", Some(1));
        choice.on_found(LOOK);
        assert_eq!(choice.on_answer(&answer(3, 9.0)), Some(Effect::Try));
        choice.load("mini", Some(1));
        assert_eq!(choice.on_trial(None), []);
        assert!(choice.records().is_empty());
    }
}
