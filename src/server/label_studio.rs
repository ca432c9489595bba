//! Label Studio's protocol for ML backends: `/setup` and `/predict`.

use serde_json::{Value, json};
use xml::reader::{EventReader, ParserConfig, XmlEvent};

use super::fields::Object;
use super::job::{Asking, Looking, Outcome, Work};
use super::picture::Picture;
use super::problem::Problem;
use super::shown::Form;
use crate::chat::detection::names;
use crate::chat::exchange::label_studio::{Region, region};
use crate::chat::exchange::marked::inside;
use crate::generate::sampling::Sampling;
use crate::text::prompt::Task;

/// The most bytes of a labelling configuration.
const MAX_CONFIG: usize = 1 << 20;

/// How many labels are asked for in one question, about as many as in training.
const LABELS_PER_QUESTION: usize = 5;

/// What a labelling configuration says of boxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the `RectangleLabels`.
    from_name: String,
    /// Name of its `Image`.
    to_name: String,
    /// The key of the picture in the data of a task.
    key: String,
    labels: Vec<Label>,
}

/// A label of boxes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Label {
    /// As results name it.
    name: String,
    /// What is asked for: its value, or its `predicted_values`.
    things: Vec<String>,
}

/// A `RectangleLabels` of a configuration.
struct Control {
    from_name: String,
    to_name: String,
    labels: Vec<Label>,
}

impl Config {
    /// Reads the XML of a labelling configuration: its first `RectangleLabels` about an `Image`.
    ///
    /// # Errors
    /// It is too long, no XML, or has none.
    pub fn read(text: &str) -> Result<Self, Problem> {
        let fault =
            |what: String| Problem::field("label_config", what).code("invalid_label_config");
        if text.len() > MAX_CONFIG {
            let what = format!("the labelling configuration has more than {MAX_CONFIG} bytes");
            return Err(fault(what));
        }
        let config = ParserConfig::new()
            .trim_whitespace(true)
            .ignore_comments(true);
        let mut images: Vec<(String, String)> = Vec::new();
        let mut controls: Vec<Control> = Vec::new();
        let mut is_inside = false;
        for event in EventReader::new_with_config(text.as_bytes(), config) {
            let event = event.map_err(|error| {
                fault(format!(
                    "the labelling configuration is damaged XML: {error}"
                ))
            })?;
            match event {
                XmlEvent::StartElement {
                    name, attributes, ..
                } => {
                    let get = |wanted: &str| {
                        let found = attributes
                            .iter()
                            .find(|a| a.name.local_name.eq_ignore_ascii_case(wanted));
                        found
                            .map(|a| a.value.clone())
                            .filter(|value| !value.is_empty())
                    };
                    match &*name.local_name {
                        "Image" => images.extend(get("name").zip(get("value"))),
                        "RectangleLabels" => {
                            is_inside = true;
                            let named = get("name").zip(get("toName"));
                            controls.extend(named.map(|(from_name, to_name)| Control {
                                from_name,
                                to_name,
                                labels: Vec::new(),
                            }));
                        }
                        "Label" if is_inside => {
                            let labels = controls.last_mut().map(|control| &mut control.labels);
                            if let (Some(labels), Some(value)) = (labels, get("value")) {
                                labels.push(Label::new(
                                    value,
                                    get("alias"),
                                    get("predicted_values"),
                                ));
                            }
                        }
                        _ => {}
                    }
                }
                XmlEvent::EndElement { name } if name.local_name == "RectangleLabels" => {
                    is_inside = false;
                }
                _ => {}
            }
        }
        let found = controls.into_iter().find_map(|control| {
            let (_, value) = images.iter().find(|(name, _)| *name == control.to_name)?;
            let key = value.strip_prefix('$').unwrap_or(value).to_owned();
            (!control.labels.is_empty()).then_some((control, key))
        });
        let (control, key) = found.ok_or_else(|| {
            fault(
                "the labelling configuration has no RectangleLabels with a Label about an Image. Add \
                 <Image name=\"image\" value=\"$image\"/> and <RectangleLabels name=\"label\" toName=\"image\">"
                    .into(),
            )
        })?;
        Ok(Self {
            from_name: control.from_name,
            to_name: control.to_name,
            key,
            labels: control.labels,
        })
    }

