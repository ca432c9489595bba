use super::*;
use crate::chat::batch::{Input as Queue, Item, Task, TaskKind};
use crate::chat::test_data;
use crate::error::{Fault, FaultKind};

/// Boxes with these labels and certainties.
fn outcome(boxes: &[(&str, f32)]) -> Box<Outcome> {
    let found = |&(label, certainty): &(&str, f32)| FoundBox {
        bbox: [0., 0., 10., 10.].into(),
        label: Some(label.into()).filter(|l: &String| !l.is_empty()),
        score: Some(certainty),
        certainty,
    };
    test_data::outcome(boxes.iter().map(found).collect())
}

/// Two pictures with boxes, one that failed, and one without boxes.
fn batch() -> Batch {
    let task = Task {
        kind: TaskKind::Find,
        words: "cat; dog".into(),
    };
    let items = ["a", "b", "c", "d"].map(Item::new);
    let mut batch = Batch::new("k".into(), task, false, items.into());
    batch.step(Queue::Resume);
    let results = [
        Some(outcome(&[("cat", 0.9), ("bird", 0.3)])),
        None,
        Some(outcome(&[("dog", 0.7)])),
        Some(outcome(&[])),
    ];
    for (index, result) in results.into_iter().enumerate() {
        batch.step(Queue::Free(0.0));
        batch.step(match result {
            Some(outcome) => Queue::Answered(index, outcome, 1.0),
            None => Queue::Failed(index, Fault::new(FaultKind::Picture, "b", "broken", "")),
        });
    }
    batch
}

fn at(item: usize, part: u32) -> Option<Entry> {
    Some(Entry { item, part })
}

#[test]
fn entries_come_least_certain_first_over_all_pictures_or_within_each() {
    let batch = batch();
    let mut review = Review::default();
    let walk = |review: &mut Review| {
        let mut seen = vec![review.current(&batch).expect("an entry")];
        loop {
            review.step(Input::Move(1), &batch);
            let now = review.current(&batch).expect("an entry");
            if seen.last() == Some(&now) {
                return seen.iter().map(|e| (e.item, e.part)).collect::<Vec<_>>();
            }
            seen.push(now);
        }
    };
    let sure = walk(&mut review);
    assert_eq!(sure, [(0, 1), (3, ANSWER), (2, 0), (0, 0)]);
    let mut review = Review::default();
    review.step(Input::Order(Order::ByPicture), &batch);
    let pictures = walk(&mut review);
    assert_eq!(pictures, [(0, 1), (0, 0), (2, 0), (3, ANSWER)]);
    assert_eq!(review.progress(&batch), (0, 4));
    assert_eq!(review.labels(&batch), ["cat", "dog", "bird"]);
}

#[test]
fn inputs_lead_from_entry_to_entry() {
    use Input::{Accept, Key, Move, Picture, Reject, Undo};
    let batch = batch();
    type Steps = Vec<(Input, Option<Entry>, usize)>;
    let cases: Vec<Steps> = vec![
        vec![
            (Accept, at(3, ANSWER), 1),
            (Reject, at(2, 0), 2),
            (Key(0), at(0, 0), 3),
            (Accept, at(0, 0), 4),
            (Accept, at(0, 0), 4),
            (Undo, at(0, 0), 4),
            (Undo, at(0, 0), 3),
            (Undo, at(2, 0), 2),
            (Undo, at(3, ANSWER), 1),
            (Undo, at(0, 1), 0),
            (Undo, at(0, 1), 0),
        ],
        vec![
            (Picture(-1), at(0, 1), 0),
            (Picture(1), at(2, 0), 0),
            (Picture(1), at(3, ANSWER), 0),
            (Picture(1), at(3, ANSWER), 0),
            (Accept, at(2, 0), 1),
            (Picture(-1), at(0, 1), 1),
            (Accept, at(2, 0), 2),
            (Picture(-1), at(0, 0), 2),
        ],
        vec![
            (Key(8), at(0, 1), 0),
            (Input::Label(" ".into()), at(0, 1), 0),
            (Move(-1), at(0, 1), 0),
            (Move(2), at(2, 0), 0),
            // The one that was passed over comes after the end.
            (Reject, at(0, 0), 1),
            (Reject, at(0, 1), 2),
        ],
    ];
    for steps in cases {
        let mut review = Review::default();
        for (place, (input, expected, decided)) in steps.into_iter().enumerate() {
            let name = format!("step {place}: {input:?}");
            review.step(input, &batch);
            assert_eq!(review.current(&batch), expected, "{name}");
            assert_eq!(review.progress(&batch).0, decided, "{name}");
            // Everything is kept across a reload.
            assert_eq!(Review::read(&review.to_json()).to_json(), review.to_json());
        }
    }
}

