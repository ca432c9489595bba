//! Questions about a scene and their true answers, for every task of `chatrex.md` 10 and for
//! referring, absent things and plain questions.
//!
//! A dialogue names objects of the scene; [`Dialogue::render`] turns them into indices of a given
//! list of boxes, because training shuffles boxes, mixes in proposals, and may lack some.
//!
//! The grammar of the answers is plain and fixed: categories as they are called in the table, in
//! the order of the question, or of the table where the question gives none; indices ascending.

use serde::Serialize;

use super::draw::{Scene, Size, named};
use super::stickers::{Kind, Tint};
use super::wording::wording;
use super::{Rng, Split};

/// What the family says where nothing fits the question (`chatrex.md` 9.1).
const REFUSAL: &str = "There is no such thing in this image";
/// Distance of centres, as a share of the picture's side, from which one object counts as left of
/// or above another.
const APART: f32 = 0.06;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// All of one category, by kind or by colour and kind.
    DetectOne,
    /// Several categories, perhaps with an absent one, which the answer leaves out.
    DetectSeveral,
    /// A category that is not there: the answer is the refusal sentence.
    DetectAbsent,
    /// The word for a box.
    Name,
    /// Colour and kind of a box: `a red car`.
    ShortPhrase,
    /// Size, colour and kind of a box: `a small red car`.
    Brief,
    /// The same and where it is: `a small red car on the left`.
    Sentence,
    /// A number word and the group: `two <ground>dogs</ground><objects>…</objects>`.
    Count,
    /// Every kind with its number, one sentence.
    Caption,
    /// Every kind with its number, a sentence each, single ones with their place.
    CaptionDetailed,
    /// The leftmost, rightmost, highest or lowest.
    ReferPosition,
    /// The biggest or smallest.
    ReferSize,
    /// The only one of its kind and colour among others of its kind.
    ReferColour,
    /// The only one of its kind beside something.
    ReferRelation,
    /// Where the only one of its kind is, in grounded words.
    Where,
    /// Is there one? `yes` or `no`.
    Exists,
    /// Is this left of that? `yes` or `no`.
    Relation,
    /// The colour of a box.
    Colour,
    /// How many things there are, as a word.
    Total,
}

impl Task {
    /// Every task.
    pub const ALL: [Task; 19] = [
        Task::DetectOne,
        Task::DetectSeveral,
        Task::DetectAbsent,
        Task::Name,
        Task::ShortPhrase,
        Task::Brief,
        Task::Sentence,
        Task::Count,
        Task::Caption,
        Task::CaptionDetailed,
        Task::ReferPosition,
        Task::ReferSize,
        Task::ReferColour,
        Task::ReferRelation,
        Task::Where,
        Task::Exists,
        Task::Relation,
        Task::Colour,
        Task::Total,
    ];
}

/// A stretch of a question or an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// Plain words.
    Words(String),
    /// `<objK>` of an object of the scene.
    Index(usize),
    /// `<ground>phrase</ground><objects>…</objects>` over objects of the scene.
    Group {
        /// The words.
        phrase: String,
        /// The objects meant, by their number in the scene.
        objects: Vec<usize>,
    },
}

/// A question and its true answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// What is asked for.
    pub task: Task,
    /// The question.
    pub question: Vec<Piece>,
    /// The answer.
    pub answer: Vec<Piece>,
}

impl Dialogue {
    /// Question and answer over a list of boxes in which object `i` of the scene has index
    /// `box_of[i]`, or no box; `None` where [`Self::question`] or [`Self::answer`] is.
    pub fn render(&self, box_of: &[Option<usize>]) -> Option<(String, String)> {
        Some((self.question(box_of)?, self.answer(box_of)?))
    }

    /// The question over such a list; `None` where it asks about an object without a box.
    pub fn question(&self, box_of: &[Option<usize>]) -> Option<String> {
        text(&self.question, box_of, false)
    }

    /// The answer over such a list. A detection leaves out what has no box; everything else, and
    /// a detection of which nothing is left, has no true answer then: `None`.
    pub fn answer(&self, box_of: &[Option<usize>]) -> Option<String> {
        let partial = matches!(self.task, Task::DetectOne | Task::DetectSeveral);
        text(&self.answer, box_of, partial)
    }

