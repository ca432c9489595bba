//! `chatrex batch` on drawn scenes: results survive a kill, shards are parts of the whole, files agree.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

const SCENES: usize = 9;

const DETECT: &str = "detect:cat,dog,car,tree,house,ball";

/// Drawn scenes as a COCO data set, and the results of an uninterrupted run about them.
struct Set {
    folder: tempfile::TempDir,
}

impl Set {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

static SET: LazyLock<Set> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let set = Set { folder };
    let count = SCENES.to_string();
    let scenes = set.text("scenes");
    let arguments = [
        "scenes", "--count", &count, "--seed", "900300", "--out", &scenes,
    ];
    let drawn = program().args(arguments).output().expect("it starts");
    assert!(drawn.status.success());
    let formats = ["--formats", "jsonl,parquet,coco,label-studio", "--annotate"];
    let mut whole = batch(&scenes, &set.text("whole"), &formats, &[&set.text("drawn")]);
    let whole = whole.output().expect("it starts");
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    set
});

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chatrex"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command that looks for objects in the pictures of `images`.
fn batch(images: &str, out: &str, options: &[&str], more: &[&str]) -> Command {
    let mut command = program();
    command
        .args(["batch", "--model", "nano", "--device", "cpu"])
        .args(["--images", images, "--task", DETECT, "--out", out, "--json"])
        .args(options)
        .args(more);
    command
}

