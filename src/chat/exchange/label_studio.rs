//! Label Studio JSON: one task per picture, boxes as `rectanglelabels` in percent of the picture. Proposals
//! are predictions, boxes of the user are annotations. The labelling configuration needs an `Image` named
//! `image` with the value `$image`, and `RectangleLabels` named `label`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::foreign::{Found, pick};
use super::marked::{MarkedBox, Sheet};
use crate::chat::document::{LabelledBox, damaged};
use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// The boxes with a label; those without are left out.
pub fn write(sheet: &Sheet) -> String {
    let results = |own: bool| -> Vec<Value> {
        let boxes = sheet.boxes.iter().filter(|b| b.is_own() == own);
        boxes.filter_map(|b| result(b, sheet.size)).collect()
    };
    let predicted = results(false);
    let scores: Vec<f64> = predicted
        .iter()
        .filter_map(|r| r["score"].as_f64())
        .collect();
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let predictions = json!([{
        "model_version": "ChatRex",
        "score": (mean * 1e4).round() / 1e4,
        "result": predicted,
    }]);
    let task = json!([{
        "id": 1,
        "data": {"image": sheet.name},
        "annotations": [{"id": 1, "was_cancelled": false, "result": results(true)}],
        "predictions": predictions,
    }]);
    serde_json::to_string_pretty(&task).expect("plain data")
}

fn result(marked: &MarkedBox, size: ImageSize) -> Option<Value> {
    let own = if marked.is_own() { "own-" } else { "" };
    Some(region(
        Region {
            id: format!("box-{own}{}", marked.number),
            from_name: "label",
            to_name: "image",
            label: marked.label.as_ref()?,
            score: marked.score,
        },
        marked.bbox,
        size,
    ))
}

/// What a result says beside its box.
#[derive(Clone, Debug)]
pub struct Region<'a> {
    /// Unique within its prediction.
    pub id: String,
    /// Name of the `RectangleLabels` in the labelling configuration.
    pub from_name: &'a str,
    /// Name of the `Image`.
    pub to_name: &'a str,
    /// One of the labels.
    pub label: &'a str,
    /// 0 to 1.
    pub score: Option<f32>,
}

/// One result of an annotation or prediction: the box `b`, in pixels and inside a picture of `size`, in percent.
pub fn region(region: Region<'_>, b: BoxXyxy, size: ImageSize) -> Value {
    let percent = |value: f32, side: u32| {
        let share = f64::from(value) / f64::from(side) * 100.0;
        (share * 1e6).round() / 1e6
    };
    let mut result = json!({
        "id": region.id,
        "type": "rectanglelabels",
        "from_name": region.from_name,
        "to_name": region.to_name,
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": {
            "x": percent(b.x1, size.width),
            "y": percent(b.y1, size.height),
            "width": percent(b.x2 - b.x1, size.width),
            "height": percent(b.y2 - b.y1, size.height),
            "rotation": 0,
            "rectanglelabels": [region.label],
        },
    });
    if let Some(score) = region.score {
        result["score"] = ((f64::from(score) * 1e4).round() / 1e4).into();
    }
    result
}

#[derive(Deserialize)]
struct Task {
    #[serde(default)]
    data: serde_json::Map<String, Value>,
    #[serde(default)]
    annotations: Vec<Results>,
    #[serde(default)]
    predictions: Vec<Results>,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    was_cancelled: bool,
    #[serde(default)]
    result: Vec<Drawn>,
}

/// A result that is read.
#[derive(Deserialize)]
struct Drawn {
    #[serde(default)]
    value: Value,
    original_width: Option<f64>,
    original_height: Option<f64>,
}

#[derive(Deserialize)]
struct Rectangle {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    #[serde(default)]
    rotation: f32,
    #[serde(default)]
    rectanglelabels: Vec<String>,
}

/// Reads the boxes of one task: the only one, else that of the picture called `name`. Annotations and
/// predictions both count.
///
/// # Errors
/// The JSON is damaged, or has several tasks and none of that name.
pub fn read(place: &str, json: &str, name: &str, size: ImageSize) -> Result<Found, Fault> {
    let tasks: Vec<Task> = serde_json::from_str(json).map_err(|error| damaged(place, &error))?;
    let pictures = tasks.iter().map(|task| {
        let address = task.data.values().find_map(Value::as_str);
        address.unwrap_or_default()
    });
    let task = &tasks[pick(place, pictures, name)?];
    let all = task.annotations.iter().chain(&task.predictions);
    let regions: Vec<&Drawn> = all
        .filter(|results| !results.was_cancelled)
        .flat_map(|results| &results.result)
        .collect();
    let (width, height) = (size.width as f32 / 100.0, size.height as f32 / 100.0);
    let mut found = Found::default();
    for region in regions {
        match Rectangle::deserialize(&region.value) {
            Ok(r) if r.rotation == 0.0 => {
                let (x, y) = (r.x * width, r.y * height);
                found.boxes.push(LabelledBox {
                    bbox: [x, y, x + r.width * width, y + r.height * height].into(),
                    label: r.rectanglelabels.into_iter().next(),
                });
                found.size = found
                    .size
                    .or(region.original_width.zip(region.original_height));
            }
            _ => found.left_out += 1,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::{SIZE, sheet};

    #[test]
    fn proposals_are_predictions_and_boxes_of_the_user_annotations() {
        let json = write(&sheet());
        let file: Value = serde_json::from_str(&json).expect("JSON");
        let predicted = &file[0]["predictions"][0]["result"];
        assert_eq!(predicted.as_array().map(Vec::len), Some(1));
        assert_eq!(predicted[0]["score"], 0.9);
        let own = &file[0]["annotations"][0]["result"][0]["value"];
        assert_eq!(own["x"], 40.5);
        assert_eq!(own["height"], 24.6875);
        assert_eq!(own["rectanglelabels"], json!(["lamp"]));
        let found = read("a.json", &json, "room.jpg", SIZE).expect("our own");
        assert_eq!(found.size, Some((100.0, 80.0)));
        let labels: Vec<_> = found.boxes.iter().map(|b| b.label.as_deref()).collect();
        assert_eq!(labels, [Some("lamp"), Some("black cat")]);
        assert_eq!(found.boxes[0].bbox, [40.5, 30.25, 60., 50.].into());
    }

    #[test]
    fn other_regions_are_counted_and_cancelled_work_is_skipped() {
        let rectangle = |rotation| json!({"value": {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": rotation}});
        let file = json!([{
            "data": {"image": "/data/upload/1/00112233-room.jpg"},
            "annotations": [
                {"result": [rectangle(0), rectangle(12), {"value": {"points": [[1, 2]]}}, {}]},
                {"was_cancelled": true, "result": [rectangle(0)]},
            ],
        }]);
        let found = read("a.json", &file.to_string(), "room.jpg", SIZE).expect("a task");
        assert_eq!((found.boxes.len(), found.left_out), (1, 3));
        assert_eq!(found.boxes[0].bbox, [0., 0., 50., 40.].into());
        assert_eq!((found.boxes[0].label.clone(), found.size), (None, None));
        assert!(read("a.json", "[]", "room.jpg", SIZE).is_err());
    }
}
