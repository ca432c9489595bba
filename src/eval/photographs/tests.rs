//! An evaluation with a model that knows the truth.

use std::path::Path;

use serde_json::json;

use super::questions::{Asked, Topic};
use super::*;
use crate::geometry::Proposal;
use crate::protocol::Answer;

const SIZE: u32 = 200;

const SELECTION: Selection = Selection {
    score: 0.3,
    nms: 0.8,
    first_of_kind: None,
};

/// Six pictures of one colour each. Picture 1 has a crowd of kind 1.
fn data_set(images: &Path) -> CocoSet {
    let mut rng = Rng::new(7, 0);
    let (mut pictures, mut annotations) = (Vec::new(), Vec::new());
    for id in 0..6_u32 {
        let name = format!("{id}.png");
        let colour = ::image::Rgb([id as u8; 3]);
        let picture = ::image::RgbImage::from_pixel(SIZE, SIZE, colour);
        picture.save(images.join(&name)).expect("written");
        pictures.push(json!({"id": id, "file_name": name, "width": SIZE, "height": SIZE}));
        let mut add = |kind: u32, bbox: [u32; 4], crowd: bool| {
            let number = annotations.len();
            annotations.push(
                json!({"id": number, "image_id": id, "category_id": kind, "bbox": bbox,
                "iscrowd": u8::from(crowd)}),
            );
        };
        add(id % 4, [id % 3 * 50, 0, 100, 100], false);
        for slot in 1..6 {
            let [x, y] = [slot * 30 + id % 2 * 15, 100 + (slot + id) % 6 * 14];
            add(rng.below(4) as u32, [x, y, 20 + slot, 24], false);
        }
        if id == 1 {
            add(1, [100, 0, 100, 100], true);
        }
    }
    let kinds = ["cat", "dog", "tree", "bench", "ghost"];
    let kinds: Vec<_> = (0..)
        .zip(kinds)
        .map(|(id, name)| json!({"id": id, "name": name}))
        .collect();
    let file = json!({"images": pictures, "annotations": annotations, "categories": kinds});
    CocoSet::parse(file.to_string().as_bytes(), "set").expect("a data set")
}

fn options(images: &Path) -> PhotoOptions {
    PhotoOptions {
        annotations: "set".into(),
        images: images.into(),
        ask_with: AskWith::Proposals,
        selection: SELECTION,
        blind: true,
        groups: MetricGroup::ALL.to_vec(),
        model: "oracle".into(),
        device: "cpu".into(),
    }
}

/// Knows the pictures by their colour and the questions by their text, and answers with the truth; has
/// no answer to other pictures, to other boxes, and, unless `free`, to other wordings.
struct Oracle {
    set: CocoSet,
    kinds: Kinds,
    free: bool,
    /// Also proposes a dog inside the crowd.
    crowd: bool,
}

impl Oracle {
    fn picture(&self, pixels: &Pixels) -> Option<&Picture> {
        self.set
            .pictures
            .iter()
            .find(|picture| picture.id == i64::from(pixels.rgb[0]))
    }

    fn view<'a>(&'a self, picture: &'a Picture, pixels: &Pixels) -> View<'a> {
        let proposals = self.proposals(picture);
        View::new(
            picture,
            pixels.clone(),
            &proposals,
            SELECTION,
            AskWith::Proposals,
            &self.kinds,
        )
    }

    fn proposals(&self, picture: &Picture) -> Vec<Proposal> {
        let labeled = |kind: usize, bbox: BoxXyxy| Proposal {
            label: Some(self.kinds.names[kind].clone()),
            ..Proposal::unlabelled(bbox, 0.9)
        };
        let objects = picture.objects().into_iter();
        let mut proposals: Vec<_> = objects
            .map(|object| labeled(object.kind, object.bbox()))
            .collect();
        if self.crowd && picture.id == 1 {
            proposals.push(labeled(1, [120.0, 20.0, 150.0, 60.0].into()));
        }
        proposals
    }