    /// The questions for all labels.
    fn questions(&self) -> Vec<String> {
        let things: Vec<&str> = self
            .labels
            .iter()
            .flat_map(|label| &label.things)
            .map(String::as_str)
            .collect();
        let groups = things.chunks(LABELS_PER_QUESTION);
        groups.map(|group| Task::Detect.question(group)).collect()
    }

    /// The label that a phrase of an answer, or the label of a detector's box, stands for. The only label stands for
    /// a box that is named without a phrase.
    fn label(&self, phrase: &str) -> Option<&str> {
        let is_number = phrase.starts_with('[');
        if let ([only], true) = (&*self.labels, is_number) {
            return Some(&only.name);
        }
        let mut labels = self.labels.iter();
        let found = labels.find(|label| label.things.iter().any(|thing| names(phrase, thing)));
        found.map(|label| &*label.name)
    }

    /// The work for a task.
    ///
    /// # Errors
    /// The task has no picture that can be read.
    pub fn work(&self, picture: Picture) -> Work {
        let asking = Asking {
            questions: self.questions(),
            system: None,
            earlier: Vec::new(),
            max_tokens: None,
            sampling: Sampling::default(),
            form: Form::Plain,
            stream: false,
        };
        Work {
            picture: Some(picture),
            looking: Looking::default(),
            asking: Some(asking),
        }
    }

    /// The address of the picture of a task and its path in the request.
    ///
    /// # Errors
    /// The task has none.
    pub fn address<'a>(&self, task: &Object<'a>) -> Result<(&'a str, String), Problem> {
        let data = task.object("data")?;
        let data = data.ok_or_else(|| task.wrong("data", "is missing"))?;
        let address = data.text(&self.key)?;
        let address = address.ok_or_else(|| data.wrong(&self.key, "is missing"))?;
        Ok((address, data.place(&self.key)))
    }

    /// The prediction of `model` for a task: boxes with a label of the configuration, each once, in percent of the
    /// picture.
    pub fn prediction(&self, outcome: &Outcome, model: &str) -> Value {
        let mut results: Vec<Value> = Vec::new();
        let mut scores: Vec<f32> = Vec::new();
        let mut seen: Vec<(u32, &str)> = Vec::new();
        let spans = outcome.answers.iter().flat_map(|told| &told.answer.spans);
        for span in spans {
            let Some(label) = self.label(&span.text) else {
                continue;
            };
            for &index in &span.objects {
                let found = outcome.boxes.get(index as usize).zip(outcome.size);
                let Some((found, size)) = found else { continue };
                let Some(bbox) = inside(found.bbox, size) else {
                    continue;
                };
                if seen.contains(&(index, label)) {
                    continue;
                }
                seen.push((index, label));
                scores.push(found.score);
                let number = results.len();
                results.push(region(
                    Region {
                        id: format!("box-{number}"),
                        from_name: &self.from_name,
                        to_name: &self.to_name,
                        label,
                        score: Some(found.score),
                    },
                    bbox,
                    size,
                ));
            }
        }
        let mean = scores.iter().sum::<f32>() / scores.len().max(1) as f32;
        json!({
            "result": results,
            "score": (f64::from(mean) * 1e4).round() / 1e4,
            "model_version": model,
        })
    }
}

