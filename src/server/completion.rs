//! `POST /v1/chat/completions` as OpenAI's clients send and read it, with the fields `chatrex` beside.

use serde_json::{Value, json};

use super::fields::Object;
use super::job::{Asking, Looking, Outcome, Work};
use super::picture::Picture;
use super::problem::Problem;
use super::shown::Form;
use crate::generate::sampling::{MAX_TOP_K, Sampling};
use crate::geometry::{BoxXyxy, Granularity, first_far_box};
use crate::protocol::{Exchange, ImageSize, Proposal, StopReason};
use crate::text::prompt::MAX_BOXES;

/// A request that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// The model that it names.
    pub model: String,
    /// What it asks.
    pub work: Work,
    /// Whether the answer is sent as it grows.
    pub stream: bool,
    /// Whether a stream ends with the numbers of tokens.
    pub include_usage: bool,
}

/// Reads a request to the model `name`, which reads text alone or answers about pictures.
///
/// # Errors
/// A field that is missing, wrong or not supported.
pub fn read(body: &Value, name: &str, text_only: bool) -> Result<Chat, Problem> {
    let body = Object::of(body, "")?;
    let model = body.text("model")?;
    let model = model
        .ok_or_else(|| body.wrong("model", "is missing"))?
        .to_owned();
    refuse_unsupported(&body)?;
    let extension = body.object("chatrex")?;
    if let Some(extension) = &extension {
        extension.only(&[
            "boxes", "score", "nms", "prompt", "grammar", "tags", "top_k",
        ])?;
    }
    let talk = talk(&body)?;
    if text_only && talk.picture.is_some() {
        let message = format!("{name} reads text alone; send no picture");
        return Err(Problem::field("messages", message));
    }
    if !text_only && talk.picture.is_none() {
        let message = format!(
            "{name} answers questions about a picture. Send one as a part of type image_url, with a data URL"
        );
        return Err(Problem::field("messages", message).code("missing_image"));
    }
    let flag = |name| match &extension {
        Some(extension) => extension.flag(name),
        None => Ok(None),
    };
    let stream = body.flag("stream")?.unwrap_or(false);
    let options = body.object("stream_options")?;
    let include_usage = match &options {
        Some(options) => options.flag("include_usage")?.unwrap_or(false),
        None => false,
    };
    let asking = Asking {
        questions: vec![talk.question],
        system: talk.system,
        earlier: talk.earlier,
        max_tokens: max_tokens(&body)?,
        sampling: sampling(&body, extension.as_ref())?,
        form: match flag("tags")? {
            Some(true) => Form::Tagged,
            _ => Form::Plain,
        },
        stream,
    };
    Ok(Chat {
        model,
        work: Work {
            picture: talk.picture,
            looking: looking(extension.as_ref())?,
            asking: Some(asking),
        },
        stream,
        include_usage,
    })
}

/// Refuses what would make the answer another one if it were ignored.
fn refuse_unsupported(body: &Object) -> Result<(), Problem> {
    let refuse = |name: &str, what: &str| Err(body.wrong(name, what).code("unsupported_value"));
    if body.whole("n")?.is_some_and(|n| n != 1) {
        return refuse("n", "is not supported: there is one answer to a request");
    }
    for name in ["tools", "functions", "stop"] {
        let is_empty = match body.get(name) {
            None => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if !is_empty {
            return refuse(name, "is not supported");
        }
    }
    if body.flag("logprobs")?.unwrap_or(false) {
        return refuse("logprobs", "is not supported");
    }
    let format = body.object("response_format")?;
    let format = format.as_ref().map(|format| format.text("type"));
    match format.transpose()?.flatten() {
        None | Some("text") => Ok(()),
        Some(_) => refuse("response_format", "is not supported: answers are text"),
    }
}

/// What the messages say.
#[derive(Debug, Default)]
struct Talk {
    system: Option<String>,
    earlier: Vec<Exchange>,
    question: String,
    picture: Option<Picture>,
}

/// One or more messages of the same role.
struct Turn {
    is_user: bool,
    text: String,
}

fn talk(body: &Object) -> Result<Talk, Problem> {
    let messages = body.list("messages")?;
    let messages = messages.ok_or_else(|| body.wrong("messages", "is missing"))?;
    let mut talk = Talk::default();
    let mut turns: Vec<Turn> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let message = Object::of(message, &format!("messages[{index}]"))?;
        let role = message.text("role")?;
        let role = role.ok_or_else(|| message.wrong("role", "is missing"))?;
        let is_user = role == "user";
        let text = content(&message, is_user, &mut talk.picture)?;
        match role {
            "system" | "developer" => append(talk.system.get_or_insert_default(), &text),
            "user" | "assistant" => match turns.last_mut() {
                Some(last) if last.is_user == is_user => append(&mut last.text, &text),
                None if !is_user => {
                    return Err(message.wrong("role", "is assistant before the first user message"));
                }
                _ => turns.push(Turn { is_user, text }),
            },
            _ => return Err(message.wrong("role", "is not system, user or assistant")),
        }
    }
    let last = turns.pop().filter(|turn| turn.is_user);
    let last = last.ok_or_else(|| body.wrong("messages", "does not end with a user message"))?;
    if last.text.trim().is_empty() {
        return Err(body.wrong(
            "messages",
            "asks nothing: the last user message has no text",
        ));
    }
    talk.question = last.text;
    talk.earlier = turns
        .chunks_exact(2)
        .map(|pair| Exchange {
            question: pair[0].text.clone(),
            answer: pair[1].text.clone(),
        })
        .collect();
    Ok(talk)
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}

