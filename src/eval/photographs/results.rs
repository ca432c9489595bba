//! Scores of ready boxes (`chatrex eval --coco --results`): a COCO list of results against annotations,
//! without a model and without pictures. The values are those of pycocotools.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::average_precision::{
    AveragePrecision, Detection, MAX_DETECTIONS, Sizes, THRESHOLDS, TrueBox,
};
use super::coco::{CocoSet, refused};
use super::coco_rows::{BoxField, Scalar, clean_json};
use crate::error::Fault;
use crate::eval::html::Page;

/// Position of IoU 0.75 among the thresholds.
const AT_75: usize = 5;

/// Detected boxes of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// By the number of the picture, in the order of the kinds, then of the file.
    boxes: BTreeMap<i64, Vec<Found>>,
    /// Number of boxes.
    count: usize,
    /// Whether the boxes have kinds.
    kinds: bool,
}

/// A box with its score, and its kind if the file has kinds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    kind: Option<usize>,
    detection: Detection,
}

#[derive(Deserialize)]
struct ResultRow {
    image_id: Scalar,
    #[serde(default)]
    category_id: Scalar,
    bbox: BoxField,
    score: Scalar,
}

impl Results {
    /// Reads a list of `{"image_id", "category_id", "bbox": [x, y, width, height], "score"}` for `set`. All
    /// boxes have a category, or none has.
    ///
    /// # Errors
    /// The file cannot be read or is no such list, or a box is of an unknown picture or category, or has no
    /// finite box and score. The error names the line or the record, which is counted from 1.
    pub fn open(path: &Path, set: &CocoSet) -> Result<Self, Fault> {
        let text = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
        Self::parse(&text, &path.display().to_string(), set)
    }

    /// [`Results::open`] for the text of a file; `place` names it in errors.
    ///
    /// # Errors
    /// Those of [`Results::open`], except that it cannot be read.
    pub fn parse(text: &[u8], place: &str, set: &CocoSet) -> Result<Self, Fault> {
        let fault = |what: String| refused(place, what);
        let rows: Vec<ResultRow> = serde_json::from_slice(&clean_json(text))
            .map_err(|error| fault(format!("is no list of COCO results: {error}")))?;
        let mut results = Self {
            count: rows.len(),
            kinds: rows
                .first()
                .is_some_and(|row| row.category_id != Scalar::Null),
            ..Self::default()
        };
        for (number, row) in rows.into_iter().enumerate() {
            let of = |what: String| fault(format!("result {} {what}", number + 1));
            let text = |value: &Scalar| value.key().map_or("null".into(), |key| key.to_string());
            let picture = row.image_id.key();
            let picture = picture.and_then(|key| set.picture_ids.get(&key));
            let Some(&picture) = picture else {
                let id = text(&row.image_id);
                return Err(of(format!("is of picture {id}, which is not listed")));
            };
            let kind = match (row.category_id.key(), results.kinds) {
                (None, false) => None,
                (Some(key), true) => match set.kind_ids.get(&key) {
                    Some(&kind) => Some(kind),
                    None => {
                        return Err(of(format!("is of category {key}, which is not listed")));
                    }
                },
                (None, true) => return Err(of("has no category, and others have one".into())),
                (Some(_), false) => {
                    return Err(of("has a category, and others have none".into()));
                }
            };
            let Some(xywh) = row.bbox.xywh().map_err(of)? else {
                return Err(of("has no box".into()));
            };
            let Some(score) = row.score.number() else {
                return Err(of("has no finite score".into()));
            };
            let boxes = results.boxes.entry(picture).or_default();
            boxes.push(Found {
                kind,
                detection: Detection { xywh, score },
            });
        }
        // Without kinds pycocotools sorts by category before it sorts by score.
        for boxes in results.boxes.values_mut() {
            boxes.sort_by_key(|found| found.kind);
        }
        Ok(results)
    }

    /// The boxes of the picture with number `picture`, of all kinds or of one.
    fn of(&self, picture: i64, kind: Option<usize>) -> Vec<Detection> {
        let boxes = self.boxes.get(&picture).into_iter().flatten();
        boxes
            .filter(|found| kind.is_none() || found.kind == kind)
            .map(|found| found.detection)
            .collect()
    }
}

/// The twelve values that pycocotools prints. `None` where it prints -1: there are no objects.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Average precision, mean over IoU 0.5 to 0.95.
    pub ap: Option<f64>,
    /// Average precision at IoU 0.5.
    pub ap_50: Option<f64>,
    /// Average precision at IoU 0.75.
    pub ap_75: Option<f64>,
    /// Average precision of objects of less than 32 x 32 pixels.
    pub ap_small: Option<f64>,
    /// Average precision of objects between both.
    pub ap_medium: Option<f64>,
    /// Average precision of objects of more than 96 x 96 pixels.
    pub ap_large: Option<f64>,
    /// Recall of the best box of each picture, mean over IoU 0.5 to 0.95.
    pub ar_1: Option<f64>,
    /// Recall of the best 10 boxes.
    pub ar_10: Option<f64>,
    /// Recall of the best 100 boxes.
    pub ar_100: Option<f64>,
    /// Recall of small objects by the best 100 boxes.
    pub ar_small: Option<f64>,
    /// Recall of medium objects by the best 100 boxes.
    pub ar_medium: Option<f64>,
    /// Recall of large objects by the best 100 boxes.
    pub ar_large: Option<f64>,
}

