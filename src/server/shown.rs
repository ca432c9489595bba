//! Answers as text: without tags, or with the tags that the model was trained on.

use crate::text::answer_parser::Span;
use crate::text::prompt::index_tag;

/// Whether the text of an answer has tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The words alone.
    #[default]
    Plain,
    /// `<ground>phrase</ground><objects><obj0></objects>`.
    Tagged,
}

impl Form {
    /// The text of the spans so far; a later text of the same answer begins with it.
    pub fn text(self, spans: &[Span]) -> String {
        let text: String = match self {
            Self::Plain => spans.iter().map(|span| span.text.as_str()).collect(),
            Self::Tagged => {
                let complete = spans.iter().take_while(|span| !span.open);
                complete.map(tagged).collect()
            }
        };
        text.trim().to_owned()
    }
}

fn tagged(span: &Span) -> String {
    if span.objects.is_empty() {
        return span.text.clone();
    }
    let boxes: String = span.objects.iter().map(|&index| index_tag(index)).collect();
    let boxes = format!("<objects>{boxes}</objects>");
    let is_number = span.text.starts_with('[') && span.text.ends_with(']');
    match is_number {
        true => boxes,
        false => format!("<ground>{}</ground>{boxes}", span.text),
    }
}

/// The part of a growing text that was not sent yet.
#[derive(Debug, Default)]
pub struct Growth {
    sent: String,
}

impl Growth {
    /// What to send after `text`; `None` if that is nothing. A text that does not begin with what was sent is left
    /// to the next call.
    pub fn next(&mut self, text: &str) -> Option<String> {
        let rest = text.strip_prefix(&*self.sent)?;
        if rest.is_empty() {
            return None;
        }
        let rest = rest.to_owned();
        self.sent.push_str(&rest);
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::answer_parser::AnswerParser;

    const ANSWER: &str = " There are <ground>two cats</ground><objects><obj1><obj12></objects> and \
                          <ground>a dog</ground><objects><obj3></objects>. <objects><obj0></objects> ";

    #[test]
    fn texts_grow_by_their_ends_and_end_as_the_whole() {
        for (form, expected) in [
            (Form::Plain, "There are two cats and a dog. [0]"),
            (Form::Tagged, ANSWER.trim()),
        ] {
            let mut parser = AnswerParser::new();
            let (mut growth, mut sent) = (Growth::default(), String::new());
            for character in ANSWER.chars() {
                parser.push(&character.to_string());
                let rest = growth.next(&form.text(&parser.spans()));
                sent.push_str(&rest.unwrap_or_default());
            }
            let whole = form.text(&parser.finish());
            sent.push_str(&growth.next(&whole).unwrap_or_default());
            assert_eq!(whole, expected);
            assert_eq!(sent, whole);
        }
    }

    #[test]
    fn a_text_that_changed_is_not_sent_twice() {
        let mut growth = Growth::default();
        assert_eq!(growth.next("ab").as_deref(), Some("ab"));
        assert_eq!(growth.next("ab"), None);
        assert_eq!(growth.next("ax"), None);
        assert_eq!(growth.next("abc").as_deref(), Some("c"));
    }
}
