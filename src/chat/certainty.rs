//! How sure the model was of the boxes that the phrases of an answer name.

use crate::protocol::{Link, RunnerUp};
use crate::text::answer_parser::Span;

/// Below this probability the page marks a phrase as doubtful.
pub const DOUBTFUL: f32 = 0.6;

/// The least sure box of a phrase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certainty {
    /// Number of the box.
    pub object: u32,
    /// Its probability among all boxes of the question.
    pub probability: f32,
    /// The most probable other box.
    pub runner_up: Option<RunnerUp>,
}

impl Certainty {
    /// Whether the model might as well have named another box.
    pub fn is_doubtful(&self) -> bool {
        self.probability < DOUBTFUL
    }
}

/// The least sure box of each span of an answer over `boxes` boxes; `links` has an entry for each index
/// below `boxes`, in order. All are `None` if the links are those of another answer.
pub fn of_spans(spans: &[Span], boxes: usize, links: &[Link]) -> Vec<Option<Certainty>> {
    let known = |span: &&Span| {
        span.objects
            .iter()
            .filter(|o| (**o as usize) < boxes)
            .count()
    };
    let none = vec![None; spans.len()];
    if spans.iter().map(|span| known(&span)).sum::<usize>() != links.len() {
        return none;
    }
    let mut rest = links;
    let mut all = Vec::with_capacity(spans.len());
    for span in spans {
        let (own, after) = rest.split_at(known(&span));
        rest = after;
        let named = span.objects.iter().filter(|o| (**o as usize) < boxes);
        if !named.eq(own.iter().map(|link| &link.object)) {
            return none;
        }
        let least = own
            .iter()
            .min_by(|a, b| a.probability.total_cmp(&b.probability));
        all.push(least.map(|link| Certainty {
            object: link.object,
            probability: link.probability,
            runner_up: link.runner_up,
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str, objects: &[u32]) -> Span {
        Span {
            text: text.into(),
            objects: objects.into(),
            ..Span::default()
        }
    }

    fn link(object: u32, probability: f32) -> Link {
        Link {
            object,
            probability,
            runner_up: None,
        }
    }

    #[test]
    fn the_least_sure_box_of_each_phrase_is_found() {
        // The index 9 names no box, so it has no link.
        let spans = [span("a", &[]), span("dogs", &[2, 9, 0]), span("cat", &[1])];
        let links = [link(2, 0.9), link(0, 0.4), link(1, 0.7)];
        let all = of_spans(&spans, 3, &links);
        assert_eq!(all[0], None);
        let [dogs, cat] = [1, 2].map(|place| all[place].expect("names boxes"));
        assert_eq!((dogs.object, dogs.probability), (0, 0.4));
        assert!(dogs.is_doubtful() && !cat.is_doubtful());
    }

    #[test]
    fn links_of_another_answer_are_not_used() {
        let spans = [span("cat", &[1]), span("dog", &[0])];
        for links in [vec![], vec![link(1, 0.5)], vec![link(0, 0.5), link(1, 0.5)]] {
            assert_eq!(of_spans(&spans, 3, &links), vec![None; 2], "{links:?}");
        }
    }
}
