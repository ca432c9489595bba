//! Questions about a label scene with their answers.
//!
//! Answers have a fixed form: the list of boxes first, then the number, so that counting is reading the
//! length of the list; indices ascend; kinds are in the order of the question, or of their first box.

use super::draw::{LabelObject, LabelScene};
use super::kinds::{GROUPS, KINDS};
use super::phrases;
use super::template::{expand, expand_any};
use crate::scenes::Rng;
use crate::text::kinds::with_article;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelTask {
    /// All boxes of a kind, or of a group of kinds.
    DetectOne,
    /// Several kinds, some of them possibly absent.
    DetectSeveral,
    /// A kind that is absent.
    DetectAbsent,
    /// The kind of a box.
    Name,
    /// The number of objects of a kind.
    Count,
    /// Whether there is an object of a kind.
    Exists,
    /// The leftmost, rightmost, topmost, bottommost, biggest or smallest object of a kind. The answer names
    /// it with the superlative, so that the phrase before the index says which box it is.
    Refer,
    /// The part of the picture that an object is in.
    Where,
    /// All kinds with their boxes.
    Caption,
    /// The number of boxes.
    Total,
    /// Questions about the program, thanks.
    Help,
    /// Questions about the picture that the object tokens cannot answer.
    Cannot,
    /// Requests that have nothing to do with the picture.
    OffTopic,
    /// Things without a word among the kinds.
    UnknownNoun,
    /// Other languages.
    Foreign,
    /// Recorded answers to everyday questions, which the trainer adds; none is drawn here.
    Chat,
}

impl LabelTask {
    /// Every task that is drawn.
    pub const ALL: [Self; 15] = [
        Self::DetectOne,
        Self::DetectSeveral,
        Self::DetectAbsent,
        Self::Name,
        Self::Count,
        Self::Exists,
        Self::Refer,
        Self::Where,
        Self::Caption,
        Self::Total,
        Self::Help,
        Self::Cannot,
        Self::OffTopic,
        Self::UnknownNoun,
        Self::Foreign,
    ];
}

/// A question and its answer, both as the model reads and writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelDialogue {
    /// What the question asks for.
    pub task: LabelTask,
    /// The question.
    pub question: String,
    /// The answer with its tags.
    pub answer: String,
}

/// The answer if the picture has no box at all.
const NOTHING: &str = "I see nothing that I know in this picture.";
/// The answer to questions about the program.
const HELP: &str = "I can find, count, name and compare 80 kinds of everyday things in this picture, such as people, \
                    animals, vehicles, furniture and food.";
/// The answer to questions that cannot be answered.
const CANNOT: &str = "I cannot tell that. I can find, count, name and compare everyday things.";
/// The answer to a question about something without a word.
const NO_WORD: &str = "I have no word for that. I know 80 kinds of everyday things.";
/// The answer to other languages.
const FOREIGN: &str = "I only understand English.";
/// The answer about a box of no known kind.
const UNKNOWN_BOX: &str = "I do not know what this is.";
/// The answer to thanks.
const THANKS: &str = "You are welcome.";
/// Captions mention kinds with a box of at least this score.
const CONFIDENT_SCORE: f32 = 0.3;
/// Least difference of two positions, as a fraction of the side, for a superlative.
const MIN_OFFSET: f32 = 0.015;
/// Least ratio of two areas for a superlative.
const MIN_RATIO: f32 = 1.08;

/// A kind or a group of kinds that a question asks for.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Kind(usize),
    Group(usize),
}

impl Subject {
    fn random(rng: &mut Rng) -> Self {
        if rng.chance(6) {
            Self::Group(rng.below(GROUPS.len()))
        } else {
            Self::Kind(rng.below(KINDS.len()))
        }
    }

    /// A subject with at least one box; mostly a kind.
    fn present(scene: &LabelScene, rng: &mut Rng) -> Option<Self> {
        let kinds = scene.kinds();
        if kinds.is_empty() {
            return None;
        }
        if rng.chance(9) {
            let groups: Vec<usize> = (0..GROUPS.len())
                .filter(|&group| !Self::Group(group).indices(scene).is_empty())
                .collect();
            return Some(Self::Group(*rng.pick(&groups)));
        }
        Some(Self::Kind(*rng.pick(&kinds)))
    }

