//! The Markdown of an answer as a tree that views can draw: blocks and runs of text, with the phrases
//! that name boxes inside.
//!
//! Tags of HTML are dropped and the words between them stay. A link is its text, a picture its
//! description: nothing of an answer leads out of the page.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::chat::answer::{AnswerPiece, Phrase};

/// A block of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// Words.
    Paragraph(Vec<Inline>),
    /// A heading.
    Heading(Vec<Inline>),
    /// A list; with the number of its first item if it is numbered.
    List(Option<u64>, Vec<Vec<Block>>),
    /// Lines of code, and the language that they name.
    Code(String, Vec<Inline>),
    /// A quotation.
    Quote(Vec<Block>),
    /// A table: the head, then rows.
    Table(Vec<Vec<Inline>>, Vec<Vec<Vec<Inline>>>),
    /// A line across.
    Rule,
}

/// A run inside a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inline {
    /// Plain text; line ends are kept.
    Text(String),
    /// A phrase, and the index of its piece in the answer.
    Phrase(usize, Phrase),
    /// Bold.
    Strong(Vec<Inline>),
    /// Italic.
    Emphasis(Vec<Inline>),
    /// Code.
    Code(Vec<Inline>),
}

/// First character that stands for a phrase while Markdown is parsed. These characters are for private
/// use, and to Markdown they are letters.
const FIRST: u32 = 0xF_0000;

/// Most phrases that can be told apart.
const MOST: usize = 0xFFFD;

/// The blocks of an answer.
pub fn blocks(pieces: &[AnswerPiece]) -> Vec<Block> {
    let source = source(pieces);
    let mut builder = Builder {
        pieces,
        open: vec![Open::new(None)],
    };
    for event in Parser::new_ext(&source, Options::ENABLE_TABLES) {
        builder.event(event);
    }
    let blocks = builder.finish();
    // Markdown drops some words, such as addresses of links. A phrase in one is worth more than the form.
    if count(&blocks) == source.chars().filter_map(index).count() {
        return blocks;
    }
    let mut plain = Vec::new();
    append(&mut plain, &source, pieces);
    vec![Block::Paragraph(plain)]
}

/// The number of phrases in blocks.
fn count(blocks: &[Block]) -> usize {
    let block = |block: &Block| match block {
        Block::Paragraph(words) | Block::Heading(words) | Block::Code(_, words) => runs(words),
        Block::List(_, items) => items.iter().map(|item| count(item)).sum(),
        Block::Quote(blocks) => count(blocks),
        Block::Table(head, rows) => rows
            .iter()
            .flatten()
            .chain(head)
            .map(|cell| runs(cell))
            .sum(),
        Block::Rule => 0,
    };
    fn runs(words: &[Inline]) -> usize {
        let run = |run: &Inline| match run {
            Inline::Text(_) => 0,
            Inline::Phrase(..) => 1,
            Inline::Strong(inside) | Inline::Emphasis(inside) | Inline::Code(inside) => {
                runs(inside)
            }
        };
        words.iter().map(run).sum()
    }
    blocks.iter().map(block).sum()
}

/// The answer as Markdown source, with one character in place of each phrase.
fn source(pieces: &[AnswerPiece]) -> String {
    let mut source = String::new();
    for (index, piece) in pieces.iter().enumerate() {
        match (piece, stand_in(index)) {
            (AnswerPiece::Phrase(_), Some(stand_in)) => source.push(stand_in),
            (AnswerPiece::Phrase(phrase), None) => source.push_str(&phrase.text),
            (AnswerPiece::Text(text), _) => source.extend(text.chars().map(plain)),
        }
    }
    // Indented by chance, the first line would be code.
    source.trim_start_matches([' ', '\t']).to_owned()
}

fn stand_in(index: usize) -> Option<char> {
    char::from_u32(FIRST + u32::try_from(index).ok()?).filter(|_| index < MOST)
}

fn index(character: char) -> Option<usize> {
    let index = (character as u32).checked_sub(FIRST)? as usize;
    (index < MOST).then_some(index)
}

/// A character of the model's text, which must not pass for a phrase.
fn plain(character: char) -> char {
    match index(character) {
        Some(_) => char::REPLACEMENT_CHARACTER,
        None => character,
    }
}

/// A tag that is open: the blocks and runs inside so far.
struct Open {
    end: Option<TagEnd>,
    blocks: Vec<Block>,
    inlines: Vec<Inline>,
    cells: Vec<Vec<Inline>>,
    rows: Vec<Vec<Vec<Inline>>>,
    items: Vec<Vec<Block>>,
    first: Option<u64>,
    language: String,
}

