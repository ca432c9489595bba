//! The files for other programs, written from the results: Parquet, COCO and Label Studio. Each is complete or not
//! there, and depends on the results alone, not on the order in which they were computed.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, FixedSizeListBuilder, Float32Builder, ListBuilder, StringBuilder, StructBuilder,
    UInt32Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use super::record::{Failure, Record};
use super::store::{Key, Lists, Names, Store, write_whole};
use crate::chat::exchange::coco;
use crate::chat::exchange::label_studio::{Region, region};
use crate::chat::exchange::marked::{MarkedBox, Sheet};
use crate::error::{ErrorCode, Fault};

/// Rows of a Parquet file that are in memory at a time.
const ROWS: usize = 1000;

/// Rows of a row group.
const GROUP: usize = 20_000;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The results, a line each; always written.
    Jsonl,
    /// The results as a table.
    Parquet,
    /// Annotations, and a list of results for pycocotools.
    Coco,
    /// Predictions.
    LabelStudio,
}

/// What the files are written from.
pub struct Tables<'a> {
    /// The results.
    pub store: &'a Store,
    /// What they are about.
    pub lists: Lists<'a>,
    /// Where the files are.
    pub names: &'a Names,
    /// The name of the model.
    pub model: &'a str,
}

impl Tables<'_> {
    /// Writes the files of these formats; returns all files of results.
    ///
    /// # Errors
    /// A file cannot be written; then it is not there, or as it was.
    pub fn write(&self, formats: &[Format]) -> Result<Vec<String>, Fault> {
        let mut files = vec![self.names.path("results", "jsonl")];
        if formats.contains(&Format::Parquet) {
            let path = self.names.path("results", "parquet");
            write_whole(&path, |out| self.parquet(out).map_err(io::Error::other))?;
            files.push(path);
        }
        let mut add = |stem, write: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
            let path = self.names.path(stem, "json");
            write_whole(&path, |out| write(out))?;
            files.push(path);
            Ok(())
        };
        if formats.contains(&Format::Coco) {
            let categories = Categories::of(self)?;
            add("coco", &|out| self.coco(&categories, out))?;
            add("coco_results", &|out| self.coco_results(&categories, out))?;
        }
        if formats.contains(&Format::LabelStudio) {
            add("label_studio", &|out| self.label_studio(out))?;
        }
        Ok(files
            .iter()
            .map(|path| path.display().to_string())
            .collect())
    }

    /// The results in the order of pictures and questions.
    fn records(&self) -> impl Iterator<Item = io::Result<(Key, Record)>> + '_ {
        let read = |key| match self.store.record(key) {
            Ok(record) => Ok((key, record)),
            Err(fault) => Err(io::Error::other(fault)),
        };
        self.store.keys().map(read)
    }

    /// The boxes of the results, in that order.
    fn sheets(&self) -> impl Iterator<Item = io::Result<(Key, Sheet)>> + '_ {
        self.records().filter_map(|read| match read {
            Ok((key, record)) => record.sheet().map(|sheet| Ok((key, sheet))),
            Err(error) => Some(Err(error)),
        })
    }

    /// A row per result; the columns are the keys of its line, with `error_code` and so on for `error`.
    fn parquet(&self, out: &mut (dyn Write + Send)) -> Result<(), ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP))
            .build();
        let empty = Columns::new().finish()?;
        let mut writer = ArrowWriter::try_new(out, empty.schema(), Some(properties))?;
        let mut columns = Columns::new();
        for read in self.records() {
            columns.push(&read?.1);
            if columns.rows == ROWS {
                let full = std::mem::replace(&mut columns, Columns::new());
                writer.write(&full.finish()?)?;
            }
        }
        writer.write(&columns.finish()?)?;
        writer.close()?;
        Ok(())
    }

    /// The id of a picture.
    fn image(&self, (picture, _): Key) -> &Value {
        &self.lists.pictures.all[picture].id
    }

    /// A COCO file: the pictures that were decoded, the boxes, and the categories.
    fn coco(&self, categories: &Categories, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(
            b"{\"info\":{\"description\":\"Boxes of ChatRex\"},\"licenses\":[],\n\"images\":[",
        )?;
        let mut list = List::new(out);
        let mut last = None;
        for read in self.records() {
            let (key, record) = read?;
            let Some(size) = record.size().filter(|_| last != Some(key.0)) else {
                continue;
            };
            last = Some(key.0);
            list.push(&json!({
                "id": self.image(key),
                "file_name": record.image,
                "width": size.width,
                "height": size.height,
            }))?;
        }
        out.write_all(b"],\n\"annotations\":[")?;
        let mut list = List::new(out);
        for read in self.sheets() {
            let (key, sheet) = read?;
            for marked in &sheet.boxes {
                let category = categories.id(marked);
                let id = list.count + 1;
                list.push(&coco::annotation(id, self.image(key), marked, category))?;
            }
        }
        out.write_all(b"],\n\"categories\":[")?;
        let mut list = List::new(out);
        for (id, name) in &categories.all {
            list.push(&json!({"id": id, "name": name, "supercategory": ""}))?;
        }
        out.write_all(b"]}\n")
    }

    /// The list that pycocotools reads as results. Boxes of the user have the score 1.
    fn coco_results(&self, categories: &Categories, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"[")?;
        let mut list = List::new(out);
        for read in self.sheets() {
            let (key, sheet) = read?;
            for marked in &sheet.boxes {
                let annotation =
                    coco::annotation(0, self.image(key), marked, categories.id(marked));
                list.push(&json!({
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"],
                    "bbox": annotation["bbox"],
                    "score": marked.score.unwrap_or(1.0),
                }))?;
            }
        }
        out.write_all(b"]\n")
    }

    /// A task per picture with a prediction per result. The labelling configuration is that of
    /// [`crate::chat::exchange::label_studio`].
    fn label_studio(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"[")?;
        let mut list = List::new(out);
        let mut task: Option<(usize, String, Vec<Value>)> = None;
        for read in self.sheets() {
            let (key, sheet) = read?;
            if task.as_ref().is_none_or(|(picture, ..)| *picture != key.0) {
                if let Some(task) = task.take() {
                    list.push(&self.task(task))?;
                }
                task = Some((key.0, sheet.name.clone(), Vec::new()));
            }
            if let Some((.., predictions)) = &mut task {
                predictions.push(self.prediction(key, &sheet));
            }
        }
        if let Some(task) = task {
            list.push(&self.task(task))?;
        }
        out.write_all(b"]\n")
    }

    fn task(&self, (picture, name, predictions): (usize, String, Vec<Value>)) -> Value {
        json!({
            "id": picture + 1,
            "data": {"image": name},
            "predictions": predictions,
        })
    }

    fn prediction(&self, (_, question): Key, sheet: &Sheet) -> Value {
        let results = sheet.boxes.iter().map(|marked| {
            let of = Region {
                id: format!("box-{question}-{}", marked.number),
                from_name: "label",
                to_name: "image",
                label: marked.label.as_deref().unwrap_or_default(),
                score: marked.score,
            };
            region(of, marked.bbox, sheet.size)
        });
        let scores: Vec<f64> = sheet
            .boxes
            .iter()
            .filter_map(|b| b.score.map(f64::from))
            .collect();
        let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        json!({
            "model_version": self.model,
            "score": (mean * 1e4).round() / 1e4,
            "result": results.collect::<Vec<_>>(),
        })
    }
}

