//! Dialogues that follow from boxes and kinds alone, in the wordings and the grammar of training
//! (`scenes::DialogueTask`).

use super::contents::Contents;
use super::text;
use crate::scenes::{DialogueTask, REFUSAL, Rng, Split, number_word, wording};
use crate::text::kinds::{plural, with_article};
use crate::text::prompt::index_tag;

/// Objects of a picture that are named, and described.
pub(super) const REGIONS: usize = 3;
/// Kinds of one detection, at most.
const MAX_KINDS: usize = 8;
/// Least distance of the two centres, as a fraction of the side, of an extreme object and the next.
const MIN_OFFSET: f32 = 0.06;
/// Least ratio of the areas of an extreme object and the next.
const MIN_RATIO: f32 = 1.25;
/// Shares of the picture below which an object is small, and above which it is big. Between the second and the
/// third value, and between the fourth and the fifth, it is neither clearly.
const SHARES: [f32; 4] = [0.02, 0.03, 0.15, 0.22];
/// Half of the width of the strip around the middle in which an object is on no side.
const STRIP: f32 = 0.08;

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) task: &'static str,
    pub(super) question: String,
    pub(super) answer: String,
    /// Whether the caption comes from the annotations.
    pub(super) captioned: bool,
}

/// The name of a task in the records.
pub(super) fn name(task: DialogueTask) -> &'static str {
    match task {
        DialogueTask::DetectOne => "detect_one",
        DialogueTask::DetectSeveral => "detect_several",
        DialogueTask::DetectAbsent => "detect_absent",
        DialogueTask::Name => "name",
        DialogueTask::ShortPhrase => "short_phrase",
        DialogueTask::Brief => "brief",
        DialogueTask::Sentence => "sentence",
        DialogueTask::Count => "count",
        DialogueTask::Caption => "caption",
        DialogueTask::CaptionDetailed => "caption_detailed",
        DialogueTask::ReferPosition => "refer_position",
        DialogueTask::ReferSize => "refer_size",
        DialogueTask::ReferColour => "refer_colour",
        DialogueTask::ReferRelation => "refer_relation",
        DialogueTask::Where => "where",
        DialogueTask::Exists => "exists",
        DialogueTask::Relation => "relation",
        DialogueTask::Colour => "colour",
        DialogueTask::Total => "total",
    }
}

/// The question of `task` about `subject` in a wording of training.
pub(super) fn ask(task: DialogueTask, subject: &str, rng: &mut Rng) -> String {
    wording(task, Split::Train, rng).replace("[OBJ]", subject)
}

/// `<ground>phrase</ground><objects>…</objects>`.
pub(super) fn group(phrase: &str, indices: &[usize]) -> String {
    let tags: String = indices.iter().map(|&i| index_tag(i as u32)).collect();
    format!("<ground>{phrase}</ground><objects>{tags}</objects>")
}

/// All exchanges about `contents`.
pub(super) fn exchanges(contents: &Contents, rng: &mut Rng) -> Vec<Exchange> {
    let mut made = Vec::new();
    let mut add = |task: DialogueTask, subject: String, answer: Option<String>, rng: &mut Rng| {
        made.extend(answer.map(|answer| Exchange {
            task: name(task),
            question: ask(task, &subject, rng),
            answer,
            captioned: false,
        }));
    };
    use DialogueTask as T;
    let (subject, answer) = several(contents, rng);
    add(T::DetectSeveral, subject, answer, rng);
    if !contents.kinds.is_empty() {
        let kind = rng.pick(&contents.kinds).clone();
        let answer = group(&kind, &contents.indices(&contents.of_kind(&kind)));
        add(T::DetectOne, kind, Some(answer), rng);
        let kind = rng.pick(&contents.kinds).clone();
        let objects = contents.of_kind(&kind);
        let answer = format!(
            "{} {}",
            number_word(objects.len()),
            counted(contents, &kind)
        );
        add(T::Count, plural(&kind), Some(answer), rng);
        let kind = rng.pick(&contents.kinds).clone();
        add(T::Exists, with_article(&kind), Some("yes".into()), rng);
    }
    if !contents.absent.is_empty() {
        let kind = rng.pick(&contents.absent).clone();
        add(T::DetectAbsent, kind, Some(REFUSAL.into()), rng);
        let kind = rng.pick(&contents.absent).clone();
        add(T::Exists, with_article(&kind), Some("no".into()), rng);
    }
    let mut things: Vec<usize> = (0..contents.things.len()).collect();
    rng.shuffle(&mut things);
    for &thing in things.iter().take(REGIONS) {
        let tag = index_tag(contents.things[thing].index as u32);
        let kind = contents.things[thing].kind.clone();
        add(T::Name, tag.clone(), Some(kind), rng);
        add(T::ShortPhrase, tag.clone(), phrase(contents, thing), rng);
        add(T::Sentence, tag, sentence(contents, thing), rng);
    }
    let mut kinds = contents.kinds.clone();
    rng.shuffle(&mut kinds);
    for task in [T::ReferPosition, T::ReferSize] {
        let found = kinds
            .iter()
            .find_map(|kind| extreme(contents, task, kind, rng));
        if let Some((subject, answer)) = found {
            add(task, subject, Some(answer), rng);
        }
    }
    if let Some((kind, answer)) = kinds.iter().find_map(|kind| where_is(contents, kind)) {
        add(T::Where, kind, Some(answer), rng);
    }
    add(T::Caption, String::new(), caption(contents), rng);
    add(T::CaptionDetailed, String::new(), detailed(contents), rng);
    for text in &contents.captions {
        if let Some(answer) = grounded(contents, text) {
            made.push(Exchange {
                task: name(T::Caption),
                question: ask(T::Caption, "", rng),
                answer,
                captioned: true,
            });
        }
    }
    made.extend(conversation(contents, rng));
    made
}

