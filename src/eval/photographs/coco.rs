//! Reader of COCO instances files (`images`, `annotations`, `categories`), also as labelling tools write
//! them.
//!
//! The file is checked before anything is evaluated. Boxes are `[x, y, width, height]` in pixels. As in
//! pycocotools, an annotation with `iscrowd` is a region of many objects: nothing has to be found there,
//! and a box inside it is neither right nor wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::coco_rows::{BoxField, Key, Outline, Scalar, clean_json, relative_path};
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
    /// The number of the picture with each id of the file.
    pub(in crate::eval) picture_ids: BTreeMap<Key, i64>,
    /// The kind with each id of the file.
    pub(in crate::eval) kind_ids: BTreeMap<Key, usize>,
}

/// A picture and its annotations, in the order of their category ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The picture's id; a number that the file does not use if its id is text.
    pub id: i64,
    /// Path of its file below the folder of images.
    pub file: PathBuf,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Its objects and crowds.
    pub annotations: Vec<Annotation>,
    /// Its captions.
    pub captions: Vec<String>,
}

/// A labeled box.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Index into [`CocoSet::kinds`].
    pub kind: usize,
    /// `[x, y, width, height]` as in the file.
    pub xywh: [f64; 4],
    /// Area in square pixels: that of the file, else that of the box.
    pub area: f64,
    /// Whether the box is around a crowd.
    pub crowd: bool,
    /// A description of the region.
    pub caption: Option<String>,
}

impl Annotation {
    /// An annotation of `kind` with the box `xywh`.
    pub fn new(kind: usize, xywh: [f64; 4], crowd: bool) -> Self {
        Self {
            kind,
            xywh,
            area: xywh[2] * xywh[3],
            crowd,
            caption: None,
        }
    }

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
    #[serde(default)]
    categories: Vec<CategoryRow>,
}

#[derive(Deserialize)]
pub(in crate::eval) struct ImageRow {
    pub(in crate::eval) id: Scalar,
    #[serde(alias = "filename")]
    pub(in crate::eval) file_name: String,
    #[serde(default)]
    width: Scalar,
    #[serde(default)]
    height: Scalar,
    #[serde(default)]
    caption: Scalar,
}

#[derive(Deserialize)]
struct AnnotationRow {
    #[serde(default)]
    id: Scalar,
    image_id: Scalar,
    #[serde(default)]
    category_id: Scalar,
    #[serde(default)]
    bbox: BoxField,
    #[serde(default)]
    segmentation: Outline,
    #[serde(default)]
    area: Scalar,
    #[serde(default)]
    iscrowd: Scalar,
    #[serde(default)]
    caption: Scalar,
}

#[derive(Deserialize)]
struct CategoryRow {
    id: Scalar,
    #[serde(default)]
    name: Scalar,
    #[serde(default)]
    supercategory: Scalar,
}

/// The fault of a file of annotations.
pub(super) fn refused(place: &str, what: String) -> Fault {
    let advice = "Use a COCO instances file and the pictures it describes";
    Fault::new(FaultKind::File, place, what, advice).code(ErrorCode::Corrupt)
}

impl CocoSet {
    /// A set of pictures without annotations.
    pub fn of_pictures(pictures: Vec<Picture>) -> Self {
        Self {
            kinds: Vec::new(),
            picture_ids: pictures
                .iter()
                .map(|picture| (Key::Integer(picture.id), picture.id))
                .collect(),
            pictures,
            without_area: 0,
            kind_ids: BTreeMap::new(),
        }
    }

