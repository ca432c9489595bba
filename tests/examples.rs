//! The examples run and print what their users expect.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PICTURE: &str = "web/static/samples/scene.png";
const NANO: &str = "assets/models/nano";

/// `cargo test` builds examples into the folder beside this test's own.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent);
    let folder = profile
        .expect("a test lies in PROFILE/deps")
        .join("examples");
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(example(name))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("example {name}: {error}"))
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn ask_prints_the_answer_and_its_boxes() {
    let printed = text(&run("ask", &[PICTURE, "What is <obj0>?"]));
    assert!(!printed.trim().is_empty());
    let question =
        "Please detect cat and penguin in this image. Answer the question with grounded answer.";
    let printed = text(&run("ask", &[PICTURE, question, NANO]));
    let boxes = printed
        .lines()
        .filter(|line| line.starts_with("cat: BoxXyxy"));
    assert!(boxes.count() > 0, "{printed}");
}

#[test]
fn propose_prints_boxes_as_json() {
    let printed = text(&run("propose_to_json", &[PICTURE]));
    let boxes: Vec<serde_json::Value> = serde_json::from_str(&printed).expect("a JSON array");
    assert!(!boxes.is_empty());
    for found in boxes {
        assert_eq!(found["box"].as_array().expect("a box").len(), 4);
        let score = found["score"].as_f64().expect("a score");
        assert!((0.0..=1.0).contains(&score), "{score}");
    }
}

#[test]
fn a_custom_host_serves_the_model_from_memory_and_stops_the_turn() {
    let question = "Please describe this image in detail.";
    let printed = text(&run("custom_host", &[NANO, PICTURE, question]));
    assert!(
        printed.contains("[Stopped]") || printed.contains("[End]"),
        "{printed}"
    );
}

#[test]
fn a_missing_picture_is_an_error_with_a_code() {
    let output = run("propose_to_json", &["nowhere.png"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("nowhere.png"), "{message}");
}