/// A detection of all kinds and an absent one.
fn several(contents: &Contents, rng: &mut Rng) -> (String, Option<String>) {
    let mut kinds = contents.kinds.clone();
    rng.shuffle(&mut kinds);
    kinds.truncate(MAX_KINDS);
    let present = kinds.len();
    if !contents.absent.is_empty() {
        kinds.push(rng.pick(&contents.absent).clone());
    }
    rng.shuffle(&mut kinds);
    let groups = kinds.iter().filter_map(|kind| {
        let indices = contents.indices(&contents.of_kind(kind));
        (!indices.is_empty()).then(|| group(kind, &indices))
    });
    let answer = groups.collect::<Vec<_>>().join("\n");
    (
        kinds.join("; "),
        (present > 0 && kinds.len() > 1).then_some(answer),
    )
}

/// The group of `kind` in the singular or the plural, as its number requires.
fn counted(contents: &Contents, kind: &str) -> String {
    let objects = contents.of_kind(kind);
    counted_objects(contents, kind, &objects)
}

fn counted_objects(contents: &Contents, kind: &str, objects: &[usize]) -> String {
    let phrase = match objects.len() {
        1 => kind.to_owned(),
        _ => plural(kind),
    };
    group(&phrase, &contents.indices(objects))
}

/// Article or number word, and the group of `objects` of `kind`.
fn mention(contents: &Contents, kind: &str, objects: &[usize]) -> String {
    let counted = counted_objects(contents, kind, objects);
    match objects.len() {
        1 => match with_article(kind).strip_suffix(kind) {
            Some(article) => format!("{article}{counted}"),
            None => counted,
        },
        count => format!("{} {counted}", number_word(count)),
    }
}

/// A phrase of at least three words.
fn phrase(contents: &Contents, thing: usize) -> Option<String> {
    let kind = &contents.things[thing].kind;
    Some(format!("{} {}", with_article(kind), contents.place(thing)?))
}

/// A short description: that of the annotations, else size and place.
fn sentence(contents: &Contents, thing: usize) -> Option<String> {
    let about = &contents.things[thing];
    if let Some(caption) = &about.caption {
        return text::judge(caption, &about.kind)
            .is_ok()
            .then(|| caption.clone());
    }
    let share = contents.share(thing);
    let size = match share {
        share if share < SHARES[0] => "small ",
        share if share > SHARES[3] => "big ",
        share if share > SHARES[1] && share < SHARES[2] => "",
        _ => return None,
    };
    let name = with_article(&format!("{size}{}", about.kind));
    Some(format!("{name} {}", contents.place(thing)?))
}

