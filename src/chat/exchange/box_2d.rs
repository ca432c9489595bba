//! Labelled JSON: a list of `{"box_2d": [ymin, xmin, ymax, xmax], "label"}` with whole numbers from 0 to
//! 1000, as some vision models write it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::foreign::Found;
use super::marked::Sheet;
use crate::chat::document::{LabelledBox, damaged};
use crate::error::Fault;
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

#[derive(Deserialize)]
struct Entry {
    box_2d: [f32; 4],
    label: Option<String>,
}

/// Reads the boxes for a picture of `size`.
///
/// # Errors
/// The JSON is damaged.
pub fn read(place: &str, json: &str, size: ImageSize) -> Result<Found, Fault> {
    let entries: Vec<Entry> = serde_json::from_str(json).map_err(|error| damaged(place, &error))?;
    let (width, height) = (size.width as f32 / 1000.0, size.height as f32 / 1000.0);
    let boxes = entries.into_iter().map(|Entry { box_2d, label }| {
        let [y1, x1, y2, x2] = box_2d;
        LabelledBox {
            bbox: [x1 * width, y1 * height, x2 * width, y2 * height].into(),
            label,
        }
    });
    Ok(Found {
        boxes: boxes.collect(),
        ..Found::default()
    })
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
        let found = read("a.json", &json, SIZE).expect("our own");
        assert_eq!(found.boxes[0].bbox, [0., 0., 10., 10.].into());
        assert_eq!(found.boxes[1].label.as_deref(), Some("lamp"));
        assert!(read("a.json", "[{}]", SIZE).is_err());
    }
}
