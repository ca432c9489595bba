//! The user's data (`chatrex train --data DIR`): the records of `chatrex dialogues` or `chatrex scenes`, with the
//! class scores of a frozen detector for their boxes.
//!
//! The scores are computed once and kept in the output folder of the run.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use burn::tensor::Device;
use serde::Deserialize;

use crate::engine::{dense_predictions, planar};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::geometry::BoxXyxy;
use crate::image::decode;
use crate::model::config::ModelConfig;
use crate::model::nanodet::{NanoDet, NanoDetConfig};
use crate::nn::Loader;
use crate::scenes::Rng;
use crate::scenes::labels::{KINDS, LabelObject, LabelScene, LabelTask};
use crate::text::answer_parser::spans;
use crate::text::prompt::{IMAGE, MAX_BOXES, OBJECT, check_question};
use crate::train::accuracy::task_name;
use crate::train::checkpoint::{CpuTensor, Initializer, Precision, Weights};
use crate::weights::manifest::{MANIFEST, Manifest, Part, sha256_hex};

/// The records in the folder of the data.
const DIALOGUES: &str = "dialogues.jsonl";
/// The class scores in the output folder.
const SCORES: &str = "box_scores.safetensors";
/// One in this many pictures is for validation.
const VALIDATION: usize = 10;
/// Pictures from which on some are for validation.
const MIN_VALIDATION: usize = 20;

/// A question with its answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DataDialogue {
    pub(super) task: LabelTask,
    pub(super) question: String,
    pub(super) answer: String,
}

/// A list of boxes of a picture, with the questions about it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DataScene {
    /// The boxes with their class scores, relative to the picture.
    pub(super) scene: LabelScene,
    pub(super) dialogues: Vec<DataDialogue>,
}

/// The scenes of a folder, those with fewer boxes first.
#[derive(Debug)]
pub(super) struct DataSet {
    training: Vec<DataScene>,
    validation: Vec<DataScene>,
    /// SHA-256 of the records.
    pub(super) sha256: String,
}

#[derive(Deserialize)]
struct Row {
    image: String,
    #[serde(default)]
    task: String,
    question: String,
    answer: String,
    boxes: Vec<[f32; 4]>,
}

/// The records about a list of boxes of a picture.
struct Group {
    image: PathBuf,
    boxes: Vec<[f32; 4]>,
    dialogues: Vec<DataDialogue>,
}

impl DataSet {
    /// Reads the folder `folder`. The class scores come from `out`, or are computed with the detector of the
    /// model folder `detector` and kept there.
    ///
    /// # Errors
    /// A file is missing or damaged, a record is no record, has a box outside of its picture or names a box
    /// that it lacks; the error names the line.
    pub(super) fn open(folder: &Path, detector: &Path, out: &Path) -> Result<Self, Fault> {
        let path = folder.join(DIALOGUES);
        let text = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
        let groups = read(&text, &path)?;
        let sha256 = sha256_hex(&text);
        let scenes = scored(groups, folder, detector, out, &sha256)?;
        Ok(Self::of(scenes, sha256))
    }

    fn of(scenes: Vec<DataScene>, sha256: String) -> Self {
        let held = scenes.len() >= MIN_VALIDATION;
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        for (number, scene) in scenes.into_iter().enumerate() {
            match held && number % VALIDATION == VALIDATION - 1 {
                true => validation.push(scene),
                false => training.push(scene),
            }
        }
        training.sort_by_key(|scene| scene.scene.objects.len());
        Self {
            training,
            validation,
            sha256,
        }
    }

    /// A random scene of at most `boxes` boxes, or one of those with the fewest.
    pub(super) fn draw(&self, boxes: usize, rng: &mut Rng) -> &DataScene {
        let count = |scene: &DataScene| scene.scene.objects.len();
        let least = self.training.first().map_or(0, count).max(boxes);
        let within = self.training.partition_point(|scene| count(scene) <= least);
        &self.training[rng.below(within)]
    }

