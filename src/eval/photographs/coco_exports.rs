//! Files as labelling tools export them, and what may be unusual in them.

use serde_json::{Value, json};

use super::coco::{CocoSet, Picture};
use crate::error::{ErrorCode, Fault};

fn parse(value: &Value) -> Result<CocoSet, Fault> {
    CocoSet::parse(value.to_string().as_bytes(), "export.json")
}

fn file(images: Value, annotations: Value, categories: Value) -> Value {
    json!({"images": images, "annotations": annotations, "categories": categories})
}

/// `[kind, x, y, width, height]` of every annotation.
fn boxes(set: &CocoSet) -> Vec<(String, [f64; 4])> {
    let annotations = set.pictures.iter().flat_map(|picture| &picture.annotations);
    annotations
        .map(|annotation| (set.kinds[annotation.kind].clone(), annotation.xywh))
        .collect()
}

#[test]
fn label_studio_exports_are_read() {
    let set = parse(&file(
        json!([{"width": 640, "height": 480, "id": 0, "file_name": "../../label-studio/data/media/upload/3/ab12-dog.jpg"},
               {"width": 640, "height": 480, "id": 1, "file_name": "/data/local-files/?d=set/cat%201.jpg"}]),
        json!([{"id": 0, "image_id": 0, "category_id": 1, "segmentation": [], "bbox": [10.5, 20.25, 100.0, 50.0],
                "ignore": 0, "iscrowd": 0, "area": 5000.0},
               {"id": 1, "image_id": 1, "category_id": 0, "segmentation": [[5, 5, 25, 5, 25, 45]], "bbox": [],
                "ignore": 0, "iscrowd": 0}]),
        json!([{"id": 0, "name": "Cat"}, {"id": 1, "name": "Dog"}]),
    ))
    .expect("an export");
    let expected = [
        ("dog".to_owned(), [10.5, 20.25, 100.0, 50.0]),
        ("cat".to_owned(), [5.0, 5.0, 20.0, 40.0]),
    ];
    assert_eq!(boxes(&set), expected);
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, "").expect("a file");
        path
    };
    // The picture is where its name says, or nearer.
    let [flat, nested] = [write("ab12-dog.jpg"), write("set/cat 1.jpg")];
    assert_eq!(set.pictures[0].path(folder.path()), flat);
    assert_eq!(set.pictures[1].path(folder.path()), nested);
    set.check_files(folder.path()).expect("two files");
}

#[test]
fn cvat_exports_are_read() {
    let set = parse(&file(
        json!([{"id": 1, "width": 640, "height": 480, "file_name": "frames/000001.png", "license": 0,
                "flickr_url": "", "coco_url": "", "date_captured": 0}]),
        json!([{"id": 1, "image_id": 1, "category_id": 2, "segmentation": [], "area": 200.0,
                "bbox": [1.0, 2.0, 10.0, 20.0], "iscrowd": 0,
                "attributes": {"occluded": false, "rotation": 0.0, "colour": null}},
               {"id": 2, "image_id": 1, "category_id": 1, "area": 100.0, "bbox": [0.0, 0.0, 10.0, 10.0],
                "segmentation": {"counts": [0, 4800], "size": [480, 640]}, "iscrowd": 1}]),
        json!([{"id": 1, "name": "car", "supercategory": ""}, {"id": 2, "name": "bus", "supercategory": ""}]),
    ))
    .expect("an export");
    assert_eq!(boxes(&set)[1], ("bus".to_owned(), [1.0, 2.0, 10.0, 20.0]));
    assert!(set.pictures[0].annotations[0].crowd);
    assert_eq!(set.pictures[0].annotations[1].area, 200.0);
}

/// Roboflow adds a category for the whole set, which no annotation has.
#[test]
fn roboflow_exports_are_read() {
    let images = json!([{"id": 0, "license": 1, "file_name": "a_jpg.rf.0f3.jpg", "height": 416, "width": 416,
                         "date_captured": "2026-01-01T00:00:00+00:00", "extra": {"name": "a.jpg"}}]);
    let annotation = |category: u32| {
        json!([{"id": 0, "image_id": 0, "category_id": category, "bbox": [216, 50.5, 40, "30"], "area": 1200,
                "segmentation": [], "iscrowd": 0}])
    };
    let set = parse(&file(
        images.clone(),
        annotation(2),
        json!([{"id": 0, "name": "animals", "supercategory": "none"},
               {"id": 1, "name": "cat", "supercategory": "animals"},
               {"id": 2, "name": "dog", "supercategory": "animals"}]),
    ));
    let set = set.expect("an export");
    assert_eq!(set.kinds, ["cat", "dog"]);
    assert_eq!(boxes(&set), [("dog".to_owned(), [216.0, 50.5, 40.0, 30.0])]);
    let same_name = json!([{"id": 0, "name": "dog", "supercategory": "none"},
                           {"id": 1, "name": "dog", "supercategory": "dog"}]);
    let set = parse(&file(images, annotation(1), same_name)).expect("an export");
    assert_eq!(set.kinds, ["dog"]);
}

