//! What a batch asks about its pictures.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::inputs::{Pictures, read_text};
use crate::chat::candidates::Candidates;
use crate::chat::question::{Draft, QuestionKind};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::geometry::{self, BoxXyxy};
use crate::text::prompt::{self, MAX_BOXES};
use crate::weights::manifest::hex;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The boxes of the things named.
    Detect,
    /// The number of the things named, and their boxes.
    Count,
    /// A sentence about the picture, without boxes.
    Caption,
    /// A sentence about the picture, and the boxes of what it mentions.
    GroundedCaption,
    /// A phrase about every box.
    RegionCaption,
    /// No question: the proposals.
    Propose,
    /// A question of a file.
    Question,
}

impl Kind {
    /// Those of `--task`.
    pub const TASKS: [Self; 6] = [
        Self::Detect,
        Self::Count,
        Self::Caption,
        Self::GroundedCaption,
        Self::RegionCaption,
        Self::Propose,
    ];

    /// Its name in options and results.
    pub fn key(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Count => "count",
            Self::Caption => "caption",
            Self::GroundedCaption => "grounded-caption",
            Self::RegionCaption => "region-caption",
            Self::Propose => "propose",
            Self::Question => "question",
        }
    }

    /// Whether the user has to name things.
    fn needs_words(self) -> bool {
        matches!(self, Self::Detect | Self::Count)
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// What is asked.
    pub kind: Kind,
    /// The words for the model; for [`Kind::RegionCaption`] `[OBJ]` stands for the box, for [`Kind::Propose`]
    /// they are empty.
    pub text: String,
    /// The boxes to use instead of the proposals, in pixels of the picture.
    pub boxes: Option<Vec<BoxXyxy>>,
    /// Its line in the file of questions, from 1.
    pub line: Option<usize>,
}

impl Asked {
    /// The id of its result about the picture `name`.
    pub fn id(&self, name: &str) -> String {
        match self.line {
            Some(line) => format!("{name}#{line}"),
            None => name.to_owned(),
        }
    }

    /// SHA-256 of picture (its SHA-256) and question: equal for results that are equal.
    pub fn digest(&self, picture: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(picture);
        hash.update(self.kind.key());
        hash.update([0]);
        hash.update(self.text.as_bytes());
        for b in self.boxes.iter().flatten() {
            hash.update([1]);
            for value in <[f32; 4]>::from(*b) {
                hash.update(value.to_le_bytes());
            }
        }
        hash.update([u8::from(self.boxes.is_some())]);
        hash.finalize().into()
    }
}

/// The questions of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Questions {
    /// All of them, in the order of the file.
    pub all: Vec<Asked>,
    /// Those about every picture, by place.
    common: Vec<usize>,
    /// Those about one picture, by place of the picture.
    of_picture: BTreeMap<usize, Vec<usize>>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    image: Option<String>,
    question: String,
    #[serde(default)]
    boxes: Option<Vec<BoxXyxy>>,
}

/// A question of a file, and the picture that it names.
type Named = (Option<String>, Asked);

impl Questions {
    /// The question of `--task`: a name of [`Kind::TASKS`], for detection and counting with the things after a
    /// colon, separated by commas. The words are those of the page.
    ///
    /// # Errors
    /// There is no such task, things are missing or not wanted, or the question has control words.
    pub fn of_task(task: &str) -> Result<Self, Fault> {
        let (name, words) = match task.split_once(':') {
            Some((name, words)) => (name, words.trim()),
            None => (task, ""),
        };
        let kind = Kind::TASKS.into_iter().find(|kind| kind.key() == name);
        let fault = |what: String| {
            let advice = "Write detect:dog,cat, count:dogs, caption, grounded-caption, region-caption or propose";
            Fault::new(FaultKind::Question, "--task", what, advice).code(ErrorCode::InvalidInput)
        };
        let Some(kind) = kind else {
            return Err(fault(format!("`{name}` is no task")));
        };
        if kind.needs_words() == words.is_empty() {
            return Err(fault(match kind.needs_words() {
                true => format!("{name} needs things to look for"),
                false => format!("{name} takes no things"),
            }));
        }
        let page = |kind| Draft::new(kind, words).phrase(&Candidates::default()).1;
        let text = match kind {
            Kind::Detect => page(QuestionKind::Find),
            Kind::Count => page(QuestionKind::Count),
            Kind::Caption | Kind::GroundedCaption => page(QuestionKind::Describe),
            Kind::RegionCaption => prompt::Task::Phrase.template().to_owned(),
            Kind::Propose | Kind::Question => String::new(),
        };
        let is_empty =
            kind.needs_words() && Draft::new(QuestionKind::Find, words).things().is_empty();
        if is_empty {
            return Err(fault(format!("{name} needs things to look for")));
        }
        if kind != Kind::Propose {
            prompt::check_question(&text, 0).map_err(|error| fault(error.what))?;
        }
        Ok(Self {
            all: vec![Asked {
                kind,
                text,
                boxes: None,
                line: None,
            }],
            common: vec![0],
            of_picture: BTreeMap::new(),
        })
    }