    /// Scene `number` for validation, if there are any.
    pub(super) fn validation(&self, number: usize) -> Option<&DataScene> {
        self.validation.get(number % self.validation.len().max(1))
    }
}

/// The task with this name; others count as captions.
fn task_of(name: &str) -> LabelTask {
    let known = LabelTask::ALL
        .into_iter()
        .find(|task| task_name(*task) == name);
    known.unwrap_or(match name {
        "short_phrase" | "brief" | "sentence" => LabelTask::Name,
        _ if name.starts_with("refer") => LabelTask::Refer,
        _ => LabelTask::Caption,
    })
}

/// The groups of the records in `text`, the content of `path`.
fn read(text: &[u8], path: &Path) -> Result<Vec<Group>, Fault> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<(PathBuf, Vec<[u32; 4]>), usize> = HashMap::new();
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    for (line, text) in lines.filter(|(_, text)| !text.trim_ascii().is_empty()) {
        let refused = |what: String| {
            let place = format!("{}, line {}", path.display(), line + 1);
            let advice = "Use a folder that `chatrex dialogues` or `chatrex scenes` wrote";
            Fault::new(FaultKind::File, place, what, advice).code(ErrorCode::Corrupt)
        };
        let row: Row = serde_json::from_slice(text).map_err(|error| {
            let error = error.to_string();
            let what = error
                .rsplit_once(" at line ")
                .map_or(&*error, |(what, _)| what);
            refused(format!("is no record: {what}"))
        })?;
        let image = PathBuf::from(&row.image);
        let mut parts = image.components();
        if row.image.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(refused(format!(
                "has the picture `{}`, which is in no folder",
                row.image
            )));
        }
        if row.boxes.len() > MAX_BOXES {
            return Err(refused(format!(
                "has {} boxes, the limit is {MAX_BOXES}",
                row.boxes.len()
            )));
        }
        check_question(&row.question, row.boxes.len())
            .map_err(|fault| refused(format!("has a question that {}", fault.what)))?;
        let named = spans(&row.answer).into_iter().flat_map(|span| span.objects);
        if let Some(index) = named
            .into_iter()
            .find(|index| *index as usize >= row.boxes.len())
        {
            return Err(refused(format!(
                "has an answer with <obj{index}>, which is no box"
            )));
        }
        if row.answer.trim().is_empty() || [IMAGE, OBJECT].iter().any(|w| row.answer.contains(w)) {
            return Err(refused(
                "has an answer that is empty or has a control word".into(),
            ));
        }
        let bits = row
            .boxes
            .iter()
            .map(|bbox| bbox.map(f32::to_bits))
            .collect();
        let place = *places.entry((image.clone(), bits)).or_insert_with(|| {
            groups.push(Group {
                image,
                boxes: row.boxes,
                dialogues: Vec::new(),
            });
            groups.len() - 1
        });
        groups[place].dialogues.push(DataDialogue {
            task: task_of(&row.task),
            question: row.question,
            answer: row.answer,
        });
    }
    match groups.is_empty() {
        false => Ok(groups),
        true => {
            let place = path.display().to_string();
            let fault = Fault::new(
                FaultKind::File,
                place,
                "has no record",
                "Name another folder",
            );
            Err(fault.code(ErrorCode::Corrupt))
        }
    }
}

/// The scenes of `groups`, with class scores from the output folder or from the detector.
fn scored(
    groups: Vec<Group>,
    folder: &Path,
    detector: &Path,
    out: &Path,
    sha256: &str,
) -> Result<Vec<DataScene>, Fault> {
    let path = out.join(SCORES);
    let count: usize = groups.iter().map(|group| group.boxes.len()).sum();
    let name = format!("scores.{sha256}");
    let stored = match path.is_file() {
        true => Weights::read(&path)?.tensors.remove(&name),
        false => None,
    };
    // Of each box the four relative corners, then the scores.
    let width = 4 + KINDS.len();
    let values = match stored {
        Some(tensor) if tensor.shape == [count, width] => tensor.values,
        _ => {
            let values = Detector::open(detector)?.scores(&groups, folder)?;
            let tensor = CpuTensor {
                shape: vec![count, width],
                values: values.clone(),
            };
            let mut stored = Weights::default();
            stored.tensors.insert(name, tensor);
            stored.write(&path, Precision::F32)?;
            values
        }
    };
    let mut rows = values.chunks_exact(width);
    let scenes = groups.into_iter().map(|group| {
        let objects = rows.by_ref().take(group.boxes.len()).map(|row| {
            let (bbox, scores) = row.split_at(4);
            LabelObject::new([bbox[0], bbox[1], bbox[2], bbox[3]], scores.to_vec())
        });
        DataScene {
            scene: LabelScene {
                objects: objects.collect(),
            },
            dialogues: group.dialogues,
        }
    });
    Ok(scenes.collect())
}

