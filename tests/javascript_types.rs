//! `web/js/chatrex.d.ts` declares the JSON of the protocol: no key, enum value or alternative is missing,
//! and none is left that the protocol does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::iter::Peekable;
use std::vec::IntoIter;

use chatrex::error::{Fault, FaultKind};
use chatrex::generate::sampling::Sampling;
use chatrex::memory::{CpuActivations, Fit, KvCacheDType, MemoryNeeds, Residency, Verdict};
use chatrex::progress::{Progress, Stage};
use chatrex::protocol::{
    Answer, AskTime, Event, Exchange, Hardware, ImageSize, Link, LoadOptions, LookTime, ModelCard,
    PartLicence, PictureId, Question, Request, RunnerUp, StopReason, TurnId,
};
use chatrex::text::prompt::MAX_BOXES;
use chatrex::{DevicePreference, ErrorCode, Granularity, Pixels, Proposal, Span};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const TYPES: &str = "web/js/chatrex.d.ts";
const MODULE: &str = "web/js/chatrex.js";

/// The line of [`TYPES`] at which the messages end.
const END: &str = "// Types of this module.";

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A TypeScript type, as far as the messages use them.
#[derive(Debug)]
enum Type {
    /// A declared or predefined type.
    Name(String),
    /// A string literal.
    Literal(String),
    /// `T[]`
    List(Box<Type>),
    /// `[T, U]`
    Tuple(Vec<Type>),
    /// `{ key: T; other?: U }`
    Object(Vec<Member>),
    /// `T | U`
    Union(Vec<Type>),
}

#[derive(Debug)]
struct Member {
    key: String,
    optional: bool,
    value: Type,
}

/// The declarations of a file by name.
struct Declarations(BTreeMap<String, Type>);

impl Declarations {
    fn parse(source: &str) -> Self {
        let mut parser = Parser {
            tokens: tokens(source).into_iter().peekable(),
        };
        let mut declarations = BTreeMap::new();
        while parser.tokens.peek().is_some() {
            parser.expect("export");
            let keyword = parser.advance();
            let name = parser.advance();
            let declared = match keyword.as_str() {
                "interface" => parser.primary(),
                "type" => {
                    parser.expect("=");
                    let declared = parser.union();
                    parser.expect(";");
                    declared
                }
                other => panic!("{other} {name}: neither interface nor type"),
            };
            let earlier = declarations.insert(name.clone(), declared);
            assert!(earlier.is_none(), "{name} is declared twice");
        }
        Self(declarations)
    }

    /// Checks that `value` has the type `expected`. Returns the names, keys and alternatives that it
    /// uses, as [`Declarations::all_parts`] writes them.
    fn check(&self, path: &str, expected: &Type, value: &Value) -> Result<Vec<String>, String> {
        let mismatch = || Err(format!("{path}: {value} is not of the type {expected:?}"));
        match (expected, value) {
            (Type::Name(name), _) => match (name.as_str(), value) {
                ("number", Value::Number(_))
                | ("string", Value::String(_))
                | ("boolean", Value::Bool(_))
                | ("null", Value::Null) => Ok(Vec::new()),
                _ => {
                    let Some(declared) = self.0.get(name) else {
                        return mismatch();
                    };
                    let mut used = self.check(name, declared, value)?;
                    used.push(name.clone());
                    Ok(used)
                }
            },
            (Type::Literal(literal), Value::String(text)) if literal == text => Ok(Vec::new()),
            (Type::List(item), Value::Array(values)) => {
                let mut used = Vec::new();
                for value in values {
                    used.extend(self.check(path, item, value)?);
                }
                Ok(used)
            }
            (Type::Tuple(items), Value::Array(values)) if items.len() == values.len() => {
                let mut used = Vec::new();
                for (item, value) in items.iter().zip(values) {
                    used.extend(self.check(path, item, value)?);
                }
                Ok(used)
            }
            (Type::Object(members), Value::Object(fields)) => {
                let mut used = Vec::new();
                for (key, value) in fields {
                    let Some(member) = members.iter().find(|member| member.key == *key) else {
                        return Err(format!("{path}: the key {key} is not declared"));
                    };
                    let path = member.path(path);
                    used.extend(self.check(&path, &member.value, value)?);
                    used.push(path);
                }
                for member in members {
                    if !member.optional && !fields.contains_key(&member.key) {
                        return Err(format!("{path}: {value} has no {}", member.key));
                    }
                }
                Ok(used)
            }
            (Type::Union(alternatives), _) => {
                let mut faults = Vec::new();
                for (index, alternative) in alternatives.iter().enumerate() {
                    let path = alternative_path(path, index);
                    match self.check(&path, alternative, value) {
                        Ok(mut used) => {
                            used.push(path);
                            return Ok(used);
                        }
                        Err(fault) => faults.push(fault),
                    }
                }
                Err(faults.join("\n"))
            }
            _ => mismatch(),
        }
    }