    /// A subject without any box.
    fn absent(scene: &LabelScene, rng: &mut Rng) -> Self {
        loop {
            let subject = Self::random(rng);
            if subject.indices(scene).is_empty() {
                return subject;
            }
            if scene.kinds().len() == KINDS.len() {
                return Self::Kind(0);
            }
        }
    }

    fn indices(self, scene: &LabelScene) -> Vec<usize> {
        match self {
            Self::Kind(kind) => scene.indices(|k| k == kind),
            Self::Group(group) => {
                let group = GROUPS[group];
                scene.indices(|k| (group.first..=group.last).contains(&k))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kind(kind) => KINDS[kind].name,
            Self::Group(group) => GROUPS[group].plural,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Kind(kind) => KINDS[kind].plural,
            Self::Group(group) => GROUPS[group].plural,
        }
    }

    /// A word for it as a user writes it.
    fn word(self, plural: bool, rng: &mut Rng) -> &'static str {
        match self {
            Self::Kind(kind) => {
                let kind = &KINDS[kind];
                if !kind.synonyms.is_empty() && rng.chance(25) {
                    let (one, many) = *rng.pick(kind.synonyms);
                    return if plural { many } else { one };
                }
                if plural { kind.plural } else { kind.name }
            }
            Self::Group(group) => {
                if plural {
                    GROUPS[group].plural
                } else {
                    GROUPS[group].name
                }
            }
        }
    }

    /// A noun phrase as the object of a verb.
    fn noun_phrase(self, rng: &mut Rng) -> String {
        let plural = rng.chance(60);
        let word = self.word(plural, rng);
        let before = if plural {
            *rng.pick(&[
                "",
                "",
                "",
                "all ",
                "all the ",
                "the ",
                "the ",
                "any ",
                "every one of the ",
                "all of the ",
            ])
        } else {
            *rng.pick(&["", "", "the ", "the ", "a ", "any ", "every ", "each "])
        };
        if before == "a " {
            return with_article(word);
        }
        format!("{before}{word}")
    }
}

/// `<ground>phrase</ground><objects>…</objects>`.
fn group(phrase: &str, indices: &[usize]) -> String {
    let list: String = indices
        .iter()
        .map(|index| format!("<obj{index}>"))
        .collect();
    format!("<ground>{phrase}</ground><objects>{list}</objects>")
}

/// The group of `subject` in the singular or the plural, as its number requires.
fn counted(subject: Subject, indices: &[usize]) -> String {
    let phrase = if indices.len() == 1 {
        subject.name()
    } else {
        subject.plural()
    };
    group(phrase, indices)
}

/// [`counted`] with an article if there is one object.
fn counted_with_article(subject: Subject, indices: &[usize]) -> String {
    let counted = counted(subject, indices);
    let name = subject.name();
    match (subject, indices.len()) {
        (Subject::Kind(_), 1) => match with_article(name).strip_suffix(name) {
            Some(article) => format!("{article}{counted}"),
            None => counted,
        },
        _ => counted,
    }
}

fn refusal(subject: Subject) -> String {
    format!("I see no {} in this picture.", subject.name())
}

