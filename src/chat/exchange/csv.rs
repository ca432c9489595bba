//! CSV (RFC 4180): one line per box.

use super::foreign::{Found, pick};
use super::marked::{Sheet, rounded};
use crate::chat::document::{LabelledBox, refused};
use crate::error::Fault;

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

/// Names of a column, in lower case.
type Names = &'static [&'static str];
const PICTURE: Names = &[
    "picture",
    "filename",
    "file_name",
    "image",
    "image_path",
    "path",
];
const LABEL: Names = &["label", "class", "class_name", "name", "category"];
const WIDTH: Names = &["width", "image_width", "img_width"];
const HEIGHT: Names = &["height", "image_height", "img_height"];
const EDGES: [Names; 4] = [
    &["x1", "xmin", "x_min", "left"],
    &["y1", "ymin", "y_min", "top"],
    &["x2", "xmax", "x_max", "right"],
    &["y2", "ymax", "y_max", "bottom"],
];

/// Reads the boxes of the picture called `name`, or of the only one. The first line names the columns; comma,
/// semicolon or tab is between them. A line without four numbers is left out.
///
/// # Errors
/// No columns for the edges, a quotation mark without end, or several pictures and none of that name.
pub fn read(place: &str, text: &str, name: &str) -> Result<Found, Fault> {
    let head = text.lines().next().unwrap_or_default();
    let most = |c: char| (head.matches(c).count(), c);
    let (_, between) = [most(';'), most('\t'), most(',')]
        .into_iter()
        .max_by_key(|(count, _)| *count)
        .unwrap_or((0, ','));
    let mut rows = records(text, between)
        .ok_or_else(|| refused(place, "a quotation mark has no end"))?
        .into_iter();
    let head: Vec<String> = (rows.next().unwrap_or_default().iter())
        .map(|column| column.trim().to_lowercase())
        .collect();
    let column = |names: Names| head.iter().position(|column| names.contains(&&**column));
    let [Some(x1), Some(y1), Some(x2), Some(y2)] = EDGES.map(column) else {
        return Err(refused(
            place,
            "its first line has no columns x1, y1, x2 and y2",
        ));
    };
    let rows: Vec<Vec<String>> = rows
        .filter(|row| row.iter().any(|v| !v.is_empty()))
        .collect();
    let field = |row: &Vec<String>, column: Option<usize>| {
        let value = column.and_then(|column| row.get(column));
        value.map(|value| value.trim().to_owned())
    };
    let picture = column(PICTURE);
    let of_row = |row: &Vec<String>| field(row, picture).unwrap_or_default();
    let mut pictures: Vec<String> = Vec::new();
    for row in &rows {
        let of = of_row(row);
        if !pictures.contains(&of) && pictures.len() <= rows.len() {
            pictures.push(of);
        }
    }
    let chosen = pick(place, pictures.iter().map(String::as_str), name)?;
    let number = |row: &Vec<String>, column: usize| field(row, Some(column))?.parse::<f32>().ok();
    let size = |row: &Vec<String>, names| field(row, column(names))?.parse::<f64>().ok();
    let mut found = Found::default();
    for row in rows.iter().filter(|row| of_row(row) == pictures[chosen]) {
        let edges = [x1, y1, x2, y2].map(|edge| number(row, edge));
        let [Some(x1), Some(y1), Some(x2), Some(y2)] = edges else {
            found.left_out += 1;
            continue;
        };
        found.boxes.push(LabelledBox {
            bbox: [x1, y1, x2, y2].into(),
            label: field(row, column(LABEL)),
        });
        let own = size(row, WIDTH).zip(size(row, HEIGHT));
        found.size = found.size.or(own.filter(|(w, h)| *w > 0.0 && *h > 0.0));
    }
    Ok(found)
}

/// The fields of all records; `None` if a quotation mark has no end.
fn records(text: &str, between: char) -> Option<Vec<Vec<String>>> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut field = String::new();
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if is_quoted => is_quoted = false,
            _ if is_quoted => field.push(c),
            '"' if field.is_empty() => is_quoted = true,
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c if c == between => record.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    (!is_quoted).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::sheet;

    #[test]
    fn a_written_file_comes_back() {
        let mut sheet = sheet();
        sheet.boxes[2].label = Some("a \"big\", red\nlamp".into());
        let found = read("a.csv", &write(&sheet), "room.jpg").expect("ours");
        assert_eq!((found.size, found.left_out), (Some((100.0, 80.0)), 0));
        let labels = found
            .boxes
            .iter()
            .map(|b| b.label.as_deref().unwrap_or("-"));
        let expected = ["black cat", "", "a \"big\", red\nlamp"];
        assert_eq!(labels.collect::<Vec<_>>(), expected);
        assert_eq!(found.boxes[2].bbox, [40.5, 30.25, 60., 50.].into());
    }

    #[test]
    fn the_columns_of_other_programs_are_known() {
        let text = "filename;width;height;class;XMin;ymin;xmax;ymax\nx/b.jpg;9;9;dog;1;2;3;4\n\n\
            a.jpg;100;80;cat;1;2;3;4\na.jpg;100;80;cat;1;2;three;4\na.jpg;100\n";
        let found = read("a.csv", text, "A.JPG").expect("a table");
        assert_eq!((found.boxes.len(), found.left_out), (1, 2));
        assert_eq!(found.size, Some((100.0, 80.0)));
        let plain = "x1\ty1\tx2\ty2\r\n1\t2\t3\t4";
        let found = read("a.csv", plain, "a.jpg").expect("a table");
        assert_eq!((found.boxes.len(), found.size), (1, None));
        assert_eq!(found.boxes[0].label, None);
        let none = read("a.csv", text, "c.jpg").expect_err("two pictures");
        assert!(none.what.contains("2 pictures"), "{none}");
    }

    #[test]
    fn foreign_tables_get_one_sentence() {
        for (text, what) in [
            ("", "no columns"),
            ("a,b\n1,2\n", "no columns"),
            ("x1,y1,x2\n", "no columns"),
            ("x1,y1,x2,y2\n\"1", "no end"),
            ("x1,y1,x2,y2\n", "no picture"),
        ] {
            let fault = read("a.csv", text, "a.jpg").expect_err(what);
            assert!(fault.what.contains(what), "{fault}");
        }
    }

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