impl Summary {
    /// The summary of `results` for `set`: the mean over its kinds, or of all boxes without their kinds.
    fn of(set: &CocoSet, results: &Results, with_kinds: bool) -> Self {
        let kinds: Vec<Option<usize>> = match with_kinds {
            true => (0..set.kinds.len()).map(Some).collect(),
            false => vec![None],
        };
        let once = vec![1; set.pictures.len()];
        // Of each range of sizes and each kind with objects: precisions, and recalls of 1, 10 and 100 boxes.
        let scores = |sizes: Sizes| -> Vec<[[f64; THRESHOLDS]; 4]> {
            let of_kind = |kind: &Option<usize>| {
                let mut sums = AveragePrecision::of(sizes);
                for picture in &set.pictures {
                    let found = results.of(picture.id, *kind);
                    sums.add(&found, &TrueBox::of(picture, *kind));
                }
                sums.sort();
                let recall = |count| sums.recall(count);
                Some([
                    sums.at(&once)?,
                    recall(1)?,
                    recall(10)?,
                    recall(MAX_DETECTIONS)?,
                ])
            };
            kinds.iter().filter_map(of_kind).collect()
        };
        let [all, small, medium, large] =
            [Sizes::All, Sizes::Small, Sizes::Medium, Sizes::Large].map(scores);
        let mean = |scores: &[[[f64; THRESHOLDS]; 4]], what: usize| {
            let values = scores.iter().flat_map(|kind| kind[what]);
            average(values)
        };
        let at = |threshold: usize| average(all.iter().map(|kind| kind[0][threshold]));
        Self {
            ap: mean(&all, 0),
            ap_50: at(0),
            ap_75: at(AT_75),
            ap_small: mean(&small, 0),
            ap_medium: mean(&medium, 0),
            ap_large: mean(&large, 0),
            ar_1: mean(&all, 1),
            ar_10: mean(&all, 2),
            ar_100: mean(&all, 3),
            ar_small: mean(&small, 3),
            ar_medium: mean(&medium, 3),
            ar_large: mean(&large, 3),
        }
    }

    /// The values with their names, in the order of pycocotools.
    fn rows(&self) -> [(&'static str, Option<f64>); 12] {
        [
            ("ap", self.ap),
            ("ap_50", self.ap_50),
            ("ap_75", self.ap_75),
            ("ap_small", self.ap_small),
            ("ap_medium", self.ap_medium),
            ("ap_large", self.ap_large),
            ("ar_1", self.ar_1),
            ("ar_10", self.ar_10),
            ("ar_100", self.ar_100),
            ("ar_small", self.ar_small),
            ("ar_medium", self.ar_medium),
            ("ar_large", self.ar_large),
        ]
    }
}

/// The mean; `None` of no values.
fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// The scores of ready boxes; `chatrex eval --coco --results --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultsReport {
    /// Name of the annotations.
    pub annotations: String,
    /// Name of the results.
    pub results: String,
    /// Number of pictures.
    pub count: usize,
    /// Number of objects.
    pub objects: usize,
    /// Number of crowds.
    pub crowds: usize,
    /// Annotations without area, which are left out.
    pub without_area: usize,
    /// Number of boxes.
    pub boxes: usize,
    /// The mean over the kinds; absent if the boxes have no kinds.
    pub with_kinds: Option<Summary>,
    /// All boxes without their kinds, as `useCats = 0` of pycocotools.
    pub without_kinds: Summary,
}

/// Scores `results` against `set`; the names are for the report.
pub fn evaluate_results(
    set: &CocoSet,
    results: &Results,
    [annotations, name]: [String; 2],
) -> ResultsReport {
    let all = || set.pictures.iter().flat_map(|picture| &picture.annotations);
    ResultsReport {
        annotations,
        results: name,
        count: set.pictures.len(),
        objects: all().filter(|annotation| !annotation.crowd).count(),
        crowds: all().filter(|annotation| annotation.crowd).count(),
        without_area: set.without_area,
        boxes: results.count,
        with_kinds: results.kinds.then(|| Summary::of(set, results, true)),
        without_kinds: Summary::of(set, results, false),
    }
}