    /// Reads a file of questions: per line `{"image": NAME, "question": TEXT, "boxes": [[x1,y1,x2,y2],...]}`.
    /// Without `image` the question is about every picture, without `boxes` about the proposals. Without
    /// `pictures` they are those that the lines name, below `root`, or below the folder of the file.
    ///
    /// # Errors
    /// The file cannot be read, has no question, or a line cannot be used; the fault names the line.
    pub fn of_file(
        path: &Path,
        pictures: Option<Pictures>,
        root: Option<&Path>,
    ) -> Result<(Self, Pictures), Fault> {
        let text = read_text(path)?;
        let place = path.display();
        let mut named = Vec::new();
        for (line, text) in text.lines().enumerate() {
            if !text.trim().is_empty() {
                let fault = |what: String| refused(&format!("{place}, line {}", line + 1), what);
                named.push(parse(line + 1, text).map_err(fault)?);
            }
        }
        if named.is_empty() {
            return Err(refused(&place.to_string(), "has no questions".into()));
        }
        let pictures = match pictures {
            Some(pictures) => pictures,
            None => pictures_of(path, &named, root)?,
        };
        let places: HashMap<&str, usize> = (pictures.all.iter().enumerate())
            .map(|(place, picture)| (picture.name.as_str(), place))
            .collect();
        let mut questions = Self::default();
        for (image, asked) in named {
            let number = questions.all.len();
            match image {
                None => questions.common.push(number),
                Some(image) => {
                    let Some(&picture) = places.get(image.as_str()) else {
                        let line = asked.line.unwrap_or_default();
                        let what =
                            format!("names the picture {image}, which is not among the pictures");
                        return Err(refused(&format!("{place}, line {line}"), what));
                    };
                    questions
                        .of_picture
                        .entry(picture)
                        .or_default()
                        .push(number);
                }
            }
            questions.all.push(asked);
        }
        Ok((questions, pictures))
    }

    /// The questions about the picture at `place`, in their order.
    pub fn about(&self, place: usize) -> Vec<usize> {
        let own = self.of_picture.get(&place);
        let mut all: Vec<usize> = self
            .common
            .iter()
            .chain(own.into_iter().flatten())
            .copied()
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether anything but proposals is wanted.
    pub fn has_questions(&self) -> bool {
        self.all.iter().any(|asked| asked.kind != Kind::Propose)
    }

    /// SHA-256 of all questions and what they are about, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for asked in &self.all {
            hash.update(asked.digest(&[0; 32]));
            hash.update((asked.line.unwrap_or(0) as u64).to_le_bytes());
        }
        for (picture, own) in &self.of_picture {
            for value in [picture].into_iter().chain(own) {
                hash.update((*value as u64).to_le_bytes());
            }
            hash.update(u64::MAX.to_le_bytes());
        }
        hex(&hash.finalize())
    }
}

fn parse(line: usize, text: &str) -> Result<Named, String> {
    let Line {
        image,
        question,
        boxes,
    } = serde_json::from_str(text).map_err(|error| format!("is no question ({error})"))?;
    let count = boxes.as_ref().map_or(MAX_BOXES, Vec::len);
    if count > MAX_BOXES {
        return Err(format!("has {count} boxes, the limit is {MAX_BOXES}"));
    }
    if let Some(index) = geometry::first_far_box(boxes.as_deref().unwrap_or_default()) {
        return Err(format!("box {index} {}", geometry::TOO_FAR));
    }
    prompt::check_question(&question, count).map_err(|fault| fault.what)?;
    let asked = Asked {
        kind: Kind::Question,
        text: question,
        boxes,
        line: Some(line),
    };
    Ok((image, asked))
}

