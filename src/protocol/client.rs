//! A client of an engine that waits for the answer of each request before the next.

use super::{
    Answer, Envelope, Event, Granularity, LookTime, ModelCard, PictureId, Proposal, Question,
    Request, TurnId,
};
use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::image::Pixels;

/// The numbers given to pictures and turns so far.
#[derive(Debug, Default)]
pub struct Counter {
    pictures: u32,
    turns: u32,
}

impl Counter {
    /// Another picture.
    fn look(&mut self, pixels: Pixels, granularity: Granularity) -> Envelope<Request> {
        self.pictures += 1;
        Envelope::look(PictureId(self.pictures), pixels, granularity)
    }

    /// The last picture with another prompt of the detector.
    pub fn look_again(&self, granularity: Granularity) -> Envelope<Request> {
        Envelope::from(Request::Look {
            picture: PictureId(self.pictures),
            size: None,
            granularity,
        })
    }

    /// How sure the model was of the boxes that the last answer names.
    pub fn links(&self) -> Envelope<Request> {
        Envelope::from(Request::Links {
            turn: TurnId(self.turns),
        })
    }

    /// How alike `boxes` of the last picture are.
    pub fn compare(&mut self, boxes: Vec<BoxXyxy>) -> Envelope<Request> {
        self.turns += 1;
        Envelope::from(Request::Compare {
            turn: TurnId(self.turns),
            picture: PictureId(self.pictures),
            boxes,
        })
    }

    /// A question about the last picture.
    pub fn ask(&mut self, question: Question) -> Envelope<Request> {
        self.turns += 1;
        Envelope::from(Request::Ask {
            turn: TurnId(self.turns),
            picture: PictureId(self.pictures),
            question,
        })
    }
}

/// A client of an engine with a loaded model, in this process or in another.
pub trait Client {
    /// The loaded model.
    fn card(&self) -> &ModelCard;

    /// The numbers given so far.
    fn counter(&mut self) -> &mut Counter;

    /// Sends a request and waits for the first event that is `wanted`; others are skipped.
    ///
    /// # Errors
    /// The engine's fault, or the engine is gone.
    fn exchange(
        &mut self,
        request: Envelope<Request>,
        wanted: fn(&Event) -> bool,
    ) -> Result<Event, Fault>;

    /// Opens a picture and finds its boxes: all of them, best first.
    ///
    /// # Errors
    /// The picture cannot be used, or the device fails.
    fn open_picture(
        &mut self,
        pixels: Pixels,
        granularity: Granularity,
    ) -> Result<(Vec<Proposal>, LookTime), Fault> {
        let request = self.counter().look(pixels, granularity);
        match self.exchange(request, |event| matches!(event, Event::Proposed { .. }))? {
            Event::Proposed {
                boxes,
                milliseconds,
                ..
            } => Ok((boxes, milliseconds)),
            other => unreachable!("only proposals were wanted: {other:?}"),
        }
    }

    /// Asks about the picture opened last.
    ///
    /// # Errors
    /// The question cannot be asked, or the device fails.
    fn answer(&mut self, question: Question) -> Result<Answer, Fault> {
        let request = self.counter().ask(question);
        match self.exchange(request, |event| matches!(event, Event::Done { .. }))? {
            Event::Done { answer, .. } => Ok(answer),
            other => unreachable!("only an answer was wanted: {other:?}"),
        }
    }
}
