//! Reports as one HTML file that needs no network: tables, and pictures as data addresses. All text is
//! escaped; there is no script.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::examples::Example;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::files;
use crate::geometry::BoxXyxy;
use crate::image::resize::{Canvas, Filter, resize};
use crate::image::{Pixels, decode};

/// Longer side of a picture in the report, in pixels.
const SIDE: u32 = 360;
/// Pictures of a report, at most.
pub const MAX_PICTURES: usize = 40;
/// Quality of the JPEGs.
const QUALITY: u8 = 80;
/// Longest text of a question or an answer that is shown, in characters.
const MAX_TEXT: usize = 600;
const TRUE_COLOUR: [u8; 3] = [0, 200, 83];
const ANSWERED_COLOUR: [u8; 3] = [255, 61, 0];

const STYLE: &str = "body{font:16px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
background:#fff;color:#1a1a1a}table{border-collapse:collapse;margin:1rem 0}caption{text-align:left;font-weight:600;\
padding:.3rem 0}th,td{padding:.25rem .75rem;border-bottom:1px solid #bbb;text-align:right}th:first-child,\
td:first-child{text-align:left}figure{display:inline-block;vertical-align:top;width:22rem;margin:1rem 1rem 1rem 0}\
img{max-width:100%;height:auto;display:block}figcaption p{margin:.2rem 0;overflow-wrap:anywhere}\
.truth{color:#00692b}.answer{color:#b42300}@media(prefers-color-scheme:dark){body{background:#1a1a1a;color:#eee}\
.truth{color:#6fe39a}.answer{color:#ff9b7a}}";

/// A page that is being written.
#[derive(Clone, Debug, Default)]
pub struct Page {
    title: String,
    body: String,
}

/// `text` for HTML, in elements and in quoted attributes; control characters are left out.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            character if character.is_control() => {}
            character => escaped.push(character),
        }
    }
    escaped
}

impl Page {
    /// An empty page.
    pub fn new(title: &str) -> Self {
        Self {
            title: escape(title),
            body: String::new(),
        }
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.body += &format!("<h2>{}</h2>\n", escape(text));
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.body += &format!("<p>{}</p>\n", escape(text));
    }

    /// Adds a table; the first column names the rows.
    pub fn table(&mut self, caption: &str, head: &[&str], rows: &[Vec<String>]) {
        let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
            let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        self.body += &format!("<table>\n<caption>{}</caption>\n", escape(caption));
        self.body += &cells("th", &mut head.iter().copied());
        for row in rows {
            self.body += &cells("td", &mut row.iter().map(String::as_str));
        }
        self.body += "</table>\n";
    }

    /// Adds wrong answers with their pictures, at most [`MAX_PICTURES`]. A picture that cannot be read any
    /// more is left out, its text is not.
    pub fn examples(&mut self, examples: &[Example]) {
        if examples.is_empty() {
            return;
        }
        self.heading("Worst errors");
        self.paragraph("Green: the truth. Red: the boxes of the answer, or the proposals.");
        for example in examples.iter().take(MAX_PICTURES) {
            self.body += "<figure>\n";
            if let Ok(pixels) = decode::open(&example.image) {
                let small = thumbnail(&pixels, &example.truth_boxes, &example.answered);
                if let Some(jpeg) = jpeg(&small) {
                    let (data, Pixels { width, height, .. }) = (STANDARD.encode(jpeg), small);
                    self.body += &format!(
                        "<img alt=\"\" width=\"{width}\" height=\"{height}\" src=\"data:image/jpeg;base64,{data}\">\n"
                    );
                }
            }
            let name = example.image.file_name().unwrap_or_default();
            let name = format!("{}, {}", name.display(), example.task);
            self.body += "<figcaption>\n";
            for (class, text) in [
                ("", &name),
                ("", &example.question),
                ("truth", &example.truth),
                ("answer", &example.answer),
            ] {
                if !text.is_empty() {
                    let text = escape(&shortened(text));
                    self.body += &format!("<p class=\"{class}\">{text}</p>\n");
                }
            }
            self.body += "</figcaption>\n</figure>\n";
        }
    }

    /// The whole page.
    pub fn finish(&self) -> String {
        let Self { title, body } = self;
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
        )
    }

    /// Writes the page to `path`, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Fault> {
        files::replace(path, self.finish().as_bytes()).map_err(|error| Fault::file(path, error))
    }
}

/// Checks that a report can be written to `path`, before the work that it is about.
///
/// # Errors
/// It is a folder, or is in no folder.
pub fn check(path: &Path) -> Result<(), Fault> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let what = if path.is_dir() {
        "is a folder"
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        "is in a folder that does not exist"
    } else {
        return Ok(());
    };
    let place = path.display().to_string();
    Err(Fault::new(FaultKind::File, place, what, "Name a file").code(ErrorCode::InvalidInput))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

