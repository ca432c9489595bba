//! The rows of annotation files as labelling tools write them: numbers as text, missing keys, boxes as
//! objects, names of pictures with addresses or folders of another machine.
//!
//! What has one meaning is read; the rest is refused by [`super::coco`] with the record.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A simple value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::eval) enum Scalar {
    #[default]
    Null,
    Flag(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// An id: an integer, or text that is no integer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::eval) enum Key {
    Integer(i64),
    Text(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "`{text}`"),
        }
    }
}

impl Scalar {
    /// The value as a number, also from text.
    pub(in crate::eval) fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok().filter(|n: &f64| n.is_finite()),
            Self::Null | Self::Flag(_) => None,
        }
    }

    /// The value as an integer, also from text or from a number without a fraction.
    pub(in crate::eval) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                Some(*number as i64)
            }
            _ => None,
        }
    }

    /// The value as an id; `None` of null, flags, fractions and empty text.
    pub(in crate::eval) fn key(&self) -> Option<Key> {
        if let Some(number) = self.integer() {
            return Some(Key::Integer(number));
        }
        match self {
            Self::Text(text) if !text.trim().is_empty() => Some(Key::Text(text.trim().to_owned())),
            _ => None,
        }
    }

    /// The text, if it is text with a letter or digit.
    pub(in crate::eval) fn words(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.trim()).filter(|text| !text.is_empty()),
            _ => None,
        }
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number, a text or null")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// The value of `bbox`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::eval) enum BoxField {
    /// Absent, null, or an empty list.
    #[default]
    Missing,
    /// A list, or `[x, y, width, height]` of an object with these keys or of a text.
    List(Vec<Scalar>),
}

impl BoxField {
    /// `[x, y, width, height]`; an error says what the value is instead.
    pub(in crate::eval) fn xywh(&self) -> Result<Option<[f64; 4]>, String> {
        let Self::List(values) = self else {
            return Ok(None);
        };
        let numbers: Option<Vec<f64>> = values.iter().map(Scalar::number).collect();
        match numbers.as_deref() {
            Some(&[x, y, w, h]) => Ok(Some([x, y, w, h])),
            Some(other) => Err(format!("has a box of {} numbers, not 4", other.len())),
            None => Err("has a box that is not four finite numbers".to_owned()),
        }
    }
}

struct BoxVisitor;

impl<'de> Visitor<'de> for BoxVisitor {
    type Value = BoxField;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a box [x, y, width, height]")
    }

    fn visit_unit<E>(self) -> Result<BoxField, E> {
        Ok(BoxField::Missing)
    }

    fn visit_str<E>(self, value: &str) -> Result<BoxField, E> {
        let inner = value.trim().trim_start_matches(['[', '(']);
        let inner = inner.trim_end_matches([']', ')']);
        let parts = inner.split([',', ' ', ';']).filter(|part| !part.is_empty());
        let list: Vec<Scalar> = parts.map(|part| Scalar::Text(part.to_owned())).collect();
        Ok(match list.is_empty() {
            true => BoxField::Missing,
            false => BoxField::List(list),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BoxField, A::Error> {
        let mut list = Vec::with_capacity(4);
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(match list.is_empty() {
            true => BoxField::Missing,
            false => BoxField::List(list),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BoxField, A::Error> {
        let mut found: [Scalar; 4] = Default::default();
        while let Some(key) = map.next_key::<String>()? {
            let place = match key.as_str() {
                "x" | "left" => 0,
                "y" | "top" => 1,
                "width" | "w" => 2,
                "height" | "h" => 3,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            found[place] = map.next_value()?;
        }
        Ok(BoxField::List(found.into()))
    }
}

impl<'de> Deserialize<'de> for BoxField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoxVisitor)
    }
}

/// The corners `[x1, y1, x2, y2]` around polygons; none of masks, null and anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::eval) struct Outline(pub(in crate::eval) Option<[f64; 4]>);

/// A part of a segmentation.
enum Node {
    Number(f64),
    Corners([f64; 4]),
    Other,
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a segmentation")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut corners = [
            f64::INFINITY,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NEG_INFINITY,
        ];
        let mut numbers = 0;
        while let Some(node) = seq.next_element::<Node>()? {
            match node {
                Node::Number(value) => {
                    let axis = numbers % 2;
                    corners[axis] = corners[axis].min(value);
                    corners[axis + 2] = corners[axis + 2].max(value);
                    numbers += 1;
                }
                Node::Corners(part) => {
                    for axis in 0..2 {
                        corners[axis] = corners[axis].min(part[axis]);
                        corners[axis + 2] = corners[axis + 2].max(part[axis + 2]);
                    }
                }
                Node::Other => {}
            }
        }
        Ok(match corners.iter().all(|value| value.is_finite()) {
            true => Node::Corners(corners),
            false => Node::Other,
        })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Node::deserialize(deserializer)? {
            Node::Corners(corners) => Some(corners),
            Node::Number(_) | Node::Other => None,
        }))
    }
}

