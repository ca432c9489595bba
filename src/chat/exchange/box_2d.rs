//! Labelled JSON: a list of `{"box_2d": [ymin, xmin, ymax, xmax], "label"}` with whole numbers from 0 to
//! 1000, as some vision models write it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::foreign::Found;
use super::marked::Sheet;
use crate::chat::document::LabelledBox;
use crate::protocol::ImageSize;

/// The boxes with a label; those without are left out.
pub fn write(sheet: &Sheet) -> String {
    let (width, height) = (sheet.size.width as f32, sheet.size.height as f32);
    let share = |value: f32, side: f32| (value / side * 1000.0).round() as u32;
    let boxes: Vec<Value> = (sheet.boxes.iter())
        .filter_map(|marked| {
            let (b, label) = (marked.bbox, marked.label.as_ref()?);
            Some(json!({
                "box_2d": [
                    share(b.y1, height),
                    share(b.x1, width),
                    share(b.y2, height),
                    share(b.x2, width),
                ],
                "label": label,
            }))
        })
        .collect();
    serde_json::to_string_pretty(&boxes).expect("plain data")
}

/// The list of boxes: the value itself, or the only list of an object around it. Boxes are known by their
/// `box_2d`.
pub fn list(value: &Value) -> Option<&Vec<Value>> {
    let is_box = |entry: &Value| entry.get("box_2d").is_some();
    let is_list = |list: &&Vec<Value>| list.iter().any(is_box);
    let inner = || {
        value
            .as_object()?
            .values()
            .find_map(|v| v.as_array().filter(is_list))
    };
    value.as_array().filter(is_list).or_else(inner)
}

/// The text without the fence that models put around JSON.
pub fn without_fence(text: &str) -> &str {
    let fenced = text.trim().strip_prefix("```");
    let inner = fenced.and_then(|text| text.strip_suffix("```"));
    inner
        .and_then(|text| text.split_once('\n'))
        .map_or(text, |(_, text)| text)
}

/// Reads the boxes of a [`list`] for a picture of `size`. An entry without four numbers is left out.
pub fn read(list: &[Value], size: ImageSize) -> Found {
    let (width, height) = (size.width as f32 / 1000.0, size.height as f32 / 1000.0);
    let mut found = Found::default();
    for entry in list {
        let edges = <[f32; 4]>::deserialize(&entry["box_2d"]);
        let Ok([y1, x1, y2, x2]) = edges else {
            found.left_out += 1;
            continue;
        };
        found.boxes.push(LabelledBox {
            bbox: [x1 * width, y1 * height, x2 * width, y2 * height].into(),
            label: entry["label"].as_str().map(str::to_owned),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::{SIZE, sheet};

    #[test]
    fn boxes_are_ymin_xmin_ymax_xmax_of_a_thousand_and_come_back() {
        let json = write(&sheet());
        let values: Value = serde_json::from_str(&json).expect("JSON");
        let expected = json!([
            {"box_2d": [0, 0, 125, 100], "label": "black cat"},
            {"box_2d": [378, 405, 625, 600], "label": "lamp"},
        ]);
        assert_eq!(values, expected);
        let found = read(list(&values).expect("a list"), SIZE);
        assert_eq!(found.boxes[0].bbox, [0., 0., 10., 10.].into());
        assert_eq!(found.boxes[1].label.as_deref(), Some("lamp"));
    }

    #[test]
    fn lists_of_models_are_read_with_fences_and_around() {
        let cases = [
            (r#"[{}, {"box_2d": [0, 0, 500, 500]}]"#, Some((1, 1))),
            (
                r#"{"note": [1], "objects": [{"box_2d": [0, 0, 500, 500], "label": 3}, {"box_2d": "no"}, 7]}"#,
                Some((1, 2)),
            ),
            ("```json\n[{\"box_2d\": [0, 0, 1, 1]}]\n```\n", Some((1, 0))),
            ("[{\"box_2d\": [1, 2, 3]}]", Some((0, 1))),
            ("[{}]", None),
            ("{}", None),
            ("3", None),
        ];
        for (text, expected) in cases {
            let value: Value = serde_json::from_str(without_fence(text)).expect(text);
            let found = list(&value).map(|list| read(list, SIZE));
            assert_eq!(
                found.map(|f| (f.boxes.len(), f.left_out)),
                expected,
                "{text}"
            );
        }
        for whole in ["```", "``````", "a```b", "```json```"] {
            assert_eq!(without_fence(whole), whole);
        }
    }
}