#[test]
fn what_has_one_meaning_is_read() {
    let base = || {
        file(
            json!([{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]),
            json!([{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}]),
            json!([{"id": 1, "name": "dog"}]),
        )
    };
    let expected = boxes(&parse(&base()).expect("a plain file"));
    for (pointer, value) in [
        ("/images/0/id", json!("1")),
        ("/images/0/id", json!(1.0)),
        ("/images/0/width", json!("40")),
        ("/images/0/height", json!(30.0)),
        ("/annotations/0/id", json!(null)),
        ("/annotations/0/id", json!("uuid-7")),
        ("/annotations/0/image_id", json!("1")),
        ("/annotations/0/category_id", json!("1")),
        ("/annotations/0/category_id", json!(null)),
        ("/annotations/0/bbox", json!(["1", "2", "10.0", "20"])),
        ("/annotations/0/bbox", json!("[1, 2, 10, 20]")),
        (
            "/annotations/0/bbox",
            json!({"x": 1, "y": 2, "width": 10, "height": 20}),
        ),
        (
            "/categories/0",
            json!({"id": "1", "name": null, "supercategory": "Dog"}),
        ),
    ] {
        let mut file = base();
        *file.pointer_mut(pointer).expect(pointer) = value;
        let set = parse(&file).unwrap_or_else(|fault| panic!("{pointer}: {fault}"));
        assert_eq!(boxes(&set), expected, "{pointer}");
    }
    for (key, value) in [
        ("segmentation", json!(null)),
        ("iscrowd", json!(null)),
        ("iscrowd", json!(false)),
        ("iscrowd", json!("0")),
        ("area", json!("x")),
        ("area", json!(null)),
        ("score", json!({"any": [1, 2]})),
    ] {
        let mut file = base();
        file["annotations"][0][key] = value;
        let set = parse(&file).unwrap_or_else(|fault| panic!("{key}: {fault}"));
        assert_eq!(boxes(&set), expected, "{key}");
        assert_eq!(set.pictures[0].annotations[0].area, 200.0);
    }
    let text = format!("\u{feff}{}", base());
    let text = text.replace("\"bbox\"", "\"area\": NaN, \"score\": -Infinity, \"bbox\"");
    let set = CocoSet::parse(text.as_bytes(), "export.json").expect("a byte order mark and NaN");
    assert_eq!(boxes(&set), expected);
}

/// Ids that are no numbers: the pictures get numbers in the order of the list.
#[test]
fn ids_may_be_text() {
    let set = parse(&file(
        json!([{"id": "b", "file_name": "b.png", "width": 40, "height": 30},
               {"id": "a", "file_name": "a.png", "width": 40, "height": 30}]),
        json!([{"image_id": "a", "category_id": "d-1", "bbox": [0, 0, 4, 4]}]),
        json!([{"id": "d-1", "name": "dog"}, {"id": "c-1", "name": "cat"}]),
    ))
    .expect("a file");
    let files = set.pictures.iter().map(|picture| picture.file.to_str());
    assert_eq!(files.collect::<Vec<_>>(), [Some("b.png"), Some("a.png")]);
    assert_eq!(set.pictures[1].annotations.len(), 1);
    assert_eq!(boxes(&set)[0].0, "dog");
}

#[test]
fn captions_belong_to_pictures_or_regions() {
    let set = parse(&file(
        json!([{"id": 1, "file_name": "a.png", "width": 40, "height": 30, "caption": "A dog."}]),
        json!([{"id": 1, "image_id": 1, "caption": " A brown dog. "},
               {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "caption": "the brown dog"}]),
        json!([{"id": 1, "name": "dog"}]),
    ))
    .expect("a file");
    let Picture {
        captions,
        annotations,
        ..
    } = &set.pictures[0];
    assert_eq!(captions, &["A dog.", "A brown dog."]);
    assert_eq!(annotations[0].caption.as_deref(), Some("the brown dog"));
}

#[test]
fn what_has_no_meaning_is_refused_with_line_or_record() {
    let text = "{\"images\": [],\n \"annotations\": [\n  {\"id\": 1,,}],\n \"categories\": []}";
    let fault = CocoSet::parse(text.as_bytes(), "export.json").expect_err("a syntax error");
    assert!(fault.what.contains("line 3"), "{fault}");
    let list = json!([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]);
    assert!(parse(&list).is_err_and(|fault| fault.what.contains("is no COCO instances file")));
    let mut nan = file(
        json!([{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]),
        json!([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]},
               {"image_id": 1, "category_id": 1, "bbox": [0, "?", 4, 4]}]),
        json!([{"id": 1, "name": "dog"}]),
    )
    .to_string();
    nan = nan.replace("\"?\"", "NaN");
    let fault = CocoSet::parse(nan.as_bytes(), "export.json").expect_err("not a number");
    assert!(
        fault
            .what
            .contains("annotation number 2 of the list has a box"),
        "{fault}"
    );
    assert_eq!(fault.code, ErrorCode::Corrupt);
    // Two names lead to one file.
    let set = parse(&file(
        json!([{"id": 1, "file_name": "train/a.png", "width": 4, "height": 3},
               {"id": 2, "file_name": "val/a.png", "width": 4, "height": 3}]),
        json!([]),
        json!([]),
    ))
    .expect("a file");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.png"), "").expect("a file");
    let fault = set.check_files(folder.path()).expect_err("one file");
    assert!(fault.what.contains("train/a.png and val/a.png"), "{fault}");
}