    /// Adds the captions of a COCO file of captions (`annotations` with `image_id` and `caption`); those of
    /// other pictures are left out. `place` names the file in errors.
    ///
    /// # Errors
    /// It is no such file.
    pub fn add_captions(&mut self, text: &[u8], place: &str) -> Result<(), Fault> {
        #[derive(Deserialize)]
        struct CaptionsFile {
            annotations: Vec<CaptionRow>,
        }
        #[derive(Deserialize)]
        struct CaptionRow {
            image_id: Scalar,
            caption: Scalar,
        }
        let file: CaptionsFile = serde_json::from_slice(&clean_json(text))
            .map_err(|error| refused(place, format!("is no COCO file of captions: {error}")))?;
        for row in file.annotations {
            let number = row
                .image_id
                .key()
                .and_then(|key| self.picture_ids.get(&key));
            let picture = number.and_then(|number| {
                let place = self
                    .pictures
                    .binary_search_by_key(number, |picture| picture.id);
                self.pictures.get_mut(place.ok()?)
            });
            if let (Some(picture), Some(caption)) = (picture, row.caption.words()) {
                picture.captions.push(caption.to_owned());
            }
        }
        Ok(())
    }

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
    /// Numbers may be text, ids too; `id`, `area` and `iscrowd` of annotations may be missing; a box may be
    /// an object with `x`, `y`, `width` and `height`, or be that around a polygon; names of pictures may be
    /// addresses or paths of another machine.
    ///
    /// # Errors
    /// Not an instances file, an id twice, an annotation of an unknown picture or category, a box that is
    /// missing, not finite or extends beyond its picture, a picture without a name or size, or a name of a
    /// kind that questions cannot contain. The error names the line or the record.
    pub fn parse(text: &[u8], place: &str) -> Result<Self, Fault> {
        let fault = |what: String| refused(place, what);
        let file: InstancesFile = serde_json::from_slice(&clean_json(text))
            .map_err(|error| fault(format!("is no COCO instances file: {error}")))?;
        let (mut pictures, picture_ids) = pictures(file.images).map_err(fault)?;
        let (kinds, kind_ids) = kinds(file.categories, &file.annotations).map_err(fault)?;
        let mut without_area = 0;
        let mut ids = BTreeSet::new();
        for (number, row) in file.annotations.into_iter().enumerate() {
            let name = match row.id.key() {
                Some(id) => {
                    let name = format!("annotation {id}");
                    if !ids.insert(id) {
                        return Err(fault(format!(
                            "has two annotations with id {}",
                            &name[11..]
                        )));
                    }
                    name
                }
                None => format!("annotation number {} of the list", number + 1),
            };
            let of = |what: String| fault(format!("{name} {what}"));
            let id = row.image_id.key();
            let Some(number) = id.as_ref().and_then(|id| picture_ids.get(id)) else {
                let id = id.map_or("null".to_owned(), |id| id.to_string());
                return Err(of(format!("is of picture {id}, which is not listed")));
            };
            let picture = pictures.get_mut(number).expect("ids lead to pictures");
            let caption = row.caption.words().map(str::to_owned);
            let xywh = match (row.bbox.xywh().map_err(of)?, row.segmentation.0) {
                (Some(xywh), _) => xywh,
                (None, Some([x1, y1, x2, y2])) => [x1, y1, x2 - x1, y2 - y1],
                (None, None) => match caption {
                    Some(caption) => {
                        picture.captions.push(caption);
                        continue;
                    }
                    None => return Err(of("has no box".into())),
                },
            };
            let kind = match row.category_id.key() {
                Some(id) => kind_ids
                    .get(&id)
                    .copied()
                    .ok_or_else(|| of(format!("is of category {id}, which is not listed")))?,
                None if kinds.len() == 1 => 0,
                None => return Err(of("has no category".into())),
            };
            let crowd = match &row.iscrowd {
                Scalar::Null => false,
                Scalar::Flag(crowd) => *crowd,
                other => match other.integer() {
                    Some(crowd @ 0..=1) => crowd == 1,
                    Some(crowd) => return Err(of(format!("has iscrowd {crowd}, not 0 or 1"))),
                    None => return Err(of("has an iscrowd that is not 0 or 1".into())),
                },
            };
            check_box(xywh, picture).map_err(of)?;
            if xywh[2] <= 0.0 || xywh[3] <= 0.0 {
                without_area += 1;
                continue;
            }
            let area = row.area.number().filter(|area| *area >= 0.0);
            picture.annotations.push(Annotation {
                area: area.unwrap_or(xywh[2] * xywh[3]),
                caption,
                ..Annotation::new(kind, xywh, crowd)
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
            picture_ids,
            kind_ids,
        })
    }

    /// Checks that every picture has a file of its own in the folder `images` ([`Picture::path`]).
    ///
    /// # Errors
    /// A file is missing, or two pictures lead to one file.
    pub fn check_files(&self, images: &Path) -> Result<(), Fault> {
        let mut found: BTreeMap<PathBuf, &Picture> = BTreeMap::new();
        let mut missing = Vec::new();
        for picture in &self.pictures {
            let path = picture.path(images);
            if !path.is_file() {
                missing.push(picture);
                continue;
            }
            let place = path.display().to_string();
            if let Some(other) = found.insert(path, picture) {
                let (a, b) = (other.file.display(), picture.file.display());
                let what = format!("is the only file for two pictures, {a} and {b}");
                let advice = "Name the folder that the names of the pictures begin in";
                let fault = Fault::new(FaultKind::File, place, what, advice);
                return Err(fault.code(ErrorCode::InvalidInput));
            }
        }
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

/// The names of the kinds in the order of their ids, and the kind of each id.
///
/// A category without a name has that of its supercategory. One without annotations is left out if
/// another has its name, or if it is the supercategory of another: exports have such a root.
fn kinds(
    rows: Vec<CategoryRow>,
    annotations: &[AnnotationRow],
) -> Result<(Vec<String>, BTreeMap<Key, usize>), String> {
    let used: BTreeSet<Key> = annotations
        .iter()
        .filter_map(|a| a.category_id.key())
        .collect();
    let lower = |name: &Scalar| name.words().map(str::to_lowercase);
    let mut named: Vec<(Key, String, Option<String>)> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let number = number + 1;
        let Some(id) = row.id.key() else {
            return Err(format!("category number {number} of the list has no id"));
        };
        let above = lower(&row.supercategory);
        let Some(name) = lower(&row.name).or_else(|| above.clone()) else {
            return Err(format!("category {id} has no name"));
        };
        if name.contains(['<', '>', ';', '\n']) {
            return Err(format!(
                "category {id} has the name `{name}`, which a question cannot contain"
            ));
        }
        if named.iter().any(|(other, ..)| *other == id) {
            return Err(format!("has two categories with id {id}"));
        }
        named.push((id, name, above));
    }
    let is_root = |id: &Key, name: &str| {
        let mut others = named.iter().filter(|(other, ..)| other != id);
        !used.contains(id)
            && others.any(|(_, other, above)| other == name || above.as_deref() == Some(name))
    };
    let mut kept: Vec<(Key, String)> = named
        .iter()
        .filter(|(id, name, _)| !is_root(id, name))
        .map(|(id, name, _)| (id.clone(), name.clone()))
        .collect();
    kept.sort();
    let mut names = BTreeSet::new();
    for (_, name) in &kept {
        if !names.insert(name) {
            return Err(format!("has two categories with the name `{name}`"));
        }
    }
    let (ids, names): (Vec<Key>, Vec<String>) = kept.into_iter().unzip();
    Ok((names, ids.into_iter().zip(0..).collect()))
}

/// The pictures by number, and the number of each id.
type Numbered = (BTreeMap<i64, Picture>, BTreeMap<Key, i64>);

fn pictures(rows: Vec<ImageRow>) -> Result<Numbered, String> {
    let keys: Vec<Option<Key>> = rows.iter().map(|row| row.id.key()).collect();
    let integers = keys.iter().filter_map(|key| match key {
        Some(Key::Integer(number)) => Some(*number),
        _ => None,
    });
    let mut next = integers.max().map_or(1, |last| last.saturating_add(1));
    let (mut pictures, mut ids) = (BTreeMap::new(), BTreeMap::new());
    let mut files = BTreeSet::new();
    for (position, (row, key)) in rows.into_iter().zip(keys).enumerate() {
        let Some(key) = key else {
            return Err(format!(
                "picture number {} of the list has no id",
                position + 1
            ));
        };
        let number = match key {
            Key::Integer(number) => number,
            Key::Text(_) => {
                let number = next;
                next = next.saturating_add(1);
                number
            }
        };
        let picture = picture(row, number, &key)?;
        if !files.insert(picture.file.clone()) {
            return Err(format!(
                "names the picture file {} twice",
                picture.file.display()
            ));
        }
        if ids.insert(key.clone(), number).is_some() {
            return Err(format!("has two pictures with id {key}"));
        }
        pictures.insert(number, picture);
    }
    Ok((pictures, ids))
}

fn picture(row: ImageRow, id: i64, key: &Key) -> Result<Picture, String> {
    let Some(file) = relative_path(&row.file_name) else {
        return Err(format!(
            "picture {key} has the file name `{}`, which is not inside a folder",
            row.file_name
        ));
    };
    let side = |value: &Scalar| value.integer().and_then(|side| u32::try_from(side).ok());
    let (Some(width @ 1..), Some(height @ 1..)) = (side(&row.width), side(&row.height)) else {
        let text = |value: &Scalar| match value {
            Scalar::Null => "unknown".to_owned(),
            Scalar::Text(text) => format!("`{text}`"),
            other => other
                .number()
                .map_or("?".into(), |number| number.to_string()),
        };
        return Err(format!(
            "picture {key} has {} x {} pixels",
            text(&row.width),
            text(&row.height)
        ));
    };
    Ok(Picture {
        captions: row.caption.words().map(str::to_owned).into_iter().collect(),
        ..Picture::new(id, file, width, height)
    })
}

fn check_box([x, y, w, h]: [f64; 4], picture: &Picture) -> Result<(), String> {
    let (width, height) = (f64::from(picture.width), f64::from(picture.height));
    let fits = |from: f64, length: f64, limit: f64| {
        length >= 0.0 && from >= -TOLERANCE && from + length <= limit + TOLERANCE
    };
    if fits(x, w, width) && fits(y, h, height) {
        return Ok(());
    }
    Err(format!(
        "has the box [{x}, {y}, {w}, {h}], which is not inside its picture of {width} x {height} pixels"
    ))
}

impl Picture {
    /// A picture without annotations.
    pub fn new(id: i64, file: impl Into<PathBuf>, width: u32, height: u32) -> Self {
        Self {
            id,
            file: file.into(),
            width,
            height,
            annotations: Vec::new(),
            captions: Vec::new(),
        }
    }

    /// The path of its file in the folder `images`. Where the file is not, leading folders of its name are
    /// left out, one after the other: exports have names of the machine that wrote them.
    pub fn path(&self, images: &Path) -> PathBuf {
        let mut rest = self.file.components();
        loop {
            let candidate = images.join(rest.as_path());
            if candidate.is_file() {
                return candidate;
            }
            if rest.next().is_none() || rest.as_path().as_os_str().is_empty() {
                return images.join(&self.file);
            }
        }
    }

    /// The pixels of the picture in the folder `images`.
    ///
    /// # Errors
    /// The file cannot be read or is no picture, or its size is not that of the annotations.
    pub fn pixels(&self, images: &Path) -> Result<Pixels, Fault> {
        let path = self.path(images);
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
        let cases: [(&str, Value, &str); 26] = [
            ("/images", json!([]), "annotation 1 is of picture 7"),
            ("/images/0/id", json!(3), "two pictures with id 3"),
            ("/images/0/file_name", json!(".."), "not inside a folder"),
            ("/images/0/file_name", json!("/"), "not inside a folder"),
            ("/images/0/file_name", json!("sub/a.png"), "twice"),
            ("/images/0/width", json!(0), "0 x 30 pixels"),
            ("/images/0/width", json!(-4), "-4 x 30 pixels"),
            ("/images/0/width", json!(null), "unknown x 30 pixels"),
            ("/images/0/width", json!("wide"), "`wide` x 30 pixels"),
            (
                "/images/0/id",
                json!(null),
                "picture number 1 of the list has no id",
            ),
            (
                "/annotations/0/bbox",
                json!([1, 2, null, 4]),
                "annotation 1 has a box",
            ),
            (
                "/annotations/0/bbox",
                json!("1,2,x,4"),
                "annotation 1 has a box",
            ),
            (
                "/annotations/2/bbox",
                json!(null),
                "annotation 3 has no box",
            ),
            (
                "/annotations/0/category_id",
                json!(null),
                "annotation 1 has no category",
            ),
            (
                "/annotations/0/image_id",
                json!(null),
                "annotation 1 is of picture null",
            ),
            (
                "/annotations/0/iscrowd",
                json!("many"),
                "annotation 1 has an iscrowd",
            ),
            ("/categories/0/name", json!(""), "category 90 has no name"),
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
                "annotation 1 has a box of 3 numbers",
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