/// The frozen detector of a model folder.
struct Detector {
    network: NanoDet,
    config: NanoDetConfig,
}

impl Detector {
    fn open(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join(MANIFEST);
        let place = path.display().to_string();
        let json = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
        let manifest = Manifest::parse(&json, &place)?;
        let model = ModelConfig::of(&manifest, &place)?;
        let Some(config) = model.detector().cloned() else {
            let what = "is no model with a detector";
            let advice = "Name the folder of such a model with --detector, for example mini's";
            return Err(Fault::new(FaultKind::Model, place, what, advice));
        };
        if config.classes.len() != KINDS.len() {
            let what = format!("has a detector of {} classes, not 80", config.classes.len());
            return Err(Fault::model(place, what));
        }
        let mut weights = Weights::default();
        for shard in manifest
            .shards
            .iter()
            .filter(|shard| shard.part == Part::Upn)
        {
            let path = folder.join(&shard.name);
            weights.tensors.extend(Weights::read(&path)?.tensors);
        }
        let initializer = Initializer::new(weights.clone(), 0);
        let network = NanoDet::load(&Loader::new(&initializer, &Device::flex()), &config)?;
        let names = initializer.names();
        match names
            .values()
            .find(|name| !weights.tensors.contains_key(*name))
        {
            Some(missing) => Err(Fault::model(missing, "is missing")),
            None => Ok(Self { network, config }),
        }
    }