fn summary(output: &Output) -> Value {
    let what = format!("{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {what}"))
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("results");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// Waits until the file of times has `count` lines, which the process writes after those of the results, then
/// kills it.
fn kill_after(mut child: Child, results: &Path, count: usize) {
    while child.try_wait().expect("a process").is_none() {
        let file = fs::File::open(results).map(BufReader::new);
        let lines = file.map_or(0, |file| file.split(b'\n').count());
        if lines >= count {
            break;
        }
        std::thread::yield_now();
    }
    child.kill().expect("it runs or has ended");
    child.wait().expect("a process");
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_files() {
    let out = SET.path("killed");
    let scenes = SET.text("scenes");
    let formats = ["--formats", "parquet,coco,label-studio"];
    let drawn = SET.text("drawn-killed");
    let command = || {
        batch(
            &scenes,
            &SET.text("killed"),
            &formats,
            &["--annotate", &drawn, "--together", "2"],
        )
    };
    let child = command()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let results = out.join("results.jsonl");
    kill_after(child.expect("it starts"), &results, 3);
    let before = fs::read_to_string(&results).expect("results");
    let complete = before.bytes().filter(|&b| b == b'\n').count();
    assert!((3..SCENES).contains(&complete), "{complete} lines");
    assert!(!out.join("results.parquet").exists(), "written at the end");
    // As a kill within a write leaves it.
    fs::write(&results, before + "{\"id\":\"images/00").expect("a file");
    let mut other = batch(
        &scenes,
        &SET.text("killed"),
        &["--max-tokens", "9"],
        &["--annotate", &drawn],
    );
    let other = other.output().expect("it starts");
    assert_eq!(other.status.code(), Some(2));
    assert!(
        text(&other.stderr).contains("max_tokens was 512 and is 9"),
        "{}",
        text(&other.stderr)
    );
    let rest = command().output().expect("it starts");
    assert_eq!(rest.status.code(), Some(0), "{}", text(&rest.stderr));
    let rest = summary(&rest);
    assert_eq!(
        (&rest["pictures"], &rest["failed"]),
        (&json!(SCENES), &json!(0))
    );
    assert_eq!(rest["skipped"], complete);
    assert_eq!(rest["done"], SCENES - complete);
    for name in [
        "results.jsonl",
        "results.parquet",
        "coco.json",
        "coco_results.json",
        "label_studio.json",
        "batch.json",
    ] {
        let [whole, resumed] =
            [SET.path("whole"), out.clone()].map(|folder| fs::read(folder.join(name)).expect(name));
        assert!(whole == resumed, "{name} differs");
    }
    let drawings = |folder: &str| -> Vec<_> {
        let files = fs::read_dir(SET.path(folder)).expect("a folder");
        let mut files: Vec<_> = files
            .map(|file| file.expect("a file").file_name())
            .collect();
        files.sort();
        files
    };
    assert_eq!(drawings("drawn").len(), SCENES);
    assert_eq!(drawings("drawn"), drawings("drawn-killed"));
    let again = summary(&command().output().expect("it starts"));
    assert_eq!(
        (&again["done"], &again["skipped"]),
        (&json!(0), &json!(SCENES))
    );
}

#[test]
fn the_files_have_the_same_results() {
    let whole = SET.path("whole");
    let lines = lines(&whole.join("results.jsonl"));
    let records = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let records: Vec<Value> = records.collect();
    let ids: BTreeSet<&str> = records
        .iter()
        .filter_map(|record| record["id"].as_str())
        .collect();
    assert_eq!((records.len(), ids.len()), (SCENES, SCENES));
    let file = fs::File::open(whole.join("results.parquet")).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| reader.build());
    let batches: Result<Vec<RecordBatch>, _> = reader.expect("a Parquet file").collect();
    let batches = batches.expect("rows");
    assert_eq!(
        batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
        SCENES
    );
    let rows = batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    for ((batch, row), record) in rows.zip(&records) {
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .unwrap_or_else(|| panic!("{name}"))
        };
        for name in ["id", "image", "sha256", "task", "question", "text", "stop"] {
            assert_eq!(
                column(name).as_string::<i32>().value(row),
                record[name],
                "{name}"
            );
        }
        assert!(column("error_code").is_null(row) && record["error"].is_null());
        assert_eq!(
            column("tokens").as_primitive::<UInt32Type>().value(row),
            record["tokens"]
        );
        let boxes = column("boxes").as_list::<i32>().value(row);
        let boxes = boxes
            .as_fixed_size_list()
            .values()
            .as_primitive::<Float32Type>()
            .values()
            .to_vec();
        let expected: Vec<[f32; 4]> =
            serde_json::from_value(record["boxes"].clone()).expect("boxes");
        assert_eq!(boxes, expected.concat());
        let labels = column("labels").as_list::<i32>().value(row);
        let labels: Vec<Option<&str>> = labels.as_string::<i32>().iter().collect();
        assert_eq!(json!(labels), record["labels"]);
        let spans = column("spans").as_list::<i32>().value(row);
        assert_eq!(spans.len(), record["spans"].as_array().map_or(0, Vec::len));
    }
    let coco = json_of(&whole.join("coco.json"));
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let ids = |key: &str| -> BTreeSet<i64> {
        list(&coco[key])
            .iter()
            .filter_map(|v| v["id"].as_i64())
            .collect()
    };
    let annotations = list(&coco["annotations"]);
    let named = records.iter().flat_map(|record| list(&record["labels"]));
    let named = named.filter(|label| !label.is_null()).count();
    assert!(named > SCENES, "{named} boxes");
    assert_eq!(
        (
            annotations.len(),
            ids("annotations").len(),
            ids("images").len()
        ),
        (named, named, SCENES)
    );
    for annotation in &annotations {
        assert!(ids("images").contains(&annotation["image_id"].as_i64().expect("an id")));
        assert!(ids("categories").contains(&annotation["category_id"].as_i64().expect("an id")));
    }
    let results = list(&json_of(&whole.join("coco_results.json")));
    let pairs = annotations.iter().zip(&results);
    assert_eq!(results.len(), named);
    assert!(
        pairs
            .into_iter()
            .all(|(a, r)| a["bbox"] == r["bbox"] && a["image_id"] == r["image_id"])
    );
    let tasks = list(&json_of(&whole.join("label_studio.json")));
    let predicted = tasks
        .iter()
        .flat_map(|task| list(&task["predictions"][0]["result"]))
        .count();
    assert_eq!((tasks.len(), predicted), (SCENES, named));
}

#[test]
fn shards_of_a_coco_file_are_parts_of_the_whole() {
    let annotations = SET.text("scenes/annotations.json");
    let root = SET.text("scenes/images");
    let mut parts = Vec::new();
    for shard in ["1/2", "2/2"] {
        let more = [
            "--root",
            &root,
            "--shard",
            shard,
            "--formats",
            "coco",
            "--together",
            "3",
        ];
        // Pictures are read ahead with one thread too.
        let run = batch(&annotations, &SET.text("shards"), &more, &[])
            .env("RAYON_NUM_THREADS", "1")
            .output()
            .expect("it starts");
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        let name = format!("results-{}.jsonl", shard.replace('/', "-of-"));
        parts.extend(lines(&SET.path("shards").join(name)));
    }
    parts.sort();
    // The folder was named then, its pictures are in `images`.
    let whole = lines(&SET.path("whole/results.jsonl"))
        .iter()
        .map(|line| line.replace("images/", ""))
        .collect::<Vec<_>>();
    assert_eq!(parts, whole);
    let [given, written] =
        ["scenes/annotations.json", "shards/coco-2-of-2.json"].map(|name| json_of(&SET.path(name)));
    assert_eq!(written["images"][0]["id"], given["images"][1]["id"]);
    let count = given["categories"].as_array().map_or(0, Vec::len);
    for place in 0..count {
        assert_eq!(
            written["categories"][place]["id"],
            given["categories"][place]["id"]
        );
    }
}

