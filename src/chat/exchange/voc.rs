//! Pascal VOC XML: the edges of boxes as whole pixels.

use xml::reader::{EventReader, ParserConfig, XmlEvent};

use super::foreign::Found;
use super::marked::{Sheet, safe_name};
use crate::chat::document::{LabelledBox, refused};
use crate::error::Fault;

/// Most levels of elements that are read.
const MAX_DEPTH: usize = 64;

/// The boxes with a label; those without are left out. Edges are rounded to the nearest pixel and kept at
/// least one pixel apart.
pub fn write(sheet: &Sheet) -> String {
    let (width, height) = (sheet.size.width, sheet.size.height);
    let mut xml = format!(
        "<annotation>\n  <folder></folder>\n  <filename>{}</filename>\n  <source><database>ChatRex</database></source>\n  \
         <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n  <segmented>0</segmented>\n",
        escape(&safe_name(&sheet.name))
    );
    for marked in &sheet.boxes {
        let Some(label) = &marked.label else { continue };
        let b = marked.bbox;
        let (xmin, xmax) = edges(b.x1, b.x2, width);
        let (ymin, ymax) = edges(b.y1, b.y2, height);
        xml.push_str(&format!(
            "  <object>\n    <name>{}</name>\n    <pose>Unspecified</pose>\n    <truncated>0</truncated>\n    \
             <difficult>0</difficult>\n    <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax>\
             <ymax>{ymax}</ymax></bndbox>\n  </object>\n",
            escape(label)
        ));
    }
    xml.push_str("</annotation>\n");
    xml
}

/// Two edges as whole pixels, at least one apart, inside `0..=end`.
fn edges(from: f32, to: f32, end: u32) -> (u32, u32) {
    let from = (from.round() as u32).min(end.saturating_sub(1));
    let to = (to.round() as u32).clamp(from + 1, end.max(from + 1));
    (from, to)
}

/// Text inside an element of XML 1.0, which has no control characters.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => out.push(c),
            _ => out.push('\u{fffd}'),
        }
    }
    out
}

/// An object that is being read.
#[derive(Default)]
struct Object {
    label: String,
    /// `xmin`, `ymin`, `xmax` and `ymax`.
    edges: [Option<f32>; 4],
}

/// The names of the edges in a `bndbox`.
const EDGES: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];

