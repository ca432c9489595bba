//! Asks a question about a picture and prints the answer as it comes, with the boxes it names.
//!
//! `cargo run --example ask -- PICTURE QUESTION [MODEL_FOLDER]`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use chatrex::{BoxXyxy, DevicePreference, Fault, Model, Session, image};

/// Boxes with a lower score are not offered to the model.
const MIN_SCORE: f32 = 0.25;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (picture, question, model) = match arguments.as_slice() {
        [picture, question] => (picture, question, Model::default()),
        [picture, question, folder] => (picture, question, Model::Folder(folder.into())),
        _ => {
            eprintln!("usage: ask PICTURE QUESTION [MODEL_FOLDER]");
            return ExitCode::from(2);
        }
    };
    match ask(Path::new(picture), question, model) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("ask: {fault} ({:?})", fault.code);
            ExitCode::FAILURE
        }
    }
}

fn ask(picture: &Path, question: &str, model: Model) -> Result<(), Fault> {
    let mut session = Session::open(model, DevicePreference::Auto)?;
    let boxes: Vec<BoxXyxy> = session
        .look(image::decode::open(picture)?)?
        .into_iter()
        .filter(|proposal| proposal.score >= MIN_SCORE)
        .map(|proposal| proposal.bbox)
        .take(100)
        .collect();
    let mut printed = 0;
    let answer = session.ask(question, &boxes, |spans| {
        let text: String = spans.iter().map(|span| span.text.as_str()).collect();
        print!("{}", text.get(printed..).unwrap_or_default());
        printed = text.len();
        // A closed pipe is noticed at the next line.
        let _ = std::io::stdout().flush();
    })?;
    println!();
    for span in &answer.spans {
        // Without constrained decoding a model may name a box that does not exist.
        for bbox in span.objects.iter().filter_map(|&k| boxes.get(k as usize)) {
            println!("{}: {bbox:?}", span.text.trim());
        }
    }
    Ok(())
}