/// The text of a message; its picture goes to `picture`.
fn content(
    message: &Object,
    is_user: bool,
    picture: &mut Option<Picture>,
) -> Result<String, Problem> {
    let parts = match message.get("content") {
        None => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err(message.wrong("content", "is not a string or a list of parts")),
    };
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let part = Object::of(part, &message.place(&format!("content[{index}]")))?;
        match part.text("type")? {
            Some("text") => append(&mut text, part.text("text")?.unwrap_or_default()),
            Some("image_url") if is_user => {
                let found = image_part(&part)?;
                if picture.as_ref().is_some_and(|known| *known != found) {
                    let what = "is another picture; a conversation is about one picture";
                    return Err(part.wrong("image_url", what).code("several_images"));
                }
                *picture = Some(found);
            }
            _ => {
                let what = "is not text, or image_url in a message of the user";
                return Err(part.wrong("type", what).code("unsupported_value"));
            }
        }
    }
    Ok(text)
}

/// `{"image_url": {"url": …}}`, or the address itself.
fn image_part(part: &Object) -> Result<Picture, Problem> {
    if let Some(url) = part.get("image_url").and_then(Value::as_str) {
        return Picture::from_url(url, &part.place("image_url"));
    }
    let image = part.object("image_url")?;
    let image = image.ok_or_else(|| part.wrong("image_url", "is missing"))?;
    let url = image.text("url")?;
    let url = url.ok_or_else(|| image.wrong("url", "is missing"))?;
    Picture::from_url(url, &image.place("url"))
}

fn max_tokens(body: &Object) -> Result<Option<u32>, Problem> {
    for name in ["max_completion_tokens", "max_tokens"] {
        if let Some(count) = body.whole(name)? {
            let count = u32::try_from(count).ok().filter(|&count| count > 0);
            let wrong = || body.wrong(name, "is not a number of tokens from 1");
            return count.map(Some).ok_or_else(wrong);
        }
    }
    Ok(None)
}

fn sampling(body: &Object, extension: Option<&Object>) -> Result<Sampling, Problem> {
    let default = Sampling::default();
    let top_k = extension
        .map(|extension| extension.whole("top_k"))
        .transpose()?
        .flatten();
    let grammar = extension
        .map(|extension| extension.flag("grammar"))
        .transpose()?
        .flatten();
    let seed = body.whole("seed")?.map(|seed| (seed ^ (seed >> 32)) as u32);
    let sampling = Sampling {
        temperature: body
            .number("temperature")?
            .map_or(default.temperature, |t| t as f32),
        top_p: body.number("top_p")?.map_or(default.top_p, |p| p as f32),
        top_k: match top_k {
            None => default.top_k,
            Some(k) => u32::try_from(k).unwrap_or(MAX_TOP_K as u32 + 1),
        },
        seed: seed.unwrap_or(default.seed),
        grammar: grammar.unwrap_or(default.grammar),
        repetition_penalty: default.repetition_penalty,
    };
    sampling.check().map_err(|fault| Problem {
        param: Some(fault.place.replace('-', "_")),
        ..Problem::from(fault)
    })?;
    Ok(sampling)
}

/// How boxes are found, from the fields `boxes`, `score`, `nms` and `prompt`.
///
/// # Errors
/// A field that is wrong.
pub fn looking(fields: Option<&Object>) -> Result<Looking, Problem> {
    let Some(fields) = fields else {
        return Ok(Looking::default());
    };
    Ok(Looking {
        granularity: match fields.text("prompt")? {
            None | Some("coarse") => Granularity::Coarse,
            Some("fine") => Granularity::Fine,
            Some(_) => return Err(fields.wrong("prompt", "is not fine or coarse")),
        },
        score: fields.number("score")?.map(|score| score as f32),
        nms: fields.number("nms")?,
        boxes: fields
            .list("boxes")?
            .map(|list| boxes(fields, list))
            .transpose()?,
    })
}

