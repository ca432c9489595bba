use super::*;
use crate::chat::test_data;

fn outcome() -> Box<Outcome> {
    test_data::outcome(Vec::new())
}

fn fault() -> Fault {
    Fault::new(FaultKind::Picture, "b.png", "it is no picture", "Skip it")
}

fn batch(count: usize) -> Batch {
    let task = Task {
        kind: TaskKind::Find,
        words: "cat".into(),
    };
    let items = (0..count).map(|i| Item::new(format!("{i}.png")));
    Batch::new("k".into(), task, false, items.collect())
}

fn answered(index: usize, now: f64) -> Input {
    Input::Answered(index, outcome(), now)
}

/// The states in one word each.
fn states(batch: &Batch) -> String {
    let all = batch.items().iter().map(|item| &item.state.key()[..1]);
    all.collect()
}

#[test]
fn inputs_lead_to_states_and_effects() {
    use Effect::{Begin, Stop, Store};
    use Status::{Finished, Paused, Pausing, Running};
    type Case = (
        &'static str,
        Vec<(Input, Vec<Effect>, &'static str, Status)>,
    );
    let cases: Vec<Case> = vec![
        (
            "a queue goes on after a failure and ends",
            vec![
                (Input::Free(0.0), vec![], "www", Paused),
                (Input::Resume, vec![], "www", Running),
                (Input::Free(0.0), vec![Begin(0)], "rww", Running),
                (Input::Free(1.0), vec![], "rww", Running),
                (answered(0, 5.0), vec![Store(0)], "dww", Running),
                (Input::Free(5.0), vec![Begin(1)], "drw", Running),
                (Input::Failed(1, fault()), vec![Store(1)], "dfw", Running),
                (Input::Free(6.0), vec![Begin(2)], "dfr", Running),
                (answered(2, 9.0), vec![Store(2)], "dfd", Finished),
                (Input::Free(9.0), vec![], "dfd", Finished),
                (Input::RetryFailed, vec![Store(1)], "dwd", Running),
                (Input::Free(9.0), vec![Begin(1)], "drd", Running),
                (answered(1, 10.0), vec![Store(1)], "ddd", Finished),
                (Input::RetryFailed, vec![], "ddd", Finished),
            ],
        ),
        (
            "a pause waits for the running picture",
            vec![
                (Input::Resume, vec![], "www", Running),
                (Input::Free(0.0), vec![Begin(0)], "rww", Running),
                (Input::Pause, vec![], "rww", Pausing),
                (answered(0, 2.0), vec![Store(0)], "dww", Paused),
                (Input::Free(2.0), vec![], "dww", Paused),
                (Input::Resume, vec![], "dww", Running),
                (Input::Free(2.0), vec![Begin(1)], "drw", Running),
            ],
        ),
        (
            "a cancelled batch keeps what is done, and can go on",
            vec![
                (Input::Resume, vec![], "www", Running),
                (Input::Free(0.0), vec![Begin(0)], "rww", Running),
                (answered(0, 2.0), vec![Store(0)], "dww", Running),
                (Input::Free(2.0), vec![Begin(1)], "drw", Running),
                (
                    Input::Cancel,
                    vec![Stop, Store(1), Store(2)],
                    "dss",
                    Finished,
                ),
                (answered(1, 3.0), vec![], "dss", Finished),
                (
                    Input::RetrySkipped,
                    vec![Store(1), Store(2)],
                    "dww",
                    Running,
                ),
            ],
        ),
        (
            "pictures are skipped while they wait and while they run",
            vec![
                (Input::Resume, vec![], "www", Running),
                (Input::Free(0.0), vec![Begin(0)], "rww", Running),
                (Input::Skip(1), vec![Store(1)], "rsw", Running),
                (Input::Skip(0), vec![Stop, Store(0)], "ssw", Running),
                (Input::Skip(9), vec![], "ssw", Running),
                (Input::Skip(0), vec![], "ssw", Running),
                (Input::Free(0.0), vec![Begin(2)], "ssr", Running),
            ],
        ),
        (
            "the user's question goes first",
            vec![
                (Input::Resume, vec![], "www", Running),
                (Input::Free(0.0), vec![Begin(0)], "rww", Running),
                (Input::Interrupted, vec![Stop], "www", Running),
                (Input::Interrupted, vec![], "www", Running),
                (answered(0, 1.0), vec![], "www", Running),
                (Input::Free(4.0), vec![Begin(0)], "rww", Running),
            ],
        ),
        (
            "a picture that takes the engine down twice has failed",
            vec![
                (Input::Resume, vec![], "www", Running),
                (Input::Free(0.0), vec![Begin(0)], "rww", Running),
                (Input::Lost(fault()), vec![Stop, Store(0)], "www", Running),
                (Input::Lost(fault()), vec![], "www", Running),
                (Input::Free(1.0), vec![Begin(0)], "rww", Running),
                (Input::Lost(fault()), vec![Stop, Store(0)], "fww", Running),
                (Input::Free(2.0), vec![Begin(1)], "frw", Running),
            ],
        ),
    ];
    for (name, steps) in cases {
        let mut batch = batch(3);
        for (place, (input, effects, expected, status)) in steps.into_iter().enumerate() {
            let at = format!("{name}, step {place}: {input:?}");
            assert_eq!(batch.step(input), effects, "{at}");
            assert_eq!(states(&batch), expected, "{at}");
            assert_eq!(batch.status(), status, "{at}");
        }
    }
}

#[test]
fn a_reload_keeps_what_is_done_and_works_on_the_rest() {
    let mut before = batch(4);
    before.step(Input::Resume);
    before.step(Input::Free(0.0));
    before.step(answered(0, 10.0));
    before.step(Input::Free(10.0));
    before.step(Input::Failed(1, fault()));
    before.step(Input::Free(11.0));
    assert_eq!(states(&before), "dfrw");
    let items = before.items().iter().map(|item| Some(item.to_json()));
    let items: Vec<_> = items.collect();
    let head = before.head.to_json();
    let mut after = Batch::restore(&head, &items).expect("ours");
    assert_eq!(
        (states(&after).as_str(), after.status()),
        ("dfww", Status::Paused)
    );
    assert_eq!(after.items()[0], before.items()[0]);
    after.step(Input::Resume);
    assert_eq!(after.step(Input::Free(0.0)), [Effect::Begin(2)]);
}

#[test]
fn damaged_and_missing_records_cost_one_picture_each() {
    let before = batch(3);
    let good = Some(before.items()[0].to_json());
    let head = before.head.to_json();
    let items = [good.clone(), Some("{".into()), None];
    let mut after = Batch::restore(&head, &items).expect("ours");
    assert_eq!(states(&after), "wff");
    let codes = after.items().iter().map(|item| match &item.state {
        ItemState::Failed(fault) => Some(fault.code),
        _ => None,
    });
    let expected = [None, Some(ErrorCode::Corrupt), Some(ErrorCode::NotFound)];
    assert_eq!(codes.collect::<Vec<_>>(), expected);
    // Without its file a picture cannot be tried again.
    after.step(Input::RetryFailed);
    assert_eq!(states(&after), "wwf");
    for bad in ["", "{}", r#"{"version": 2}"#, r#"{"version":1,"id":3}"#] {
        assert_eq!(
            Batch::restore(bad, std::slice::from_ref(&good)),
            None,
            "{bad}"
        );
    }
    let many = head.replace("\"count\":3", "\"count\":99999999999");
    let restored = Batch::restore(&many, &items).expect("a head");
    assert_eq!(restored.items().len(), MAX_PICTURES);
}

#[test]
fn the_time_left_is_that_of_the_pictures_before() {
    let mut batch = batch(4);
    batch.step(Input::Resume);
    batch.step(Input::Free(0.0));
    assert_eq!(batch.time_left(500.0), None);
    batch.step(answered(0, 1_000.0));
    assert_eq!(batch.time_left(1_000.0), Some(3_000.0));
    batch.step(Input::Free(1_000.0));
    assert_eq!(batch.time_left(1_250.0), Some(2_750.0));
    assert_eq!(batch.time_left(60_000.0), Some(2_000.0));
    batch.step(Input::Cancel);
    assert_eq!(batch.time_left(60_000.0), None);
    let counts = batch.counts();
    assert_eq!((counts.all(), counts.ended(), counts.skipped), (4, 4, 3));
}

#[test]
fn the_same_file_is_worked_on_once() {
    let files = [("a.png", 5), ("a.png", 6), ("a.png", 5), ("", 5), ("", 5)];
    let items = Item::all(files);
    let states = items.iter().map(|item| item.state.key());
    let expected = ["waiting", "waiting", "skipped", "waiting", "waiting"];
    assert_eq!(states.collect::<Vec<_>>(), expected);
    let mut batch = Batch::new("k".into(), Task::default(), false, items);
    batch.step(Input::RetrySkipped);
    assert_eq!(batch.counts().skipped, 1, "it stays left out");
}

#[test]
fn tasks_are_complete_or_not() {
    for kind in TaskKind::ALL {
        assert_eq!(TaskKind::of_key(kind.key()), Some(kind));
        let task = |words: &str| Task {
            kind,
            words: words.into(),
        };
        assert_eq!(task(" ").is_complete(), !kind.needs_words(), "{kind:?}");
        assert!(task("cat; dog").is_complete());
        assert_eq!(task("cat").draft().is_none(), kind == TaskKind::NameAll);
        let things = task("cat; dog").things();
        let names = matches!(kind, TaskKind::Find | TaskKind::Count);
        assert_eq!(things.len(), if names { 2 } else { 0 });
    }
    assert_eq!(TaskKind::of_key("x"), None);
}