    /// The object that the question names by its index.
    pub fn target(&self) -> Option<usize> {
        self.question.iter().find_map(|piece| match piece {
            Piece::Index(object) => Some(*object),
            _ => None,
        })
    }

    /// The objects that the answer names, ascending.
    pub fn objects(&self) -> Vec<usize> {
        let mut objects: Vec<usize> = self
            .answer
            .iter()
            .flat_map(|piece| match piece {
                Piece::Group { objects, .. } => objects.clone(),
                Piece::Index(object) => vec![*object],
                Piece::Words(_) => Vec::new(),
            })
            .collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }
}

fn text(pieces: &[Piece], box_of: &[Option<usize>], partial: bool) -> Option<String> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Words(words) => text.push_str(words),
            Piece::Index(object) => text.push_str(&format!("<obj{}>", box_of[*object]?)),
            Piece::Group { phrase, objects } => {
                let mut indices: Vec<usize> = objects.iter().filter_map(|&o| box_of[o]).collect();
                indices.sort_unstable();
                if indices.len() < objects.len() && !partial {
                    return None;
                }
                if indices.is_empty() {
                    continue;
                }
                if partial && !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&format!("<ground>{phrase}</ground><objects>"));
                for index in indices {
                    text.push_str(&format!("<obj{index}>"));
                }
                text.push_str("</objects>");
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The word for a number from 0 to 12; digits above.
pub fn number_word(n: usize) -> String {
    const WORDS: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve",
    ];
    WORDS
        .get(n)
        .map_or_else(|| n.to_string(), |w| (*w).to_owned())
}

/// One dialogue of every task that `scene` allows, drawn from `seed` and worded for the split of
/// the scene's seed.
pub fn dialogues(scene: &Scene, seed: u64) -> Vec<Dialogue> {
    let mut rng = Rng::new(seed, 1);
    Task::ALL
        .iter()
        .filter_map(|&task| dialogue(scene, task, &mut rng))
        .collect()
}

/// A dialogue of `task` about `scene`, worded for the split of the scene's seed; `None` where the
/// scene has nothing to ask it about.
pub fn dialogue(scene: &Scene, task: Task, rng: &mut Rng) -> Option<Dialogue> {
    let split = Split::of(scene.seed);
    let (asked, answer) = match task {
        Task::DetectOne => detect_one(scene, split, rng),
        Task::DetectSeveral => detect_several(scene, rng),
        Task::DetectAbsent => {
            let (kind, tint) = absent(scene, rng);
            Some((words(named(kind.word(), tint)), plain(REFUSAL)))
        }
        Task::Name => about(scene, rng, |o| scene.objects[o].kind.word().to_owned()),
        Task::ShortPhrase => about(scene, rng, |o| with_article(&scene.objects[o].name())),
        Task::Brief => {
            let object = anything(scene, rng);
            clear_size(scene, object).then(|| (Piece::Index(object), plain(brief(scene, object))))
        }
        Task::Sentence => {
            let object = anything(scene, rng);
            let clear = clear_size(scene, object);
            let place = place(scene, object)?;
            let sentence = format!("{} {place}", brief(scene, object));
            clear.then(|| (Piece::Index(object), plain(sentence)))
        }
        Task::Count => Some(count(scene, split, rng)),
        Task::Caption => Some((Piece::Words(String::new()), caption(scene))),
        Task::CaptionDetailed => Some((Piece::Words(String::new()), detailed(scene))),
        Task::ReferPosition => refer_position(scene, split, rng),
        Task::ReferSize => refer_size(scene, split, rng),
        Task::ReferColour => refer_colour(scene, rng),
        Task::ReferRelation => refer_relation(scene, rng),
        Task::Where => where_is(scene, rng),
        Task::Exists => Some(exists(scene, rng)),
        Task::Relation => relation(scene, rng),
        Task::Colour => {
            let dyed = |o: &usize| scene.objects[*o].tint.is_some();
            let dyed: Vec<usize> = (0..scene.objects.len()).filter(dyed).collect();
            let object = *choose(&dyed, rng)?;
            let tint = scene.objects[object].tint?;
            Some((Piece::Index(object), plain(tint.word())))
        }
        Task::Total => Some((
            Piece::Words(String::new()),
            plain(number_word(scene.objects.len())),
        )),
    }?;
    let frame = wording(task, split, rng);
    let question = match frame.split_once("[OBJ]") {
        Some((before, after)) => vec![
            Piece::Words(before.to_owned()),
            asked,
            Piece::Words(after.to_owned()),
        ],
        None => vec![Piece::Words(frame.to_owned())],
    };
    Some(Dialogue {
        task,
        question,
        answer,
    })
}