impl Open {
    fn new(end: Option<TagEnd>) -> Self {
        Self {
            end,
            blocks: Vec::new(),
            inlines: Vec::new(),
            cells: Vec::new(),
            rows: Vec::new(),
            items: Vec::new(),
            first: None,
            language: String::new(),
        }
    }

    /// Runs without a paragraph, as in tight lists, are one.
    fn flush(&mut self) {
        if !self.inlines.is_empty() {
            let inlines = std::mem::take(&mut self.inlines);
            self.blocks.push(Block::Paragraph(inlines));
        }
    }
}

struct Builder<'a> {
    pieces: &'a [AnswerPiece],
    open: Vec<Open>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(end) => self.end(end),
            Event::Text(text) => self.text(&text),
            Event::Html(text) | Event::InlineHtml(text) => self.text(&without_tags(&text)),
            Event::Code(text) => {
                let mut code = Vec::new();
                append(&mut code, &text, self.pieces);
                self.top().inlines.push(Inline::Code(code));
            }
            Event::SoftBreak | Event::HardBreak => self.text("\n"),
            Event::Rule => {
                self.top().flush();
                self.top().blocks.push(Block::Rule);
            }
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.text(&text)
            }
            Event::TaskListMarker(_) => {}
        }
    }

    fn start(&mut self, tag: Tag) {
        let is_block = matches!(
            tag,
            Tag::Paragraph
                | Tag::Heading { .. }
                | Tag::List(_)
                | Tag::CodeBlock(_)
                | Tag::BlockQuote(_)
                | Tag::Table(_)
        );
        if is_block {
            self.top().flush();
        }
        let mut open = Open::new(Some(tag.to_end()));
        match tag {
            Tag::List(first) => open.first = first,
            Tag::CodeBlock(CodeBlockKind::Fenced(language)) => open.language = language.to_string(),
            _ => {}
        }
        self.open.push(open);
    }

    fn end(&mut self, end: TagEnd) {
        if self.open.len() < 2 || self.top().end != Some(end) {
            return;
        }
        let Some(mut closed) = self.open.pop() else {
            return;
        };
        let top = self.top();
        match end {
            TagEnd::Paragraph => top.blocks.push(Block::Paragraph(closed.inlines)),
            TagEnd::Heading(_) => top.blocks.push(Block::Heading(closed.inlines)),
            TagEnd::List(_) => top.blocks.push(Block::List(closed.first, closed.items)),
            TagEnd::Item => {
                closed.flush();
                top.items.push(closed.blocks);
            }
            TagEnd::CodeBlock => top
                .blocks
                .push(Block::Code(closed.language, closed.inlines)),
            TagEnd::BlockQuote(_) => {
                closed.flush();
                top.blocks.push(Block::Quote(closed.blocks));
            }
            TagEnd::TableCell => top.cells.push(closed.inlines),
            TagEnd::TableHead => top.cells = closed.cells,
            TagEnd::TableRow => top.rows.push(closed.cells),
            TagEnd::Table => top.blocks.push(Block::Table(closed.cells, closed.rows)),
            TagEnd::Strong => top.inlines.push(Inline::Strong(closed.inlines)),
            TagEnd::Emphasis => top.inlines.push(Inline::Emphasis(closed.inlines)),
            _ => {
                top.inlines.append(&mut closed.inlines);
                top.blocks.append(&mut closed.blocks);
            }
        }
    }

    fn text(&mut self, text: &str) {
        let pieces = self.pieces;
        append(&mut self.top().inlines, text, pieces);
    }

    fn top(&mut self) -> &mut Open {
        self.open.last_mut().expect("the root is never closed")
    }

    fn finish(mut self) -> Vec<Block> {
        while let Some(end) = self.top().end {
            self.end(end);
        }
        self.top().flush();
        std::mem::take(&mut self.top().blocks)
    }
}

/// Appends text with phrases in place of their characters; adjacent text is one run.
fn append(inlines: &mut Vec<Inline>, text: &str, pieces: &[AnswerPiece]) {
    for character in text.chars() {
        let phrase = index(character).and_then(|index| Some((index, pieces.get(index)?)));
        match (phrase, inlines.last_mut()) {
            (Some((index, AnswerPiece::Phrase(phrase))), _) => {
                inlines.push(Inline::Phrase(index, phrase.clone()));
            }
            (_, Some(Inline::Text(before))) => before.push(character),
            _ => inlines.push(Inline::Text(character.into())),
        }
    }
}