#[test]
fn a_damaged_picture_is_a_result_and_an_equal_one_is_copied() {
    let pictures = SET.path("mixed");
    fs::create_dir(&pictures).expect("a folder");
    let scene = |n: usize| SET.path(&format!("scenes/images/{n:06}.png"));
    let mut names: Vec<PathBuf> = fs::read_dir(SET.path("scenes/images"))
        .expect("a folder")
        .map(|f| f.expect("a file").path())
        .collect();
    names.sort();
    let first = names.first().cloned().unwrap_or_else(|| scene(1));
    let bytes = fs::read(&first).expect("a scene");
    fs::write(pictures.join("a.png"), &bytes).expect("a file");
    fs::write(pictures.join("b.png"), &bytes[..bytes.len() / 2]).expect("a file");
    fs::write(pictures.join("c.png"), &bytes).expect("a file");
    fs::write(SET.path("list.txt"), "a.png\nb.png\nmissing.png\nc.png\n").expect("a file");
    let questions = "{\"question\": \"How many cats are there?\"}\n{\"image\": \"a.png\", \"question\": \"What is <obj0>?\", \"boxes\": [[10, 10, 90, 90]]}\n";
    fs::write(SET.path("questions.jsonl"), questions).expect("a file");
    let root = pictures.display().to_string();
    let run = |more: &[&str]| {
        let mut command = program();
        command
            .args([
                "batch",
                "--model",
                "nano",
                "--device",
                "cpu",
                "--json",
                "--images",
                &SET.text("list.txt"),
            ])
            .args([
                "--root",
                &root,
                "--questions",
                &SET.text("questions.jsonl"),
                "--out",
                &SET.text("mixed-out"),
            ])
            .args(more);
        command.output().expect("it starts")
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = summary(&output);
    assert_eq!(
        (&report["done"], &report["copied"], &report["failed"]),
        (&json!(2), &json!(1), &json!(2))
    );
    let results = SET.path("mixed-out/results.jsonl");
    let read = || -> Vec<Value> {
        lines(&results)
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let records = read();
    let ids: Vec<_> = records
        .iter()
        .map(|record| record["id"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        ids,
        ["a.png#1", "a.png#2", "b.png#1", "c.png#1", "missing.png#1"]
    );
    let [codes, text] = ["code", "what"].map(|key| {
        records
            .iter()
            .map(|r| r["error"][key].clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        (&codes[2], &codes[4]),
        (&json!("InvalidInput"), &json!("NotFound"))
    );
    assert!(
        text[2]
            .as_str()
            .is_some_and(|what| what.contains("damaged")),
        "{text:?}"
    );
    assert_eq!(records[0]["text"], records[3]["text"]);
    assert_eq!(records[1]["boxes"], json!([[10.0, 10.0, 90.0, 90.0]]));
    // Failures stay until they are to be tried again.
    fs::write(pictures.join("b.png"), &bytes).expect("a file");
    assert_eq!(summary(&run(&[]))["failed"], 2);
    let retried = summary(&run(&["--retry-failed"]));
    assert_eq!(
        (&retried["failed"], &retried["copied"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(read().len(), 5);
}

#[test]
fn options_that_cannot_be_used_end_with_one_line() {
    let out = SET.text("unused");
    let scenes = SET.text("scenes");
    for (options, says) in [
        (
            vec!["--images", "no/such/folder", "--task", "caption"],
            "does not exist",
        ),
        (
            vec!["--images", &scenes, "--task", "paint"],
            "`paint` is no task",
        ),
        (
            vec!["--images", &scenes, "--task", "caption", "--shard", "3/2"],
            "--shard",
        ),
        (
            vec![
                "--images", &scenes, "--task", "caption", "--root", "no/such",
            ],
            "is no folder",
        ),
        (
            vec!["--images", &scenes, "--task", "caption", "--together", "33"],
            "--together",
        ),
        (
            vec!["--images", &scenes, "--questions", "no.jsonl"],
            "no.jsonl",
        ),
        (vec!["--images", &scenes], "--task"),
    ] {
        let output = program()
            .args(["batch", "--out", &out])
            .args(&options)
            .output()
            .expect("it starts");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {error}");
        assert!(error.contains(says), "{options:?}: {error}");
        assert!(!Path::new(&out).exists(), "nothing is written");
    }
}