/// The elements of a JSON list, a line each.
struct List<'a> {
    out: &'a mut dyn Write,
    count: usize,
}

impl<'a> List<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self { out, count: 0 }
    }

    fn push(&mut self, value: &Value) -> io::Result<()> {
        let before = if self.count == 0 { "\n" } else { ",\n" };
        self.count += 1;
        write!(self.out, "{before}{value}")
    }
}

/// The categories: those of the COCO file that lists the pictures, then other labels in their order.
struct Categories {
    all: Vec<(Value, String)>,
    places: HashMap<String, usize>,
}

impl Categories {
    fn of(tables: &Tables<'_>) -> Result<Self, Fault> {
        let mut found = Self {
            all: Vec::new(),
            places: HashMap::new(),
        };
        for (id, name) in &tables.lists.pictures.categories {
            found.add(name, || id.clone());
        }
        let largest = found.all.iter().filter_map(|(id, _)| id.as_i64()).max();
        let mut next = largest.unwrap_or(0);
        for read in tables.sheets() {
            let (_, sheet) = read.map_err(unreadable)?;
            for marked in &sheet.boxes {
                found.add(marked.label.as_deref().unwrap_or_default(), || {
                    next += 1;
                    next.into()
                });
            }
        }
        Ok(found)
    }

    /// Adds a category unless there is one of that name, whatever the case of its letters.
    fn add(&mut self, name: &str, id: impl FnOnce() -> Value) {
        let key = name.to_lowercase();
        if !self.places.contains_key(&key) {
            self.places.insert(key, self.all.len());
            self.all.push((id(), name.to_owned()));
        }
    }

    fn id(&self, marked: &MarkedBox) -> &Value {
        let key = marked.label.as_deref().unwrap_or_default().to_lowercase();
        &self.all[self.places[&key]].0
    }
}

fn unreadable(error: io::Error) -> Fault {
    Fault::file("results", error).code(ErrorCode::Storage)
}

/// Rows of a Parquet file in the making.
struct Columns {
    rows: usize,
    /// `id`, `image`, `sha256`.
    names: [StringBuilder; 3],
    /// `width`, `height`.
    size: [UInt32Builder; 2],
    /// `task`, `question`, `text`.
    texts: [StringBuilder; 3],
    spans: ListBuilder<StructBuilder>,
    boxes: ListBuilder<FixedSizeListBuilder<Float32Builder>>,
    labels: ListBuilder<StringBuilder>,
    scores: ListBuilder<Float32Builder>,
    tokens: UInt32Builder,
    stop: StringBuilder,
    /// `error_code`, `error_place`, `error_what`, `error_advice`.
    errors: [StringBuilder; 4],
}

