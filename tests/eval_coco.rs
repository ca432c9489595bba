//! `chatrex eval --coco` on scenes that `chatrex scenes` writes as a COCO data set.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn chatrex(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chatrex"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn scenes(folder: &Path) {
    let out = folder.to_str().expect("UTF-8");
    let drawn = chatrex(&["scenes", "--count", "5", "--seed", "900200", "--out", out]);
    assert!(drawn.status.success());
}

/// Runs nano on the scenes in `folder`.
fn eval(folder: &Path, more: &[&str]) -> Output {
    let path = |name: &str| folder.join(name).display().to_string();
    let (annotations, images) = (path("annotations.json"), path("images"));
    let mut arguments = vec!["eval", "--coco", &annotations, "--images", &images];
    arguments.extend(["--model", "nano", "--device", "cpu", "--json"]);
    arguments.extend(more);
    chatrex(&arguments)
}

fn json(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn nano_is_evaluated_on_drawn_scenes() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = folder.path().join("set");
    scenes(&set);
    let answers = folder.path().join("answers.jsonl");
    let report = json(&eval(
        &set,
        &["--answers", answers.to_str().expect("UTF-8")],
    ));
    assert_eq!(report["count"], 5);
    assert_eq!(report["crowds"], 0);
    let metrics = report["metrics"].as_object().expect("metrics");
    for (name, value) in metrics {
        let error = &report["errors"][name];
        if name.ends_with("_kinds") || name == "detect_recall_large" {
            // Nano's proposals have no labels, and no drawn object has more than 96 x 96 pixels.
            assert!(value.is_null() && error.is_null(), "{name}");
            continue;
        }
        let value = value
            .as_f64()
            .unwrap_or_else(|| panic!("{name} has no value"));
        assert!((0.0..=1.0).contains(&value), "{name} {value}");
        assert!(error.as_f64().is_some_and(|error| error < 0.6), "{name}");
    }
    // Nano is right about scenes most of the time, the blind baselines are not.
    for (name, least) in [
        ("recall_50_at_30", 0.8),
        ("detect_f1", 0.7),
        ("naming_accuracy", 0.7),
    ] {
        let of = |report: &Value| report[name].as_f64().expect(name);
        let (nano, blank) = (of(&report["metrics"]), of(&report["baselines"]["blank"]));
        assert!(nano >= least && blank < nano, "{name} {nano} {blank}");
        assert!(of(&report["baselines"]["shuffled"]) < nano, "{name}");
    }
    assert!(report["baselines"]["detector"].is_null());
    let asked: u64 = report["per_task"]
        .as_object()
        .expect("tasks")
        .values()
        .map(|task| task["asked"].as_u64().expect("a number"))
        .sum();
    let answers = std::fs::read_to_string(answers).expect("the answers");
    assert_eq!(answers.lines().count() as u64, asked);
    for line in answers.lines() {
        let line: Value = serde_json::from_str(line).expect("a JSON object");
        assert!(
            line["right"].is_boolean() && line["question"].is_string(),
            "{line}"
        );
    }

    // A part of the pictures without the blind baselines; the same pictures get the same questions.
    let part = json(&eval(&set, &["--limit", "2", "--no-baselines"]));
    assert_eq!(part["count"], 2);
    assert!(part["baselines"]["blank"].is_null());
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = folder.path().join("set");
    scenes(&set);
    let failed = |output: Output, expected: &str| {
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(expected), "{error}");
    };
    failed(eval(&set, &["--limit", "1"]), "at least two pictures");
    failed(
        eval(&set, &["--count", "3", "--seed", "900000"]),
        "cannot be used with",
    );
    let path = set.join("images/000004.png");
    let kept = std::fs::read(&path).expect("a picture");
    std::fs::remove_file(&path).expect("removed");
    failed(eval(&set, &[]), "000004.png: is missing");
    std::fs::write(&path, &kept[..kept.len() / 2]).expect("written");
    failed(eval(&set, &["--no-baselines"]), "000004.png: is damaged");
    std::fs::write(set.join("annotations.json"), "{\"images\": [").expect("written");
    failed(eval(&set, &[]), "is no COCO instances file");
}