/// What stands for `[OBJ]`, and the answer.
type Exchange = (Piece, Vec<Piece>);

fn words(text: impl Into<String>) -> Piece {
    Piece::Words(text.into())
}

/// An answer of plain words.
fn plain(text: impl Into<String>) -> Vec<Piece> {
    vec![words(text)]
}

fn group(phrase: impl Into<String>, objects: Vec<usize>) -> Piece {
    Piece::Group {
        phrase: phrase.into(),
        objects,
    }
}

fn choose<'a, T>(items: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    (!items.is_empty()).then(|| rng.pick(items))
}

fn anything(scene: &Scene, rng: &mut Rng) -> usize {
    rng.below(scene.objects.len())
}

/// The objects of `kind`, and of `tint` where one is given.
fn objects_of(scene: &Scene, kind: Kind, tint: Option<Tint>) -> Vec<usize> {
    let fits = |o: &usize| {
        let object = &scene.objects[*o];
        object.kind == kind && (tint.is_none() || object.tint == tint)
    };
    (0..scene.objects.len()).filter(fits).collect()
}

/// The only object of `kind`.
fn only(scene: &Scene, kind: Kind) -> Option<usize> {
    match objects_of(scene, kind, None)[..] {
        [object] => Some(object),
        _ => None,
    }
}

/// A question about one box, with the answer that `say` gives for it.
fn about(scene: &Scene, rng: &mut Rng, say: impl Fn(usize) -> String) -> Option<Exchange> {
    let object = anything(scene, rng);
    Some((Piece::Index(object), plain(say(object))))
}

fn detect_one(scene: &Scene, split: Split, rng: &mut Rng) -> Option<Exchange> {
    let object = &scene.objects[anything(scene, rng)];
    let tint = object.tint.filter(|_| rng.chance(25));
    let name = named(object.kind.word(), tint);
    let asked = if split != Split::Test && rng.chance(20) {
        named(object.kind.plural(), tint)
    } else {
        name.clone()
    };
    let answer = group(name, objects_of(scene, object.kind, tint));
    Some((words(asked), vec![answer]))
}

fn detect_several(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let mut asked = scene.kinds();
    rng.shuffle(&mut asked);
    let with_absent = rng.chance(50);
    let least = if with_absent { 1 } else { 2 };
    if asked.len() < least {
        return None;
    }
    asked.truncate(least + rng.below(asked.len() - least + 1));
    if with_absent {
        asked.push(absent_kind(scene, rng));
        rng.shuffle(&mut asked);
    }
    Some(detection(scene, &asked))
}

/// The question for all `kinds` in their order, and its answer.
fn detection(scene: &Scene, kinds: &[Kind]) -> Exchange {
    let asked: Vec<&str> = kinds.iter().map(|k| k.word()).collect();
    let answer = kinds
        .iter()
        .map(|&kind| group(kind.word(), objects_of(scene, kind, None)))
        .filter(|g| !matches!(g, Piece::Group { objects, .. } if objects.is_empty()))
        .collect();
    (words(asked.join("; ")), answer)
}