    fn answer(&self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Option<Reply> {
        let picture = self.picture(pixels)?;
        let view = self.view(picture, pixels);
        let names = &self.kinds.names;
        let mut known = view
            .contents
            .questions(&mut Rng::new(picture.id.cast_unsigned(), 0));
        known.push(Asked::Caption);
        known.extend((0..names.len()).map(|kind| Asked::Detect {
            kinds: vec![kind],
            absent: None,
        }));
        let phrasings = phrasings::all();
        for phrasing in &phrasings {
            if let Topic::Refer(_) = phrasing.topic {
                // Several draws, so that every kind is drawn.
                let draws = (0..40).filter_map(|seed| {
                    view.contents
                        .question_about(phrasing.topic, &[], &mut Rng::new(seed, 9))
                });
                known.extend(draws);
            }
        }
        let fits = |asked: &&Asked| {
            let own: Vec<BoxXyxy> = view
                .boxes(asked, &self.kinds)
                .iter()
                .map(|asked| asked.bbox)
                .collect();
            let mut others = phrasings
                .iter()
                .filter(|phrasing| asked.is_about(phrasing.topic));
            own == boxes
                && (asked.question(names) == question
                    || self.free
                        && others.any(|phrasing| phrasing.question(asked, names) == question))
        };
        let asked = known.iter().find(fits)?;
        Some(view.labels_reply(asked, &self.kinds))
    }
}

impl EvalModel for Oracle {
    fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
        let picture = self.picture(pixels);
        Ok(picture.map_or_else(Vec::new, |picture| self.proposals(picture)))
    }

    fn ask(&mut self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Result<Answer, Fault> {
        let reply = self.answer(pixels, boxes, question).unwrap_or_default();
        Ok(Answer::saying(reply.text, reply.spans))
    }
}

fn report(free: bool, crowd: bool) -> PhotoReport {
    let folder = tempfile::tempdir().expect("a folder");
    let set = data_set(folder.path());
    let kinds = Kinds::new(set.kinds.clone());
    let mut oracle = Oracle {
        set: set.clone(),
        kinds,
        free,
        crowd,
    };
    let options = options(folder.path());
    let mut records = 0;
    let mut record = |_: &AnswerRecord| {
        records += 1;
        Ok(())
    };
    let report =
        evaluate_photographs(&mut oracle, &set, &options, |_| (), &mut record).expect("a report");
    let asked: usize = report.per_task.values().map(|task| task.asked).sum();
    assert_eq!(records, asked);
    report
}

#[test]
fn the_truth_scores_one_and_blind_answers_do_not() {
    let report = report(true, false);
    // One box of six objects.
    let best = |name: &str| if name == "ar_at_1" { 1.0 / 6.0 } else { 1.0 };
    for row in &report.metrics.0 {
        assert_eq!(row.value, Some(best(row.name)), "{}", row.name);
        assert!(row.error.is_some_and(|error| error < 1e-12), "{}", row.name);
    }
    let PhotoBaselines {
        blank,
        shuffled,
        detector,
    } = report.baselines;
    for row in detector.expect("labels").0 {
        let expected = (row.name != "phrasing_accuracy").then_some(best(row.name));
        assert_eq!(row.value, expected, "{}", row.name);
    }
    for row in [blank, shuffled]
        .into_iter()
        .flatten()
        .flat_map(|metrics| metrics.0)
    {
        // Without an answer an absent kind has no box.
        let empty = ["absent_accuracy", "refusal_accuracy"].contains(&row.name);
        assert!(
            empty || row.value.is_none_or(|value| value < 0.7),
            "{row:?}"
        );
    }
    assert_eq!((report.count, report.objects, report.crowds), (6, 36, 1));
}

#[test]
fn boxes_inside_a_crowd_are_neither_right_nor_wrong() {
    let report = report(true, true);
    for name in [
        "detect_precision",
        "detect_f1",
        "ap_50",
        "map",
        "ap_50_kinds",
    ] {
        let value = report.metrics.get(name).and_then(|row| row.value);
        assert_eq!(value, Some(1.0), "{name}");
    }
}

#[test]
fn wordings_without_an_answer_are_not_the_same() {
    let report = report(false, false);
    let value = |name: &str| report.metrics.get(name).and_then(|row| row.value);
    assert_eq!(value("phrasing_accuracy"), Some(0.0));
    assert_eq!(value("detect_f1"), Some(1.0));
}

#[test]
fn groups_are_measured_alone_and_errors_are_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = data_set(folder.path());
    let kinds = Kinds::new(set.kinds.clone());
    let mut oracle = Oracle {
        set: set.clone(),
        kinds,
        free: true,
        crowd: false,
    };
    let all = options(folder.path());
    let mut run = |groups: &[MetricGroup]| {
        let options = PhotoOptions {
            groups: groups.to_vec(),
            ..all.clone()
        };
        let report = evaluate_photographs(&mut oracle, &set, &options, |_| (), &mut |_| Ok(()));
        report.expect("a report")
    };
    let proposals = run(&[MetricGroup::Proposals]);
    assert!(proposals.per_task.is_empty());
    for row in &proposals.metrics.0 {
        let names = ["recall_50", "ar_at", "ap_50", "map"];
        let measured = names.iter().any(|name| row.name.starts_with(name));
        assert_eq!(row.value.is_some(), measured, "{}", row.name);
    }
    let counts = run(&[MetricGroup::Count]);
    let tasks: Vec<&String> = counts.per_task.keys().collect();
    assert_eq!(tasks, ["count"]);
    assert_eq!(counts.metrics.get("map").expect("a row").value, None);
    assert_eq!(
        counts.metrics.get("count_accuracy").expect("a row").value,
        Some(1.0)
    );