    /// Of each box of `groups` its corners relative to the picture and its class scores.
    fn scores(&self, groups: &[Group], folder: &Path) -> Result<Vec<f32>, Fault> {
        let device = Device::flex();
        let bar = indicatif::ProgressBar::new(groups.len() as u64);
        bar.set_message("scoring the boxes of the data");
        let mut values = Vec::new();
        for group in groups {
            let path = folder.join(&group.image);
            let pixels = decode::open(&path)?;
            let [width, height] = [pixels.width as f32, pixels.height as f32];
            let inside = |[x1, y1, x2, y2]: &[f32; 4]| {
                // Published files round coordinates.
                let along = |a: f32, b: f32, limit: f32| -1.0 <= a && a < b && b <= limit + 1.0;
                along(*x1, *x2, width) && along(*y1, *y2, height)
            };
            if let Some(bbox) = group.boxes.iter().find(|bbox| !inside(bbox)) {
                let what = format!("has {width} x {height} pixels; the box {bbox:?} is not inside");
                let place = path.display().to_string();
                let advice = "Use the pictures that the records describe";
                let fault = Fault::new(FaultKind::Picture, place, what, advice);
                return Err(fault.code(ErrorCode::Corrupt));
            }
            let image = planar(self.config.recipe().prepare(&pixels), &device);
            let output = self.network.forward(image);
            let data = |values: Result<Vec<f32>, _>| values.expect("f32 tensors on the CPU");
            let boxes = data(output.boxes.into_data().try_to_vec());
            let scores = data(output.scores.into_data().try_to_vec());
            let predictions = dense_predictions(&self.config, &pixels, &boxes, scores);
            let boxes: Vec<BoxXyxy> = group.boxes.iter().map(|bbox| (*bbox).into()).collect();
            let scores = predictions.class_scores(&boxes);
            for ([x1, y1, x2, y2], row) in group.boxes.iter().zip(scores.chunks(KINDS.len())) {
                values.extend([x1 / width, y1 / height, x2 / width, y2 / height]);
                values.extend_from_slice(row);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(values)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MINI: &str = "assets/models/mini";

    /// Writes `count` drawn scenes as data to `folder`.
    pub(in crate::train) fn write_scenes(folder: &Path, count: u64) {
        let options = crate::scenes::WriteOptions {
            count,
            seed: 11,
            out: folder.to_owned(),
        };
        crate::scenes::write(&options, |_| ()).expect("scenes");
    }

    #[test]
    fn scenes_become_data_and_scores_are_kept() {
        let root = tempfile::tempdir().expect("a folder");
        let (folder, out) = (root.path().join("data"), root.path().join("out"));
        write_scenes(&folder, 2);
        std::fs::create_dir(&out).expect("a folder");
        let set = DataSet::open(&folder, MINI.as_ref(), &out).expect("data");
        assert_eq!((set.training.len(), set.validation.len()), (2, 0));
        let [first, second] = &set.training[..] else {
            panic!("two scenes")
        };
        assert!(first.scene.objects.len() <= second.scene.objects.len());
        for scene in &set.training {
            assert!(scene.dialogues.len() > 5);
            for object in &scene.scene.objects {
                assert_eq!(object.scores.len(), KINDS.len());
                assert!(object.bbox.iter().all(|side| (-0.1..=1.1).contains(side)));
            }
        }
        let few = set.draw(1, &mut Rng::new(1, 1)).scene.objects.len();
        assert_eq!(few, first.scene.objects.len());
        // The kept scores are read, and no detector is needed.
        let nowhere = root.path().join("nowhere");
        let again = DataSet::open(&folder, &nowhere, &out).expect("kept scores");
        assert_eq!(again.training, set.training);
        assert_eq!(again.sha256, set.sha256);
    }

    #[test]
    fn wrong_records_are_refused_by_line() {
        let good = r#"{"image": "images/a.png", "task": "name", "question": "What is <obj0>?", "answer": "a dog", "boxes": [[0, 0, 9, 9]], "objects": []}"#;
        let read = |text: &str| read(text.as_bytes(), Path::new("dialogues.jsonl"));
        let groups = read(&format!("{good}\n{}\n", good.replace("a dog", "dog"))).expect("records");
        assert_eq!((groups.len(), groups[0].dialogues.len()), (1, 2));
        for (from, to, expected) in [
            ("<obj0>?", "<obj3>?", "a question that"),
            (
                "a dog",
                "<ground>dog</ground><objects><obj4></objects>",
                "<obj4>, which is no box",
            ),
            ("a dog", " ", "an answer that is empty"),
            ("a dog", "<objfeat>", "an answer that"),
            ("images/a.png", "../a.png", "is in no folder"),
            ("images/a.png", "/a.png", "is in no folder"),
            ("[[0, 0, 9, 9]]", "[[0, 0, 9]]", "is no record"),
            ("\"boxes\"", "\"box\"", "missing field `boxes`"),
            ("\"objects\": []}", "", "is no record"),
        ] {
            let text = format!("{good}\n{}\n", good.replace(from, to));
            let fault = read(&text).map(|_| ()).expect_err(to);
            assert!(fault.what.contains(expected), "{to}: {fault}");
            assert!(fault.place.ends_with("line 2"), "{fault}");
        }
        assert!(read("\n").is_err());
        for (name, task) in [
            ("detect_one", LabelTask::DetectOne),
            ("refer_size", LabelTask::Refer),
            ("sentence", LabelTask::Name),
            ("conversation", LabelTask::Caption),
        ] {
            assert_eq!(task_of(name), task);
        }
    }

    #[test]
    fn some_pictures_are_held_out() {
        let scenes = (0..25).map(|_| DataScene {
            scene: LabelScene::default(),
            dialogues: Vec::new(),
        });
        let set = DataSet::of(scenes.collect(), String::new());
        assert_eq!((set.training.len(), set.validation.len()), (23, 2));
        assert!(set.validation(7).is_some());
    }
}