/// The text of a JSON file without a byte order mark, and with `null` for `NaN` and `Infinity`, which
/// some programs write although JSON has no such numbers.
pub(in crate::eval) fn clean_json(text: &[u8]) -> Cow<'_, [u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let holds = |word: &&[u8]| text.windows(word.len()).any(|part| part == *word);
    if !WORDS[..2].iter().any(holds) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = Vec::with_capacity(text.len());
    let (mut at, mut quoted) = (0, false);
    while at < text.len() {
        let rest = &text[at..];
        let word = WORDS.iter().find(|word| rest.starts_with(word));
        match word {
            Some(word) if !quoted => {
                cleaned.extend_from_slice(b"null");
                at += word.len();
                continue;
            }
            _ => {}
        }
        if quoted && rest[0] == b'\\' && rest.len() > 1 {
            cleaned.extend_from_slice(&rest[..2]);
            at += 2;
            continue;
        }
        quoted ^= rest[0] == b'"';
        cleaned.push(rest[0]);
        at += 1;
    }
    Cow::Owned(cleaned)
}

/// The path below the folder of images that the name of a picture says: addresses lose scheme, host and
/// query, paths of other machines their drive and root. `None` if nothing is left.
pub(in crate::eval) fn relative_path(name: &str) -> Option<PathBuf> {
    let name = name.trim();
    let mut path = match name.split_once("://") {
        Some((_, rest)) => match rest.split_once("?d=") {
            Some((_, path)) => decoded(path.split('&').next().unwrap_or_default()),
            None => {
                let path = rest.split_once('/').map_or("", |(_, path)| path);
                decoded(path.split(['?', '#']).next().unwrap_or_default())
            }
        },
        None => match name.split_once("?d=") {
            Some((_, path)) => decoded(path.split('&').next().unwrap_or_default()),
            None => name.to_owned(),
        },
    };
    if path.contains('\\') {
        path = path.replace('\\', "/");
    }
    if let [drive, b':', ..] = path.as_bytes()
        && drive.is_ascii_alphabetic()
    {
        path.drain(..2);
    }
    let parts = Path::new(&path)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    let relative: PathBuf = parts.collect();
    let fits = !relative.as_os_str().is_empty() && !path.contains('\0');
    fits.then_some(relative)
}

/// `text` with `%20` and its like replaced; unchanged if that is no UTF-8.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = match (first, tail) {
            (b'%', [a, b, ..]) => std::str::from_utf8(&[*a, *b])
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok()),
            _ => None,
        };
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pictures_lead_below_the_folder() {
        for (name, expected) in [
            ("a.png", "a.png"),
            ("sub/a.png", "sub/a.png"),
            ("./sub/a b.png", "sub/a b.png"),
            ("/data/upload/1/a.png", "data/upload/1/a.png"),
            ("../../media/a.png", "media/a.png"),
            ("C:\\photos\\a.png", "photos/a.png"),
            ("photos\\a.png", "photos/a.png"),
            ("https://host:8080/up/a%20b.png?token=1#x", "up/a b.png"),
            ("s3://bucket/set/a.png", "set/a.png"),
            ("/data/local-files/?d=set/a.png", "set/a.png"),
            ("http://host/data/local-files/?d=set%2Fa.png", "set/a.png"),
        ] {
            assert_eq!(relative_path(name), Some(expected.into()), "{name}");
        }
        for name in ["", " ", "..", "/", "http://host", "a\0.png"] {
            assert_eq!(relative_path(name), None, "{name}");
        }
    }

    #[test]
    fn numbers_that_json_lacks_become_null_outside_of_text() {
        let text =
            "\u{feff}{\"a\": NaN, \"b NaN\": \"NaN \\\" NaN\", \"c\": [-Infinity, Infinity]}";
        let cleaned = clean_json(text.as_bytes());
        let expected = "{\"a\": null, \"b NaN\": \"NaN \\\" NaN\", \"c\": [null, null]}";
        assert_eq!(std::str::from_utf8(&cleaned), Ok(expected));
        assert!(matches!(clean_json(b"{}"), Cow::Borrowed(_)));
    }

    #[test]
    fn boxes_and_outlines_are_read_in_every_form() {
        let xywh = |json: &str| serde_json::from_str::<BoxField>(json).map(|field| field.xywh());
        for json in [
            "[1, 2.5, 3, 4]",
            "[\"1\", \"2.5\", 3, \"4\"]",
            "\"[1, 2.5, 3, 4]\"",
            "\"1 2.5 3 4\"",
            "{\"x\": 1, \"y\": 2.5, \"width\": 3, \"height\": \"4\", \"rotation\": 0}",
        ] {
            let found = xywh(json).expect(json);
            assert_eq!(found, Ok(Some([1.0, 2.5, 3.0, 4.0])), "{json}");
        }
        for json in ["null", "[]", "\"\""] {
            assert_eq!(xywh(json).expect(json), Ok(None), "{json}");
        }
        for json in ["[1, 2, 3]", "[1, 2, 3, null]", "[1, 2, 3, \"x\"]", "{}"] {
            assert!(xywh(json).expect(json).is_err(), "{json}");
        }
        assert!(xywh("[1, 2, [3], 4]").is_err() && xywh("7").is_err());
        let corners = |json: &str| serde_json::from_str::<Outline>(json).expect(json).0;
        assert_eq!(
            corners("[[1, 2, 5, 2, 5, 9], [0, 3, 1, 4]]"),
            Some([0.0, 2.0, 5.0, 9.0])
        );
        for json in [
            "null",
            "[]",
            "[[]]",
            "{\"size\": [2, 2], \"counts\": \"x\"}",
            "\"\"",
        ] {
            assert_eq!(corners(json), None, "{json}");
        }
    }
}
