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

#[test]
fn boxes_and_expressions_are_evaluated_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = folder.path().join("set");
    scenes(&set);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [annotations, images] = ["set/annotations.json", "set/images"].map(path);
    let report = path("report.html");
    // The proposals alone: no question is asked.
    let only = json(&eval(
        &set,
        &[
            "--limit",
            "2",
            "--only",
            "proposals",
            "--no-baselines",
            "--report",
            &report,
        ],
    ));
    assert!(
        only["metrics"]["ar_at_100"]
            .as_f64()
            .is_some_and(|recall| recall > 0.3)
    );
    assert!(only["metrics"]["count_accuracy"].is_null());
    assert_eq!(only["per_task"], serde_json::json!({}));
    let page = std::fs::read_to_string(&report).expect("a page");
    assert!(
        page.contains("ar_at_100") && !page.contains("http:"),
        "{page}"
    );

    // The true boxes as results.
    let truth = std::fs::read_to_string(&annotations).expect("annotations");
    let truth: Value = serde_json::from_str(&truth).expect("JSON");
    let boxes = truth["annotations"].as_array().expect("a list");
    let results: Vec<Value> = boxes
        .iter()
        .map(|row| {
            serde_json::json!({"image_id": row["image_id"], "category_id": row["category_id"],
                "bbox": row["bbox"], "score": 0.5})
        })
        .collect();
    let results_path = path("results.json");
    std::fs::write(&results_path, Value::from(results).to_string()).expect("written");
    let ready = json(&chatrex(&[
        "eval",
        "--coco",
        &annotations,
        "--results",
        &results_path,
        "--json",
    ]));
    for table in ["with_kinds", "without_kinds"] {
        assert_eq!(ready[table]["ap"], 1.0, "{table}");
        assert_eq!(ready[table]["ar_100"], 1.0, "{table}");
    }

    // A reference to the first object of each of two pictures.
    let lines: Vec<String> = ["000001.png", "000002.png"]
        .iter()
        .zip(1_u64..)
        .map(|(name, id)| {
            let object = boxes.iter().find(|row| row["image_id"] == id).expect("an object");
            serde_json::json!({"image": name, "sentence": "the leftmost thing", "bbox": object["bbox"]}).to_string()
        })
        .collect();
    let references = path("refs.jsonl");
    std::fs::write(&references, lines.join("\n")).expect("written");
    let arguments = [
        "eval",
        "--refcoco",
        &references,
        "--images",
        &images,
        "--model",
        "nano",
        "--device",
        "cpu",
    ];
    let refer = json(&chatrex(
        &[&arguments[..], &["--no-baselines", "--json"]].concat(),
    ));
    assert_eq!((&refer["asked"], &refer["count"]), (&2.into(), &2.into()));
    assert!(
        refer["metrics"]["proposal_bound"].is_number() && refer["baselines"]["blank"].is_null()
    );
    let failed = chatrex(&["eval", "--coco", &annotations]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("--images: is missing"));
}

#[test]
fn dialogues_are_made_from_annotations_and_a_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = folder.path().join("set");
    scenes(&set);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [annotations, images, out] = ["set/annotations.json", "set/images", "out"].map(path);
    let from_boxes = [
        "dialogues",
        "--coco",
        &annotations,
        "--images",
        &images,
        "--out",
        &out,
        "--json",
    ];
    let report = json(&chatrex(&from_boxes));
    assert_eq!(report["count"], 5);
    assert!(report["per_task"]["detect_several"] == 5);
    let lines =
        std::fs::read_to_string(folder.path().join("out/dialogues.jsonl")).expect("records");
    assert_eq!(lines.lines().count() as u64, report["records"]);
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["made_by"][0]["model"], "annotations");
    assert!(
        folder
            .path()
            .join("out")
            .join(first["image"].as_str().expect("a path"))
            .is_file()
    );
    let other = chatrex(&[&from_boxes[..], &["--seed", "1"]].concat());
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("with seed 0, not 1"));

    let with_model = path("model");
    let arguments = [
        "dialogues",
        "--coco",
        &annotations,
        "--images",
        &images,
        "--out",
        &with_model,
        "--count",
        "1",
    ];
    let report = json(&chatrex(
        &[
            &arguments[..],
            &["--model", "nano", "--device", "cpu", "--json"],
        ]
        .concat(),
    ));
    let lines =
        std::fs::read_to_string(folder.path().join("model/dialogues.jsonl")).expect("records");
    assert!(lines.contains("\"model\":\"nano\""), "{report}");
}
