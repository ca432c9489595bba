//! Reader of COCO instances files (`images`, `annotations`, `categories`).
//!
//! The file is checked before anything is evaluated. Boxes are `[x, y, width, height]` in pixels. As in
//! pycocotools, an annotation with `iscrowd` is a region of many objects: nothing has to be found there,
//! and a box inside it is neither right nor wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::geometry::BoxXyxy;
use crate::image::{Pixels, decode};

/// A box may extend beyond its picture by this many pixels: published files round coordinates.
const TOLERANCE: f64 = 1.0;

/// A data set: pictures with labeled boxes.
#[derive(Clone, Debug, PartialEq)]
pub struct CocoSet {
    /// Names of the kinds, in the order of their ids.
    pub kinds: Vec<String>,
    /// The pictures, in the order of their ids.
    pub pictures: Vec<Picture>,
    /// Annotations without area, which are left out.
    pub without_area: usize,
}

/// A picture and its annotations, in the order of their category ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The picture's id.
    pub id: i64,
    /// Path of its file below the folder of images.
    pub file: PathBuf,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Its objects and crowds.
    pub annotations: Vec<Annotation>,
}

/// A labeled box.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Index into [`CocoSet::kinds`].
    pub kind: usize,
    /// `[x, y, width, height]` as in the file.
    pub xywh: [f64; 4],
    /// Whether the box is around a crowd.
    pub crowd: bool,
}

impl Annotation {
    /// The corners.
    pub fn bbox(&self) -> BoxXyxy {
        let [x, y, w, h] = self.xywh;
        [x as f32, y as f32, (x + w) as f32, (y + h) as f32].into()
    }
}

#[derive(Deserialize)]
struct InstancesFile {
    images: Vec<ImageRow>,
    annotations: Vec<AnnotationRow>,
    categories: Vec<CategoryRow>,
}

