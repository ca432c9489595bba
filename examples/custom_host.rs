//! Runs the engine on a host of one's own: model files from memory, a callback for events, and a
//! question that is stopped after a few events.
//!
//! `cargo run --example custom_host -- MODEL_FOLDER PICTURE QUESTION`

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use chatrex::engine::{Engine, Host};
use chatrex::protocol::{Envelope, Event, PictureId, Request, TurnId};
use chatrex::weights::ByteSource;
use chatrex::weights::source::{
    BlockingRuntime, LocalFuture, ModelFiles, PartialRead, Runtime, TransferControl,
};
use chatrex::{Answer, DevicePreference, Fault, Granularity, LoadOptions, Question, image};

/// A model folder in memory.
struct Memory(HashMap<String, Vec<u8>>);

impl Memory {
    fn file(&self, name: &str) -> Result<&[u8], Fault> {
        let found = self.0.get(name).map(Vec::as_slice);
        found.ok_or_else(|| Fault::model(name, "is not in memory"))
    }
}

impl ByteSource for Memory {
    fn place(&self) -> String {
        "memory".into()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let bytes = self.file(name)?;
            if bytes.len() as u64 > limit {
                return Err(Fault::model(name, format!("is longer than {limit} bytes")));
            }
            Ok(bytes.to_vec())
        })
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        _length: u64,
        range: Range<u64>,
        on_bytes: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(async move {
            let bytes = self.file(file).map_err(PartialRead::fatal)?;
            let part = bytes.get(range.start as usize..range.end as usize);
            let part = part.ok_or_else(|| Fault::model(file, "is too short"));
            let part = part.map_err(PartialRead::fatal)?;
            on_bytes(part.len() as u64);
            Ok(part.to_vec())
        })
    }
}

/// A host that stops every turn after `events_left` partial answers.
struct MyHost {
    files: RefCell<Option<Memory>>,
    start: Instant,
    events_left: Cell<u32>,
    last: RefCell<Option<Event>>,
}

impl Runtime for MyHost {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        BlockingRuntime.sleep(milliseconds)
    }

    fn yield_now(&self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn control(&self) -> TransferControl {
        TransferControl::Run
    }
}

impl Host for MyHost {
    fn emit(&self, event: Event) {
        match event {
            Event::Progress(progress) => eprintln!("{progress:?}"),
            Event::Said { .. } => self
                .events_left
                .set(self.events_left.get().saturating_sub(1)),
            other => *self.last.borrow_mut() = Some(other),
        }
    }

    fn milliseconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64() * 1e3
    }

    fn stopped(&self, _turn: TurnId) -> bool {
        self.events_left.get() == 0
    }

    fn files<'a>(&'a self, model: &'a str) -> LocalFuture<'a, Result<ModelFiles, Fault>> {
        let files = self.files.take();
        let files = files.ok_or_else(|| Fault::model(model, "was already loaded"));
        let files = files.map(|memory| ModelFiles {
            source: Box::new(memory),
            store: None,
        });
        Box::pin(std::future::ready(files))
    }
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, picture, question] = arguments.as_slice() else {
        eprintln!("usage: custom_host MODEL_FOLDER PICTURE QUESTION");
        std::process::exit(2);
    };
    let answer = pollster::block_on(run(folder, picture, question))?;
    println!("{} [{:?}]", answer.text, answer.stop);
    Ok(())
}

/// Loads the folder into memory, opens the picture and asks without boxes.
async fn run(folder: &str, picture: &str, question: &str) -> Result<Answer, Fault> {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(folder).map_err(|error| Fault::file(folder, error))? {
        let path = entry.map_err(|error| Fault::file(folder, error))?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            let bytes = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
            files.insert(name.to_string_lossy().into_owned(), bytes);
        }
    }
    let mut engine = Engine::new(MyHost {
        files: RefCell::new(Some(Memory(files))),
        start: Instant::now(),
        events_left: Cell::new(12),
        last: RefCell::default(),
    });
    let load = Request::Load {
        model: "in memory".into(),
        options: LoadOptions::from(DevicePreference::Cpu),
    };
    let pixels = image::decode::open(picture.as_ref())?;
    let look = Envelope::look(PictureId(1), pixels, Granularity::Coarse);
    let ask = Request::Ask {
        turn: TurnId(1),
        picture: PictureId(1),
        question: Question {
            boxes: Vec::new(),
            text: question.into(),
            max_tokens: 64,
            sampling: Default::default(),
            earlier: Vec::new(),
            system: None,
        },
    };
    for request in [load.into(), look, ask.into()] {
        engine.handle(request).await;
        match engine.host().last.take() {
            Some(Event::Failed { fault, .. }) => return Err(fault),
            Some(Event::Done { answer, .. }) => return Ok(answer),
            _ => {}
        }
    }
    unreachable!("a question ends with an answer or a fault")
}
