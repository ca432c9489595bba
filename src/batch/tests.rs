//! Whole batches on nano: the number of pictures that run together changes no result.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ahead::Limits;
use super::inputs::Pictures;
use super::questions::Questions;
use super::store::Existing;
use super::tables::Format;
use super::{Job, Summary, run};
use crate::generate::sampling::Sampling;
use crate::geometry::Granularity;
use crate::protocol::{DevicePreference, LoadOptions};
use crate::session::{Model, Session};

/// Pictures of two sizes; among them a damaged one, copies, and a name without a file.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let scene = ::image::open("web/static/samples/scene.png").expect("the sample");
    let save = |picture: ::image::DynamicImage, name: &str| {
        picture.save(path(name)).expect("a file");
    };
    save(scene.clone(), "a.png");
    save(scene.crop_imm(60, 0, 140, 280), "b.png");
    fs::write(path("c.png"), "no picture").expect("a file");
    fs::copy(path("a.png"), path("d.png")).expect("a copy");
    save(scene.fliph(), "e.png");
    save(scene.crop_imm(0, 0, 140, 280), "f.png");
    fs::copy(path("e.png"), path("g.png")).expect("a copy");
    save(scene.flipv(), "i.png");
    save(scene.rotate180(), "j.png");
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let list: Vec<String> = names.iter().map(|name| format!("{name}.png\n")).collect();
    fs::write(path("list.txt"), list.concat()).expect("a file");
    let questions = [
        r#"{"question": "How many cats are there?"}"#,
        r#"{"question": "What is <obj0>?", "boxes": [[10, 10, 90, 90]]}"#,
        r#"{"image": "g.png", "question": "What is in this image?"}"#,
    ];
    fs::write(path("questions.jsonl"), questions.join("\n")).expect("a file");
    folder
}

fn job(folder: &Path, out: &str, task: Option<&str>, together: usize, ahead: usize) -> Job {
    let list = folder.join("list.txt").display().to_string();
    let pictures = Pictures::list(&list, None, &[]).expect("a list");
    let (pictures, questions) = match task {
        Some(task) => (pictures, Questions::of_task(task).expect("a task")),
        None => {
            let file = folder.join("questions.jsonl");
            let read = Questions::of_file(&file, Some(pictures), None);
            let (questions, pictures) = read.expect("questions");
            (pictures, questions)
        }
    };
    Job {
        pictures,
        questions,
        out: folder.join(out),
        shard: None,
        load: LoadOptions::from(DevicePreference::Cpu),
        granularity: Granularity::Coarse,
        selection: crate::geometry::Selection {
            score: 0.25,
            nms: 0.5,
            first_of_kind: None,
        },
        max_tokens: 24,
        sampling: Sampling::default(),
        annotate: None,
        formats: vec![Format::Jsonl],
        ahead: Limits {
            pictures: ahead,
            bytes: 1 << 26,
        },
        together: Some(together),
        existing: Existing::default(),
    }
}

/// Runs a batch; its summary without times, and the bytes of its results.
fn results(session: &mut Session, job: &Job) -> (Summary, Vec<u8>) {
    let mut done = 0;
    let mut summary = run(session, job, &mut |progress| {
        assert_eq!((progress.done, progress.total), (done + 1, 10));
        done = progress.done;
    })
    .expect("a batch");
    assert_eq!(done, 10);
    summary.seconds = 0.0;
    summary.pictures_per_second = 0.0;
    summary.files.clear();
    let bytes = fs::read(job.out.join("results.jsonl")).expect("results");
    (summary, bytes)
}

fn times(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("times.jsonl")).expect("times");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

#[test]
fn results_do_not_depend_on_the_size_of_groups() {
    let folder = folder();
    let mut session = Session::open(Model::Nano, DevicePreference::Cpu).expect("a CPU");
    for (task, [done, copied, failed]) in [
        (Some("detect:cat,penguin"), [6, 2, 2]),
        (Some("propose"), [6, 2, 2]),
        (None, [13, 4, 4]),
    ] {
        let mut whole: Option<(Summary, Vec<u8>)> = None;
        for (together, ahead) in [(1, 8), (2, 2), (3, 0), (5, 1), (10, 8)] {
            let out = format!("{}-{together}", task.map_or("questions", |task| &task[..6]));
            let job = job(folder.path(), &out, task, together, ahead);
            let (mut summary, bytes) = results(&mut session, &job);
            assert_eq!(summary.together, together);
            summary.together = 1;
            let found = [summary.done, summary.copied, summary.failed];
            assert_eq!(found, [done, copied, failed], "{out}");
            let times = times(&job.out);
            assert_eq!(times.len(), done + failed);
            for time in &times {
                let id = time["id"].as_str().expect("an id");
                let is_damaged = id.starts_with('c') || id.starts_with('h');
                let look = time["milliseconds"]["look"].as_f64().expect("a time");
                assert_eq!(look == 0.0, is_damaged, "{time}");
            }
            let whole = whole.get_or_insert((summary.clone(), bytes.clone()));
            let [expected, found] = [&whole.1, &bytes].map(|bytes| String::from_utf8_lossy(bytes));
            for (expected, found) in expected.lines().zip(found.lines()) {
                assert_eq!(expected, found, "{out}");
            }
            assert!(whole.1 == bytes, "{out}: other results");
            assert_eq!(whole.0, summary, "{out}");
        }
    }
}

/// A run that was cut goes on with groups that begin elsewhere, with the same results and drawings.
#[test]
fn a_run_that_was_cut_goes_on_with_other_groups() {
    let folder = folder();
    let mut session = Session::open(Model::Nano, DevicePreference::Cpu).expect("a CPU");
    let drawings = |folder: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(folder).expect("a folder");
        let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        let name = |path: &PathBuf| PathBuf::from(path.file_name().expect("a name"));
        let read = |path: &PathBuf| fs::read(path).expect("a picture");
        files.iter().map(|path| (name(path), read(path))).collect()
    };
    let annotated = |out: &str, together| Job {
        annotate: Some(folder.path().join(format!("drawn-{out}"))),
        ..job(folder.path(), out, Some("detect:cat"), together, 8)
    };
    let alone = annotated("alone", 1);
    let (_, whole) = results(&mut session, &alone);
    let cut = annotated("cut", 3);
    results(&mut session, &cut);
    let lines = whole.split_inclusive(|&byte| byte == b'\n');
    let kept: Vec<u8> = lines.take(4).flatten().copied().collect();
    for bytes in [&kept[..], &whole[..kept.len() + 9]] {
        fs::write(cut.out.join("results.jsonl"), bytes).expect("a file");
        let job = Job {
            together: Some(4),
            ..annotated("cut", 4)
        };
        let mut last = 4;
        let summary = run(&mut session, &job, &mut |progress| {
            assert_eq!(progress.done, last + 1);
            last = progress.done;
        });
        let summary = summary.expect("a batch");
        assert_eq!((summary.skipped, summary.worked), (4, 6));
        let bytes = fs::read(cut.out.join("results.jsonl")).expect("results");
        assert!(bytes == whole);
    }
    let [alone, cut] = [&alone, &cut].map(|job| job.annotate.as_deref().map(drawings));
    assert_eq!(alone.as_ref().map(Vec::len), Some(8));
    assert!(alone == cut);
}
