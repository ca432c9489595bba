//! A client of an engine in another program: requests go to standard output, events come from
//! standard input.
//!
//! A line of standard output is the JSON array `[request, hex]`: a [`Request`] and, with a picture,
//! its bytes in hexadecimal, else an empty string. A line of standard input is an [`Event`]. The
//! other program loads a model on its own and begins with [`Event::Ready`].

use std::io::{BufRead, StdinLock};

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::protocol::client::Counter;
use crate::protocol::{Client, Envelope, Event, ModelCard, Request};
use crate::weights::manifest::hex;

/// The client.
pub(super) struct StdioClient {
    input: StdinLock<'static>,
    card: ModelCard,
    counter: Counter,
}

impl StdioClient {
    /// Waits until the other program has loaded a model.
    ///
    /// # Errors
    /// There is no other program, or it cannot load a model.
    pub(super) fn open() -> Result<Self, Fault> {
        let mut input = std::io::stdin().lock();
        let card = next(&mut input, |event| match event {
            Event::Ready(card) => Some(*card),
            _ => None,
        })?;
        Ok(Self {
            input,
            card,
            counter: Counter::default(),
        })
    }
}

impl Client for StdioClient {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.counter
    }

    fn exchange(
        &mut self,
        request: Envelope<Request>,
        wanted: fn(&Event) -> bool,
    ) -> Result<Event, Fault> {
        println!("{}", line(&request));
        next(&mut self.input, |event| wanted(&event).then_some(event))
    }
}

/// A request as a line of standard output.
fn line(request: &Envelope<Request>) -> String {
    let attachment = request.attachment.as_deref().unwrap_or_default();
    super::json(&(&request.body, hex(attachment)))
}

/// The first `wanted` event; others are skipped.
fn next<T>(input: &mut impl BufRead, wanted: impl Fn(Event) -> Option<T>) -> Result<T, Fault> {
    let wrong = |what: String| {
        let advice = "Start it from a program that answers with an engine's events";
        Fault::new(FaultKind::Device, "standard input", what, advice).code(ErrorCode::Protocol)
    };
    loop {
        let mut line = String::new();
        let read = input.read_line(&mut line);
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
    use crate::image::Pixels;
    use crate::protocol::{Granularity, PictureId, TurnId};

    #[test]
    fn a_line_carries_the_request_and_the_pixels_in_hex() {
        let pixels = Pixels::new(2, 1, vec![0, 1, 255, 16, 9, 160]).expect("two pixels");
        let look = Envelope::look(PictureId(1), pixels, Granularity::Coarse);
        assert_eq!(
            line(&look),
            r#"[{"Look":{"picture":1,"pixels":{"width":2,"height":1},"granularity":"coarse"}},"0001ff1009a0"]"#
        );
        let stop = Envelope::from(Request::Stop { turn: TurnId(4) });
        assert_eq!(line(&stop), r#"[{"Stop":{"turn":4}},""]"#);
    }

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