#[derive(Deserialize)]
struct ImageRow {
    id: i64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct AnnotationRow {
    id: i64,
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CategoryRow {
    id: i64,
    name: String,
}

impl CocoSet {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or [`CocoSet::parse`]'s.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let text = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a file; `place` names it in errors.
    ///
    /// # Errors
    /// Not an instances file, an id twice, an annotation of an unknown picture or category, a box that is
    /// not finite or extends beyond its picture, a file name that leaves the folder of images, or a name
    /// of a kind that questions cannot contain.
    pub fn parse(text: &[u8], place: &str) -> Result<Self, Fault> {
        let fault = |what: String| {
            let advice = "Use a COCO instances file and the pictures it describes";
            Fault::new(FaultKind::File, place, what, advice).code(ErrorCode::Corrupt)
        };
        let file: InstancesFile = serde_json::from_slice(text)
            .map_err(|error| fault(format!("is no COCO instances file: {error}")))?;
        let (kinds, kind_of) = kinds(file.categories).map_err(fault)?;
        let mut pictures = BTreeMap::new();
        let mut names = BTreeSet::new();
        for row in file.images {
            let id = row.id;
            let picture = picture(row).map_err(fault)?;
            if !names.insert(picture.file.clone()) {
                return Err(fault(format!(
                    "names the picture file {} twice",
                    picture.file.display()
                )));
            }
            if pictures.insert(id, picture).is_some() {
                return Err(fault(format!("has two pictures with id {id}")));
            }
        }
        let mut without_area = 0;
        let mut ids = BTreeSet::new();
        for row in file.annotations {
            let id = row.id;
            if !ids.insert(id) {
                return Err(fault(format!("has two annotations with id {id}")));
            }
            let Some(picture) = pictures.get_mut(&row.image_id) else {
                let image = row.image_id;
                return Err(fault(format!(
                    "annotation {id} is of picture {image}, which is not listed"
                )));
            };
            let Some(&kind) = kind_of.get(&row.category_id) else {
                let category = row.category_id;
                return Err(fault(format!(
                    "annotation {id} is of category {category}, which is not listed"
                )));
            };
            check_box(&row, picture).map_err(fault)?;
            if row.bbox[2] <= 0.0 || row.bbox[3] <= 0.0 {
                without_area += 1;
                continue;
            }
            picture.annotations.push(Annotation {
                kind,
                xywh: row.bbox,
                crowd: row.iscrowd == 1,
            });
        }
        if pictures.is_empty() {
            return Err(fault("lists no pictures".into()));
        }
        let mut pictures: Vec<Picture> = pictures.into_values().collect();
        for picture in &mut pictures {
            picture
                .annotations
                .sort_by_key(|annotation| annotation.kind);
        }
        Ok(Self {
            kinds,
            pictures,
            without_area,
        })
    }

    /// Checks that every picture file exists in the folder `images`.
    ///
    /// # Errors
    /// A file is missing.
    pub fn check_files(&self, images: &Path) -> Result<(), Fault> {
        let missing: Vec<&Picture> = self
            .pictures
            .iter()
            .filter(|picture| !images.join(&picture.file).is_file())
            .collect();
        let Some(first) = missing.first() else {
            return Ok(());
        };
        let what = match missing.len() {
            1 => "is missing".to_owned(),
            count => format!("is missing, and so are {} more of the pictures", count - 1),
        };
        Err(Fault::new(
            FaultKind::File,
            images.join(&first.file).display().to_string(),
            what,
            "Name the folder of the pictures with --images",
        )
        .code(ErrorCode::NotFound))
    }
}

/// The names of the kinds in the order of their ids, and the index of each id.
fn kinds(rows: Vec<CategoryRow>) -> Result<(Vec<String>, BTreeMap<i64, usize>), String> {
    let mut by_id = BTreeMap::new();
    let mut names = BTreeSet::new();
    for CategoryRow { id, name } in rows {
        let name = name.trim().to_lowercase();
        if name.is_empty() || name.contains(['<', '>', ';', '\n']) {
            return Err(format!(
                "category {id} has the name `{name}`, which a question cannot contain"
            ));
        }
        if !names.insert(name.clone()) {
            return Err(format!("has two categories with the name `{name}`"));
        }
        if by_id.insert(id, name).is_some() {
            return Err(format!("has two categories with id {id}"));
        }
    }
    let index = by_id.keys().enumerate().map(|(kind, &id)| (id, kind));
    let index = index.collect();
    Ok((by_id.into_values().collect(), index))
}

fn picture(row: ImageRow) -> Result<Picture, String> {
    let file = PathBuf::from(&row.file_name);
    let inside = file
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside || row.file_name.is_empty() {
        return Err(format!(
            "picture {} has the file name `{}`, which is not inside a folder",
            row.id, row.file_name
        ));
    }
    if row.width == 0 || row.height == 0 {
        return Err(format!(
            "picture {} has {} x {} pixels",
            row.id, row.width, row.height
        ));
    }
    Ok(Picture {
        id: row.id,
        file,
        width: row.width,
        height: row.height,
        annotations: Vec::new(),
    })
}

fn check_box(row: &AnnotationRow, picture: &Picture) -> Result<(), String> {
    let AnnotationRow {
        id,
        iscrowd,
        bbox: [x, y, w, h],
        ..
    } = *row;
    if iscrowd > 1 {
        return Err(format!("annotation {id} has iscrowd {iscrowd}, not 0 or 1"));
    }
    let (width, height) = (f64::from(picture.width), f64::from(picture.height));
    let fits = |from: f64, length: f64, limit: f64| {
        length >= 0.0 && from >= -TOLERANCE && from + length <= limit + TOLERANCE
    };
    if fits(x, w, width) && fits(y, h, height) {
        return Ok(());
    }
    Err(format!(
        "annotation {id} has the box [{x}, {y}, {w}, {h}], which is not inside its picture of {width} x {height} pixels"
    ))
}

impl Picture {
    /// The pixels of the picture in the folder `images`.
    ///
    /// # Errors
    /// The file cannot be read or is no picture, or its size is not that of the annotations.
    pub fn pixels(&self, images: &Path) -> Result<Pixels, Fault> {
        let path = images.join(&self.file);
        let pixels = decode::open(&path)?;
        if (pixels.width, pixels.height) == (self.width, self.height) {
            return Ok(pixels);
        }
        Err(Fault::new(
            FaultKind::Picture,
            path.display().to_string(),
            format!(
                "has {} x {} pixels, its annotations are for {} x {}",
                pixels.width, pixels.height, self.width, self.height
            ),
            "Use the pictures that the annotations describe",
        )
        .code(ErrorCode::Corrupt))
    }

    /// The objects, crowds left out.
    pub fn objects(&self) -> Vec<&Annotation> {
        let objects = self.annotations.iter();
        objects.filter(|annotation| !annotation.crowd).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn valid() -> Value {
        json!({
            "info": {"year": 2026},
            "images": [
                {"id": 7, "file_name": "b.png", "width": 40, "height": 30},
                {"id": 3, "file_name": "sub/a.png", "width": 20, "height": 20, "license": 1},
            ],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1.5, 2, 10, 10], "area": 60.0, "iscrowd": 0,
                 "segmentation": [[1, 2, 3, 4, 5, 6]]},
                {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 40.2, 30], "iscrowd": 1,
                 "segmentation": {"size": [30, 40], "counts": [1200]}},
                {"id": 3, "image_id": 7, "category_id": 2, "bbox": [4, 4, 0, 5]},
            ],
            "categories": [{"id": 90, "name": "Toothbrush"}, {"id": 2, "name": "dog", "supercategory": "animal"}],
        })
    }

    fn parse(value: &Value) -> Result<CocoSet, Fault> {
        CocoSet::parse(value.to_string().as_bytes(), "instances.json")
    }

    #[test]
    fn pictures_and_annotations_are_sorted_by_id() {
        let set = parse(&valid()).unwrap();
        assert_eq!(set.kinds, ["dog", "toothbrush"]);
        assert_eq!(set.without_area, 1);
        let ids: Vec<i64> = set.pictures.iter().map(|picture| picture.id).collect();
        assert_eq!(ids, [3, 7]);
        let annotations = &set.pictures[1].annotations;
        assert!(annotations[0].crowd && annotations[0].kind == 0);
        assert_eq!(annotations[1].bbox(), [1.5, 2.0, 11.5, 12.0].into());
        assert_eq!(set.pictures[1].objects(), [&annotations[1]]);
    }

    #[test]
    fn wrong_files_are_refused_with_their_cause() {
        let cases: [(&str, Value, &str); 17] = [
            ("/images", json!([]), "annotation 1 is of picture 7"),
            ("/images/0/id", json!(3), "two pictures with id 3"),
            (
                "/images/0/file_name",
                json!("../b.png"),
                "not inside a folder",
            ),
            (
                "/images/0/file_name",
                json!("/b.png"),
                "not inside a folder",
            ),
            ("/images/0/file_name", json!("sub/a.png"), "twice"),
            ("/images/0/width", json!(0), "0 x 30 pixels"),
            ("/images/0/width", json!(-4), "is no COCO instances file"),
            ("/images/0/width", json!(4e30), "is no COCO instances file"),
            (
                "/annotations/0/image_id",
                json!(8),
                "picture 8, which is not listed",
            ),
            (
                "/annotations/0/category_id",
                json!(1),
                "category 1, which is not listed",
            ),
            ("/annotations/0/id", json!(2), "two annotations with id 2"),
            (
                "/annotations/0/bbox",
                json!([35, 2, 10, 10]),
                "not inside its picture",
            ),
            (
                "/annotations/0/bbox",
                json!([5, 2, -3, 10]),
                "not inside its picture",
            ),
            (
                "/annotations/0/bbox",
                json!([1e308, 2, 1e308, 10]),
                "not inside its picture",
            ),
            (
                "/annotations/0/bbox",
                json!([1, 2, 3]),
                "is no COCO instances file",
            ),
            ("/annotations/0/iscrowd", json!(2), "iscrowd 2"),
            (
                "/categories/0/name",
                json!("dog"),
                "two categories with the name `dog`",
            ),
        ];
        for (pointer, value, expected) in cases {
            let mut file = valid();
            *file.pointer_mut(pointer).unwrap() = value;
            let fault = parse(&file).expect_err(pointer);
            assert!(fault.what.contains(expected), "{pointer}: {fault}");
            assert_eq!(fault.place, "instances.json");
        }
        let empty = json!({"images": [], "annotations": [], "categories": []});
        assert!(parse(&empty).unwrap_err().what.contains("no pictures"));
        let tag =
            json!({"images": [], "annotations": [], "categories": [{"id": 1, "name": "<obj0>"}]});
        assert!(parse(&tag).unwrap_err().what.contains("cannot contain"));
        let cut = valid().to_string();
        let cut = CocoSet::parse(&cut.as_bytes()[..cut.len() / 2], "x").unwrap_err();
        assert!(cut.what.contains("line 1"), "{cut}");
    }

    #[test]
    fn picture_files_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let set = parse(&valid()).unwrap();
        let fault = set.check_files(folder.path()).unwrap_err();
        assert_eq!(fault.code, ErrorCode::NotFound);
        assert!(fault.place.ends_with("a.png") && fault.what.contains("1 more"));
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        ::image::RgbImage::new(20, 20)
            .save(folder.path().join("sub/a.png"))
            .unwrap();
        ::image::RgbImage::new(30, 40)
            .save(folder.path().join("b.png"))
            .unwrap();
        set.check_files(folder.path()).unwrap();
        assert!(set.pictures[0].pixels(folder.path()).is_ok());
        let fault = set.pictures[1].pixels(folder.path()).unwrap_err();
        assert!(fault.what.contains("30 x 40 pixels"), "{fault}");
    }
}