/// The words between tags of HTML.
fn without_tags(html: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for character in html.chars() {
        match character {
            '<' => inside = true,
            '>' if inside => inside = false,
            // A phrase is never lost with a tag.
            _ if !inside || index(character).is_some() => out.push(character),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::answer;
    use crate::text::answer_parser;

    /// The tree in short: `p(..)`, `h(..)`, `ul(..)`, `b(..)`, phrases as `{text}`.
    fn tree(answer: &str) -> String {
        let pieces = answer::pieces(&answer_parser::spans(answer), 9);
        write(&blocks(&pieces))
    }

    fn write(blocks: &[Block]) -> String {
        let block = |block: &Block| match block {
            Block::Paragraph(words) => format!("p({})", runs(words)),
            Block::Heading(words) => format!("h({})", runs(words)),
            Block::List(first, items) => {
                let items: Vec<_> = items.iter().map(|item| write(item)).collect();
                let name = first.map_or("ul".to_owned(), |first| format!("ol{first}"));
                format!("{name}({})", items.join("|"))
            }
            Block::Code(language, text) => format!("code-{language}({})", runs(text)),
            Block::Quote(blocks) => format!("q({})", write(blocks)),
            Block::Table(head, rows) => {
                let row = |cells: &Vec<Vec<Inline>>| {
                    let cells: Vec<_> = cells.iter().map(|cell| runs(cell)).collect();
                    cells.join(",")
                };
                let rows: Vec<_> = rows.iter().map(row).collect();
                format!("t({}|{})", row(head), rows.join("|"))
            }
            Block::Rule => "hr".to_owned(),
        };
        blocks.iter().map(block).collect::<Vec<_>>().join(" ")
    }

    fn runs(inlines: &[Inline]) -> String {
        let run = |inline: &Inline| match inline {
            Inline::Text(text) => text.clone(),
            Inline::Phrase(index, phrase) => format!("{{{index} {}}}", phrase.text),
            Inline::Strong(inside) => format!("b({})", runs(inside)),
            Inline::Emphasis(inside) => format!("i({})", runs(inside)),
            Inline::Code(inside) => format!("c({})", runs(inside)),
        };
        inlines.iter().map(run).collect()
    }

    const CAT: &str = "<ground>a *cat*</ground><objects><obj1></objects>";

    #[test]
    fn markdown_becomes_blocks_with_phrases_inside() {
        let cases = [
            ("", ""),
            ("  plain\nwords  ", "p(plain\nwords)"),
            ("     not code", "p(not code)"),
            (
                &format!("There is **{CAT}**."),
                "p(There is b({1 a *cat*}).)",
            ),
            (&format!("{CAT}s"), "p({0 a *cat*}s)"),
            (
                &format!("Seen:\n\n- one {CAT}\n- *two*\n  1. x\n\nEnd"),
                "p(Seen:) ul(p(one {1 a *cat*})|p(i(two)) ol1(p(x))) p(End)",
            ),
            (
                &format!("| what | n |\n|---|---|\n| {CAT} | 1 |"),
                "t(what,n|{1 a *cat*},1)",
            ),
            (
                "# Title\n> said\n\n---\n`a<b`",
                "h(Title) q(p(said)) hr p(c(a<b))",
            ),
            ("```js\nlet a = 1;\n```", "code-js(let a = 1;\n)"),
            ("**open", "p(**open)"),
        ];
        for (answer, expected) in cases {
            assert_eq!(tree(answer), expected, "{answer}");
        }
    }

    #[test]
    fn nothing_of_an_answer_is_html_or_leads_out_of_the_page() {
        let cases = [
            ("a <b>bold</b> word", "p(a bold word)"),
            ("<script>alert(1)</script>", "p(alert(1))"),
            ("<img src=x onerror=y>", ""),
            (
                "see [this](https://a.example) ![that](b.png)",
                "p(see this that)",
            ),
            ("<https://a.example>", "p(https://a.example)"),
            (
                &format!("<div>\n{CAT}\n</div>\n\nx"),
                "p(\n{1 a *cat*}\n\n) p(x)",
            ),
            ("\u{F0000}\u{F0001}", "p(\u{FFFD}\u{FFFD})"),
        ];
        for (answer, expected) in cases {
            assert_eq!(tree(answer), expected, "{answer}");
        }
    }

    #[test]
    fn every_phrase_of_any_answer_is_drawn_once() {
        let parts = [
            CAT, "*", "**", "`", "\n", "- ", "|", "<div>", "<", "[x](", ")", " a", "#",
        ];
        let mut state = 7_u64;
        for _ in 0..2000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                text.push_str(parts[(state >> 33) as usize % parts.len()]);
            }
            let written = tree(&text);
            let found = written.matches("a *cat*}").count();
            let hidden = text.contains("[x](");
            assert!(
                hidden || found == text.matches(CAT).count(),
                "{text:?}: {written}"
            );
        }
    }
}
