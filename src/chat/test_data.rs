//! Values that the tests of this folder share.

use std::collections::BTreeMap;

use crate::chat::question::{Draft, QuestionKind};
use crate::generate::sampling::Sampling;
use crate::memory::{Fit, MemoryNeeds, Residency, Verdict};
use crate::protocol::{DevicePreference, Event, LookTime};
use crate::protocol::{Granularity, ImageSize, ModelCard, PictureId, Proposal};
use crate::text::answer_parser::Span;

use super::batch_result::{FoundBox, Outcome};
use super::candidates::BoxId;
use super::conversation::{Conversation, Input};
use super::document::{
    Document, FORMAT, Parameters, SavedBox, SavedId, SavedPicture, SavedState, SavedTurn, VERSION,
};

/// Address of the model in tests.
pub(super) const NANO: &str = "models/nano";

/// The answer about a picture of a batch.
pub(super) fn outcome(boxes: Vec<FoundBox>) -> Box<Outcome> {
    Box::new(Outcome {
        size: ImageSize {
            width: 100,
            height: 80,
        },
        shown: "Find cat".into(),
        question: "cat?".into(),
        answer: "cat [0]".into(),
        boxes,
        model: "nano".into(),
    })
}

/// A loaded model on a GPU.
pub(super) fn card() -> Box<ModelCard> {
    Box::new(ModelCard {
        asked_for: NANO.into(),
        name: "nano".into(),
        licence: String::new(),
        licence_parts: Vec::new(),
        trained_on: String::new(),
        knows: None,
        classes: Vec::new(),
        text_only: false,
        device: "wgpu".into(),
        adapter: String::new(),
        software: false,
        default_score: 0.5,
        default_nms: 0.8,
        default_first_of_kind: None,
        default_max_tokens: 512,
        default_repetition_penalty: 1.0,
        default_system: String::new(),
        multi_turn: false,
        hardware: None,
        engine: String::new(),
        weight_bytes: 0,
        fit: Fit {
            verdict: Verdict::Fits,
            residency: Residency::All,
            reason: String::new(),
            needs: MemoryNeeds::default(),
        },
    })
}

/// The request to load [`card`]'s model.
pub(super) fn load() -> Input {
    Input::Load {
        model: NANO.into(),
        device: DevicePreference::Auto,
    }
}

/// A picture of 100 x 80 pixels is opened.
pub(super) fn open(picture: PictureId) -> Input {
    Input::Open {
        picture,
        size: ImageSize {
            width: 100,
            height: 80,
        },
    }
}

/// The model is loaded.
pub(super) fn ready() -> Input {
    Input::Event(Event::Ready(card()))
}

/// Three boxes of the picture, with the scores 0.9, 0.6 and 0.1.
pub(super) fn proposed(picture: PictureId, granularity: Granularity) -> Input {
    let proposal = |x: f32, score| Proposal::unlabelled([x, 0., x + 10., 10.].into(), score);
    Input::Event(Event::Proposed {
        picture,
        granularity,
        boxes: vec![proposal(0., 0.9), proposal(20., 0.6), proposal(40., 0.1)],
        milliseconds: LookTime {
            prepare: 100.0,
            upn: 1_300.0,
        },
    })
}

/// A conversation after `inputs`.
pub(super) fn after(inputs: impl IntoIterator<Item = Input>) -> Conversation {
    let mut conversation = Conversation::default();
    for input in inputs {
        conversation.step(input);
    }
    conversation
}

/// A saved conversation about a picture of 100 x 80 pixels: two proposals and a box of the user, one
/// turn that names the first and the last.
pub(super) fn saved() -> Document {
    let saved = |id, bbox: [f32; 4], score, label: Option<&str>| SavedBox {
        id: SavedId(id),
        bbox: bbox.into(),
        score,
        label: label.map(str::to_owned),
    };
    let coarse = |rank| BoxId::Found(Granularity::Coarse, rank);
    let boxes = vec![
        saved(coarse(0), [0., 0., 10., 10.], Some(0.9), Some("cat")),
        saved(coarse(1), [20., 0., 30., 10.], Some(0.6), None),
        saved(
            BoxId::Own(2),
            [40.5, 30.25, 60., 50.],
            None,
            Some("my lamp"),
        ),
    ];
    let span = |text: &str, objects: &[u32]| Span {
        text: text.into(),
        objects: objects.to_vec(),
        ..Span::default()
    };
    let spans = vec![
        span("A ", &[]),
        span("black cat", &[0]),
        span(" near a ", &[]),
        span("lamp", &[2, 7]),
        span(".", &[]),
    ];
    Document {
        format: FORMAT.into(),
        version: VERSION,
        picture: SavedPicture {
            name: "room.jpg".into(),
            width: 100,
            height: 80,
        },
        parameters: Parameters {
            model: Some("nano".into()),
            granularity: Granularity::Coarse,
            score: 0.5,
            nms: 0.8,
            first_of_kind: None,
            sampling: Sampling::default(),
        },
        turns: vec![SavedTurn {
            shown: "What is here?".into(),
            question: "What is here?".into(),
            state: SavedState::Done,
            boxes: boxes.clone(),
            spans,
            answer: None,
            certainty: Vec::new(),
            links: BTreeMap::new(),
            others: Vec::new(),
            version: 0,
            draft: Some(Draft::new(QuestionKind::Free, "What is here?")),
        }],
        boxes,
    }
}
