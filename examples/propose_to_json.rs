//! Prints the boxes of a picture as JSON, filtered by score and by non-maximum suppression.
//!
//! `cargo run --example propose_to_json -- PICTURE [MODEL_FOLDER]`

use std::path::Path;
use std::process::ExitCode;

use chatrex::{DevicePreference, Fault, Model, Proposal, Session, geometry, image};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (picture, model) = match arguments.as_slice() {
        [picture] => (picture, Model::Nano),
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

/// The proposals at or above the model's default score that non-maximum suppression keeps, best first.
fn propose(picture: &Path, model: Model) -> Result<Vec<Proposal>, Fault> {
    let mut session = Session::open(model, DevicePreference::Auto)?;
    let mut proposals = session.look(image::decode::open(picture)?)?;
    proposals.retain(|proposal| proposal.score >= session.card().default_score);
    let boxes: Vec<_> = proposals.iter().map(|proposal| proposal.bbox).collect();
    let kept = geometry::nms(&boxes, session.card().default_nms);
    Ok(kept.into_iter().map(|index| proposals[index]).collect())
}