/// Reads the boxes of a file. Parts of objects, such as a head of a person, are not boxes of their own; an
/// object without four edges is left out.
///
/// # Errors
/// The XML is damaged, or is no annotation.
pub fn read(place: &str, text: &str) -> Result<Found, Fault> {
    let config = ParserConfig::new()
        .trim_whitespace(true)
        .cdata_to_characters(true);
    let mut path: Vec<String> = Vec::new();
    let mut found = Found::default();
    let mut size = [0.0_f64; 2];
    let mut object = Object::default();
    for event in EventReader::new_with_config(text.as_bytes(), config) {
        let event = event.map_err(|error| {
            let at = xml::common::Position::position(&error);
            refused(place, format!("the XML is damaged at {at}"))
        })?;
        match event {
            XmlEvent::StartElement { name, .. } => {
                path.push(name.local_name);
                if path[0] != "annotation" || path.len() > MAX_DEPTH {
                    return Err(refused(place, "it is no Pascal VOC annotation"));
                }
                if path.len() == 2 && path[1] == "object" {
                    object = Object::default();
                }
            }
            XmlEvent::Characters(text) => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                match path[..] {
                    ["annotation", "size", "width"] => size[0] = text.parse().unwrap_or(0.0),
                    ["annotation", "size", "height"] => size[1] = text.parse().unwrap_or(0.0),
                    ["annotation", "object", "name"] => object.label = text,
                    ["annotation", "object", "bndbox", edge] => {
                        if let Some(edge) = EDGES.iter().position(|name| *name == edge) {
                            object.edges[edge] = text.parse().ok();
                        }
                    }
                    _ => {}
                }
            }
            XmlEvent::EndElement { .. } => {
                if path.len() == 2 && path[1] == "object" {
                    match object.edges {
                        [Some(x1), Some(y1), Some(x2), Some(y2)] => found.boxes.push(LabelledBox {
                            bbox: [x1, y1, x2, y2].into(),
                            label: Some(std::mem::take(&mut object.label)),
                        }),
                        _ => found.left_out += 1,
                    }
                }
                path.pop();
            }
            _ => {}
        }
    }
    // Some programs write zeros.
    found.size = (size[0] > 0.0 && size[1] > 0.0).then_some((size[0], size[1]));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::sheet;

    #[test]
    fn a_written_file_comes_back_with_whole_pixels() {
        let found = read("a.xml", &write(&sheet())).expect("ours");
        assert_eq!((found.size, found.left_out), (Some((100.0, 80.0)), 0));
        let boxes = found
            .boxes
            .iter()
            .map(|b| (b.label.as_deref(), b.bbox.into()));
        let expected: [(Option<&str>, [f32; 4]); 2] = [
            (Some("black cat"), [0., 0., 10., 10.]),
            (Some("lamp"), [41., 30., 60., 50.]),
        ];
        assert_eq!(boxes.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn parts_sizes_of_zero_and_objects_without_edges_are_read_as_what_they_are() {
        let xml = "<?xml version=\"1.0\"?><annotation><size><width>0</width><height>0</height></size>\
            <object><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>\
            <name><![CDATA[a & b]]></name>\
            <bndbox><ymax>4.5</ymax><xmin> 1 </xmin><ymin>2</ymin><xmax>3</xmax></bndbox></object>\
            <object><name>x</name><bndbox><xmin>no</xmin></bndbox></object></annotation>";
        let found = read("a.xml", xml).expect("an annotation");
        assert_eq!((found.size, found.left_out), (None, 1));
        assert_eq!(found.boxes.len(), 1);
        assert_eq!(found.boxes[0].label.as_deref(), Some("a & b"));
        assert_eq!(found.boxes[0].bbox, [1., 2., 3., 4.5].into());
    }

    #[test]
    fn hostile_and_foreign_xml_get_one_sentence() {
        let bomb = "<!DOCTYPE a [<!ENTITY a \"aaaaaaaaaa\">\
            <!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;\">\
            <!ENTITY d \"&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;\"><!ENTITY e \"&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;\">\
            <!ENTITY f \"&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;\"><!ENTITY g \"&f;&f;&f;&f;&f;&f;&f;&f;&f;&f;\">]>\
            <annotation><object><name>&g;</name></object></annotation>";
        let deep = format!("<annotation>{}", "<a>".repeat(100_000));
        let cases = [
            ("", "damaged"),
            ("<annotation>", "damaged"),
            ("<annotation><object></annotation>", "damaged"),
            ("<svg></svg>", "no Pascal VOC"),
            ("<annotation>&nothing;</annotation>", "damaged"),
            (bomb, "damaged"),
            (&deep, "no Pascal VOC"),
        ];
        for (xml, what) in cases {
            let fault = read("a.xml", xml).expect_err(what);
            assert!(fault.what.contains(what), "{fault}");
            assert!(fault.what.len() < 100, "{fault}");
        }
    }

    #[test]
    fn corners_are_whole_pixels() {
        let xml = write(&sheet());
        assert!(xml.contains("<filename>room.jpg</filename>"), "{xml}");
        assert_eq!(xml.matches("<object>").count(), 2);
        let lamp = "<bndbox><xmin>41</xmin><ymin>30</ymin><xmax>60</xmax><ymax>50</ymax></bndbox>";
        assert!(xml.contains(lamp), "{xml}");
        for (from, to, expected) in [
            (0.2, 0.4, (0, 1)),
            (99.8, 100.0, (99, 100)),
            (3., 7., (3, 7)),
        ] {
            assert_eq!(edges(from, to, 100), expected);
        }
    }

    #[test]
    fn hostile_labels_stay_text() {
        let mut sheet = sheet();
        sheet.boxes[0].label = Some("</name><x a=\"1\">&\u{0}\u{1b}".into());
        let xml = write(&sheet);
        assert!(
            xml.contains("<name>&lt;/name&gt;&lt;x a=\"1\"&gt;&amp;\u{fffd}\u{fffd}</name>"),
            "{xml}"
        );
    }
}