fn boxes(fields: &Object, list: &[Value]) -> Result<Vec<BoxXyxy>, Problem> {
    if list.len() > MAX_BOXES {
        let what = format!("has {} boxes, the limit is {MAX_BOXES}", list.len());
        return Err(fields.wrong("boxes", &what));
    }
    let mut boxes: Vec<BoxXyxy> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let name = format!("boxes[{index}]");
        let edges = value.as_array().filter(|edges| edges.len() == 4);
        let edges = edges.and_then(|edges| {
            let edges = edges.iter().map(|edge| Some(edge.as_f64()? as f32));
            edges.collect::<Option<Vec<f32>>>()
        });
        let Some(&[x1, y1, x2, y2]) = edges.as_deref() else {
            return Err(fields.wrong(&name, "is not [x1, y1, x2, y2] in pixels"));
        };
        if !(x1 < x2 && y1 < y2) {
            return Err(fields.wrong(&name, "has no area: x1 < x2 and y1 < y2 are needed"));
        }
        boxes.push([x1, y1, x2, y2].into());
    }
    match first_far_box(&boxes) {
        Some(index) => Err(fields.wrong(&format!("boxes[{index}]"), crate::geometry::TOO_FAR)),
        None => Ok(boxes),
    }
}

/// Boxes, labels and scores of an outcome, and the pieces of its answer.
fn grounded(outcome: &Outcome) -> Value {
    let boxes = &outcome.boxes;
    let score = |found: &Proposal| (!outcome.given).then_some(found.score);
    json!({
        "boxes": boxes.iter().map(|found| found.bbox).collect::<Vec<_>>(),
        "labels": boxes.iter().map(|found| found.label.clone()).collect::<Vec<_>>(),
        "scores": boxes.iter().map(score).collect::<Vec<_>>(),
        "spans": outcome.answers.first().map(|told| &told.answer.spans),
        "picture": outcome.size.map(|ImageSize { width, height }| json!({"width": width, "height": height})),
    })
}

fn usage(outcome: &Outcome) -> Value {
    let told = outcome.answers.first();
    let (prompt, read, said) = told.map_or((0, 0, 0), |told| {
        (
            told.prompt_tokens,
            told.answer.prefill_tokens,
            told.answer.tokens,
        )
    });
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": prompt.saturating_sub(read)},
    })
}

fn finish_reason(outcome: &Outcome) -> &'static str {
    match outcome.answers.first().map(|told| told.answer.stop) {
        Some(StopReason::Length) => "length",
        _ => "stop",
    }
}

/// What all parts of a response say.
#[derive(Clone, Debug)]
pub struct Header {
    /// The number of the response.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
}

impl Header {
    /// The whole response.
    pub fn completion(&self, outcome: &Outcome) -> Value {
        let text = outcome.answers.first().map(|told| told.text.as_str());
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": text.unwrap_or_default(),
                    "refusal": null,
                    "chatrex": grounded(outcome),
                },
                "logprobs": null,
                "finish_reason": finish_reason(outcome),
            }],
            "usage": usage(outcome),
        })
    }

    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn delta(&self, delta: Value, finish_reason: Option<&str>) -> Value {
        let choice =
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        self.chunk(json!([choice]))
    }

    /// The first chunk.
    pub fn first(&self) -> Value {
        self.delta(json!({"role": "assistant", "content": ""}), None)
    }

    /// A chunk with text to append.
    pub fn text(&self, text: &str) -> Value {
        self.delta(json!({"content": text}), None)
    }

    /// The last chunk with a choice.
    pub fn last(&self, outcome: &Outcome) -> Value {
        self.delta(
            json!({"chatrex": grounded(outcome)}),
            Some(finish_reason(outcome)),
        )
    }

    /// The chunk with the numbers of tokens.
    pub fn usage(&self, outcome: &Outcome) -> Value {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = usage(outcome);
        chunk
    }
}

