//! Questions about a scene with their ground-truth answers: the tasks of
//! `docs/reference/chatrex.md` section 10, referring expressions, absent categories and plain
//! questions.
//!
//! A dialogue refers to objects of the scene. [`Dialogue::render`] maps them to indices into a list
//! of boxes, because training shuffles the boxes, adds proposals, and some objects have no box.
//!
//! Answers have a fixed form: category names as in the table, in the order of the question, or of
//! the table if the question has no order; indices ascending.

use super::draw::{Scene, Size, named};
use super::stickers::{Category, Tint};
use super::wording::{DialogueTask, wording};
use super::{Rng, Split};

/// The answer of the original models if no object matches (`docs/reference/chatrex.md` section 9.1).
pub(crate) const REFUSAL: &str = "There is no such thing in this image";
/// Least distance of two centres, as a fraction of the image's side, at which one object counts as
/// left of or above the other.
const MIN_OFFSET: f32 = 0.06;
/// Distance of a centre from the middle of the picture, as a fraction of its side, from which an object is on
/// one side of it.
const MIN_SIDE: f32 = 0.18;
/// Distance of a centre from the middle below which an object is in the middle.
const MAX_MIDDLE: f32 = 0.14;

/// A part of a question or an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Plain text.
    Text(String),
    /// `<objK>` of an object, by its index in the scene.
    Index(usize),
    /// `<ground>phrase</ground><objects>…</objects>`.
    Group {
        /// The phrase.
        phrase: String,
        /// Its objects, by their index in the scene.
        objects: Vec<usize>,
    },
}

/// A question and its ground-truth answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// What the question asks for.
    pub task: DialogueTask,
    /// The question.
    pub question: Vec<Segment>,
    /// The answer.
    pub answer: Vec<Segment>,
}

impl Dialogue {
    /// Question and answer as text. Object `i` of the scene has box `box_of[i]`, or no box. `None`
    /// if [`Self::question`] or [`Self::answer`] is.
    pub fn render(&self, box_of: &[Option<usize>]) -> Option<(String, String)> {
        Some((self.question(box_of)?, self.answer(box_of)?))
    }

    /// The question as text; `None` if it names an object without a box.
    pub fn question(&self, box_of: &[Option<usize>]) -> Option<String> {
        render_text(&self.question, box_of, false)
    }

    /// The answer as text. A detection omits objects without a box. `None` if nothing is left of
    /// a detection, or if any other answer names an object without a box.
    pub fn answer(&self, box_of: &[Option<usize>]) -> Option<String> {
        let partial = matches!(
            self.task,
            DialogueTask::DetectOne | DialogueTask::DetectSeveral
        );
        render_text(&self.answer, box_of, partial)
    }

    /// The object that the question names, if any.
    pub fn target(&self) -> Option<usize> {
        self.question.iter().find_map(|segment| match segment {
            Segment::Index(object) => Some(*object),
            _ => None,
        })
    }

    /// The objects that the answer names, ascending.
    pub fn objects(&self) -> Vec<usize> {
        let mut objects: Vec<usize> = self
            .answer
            .iter()
            .flat_map(|segment| match segment {
                Segment::Group { objects, .. } => objects.clone(),
                Segment::Index(object) => vec![*object],
                Segment::Text(_) => Vec::new(),
            })
            .collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }
}

