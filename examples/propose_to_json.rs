//! Prints the boxes of a picture as JSON, filtered by score and by non-maximum suppression.
//!
//! `cargo run --example propose_to_json -- PICTURE [MODEL_FOLDER]`

use std::path::Path;
use std::process::ExitCode;

use chatrex::{DevicePreference, Fault, Model, Proposal, Session, image};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (picture, model) = match arguments.as_slice() {
        [picture] => (picture, Model::default()),
        [picture, folder] => (picture, Model::Folder(folder.into())),
        _ => {
            eprintln!("usage: propose_to_json PICTURE [MODEL_FOLDER]");
            return ExitCode::from(2);
        }
    };
    match propose(Path::new(picture), model) {
        Ok(proposals) => {
            let json = serde_json::to_string_pretty(&proposals);
            println!("{}", json.expect("boxes and scores are plain numbers"));
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("propose_to_json: {fault} ({:?})", fault.code);
            ExitCode::FAILURE
        }
    }
}

/// The proposals that the model's default thresholds choose, best first.
fn propose(picture: &Path, model: Model) -> Result<Vec<Proposal>, Fault> {
    let mut session = Session::open(model, DevicePreference::Auto)?;
    let proposals = session.look(image::decode::open(picture)?)?;
    let chosen = session.card().selection().choose(&proposals, usize::MAX);
    let kept = chosen.kept.into_iter();
    Ok(kept.map(|index| proposals[index].clone()).collect())
}