/// A random dialogue of `task` about `scene`; `None` if the task is not possible.
pub fn label_dialogue(scene: &LabelScene, task: LabelTask, rng: &mut Rng) -> Option<LabelDialogue> {
    let (question, answer) = match task {
        LabelTask::DetectOne => {
            let subject = Subject::present(scene, rng)?;
            let mut phrase = subject.noun_phrase(rng);
            if rng.chance(6) {
                let noun = *rng.pick(phrases::UNKNOWN_NOUNS);
                let place = rng.pick(phrases::BESIDE_UNKNOWN).replace("{}", noun);
                phrase = format!("{phrase} {place}");
            }
            let question = detect_question(&phrase, rng);
            (question, group(subject.name(), &subject.indices(scene)))
        }
        LabelTask::DetectSeveral => several(scene, rng),
        LabelTask::DetectAbsent => {
            let subject = Subject::absent(scene, rng);
            (
                detect_question(&subject.noun_phrase(rng), rng),
                refusal(subject),
            )
        }
        LabelTask::Name => name(scene, rng)?,
        LabelTask::Count => {
            let present = Subject::present(scene, rng).filter(|_| !rng.chance(10));
            let subject = present.unwrap_or_else(|| Subject::absent(scene, rng));
            let word = subject.word(!rng.chance(30), rng);
            let question = any_wording(phrases::COUNT, rng).replace("{}", word);
            (question, count_answer(subject, &subject.indices(scene)))
        }
        LabelTask::Exists => exists(scene, rng),
        LabelTask::Refer => refer(scene, rng)?,
        LabelTask::Where => where_is(scene, rng)?,
        LabelTask::Caption => {
            let question = if rng.chance(30) {
                phrases::CAPTION[rng.below(2)].to_owned()
            } else {
                any_wording(phrases::CAPTION, rng)
            };
            (question, caption(scene))
        }
        LabelTask::Total => {
            let question = expand_any(phrases::TOTAL, rng);
            let answer = match scene.objects.len() {
                0 => NOTHING.to_owned(),
                1 => "I count 1 thing.".to_owned(),
                count => format!("I count {count} things."),
            };
            (question, answer)
        }
        LabelTask::Help if rng.chance(25) => (expand_any(phrases::THANKS, rng), THANKS.to_owned()),
        LabelTask::Help => (expand_any(phrases::HELP, rng), HELP.to_owned()),
        LabelTask::Chat => return None,
        LabelTask::Cannot | LabelTask::OffTopic => {
            let templates = match task {
                LabelTask::Cannot => phrases::CANNOT,
                _ => phrases::OFF_TOPIC,
            };
            let mut question = any_wording(templates, rng);
            while question.contains("{}") {
                let word = Subject::random(rng).word(false, rng);
                question = question.replacen("{}", word, 1);
            }
            (question, CANNOT.to_owned())
        }
        LabelTask::UnknownNoun => (unknown_noun(rng), NO_WORD.to_owned()),
        LabelTask::Foreign => ((*rng.pick(phrases::FOREIGN)).to_owned(), FOREIGN.to_owned()),
    };
    Some(LabelDialogue {
        task,
        question: as_typed(question, rng),
        answer,
    })
}

/// The expansion of `template` with fillers in three of ten cases, so that unknown words in a
/// question about a kind change nothing.
fn wording(template: &str, rng: &mut Rng) -> String {
    let mut text = expand(template, rng);
    for _ in 0..[0, 0, 0, 0, 0, 0, 0, 1, 1, 2][rng.below(10)] {
        let filler = *rng.pick(phrases::FILLERS);
        let ends: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
        match ends.len() {
            0 => text = format!("{filler} {text}"),
            count => match rng.below(count + 2) {
                0 => text = format!("{filler}, {text}"),
                place if place <= count => text.insert_str(ends[place - 1], &format!(" {filler}")),
                _ => text = format!("{text} {filler}"),
            },
        }
    }
    text
}

fn any_wording(templates: &[&str], rng: &mut Rng) -> String {
    let index = rng.below(templates.len());
    wording(templates[index], rng)
}

/// The question as people type it: sometimes without capitals or the final mark.
fn as_typed(mut question: String, rng: &mut Rng) -> String {
    match rng.below(10) {
        0..2 => question = question.to_lowercase(),
        2 => question = question.trim_end_matches(['.', '?', '!']).to_owned(),
        _ => {}
    }
    question
}

fn detect_question(phrase: &str, rng: &mut Rng) -> String {
    let template = if rng.chance(20) {
        phrases::DETECT[0]
    } else {
        *rng.pick(phrases::DETECT)
    };
    wording(template, rng).replace("{}", phrase)
}