/// The extreme one of the objects of `kind`, with a subject and an answer.
fn extreme(
    contents: &Contents,
    task: DialogueTask,
    kind: &str,
    rng: &mut Rng,
) -> Option<(String, String)> {
    let objects = contents.of_kind(kind);
    if objects.len() < 2 {
        return None;
    }
    let size = task == DialogueTask::ReferSize;
    let words: &[(&str, f32)] = match size {
        true => &[("biggest", 1.0), ("smallest", -1.0)],
        false => &[
            ("leftmost", -1.0),
            ("rightmost", 1.0),
            ("highest", -1.0),
            ("lowest", 1.0),
        ],
    };
    let choice = rng.below(words.len());
    let (word, sign) = words[choice];
    let value = |thing: usize| {
        sign * match size {
            true => contents.share(thing).max(f32::MIN_POSITIVE).ln(),
            false => contents.centre(thing)[choice / 2],
        }
    };
    let mut ranked = objects;
    ranked.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    let least = if size { MIN_RATIO.ln() } else { MIN_OFFSET };
    let ahead = value(ranked[0]) - value(ranked[1]) >= least;
    let answer = group(kind, &contents.indices(&ranked[..1]));
    ahead.then(|| (format!("the {word} {kind}"), answer))
}

/// The place of the only object of `kind`.
fn where_is(contents: &Contents, kind: &str) -> Option<(String, String)> {
    let [thing] = contents.of_kind(kind)[..] else {
        return None;
    };
    let (place, group) = (contents.place(thing)?, counted(contents, kind));
    Some((kind.to_owned(), format!("The {group} is {place}.")))
}

/// `a, b and c`.
fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

fn caption(contents: &Contents) -> Option<String> {
    let kinds = contents.kinds.iter();
    let parts: Vec<String> = kinds
        .map(|kind| mention(contents, kind, &contents.of_kind(kind)))
        .collect();
    (!parts.is_empty()).then(|| format!("An image of {}", listed(&parts)))
}