fn render_text(segments: &[Segment], box_of: &[Option<usize>], partial: bool) -> Option<String> {
    let mut text = String::new();
    for segment in segments {
        match segment {
            Segment::Text(words) => text.push_str(words),
            Segment::Index(object) => text.push_str(&format!("<obj{}>", box_of[*object]?)),
            Segment::Group { phrase, objects } => {
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

/// The word for a number up to 12, and digits above.
pub fn number_word(n: usize) -> String {
    const WORDS: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve",
    ];
    WORDS
        .get(n)
        .map_or_else(|| n.to_string(), |w| (*w).to_owned())
}

/// One dialogue for each task that is possible in `scene`, drawn from `seed`. The wording is that of
/// the scene's split.
pub fn dialogues(scene: &Scene, seed: u64) -> Vec<Dialogue> {
    let mut rng = Rng::new(seed, 1);
    DialogueTask::ALL
        .iter()
        .filter_map(|&task| dialogue(scene, task, &mut rng))
        .collect()
}

/// A dialogue of `task` about `scene` with a wording of the scene's split; `None` if the task is not
/// possible in this scene.
pub fn dialogue(scene: &Scene, task: DialogueTask, rng: &mut Rng) -> Option<Dialogue> {
    let split = Split::of(scene.seed);
    let (subject, answer) = match task {
        DialogueTask::DetectOne => detect_one(scene, split, rng),
        DialogueTask::DetectSeveral => detect_several(scene, rng),
        DialogueTask::DetectAbsent => {
            let (category, tint) = absent(scene, rng);
            Some((
                text_segment(named(category.word(), tint)),
                plain_text(REFUSAL),
            ))
        }
        DialogueTask::Name => {
            about_one_box(scene, rng, |o| scene.objects[o].category.word().to_owned())
        }
        DialogueTask::ShortPhrase => {
            about_one_box(scene, rng, |o| with_article(&scene.objects[o].name()))
        }
        DialogueTask::Brief => {
            let object = any_object(scene, rng);
            has_clear_size(scene, object).then(|| {
                (
                    Segment::Index(object),
                    plain_text(size_phrase(scene, object)),
                )
            })
        }
        DialogueTask::Sentence => {
            let object = any_object(scene, rng);
            let clear = has_clear_size(scene, object);
            let position = position(scene, object)?;
            let sentence = format!("{} {position}", size_phrase(scene, object));
            clear.then(|| (Segment::Index(object), plain_text(sentence)))
        }
        DialogueTask::Count => Some(count(scene, split, rng)),
        DialogueTask::Caption => Some((Segment::Text(String::new()), caption(scene))),
        DialogueTask::CaptionDetailed => {
            Some((Segment::Text(String::new()), detailed_caption(scene)))
        }
        DialogueTask::ReferPosition => refer_position(scene, split, rng),
        DialogueTask::ReferSize => refer_size(scene, split, rng),
        DialogueTask::ReferColour => refer_colour(scene, rng),
        DialogueTask::ReferRelation => refer_relation(scene, rng),
        DialogueTask::Where => where_is(scene, rng),
        DialogueTask::Exists => Some(exists(scene, rng)),
        DialogueTask::Relation => relation(scene, rng),
        DialogueTask::Colour => {
            let tinted = |o: &usize| scene.objects[*o].tint.is_some();
            let tinted: Vec<usize> = (0..scene.objects.len()).filter(tinted).collect();
            let object = *choose(&tinted, rng)?;
            let tint = scene.objects[object].tint?;
            Some((Segment::Index(object), plain_text(tint.word())))
        }
        DialogueTask::Total => Some((
            Segment::Text(String::new()),
            plain_text(number_word(scene.objects.len())),
        )),
    }?;
    let template = wording(task, split, rng);
    let question = match template.split_once("[OBJ]") {
        Some((before, after)) => vec![
            Segment::Text(before.to_owned()),
            subject,
            Segment::Text(after.to_owned()),
        ],
        None => vec![Segment::Text(template.to_owned())],
    };
    Some(Dialogue {
        task,
        question,
        answer,
    })
}

/// The segment that replaces `[OBJ]`, and the answer.
type Exchange = (Segment, Vec<Segment>);

fn text_segment(text: impl Into<String>) -> Segment {
    Segment::Text(text.into())
}

/// An answer of plain text.
fn plain_text(text: impl Into<String>) -> Vec<Segment> {
    vec![text_segment(text)]
}

fn group(phrase: impl Into<String>, objects: Vec<usize>) -> Segment {
    Segment::Group {
        phrase: phrase.into(),
        objects,
    }
}

fn choose<'a, T>(items: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    (!items.is_empty()).then(|| rng.pick(items))
}

fn any_object(scene: &Scene, rng: &mut Rng) -> usize {
    rng.below(scene.objects.len())
}

/// The objects of `category`, and of `tint` if one is given.
fn objects_of(scene: &Scene, category: Category, tint: Option<Tint>) -> Vec<usize> {
    let fits = |o: &usize| {
        let object = &scene.objects[*o];
        object.category == category && (tint.is_none() || object.tint == tint)
    };
    (0..scene.objects.len()).filter(fits).collect()
}

/// The only object of `category`.
fn single_object(scene: &Scene, category: Category) -> Option<usize> {
    match objects_of(scene, category, None)[..] {
        [object] => Some(object),
        _ => None,
    }
}

/// A question about one random box; `answer` gives the answer.
fn about_one_box(
    scene: &Scene,
    rng: &mut Rng,
    answer: impl Fn(usize) -> String,
) -> Option<Exchange> {
    let object = any_object(scene, rng);
    Some((Segment::Index(object), plain_text(answer(object))))
}

fn detect_one(scene: &Scene, split: Split, rng: &mut Rng) -> Option<Exchange> {
    let object = &scene.objects[any_object(scene, rng)];
    let tint = object.tint.filter(|_| rng.chance(25));
    let name = named(object.category.word(), tint);
    let subject = if split != Split::Test && rng.chance(20) {
        named(object.category.plural(), tint)
    } else {
        name.clone()
    };
    let answer = group(name, objects_of(scene, object.category, tint));
    Some((text_segment(subject), vec![answer]))
}

fn detect_several(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let mut categories = scene.categories();
    rng.shuffle(&mut categories);
    let with_absent = rng.chance(50);
    let least = if with_absent { 1 } else { 2 };
    if categories.len() < least {
        return None;
    }
    categories.truncate(least + rng.below(categories.len() - least + 1));
    if with_absent {
        categories.push(absent_category(scene, rng));
        rng.shuffle(&mut categories);
    }
    Some(detection(scene, &categories))
}

/// The detection question for `categories` in this order, and its answer.
fn detection(scene: &Scene, categories: &[Category]) -> Exchange {
    let names: Vec<&str> = categories.iter().map(|c| c.word()).collect();
    let answer = categories
        .iter()
        .map(|&category| group(category.word(), objects_of(scene, category, None)))
        .filter(|g| !matches!(g, Segment::Group { objects, .. } if objects.is_empty()))
        .collect();
    (text_segment(names.join("; ")), answer)
}

/// The detection question of the evaluation: all categories of the scene and `absent`, in random
/// order, with a wording of the scene's split.
pub(crate) fn detect_all(scene: &Scene, absent: Category, rng: &mut Rng) -> Dialogue {
    let mut categories = scene.categories();
    categories.push(absent);
    rng.shuffle(&mut categories);
    let (subject, answer) = detection(scene, &categories);
    let template = wording(DialogueTask::DetectSeveral, Split::of(scene.seed), rng);
    let (before, after) = template
        .split_once("[OBJ]")
        .expect("detection wordings contain [OBJ]");
    Dialogue {
        task: DialogueTask::DetectSeveral,
        question: vec![text_segment(before), subject, text_segment(after)],
        answer,
    }
}

/// A random category that is not in the image.
pub(crate) fn absent_category(scene: &Scene, rng: &mut Rng) -> Category {
    let present = scene.categories();
    let absent: Vec<Category> = Category::all().filter(|k| !present.contains(k)).collect();
    *rng.pick(&absent)
}

/// An absent category, sometimes a present one in an absent colour.
fn absent(scene: &Scene, rng: &mut Rng) -> (Category, Option<Tint>) {
    let tint = *rng.pick(&Tint::ALL);
    let present = scene.objects[any_object(scene, rng)].category;
    let hard = rng.chance(25)
        && present.accepts(tint)
        && objects_of(scene, present, Some(tint)).is_empty();
    if hard {
        return (present, Some(tint));
    }
    let category = absent_category(scene, rng);
    (
        category,
        (rng.chance(20) && category.accepts(tint)).then_some(tint),
    )
}

fn with_article(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}

/// Whether the object's size is unambiguous: not within 6 % of a limit of [`Size`].
fn has_clear_size(scene: &Scene, object: usize) -> bool {
    let r = scene.relative(object);
    [0.2, 1.0 / 3.0]
        .iter()
        .all(|limit| (r / limit - 1.0).abs() > 0.06)
}

/// `a small red car`.
fn size_phrase(scene: &Scene, object: usize) -> String {
    let name = scene.objects[object].name();
    match scene.size(object) {
        Size::Small => format!("a small {name}"),
        Size::Medium => with_article(&name),
        Size::Big => format!("a big {name}"),
    }
}

/// Centre of an object as fractions of width and height.
fn centre(scene: &Scene, object: usize) -> [f32; 2] {
    let b = scene.objects[object].bbox;
    let (w, h) = (scene.pixels.width as f32, scene.pixels.height as f32);
    [(b.x1 + b.x2) / 2.0 / w, (b.y1 + b.y2) / 2.0 / h]
}

/// The position of an object in words; `None` if it is ambiguous.
fn position(scene: &Scene, object: usize) -> Option<&'static str> {
    position_in_words(centre(scene, object))
}

/// The position of a point, in fractions of width and height, in words; `None` if two fit.
pub(crate) fn position_in_words(point: [f32; 2]) -> Option<&'static str> {
    let [x, y] = point.map(|c| c - 0.5);
    let far = x.abs().max(y.abs());
    if far < MAX_MIDDLE {
        return Some("in the middle");
    }
    if far < MIN_SIDE || (x.abs() - y.abs()).abs() < 0.04 {
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
    let object = &scene.objects[any_object(scene, rng)];
    let tint = object.tint.filter(|_| rng.chance(20));
    let subject = if split != Split::Test && rng.chance(20) {
        object.category.word()
    } else {
        object.category.plural()
    };
    let objects = objects_of(scene, object.category, tint);
    let answer = vec![
        text_segment(format!("{} ", number_word(objects.len()))),
        counted_group(object.category, tint, objects),
    ];
    (text_segment(named(subject, tint)), answer)
}

/// A group in the singular or the plural, as its number requires.
fn counted_group(category: Category, tint: Option<Tint>, objects: Vec<usize>) -> Segment {
    let word = if objects.len() == 1 {
        category.word()
    } else {
        category.plural()
    };
    group(named(word, tint), objects)
}

/// Article or number word, and the group of all objects of `category`, with the colour if they
/// share one.
fn mention(scene: &Scene, category: Category) -> [Segment; 2] {
    let objects = objects_of(scene, category, None);
    let first = scene.objects[objects[0]].tint;
    let alike = objects.iter().all(|&o| scene.objects[o].tint == first);
    let segment = counted_group(category, first.filter(|_| alike), objects);
    let Segment::Group { phrase, objects } = &segment else {
        unreachable!("counted_group returns a group")
    };
    let before = match (objects.len(), phrase.starts_with(['a', 'e', 'i', 'o', 'u'])) {
        (1, true) => "an ".to_owned(),
        (1, false) => "a ".to_owned(),
        (n, _) => format!("{} ", number_word(n)),
    };
    [text_segment(before), segment]
}

fn caption(scene: &Scene) -> Vec<Segment> {
    let categories = scene.categories();
    let mut answer = plain_text("An image of ");
    for (i, &category) in categories.iter().enumerate() {
        if i > 0 {
            let last = i + 1 == categories.len();
            answer.push(text_segment(if last { " and " } else { ", " }));
        }
        answer.extend(mention(scene, category));
    }
    answer
}

fn detailed_caption(scene: &Scene) -> Vec<Segment> {
    let mut answer = Vec::new();
    for category in scene.categories() {
        let single = single_object(scene, category);
        let space = if answer.is_empty() { "" } else { " " };
        let verb = if single.is_some() { "is" } else { "are" };
        answer.push(text_segment(format!("{space}There {verb} ")));
        answer.extend(mention(scene, category));
        match single.and_then(|o| position(scene, o)) {
            Some(position) => answer.push(text_segment(format!(" {position}."))),
            None => answer.push(text_segment(".")),
        }
    }
    answer
}

/// A random set of at least two objects with its name: those of a category, or all objects under the
/// name `thing`.
fn comparable(scene: &Scene, rng: &mut Rng) -> Option<(&'static str, Vec<usize>)> {
    let mut classes: Vec<(&'static str, Vec<usize>)> = scene
        .categories()
        .into_iter()
        .map(|category| (category.word(), objects_of(scene, category, None)))
        .collect();
    classes.push(("thing", (0..scene.objects.len()).collect()));
    classes.retain(|(_, objects)| objects.len() > 1);
    choose(&classes, rng).cloned()
}

/// The object with the largest `value`, if it leads the second one by `margin`.
fn leading(objects: &[usize], margin: f32, value: impl Fn(usize) -> f32) -> Option<usize> {
    let mut ranked = objects.to_vec();
    ranked.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    (value(ranked[0]) - value(ranked[1]) >= margin).then_some(ranked[0])
}

fn reference(scene: &Scene, subject: String, object: usize) -> Exchange {
    let answer = group(scene.objects[object].category.word(), vec![object]);
    (text_segment(subject), vec![answer])
}

fn refer_position(scene: &Scene, split: Split, rng: &mut Rng) -> Option<Exchange> {
    let (word, objects) = comparable(scene, rng)?;
    let (axis, sign, adjective, position) = *rng.pick(&[
        (0, -1.0, "leftmost", "on the far left"),
        (0, 1.0, "rightmost", "on the far right"),
        (1, -1.0, "highest", "at the top"),
        (1, 1.0, "lowest", "at the bottom"),
    ]);
    let object = leading(&objects, MIN_OFFSET, |o| sign * centre(scene, o)[axis])?;
    let subject = match (split, rng.below(3)) {
        (Split::Test, 0) => format!("{word} {position}"),
        (Split::Test, _) => format!("the {adjective} {word}"),
        (_, 0) => format!("the {word} {position}"),
        (_, _) => format!("{adjective} {word}"),
    };
    Some(reference(scene, subject, object))
}

fn refer_size(scene: &Scene, split: Split, rng: &mut Rng) -> Option<Exchange> {
    let (word, objects) = comparable(scene, rng)?;
    let (sign, adjectives) = *rng.pick(&[
        (1.0, ["biggest", "largest"]),
        (-1.0, ["smallest", "tiniest"]),
    ]);
    let area = |o: usize| scene.objects[o].bbox.area();
    let lead = objects.iter().map(|&o| area(o)).fold(0.0, f32::max);
    let object = leading(&objects, 0.0, |o| sign * area(o))?;
    let next = objects.iter().filter(|o| **o != object);
    let ratio = |o: &usize| (area(*o) / area(object)).max(area(object) / area(*o));
    if lead <= 0.0 || next.map(ratio).fold(f32::INFINITY, f32::min) < 1.25 {
        return None;
    }
    let adjective = rng.pick(&adjectives);
    let subject = if split == Split::Test {
        format!("the {adjective} {word}")
    } else {
        format!("{adjective} {word}")
    };
    Some(reference(scene, subject, object))
}

fn refer_colour(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let distinct = |o: &usize| {
        let object = &scene.objects[*o];
        object.tint.is_some()
            && objects_of(scene, object.category, object.tint).len() == 1
            && objects_of(scene, object.category, None).len() > 1
    };
    let distinct: Vec<usize> = (0..scene.objects.len()).filter(distinct).collect();
    let object = *choose(&distinct, rng)?;
    let name = scene.objects[object].name();
    let answer = group(name.clone(), vec![object]);
    Some((text_segment(name), vec![answer]))
}

/// A spatial relation of two objects.
struct Relation {
    words: &'static str,
    axis: usize,
    sign: f32,
}

const RELATIONS: [Relation; 4] = [
    relation_of("left of", 0, -1.0),
    relation_of("right of", 0, 1.0),
    relation_of("above", 1, -1.0),
    relation_of("below", 1, 1.0),
];

const fn relation_of(words: &'static str, axis: usize, sign: f32) -> Relation {
    Relation { words, axis, sign }
}

/// Signed distance from `b` to `a` in the direction of `relation`, as a fraction of the image's side.
fn offset(scene: &Scene, a: usize, b: usize, relation: &Relation) -> f32 {
    (centre(scene, a)[relation.axis] - centre(scene, b)[relation.axis]) * relation.sign
}

fn refer_relation(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let categories = scene.categories();
    let mut found = Vec::new();
    for &category in &categories {
        let objects = objects_of(scene, category, None);
        for anchor in categories.iter().filter(|k| **k != category) {
            let Some(anchor) = single_object(scene, *anchor) else {
                continue;
            };
            for relation in &RELATIONS {
                let far = |o: &&usize| offset(scene, **o, anchor, relation) >= MIN_OFFSET;
                let unclear = |o: &usize| offset(scene, *o, anchor, relation).abs() < MIN_OFFSET;
                let beyond: Vec<&usize> = objects.iter().filter(far).collect();
                if let (&[&object], false) = (&beyond[..], objects.iter().any(unclear)) {
                    // Objects with others of their category get a higher weight.
                    let weight = if objects.len() > 1 { 4 } else { 1 };
                    found.extend(std::iter::repeat_n(
                        (object, relation.words, anchor),
                        weight,
                    ));
                }
            }
        }
    }
    let &(object, side, anchor) = choose(&found, rng)?;
    let category = |o: usize| scene.objects[o].category.word();
    let subject = format!("{} {side} the {}", category(object), category(anchor));
    Some(reference(scene, subject, object))
}

fn where_is(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let single: Vec<(usize, &str)> = scene
        .categories()
        .into_iter()
        .filter_map(|category| single_object(scene, category))
        .filter_map(|o| Some((o, position(scene, o)?)))
        .collect();
    let &(object, position) = choose(&single, rng)?;
    let name = scene.objects[object].name();
    let answer = vec![
        text_segment("The "),
        group(name, vec![object]),
        text_segment(format!(" is {position}.")),
    ];
    Some((text_segment(scene.objects[object].category.word()), answer))
}

fn exists(scene: &Scene, rng: &mut Rng) -> Exchange {
    let present = rng.chance(50);
    let (category, tint) = if present {
        let object = &scene.objects[any_object(scene, rng)];
        (object.category, object.tint.filter(|_| rng.chance(30)))
    } else {
        absent(scene, rng)
    };
    let subject = with_article(&named(category.word(), tint));
    (
        text_segment(subject),
        plain_text(if present { "yes" } else { "no" }),
    )
}

fn relation(scene: &Scene, rng: &mut Rng) -> Option<Exchange> {
    let mut single: Vec<usize> = scene
        .categories()
        .into_iter()
        .filter_map(|category| single_object(scene, category))
        .collect();
    rng.shuffle(&mut single);
    let [a, b, ..] = single[..] else {
        return None;
    };
    let relation = rng.pick(&RELATIONS);
    let far = offset(scene, a, b, relation);
    if far.abs() < MIN_OFFSET {
        return None;
    }
    let category = |o: usize| scene.objects[o].category.word();
    let subject = format!("the {} {} the {}", category(a), relation.words, category(b));
    Some((
        text_segment(subject),
        plain_text(if far > 0.0 { "yes" } else { "no" }),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn identity(scene: &Scene) -> Vec<Option<usize>> {
        (0..scene.objects.len()).map(Some).collect()
    }

    #[test]
    fn every_task_is_frequent_and_answers_are_short() {
        let mut counts: HashMap<DialogueTask, usize> = HashMap::new();
        for seed in (0..200).chain(900_000..900_100) {
            let scene = Scene::draw(seed);
            for dialogue in dialogues(&scene, seed) {
                let (question, answer) = dialogue.render(&identity(&scene)).unwrap();
                assert!(!question.contains("[OBJ]"), "{question}");
                assert!(!answer.contains("[OBJ]"), "{answer}");
                assert!(answer.len() < 900, "{answer}");
                *counts.entry(dialogue.task).or_default() += 1;
            }
        }
        for task in DialogueTask::ALL {
            assert!(counts[&task] > 60, "{task:?}: {}", counts[&task]);
        }
    }

    #[test]
    fn answers_use_the_indices_of_the_boxes() {
        let dialogue = Dialogue {
            task: DialogueTask::DetectSeveral,
            question: vec![text_segment("Find dog; car.")],
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
            task: DialogueTask::Count,
            ..dialogue
        };
        assert_eq!(counted.render(&[None, Some(3), None]), None);
    }

    #[test]
    fn answers_match_the_scene() {
        for seed in 0..300 {
            let scene = Scene::draw(seed);
            for dialogue in dialogues(&scene, seed) {
                let asked: String = dialogue
                    .question
                    .iter()
                    .map(|p| match p {
                        Segment::Text(w) => w.clone(),
                        Segment::Index(o) => scene.objects[*o].name(),
                        Segment::Group { .. } => panic!("a question has no group"),
                    })
                    .collect();
                for segment in &dialogue.answer {
                    let Segment::Group { phrase, objects } = segment else {
                        continue;
                    };
                    let category = Category::from_word(phrase.rsplit(' ').next().unwrap()).unwrap();
                    for &o in objects {
                        assert_eq!(scene.objects[o].category, category, "{asked} {phrase}");
                    }
                    let refers = format!("{:?}", dialogue.task).starts_with("Refer");
                    assert!(!refers || objects.len() == 1, "{asked}");
                }
                if dialogue.task == DialogueTask::DetectAbsent {
                    assert_eq!(dialogue.answer, vec![Segment::Text(REFUSAL.into())]);
                    let asked_category = dialogue.question[1].clone();
                    assert!(
                        scene
                            .objects
                            .iter()
                            .all(|o| text_segment(o.name()) != asked_category)
                    );
                }
            }
        }
    }

    #[test]
    fn test_wordings_do_not_occur_in_training() {
        let frames = |seeds: std::ops::Range<u64>| -> HashSet<(DialogueTask, Segment)> {
            seeds
                .flat_map(|seed| dialogues(&Scene::draw(seed), seed))
                .map(|d| (d.task, d))
                .filter(|(_, d)| d.question.len() == 3)
                .map(|(t, d)| {
                    let ends = [&d.question[0], &d.question[2]].map(|p| format!("{p:?}"));
                    (t, Segment::Text(ends.concat()))
                })
                .collect()
        };
        assert!(frames(0..150).is_disjoint(&frames(900_000..900_060)));
    }
}