/// A detection of two to six kinds, present ones and absent ones.
fn several(scene: &LabelScene, rng: &mut Rng) -> (String, String) {
    let mut kinds = scene.kinds();
    rng.shuffle(&mut kinds);
    kinds.truncate(1 + rng.below(8));
    for _ in 0..[0, 1, 1, 2][rng.below(4)] {
        let kind = rng.below(KINDS.len());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.len() < 2 {
        kinds.extend(
            (0..KINDS.len())
                .cycle()
                .skip(rng.below(KINDS.len()))
                .find(|k| !kinds.contains(k)),
        );
    }
    rng.shuffle(&mut kinds);
    let subjects: Vec<Subject> = kinds.into_iter().map(Subject::Kind).collect();
    let phrase = if rng.chance(55) {
        let names: Vec<&str> = subjects.iter().map(|s| s.name()).collect();
        names.join("; ")
    } else {
        let plural = rng.chance(60);
        let article = *rng.pick(&["", "", "the ", "all "]);
        let words: Vec<String> = subjects
            .iter()
            .map(|s| format!("{article}{}", s.word(plural, rng)))
            .collect();
        match rng.below(3) {
            0 => words.join(", "),
            _ => {
                let (last, first) = words.split_last().expect("there are two subjects or more");
                let link = *rng.pick(&["and", "and", "or"]);
                if first.is_empty() {
                    last.clone()
                } else {
                    format!("{} {link} {last}", first.join(", "))
                }
            }
        }
    };
    let lines: Vec<String> = subjects
        .iter()
        .map(|&s| (s, s.indices(scene)))
        .filter(|(_, indices)| !indices.is_empty())
        .map(|(s, indices)| group(s.name(), &indices))
        .collect();
    let answer = if lines.is_empty() {
        "I see none of these in this picture.".to_owned()
    } else {
        lines.join("\n")
    };
    (detect_question(&phrase, rng), answer)
}

fn name(scene: &LabelScene, rng: &mut Rng) -> Option<(String, String)> {
    if scene.objects.is_empty() {
        return None;
    }
    let index = rng.below(scene.objects.len());
    let template = if rng.chance(20) {
        phrases::NAME[0]
    } else {
        *rng.pick(phrases::NAME)
    };
    let question = wording(template, rng).replace("{}", &format!("<obj{index}>"));
    let answer = scene.objects[index]
        .kind
        .map_or(UNKNOWN_BOX, |kind| KINDS[kind].name);
    Some((question, answer.to_owned()))
}

/// `Number of dogs: 2.`, which is right for any number.
fn count_answer(subject: Subject, indices: &[usize]) -> String {
    let phrase = match indices {
        [] => subject.plural().to_owned(),
        _ => group(subject.plural(), indices),
    };
    format!("Number of {phrase}: {}.", indices.len())
}

fn exists(scene: &LabelScene, rng: &mut Rng) -> (String, String) {
    let present = Subject::present(scene, rng).filter(|_| rng.chance(50));
    let subject = present.unwrap_or_else(|| Subject::absent(scene, rng));
    let plural = rng.chance(40);
    let word = subject.word(plural, rng);
    let phrase = match (plural, rng.below(4)) {
        (true, 0..3) => format!("any {word}"),
        (true, _) => word.to_owned(),
        (false, 0) => format!("any {word}"),
        (false, _) => with_article(word),
    };
    let question = any_wording(phrases::EXISTS, rng)
        .replace("{bare}", word)
        .replace("{}", &phrase);
    let indices = subject.indices(scene);
    let answer = if indices.is_empty() {
        format!("No, I see no {} in this picture.", subject.name())
    } else {
        format!("Yes, I see {}.", counted_with_article(subject, &indices))
    };
    (question, answer)
}

/// A superlative: the words for it, and the value that the object has more of than all others.
struct Superlative {
    adjectives: &'static [&'static str],
    /// What follows the noun instead of an adjective before it.
    after: &'static [&'static str],
    value: fn(&LabelObject) -> f32,
    /// Whether values are compared by their ratio.
    ratio: bool,
}

