//! Pascal VOC XML: the edges of boxes as whole pixels.

use super::marked::{Sheet, safe_name};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::sheet;

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