fn pictures_of(path: &Path, named: &[Named], root: Option<&Path>) -> Result<Pictures, Fault> {
    let Some((_, first)) = named.iter().find(|(image, _)| image.is_none()) else {
        let folder = path.parent().unwrap_or(Path::new(""));
        let names = named.iter().filter_map(|(image, _)| image.as_deref());
        let mut pictures = Pictures::of_names(root.unwrap_or(folder), names.map(Path::new))?;
        pictures.repeated = 0;
        return Ok(pictures);
    };
    let line = first.line.unwrap_or_default();
    let what = "names no picture, and --images is missing".into();
    Err(refused(&format!("{}, line {line}", path.display()), what))
}

fn refused(place: &str, what: String) -> Fault {
    let advice = r#"Write {"image": NAME, "question": TEXT, "boxes": [[x1,y1,x2,y2],...]} per line; image and boxes may be left out"#;
    Fault::new(FaultKind::Question, place, what, advice).code(ErrorCode::InvalidInput)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_have_the_wording_of_training() {
        let text = |task: &str| Questions::of_task(task).expect(task).all[0].text.clone();
        assert_eq!(
            text("detect:dog, teddy bear"),
            prompt::Task::Detect.question(&["dog", "teddy bear"])
        );
        assert_eq!(text("count:dogs"), prompt::Task::Count.question(&["dogs"]));
        assert_eq!(text("caption"), prompt::Task::BriefCaption.template());
        assert_eq!(text("grounded-caption"), text("caption"));
        assert!(text("region-caption").contains("[OBJ]"));
        assert_eq!(text("propose"), "");
        for bad in [
            "",
            "find:dog",
            "detect",
            "detect:",
            "detect: ,;",
            "caption:dog",
            "detect:<image>",
            "detect:<obj3>",
        ] {
            let fault = Questions::of_task(bad).expect_err(bad);
            assert_eq!(
                (fault.place.as_str(), fault.code),
                ("--task", ErrorCode::InvalidInput),
                "{bad}"
            );
        }
    }

    fn pictures() -> Pictures {
        Pictures::of_names(
            Path::new("x"),
            ["a.png", "b.png"].map(Path::new).into_iter(),
        )
        .expect("names")
    }

    #[test]
    fn lines_are_about_one_picture_or_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("q.jsonl");
        std::fs::write(
            &path,
            "{\"question\": \"What is it?\"}\n\n{\"image\": \"b.png\", \"question\": \"<obj0>?\", \"boxes\": [[1,2,3,4]], \"id\": 7}\n{\"question\": \"Why?\"}\n",
        )
        .expect("a file");
        let (questions, _) = Questions::of_file(&path, Some(pictures()), None).expect("questions");
        assert_eq!(
            (questions.about(0), questions.about(1)),
            (vec![0, 2], vec![0, 1, 2])
        );
        assert_eq!(questions.all[1].id("b.png"), "b.png#3");
        let [first, second] = [0, 1].map(|place| questions.all[place].digest(&[0; 32]));
        assert_ne!(first, second);
        std::fs::write(&path, "{\"image\": \"s/a.png\", \"question\": \"Why?\"}\n{\"image\": \"s/a.png\", \"question\": \"How?\"}")
            .expect("a file");
        let (questions, pictures) = Questions::of_file(&path, None, None).expect("questions");
        assert_eq!(pictures.all.len(), 1);
        assert_eq!(pictures.all[0].path, folder.path().join("s/a.png"));
        assert_eq!(questions.about(0), [0, 1]);
    }

    #[test]
    fn lines_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("q.jsonl");
        for (line, what) in [
            ("{", "is no question"),
            ("{\"image\": \"a.png\"}", "missing field `question`"),
            ("{\"question\": \" \"}", "nothing is asked"),
            (
                "{\"question\": \"<obj1>?\", \"boxes\": [[1,2,3,4]]}",
                "the only box",
            ),
            (
                "{\"question\": \"?\", \"boxes\": [[1e9,2,3,4]]}",
                "box 0 has a coordinate",
            ),
            ("{\"question\": \"?\", \"image\": \"c.png\"}", "not among"),
        ] {
            std::fs::write(&path, format!("{{\"question\": \"Why?\"}}\n{line}")).expect("a file");
            let fault = Questions::of_file(&path, Some(pictures()), None).expect_err(line);
            assert!(
                fault.place.ends_with("line 2") && fault.what.contains(what),
                "{fault}"
            );
        }
        std::fs::write(&path, "\n").expect("a file");
        assert!(Questions::of_file(&path, Some(pictures()), None).is_err());
        std::fs::write(&path, "{\"question\": \"Why?\"}").expect("a file");
        let fault = Questions::of_file(&path, None, None).expect_err("no pictures");
        assert!(fault.what.contains("--images"), "{fault}");
    }
}