const SUPERLATIVES: [Superlative; 6] = [
    Superlative {
        adjectives: &["leftmost", "leftmost", "left most", "far left"],
        after: &[
            "on the far left",
            "furthest to the left",
            "farthest left",
            "closest to the left edge",
        ],
        value: |o| -o.center()[0],
        ratio: false,
    },
    Superlative {
        adjectives: &["rightmost", "rightmost", "right most", "far right"],
        after: &[
            "on the far right",
            "furthest to the right",
            "farthest right",
            "closest to the right edge",
        ],
        value: |o| o.center()[0],
        ratio: false,
    },
    Superlative {
        adjectives: &["topmost", "topmost", "highest", "uppermost", "top"],
        after: &[
            "at the very top",
            "furthest up",
            "nearest to the top",
            "closest to the top edge",
        ],
        value: |o| -o.center()[1],
        ratio: false,
    },
    Superlative {
        adjectives: &["bottommost", "bottommost", "lowest", "lowermost", "bottom"],
        after: &[
            "at the very bottom",
            "furthest down",
            "nearest to the bottom",
            "closest to the bottom edge",
        ],
        value: |o| o.center()[1],
        ratio: false,
    },
    Superlative {
        adjectives: &["biggest", "biggest", "largest", "most prominent"],
        after: &[
            "that is the biggest",
            "that is biggest",
            "with the largest size",
            "that looks largest",
        ],
        value: LabelObject::area,
        ratio: true,
    },
    Superlative {
        adjectives: &["smallest", "smallest", "tiniest", "littlest"],
        after: &[
            "that is the smallest",
            "that is smallest",
            "with the smallest size",
            "that looks smallest",
        ],
        value: |o| 1.0 / o.area().max(1e-6),
        ratio: true,
    },
];

/// A random superlative of one object among several of its kind, as `leftmost dog`, and the index of that
/// object; `None` if there is none or no clear one.
pub fn superlative(scene: &LabelScene, rng: &mut Rng) -> Option<(String, usize)> {
    let superlative = rng.pick(&SUPERLATIVES);
    let kind = *choose(&repeated_kinds(scene), rng)?;
    let winner = leading(scene, &Subject::Kind(kind).indices(scene), superlative)??;
    let adjective = superlative.adjectives[0];
    Some((format!("{adjective} {}", KINDS[kind].name), winner))
}

/// The kinds with more than one box.
fn repeated_kinds(scene: &LabelScene) -> Vec<usize> {
    let mut kinds = scene.kinds();
    kinds.retain(|&kind| Subject::Kind(kind).indices(scene).len() > 1);
    kinds
}

fn refer(scene: &LabelScene, rng: &mut Rng) -> Option<(String, String)> {
    let superlative = rng.pick(&SUPERLATIVES);
    let subject = if rng.chance(6) {
        Subject::absent(scene, rng)
    } else {
        let several = repeated_kinds(scene);
        if several.is_empty() || rng.chance(15) {
            Subject::present(scene, rng)?
        } else {
            Subject::Kind(*rng.pick(&several))
        }
    };
    let plain_adjective = *rng.pick(superlative.adjectives);
    let word = subject.word(false, rng);
    let question = match rng.below(4) {
        0 => any_wording(phrases::REFER_WHICH, rng)
            .replace("{adjective}", plain_adjective)
            .replace("{many}", subject.plural())
            .replace("{}", word),
        1 => any_wording(phrases::REFER, rng)
            .replace("{}", &format!("{word} {}", rng.pick(superlative.after))),
        _ => any_wording(phrases::REFER, rng).replace("{}", &format!("{plain_adjective} {word}")),
    };
    let indices = subject.indices(scene);
    let Some(winner) = leading(scene, &indices, superlative)? else {
        return Some((question, refusal(subject)));
    };
    let kind = scene.objects[winner]
        .kind
        .expect("the indices of a subject have kinds");
    let phrase = format!("{} {}", superlative.adjectives[0], KINDS[kind].name);
    Some((question, group(&phrase, &[winner])))
}

/// The object with the highest value; `Some(None)` without objects, `None` if two are about equal.
fn leading(
    scene: &LabelScene,
    indices: &[usize],
    superlative: &Superlative,
) -> Option<Option<usize>> {
    let value = |index: usize| (superlative.value)(&scene.objects[index]);
    let mut ranked = indices.to_vec();
    ranked.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    match ranked[..] {
        [] => Some(None),
        [only] => Some(Some(only)),
        [first, second, ..] => {
            let clear = if superlative.ratio {
                value(first) >= value(second) * MIN_RATIO
            } else {
                value(first) - value(second) >= MIN_OFFSET
            };
            clear.then_some(Some(first))
        }
    }
}