#[test]
fn only_accepted_and_corrected_boxes_are_results() {
    let batch = batch();
    let outcome = |item: usize| batch.items()[item].outcome().expect("done");
    let labels = |review: &Review, item| {
        let boxes = review.accepted(item, outcome(item))?;
        let labels = boxes.into_iter().map(|b| b.label.unwrap_or_default());
        Some(labels.collect::<Vec<_>>())
    };
    let mut review = Review::default();
    assert!(!review.is_begun());
    assert_eq!(labels(&review, 0), None, "nothing is decided");
    review.step(Input::Key(1), &batch);
    assert_eq!(labels(&review, 0), Some(vec!["dog".into()]));
    review.step(Input::Reject, &batch);
    assert_eq!(labels(&review, 3), None, "the answer is rejected");
    review.step(Input::Undo, &batch);
    review.step(Input::Accept, &batch);
    assert_eq!(labels(&review, 3), Some(vec![]), "a picture without boxes");
    review.step(Input::Label("  big \n hound".into()), &batch);
    assert_eq!(labels(&review, 2), Some(vec!["big hound".into()]));
    review.step(Input::Reject, &batch);
    assert_eq!(labels(&review, 0), Some(vec!["dog".into()]));
    assert_eq!(review.progress(&batch), (4, 4));
    assert_eq!(review.labels(&batch), ["cat", "dog", "bird", "big hound"]);
}

#[test]
fn a_missing_box_is_drawn_with_pointer_or_keys() {
    let batch = batch();
    let mut review = Review::default();
    review.step(Input::Add, &batch);
    assert_eq!(review.progress(&batch), (0, 4), "nothing is drawn yet");
    review.step(Input::Draw, &batch);
    let sketch = |r: &Review| <[f32; 4]>::from(r.sketch().expect("a box")).map(f32::round);
    assert_eq!(sketch(&review), [33., 27., 67., 53.]);
    let nudge = |dx, dy, sizes| Input::Nudge { dx, dy, sizes };
    review.step(nudge(-2.0, 1.0, false), &batch);
    review.step(nudge(10.0, -3.0, true), &batch);
    assert_eq!(sketch(&review), [31., 28., 75., 51.]);
    review.step(nudge(-99.0, -99.0, true), &batch);
    review.step(nudge(-99.0, 99.0, false), &batch);
    assert_eq!(sketch(&review), [0., 79., 1., 80.], "it stays inside");
    review.step(Input::Sketch([90., 70., 120., 60.].into()), &batch);
    assert_eq!(sketch(&review), [90., 60., 100., 70.]);
    review.step(Input::Sketch([200., 0., 300., 10.].into()), &batch);
    assert_eq!(sketch(&review), [90., 60., 100., 70.], "outside");
    review.step(Input::Key(1), &batch);
    assert_eq!(review.sketch(), None);
    assert_eq!(
        review.current(&batch),
        at(0, 1),
        "the same box is still open"
    );
    let first = batch.items()[0].outcome().expect("done");
    let accepted = review.accepted(0, first).expect("one");
    assert_eq!(
        (accepted.len(), accepted[0].label.as_deref()),
        (1, Some("dog"))
    );
    assert_eq!(review.boxes(0, first).len(), 3);
    review.step(Input::Undo, &batch);
    assert!(!review.is_begun() && !review.can_undo());
    // A second press of the key drops the sketch.
    review.step(Input::Draw, &batch);
    review.step(Input::Draw, &batch);
    assert_eq!(review.sketch(), None);
    review.step(Input::Draw, &batch);
    review.step(Input::Drop, &batch);
    assert_eq!(review.sketch(), None);
}

#[test]
fn an_empty_batch_and_damaged_reviews_do_no_harm() {
    let mut review = Review::read("{");
    let empty = Batch::default();
    for input in [
        Input::Accept,
        Input::Key(0),
        Input::Move(1),
        Input::Picture(1),
        Input::Draw,
        Input::Add,
        Input::Undo,
    ] {
        review.step(input, &empty);
    }
    assert_eq!(review.current(&empty), None);
    let foreign = r#"{"version":1,"order":"LeastSure","cursor":{"item":99,"part":7},
        "marks":{"99":{"7":{"accepted":true,"label":null}}},"drawn":{},"steps":[{"Drawn":99}]}"#;
    let batch = batch();
    let mut review = Review::read(foreign);
    assert!(review.is_begun());
    assert_eq!(review.current(&batch), at(0, 1));
    review.step(Input::Undo, &batch);
    assert_eq!(review.progress(&batch), (0, 4));
}

#[test]
fn what_is_not_stored_changes_nothing_that_is() {
    let batch = batch();
    let mut review = Review::default();
    let sketch = [1., 2., 30., 40.].into();
    let nudge = Input::Nudge {
        dx: 1.,
        dy: 0.,
        sizes: false,
    };
    for input in [Input::Draw, Input::Sketch(sketch), nudge, Input::Drop] {
        assert!(!input.is_stored());
        let before = review.to_json();
        review.step(input, &batch);
        assert_eq!(review.to_json(), before);
    }
    assert!(Input::Accept.is_stored() && Input::Add.is_stored() && Input::Move(1).is_stored());
}
