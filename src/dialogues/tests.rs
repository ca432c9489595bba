//! Whole runs of the data engine.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::image::Pixels;
use crate::protocol::Answer;

const SELECTION: Selection = Selection {
    score: 0.3,
    nms: 0.8,
    first_of_kind: None,
};

/// Four pictures of one colour each; the third has no annotation.
fn data_set(images: &Path) -> CocoSet {
    let mut annotations = Vec::new();
    let names = ["a.png", "sub/b.png", "c.png", "d.png"];
    let pictures: Vec<_> = names
        .iter()
        .zip(1_u32..)
        .map(|(name, id)| {
            let path = images.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let picture = ::image::RgbImage::from_pixel(100, 80, ::image::Rgb([id as u8; 3]));
            picture.save(path).expect("a picture");
            if id != 3 {
                for (kind, x) in [(1, 0), (1, 60), (2, 30 + id)] {
                    annotations.push(json!({"image_id": id, "category_id": kind, "bbox": [x, 5 * id, 20, 20 + x / 2]}));
                }
            }
            json!({"id": id, "file_name": name, "width": 100, "height": 80, "caption": "Dogs near a man."})
        })
        .collect();
    let categories =
        json!([{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}, {"id": 3, "name": "cat"}]);
    let file = json!({"images": pictures, "annotations": annotations, "categories": categories});
    CocoSet::parse(file.to_string().as_bytes(), "set").expect("a data set")
}

fn options(images: &Path, out: &Path, annotated: bool) -> DialogueOptions {
    DialogueOptions {
        images: images.into(),
        out: out.into(),
        seed: 5,
        count: None,
        min_side: 1,
        max_plain: 1.0,
        annotated,
        signature: BTreeMap::from([("annotations".into(), "a hash".into())]),
    }
}

fn records(out: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(out.join(DIALOGUES)).expect("records");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
}

/// Proposes a person and a dog with names; describes boxes, and finds the box that it described last.
struct Scripted {
    last: String,
}

impl EvalModel for Scripted {
    fn propose(&mut self, _: &Pixels) -> Result<Vec<Proposal>, Fault> {
        let named = |label: &str, bbox: [f32; 4]| Proposal {
            label: Some(label.into()),
            ..Proposal::unlabelled(bbox.into(), 0.9)
        };
        Ok(vec![
            named("person", [70.0, 60.0, 99.0, 79.0]),
            named("dog", [2.0, 50.0, 30.0, 75.0]),
        ])
    }

    fn ask(&mut self, _: &Pixels, boxes: &[BoxXyxy], question: &str) -> Result<Answer, Fault> {
        let tag = question
            .split("<obj")
            .nth(1)
            .and_then(|rest| rest.split('>').next());
        let text = match tag {
            Some(index) => {
                self.last = index.to_owned();
                let dog = boxes[index.parse::<usize>().expect("an index")].x1 < 5.0;
                let kind = if dog { "dog" } else { "person" };
                format!("There is a big {kind}, standing on the green grass.")
            }
            None if question.contains("standing on") => {
                format!("<ground>it</ground><objects><obj{}></objects>", self.last)
            }
            None if question.contains("grounded format") => "I do not know.".into(),
            None => "A <ground>dog</ground><objects><obj0></objects> on grass.".into(),
        };
        Ok(Answer::saying(text.clone(), spans(&text)))
    }
}

fn captioner(model: &mut Scripted) -> Captioner<'_> {
    Captioner {
        model,
        name: "scripted".into(),
        selection: SELECTION,
    }
}

#[test]
fn a_run_is_resumed_from_every_byte() {
    let root = tempfile::tempdir().expect("a folder");
    let images = root.path().join("pictures");
    let set = data_set(&images);
    let whole = root.path().join("whole");
    let report = run(&set, &options(&images, &whole, true), None, |_| ()).expect("a run");
    let expected = std::fs::read(whole.join(DIALOGUES)).expect("records");
    assert_eq!(report.records, records(&whole).len());
    assert!(report.per_task["caption"] >= 6 && report.per_task["detect_absent"] == 4);
    let out = root.path().join("out");
    let again = options(&images, &out, true);
    run(&set, &again, None, |_| ()).expect("a run");
    let unfinished = Signature {
        report: None,
        ..files::read_json(&out.join(SIGNATURE))
            .expect("JSON")
            .expect("a file")
    };
    let step = expected.len() / 25;
    for cut in (0..expected.len()).step_by(step) {
        std::fs::write(out.join(DIALOGUES), &expected[..cut]).expect("written");
        write_signature(&out, &unfinished).expect("written");
        let resumed = run(&set, &again, None, |_| ()).expect("a run");
        assert_eq!(resumed, report);
        assert_eq!(
            std::fs::read(out.join(DIALOGUES)).expect("records"),
            expected,
            "{cut}"
        );
    }
    // A complete run is not made again, and other options are refused.
    let time = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .expect("a time")
    };
    let before = time(&out.join(DIALOGUES));
    assert_eq!(run(&set, &again, None, |_| ()), Ok(report));
    assert_eq!(time(&out.join(DIALOGUES)), before);
    let other = DialogueOptions { seed: 6, ..again };
    let fault = run(&set, &other, None, |_| ()).expect_err("another seed");
    assert!(fault.what.contains("seed 5, not 6"), "{fault}");
    for record in records(&out) {
        assert!(out.join(&record.image).is_file(), "{}", record.image);
        assert_eq!(record.made_by[0].model, ANNOTATIONS);
    }
}