fn where_is(scene: &LabelScene, rng: &mut Rng) -> Option<(String, String)> {
    let subject = Subject::Kind(*choose(&scene.kinds(), rng)?);
    let [index] = subject.indices(scene)[..] else {
        return None;
    };
    let place = place(&scene.objects[index])?;
    let word = subject.word(false, rng);
    let question = any_wording(phrases::WHERE, rng).replace("{}", word);
    Some((
        question,
        format!("The {} is {place}.", group(subject.name(), &[index])),
    ))
}

fn choose<'a, T>(items: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    (!items.is_empty()).then(|| rng.pick(items))
}

/// The part of the picture of the object's center; `None` near a border of two parts.
fn place(object: &LabelObject) -> Option<&'static str> {
    let third = |value: f32| {
        let limits = [1.0 / 3.0, 2.0 / 3.0];
        if limits.iter().any(|limit| (value - limit).abs() < 0.02) {
            return None;
        }
        Some(limits.iter().filter(|&&limit| value > limit).count())
    };
    let [x, y] = object.center();
    Some(match (third(x)?, third(y)?) {
        (0, 0) => "at the top left",
        (1, 0) => "at the top",
        (2, 0) => "at the top right",
        (0, 1) => "on the left",
        (1, 1) => "in the middle",
        (2, 1) => "on the right",
        (0, 2) => "at the bottom left",
        (1, 2) => "at the bottom",
        _ => "at the bottom right",
    })
}

/// All kinds of which the detector is confident; all kinds if there is none.
fn caption(scene: &LabelScene) -> String {
    let confident = |&kind: &usize| {
        let mut objects = scene.objects.iter().filter(|o| o.kind == Some(kind));
        objects.any(|object| object.score() >= CONFIDENT_SCORE)
    };
    let all = scene.kinds();
    let mut kinds: Vec<usize> = all.iter().copied().filter(confident).collect();
    if kinds.is_empty() {
        kinds = all;
    }
    if kinds.is_empty() {
        return NOTHING.to_owned();
    }
    let parts = kinds.into_iter().map(|kind| {
        let subject = Subject::Kind(kind);
        counted_with_article(subject, &subject.indices(scene))
    });
    let parts: Vec<String> = parts.collect();
    format!("This picture shows: {}.", parts.join(", "))
}