/// The detection question of the evaluation: every kind present and `absent`, in random order,
/// worded for the split of the scene's seed.
pub(crate) fn detect_all(scene: &Scene, absent: Kind, rng: &mut Rng) -> Dialogue {
    let mut kinds = scene.kinds();
    kinds.push(absent);
    rng.shuffle(&mut kinds);
    let (asked, answer) = detection(scene, &kinds);
    let frame = wording(Task::DetectSeveral, Split::of(scene.seed), rng);
    let (before, after) = frame
        .split_once("[OBJ]")
        .expect("detection wordings name their objects");
    Dialogue {
        task: Task::DetectSeveral,
        question: vec![words(before), asked, words(after)],
        answer,
    }
}

/// A kind that is not in the picture.
pub(crate) fn absent_kind(scene: &Scene, rng: &mut Rng) -> Kind {
    let present = scene.kinds();
    let absent: Vec<Kind> = Kind::all().filter(|k| !present.contains(k)).collect();
    *rng.pick(&absent)
}

/// A category that is not in the picture; at times a kind that is, in another colour.
fn absent(scene: &Scene, rng: &mut Rng) -> (Kind, Option<Tint>) {
    let tint = *rng.pick(&Tint::ALL);
    let near = scene.objects[anything(scene, rng)].kind;
    let hard = rng.chance(25) && near.takes(tint) && objects_of(scene, near, Some(tint)).is_empty();
    if hard {
        return (near, Some(tint));
    }
    let kind = absent_kind(scene, rng);
    (kind, (rng.chance(20) && kind.takes(tint)).then_some(tint))
}

fn with_article(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}

/// Whether the object's size is far enough from a limit to be told from looking.
fn clear_size(scene: &Scene, object: usize) -> bool {
    let r = scene.relative(object);
    [0.2, 1.0 / 3.0]
        .iter()
        .all(|limit| (r / limit - 1.0).abs() > 0.06)
}

/// `a small red car`.
fn brief(scene: &Scene, object: usize) -> String {
    let name = scene.objects[object].name();
    match scene.size(object) {
        Size::Small => format!("a small {name}"),
        Size::Medium => with_article(&name),
        Size::Big => format!("a big {name}"),
    }
}

/// Centre of an object as shares of width and height.
fn centre(scene: &Scene, object: usize) -> [f32; 2] {
    let b = scene.objects[object].bbox;
    let (w, h) = (scene.pixels.width as f32, scene.pixels.height as f32);
    [(b.x1 + b.x2) / 2.0 / w, (b.y1 + b.y2) / 2.0 / h]
}

/// Where an object is; `None` where two answers are nearly as good.
fn place(scene: &Scene, object: usize) -> Option<&'static str> {
    let [x, y] = centre(scene, object).map(|c| c - 0.5);
    let far = x.abs().max(y.abs());
    if far < 0.14 {
        return Some("in the middle");
    }
    if far < 0.18 || (x.abs() - y.abs()).abs() < 0.04 {
        return None;
    }
    Some(match (x.abs() > y.abs(), x < 0.0, y < 0.0) {
        (true, true, _) => "on the left",
        (true, false, _) => "on the right",
        (false, _, true) => "at the top",
        (false, _, false) => "at the bottom",
    })
}

fn count(scene: &Scene, split: Split, rng: &mut Rng) -> Exchange {
    let object = &scene.objects[anything(scene, rng)];
    let tint = object.tint.filter(|_| rng.chance(20));
    let asked = if split != Split::Test && rng.chance(20) {
        object.kind.word()
    } else {
        object.kind.plural()
    };
    let objects = objects_of(scene, object.kind, tint);
    let answer = vec![
        words(format!("{} ", number_word(objects.len()))),
        numbered(object.kind, tint, objects),
    ];
    (words(named(asked, tint)), answer)
}

/// A group called by the singular or the plural, as its number wants.
fn numbered(kind: Kind, tint: Option<Tint>, objects: Vec<usize>) -> Piece {
    let word = if objects.len() == 1 {
        kind.word()
    } else {
        kind.plural()
    };
    group(named(word, tint), objects)
}