fn detailed(contents: &Contents) -> Option<String> {
    let sentences = contents.kinds.iter().map(|kind| {
        let objects = contents.of_kind(kind);
        let place = match objects[..] {
            [thing] => contents
                .place(thing)
                .map_or(String::new(), |p| format!(" {p}")),
            _ => String::new(),
        };
        let verb = if objects.len() == 1 { "is" } else { "are" };
        format!("There {verb} {}{place}.", mention(contents, kind, &objects))
    });
    let sentences: Vec<String> = sentences.collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// `caption` with its phrases grounded; `None` if it has none without doubt, or is no good text.
fn grounded(contents: &Contents, caption: &str) -> Option<String> {
    if caption.contains('<') || text::check_length(caption).is_err() {
        return None;
    }
    let kinds = contents.kinds.iter();
    let objects: Vec<(String, Vec<usize>)> = kinds
        .map(|kind| (kind.clone(), contents.of_kind(kind)))
        .collect();
    let (mut answer, mut end) = (String::new(), 0);
    for text::Mention { range, objects } in text::mentions(caption, &objects) {
        answer += &caption[end..range.start];
        answer += &group(&caption[range.clone()], &contents.indices(&objects));
        end = range.end;
    }
    answer += &caption[end..];
    (end > 0).then_some(answer)
}

/// A conversation about one side of the picture, if every object is clearly on one side.
fn conversation(contents: &Contents, rng: &mut Rng) -> Option<Exchange> {
    let (axis, sign, side) = *rng.pick(&[
        (0, -1.0, "on the left"),
        (0, 1.0, "on the right"),
        (1, -1.0, "in the upper half"),
        (1, 1.0, "in the lower half"),
    ]);
    let offset = |thing: usize| sign * (contents.centre(thing)[axis] - 0.5);
    let mut parts = Vec::new();
    for kind in &contents.kinds {
        let mut objects = contents.of_kind(kind);
        if objects.iter().any(|&thing| offset(thing).abs() < STRIP) {
            return None;
        }
        objects.retain(|&thing| offset(thing) > 0.0);
        if !objects.is_empty() {
            parts.push((mention(contents, kind, &objects), objects.len()));
        }
    }
    // What is there of kinds that are not all known is not known either.
    let known = contents
        .things
        .iter()
        .all(|thing| contents.kinds.contains(&thing.kind));
    if parts.is_empty() || !known {
        return None;
    }
    let verb = if parts[0].1 == 1 { "is" } else { "are" };
    let parts: Vec<String> = parts.into_iter().map(|(part, _)| part).collect();
    let template = rng.pick(&[
        "Answer the question in grounded format. What can you see {}?",
        "Answer the question in grounded format. Question: What is {} of this image?",
        "What is {}?",
    ]);
    Some(Exchange {
        task: "conversation",
        question: template.replace("{}", side),
        answer: format!("There {verb} {} {side}.", listed(&parts)),
        captioned: false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::eval::photographs::{Annotation, Picture};
    use crate::text::answer_parser::spans;

    fn names() -> Vec<String> {
        ["dog", "person", "tree", "ghost", "umbrella"]
            .map(String::from)
            .to_vec()
    }

    /// Two dogs, a person with a description, a tree that is a crowd.
    fn picture() -> Picture {
        let mut annotations: Vec<Annotation> = [
            (0, [0.0, 40.0, 10.0, 10.0], false),
            (0, [60.0, 30.0, 30.0, 40.0], false),
            (1, [10.0, 5.0, 20.0, 30.0], false),
            (2, [50.0, 0.0, 50.0, 30.0], true),
        ]
        .map(|(kind, xywh, crowd)| Annotation::new(kind, xywh, crowd))
        .to_vec();
        annotations[2].caption = Some("A woman with a red hat".into());
        Picture {
            annotations,
            captions: vec!["A woman and two dogs under trees.".into()],
            ..Picture::new(3, "a.png", 100, 80)
        }
    }

    #[test]
    fn answers_say_what_the_annotations_say() {
        let mut tasks = BTreeSet::new();
        for seed in 0..40 {
            let mut rng = Rng::new(seed, 1);
            let extra = [
                [90.0, 60.0, 99.0, 79.0].into(),
                [61.0, 31.0, 90.0, 70.0].into(),
            ];
            let contents = Contents::annotated(&picture(), &names(), &extra, &mut rng);
            // One proposal is a copy of a dog.
            assert_eq!((contents.boxes.len(), contents.things.len()), (4, 3));
            assert_eq!(contents.absent, ["ghost", "umbrella"]);
            assert!(!contents.kinds.contains(&"tree".to_owned()));
            let dogs: BTreeSet<u32> = (contents.indices(&contents.of_kind("dog")).iter())
                .map(|&index| index as u32)
                .collect();
            for exchange in exchanges(&contents, &mut rng) {
                tasks.insert(exchange.task);
                let Exchange {
                    task,
                    question,
                    answer,
                    ..
                } = &exchange;
                let spans = spans(answer);
                for span in &spans {
                    let named: BTreeSet<u32> = span.objects.iter().copied().collect();
                    assert!(
                        named
                            .iter()
                            .all(|&index| (index as usize) < contents.boxes.len())
                    );
                    if span.text == "dogs" || (*task == "detect_several" && span.text == "dog") {
                        let all = *task != "conversation";
                        assert!(!all || named == dogs, "{question} {answer}");
                    }
                }
                let none = answer == REFUSAL;
                assert_eq!(none, *task == "detect_absent");
                if *task == "exists" {
                    let absent = question.contains("ghost") || question.contains("umbrella");
                    assert_eq!(answer == "no", absent, "{question}");
                }
                if *task == "count" && question.contains("dog") {
                    assert!(answer.starts_with("two <ground>dogs</ground>"), "{answer}");
                }
                if *task == "refer_size" {
                    let big = question.contains("biggest");
                    let index = spans[0].objects[0] as usize;
                    assert_eq!(contents.boxes[index].area() > 500.0, big, "{question}");
                }
                if exchange.captioned {
                    assert!(
                        answer.starts_with("<ground>A woman</ground><objects><obj"),
                        "{answer}"
                    );
                    assert!(
                        answer.contains("<ground>dogs</ground>")
                            && answer.ends_with(" under trees.")
                    );
                }
                assert!(!answer.contains("tree") || exchange.captioned, "{answer}");
            }
        }
        for task in [
            "detect_several",
            "detect_one",
            "detect_absent",
            "name",
            "short_phrase",
            "sentence",
            "count",
            "caption",
            "caption_detailed",
            "refer_position",
            "refer_size",
            "where",
            "exists",
            "conversation",
        ] {
            assert!(tasks.contains(task), "{task}");
        }
    }

    #[test]
    fn names_are_those_of_scenes() {
        for task in DialogueTask::ALL {
            assert_eq!(serde_json::json!(task), name(task));
        }
    }

    #[test]
    fn a_picture_without_objects_has_questions_about_absent_kinds_only() {
        let mut rng = Rng::new(1, 1);
        let empty = Picture::new(1, "a.png", 10, 10);
        let contents = Contents::annotated(&empty, &names(), &[], &mut rng);
        let tasks: Vec<&str> = (exchanges(&contents, &mut rng).iter())
            .map(|exchange| exchange.task)
            .collect();
        assert_eq!(tasks, ["detect_absent", "exists"]);
    }
}