    // Wordings that have no answer are no errors of a question; the baselines have none either.
    assert!(counts.worst.is_empty() && proposals.worst.is_empty());
    oracle.set.pictures.clear();
    let report = evaluate_photographs(&mut oracle, &set, &all, |_| (), &mut |_| Ok(()));
    let report = report.expect("a report");
    let tasks: std::collections::BTreeSet<&str> =
        report.worst.iter().map(|example| &*example.task).collect();
    assert!(
        tasks.contains("proposals") && tasks.contains("count"),
        "{tasks:?}"
    );
    assert!(report.worst.len() <= MAX_PICTURES);
    let page = report.page().finish();
    crate::eval::html::check_page(&page);
    assert!(page.contains("count_accuracy") && page.contains("data:image/jpeg"));
}

#[test]
fn json_has_the_documented_keys() {
    let report = report(true, false);
    let json = serde_json::to_value(&report).expect("plain data");
    for key in [
        "count",
        "model",
        "device",
        "metrics",
        "errors",
        "baselines",
        "per_task",
        "seconds",
    ] {
        assert!(!json[key].is_null(), "{key}");
    }
    let documented = std::fs::read_to_string("docs/reference/interfaces.md").expect("the document");
    for row in &report.metrics.0 {
        assert_eq!(json["metrics"][row.name].as_f64(), row.value);
        assert!(json["baselines"]["detector"].get(row.name).is_some());
        assert!(json["errors"][row.name].is_number(), "{}", row.name);
        assert!(
            documented.contains(&format!("`{}`", row.name)),
            "{}",
            row.name
        );
    }
    let table = report.to_string();
    assert!(
        table.contains("1.000 ± 0.000") && table.contains("detector"),
        "{table}"
    );
}

#[test]
fn one_picture_is_too_few() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut set = data_set(folder.path());
    set.pictures.truncate(1);
    let kinds = Kinds::new(set.kinds.clone());
    let mut oracle = Oracle {
        set: set.clone(),
        kinds,
        free: true,
        crowd: false,
    };
    let options = options(folder.path());
    let found = evaluate_photographs(&mut oracle, &set, &options, |_| (), &mut |_| Ok(()));
    assert!(found.is_err_and(|fault| fault.what.contains("two pictures")));
}
