//! An engine in another program, asked over standard output and answering on standard input.
//!
//! A line of standard output is the JSON array `[request, beside]`: a [`Request`](crate::protocol::Request) and, with a picture,
//! its bytes in hexadecimal, else an empty string. A line of standard input is an [`Event`]. The other
//! side has loaded a model and says so first ([`Event::Ready`]).

use std::io::{BufRead, StdinLock};

use crate::error::{Fault, FaultKind};
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Proposal};
use crate::image::Pixels;
use crate::protocol::{Answer, Event, Granularity, ModelCard};
use crate::session::Requests;

/// The other program's engine.
pub(super) struct Elsewhere {
    answers: StdinLock<'static>,
    card: ModelCard,
    requests: Requests,
}

impl Elsewhere {
    /// Waits for the other side's model.
    ///
    /// # Errors
    /// There is no other side, or it cannot load one.
    pub(super) fn open() -> Result<Self, Fault> {
        let mut answers = std::io::stdin().lock();
        let card = next(&mut answers, |event| match event {
            Event::Ready(card) => Some(card),
            _ => None,
        })?;
        Ok(Self {
            answers,
            card,
            requests: Requests::default(),
        })
    }

    /// The other side's model.
    pub(super) fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Opens a picture and finds its boxes: all of them, best first.
    ///
    /// # Errors
    /// The other side's, or it is gone.
    pub(super) fn look(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
        let beside = pixels.rgb.iter().map(|byte| format!("{byte:02x}"));
        let beside = beside.collect::<String>();
        let pixels = Pixels {
            rgb: Vec::new(),
            ..*pixels
        };
        let request = self.requests.look(pixels, Granularity::Coarse);
        println!("{}", super::json(&(request, beside)));
        next(&mut self.answers, |event| match event {
            Event::Proposed { boxes, .. } => Some(boxes),
            _ => None,
        })
    }

    /// Asks about the picture opened last.
    ///
    /// # Errors
    /// The other side's, or it is gone.
    pub(super) fn ask(
        &mut self,
        boxes: &[BoxXyxy],
        question: &str,
        max_tokens: u32,
        sampling: Sampling,
    ) -> Result<Answer, Fault> {
        let request = self.requests.ask(boxes, question, max_tokens, sampling);
        println!("{}", super::json(&(request, "")));
        next(&mut self.answers, |event| match event {
            Event::Done { answer, .. } => Some(answer),
            _ => None,
        })
    }
}

/// The next event that is `wanted`; others are passed over.
fn next<T>(answers: &mut impl BufRead, wanted: impl Fn(Event) -> Option<T>) -> Result<T, Fault> {
    let wrong = |what: String| {
        let advice = "Start it from a program that answers with an engine's events";
        Fault::new(FaultKind::Device, "standard input", what, advice)
    };
    loop {
        let mut line = String::new();
        let read = answers.read_line(&mut line);
        if read.map_err(|error| wrong(error.to_string()))? == 0 {
            return Err(wrong("ended before the answer".into()));
        }
        let event = serde_json::from_str(&line);
        match event.map_err(|error| wrong(format!("holds no event: {error}")))? {
            Event::Failed { fault, .. } => return Err(fault),
            event => {
                if let Some(found) = wanted(event) {
                    return Ok(found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_among_events() {
        let proposed = r#"{"Proposed":{"picture":1,"granularity":"coarse","boxes":[],"milliseconds":{"prepare":0,"upn":0}}}"#;
        let wanted = |event| match event {
            Event::Proposed { boxes, .. } => Some(boxes.len()),
            _ => None,
        };
        let lines = |lines: &[&str]| lines.join("\n") + "\n";
        let said = lines(&[r#"{"Said":{"turn":1,"spans":[]}}"#, proposed]);
        assert_eq!(next(&mut said.as_bytes(), wanted).ok(), Some(0));
        let failed = r#"{"Failed":{"turn":null,"picture":1,"fault":{"kind":"Device","place":"card","what":"is lost","advice":""}}}"#;
        for (said, says) in [
            (lines(&[failed, proposed]), "card: is lost"),
            (String::new(), "ended before the answer"),
            (lines(&["words"]), "holds no event"),
        ] {
            let fault = next(&mut said.as_bytes(), wanted).expect_err(says);
            assert!(fault.to_string().contains(says), "{fault}");
        }
    }
}