impl ResultsReport {
    /// The names of the columns, and of each metric its name and values.
    fn table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let with = self.with_kinds.map(|summary| ("with kinds", summary));
        let columns: Vec<(&str, Summary)> = with
            .into_iter()
            .chain([("without kinds", self.without_kinds)])
            .collect();
        let head = std::iter::once("metric").chain(columns.iter().map(|column| column.0));
        let rows = self.without_kinds.rows().into_iter().enumerate();
        let rows = rows.map(|(row, (name, _))| {
            let values = columns.iter().map(|(_, summary)| {
                let (_, value) = summary.rows()[row];
                value.map_or("-".to_owned(), |value| format!("{value:.6}"))
            });
            std::iter::once(name.to_owned()).chain(values).collect()
        });
        (head.collect(), rows.collect())
    }

    fn counts(&self) -> String {
        format!(
            "{} boxes in {} pictures with {} objects and {} crowds",
            self.boxes, self.count, self.objects, self.crowds
        )
    }

    /// The report as HTML.
    pub fn page(&self) -> Page {
        let mut page = Page::new(&format!("{} on {}", self.results, self.annotations));
        page.paragraph(&self.counts());
        let (head, rows) = self.table();
        page.table("Metrics", &head, &rows);
        page
    }
}

impl fmt::Display for ResultsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, rows) = self.table();
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        for row in std::iter::once(head).chain(rows) {
            write!(f, "{:12}", row[0])?;
            for cell in &row[1..] {
                write!(f, "{cell:>16}")?;
            }
            writeln!(f)?;
        }
        f.write_str(&self.counts())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FOLDER: &str = "tests/data/coco";

    fn report(annotations: &str, results: &str) -> ResultsReport {
        let path = |name: &str| format!("{FOLDER}/{name}");
        let set = CocoSet::open(path(annotations).as_ref()).expect("annotations");
        let found = Results::open(path(results).as_ref(), &set).expect("results");
        evaluate_results(&set, &found, ["a".into(), "b".into()])
    }

    /// The twelve values of both tables are those that `tests/reference/coco_compare.py` recorded from
    /// pycocotools. The cases have crowds, tiny boxes, masks smaller than their boxes, pictures without
    /// objects or boxes, kinds without objects, equal scores, and more than 100 boxes in a picture.
    #[test]
    fn summaries_are_those_of_pycocotools() {
        let text = std::fs::read_to_string(format!("{FOLDER}/summaries.json")).expect("a file");
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        assert!(cases.len() >= 2);
        let mut missing = 0;
        for case in &cases {
            let name = |key: &str| case[key].as_str().expect("a name");
            let report = report(name("annotations"), name("results"));
            let with_kinds = report.with_kinds.expect("kinds");
            for (key, summary) in [
                ("with_kinds", with_kinds),
                ("without_kinds", report.without_kinds),
            ] {
                for (place, (metric, value)) in summary.rows().into_iter().enumerate() {
                    let expected = case[key][place].as_f64().expect("a number");
                    let found = value.unwrap_or(-1.0);
                    missing += usize::from(value.is_none());
                    let place = format!("{} {key} {metric}", name("results"));
                    assert!(
                        (found - expected).abs() < 1e-9,
                        "{place}: {found} {expected}"
                    );
                }
            }
        }
        assert!(missing > 0, "a case without objects of a size");
    }

    #[test]
    fn results_of_nothing_known_are_refused() {
        let set = json!({"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 4, 4]}],
            "categories": [{"id": 5, "name": "dog"}]});
        let set = CocoSet::parse(set.to_string().as_bytes(), "set").expect("a set");
        let parse = |text: &str| Results::parse(text.as_bytes(), "results.json", &set);
        let row = |change: &str| {
            let good =
                r#"{"image_id": 1, "category_id": "5", "bbox": [0, 0, "4", 4], "score": 0.5}"#;
            let (from, to) = change.split_once('>').expect("a change");
            format!("[{good},\n{}]", good.replace(from, to))
        };
        let good = parse(&row("0.5>\"0.25\"")).expect("numbers as text");
        assert_eq!((good.count, good.kinds), (2, true));
        for (change, expected) in [
            ("1, \"cat>7, \"cat", "result 2 is of picture 7"),
            ("\"5\">6", "result 2 is of category 6"),
            ("\"5\">null", "others have one"),
            (
                "[0, 0, \"4\", 4]>[0, 0, 4]",
                "result 2 has a box of 3 numbers",
            ),
            ("[0, 0, \"4\", 4]>null", "result 2 has no box"),
            ("0.5>NaN", "result 2 has no finite score"),
            ("0.5>}", "line 2"),
            ("\"score\": 0.5>\"x\": 1", "missing field `score`"),
        ] {
            let fault = parse(&row(change)).expect_err(change);
            assert!(fault.what.contains(expected), "{change}: {fault}");
        }
        assert!(parse("{}").is_err());
        let none = evaluate_results(&set, &parse("[]").expect("no boxes"), Default::default());
        assert_eq!(none.without_kinds.ap, Some(0.0));
        assert_eq!((none.without_kinds.ap_large, none.with_kinds), (None, None));
        let bare = parse(r#"[{"image_id": 1, "bbox": [0, 0, 4, 4], "score": 1}]"#);
        let report = evaluate_results(&set, &bare.expect("no kinds"), Default::default());
        assert_eq!(
            (report.without_kinds.ap, report.with_kinds),
            (Some(1.0), None)
        );
        crate::eval::html::check_page(&report.page().finish());
        assert!(report.to_string().contains("1.000000"), "{report}");
    }
}
