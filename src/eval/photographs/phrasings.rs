//! Wordings of questions that no training uses, to measure how free a question may be.
//!
//! `{kind}` stands for the name of a kind, `{kinds}` for its plural, `{a_kind}` for the name with its
//! article, and `{box}` for the index tag of a box. This module must stay unknown to `train`, and
//! `tests/floors.rs` checks that it does.

use super::questions::{Asked, Extreme, Topic};
use crate::text::kinds::{plural, with_article};
use crate::text::prompt::index_tag;

/// A wording and the question that it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phrasing {
    pub(super) topic: Topic,
    pub(super) text: &'static str,
}

impl Phrasing {
    /// `asked` in this wording.
    pub(super) fn question(&self, asked: &Asked, kinds: &[String]) -> String {
        let kind = match asked {
            Asked::Detect { kinds, .. } => kinds.first().copied(),
            Asked::Absent { kind }
            | Asked::Count { kind, .. }
            | Asked::Refer { kind, .. }
            | Asked::Exists { kind, .. } => Some(*kind),
            Asked::Name { .. } | Asked::Caption => None,
        };
        let text = self.text.replace("{box}", &index_tag(0));
        match kind.map(|kind| &kinds[kind]) {
            None => text,
            Some(name) => text
                .replace("{kinds}", &plural(name))
                .replace("{a_kind}", &with_article(name))
                .replace("{kind}", name),
        }
    }
}