fn span_fields() -> Fields {
    let item = Field::new("item", DataType::UInt32, true);
    Fields::from(vec![
        Field::new("text", DataType::Utf8, false),
        Field::new("objects", DataType::List(Arc::new(item)), false),
    ])
}

/// A value's name in JSON, for enums that are written as words.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        other => unreachable!("an enum without fields is a word: {other:?}"),
    }
}

impl Columns {
    fn new() -> Self {
        let span: Vec<Box<dyn ArrayBuilder>> = vec![
            Box::new(StringBuilder::new()),
            Box::new(ListBuilder::new(UInt32Builder::new())),
        ];
        Self {
            rows: 0,
            names: Default::default(),
            size: Default::default(),
            texts: Default::default(),
            spans: ListBuilder::new(StructBuilder::new(span_fields(), span)),
            boxes: ListBuilder::new(FixedSizeListBuilder::new(Float32Builder::new(), 4)),
            labels: ListBuilder::new(StringBuilder::new()),
            scores: ListBuilder::new(Float32Builder::new()),
            tokens: UInt32Builder::new(),
            stop: StringBuilder::new(),
            errors: Default::default(),
        }
    }

    fn push(&mut self, record: &Record) {
        self.rows += 1;
        let names = [
            Some(&record.id),
            Some(&record.image),
            record.sha256.as_ref(),
        ];
        for (column, value) in self.names.iter_mut().zip(names) {
            column.append_option(value);
        }
        for (column, value) in self.size.iter_mut().zip([record.width, record.height]) {
            column.append_option(value);
        }
        let texts = [
            Some(&record.task),
            Some(&record.question),
            record.text.as_ref(),
        ];
        for (column, value) in self.texts.iter_mut().zip(texts) {
            column.append_option(value);
        }
        for span in &record.spans {
            let fields = self.spans.values();
            let text = fields.field_builder::<StringBuilder>(0);
            text.expect("the first field is text")
                .append_value(&span.text);
            let objects = fields.field_builder::<ListBuilder<UInt32Builder>>(1);
            let objects = objects.expect("the second field is a list");
            objects.values().append_slice(&span.objects);
            objects.append(true);
            fields.append(true);
        }
        self.spans.append(true);
        for b in &record.boxes {
            let corners = self.boxes.values();
            corners.values().append_slice(&<[f32; 4]>::from(*b));
            corners.append(true);
        }
        self.boxes.append(true);
        for label in &record.labels {
            self.labels.values().append_option(label.as_ref());
        }
        self.labels.append(true);
        for score in &record.scores {
            self.scores.values().append_option(*score);
        }
        self.scores.append(true);
        self.tokens.append_option(record.tokens);
        self.stop.append_option(record.stop.as_ref().map(word));
        let failure = record.error.as_ref().map(|failure| {
            let Failure {
                code,
                place,
                what,
                advice,
            } = failure;
            [word(code), place.clone(), what.clone(), advice.clone()]
        });
        for (place, column) in self.errors.iter_mut().enumerate() {
            column.append_option(failure.as_ref().map(|texts| &texts[place]));
        }
    }

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let [id, image, sha256] = &mut self.names;
        let [width, height] = &mut self.size;
        let [task, question, text] = &mut self.texts;
        let [code, place, what, advice] = &mut self.errors;
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("id", Arc::new(id.finish()), false),
            ("image", Arc::new(image.finish()), false),
            ("sha256", Arc::new(sha256.finish()), true),
            ("width", Arc::new(width.finish()), true),
            ("height", Arc::new(height.finish()), true),
            ("task", Arc::new(task.finish()), false),
            ("question", Arc::new(question.finish()), false),
            ("text", Arc::new(text.finish()), true),
            ("spans", Arc::new(self.spans.finish()), false),
            ("boxes", Arc::new(self.boxes.finish()), false),
            ("labels", Arc::new(self.labels.finish()), false),
            ("scores", Arc::new(self.scores.finish()), false),
            ("tokens", Arc::new(self.tokens.finish()), true),
            ("stop", Arc::new(self.stop.finish()), true),
            ("error_code", Arc::new(code.finish()), true),
            ("error_place", Arc::new(place.finish()), true),
            ("error_what", Arc::new(what.finish()), true),
            ("error_advice", Arc::new(advice.finish()), true),
        ];
        let fields = columns.iter().map(|(name, column, is_nullable)| {
            Field::new(*name, column.data_type().clone(), *is_nullable)
        });
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let columns = columns.into_iter().map(|(_, column, _)| column).collect();
        RecordBatch::try_new(Arc::new(schema), columns)
    }
}
