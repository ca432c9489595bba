//! Writes scenes as files: images, COCO annotations and dialogues
//! (`docs/reference/interfaces.md` section 2).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Category, Dialogue, Rng, Scene, dialogues};
use crate::error::{ErrorCode, Fault, FaultKind};

/// Options of [`write`].
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Number of scenes.
    pub count: u64,
    /// Seed of the first scene; scene `i` has `seed + i`.
    pub seed: u64,
    /// Output folder; it must not exist or be empty.
    pub out: PathBuf,
}

/// Writes scenes to a folder: `images/000001.png …`, `annotations.json` in COCO format (`bbox` is
/// `[x, y, width, height]` in pixels) and `dialogues.jsonl` with one line per question:
/// `{"image","task","question","answer","boxes","objects"}`. `boxes` are all boxes of the image in
/// random order, `answer` refers to them by index, and `objects` are the indices it contains.
///
/// The files are written to a temporary folder beside `out`, which is renamed at the end.
/// `progress` gets the number of finished scenes.
///
/// # Errors
/// The folder is not empty or cannot be written.
pub fn write(options: &WriteOptions, mut progress: impl FnMut(u64)) -> Result<(), Fault> {
    let out = &options.out;
    let full = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if full || out.is_file() {
        return Err(Fault::new(
            FaultKind::File,
            out.display().to_string(),
            "exists and is not an empty folder",
            "Name a new folder",
        )
        .code(ErrorCode::InvalidInput));
    }
    if options.seed.checked_add(options.count).is_none() {
        return Err(Fault::new(
            FaultKind::File,
            format!("--count {} --seed {}", options.count, options.seed),
            "the largest seed is 2^64 - 1",
            "Use a lower --seed",
        )
        .code(ErrorCode::InvalidInput));
    }
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = out.with_file_name(name);
    let written = write_files(&partial, options, &mut progress);
    let moved = written.and_then(|()| {
        let _ = fs::remove_dir(out);
        fs::rename(&partial, out).map_err(|e| Fault::file(out, e))
    });
    if moved.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    moved
}

fn write_files(
    folder: &Path,
    options: &WriteOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Fault> {
    let images = folder.join("images");
    fs::create_dir_all(&images).map_err(|e| Fault::file(&images, e))?;
    let lines_path = folder.join("dialogues.jsonl");
    let file = fs::File::create(&lines_path).map_err(|e| Fault::file(&lines_path, e))?;
    let mut lines = std::io::BufWriter::new(file);
    let (mut images_json, mut annotations) = (Vec::new(), Vec::new());
    for i in 0..options.count {
        let seed = options.seed + i;
        let scene = Scene::draw(seed);
        let id = i + 1;
        let name = format!("{id:06}.png");
        save_image(&scene, &images.join(&name))?;
        images_json.push(json!({
            "id": id,
            "file_name": name,
            "width": scene.pixels.width,
            "height": scene.pixels.height,
        }));
        for object in &scene.objects {
            let b = object.bbox;
            annotations.push(json!({
                "id": annotations.len() + 1,
                "image_id": id,
                "category_id": object.category.index() + 1,
                "bbox": [b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1],
                "area": b.area(),
                "iscrowd": 0,
                "tint": object.tint,
            }));
        }
        for line in dialogue_lines(&scene, &format!("images/{name}")) {
            writeln!(lines, "{line}").map_err(|e| Fault::file(&lines_path, e))?;
        }
        progress(id);
    }
    lines.flush().map_err(|e| Fault::file(&lines_path, e))?;
    let categories: Vec<_> = Category::all()
        .map(|k| json!({"id": k.index() + 1, "name": k.word(), "supercategory": k.supercategory()}))
        .collect();
    let coco = json!({
        "images": images_json,
        "annotations": annotations,
        "categories": categories,
    });
    let path = folder.join("annotations.json");
    fs::write(&path, coco.to_string()).map_err(|e| Fault::file(&path, e))
}

fn save_image(scene: &Scene, path: &Path) -> Result<(), Fault> {
    let p = &scene.pixels;
    ::image::save_buffer(
        path,
        &p.rgb,
        p.width,
        p.height,
        ::image::ExtendedColorType::Rgb8,
    )
    .map_err(|e| Fault::file(path, e))
}

/// The lines of `dialogues.jsonl` for one scene.
fn dialogue_lines(scene: &Scene, image: &str) -> Vec<serde_json::Value> {
    let mut order: Vec<usize> = (0..scene.objects.len()).collect();
    Rng::new(scene.seed, 2).shuffle(&mut order);
    let mut box_of = vec![None; order.len()];
    for (index, &object) in order.iter().enumerate() {
        box_of[object] = Some(index);
    }
    let boxes: Vec<_> = order.iter().map(|&o| scene.objects[o].bbox).collect();
    let line = |dialogue: &Dialogue| {
        let (question, answer) = dialogue.render(&box_of)?;
        let mut objects: Vec<_> = dialogue.objects().iter().map(|&o| box_of[o]).collect();
        objects.sort_unstable();
        Some(json!({
            "image": image,
            "task": dialogue.task,
            "question": question,
            "answer": answer,
            "boxes": boxes,
            "objects": objects,
        }))
    };
    dialogues(scene, scene.seed)
        .iter()
        .filter_map(line)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_complete_or_absent() {
        let root = std::env::temp_dir().join(format!("chatrex-scenes-{}", std::process::id()));
        let options = WriteOptions {
            count: 3,
            seed: 900_000,
            out: root.join("set"),
        };
        write(&options, |_| ()).unwrap();
        let again = write(&options, |_| ()).unwrap_err();
        assert_eq!(again.kind, FaultKind::File);
        let read = |name: &str| fs::read_to_string(options.out.join(name)).unwrap();
        let coco: serde_json::Value = serde_json::from_str(&read("annotations.json")).unwrap();
        assert_eq!(coco["images"][2]["file_name"], "000003.png");
        let total: usize = (900_000..900_003)
            .map(|s| Scene::draw(s).objects.len())
            .sum();
        assert_eq!(coco["annotations"].as_array().unwrap().len(), total);
        for line in read("dialogues.jsonl").lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let boxes = line["boxes"].as_array().unwrap().len() as u64;
            let objects = line["objects"].as_array().unwrap();
            assert!(objects.iter().all(|o| o.as_u64().unwrap() < boxes));
        }
        let picture = ::image::open(options.out.join("images/000002.png")).unwrap();
        assert_eq!(
            picture.to_rgb8().into_raw(),
            Scene::draw(900_001).pixels.rgb
        );
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        fs::remove_dir_all(root).unwrap();
    }
}
