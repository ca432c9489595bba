//! COCO JSON: `bbox` is `[x, y, width, height]` in pixels, ids start at 1, `score` is the proposal's.

use serde::Deserialize;
use serde_json::{Value, json};

use super::foreign::{Found, pick};
use super::marked::{MarkedBox, Sheet, category, rounded};
use crate::chat::document::{LabelledBox, damaged};
use crate::error::Fault;

/// The boxes with a label as COCO JSON; those without are left out.
pub fn write(sheet: &Sheet) -> String {
    write_all(std::slice::from_ref(sheet), &sheet.categories())
}

/// The same for several pictures with these categories.
pub fn write_all(sheets: &[Sheet], categories: &[String]) -> String {
    let mut annotations = Vec::new();
    for (image, sheet) in sheets.iter().enumerate() {
        for marked in &sheet.boxes {
            let place = marked.label.as_ref().and_then(|l| category(categories, l));
            if let Some(place) = place {
                let id = annotations.len() + 1;
                annotations.push(annotation(
                    id,
                    &(image + 1).into(),
                    marked,
                    &(place + 1).into(),
                ));
            }
        }
    }
    let images = sheets.iter().enumerate().map(|(image, sheet)| {
        json!({
            "id": image + 1,
            "file_name": sheet.name,
            "width": sheet.size.width,
            "height": sheet.size.height,
        })
    });
    let categories = (categories.iter().enumerate())
        .map(|(place, name)| json!({"id": place + 1, "name": name, "supercategory": ""}));
    let file = json!({
        "info": {"description": "Boxes of ChatRex"},
        "licenses": [],
        "images": images.collect::<Vec<_>>(),
        "annotations": annotations,
        "categories": categories.collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&file).expect("plain data")
}

/// An annotation; `image` and `category` are ids.
pub(crate) fn annotation(id: usize, image: &Value, marked: &MarkedBox, category: &Value) -> Value {
    let b = marked.bbox;
    let [x1, y1, x2, y2] = [b.x1, b.y1, b.x2, b.y2].map(rounded);
    let (w, h) = (rounded(b.x2 - b.x1), rounded(b.y2 - b.y1));
    let mut annotation = json!({
        "id": id,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, w, h],
        "area": rounded((w * h) as f32),
        "iscrowd": 0,
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
    });
    if let Some(score) = marked.score {
        annotation["score"] = rounded(score).into();
    }
    annotation
}

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: Value,
    #[serde(default)]
    file_name: String,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Value,
    category_id: Option<Value>,
    /// Absent where the file has masks or key points only.
    bbox: Option<[f32; 4]>,
}

#[derive(Deserialize)]
struct Category {
    id: Value,
    name: String,
}

/// Reads the boxes of one picture: the only one of the file, else the one called `name`.
///
/// # Errors
/// The JSON is damaged, or has several pictures and none of that name.
pub fn read(place: &str, json: &str, name: &str) -> Result<Found, Fault> {
    let file: File = serde_json::from_str(json).map_err(|error| damaged(place, &error))?;
    let pictures = file.images.iter().map(|image| image.file_name.as_str());
    let chosen = pick(place, pictures, name)?;
    let image = &file.images[chosen];
    let mut left_out = 0;
    let mut boxes = Vec::new();
    for annotation in file.annotations.iter().filter(|a| a.image_id == image.id) {
        let Some([x, y, w, h]) = annotation.bbox else {
            left_out += 1;
            continue;
        };
        let of = annotation.category_id.as_ref();
        let category = file.categories.iter().find(|c| Some(&c.id) == of);
        boxes.push(LabelledBox {
            bbox: [x, y, x + w, y + h].into(),
            label: category.map(|c| c.name.clone()),
        });
    }
    Ok(Found {
        boxes,
        size: image.width.zip(image.height),
        left_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::marked::Unlabelled;
    use crate::chat::exchange::test_sheet::sheet;

    #[test]
    fn boxes_are_x_y_width_height_with_ids_from_one() {
        let file: Value = serde_json::from_str(&write(&sheet())).expect("JSON");
        let annotations = file["annotations"].as_array().expect("a list");
        assert_eq!(annotations.len(), 2, "the box without a label is left out");
        assert_eq!(annotations[0]["id"], 1);
        assert_eq!(annotations[0]["score"], 0.9);
        assert_eq!(annotations[1]["bbox"], json!([40.5, 30.25, 19.5, 19.75]));
        assert_eq!(annotations[1]["category_id"], 2);
        assert!(annotations[1].get("score").is_none(), "a box of the user");
        assert_eq!(file["images"][0]["file_name"], "room.jpg");
        assert_eq!(
            file["categories"][1],
            json!({"id": 2, "name": "lamp", "supercategory": ""})
        );
    }

    #[test]
    fn a_written_file_comes_back() {
        let sheet = sheet().labelled(Unlabelled::AsObject);
        let found = read("a.json", &write(&sheet), "room.jpg").expect("our own");
        assert_eq!(found.size, Some((100.0, 80.0)));
        let expected = sheet.boxes.iter().map(|b| LabelledBox {
            bbox: b.bbox,
            label: b.label.clone(),
        });
        assert_eq!(found.boxes, expected.collect::<Vec<_>>());
    }

    #[test]
    fn the_picture_is_chosen_by_name_and_crowds_without_boxes_are_counted() {
        let two = json!({
            "images": [{"id": "a", "file_name": "x/a.jpg"}, {"id": "b", "file_name": "b.jpg", "width": 9, "height": 9}],
            "annotations": [
                {"image_id": "a", "category_id": 3, "bbox": [0, 1, 2, 3]},
                {"image_id": "b", "category_id": 9, "bbox": [1, 1, 1, 1]},
                {"image_id": "b", "category_id": 3},
            ],
            "categories": [{"id": 3, "name": "dog"}],
        })
        .to_string();
        let a = read("f", &two, "a.jpg").expect("named");
        assert_eq!((a.boxes.len(), a.left_out), (1, 0));
        assert_eq!(a.boxes[0].label.as_deref(), Some("dog"));
        let b = read("f", &two, "B.jpg").expect("named");
        assert_eq!((b.boxes[0].label.clone(), b.left_out), (None, 1));
        let none = read("f", &two, "c.jpg").expect_err("two pictures");
        assert!(none.what.contains("2 pictures"), "{none}");
        for bad in ["{", r#"{"images": 3}"#, r#"{"images": []}"#] {
            assert_eq!(read("f", bad, "c.jpg").expect_err(bad).place, "f");
        }
    }
}