/// A line of an event stream.
pub fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn image() -> Value {
        let bytes = std::fs::read("web/static/samples/scene.png").expect("the sample");
        let url = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
        json!({"type": "image_url", "image_url": {"url": url}})
    }

    fn asked(more: Value) -> Value {
        let content = json!([image(), {"type": "text", "text": "What is this?"}]);
        let mut body = json!({"model": "nano", "messages": [{"role": "user", "content": content}]});
        for (key, value) in more.as_object().expect("fields") {
            body[key] = value.clone();
        }
        body
    }

    #[test]
    fn a_conversation_is_read() {
        let again =
            json!([{"type": "text", "text": "And"}, image(), {"type": "text", "text": "that?"}]);
        let body = json!({
            "model": "nano", "user": "ignored", "stream": true, "seed": -1, "max_tokens": 7,
            "temperature": 0.5, "top_p": 0.9, "stream_options": {"include_usage": true}, "stop": null,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "Very."}]},
                {"role": "user", "content": [image(), {"type": "text", "text": "What is this?"}]},
                {"role": "assistant", "content": "A cat."},
                {"role": "user", "content": again},
            ],
            "chatrex": {"boxes": [[0, 1, 2.5, 3]], "prompt": "fine", "tags": true, "grammar": false, "top_k": 3},
        });
        let chat = read(&body, "nano", false).expect("a request");
        let asking = chat.work.asking.expect("a question");
        assert_eq!(asking.system.as_deref(), Some("Be brief.\nVery."));
        assert_eq!(asking.questions, ["And\nthat?"]);
        assert_eq!(asking.earlier.len(), 1);
        assert_eq!(asking.earlier[0].answer, "A cat.");
        assert_eq!((asking.max_tokens, asking.form), (Some(7), Form::Tagged));
        let sampling = asking.sampling;
        assert_eq!(
            (sampling.temperature, sampling.top_p, sampling.top_k),
            (0.5, 0.9, 3)
        );
        assert_eq!((sampling.seed, sampling.grammar), (0, false));
        assert!(chat.stream && asking.stream && chat.include_usage);
        let looking = chat.work.looking;
        assert_eq!(looking.granularity, Granularity::Fine);
        assert_eq!(looking.boxes, Some(vec![[0.0, 1.0, 2.5, 3.0].into()]));
        let plain = read(&asked(json!({})), "nano", false).expect("a request");
        assert!(!plain.stream && plain.work.looking == Looking::default());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let text = |text: &str| json!({"messages": [{"role": "user", "content": text}]});
        let messages = |list: Value| json!({"messages": list});
        let boxes = |list: Value| json!({"chatrex": {"boxes": list}});
        let many: Vec<Value> = (0..101).map(|_| json!([0, 0, 1, 1])).collect();
        for (more, param) in [
            (json!({"model": null}), "model"),
            (json!({"model": 3}), "model"),
            (json!({"n": 2}), "n"),
            (json!({"tools": [{}]}), "tools"),
            (json!({"stop": "x"}), "stop"),
            (json!({"logprobs": true}), "logprobs"),
            (
                json!({"response_format": {"type": "json_object"}}),
                "response_format",
            ),
            (json!({"stream": 1}), "stream"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (
                json!({"max_completion_tokens": 1e30}),
                "max_completion_tokens",
            ),
            (json!({"temperature": -1}), "temperature"),
            (json!({"top_p": 0}), "top_p"),
            (json!({"seed": 0.5}), "seed"),
            (json!({"chatrex": {"top_k": -1}}), "top_k"),
            (json!({"chatrex": {"scores": 1}}), "chatrex.scores"),
            (json!({"chatrex": {"prompt": "all"}}), "chatrex.prompt"),
            (boxes(json!([[0, 0, 1]])), "chatrex.boxes[0]"),
            (
                boxes(json!([[0, 0, 1, 1], [0, 0, 0, 1]])),
                "chatrex.boxes[1]",
            ),
            (boxes(json!([[0, 0, 1, 1e30]])), "chatrex.boxes[0]"),
            (boxes(Value::Array(many)), "chatrex.boxes"),
            (messages(json!([])), "messages"),
            (messages(json!("hello")), "messages"),
            (messages(json!([3])), "messages[0]"),
            (messages(json!([{"content": "x"}])), "messages[0].role"),
            (
                messages(json!([{"role": "tool", "content": "x"}])),
                "messages[0].role",
            ),
            (
                messages(json!([{"role": "assistant", "content": "x"}])),
                "messages[0].role",
            ),
            (
                messages(json!([{"role": "user", "content": 3}])),
                "messages[0].content",
            ),
            (
                messages(json!([{"role": "user", "content": [{"type": "input_audio"}]}])),
                "messages[0].content[0].type",
            ),
            (
                messages(json!([{"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}])),
                "messages[0].content[0].image_url.url",
            ),
            (text("no picture"), "messages"),
            (
                messages(json!([{"role": "user", "content": [image()]}])),
                "messages",
            ),
        ] {
            let problem = read(&asked(more.clone()), "nano", false).expect_err(param);
            assert_eq!(problem.status.as_u16(), 400, "{param}");
            assert_eq!(problem.param.as_deref(), Some(param), "{}", problem.message);
        }
        let other = [
            image(),
            json!({"type": "image_url", "image_url": other_picture()}),
        ];
        let body = asked(json!({"messages": [{"role": "user", "content": other}]}));
        let problem = read(&body, "nano", false).expect_err("two pictures");
        assert_eq!(problem.code, "several_images");
        assert!(
            read(&asked(json!({})), "nano", true).is_err(),
            "reads text alone"
        );
        assert!(read(&asked(text("hello")), "nano", true).is_ok());
    }

    fn other_picture() -> String {
        let bytes = std::fs::read("web/static/samples/cat.jpg").expect("the sample");
        format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes))
    }
}
