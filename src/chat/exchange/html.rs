//! The conversation as a page of its own, `name.chatrex.html`: the picture, the answers with their boxes, a
//! small script for hover and click, and the [`Document`] as JSON. It needs no network and has a policy that
//! allows none.
//!
//! Text of user and model is escaped. `<` in the JSON is written as `\u003c`, so that no text can end the
//! script element.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::marked::inside;
use super::words;
use crate::chat::answer::{self, AnswerPiece};
use crate::chat::document::{Document, SavedTurn, refused};
use crate::chat::language;
use crate::chat::words::language;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::protocol::ImageSize;

const SCRIPT: &str = include_str!("viewer.js");
const STYLE: &str = include_str!("viewer.css");
/// SHA-256 of [`SCRIPT`] and of [`STYLE`] in Base64, for the policy of the page.
const SCRIPT_HASH: &str = "NjJ5T8SJn4IIHfGIhw696WMQnlMO8LLXqXzCO4C15V8=";
const STYLE_HASH: &str = "2KP76n/rMvK22MNXgU38Eba/NBRnlELu3s4X8aqOzis=";

/// What stands before the document.
const JSON_OPEN: &str = "<script type=\"application/json\" id=\"chatrex-conversation\">";
/// What stands before the data address of the picture.
const PICTURE_OPEN: &str = "<img id=\"chatrex-picture\" src=\"";
/// Types of pictures that are read from a page.
const TYPES: [&str; 6] = ["png", "jpeg", "webp", "gif", "avif", "bmp"];

/// The page before and after the picture; between them belongs the picture as a data address.
pub fn parts(document: &Document) -> (String, String) {
    let picture = &document.picture;
    let name = escape(&picture.name);
    let before = format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'sha256-{STYLE_HASH}'; script-src 'sha256-{SCRIPT_HASH}'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<figure>\n{PICTURE_OPEN}",
        language().tag()
    );
    let mut after = format!(
        "\" alt=\"{}\" width=\"{w}\" height=\"{h}\">\n\
         <svg viewBox=\"0 0 {w} {h}\" aria-hidden=\"true\">\n",
        escape(&words::picture_alt(document)),
        w = picture.width,
        h = picture.height,
    );
    for (index, turn) in document.turns.iter().enumerate() {
        after.push_str(&boxes(turn, index, picture.width, picture.height));
    }
    after.push_str(&format!("</svg>\n</figure>\n<section>\n<h1>{name}</h1>\n"));
    for (index, turn) in document.turns.iter().enumerate() {
        after.push_str(&conversation(turn, index));
    }
    let json = serde_json::to_string(document).expect("plain data");
    after.push_str(&format!(
        "<p class=\"small\">{}</p>\n</section>\n</main>\n{JSON_OPEN}{}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        words::PAGE_FOOTER(),
        json.replace('<', "\\u003c"),
    ));
    (before, after)
}

/// The whole page, with the bytes of the picture and their media type.
pub fn write(document: &Document, picture: &[u8], media_type: &str) -> String {
    let (before, after) = parts(document);
    let data = STANDARD.encode(picture);
    format!("{before}data:{media_type};base64,{data}{after}")
}

fn pieces(turn: &SavedTurn) -> Vec<AnswerPiece> {
    let mut pieces = answer::pieces(&turn.spans, turn.boxes.len());
    answer::relink(&mut pieces, &turn.links);
    pieces
}

/// The boxes that a turn names.
fn boxes(turn: &SavedTurn, index: usize, width: u32, height: u32) -> String {
    let mut out = String::new();
    let mut seen = Vec::new();
    let text_size = (width.max(height) as f32 / 40.0).max(8.0);
    for piece in pieces(turn) {
        let AnswerPiece::Phrase(phrase) = piece else {
            continue;
        };
        for &number in &phrase.objects {
            let bbox = inside(
                turn.boxes[number as usize].bbox,
                ImageSize { width, height },
            );
            let Some(b) = bbox.filter(|_| !seen.contains(&number)) else {
                continue;
            };
            seen.push(number);
            let rect = format!(
                "x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
                b.x1,
                b.y1,
                b.x2 - b.x1,
                b.y2 - b.y1
            );
            out.push_str(&format!(
                "<g class=\"box hue-{} dash-{}\" data-turn=\"{index}\" data-box=\"{number}\">\
                 <rect class=\"halo\" {rect}/><rect class=\"line\" {rect}/>\
                 <g transform=\"translate({} {}) scale({text_size})\"><text>{number}</text></g></g>\n",
                phrase.hue(),
                phrase.dash(),
                b.x1 + text_size * 0.2,
                b.y1 + text_size,
            ));
        }
    }
    out
}

/// Question and answer of a turn.
fn conversation(turn: &SavedTurn, index: usize) -> String {
    let mut out = format!(
        "<h2 dir=\"auto\"{}>{}</h2>\n<p class=\"answer\" dir=\"auto\"{}>",
        language_of(&turn.shown),
        escape(&turn.shown),
        language_of(&answer_words(turn))
    );
    for piece in pieces(turn) {
        match piece {
            AnswerPiece::Text(text) => out.push_str(&escape(&text)),
            AnswerPiece::Phrase(phrase) => {
                let numbers: Vec<String> = phrase.objects.iter().map(u32::to_string).collect();
                out.push_str(&format!(
                    "<button type=\"button\" class=\"phrase hue-{} dash-{}\" data-turn=\"{index}\" \
                     data-boxes=\"{}\" aria-pressed=\"false\">{}</button>",
                    phrase.hue(),
                    phrase.dash(),
                    numbers.join(" "),
                    escape(&phrase.text),
                ));
            }
        }
    }
    out.push_str("</p>\n");
    if let Some(text) = words::ended(&turn.state) {
        out.push_str(&format!("<p class=\"small\">{text}</p>\n"));
    }
    out
}