fn unknown_noun(rng: &mut Rng) -> String {
    let noun = *rng.pick(phrases::UNKNOWN_NOUNS);
    let plural = format!("{noun}s");
    match rng.below(4) {
        0 => any_wording(phrases::COUNT, rng).replace("{}", &plural),
        1 => any_wording(phrases::EXISTS, rng)
            .replace("{bare}", &plural)
            .replace("{}", &with_article(noun)),
        2 => detect_question(&format!("the {noun}"), rng),
        _ => detect_question(&plural, rng),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: Option<usize>, bbox: [f32; 4]) -> LabelObject {
        let mut scores = vec![0.0; KINDS.len()];
        if let Some(kind) = kind {
            scores[kind] = 0.5;
        }
        LabelObject::new(bbox, scores)
    }

    /// A dog on the left, a cat in the middle, a bigger dog at the bottom right, an unknown box.
    fn scene() -> LabelScene {
        LabelScene {
            objects: vec![
                object(Some(16), [0.0, 0.4, 0.1, 0.5]),
                object(Some(15), [0.45, 0.45, 0.55, 0.55]),
                object(Some(16), [0.7, 0.7, 1.0, 1.0]),
                object(None, [0.2, 0.2, 0.3, 0.3]),
            ],
        }
    }

    fn answers(task: LabelTask) -> Vec<(String, String)> {
        (0..400)
            .filter_map(|seed| label_dialogue(&scene(), task, &mut Rng::new(seed, 0)))
            .map(|d| (d.question.to_lowercase(), d.answer))
            .collect()
    }

    #[test]
    fn answers_are_true() {
        let dogs = "<ground>dog</ground><objects><obj0><obj2></objects>";
        assert!(
            answers(LabelTask::DetectOne)
                .iter()
                .any(|(q, a)| q.contains("dog") && a == dogs)
        );
        for (question, answer) in answers(LabelTask::Count) {
            if question.contains("dogs") && !question.contains("hot") {
                assert_eq!(
                    answer, "Number of <ground>dogs</ground><objects><obj0><obj2></objects>: 2.",
                    "{question}"
                );
            }
        }
        for (question, answer) in answers(LabelTask::Refer) {
            let winner = if question.contains("leftmost dog") || question.contains("smallest dog") {
                "<obj0>"
            } else if question.contains("biggest dog") || question.contains("lowest dog") {
                "<obj2>"
            } else {
                continue;
            };
            if !question.contains("hot dog") {
                assert!(answer.contains(winner), "{question}: {answer}");
            }
        }
        for (question, answer) in answers(LabelTask::Name) {
            let expected = ["dog", "cat", "dog", UNKNOWN_BOX];
            let index = question
                .split("<obj")
                .nth(1)
                .and_then(|rest| rest[..1].parse::<usize>().ok());
            assert_eq!(answer, expected[index.expect("the question names a box")]);
        }
        for (_, answer) in answers(LabelTask::Caption) {
            assert_eq!(
                answer,
                "This picture shows: <ground>dogs</ground><objects><obj0><obj2></objects>, a \
                 <ground>cat</ground><objects><obj1></objects>."
            );
        }
        assert!(
            answers(LabelTask::Where)
                .iter()
                .all(|(_, a)| a.ends_with("is in the middle."))
        );
        assert!(
            answers(LabelTask::Total)
                .iter()
                .all(|(_, a)| a == "I count 4 things.")
        );
        for (_, answer) in answers(LabelTask::DetectAbsent) {
            assert!(answer.starts_with("I see no ") && !answer.contains("<obj"));
        }
    }

    #[test]
    fn superlatives_are_true() {
        let seen: std::collections::BTreeSet<_> = (0..200)
            .filter_map(|seed| superlative(&scene(), &mut Rng::new(seed, 0)))
            .collect();
        let of = |index: usize| {
            let phrases = seen.iter().filter(|(_, winner)| *winner == index);
            phrases
                .map(|(phrase, _)| phrase.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), ["leftmost dog", "smallest dog", "topmost dog"]);
        assert_eq!(of(2), ["biggest dog", "bottommost dog", "rightmost dog"]);
        assert!(superlative(&LabelScene::default(), &mut Rng::new(1, 0)).is_none());
    }

    #[test]
    fn captions_leave_out_unsure_kinds() {
        let mut scene = scene();
        scene.objects[1].scores[15] = 0.2;

        assert_eq!(
            caption(&scene),
            "This picture shows: <ground>dogs</ground><objects><obj0><obj2></objects>."
        );
        for index in [0, 2] {
            scene.objects[index].scores[16] = 0.2;
        }
        assert!(caption(&scene).contains("cat"), "all are unsure");
    }

    #[test]
    fn every_task_has_many_wordings_without_placeholders() {
        for task in LabelTask::ALL {
            let asked: std::collections::HashSet<String> =
                answers(task).into_iter().map(|(q, _)| q).collect();
            assert!(asked.len() > 20, "{task:?} {}", asked.len());
            for question in asked {
                assert!(!question.contains(['{', '}', '[', ']']), "{question}");
            }
        }
    }

    #[test]
    fn an_empty_scene_has_answers() {
        let empty = LabelScene::default();
        let mut rng = Rng::new(1, 0);
        let caption = label_dialogue(&empty, LabelTask::Caption, &mut rng).map(|d| d.answer);
        assert_eq!(caption.as_deref(), Some(NOTHING));
        assert!(label_dialogue(&empty, LabelTask::Name, &mut rng).is_none());
        assert!(label_dialogue(&empty, LabelTask::DetectOne, &mut rng).is_none());
    }
}