#[test]
fn a_model_describes_and_finds_and_its_errors_are_left_out() {
    let root = tempfile::tempdir().expect("a folder");
    let images = root.path().join("pictures");
    let set = data_set(&images);
    let out = root.path().join("out");
    let mut model = Scripted {
        last: String::new(),
    };
    let both = options(&images, &out, true);
    let report = run(&set, &both, Some(captioner(&mut model)), |_| ()).expect("a run");
    let all = records(&out);
    let refer: Vec<&Record> = all.iter().filter(|record| record.task == "refer").collect();
    assert!(!refer.is_empty());
    for record in refer {
        let kind = if record.question.contains("dog") {
            "dog"
        } else {
            "person"
        };
        let expression = format!("the big {kind} standing on the green grass");
        assert!(record.question.contains(&expression), "{}", record.question);
        let steps: Vec<&str> = record.made_by.iter().map(|made| &*made.step).collect();
        assert_eq!(steps, ["boxes", "describe", "filter", "rewrite", "verify"]);
        assert!(record.made_by[1].model == "scripted" && record.made_by[3].model == RULES);
        assert_eq!(record.objects.len(), 1);
    }
    // The second dog is called a person; conversations have no box.
    assert!(report.dropped["other_kind"] > 0, "{:?}", report.dropped);
    assert_eq!(report.dropped["no_box"], 4);
    let captions = all
        .iter()
        .filter(|record| record.made_by.iter().any(|made| made.step == "caption"));
    let from_model =
        captions.filter(|record| record.made_by.iter().any(|made| made.model == "scripted"));
    assert!(from_model.count() >= 4);

    // Without annotations the labels of the proposals are the truth; a damaged picture is left out.
    std::fs::write(images.join("c.png"), "no picture").expect("written");
    let plain = pictures_in(&images).expect("pictures");
    assert_eq!(plain.pictures.len(), 4);
    let out = root.path().join("plain");
    let alone = options(&images, &out, false);
    let report = run(&plain, &alone, Some(captioner(&mut model)), |_| ()).expect("a run");
    assert_eq!((report.count, report.dropped["picture"]), (4, 1));
    let all = records(&out);
    let detect = all.iter().find(|record| record.task == "detect_several");
    let detect = detect.expect("a detection");
    assert_eq!(detect.objects.len(), 2);
    assert_eq!(detect.made_by[0].model, "scripted");
    assert!(all.iter().all(|record| !record.image.contains("c.png")));
    let fault = pictures_in(&root.path().join("nowhere")).expect_err("no folder");
    assert_eq!(fault.code, ErrorCode::NotFound);
}

/// Two pictures of one color, one with a big thing before white, and one that its content fills.
#[test]
fn pictures_before_a_plain_background_are_left_out() {
    let root = tempfile::tempdir().expect("a folder");
    let images = root.path().join("pictures");
    let set = data_set(&images);
    let save = |name: &str, margin: u32| {
        let color = |x: u32, y: u32| {
            let inside = (margin..100 - margin).contains(&x) && (margin..80 - margin).contains(&y);
            let content = ::image::Rgb([2 * x as u8, 3 * y as u8, 90]);
            if inside {
                content
            } else {
                ::image::Rgb([255; 3])
            }
        };
        let picture = ::image::RgbImage::from_fn(100, 80, color);
        picture.save(images.join(name)).expect("a picture");
    };
    save("a.png", 0);
    save("d.png", 8);
    for (annotated, max_plain, left_out) in [
        (true, 0.5, vec!["c.png", "sub/b.png"]),
        (false, 0.5, vec!["c.png", "sub/b.png"]),
        (false, 0.1, vec!["c.png", "d.png", "sub/b.png"]),
        (true, 1.0, vec![]),
        (false, 1.0, vec![]),
    ] {
        let out = root.path().join(format!("out-{annotated}-{max_plain}"));
        let options = DialogueOptions {
            max_plain,
            ..options(&images, &out, annotated)
        };
        let mut model = Scripted {
            last: String::new(),
        };
        let pictures = match annotated {
            true => set.clone(),
            false => pictures_in(&images).expect("pictures"),
        };
        let captioner = (!annotated).then(|| captioner(&mut model));
        let report = run(&pictures, &options, captioner, |_| ()).expect("a run");
        let counted = report.dropped.get("plain_background").copied();
        assert_eq!(
            (report.count, counted.unwrap_or_default()),
            (4, left_out.len())
        );
        let text = std::fs::read_to_string(out.join(DROPPED)).expect("what was left out");
        let lines = text
            .lines()
            .filter(|line| line.contains("plain_background"));
        let mut found: Vec<String> = lines
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let text = line["text"].as_str().expect("a text");
                let share = if line["image"] == "images/d.png" {
                    "33%"
                } else {
                    "100%"
                };
                assert!(text.starts_with(share), "{line}");
                line["image"]
                    .as_str()
                    .expect("a picture")
                    .replace("images/", "")
            })
            .collect();
        found.sort();
        assert_eq!(found, left_out);
        let images: Vec<String> = records(&out)
            .into_iter()
            .map(|record| record.image)
            .collect();
        for name in ["a.png", "sub/b.png", "d.png"] {
            let is_kept = images.contains(&format!("images/{name}"));
            assert_eq!(is_kept, !left_out.contains(&name), "{name}");
        }
    }
    // The filter is part of what a run is.
    let out = root.path().join("out-true-1");
    let other = DialogueOptions {
        max_plain: 0.5,
        ..options(&images, &out, true)
    };
    let fault = run(&set, &other, None, |_| ()).expect_err("another filter");
    assert!(fault.what.contains("max_plain none, not 0.5"), "{fault}");
}