fn answer_words(turn: &SavedTurn) -> String {
    turn.spans.iter().map(|span| span.text.as_str()).collect()
}

/// The attribute of the language of some words, where it is not that of the page.
fn language_of(words: &str) -> String {
    language::of(words).map_or(String::new(), |tag| format!(" lang=\"{tag}\""))
}

/// Text in elements and attributes of HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A picture that a page brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroughtPicture {
    /// Its media type.
    pub media_type: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// Reads the conversation and its picture from a page; `place` is the name of the file.
///
/// # Errors
/// The file is no such page, or is damaged.
pub fn read(place: &str, html: &str) -> Result<(Document, BroughtPicture), Fault> {
    let no_conversation = || {
        Fault::new(
            FaultKind::File,
            place,
            "it is not a conversation that this page saved",
            "Choose another file; nothing was changed",
        )
        .code(ErrorCode::Unsupported)
    };
    let (_, rest) = html.split_once(JSON_OPEN).ok_or_else(no_conversation)?;
    let (json, _) = rest
        .split_once("</script>")
        .ok_or_else(|| refused(place, "it is damaged (its end is missing)"))?;
    let document = Document::parse(place, json)?;
    let no_picture = || refused(place, "its picture is damaged");
    let (_, rest) = html.split_once(PICTURE_OPEN).ok_or_else(no_picture)?;
    let (address, _) = rest.split_once('"').ok_or_else(no_picture)?;
    let (kind, data) = (address.strip_prefix("data:"))
        .and_then(|address| address.split_once(";base64,"))
        .ok_or_else(no_picture)?;
    let is_picture = |kind: &str| {
        kind.strip_prefix("image/")
            .is_some_and(|k| TYPES.contains(&k))
    };
    if !is_picture(kind) {
        return Err(no_picture());
    }
    let bytes = STANDARD.decode(data).map_err(|_| no_picture())?;
    let picture = BroughtPicture {
        media_type: kind.to_owned(),
        bytes,
    };
    Ok((document, picture))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::chat::test_data::saved;

    const PIXELS: &[u8] = b"\x89PNG and so on";

    #[test]
    fn the_policy_names_script_and_style() {
        for (text, hash) in [(SCRIPT, SCRIPT_HASH), (STYLE, STYLE_HASH)] {
            assert_eq!(STANDARD.encode(Sha256::digest(text.as_bytes())), hash);
        }
    }

    #[test]
    fn a_page_comes_back_with_its_picture() {
        let html = write(&saved(), PIXELS, "image/png");
        let (document, picture) = read("a.html", &html).expect("our own");
        assert_eq!(document, saved());
        assert_eq!(
            (picture.media_type.as_str(), &picture.bytes[..]),
            ("image/png", PIXELS)
        );
        let phrase = "data-turn=\"0\" data-boxes=\"0\" aria-pressed=\"false\">black cat</button>";
        assert!(html.contains(phrase), "{html}");
        assert_eq!(html.matches("<g class=\"box ").count(), 2);
    }

    #[test]
    fn hostile_text_stays_text() {
        let evil = "</script><script>alert(1)</script><!--<script>\" onload='x' <img id=\"chatrex-picture\" src=\"data:image/png;base64,AA==\">";
        let mut document = saved();
        document.picture.name = evil.into();
        document.turns[0].shown = evil.into();
        document.turns[0].question = evil.into();
        for span in &mut document.turns[0].spans {
            span.text = evil.into();
        }
        document.boxes[0].label = Some(evil.into());
        let html = write(&document, PIXELS, "image/png");
        assert_eq!(
            html.matches("<script").count(),
            2,
            "the document and the viewer"
        );
        assert_eq!(html.matches("</script").count(), 2);
        assert_eq!(html.matches("<img").count(), 1);
        assert!(!html.contains("<!--"));
        let (markup, _) = html.split_once(JSON_OPEN).expect("a document");
        assert!(!markup.contains("onload='x'"));
        let (read_back, picture) = read("a.html", &html).expect("our own");
        assert_eq!((read_back, &picture.bytes[..]), (document, PIXELS));
    }

    #[test]
    fn other_and_damaged_pages_get_one_sentence() {
        let html = write(&saved(), PIXELS, "image/png");
        let json = html.find(JSON_OPEN).expect("a document");
        let cases = [
            ("<!doctype html><p>hello", "not a conversation"),
            (&html[..json + 80], "end is missing"),
            (&html.replace("base64,", "base64,!"), "picture is damaged"),
            (
                &html.replace("image/png", "text/html"),
                "picture is damaged",
            ),
            (&html.replace("\"version\":1", "\"version\":9"), "version 9"),
        ];
        for (html, what) in cases {
            let fault = read("a.html", html).expect_err(what);
            assert!(fault.what.contains(what), "{fault}");
        }
    }
}