/// Article or number word, and the group of all of `kind`; with the colour where they share one.
fn mention(scene: &Scene, kind: Kind) -> [Piece; 2] {
    let objects = objects_of(scene, kind, None);
    let first = scene.objects[objects[0]].tint;
    let alike = objects.iter().all(|&o| scene.objects[o].tint == first);
    let piece = numbered(kind, first.filter(|_| alike), objects);
    let Piece::Group { phrase, objects } = &piece else {
        unreachable!("numbered makes a group")
    };
    let before = match (objects.len(), phrase.starts_with(['a', 'e', 'i', 'o', 'u'])) {
        (1, true) => "an ".to_owned(),
        (1, false) => "a ".to_owned(),
        (n, _) => format!("{} ", number_word(n)),
    };
    [words(before), piece]
}

fn caption(scene: &Scene) -> Vec<Piece> {
    let kinds = scene.kinds();
    let mut answer = plain("An image of ");
    for (i, &kind) in kinds.iter().enumerate() {
        if i > 0 {
            let last = i + 1 == kinds.len();
            answer.push(words(if last { " and " } else { ", " }));
        }
        answer.extend(mention(scene, kind));
    }
    answer
}

fn detailed(scene: &Scene) -> Vec<Piece> {
    let mut answer = Vec::new();
    for kind in scene.kinds() {
        let single = only(scene, kind);
        let space = if answer.is_empty() { "" } else { " " };
        let verb = if single.is_some() { "is" } else { "are" };
        answer.push(words(format!("{space}There {verb} ")));
        answer.extend(mention(scene, kind));
        match single.and_then(|o| place(scene, o)) {
            Some(place) => answer.push(words(format!(" {place}."))),
            None => answer.push(words(".")),
        }
    }
    answer
}