/// `pixels` with a longer side of at most [`SIDE`], with true and answered boxes.
fn thumbnail(pixels: &Pixels, truth: &[BoxXyxy], answered: &[BoxXyxy]) -> Pixels {
    let longer = pixels.width.max(pixels.height);
    let factor = (SIDE as f32 / longer as f32).min(1.0);
    let side = |length: u32| ((length as f32 * factor).round() as u32).max(1);
    let (width, height) = (side(pixels.width), side(pixels.height));
    let mut small = resize(&Canvas::plain(pixels), width, height, Filter::Bilinear);
    for (boxes, colour, inset) in [(answered, ANSWERED_COLOUR, 0), (truth, TRUE_COLOUR, 2)] {
        for bbox in boxes {
            let corners = <[f32; 4]>::from(*bbox).map(|value| (value * factor).round() as i32);
            outline(&mut small, corners, colour, inset);
        }
    }
    small
}

/// Draws the outline of `[x1, y1, x2, y2]`, two pixels wide and `inset` pixels inside of it.
fn outline(pixels: &mut Pixels, [x1, y1, x2, y2]: [i32; 4], colour: [u8; 3], inset: i32) {
    let (width, height) = (pixels.width as i32, pixels.height as i32);
    for step in inset..inset + 2 {
        let [left, top, right, bottom] = [x1 + step, y1 + step, x2 - 1 - step, y2 - 1 - step];
        let mut dot = |x: i32, y: i32| {
            if (0..width).contains(&x) && (0..height).contains(&y) {
                let at = (y * width + x) as usize * 3;
                pixels.rgb[at..at + 3].copy_from_slice(&colour);
            }
        };
        for x in left.max(0)..=right.min(width - 1) {
            dot(x, top);
            dot(x, bottom);
        }
        for y in top.max(0)..=bottom.min(height - 1) {
            dot(left, y);
            dot(right, y);
        }
    }
}

fn jpeg(pixels: &Pixels) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    let (width, height) = (pixels.width, pixels.height);
    let written = encoder.write_image(&pixels.rgb, width, height, ExtendedColorType::Rgb8);
    written.is_ok().then_some(bytes)
}

/// Checks what the reports of all evaluations promise: elements are closed in their order, and nothing is
/// fetched.
#[cfg(test)]
pub(crate) fn check_page(page: &str) {
    use xml::reader::{EventReader, XmlEvent};
    for address in ["http:", "https:", "<script", "@import", "url("] {
        assert!(!page.contains(address), "{address}");
    }
    let sources = page.matches("src=").count();
    assert_eq!(
        sources,
        page.matches("src=\"data:image/jpeg;base64,").count()
    );
    // Void elements are closed, so that a reader of XML can check the rest.
    let closed: Vec<String> = page
        .split('<')
        .map(
            |part| match ["meta ", "img "].iter().any(|name| part.starts_with(name)) {
                true => part.replacen('>', "/>", 1),
                false => part.to_owned(),
            },
        )
        .collect();
    let closed = closed.join("<").replace("<!doctype html>", "");
    for event in EventReader::new(closed.trim().as_bytes()) {
        assert!(event.is_ok(), "{event:?}");
        if matches!(event, Ok(XmlEvent::EndDocument)) {
            return;
        }
    }
    panic!("the page has no end");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_well_formed_and_fetch_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("<a>&\"b\".png");
        let written = ::image::RgbImage::new(800, 400).save(&image);
        written.expect("a picture");
        let hostile = "</p><script>alert('http')</script>\u{7}";
        let example = Example {
            image,
            task: "detect".into(),
            question: hostile.into(),
            answer: "<ground>dog</ground><objects><obj0></objects>".repeat(40),
            truth: "dog obj0".into(),
            truth_boxes: vec![[10.0, 10.0, 700.0, 300.0].into()],
            answered: vec![
                [-50.0, 20.0, 900.0, 390.0].into(),
                [5.0, 5.0, 5.0, 5.0].into(),
            ],
            badness: 1.0,
        };
        let gone = Example {
            image: folder.path().join("gone.png"),
            ..example.clone()
        };
        let mut page = Page::new(hostile);
        page.paragraph(hostile);
        page.table(
            hostile,
            &["metric", hostile],
            &[vec!["a".into(), hostile.into()]],
        );
        page.examples(&[example, gone]);
        let text = page.finish();
        check_page(&text);
        assert_eq!(text.matches("<img").count(), 1);
        assert_eq!(text.matches("<figure>").count(), 2);
        assert!(text.contains("&lt;script&gt;alert(&#39;http&#39;)") && !text.contains('\u{7}'));
        let path = folder.path().join("report.html");
        check(&path).expect("a place for a file");
        page.write(&path).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
        assert!(check(folder.path()).is_err() && check(&path.join("x.html")).is_err());
    }

    #[test]
    fn boxes_are_drawn_where_they_are() {
        let pixels = Pixels::new(720, 360, vec![0; 720 * 360 * 3]).expect("pixels");
        let truth = [[100.0, 100.0, 300.0, 200.0].into()];
        let small = thumbnail(&pixels, &truth, &[[400.0, 20.0, 500.0, 60.0].into()]);
        assert_eq!((small.width, small.height), (360, 180));
        let at = |x: usize, y: usize| &small.rgb[(y * 360 + x) * 3..][..3];
        assert_eq!(at(52, 70), TRUE_COLOUR);
        assert_eq!(at(200, 20), ANSWERED_COLOUR);
        assert_eq!(at(80, 75), [0; 3]);
        assert!(jpeg(&small).is_some_and(|bytes| decode::decode(&bytes).is_ok()));
    }
}
