//! Every sample picture of the page is asked its question, and the answer is compared with what a person
//! wrote down about the picture in `samples.json`.

use std::collections::BTreeMap;
use std::path::Path;

use chatrex::built_in::BuiltIn;
use chatrex::text::prompt::MAX_BOXES;
use chatrex::{BoxXyxy, DevicePreference, Model, Session, image};
use serde::Deserialize;

const FOLDER: &str = "web/static/samples";
/// Smallest IoU of an answered box with the true one.
const OVERLAP: f32 = 0.5;
/// All pictures together, in bytes.
const LIMIT: u64 = 700_000;
/// Longer side of a picture, in pixels.
const SIDE: u32 = 640;

#[derive(Deserialize)]
struct Sample {
    file: String,
    model: String,
    question: String,
    truth: Truth,
}

/// What is true of a picture, as far as its question asks.
#[derive(Deserialize)]
struct Truth {
    /// Every box of each kind, in pixels of the picture. An answer points at these and no others.
    boxes: BTreeMap<String, Vec<BoxXyxy>>,
    /// The number in the answer.
    count: Option<u32>,
    /// Whether the answer is yes.
    yes: Option<bool>,
}

/// A phrase of an answer and its boxes.
struct Said {
    text: String,
    boxes: Vec<BoxXyxy>,
}

impl Truth {
    /// Why an answer is false.
    fn wrong(&self, answer: &[Said]) -> Option<String> {
        let text: String = answer.iter().map(|said| said.text.as_str()).collect();
        let words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        for said in answer.iter().filter(|said| !said.boxes.is_empty()) {
            if !self.boxes.keys().any(|kind| names(&said.text, kind)) {
                return Some(format!("{:?} is not there", said.text));
            }
        }
        for (kind, expected) in &self.boxes {
            let phrases = answer.iter().filter(|said| names(&said.text, kind));
            let found: Vec<BoxXyxy> = phrases.flat_map(|said| said.boxes.clone()).collect();
            if !is_same(&found, expected) {
                return Some(format!("{kind}: {found:?} instead of {expected:?}"));
            }
        }
        if let Some(count) = self.count {
            let numbers: Vec<u32> = words.iter().filter_map(|word| number(word)).collect();
            if numbers != [count] {
                return Some(format!("the numbers {numbers:?} instead of {count}"));
            }
        }
        if let Some(yes) = self.yes {
            let first = words.first().map_or("", String::as_str);
            if first != if yes { "yes" } else { "no" } {
                return Some(format!("begins with {first:?}"));
            }
        }
        None
    }
}

/// Whether a phrase names a kind, in singular or plural.
fn names(phrase: &str, kind: &str) -> bool {
    let phrase = phrase.to_lowercase();
    let plural = match kind {
        "person" => "people",
        other => other,
    };
    phrase.contains(kind) || phrase.contains(plural)
}

/// Whether boxes are the true ones, one to one.
fn is_same(found: &[BoxXyxy], expected: &[BoxXyxy]) -> bool {
    let mut left = expected.to_vec();
    let all = found.iter().all(|one| {
        let place = left.iter().position(|truth| one.iou(truth) >= OVERLAP);
        place.map(|place| left.swap_remove(place)).is_some()
    });
    all && left.is_empty()
}

/// A number in digits or as a word.
fn number(word: &str) -> Option<u32> {
    const WORDS: [&str; 11] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    ];
    let place = WORDS.iter().position(|known| *known == word);
    place
        .map(|place| place as u32)
        .or_else(|| word.parse().ok())
}

fn samples() -> Vec<Sample> {
    let json = std::fs::read(Path::new(FOLDER).join("samples.json")).expect("samples.json");
    serde_json::from_slice(&json).expect("samples.json")
}

