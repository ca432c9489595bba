//! CSV (RFC 4180): one line per box.

use super::marked::{Sheet, rounded};

/// The columns.
const HEADER: &str = "picture,width,height,number,label,score,x1,y1,x2,y2,source\r\n";

/// All boxes; label and score may be empty. Corners are pixels of the picture.
pub fn write(sheet: &Sheet) -> String {
    let mut text = HEADER.to_owned();
    for marked in &sheet.boxes {
        let corners = <[f32; 4]>::from(marked.bbox).map(|value| rounded(value).to_string());
        let score = marked.score.map(|score| rounded(score).to_string());
        text.push_str(&format!(
            "{},{},{},{},{},{},{},{}\r\n",
            quoted(&sheet.name),
            sheet.size.width,
            sheet.size.height,
            marked.number,
            quoted(marked.label.as_deref().unwrap_or_default()),
            score.unwrap_or_default(),
            corners.join(","),
            if marked.is_own() { "user" } else { "model" },
        ));
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) || text.trim() != text {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::sheet;

    #[test]
    fn every_box_is_a_line() {
        let mut sheet = sheet();
        sheet.boxes[2].label = Some("a \"big\", red\nlamp".into());
        let expected = [
            HEADER.trim_end(),
            "room.jpg,100,80,0,black cat,0.9,0,0,10,10,model",
            "room.jpg,100,80,1,,0.6,20,0,30,10,model",
            "room.jpg,100,80,2,\"a \"\"big\"\", red\nlamp\",,40.5,30.25,60,50,user",
            "",
        ];
        assert_eq!(write(&sheet), expected.join("\r\n"));
    }
}