    /// Every declared name, key and alternative.
    fn all_parts(&self) -> BTreeSet<String> {
        let mut parts = BTreeSet::new();
        for (name, declared) in &self.0 {
            parts.insert(name.clone());
            declared.parts(name, &mut parts);
        }
        parts
    }

    /// The string literals or the only keys of the alternatives of a declared union.
    fn alternatives(&self, name: &str) -> BTreeSet<String> {
        let Some(Type::Union(alternatives)) = self.0.get(name) else {
            panic!("{TYPES}: {name} is no union");
        };
        alternatives
            .iter()
            .map(|alternative| match alternative {
                Type::Literal(literal) => literal.clone(),
                Type::Object(members) if members.len() == 1 => members[0].key.clone(),
                other => panic!("{TYPES}: {name} has the alternative {other:?}"),
            })
            .collect()
    }
}

impl Member {
    fn path(&self, object: &str) -> String {
        format!("{object}.{}", self.key)
    }
}

fn alternative_path(union: &str, index: usize) -> String {
    format!("{union}|{index}")
}

impl Type {
    fn parts(&self, path: &str, parts: &mut BTreeSet<String>) {
        match self {
            Self::Name(_) | Self::Literal(_) => {}
            Self::List(item) => item.parts(path, parts),
            Self::Tuple(items) => items.iter().for_each(|item| item.parts(path, parts)),
            Self::Object(members) => {
                for member in members {
                    let path = member.path(path);
                    member.value.parts(&path, parts);
                    parts.insert(path);
                }
            }
            Self::Union(alternatives) => {
                for (index, alternative) in alternatives.iter().enumerate() {
                    let path = alternative_path(path, index);
                    alternative.parts(&path, parts);
                    parts.insert(path);
                }
            }
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Words, string literals (with quotes) and punctuation, without comments.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_comment = rest.starts_with("/*") || rest.starts_with("//");
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if is_comment {
            rest.find("*/").expect("a comment ends") + 2
        } else if first == '"' {
            rest[1..].find('"').expect("a literal ends") + 2
        } else if is_word(first) {
            rest.find(|c: char| !is_word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !is_comment {
            tokens.push(token.to_owned());
        }
        rest = after.trim_start();
    }
    tokens
}

struct Parser {
    tokens: Peekable<IntoIter<String>>,
}

impl Parser {
    fn advance(&mut self) -> String {
        self.tokens.next().expect("the declaration goes on")
    }

    fn take(&mut self, token: &str) -> bool {
        self.tokens.next_if(|next| next == token).is_some()
    }

    fn expect(&mut self, token: &str) {
        let next = self.advance();
        assert_eq!(next, token, "{TYPES}");
    }

    fn union(&mut self) -> Type {
        self.take("|");
        let mut alternatives = vec![self.postfix()];
        while self.take("|") {
            alternatives.push(self.postfix());
        }
        if alternatives.len() == 1 {
            alternatives.remove(0)
        } else {
            Type::Union(alternatives)
        }
    }

    fn postfix(&mut self) -> Type {
        let mut parsed = self.primary();
        while self.take("[") {
            self.expect("]");
            parsed = Type::List(Box::new(parsed));
        }
        parsed
    }

    fn primary(&mut self) -> Type {
        let token = self.advance();
        match token.as_str() {
            "{" => {
                let mut members = Vec::new();
                while !self.take("}") {
                    let key = self.advance();
                    let optional = self.take("?");
                    self.expect(":");
                    let value = self.union();
                    if !self.take(";") {
                        let next = self.tokens.peek().map(String::as_str);
                        assert_eq!(next, Some("}"), "{TYPES}: after {key}");
                    }
                    members.push(Member {
                        key,
                        optional,
                        value,
                    });
                }
                Type::Object(members)
            }
            "[" => {
                let mut items = vec![self.union()];
                while self.take(",") {
                    items.push(self.union());
                }
                self.expect("]");
                Type::Tuple(items)
            }
            literal if literal.starts_with('"') => Type::Literal(literal.trim_matches('"').into()),
            name if name.starts_with(is_word) => Type::Name(name.into()),
            other => panic!("{TYPES}: {other} begins no type"),
        }
    }
}

/// The names of an enum's variants in JSON. serde lists them in the error for a name it does not know.
fn variants<T: DeserializeOwned + Debug>() -> BTreeSet<String> {
    let error = serde_json::from_str::<T>("\"?\"").expect_err("no variant is called ?");
    let message = error.to_string();
    let quoted = message.split('`').skip(1).step_by(2);
    let names: BTreeSet<_> = quoted.skip(1).map(str::to_owned).collect();
    assert!(names.len() > 1, "{message}");
    names
}

/// Every value of an enum without fields.
fn values<T: DeserializeOwned + Debug>() -> Vec<T> {
    let names = variants::<T>().into_iter();
    names
        .map(|name| serde_json::from_value(json!(name)).expect("a variant without fields"))
        .collect()
}

fn requests() -> Vec<Request> {
    let mut requests = vec![Request::Stop { turn: TurnId(1) }];
    let caches = values::<KvCacheDType>().into_iter().map(Some);
    for cache in caches.chain([None]) {
        for device in values::<DevicePreference>() {
            for memory in [None, Some(1 << 33)] {
                let activations = values::<CpuActivations>().into_iter().map(Some);
                for activations in activations.chain([None]) {
                    requests.push(Request::Load {
                        model: "models/nano".into(),
                        options: LoadOptions {
                            device,
                            memory,
                            cache,
                            activations,
                        },
                    });
                }
            }
        }
    }
    let size = ImageSize {
        width: 20,
        height: 10,
    };
    for granularity in values::<Granularity>() {
        requests.extend([Some(size), None].map(|size| Request::Look {
            picture: PictureId(1),
            size,
            granularity,
        }));
    }
    requests.push(Request::Ask {
        turn: TurnId(1),
        picture: PictureId(1),
        question: Question {
            boxes: vec![[0.5, 1.0, 2.0, 3.25].into()],
            text: "What is <obj0>?".into(),
            max_tokens: 64,
            sampling: Sampling {
                repetition_penalty: Some(1.5),
                ..Sampling::default()
            },
            earlier: vec![Exchange {
                question: "What is <obj0>?".into(),
                answer: "A cat.".into(),
            }],
            system: Some("Be brief.".into()),
        },
    });
    requests.push(Request::Links { turn: TurnId(1) });
    requests.push(Request::Compare {
        turn: TurnId(2),
        picture: PictureId(1),
        boxes: vec![[0.5, 1.0, 2.0, 3.25].into()],
    });
    requests
}

fn events() -> Vec<Event> {
    let (turn, picture) = (TurnId(1), PictureId(1));
    let spans = vec![
        Span {
            text: "a cat".into(),
            objects: vec![0],
            open: true,
        },
        Span::default(),
    ];
    let link = |runner_up| Link {
        object: 0,
        probability: 0.75,
        runner_up,
    };
    let runner_up = RunnerUp {
        object: 1,
        probability: 0.25,
    };
    let mut events = vec![
        Event::Said {
            turn,
            spans: spans.clone(),
        },
        Event::Links {
            turn,
            links: vec![link(None), link(Some(runner_up))],
        },
        Event::Compared {
            turn,
            likeness: vec![vec![1.0]],
        },
    ];
    events.extend(values::<Stage>().into_iter().map(|stage| {
        Event::Progress(Progress {
            stage,
            done: 1,
            total: 2,
        })
    }));
    for verdict in values::<Verdict>() {
        for residency in values::<Residency>() {
            events.push(Event::Ready(Box::new(ModelCard {
                asked_for: "models/nano".into(),
                name: "nano".into(),
                licence: String::new(),
                licence_parts: vec![
                    PartLicence {
                        part: "detector".into(),
                        name: "Apache-2.0".into(),
                        text: "text".into(),
                        source: "source".into(),
                    },
                    PartLicence {
                        part: "decoder".into(),
                        name: "MIT".into(),
                        text: String::new(),
                        source: String::new(),
                    },
                ],
                trained_on: String::new(),
                knows: Some("80 kinds".into()),
                classes: vec!["cat".into()],
                text_only: true,
                device: "cpu".into(),
                adapter: String::new(),
                software: true,
                default_score: 0.3,
                default_nms: 0.8,
                default_first_of_kind: Some(0.2),
                default_max_tokens: 512,
                default_repetition_penalty: 1.0,
                default_system: String::new(),
                multi_turn: false,
                hardware: (verdict == Verdict::Fits).then(Hardware::default),
                engine: String::new(),
                weight_bytes: 1,
                fit: Fit {
                    verdict,
                    residency,
                    reason: String::new(),
                    needs: MemoryNeeds::default(),
                },
            })));
        }
    }
    for granularity in values::<Granularity>() {
        events.push(Event::Proposed {
            picture,
            granularity,
            boxes: [None, Some("cat".into())]
                .map(|label| Proposal {
                    bbox: [0.5, 1.0, 2.0, 3.25].into(),
                    score: 0.5,
                    label,
                })
                .to_vec(),
            milliseconds: LookTime::default(),
        });
    }
    for stop in values::<StopReason>() {
        events.push(Event::Done {
            turn,
            answer: Answer {
                prompt: String::new(),
                text: String::new(),
                spans: spans.clone(),
                tokens: 1,
                prefill_tokens: 1,
                question_tokens: 0,
                gpu_bytes: (stop == StopReason::End).then_some(1),
                stop,
                milliseconds: AskTime::default(),
            },
        });
    }
    for kind in values::<FaultKind>() {
        for code in values::<ErrorCode>() {
            let fault = Fault::new(kind, "place", "what", "advice").code(code);
            for (turn, picture) in [(Some(turn), Some(picture)), (None, None)] {
                events.push(Event::Failed {
                    turn,
                    picture,
                    fault: fault.clone(),
                });
            }
        }
    }
    events
}

/// Checks messages of the declared type `name`; the parts of declarations that they use.
fn check_all(types: &Declarations, name: &str, messages: &[impl Serialize]) -> Vec<String> {
    let declared = Type::Name(name.into());
    let values = messages
        .iter()
        .map(|message| serde_json::to_value(message).expect("plain data"));
    values
        .flat_map(|value| match types.check(name, &declared, &value) {
            Ok(used) => used,
            Err(fault) => panic!("{TYPES} does not declare {value}:\n{fault}"),
        })
        .collect()
}

fn declarations() -> Declarations {
    let text = read(TYPES);
    let (messages, _) = text.split_once(END).expect(END);
    Declarations::parse(messages)
}

#[test]
fn the_types_are_those_of_the_protocol() {
    let types = declarations();
    let mut used: BTreeSet<String> = check_all(&types, "EngineRequest", &requests())
        .into_iter()
        .collect();
    used.extend(check_all(&types, "EngineEvent", &events()));
    let unused: Vec<_> = types.all_parts().difference(&used).cloned().collect();
    assert!(
        unused.is_empty(),
        "{TYPES} declares what no message has: {unused:?}"
    );
}

#[test]
fn the_enums_have_the_values_of_the_protocol() {
    let types = declarations();
    let enums = [
        ("CpuActivations", variants::<CpuActivations>()),
        ("DevicePreference", variants::<DevicePreference>()),
        ("EngineEvent", variants::<Event>()),
        ("EngineRequest", variants::<Request>()),
        ("ErrorCode", variants::<ErrorCode>()),
        ("FaultKind", variants::<FaultKind>()),
        ("Granularity", variants::<Granularity>()),
        ("KvCacheDType", variants::<KvCacheDType>()),
        ("Residency", variants::<Residency>()),
        ("Stage", variants::<Stage>()),
        ("StopReason", variants::<StopReason>()),
        ("Verdict", variants::<Verdict>()),
    ];
    for (name, variants) in enums {
        assert_eq!(types.alternatives(name), variants, "{TYPES}: {name}");
    }
}

#[test]
fn stale_types_are_found() {
    let answer = |types: &str| {
        let types = Declarations::parse(types);
        let value = json!({"text": "a", "stop": "end"});
        types.check("Answer", &Type::Name("Answer".into()), &value)
    };
    let good =
        "export interface Answer { text: string; stop: \"end\" | \"length\"; more?: number[]; }";
    let used = answer(good).expect("the type of the value");
    let all = Declarations::parse(good).all_parts();
    let unused: Vec<_> = all.iter().filter(|part| !used.contains(part)).collect();
    assert_eq!(unused, ["Answer.more", "Answer.stop|1"]);
    for stale in [
        "export interface Answer { text: string; }",
        "export interface Answer { text: string; stop: string; tokens: number; }",
        "export interface Answer { text: number; stop: string; }",
        "export interface Answer { text: string; stop: \"length\"; }",
        "export interface Answer { text: string | null; stop: Reason; }",
    ] {
        assert!(answer(stale).is_err(), "{stale}");
    }
}

/// The module checks these limits itself.
#[test]
fn the_module_has_the_limits_of_the_engine() {
    let module = read(MODULE);
    for (name, limit) in [
        ("MAX_PIXELS", Pixels::LIMIT),
        ("MAX_BOXES", MAX_BOXES as u64),
    ] {
        let start = format!("const {name} = ");
        let line = module.lines().find_map(|line| line.strip_prefix(&*start));
        let value = line.expect(name).trim_end_matches(';').replace('_', "");
        assert_eq!(value.parse::<u64>(), Ok(limit), "{name}");
    }
}