impl Label {
    fn new(value: String, alias: Option<String>, predicted: Option<String>) -> Self {
        let things = match &predicted {
            Some(list) => list
                .split(',')
                .map(|thing| thing.trim().to_owned())
                .collect(),
            None => vec![value.clone()],
        };
        Self {
            name: alias.unwrap_or(value),
            things,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ImageSize, LookTime, Proposal};
    use crate::server::job::Told;
    use crate::text::answer_parser::spans;

    const CONFIG: &str = r#"<View>
        <Header value="Choose $image"/><Image name="img" value="$picture"/>
        <Choices name="c" toName="img"><Choice value="x"/></Choices>
        <RectangleLabels name="other" toName="text"><Label value="no"/></RectangleLabels>
        <RectangleLabels name="box" toName="img">
          <Label value="Cat"/><Label value="Car" alias="vehicle" predicted_values="truck, bus"/>
        </RectangleLabels><Label value="outside"/>
    </View>"#;

    fn outcome(text: &str) -> Outcome {
        let boxes = [
            [-5., 0., 50., 25.],
            [10., 10., 20., 20.],
            [300., 0., 310., 9.],
        ];
        let answer = json!({
            "prompt": "", "text": text, "spans": spans(text), "tokens": 1, "prefill_tokens": 1, "stop": "end",
            "milliseconds": {"look": 0.0, "prefill": 0.0, "first_token": 0.0, "decode": 0.0},
        });
        Outcome {
            size: Some(ImageSize {
                width: 100,
                height: 50,
            }),
            boxes: boxes.map(|b| Proposal::unlabelled(b.into(), 0.5)).into(),
            given: false,
            looked: LookTime::default(),
            answers: vec![Told {
                answer: serde_json::from_value(answer).expect("an answer"),
                text: String::new(),
                prompt_tokens: 1,
            }],
        }
    }

    #[test]
    fn a_configuration_gives_names_key_and_labels() {
        let config = Config::read(CONFIG).expect("a configuration");
        assert_eq!((&*config.from_name, &*config.to_name), ("box", "img"));
        assert_eq!(config.key, "picture");
        assert_eq!(
            config.questions(),
            [
                "Please detect Cat; truck; bus in this image. Answer the question with object indexes."
            ]
        );
        let task = json!({"id": 7, "data": {"picture": "data:x"}});
        let task = Object::of(&task, "tasks[0]").expect("an object");
        let address = config.address(&task).expect("an address");
        assert_eq!(address, ("data:x", "tasks[0].data.picture".into()));
    }

    #[test]
    fn other_configurations_are_refused() {
        let entity = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><View>&b;</View>"#;
        for text in [
            "",
            "<View>",
            "<View/>",
            "no XML",
            entity,
            r#"<View><Image name="i" value="$i"/><RectangleLabels name="l" toName="i"/></View>"#,
            r#"<View><RectangleLabels name="l" toName="i"><Label value="a"/></RectangleLabels></View>"#,
        ] {
            assert!(Config::read(text).is_err(), "{text}");
        }
        let long = format!("<View>{}</View>", " ".repeat(MAX_CONFIG));
        assert!(Config::read(&long).is_err());
    }

    #[test]
    fn phrases_become_labels_and_boxes_percent() {
        let config = Config::read(CONFIG).expect("a configuration");
        let text = "<ground>two cats</ground><objects><obj0><obj0><obj2></objects>, \
                    <ground>trucks</ground><objects><obj1></objects>, \
                    <ground>a dog</ground><objects><obj1></objects> <objects><obj9></objects>";
        let prediction = config.prediction(&outcome(text), "nano");
        let results = prediction["result"].as_array().expect("a list");
        assert_eq!(results.len(), 2, "{results:?}");
        assert_eq!(results[0]["value"]["rectanglelabels"], json!(["Cat"]));
        let value = &results[0]["value"];
        assert_eq!([&value["x"], &value["y"]], [&json!(0.0), &json!(0.0)]);
        assert_eq!(
            [&value["width"], &value["height"]],
            [&json!(50.0), &json!(50.0)]
        );
        assert_eq!(results[1]["value"]["rectanglelabels"], json!(["vehicle"]));
        assert_eq!(results[1]["from_name"], "box");
        assert_eq!(
            (&prediction["score"], &prediction["model_version"]),
            (&json!(0.5), &json!("nano"))
        );
        let nothing = config.prediction(&outcome("None."), "nano");
        assert_eq!(
            (&nothing["result"], &nothing["score"]),
            (&json!([]), &json!(0.0))
        );
    }

    #[test]
    fn the_only_label_needs_no_phrase() {
        let text = r#"<View><Image name="i" value="$i"/><RectangleLabels name="l" toName="i">
            <Label value="cat"/></RectangleLabels></View>"#;
        let config = Config::read(text).expect("a configuration");
        let prediction = config.prediction(&outcome("<objects><obj1></objects>"), "nano");
        assert_eq!(
            prediction["result"][0]["value"]["rectanglelabels"],
            json!(["cat"])
        );
    }
}