/// What may be compared: the objects of a kind with several, or everything under the name
/// `thing`.
fn comparable(scene: &Scene, rng: &mut Rng) -> Option<(&'static str, Vec<usize>)> {
    let mut classes: Vec<(&'static str, Vec<usize>)> = scene
        .kinds()
        .into_iter()
        .map(|kind| (kind.word(), objects_of(scene, kind, None)))
        .collect();
    classes.push(("thing", (0..scene.objects.len()).collect()));
    classes.retain(|(_, objects)| objects.len() > 1);
    choose(&classes, rng).cloned()
}

/// The object of `objects` for which `value` is largest, if it leads by `margin`.
fn foremost(objects: &[usize], margin: f32, value: impl Fn(usize) -> f32) -> Option<usize> {
    let mut ranked = objects.to_vec();
    ranked.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    (value(ranked[0]) - value(ranked[1]) >= margin).then_some(ranked[0])
}

fn reference(scene: &Scene, asked: String, object: usize) -> Exchange {
    let answer = group(scene.objects[object].kind.word(), vec![object]);
    (words(asked), vec![answer])
}

fn refer_position(scene: &Scene, split: Split, rng: &mut Rng) -> Option<Exchange> {
    let (word, objects) = comparable(scene, rng)?;
    let (axis, sign, adjective, place) = *rng.pick(&[
        (0, -1.0, "leftmost", "on the far left"),
        (0, 1.0, "rightmost", "on the far right"),
        (1, -1.0, "highest", "at the top"),
        (1, 1.0, "lowest", "at the bottom"),
    ]);
    let object = foremost(&objects, APART, |o| sign * centre(scene, o)[axis])?;
    let asked = match (split, rng.below(3)) {
        (Split::Test, 0) => format!("{word} {place}"),
        (Split::Test, _) => format!("the {adjective} {word}"),
        (_, 0) => format!("the {word} {place}"),
        (_, _) => format!("{adjective} {word}"),
    };
    Some(reference(scene, asked, object))
}

fn refer_size(scene: &Scene, split: Split, rng: &mut Rng) -> Option<Exchange> {
    let (word, objects) = comparable(scene, rng)?;
    let (sign, adjectives) = *rng.pick(&[
        (1.0, ["biggest", "largest"]),
        (-1.0, ["smallest", "tiniest"]),
    ]);
    let area = |o: usize| scene.objects[o].bbox.area();
    let lead = objects.iter().map(|&o| area(o)).fold(0.0, f32::max);
    let object = foremost(&objects, 0.0, |o| sign * area(o))?;
    let next = objects.iter().filter(|o| **o != object);
    let ratio = |o: &usize| (area(*o) / area(object)).max(area(object) / area(*o));
    if lead <= 0.0 || next.map(ratio).fold(f32::INFINITY, f32::min) < 1.25 {
        return None;
    }
    let adjective = rng.pick(&adjectives);
    let asked = if split == Split::Test {
        format!("the {adjective} {word}")
    } else {
        format!("{adjective} {word}")
    };
    Some(reference(scene, asked, object))
}

fn refer_colour(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let told = |o: &usize| {
        let object = &scene.objects[*o];
        object.tint.is_some()
            && objects_of(scene, object.kind, object.tint).len() == 1
            && objects_of(scene, object.kind, None).len() > 1
    };
    let told: Vec<usize> = (0..scene.objects.len()).filter(told).collect();
    let object = *choose(&told, rng)?;
    let name = scene.objects[object].name();
    let answer = group(name.clone(), vec![object]);
    Some((words(name), vec![answer]))
}

/// How one thing lies to another.
struct Beside {
    words: &'static str,
    axis: usize,
    sign: f32,
}

const BESIDE: [Beside; 4] = [
    beside("left of", 0, -1.0),
    beside("right of", 0, 1.0),
    beside("above", 1, -1.0),
    beside("below", 1, 1.0),
];

const fn beside(words: &'static str, axis: usize, sign: f32) -> Beside {
    Beside { words, axis, sign }
}

/// How far, as a share of the picture's side, `a` lies from `b` in the direction of `beside`.
fn offset(scene: &Scene, a: usize, b: usize, beside: &Beside) -> f32 {
    (centre(scene, a)[beside.axis] - centre(scene, b)[beside.axis]) * beside.sign
}

fn refer_relation(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let kinds = scene.kinds();
    let mut found = Vec::new();
    for &kind in &kinds {
        let objects = objects_of(scene, kind, None);
        for anchor in kinds.iter().filter(|k| **k != kind) {
            let Some(anchor) = only(scene, *anchor) else {
                continue;
            };
            for beside in &BESIDE {
                let far = |o: &&usize| offset(scene, **o, anchor, beside) >= APART;
                let unclear = |o: &usize| offset(scene, *o, anchor, beside).abs() < APART;
                let beyond: Vec<&usize> = objects.iter().filter(far).collect();
                if let (&[&object], false) = (&beyond[..], objects.iter().any(unclear)) {
                    // Those that must be told apart from others of their kind count for more.
                    let weight = if objects.len() > 1 { 4 } else { 1 };
                    found.extend(std::iter::repeat_n((object, beside.words, anchor), weight));
                }
            }
        }
    }
    let &(object, side, anchor) = choose(&found, rng)?;
    let kind = |o: usize| scene.objects[o].kind.word();
    let asked = format!("{} {side} the {}", kind(object), kind(anchor));
    Some(reference(scene, asked, object))
}

fn where_is(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let lone: Vec<(usize, &str)> = scene
        .kinds()
        .into_iter()
        .filter_map(|kind| only(scene, kind))
        .filter_map(|o| Some((o, place(scene, o)?)))
        .collect();
    let &(object, place) = choose(&lone, rng)?;
    let name = scene.objects[object].name();
    let answer = vec![
        words("The "),
        group(name, vec![object]),
        words(format!(" is {place}.")),
    ];
    Some((words(scene.objects[object].kind.word()), answer))
}

fn exists(scene: &Scene, rng: &mut Rng) -> Exchange {
    let present = rng.chance(50);
    let (kind, tint) = if present {
        let object = &scene.objects[anything(scene, rng)];
        (object.kind, object.tint.filter(|_| rng.chance(30)))
    } else {
        absent(scene, rng)
    };
    let asked = with_article(&named(kind.word(), tint));
    (words(asked), plain(if present { "yes" } else { "no" }))
}

fn relation(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let mut lone: Vec<usize> = scene
        .kinds()
        .into_iter()
        .filter_map(|kind| only(scene, kind))
        .collect();
    rng.shuffle(&mut lone);
    let [a, b, ..] = lone[..] else {
        return None;
    };
    let beside = rng.pick(&BESIDE);
    let far = offset(scene, a, b, beside);
    if far.abs() < APART {
        return None;
    }
    let kind = |o: usize| scene.objects[o].kind.word();
    let asked = format!("the {} {} the {}", kind(a), beside.words, kind(b));
    Some((words(asked), plain(if far > 0.0 { "yes" } else { "no" })))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn straight(scene: &Scene) -> Vec<Option<usize>> {
        (0..scene.objects.len()).map(Some).collect()
    }

    #[test]
    fn every_task_is_asked_often_and_answered_shortly() {
        let mut asked: HashMap<Task, usize> = HashMap::new();
        for seed in (0..200).chain(900_000..900_100) {
            let scene = Scene::draw(seed);
            for dialogue in dialogues(&scene, seed) {
                let (question, answer) = dialogue.render(&straight(&scene)).unwrap();
                assert!(!question.contains("[OBJ]"), "{question}");
                assert!(!answer.contains("[OBJ]"), "{answer}");
                assert!(answer.len() < 900, "{answer}");
                *asked.entry(dialogue.task).or_default() += 1;
            }
        }
        for task in Task::ALL {
            assert!(asked[&task] > 60, "{task:?}: {}", asked[&task]);
        }
    }

    #[test]
    fn answers_follow_the_boxes() {
        let dialogue = Dialogue {
            task: Task::DetectSeveral,
            question: vec![words("Find dog; car.")],
            answer: vec![group("dog", vec![0, 2]), group("car", vec![1])],
        };
        let answer = |boxes: &[Option<usize>]| dialogue.render(boxes).map(|(_, a)| a);
        assert_eq!(
            answer(&[Some(4), Some(0), Some(1)]).as_deref(),
            Some(
                "<ground>dog</ground><objects><obj1><obj4></objects>\n\
                 <ground>car</ground><objects><obj0></objects>"
            )
        );
        assert_eq!(
            answer(&[None, Some(3), None]).as_deref(),
            Some("<ground>car</ground><objects><obj3></objects>")
        );
        assert_eq!(answer(&[None, None, None]), None);
        let counted = Dialogue {
            task: Task::Count,
            ..dialogue
        };
        assert_eq!(counted.render(&[None, Some(3), None]), None);
    }

    #[test]
    fn answers_are_true() {
        for seed in 0..300 {
            let scene = Scene::draw(seed);
            for dialogue in dialogues(&scene, seed) {
                let asked: String = dialogue
                    .question
                    .iter()
                    .map(|p| match p {
                        Piece::Words(w) => w.clone(),
                        Piece::Index(o) => scene.objects[*o].name(),
                        Piece::Group { .. } => panic!("questions have no groups"),
                    })
                    .collect();
                for piece in &dialogue.answer {
                    let Piece::Group { phrase, objects } = piece else {
                        continue;
                    };
                    let kind = Kind::from_word(phrase.rsplit(' ').next().unwrap()).unwrap();
                    for &o in objects {
                        assert_eq!(scene.objects[o].kind, kind, "{asked} {phrase}");
                    }
                    let refers = format!("{:?}", dialogue.task).starts_with("Refer");
                    assert!(!refers || objects.len() == 1, "{asked}");
                }
                if dialogue.task == Task::DetectAbsent {
                    assert_eq!(dialogue.answer, vec![Piece::Words(REFUSAL.into())]);
                    let asked_kind = dialogue.question[1].clone();
                    assert!(scene.objects.iter().all(|o| words(o.name()) != asked_kind));
                }
            }
        }
    }

    #[test]
    fn test_questions_are_not_training_questions() {
        let frames = |seeds: std::ops::Range<u64>| -> HashSet<(Task, Piece)> {
            seeds
                .flat_map(|seed| dialogues(&Scene::draw(seed), seed))
                .map(|d| (d.task, d))
                .filter(|(_, d)| d.question.len() == 3)
                .map(|(t, d)| {
                    let ends = [&d.question[0], &d.question[2]].map(|p| format!("{p:?}"));
                    (t, Piece::Words(ends.concat()))
                })
                .collect()
        };
        assert!(frames(0..150).is_disjoint(&frames(900_000..900_060)));
    }
}