#[test]
fn the_answer_to_the_question_of_every_sample_is_true() {
    for model in [BuiltIn::Mini, BuiltIn::Nano] {
        let of_model = |sample: &Sample| sample.model == model.name();
        let samples: Vec<Sample> = samples().into_iter().filter(of_model).collect();
        assert!(!samples.is_empty(), "{}", model.name());
        if !model.is_shipped() {
            println!("skipped: {} is not shipped", model.name());
            continue;
        }
        let mut session = Session::open(Model::from(model), DevicePreference::Cpu).expect("a CPU");
        let mut wrong = Vec::new();
        for sample in samples {
            let pixels =
                image::decode::open(&Path::new(FOLDER).join(&sample.file)).expect("a picture");
            let found = session.look(pixels).expect("boxes");
            let chosen = session.card().selection().choose(&found, MAX_BOXES);
            let boxes: Vec<BoxXyxy> = chosen.kept.iter().map(|&i| found[i].bbox).collect();
            let answer = session
                .ask(&sample.question, &boxes, |_| ())
                .expect("an answer");
            println!("{}: {} {}", sample.file, sample.question, answer.text);
            let said = answer.spans.iter().map(|span| Said {
                text: span.text.clone(),
                boxes: span
                    .objects
                    .iter()
                    .filter_map(|&i| boxes.get(i as usize).copied())
                    .collect(),
            });
            let why = sample.truth.wrong(&said.collect::<Vec<_>>());
            wrong.extend(why.map(|why| format!("{}: {}: {why}", sample.file, answer.text)));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn samples_are_small_and_their_boxes_lie_in_them() {
    let mut bytes = 0;
    for sample in samples() {
        let path = Path::new(FOLDER).join(&sample.file);
        bytes += path.metadata().expect(&sample.file).len();
        let picture = image::decode::open(&path).expect(&sample.file);
        assert!(picture.width.max(picture.height) <= SIDE, "{}", sample.file);
        for bbox in sample.truth.boxes.values().flatten() {
            let inside = 0.0 <= bbox.x1
                && bbox.x1 < bbox.x2
                && bbox.x2 <= picture.width as f32
                && 0.0 <= bbox.y1
                && bbox.y1 < bbox.y2
                && bbox.y2 <= picture.height as f32;
            assert!(inside, "{}: {bbox:?}", sample.file);
        }
    }
    assert!(bytes < LIMIT, "{bytes} bytes");
}

#[test]
fn false_answers_are_noticed() {
    let cat: BoxXyxy = [0., 0., 10., 10.].into();
    let dog: BoxXyxy = [20., 0., 30., 10.].into();
    let truth = |count, yes| Truth {
        boxes: BTreeMap::from([("cat".to_owned(), vec![cat])]),
        count,
        yes,
    };
    let said = |text: &str, boxes: &[BoxXyxy]| Said {
        text: text.to_owned(),
        boxes: boxes.to_vec(),
    };
    let cases = [
        (truth(None, None), vec![said("Cats", &[cat])], true),
        (truth(None, None), vec![said("cat", &[dog])], false),
        (truth(None, None), vec![said("cat", &[cat, cat])], false),
        (truth(None, None), vec![said("cat", &[])], false),
        (
            truth(None, None),
            vec![said("cat", &[cat]), said(" and ", &[]), said("dog", &[dog])],
            false,
        ),
        (
            truth(Some(1), None),
            vec![said("one ", &[]), said("cat", &[cat])],
            true,
        ),
        (
            truth(Some(1), None),
            vec![said("1 ", &[]), said("cat", &[cat])],
            true,
        ),
        (
            truth(Some(2), None),
            vec![said("one ", &[]), said("cat", &[cat])],
            false,
        ),
        (truth(Some(1), None), vec![said("cat", &[cat])], false),
        (
            truth(None, Some(true)),
            vec![said("Yes: ", &[]), said("cat", &[cat])],
            true,
        ),
        (
            truth(None, Some(true)),
            vec![said("No ", &[]), said("cat", &[cat])],
            false,
        ),
    ];
    for (index, (truth, answer, is_true)) in cases.into_iter().enumerate() {
        assert_eq!(truth.wrong(&answer).is_none(), is_true, "case {index}");
    }
}
