//! `chatrex chat --closer-look`: the second answer is about the part of the picture around the boxes of the first.

use std::process::Command;

use chatrex::{BoxXyxy, image};
use serde_json::Value;

const PICTURE: &str = "web/static/samples/coffee.jpg";

fn turns(more: &[&str]) -> Vec<Value> {
    let program = env!("CARGO_BIN_EXE_chatrex");
    let mut command = Command::new(program);
    command.args(["chat", "--device", "cpu", "--image", PICTURE, "--json"]);
    let output = command.args(more).output().expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let boxes = report["boxes"].clone();
    let turns = report["turns"].as_array().expect("turns");
    let with_boxes = turns.iter().map(|turn| {
        let mut turn = turn.clone();
        turn["boxes"] = boxes.clone();
        turn
    });
    with_boxes.collect()
}

/// The boxes that an answer names.
fn named(answer: &Value) -> Vec<BoxXyxy> {
    let boxes: Vec<BoxXyxy> = serde_json::from_value(answer["boxes"].clone()).expect("boxes");
    let spans = answer["spans"].as_array().expect("spans").iter();
    let objects = spans
        .filter_map(|span| span["objects"].as_array())
        .flatten();
    let indices = objects.filter_map(|index| index.as_u64());
    indices.map(|index| boxes[index as usize]).collect()
}

#[test]
fn the_part_holds_the_named_boxes_and_shows_the_same_object() {
    let [turn, nothing] = &turns(&[
        "--ask",
        "Where is the cup?",
        "--ask",
        "Is there a dog in this picture?",
        "--closer-look",
    ])[..] else {
        panic!("two questions have two answers");
    };
    assert!(nothing.get("closer_look").is_none(), "{nothing}");
    let look = &turn["closer_look"];
    let [left, top, right, bottom]: [f32; 4] =
        serde_json::from_value(look["crop"].clone()).expect("a crop");
    let picture = image::decode::open(PICTURE.as_ref()).expect("a sample");
    assert!(right <= picture.width as f32 && bottom <= picture.height as f32);
    assert!((right - left) * (bottom - top) < (picture.width * picture.height) as f32);
    let (first, second) = (named(turn), named(look));
    assert!(!first.is_empty() && !second.is_empty(), "{turn}");
    for bbox in &first {
        assert!(bbox.x1 >= left && bbox.y1 >= top && bbox.x2 <= right && bbox.y2 <= bottom);
        let best = second
            .iter()
            .map(|other| bbox.iou(other))
            .fold(0.0, f32::max);
        assert!(best > 0.7, "{bbox:?} is not one of {second:?}");
    }
}

#[test]
fn without_the_option_there_is_no_second_answer() {
    let turns = turns(&["--ask", "Where is the cup?"]);
    assert!(turns[0].get("closer_look").is_none());
}