/// All 200 wordings.
pub(super) fn all() -> Vec<Phrasing> {
    let lists: [(Topic, &[&'static str]); 5] = [
        (Topic::Detect, &DETECT),
        (Topic::Count, &COUNT),
        (Topic::Exists, &EXISTS),
        (Topic::Name, &NAME),
        (Topic::Caption, &CAPTION),
    ];
    let plain = lists
        .into_iter()
        .flat_map(|(topic, texts)| texts.iter().map(move |&text| Phrasing { topic, text }));
    let extremes = EXTREMES.iter().map(|&(extreme, text)| Phrasing {
        topic: Topic::Refer(extreme),
        text,
    });
    plain.chain(extremes).collect()
}

/// Where are all objects of a kind?
const DETECT: [&str; 60] = [
    "{kinds}?",
    "where are the {kinds}",
    "Show me every {kind}.",
    "Could you point out the {kinds} for me, please?",
    "I'm looking for {a_kind}.",
    "Spot the {kinds}.",
    "Which of these things is {a_kind}?",
    "Highlight all {kinds} in the photo.",
    "Mark each {kind} you can see.",
    "Which boxes contain {a_kind}?",
    "Would you mind showing me where the {kinds} are?",
    "Point to the {kinds}.",
    "find {kinds}",
    "I need to know where every {kind} is.",
    "Pick out all of the {kinds}.",
    "Tell me which objects are {kinds}.",
    "Locate any {kind} in the scene.",
    "Where's the {kind}?",
    "Help me find the {kinds} in here.",
    "Draw my attention to the {kinds}.",
    "Select all {kinds}.",
    "Give me the boxes of the {kinds}.",
    "List the {kinds} in this photograph.",
    "I'd like to see all the {kinds}, please.",
    "Circle the {kinds}.",
    "Identify every {kind} shown here.",
    "Just the {kinds}, please.",
    "only {kinds}",
    "Can you tell me where I can find {a_kind} in this shot?",
    "Look for {kinds} and show me what you find.",
    "My friend says there are {kinds} here. Where?",
    "Search the photo for {kinds}.",
    "Which things here would you call {a_kind}?",
    "Show {kinds}",
    "Please indicate the position of each {kind}.",
    "Do me a favour and point at the {kinds}.",
    "Everything that is {a_kind}, please.",
    "Outline the {kinds} for me.",
    "Whereabouts are the {kinds}?",
    "I can't see the {kinds}. Can you?",
    "Return the indexes of all {kinds}.",
    "What boxes have {kinds} in them?",
    "Let me see the {kinds}.",
    "Get me all instances of {kind}.",
    "Now the {kinds}.",
    "Find me {a_kind}.",
    "Go through the picture and mark the {kinds}.",
    "Which detections belong to the class {kind}?",
    "Find all the {kinds} and don't miss any.",
    "Could you locate each and every {kind}?",
    "I want the {kinds} highlighted.",
    "Here is a photo of mine; where are the {kinds} in it?",
    "Show where {a_kind} appears.",
    "Label the {kinds}.",
    "Please pick the {kinds} out of the crowd of things.",
    "Is it possible to point out the {kinds}?",
    "Hunt down the {kinds}!",
    "the {kinds} please",
    "Reveal the location of the {kinds} in this snapshot.",
    "Hi! Could you show me the {kinds} in my picture?",
];

/// How many objects of a kind are there?
const COUNT: [&str; 40] = [
    "how many {kinds}?",
    "How many {kinds} do you see?",
    "Count the {kinds}, please.",
    "What's the total number of {kinds}?",
    "Number of {kinds}?",
    "Could you count the {kinds} for me?",
    "How many {kinds} are in the photo?",
    "I'd like to know how many {kinds} there are.",
    "Tell me the count of {kinds}.",
    "Are there one, two or more {kinds}? Give me the number.",
    "How many {kinds} can be seen here?",
    "In this photograph, how many {kinds} are visible?",
    "Please tell me how many {kinds} you can find.",
    "{kinds}: how many?",
    "How many of the objects are {kinds}?",
    "How many times does {a_kind} appear?",
    "Give me a count of all {kinds}.",
    "Do a quick count of the {kinds}.",
    "What number of {kinds} does this picture show?",
    "I wonder how many {kinds} there are here.",
    "Can you say how many {kinds} this shot contains?",
    "How many {kinds} did the photographer catch?",
    "count every {kind}",
    "Let me know the number of {kinds} you see.",
    "How many individual {kinds} are present?",
    "Add up the {kinds}.",
    "What is the {kind} count?",
    "Would you count up all the {kinds} in view?",
    "So how many {kinds} are we talking about?",
    "How many {kinds} have you found?",
    "Exactly how many {kinds} are there?",
    "How many {kinds} would you say are in this scene?",
    "Take a look and tell me how many {kinds} there are.",
    "I need the number of {kinds}.",
    "How large is the number of {kinds} in this image?",
    "Just give me the number of {kinds}.",
    "Of all these things, how many are {kinds}?",
    "Can you work out how many {kinds} are shown?",
    "Is it one {kind} or several? How many?",
    "Hello, how many {kinds} are on this picture?",
];

/// Is there an object of a kind?
const EXISTS: [&str; 30] = [
    "any {kinds}?",
    "Are there any {kinds}?",
    "Do you see {a_kind}?",
    "Does this photo contain {a_kind}?",
    "Can you spot {a_kind} anywhere?",
    "Is {a_kind} visible?",
    "Is there any {kind} here?",
    "Do any {kinds} appear in this picture?",
    "I'm wondering if there is {a_kind} in the scene.",
    "Would you say there is {a_kind} in here?",
    "Does {a_kind} appear anywhere in the image?",
    "Yes or no: are there {kinds} in the photo?",
    "Did anyone leave {a_kind} in this shot?",
    "Is at least one {kind} present?",
    "Can {a_kind} be seen in this photograph?",
    "Are {kinds} shown here?",
    "Have you noticed {a_kind}?",
    "Tell me whether there is {a_kind}.",
    "Please check if the picture has {a_kind} in it.",
    "Could there be {a_kind} in this image?",
    "Does the picture show {kinds}?",
    "Is {a_kind} somewhere in this scene?",
    "Am I right that there is {a_kind} in the picture?",
    "There is {a_kind} here, isn't there?",
    "Do we have any {kinds} in this one?",
    "Is this a picture with {a_kind}?",
    "Any sign of {a_kind}?",
    "Can you confirm that {a_kind} is in the photo?",
    "I think I see {a_kind}. Is that so?",
    "Are you able to see any {kind} at all?",
];

/// What is in a box?
const NAME: [&str; 20] = [
    "What's {box}?",
    "What do you call {box}?",
    "{box}?",
    "What kind of thing is {box}?",
    "Identify {box}.",
    "I don't recognize {box}, what is it?",
    "Could you tell me what {box} shows?",
    "What object is inside {box}?",
    "Which class does {box} belong to?",
    "Give me the name of the object in {box}.",
    "What am I looking at in {box}?",
    "Please say what {box} is.",
    "Do you know what {box} is?",
    "Label {box} for me.",
    "What sort of object can be seen in {box}?",
    "In one word, what is {box}?",
    "How would you name the thing at {box}?",
    "what is in the box {box}",
    "Take {box}. What is that?",
    "What does {box} contain?",
];

/// What does the picture show?
const CAPTION: [&str; 20] = [
    "What's in this picture?",
    "Describe the photo.",
    "What do you see?",
    "What is going on here?",
    "Tell me about this image.",
    "Could you describe the scene for me, please?",
    "What can be seen in this photograph?",
    "Give me a short caption.",
    "caption this",
    "What does the picture show?",
    "Sum up this photo in one sentence.",
    "What's here?",
    "What objects are in this scene?",
    "I can't see the picture. What is on it?",
    "Please write a caption for this photograph.",
    "Briefly, what is this a picture of?",
    "Which things can you make out?",
    "Name everything you can find in the image.",
    "Say in a few words what this shows.",
    "Hi, what did I take a photo of?",
];

/// Which object of a kind is first by position or size?
const EXTREMES: [(Extreme, &str); 30] = [
    (Extreme::Leftmost, "Which {kind} is furthest to the left?"),
    (Extreme::Leftmost, "Show me the {kind} on the far left."),
    (Extreme::Leftmost, "Point to the left-most {kind}, please."),
    (Extreme::Leftmost, "leftmost {kind}?"),
    (
        Extreme::Leftmost,
        "Of all the {kinds}, which one is closest to the left edge?",
    ),
    (Extreme::Rightmost, "Which {kind} is furthest to the right?"),
    (Extreme::Rightmost, "I mean the {kind} at the right end."),
    (
        Extreme::Rightmost,
        "Could you mark the {kind} that is on the far right?",
    ),
    (Extreme::Rightmost, "the rightmost {kind} please"),
    (
        Extreme::Rightmost,
        "Find the {kind} nearest to the right border of the photo.",
    ),
    (
        Extreme::Topmost,
        "Which {kind} is highest up in the picture?",
    ),
    (Extreme::Topmost, "Show me the {kind} at the very top."),
    (Extreme::Topmost, "Where is the uppermost {kind}?"),
    (
        Extreme::Topmost,
        "I'd like the {kind} that is closest to the top edge.",
    ),
    (Extreme::Topmost, "top {kind}?"),
    (
        Extreme::Bottommost,
        "Which {kind} is lowest in the picture?",
    ),
    (
        Extreme::Bottommost,
        "Show me the {kind} at the very bottom.",
    ),
    (Extreme::Bottommost, "Where is the lowest {kind}?"),
    (
        Extreme::Bottommost,
        "Pick the {kind} nearest to the bottom edge, please.",
    ),
    (Extreme::Bottommost, "the {kind} furthest down"),
    (Extreme::Biggest, "Which {kind} is the largest?"),
    (Extreme::Biggest, "Show me the biggest of the {kinds}."),
    (Extreme::Biggest, "Where is the largest {kind}?"),
    (
        Extreme::Biggest,
        "Which of the {kinds} takes up the most space?",
    ),
    (Extreme::Biggest, "biggest {kind}?"),
    (Extreme::Smallest, "Which {kind} is the smallest?"),
    (Extreme::Smallest, "Point out the tiniest {kind}."),
    (Extreme::Smallest, "Where is the littlest {kind}?"),
    (
        Extreme::Smallest,
        "Which of the {kinds} is smaller than all others?",
    ),
    (
        Extreme::Smallest,
        "I'm after the smallest {kind}, can you find it?",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::text::prompt::Task;

    #[test]
    fn there_are_200_different_wordings_with_the_right_placeholders() {
        let all = all();
        let texts: BTreeSet<String> = all.iter().map(|p| p.text.to_lowercase()).collect();
        assert_eq!(texts.len(), 200);
        let mut counts = BTreeMap::<&str, usize>::new();
        for phrasing in &all {
            *counts.entry(phrasing.topic.word()).or_default() += 1;
            let rest = ["{kind}", "{kinds}", "{a_kind}", "{box}"]
                .iter()
                .fold(phrasing.text.to_owned(), |text, slot| {
                    text.replace(slot, "")
                });
            assert!(!rest.contains(['{', '}', '<', '>']), "{phrasing:?}");
            let slots = phrasing.text.matches('{').count();
            let of_box = phrasing.text.matches("{box}").count();
            match phrasing.topic {
                Topic::Caption => assert_eq!(slots, 0, "{phrasing:?}"),
                Topic::Name => assert_eq!((slots, of_box), (1, 1), "{phrasing:?}"),
                _ => assert_eq!((slots, of_box), (1, 0), "{phrasing:?}"),
            }
            for task in Task::ALL {
                for slot in ["{kind}", "{kinds}", "{box}"] {
                    assert_ne!(task.question(&[slot]), phrasing.text);
                }
            }
        }
        let expected = [
            ("caption", 20),
            ("count", 40),
            ("detect", 60),
            ("exists", 30),
            ("name", 20),
            ("refer", 30),
        ];
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn wordings_are_filled_in() {
        let names = ["dog", "bench"].map(String::from);
        let fill = |topic, text, asked: &Asked| Phrasing { topic, text }.question(asked, &names);
        let count = Asked::Count { kind: 1, truth: 2 };
        assert_eq!(
            fill(Topic::Count, "{kinds}, {a_kind}, {kind}", &count),
            "benches, a bench, bench"
        );
        assert_eq!(
            fill(Topic::Name, "What's {box}?", &Asked::Name { object: 4 }),
            "What's <obj0>?"
        );
    }
}
