//! GGUF files, versions 2 and 3: metadata and tensors (the format is specified in
//! `github.com/ggml-org/ggml`).
//!
//! Opening a file walks metadata and tensor descriptions once and copies only
//! names; every count, length and offset is checked against the bytes that are there before it is used.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::disk::InputFile;
use super::ggml::GgmlType;
use crate::error::{ErrorCode, Fault, FaultKind};

/// The first bytes of a file.
const MAGIC: &[u8; 4] = b"GGUF";

/// Bytes that metadata and tensor descriptions may take where the file is not mapped into memory.
const MAX_HEAD: u64 = 64 << 20;

/// Maximum bytes of a metadata key, by the format.
const MAX_KEY: usize = 65_535;

/// Maximum bytes of a tensor's name.
const MAX_NAME: usize = 255;

/// Maximum bytes of a text.
const MAX_TEXT: usize = 16 << 20;

/// Maximum number of axes of a tensor, by the format.
const MAX_AXES: u32 = 4;

/// Maximum depth of arrays in arrays.
const MAX_DEPTH: usize = 4;

/// Alignment of tensors where `general.alignment` does not state it.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        const KINDS: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::Text,
            Kind::Array,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        KINDS.get(number as usize).copied()
    }

    /// Bytes of a value; `None` if they vary.
    fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// A number of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Integer(i128),
    Float(f64),
}

/// A metadata value: its type, and its bytes in the file.
#[derive(Clone, Debug)]
struct Value {
    kind: Kind,
    bytes: Range<usize>,
}

/// The type, the number and the bytes of the elements of an array.
struct Elements<'a> {
    kind: Kind,
    count: usize,
    bytes: &'a [u8],
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Elements along each axis, the slowest axis first.
    pub shape: Vec<usize>,
    /// Its element type.
    pub kind: GgmlType,
    /// Its bytes in the file.
    bytes: Range<u64>,
}

impl TensorInfo {
    /// Weights of a row, the fastest axis.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of all its values in the file.
    pub fn bytes(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    fn row_bytes(&self) -> usize {
        let (count, size) = self.kind.block();
        self.width() / count * size
    }
}

/// An open file.
pub struct Gguf {
    file: InputFile,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Opens `path`.
    ///
    /// # Errors
    /// The file cannot be read, is no GGUF file, is truncated or damaged, is of another version or byte
    /// order, or one of several; a tensor is of an unsupported type, overlaps another one, leaves the
    /// file or is described twice.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let file = InputFile::open(path)?;
        let place = file.place();
        let mut cursor = Cursor {
            bytes: file.head(MAX_HEAD)?,
            at: 0,
            place: &place,
        };
        if cursor.take(4, "the header")? != MAGIC {
            return Err(Fault::model(&place, "is not a GGUF file"));
        }
        let version = cursor.u32("the header")?;
        if !(2..=3).contains(&version) {
            let what = match version.swap_bytes() {
                1..=3 => "is a big-endian GGUF file; only little-endian ones are supported".into(),
                _ => format!("has version {version} of GGUF; supported are 2 and 3"),
            };
            return Err(unsupported(&place, what));
        }
        let tensor_count = cursor.u64("the header")?;
        let value_count = cursor.u64("the header")?;
        let metadata = metadata(&mut cursor, value_count)?;
        let described = descriptions(&mut cursor, tensor_count)?;
        let end = cursor.at;
        let mut gguf = Self {
            file,
            metadata,
            tensors: BTreeMap::new(),
        };
        if let Some(count) = gguf.integer("split.count")?.filter(|count| *count > 1) {
            let what = format!("is one of {count} files of a model; join them first");
            return Err(unsupported(&place, what));
        }
        gguf.tensors = gguf.locate(described, end)?;
        Ok(gguf)
    }

    /// All bytes of the file.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn file_bytes(&self) -> Result<Cow<'_, [u8]>, Fault> {
        self.file.read(0..self.file.len())
    }

    /// The bytes of a metadata value.
    fn value(&self, value: &Value) -> Result<&[u8], Fault> {
        Ok(&self.file.head(MAX_HEAD)?[value.bytes.clone()])
    }

    /// The file, for messages.
    pub fn place(&self) -> String {
        self.file.place()
    }

    fn key_place(&self, key: &str) -> String {
        format!("{}, key {key}", self.file.place())
    }

    /// A fault of the metadata value `key`.
    pub fn fault(&self, key: &str, what: impl Into<String>) -> Fault {
        Fault::model(self.key_place(key), what)
    }

    /// As [`Gguf::fault`], of a value that is valid but not supported.
    pub fn unsupported(&self, key: &str, what: impl Into<String>) -> Fault {
        unsupported(&self.key_place(key), what)
    }

    /// Whether the metadata has `key`.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// The text `key`, if the metadata has it.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Fault> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        if value.kind != Kind::Text {
            return Err(self.fault(key, format!("is {:?} instead of text", value.kind)));
        }
        let text = std::str::from_utf8(self.value(value)?);
        text.map(Some)
            .map_err(|_| self.fault(key, "is not UTF-8 text"))
    }

    fn number(&self, key: &str) -> Result<Option<Number>, Fault> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let bytes = self.value(value)?;
        number(value.kind, bytes).map(Some).ok_or_else(|| {
            let what = format!("is {:?} instead of a number", value.kind);
            self.fault(key, what)
        })
    }

    /// The integer `key`, if the metadata has it.
    ///
    /// # Errors
    /// It is no integer from 0 to 2^32.
    pub fn integer(&self, key: &str) -> Result<Option<usize>, Fault> {
        match self.number(key)? {
            None => Ok(None),
            Some(Number::Integer(value @ 0..=0xffff_ffff)) => Ok(Some(value as usize)),
            Some(other) => {
                let what = match other {
                    Number::Integer(value) => format!("is {value}, which is out of range"),
                    Number::Float(value) => format!("is {value} instead of an integer"),
                };
                Err(self.fault(key, what))
            }
        }
    }

    /// The number `key`, if the metadata has it.
    ///
    /// # Errors
    /// It is no finite number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, Fault> {
        match self.number(key)? {
            None => Ok(None),
            Some(Number::Integer(value)) => Ok(Some(value as f64)),
            Some(Number::Float(value)) if value.is_finite() => Ok(Some(value)),
            Some(Number::Float(value)) => Err(self.fault(key, format!("is {value}"))),
        }
    }

    /// The flag `key`, if the metadata has it.
    ///
    /// # Errors
    /// It is no flag.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        match (value.kind, self.value(value)?.first()) {
            (Kind::Bool, Some(0)) => Ok(Some(false)),
            (Kind::Bool, Some(1)) => Ok(Some(true)),
            (Kind::Bool, Some(byte)) => {
                Err(self.fault(key, format!("is {byte} instead of 0 or 1")))
            }
            (kind, _) => Err(self.fault(key, format!("is {kind:?} instead of a flag"))),
        }
    }

    fn elements(&self, key: &str) -> Result<Option<Elements<'_>>, Fault> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        if value.kind != Kind::Array {
            return Err(self.fault(key, format!("is {:?} instead of a list", value.kind)));
        }
        let bytes = self.value(value)?;
        let place = self.key_place(key);
        let mut cursor = Cursor {
            bytes,
            at: 0,
            place: &place,
        };
        let (kind, count) = cursor.array_header()?;
        Ok(Some(Elements {
            kind,
            count,
            bytes: &bytes[cursor.at..],
        }))
    }

    /// The list of texts `key`, if the metadata has it.
    ///
    /// # Errors
    /// It is no list of texts; the first that is none is named.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Fault> {
        let Some(elements) = self.elements(key)? else {
            return Ok(None);
        };
        if elements.kind != Kind::Text {
            let what = format!("is a list of {:?} instead of texts", elements.kind);
            return Err(self.fault(key, what));
        }
        let place = self.key_place(key);
        let mut cursor = Cursor {
            bytes: elements.bytes,
            at: 0,
            place: &place,
        };
        let mut texts = Vec::new();
        for index in 0..elements.count {
            let text = std::str::from_utf8(cursor.text(MAX_TEXT, "the list")?);
            texts.push(
                text.map_err(|_| self.fault(key, format!("entry {index} is not UTF-8 text")))?,
            );
        }
        Ok(Some(texts))
    }

    /// The list of numbers `key` as f64, if the metadata has it.
    ///
    /// # Errors
    /// It is no list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, Fault> {
        let Some(elements) = self.elements(key)? else {
            return Ok(None);
        };
        let size = elements.kind.size();
        let values = elements.bytes.chunks_exact(size.unwrap_or(1));
        let values = values.map(|bytes| match number(elements.kind, bytes)? {
            Number::Integer(value) => Some(value as f64),
            Number::Float(value) => Some(value),
        });
        let values: Option<Vec<f64>> = values.collect();
        let values = values.filter(|values| size.is_some() && values.len() == elements.count);
        values.map(Some).ok_or_else(|| {
            let what = format!("is a list of {:?} instead of numbers", elements.kind);
            self.fault(key, what)
        })
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor `name`, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Tensor `name` with its file, for messages.
    pub fn tensor_place(&self, name: &str) -> String {
        tensor_place(&self.file.place(), name)
    }

    /// The stored bytes of row `row`; a row is the fastest axis.
    ///
    /// # Errors
    /// They cannot be read.
    ///
    /// # Panics
    /// The tensor is of another file or has no such row.
    pub fn row(&self, tensor: &TensorInfo, row: usize) -> Result<Cow<'_, [u8]>, Fault> {
        let (size, row) = (tensor.row_bytes() as u64, row as u64);
        let start = tensor.bytes.start + row * size;
        assert!(start + size <= tensor.bytes.end, "row {row}");
        self.file.read(start..start + size)
    }

    /// All values of a tensor as f32.
    ///
    /// # Errors
    /// They cannot be read.
    ///
    /// # Panics
    /// It is of another file.
    pub fn values(&self, tensor: &TensorInfo) -> Result<Vec<f32>, Fault> {
        let mut values = Vec::new();
        let bytes = self.file.read(tensor.bytes.clone())?;
        tensor.kind.dequantize(&bytes, &mut values);
        Ok(values)
    }

    /// The tensors `described`, which lie behind byte `end` of the file.
    fn locate(
        &self,
        described: BTreeMap<String, Description>,
        end: usize,
    ) -> Result<BTreeMap<String, TensorInfo>, Fault> {
        let place = self.place();
        let key = "general.alignment";
        let alignment = self.integer(key)?.map_or(DEFAULT_ALIGNMENT, |a| a as u64);
        if !(alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment)) {
            let what = format!("is {alignment} instead of a power of two from 8 to 1048576");
            return Err(self.fault(key, what));
        }
        let size = self.file.len();
        let start = (end as u64).next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, tensor) in described {
            let fault = |what: String| Fault::model(tensor_place(&place, &name), what);
            if !tensor.offset.is_multiple_of(alignment) {
                let offset = tensor.offset;
                return Err(fault(format!(
                    "begins at offset {offset}, which is no multiple of the alignment {alignment}"
                )));
            }
            let first = start.checked_add(tensor.offset);
            let last = first.and_then(|first| first.checked_add(tensor.bytes));
            let (Some(first), Some(last)) = (first, last.filter(|last| *last <= size)) else {
                let (offset, bytes) = (tensor.offset, tensor.bytes);
                return Err(fault(format!(
                    "has {bytes} bytes from offset {offset} on, which is beyond the end of the file"
                )));
            };
            let info = TensorInfo {
                shape: tensor.shape,
                kind: tensor.kind,
                bytes: first..last,
            };
            tensors.insert(name, info);
        }
        let mut order: Vec<(&str, &TensorInfo)> = tensors
            .iter()
            .map(|(name, info)| (name.as_str(), info))
            .collect();
        order.sort_by_key(|(_, info)| info.bytes.start);
        for pair in order.windows(2) {
            let [(name, info), (other, next)] = [pair[0], pair[1]];
            if info.bytes.end > next.bytes.start {
                let what = format!("overlaps tensor {other}");
                return Err(Fault::model(tensor_place(&place, name), what));
            }
        }
        Ok(tensors)
    }
}

fn tensor_place(file: &str, name: &str) -> String {
    format!("{file}, tensor {name}")
}

fn unsupported(place: &str, what: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Model, place, what, "").code(ErrorCode::Unsupported)
}

/// The number of `bytes`; `None` if `kind` is none.
fn number(kind: Kind, bytes: &[u8]) -> Option<Number> {
    let integer = |value| Some(Number::Integer(value));
    match (kind, bytes) {
        (Kind::U8, [a]) => integer((*a).into()),
        (Kind::I8, [a]) => integer(a.cast_signed().into()),
        (Kind::U16, &[a, b]) => integer(u16::from_le_bytes([a, b]).into()),
        (Kind::I16, &[a, b]) => integer(i16::from_le_bytes([a, b]).into()),
        (Kind::U32, &[a, b, c, d]) => integer(u32::from_le_bytes([a, b, c, d]).into()),
        (Kind::I32, &[a, b, c, d]) => integer(i32::from_le_bytes([a, b, c, d]).into()),
        (Kind::F32, &[a, b, c, d]) => Some(Number::Float(f32::from_le_bytes([a, b, c, d]).into())),
        (Kind::U64, bytes) => integer(u64::from_le_bytes(bytes.try_into().ok()?).into()),
        (Kind::I64, bytes) => integer(i64::from_le_bytes(bytes.try_into().ok()?).into()),
        (Kind::F64, bytes) => Some(Number::Float(f64::from_le_bytes(bytes.try_into().ok()?))),
        _ => None,
    }
}

/// A tensor as the file describes it.
struct Description {
    shape: Vec<usize>,
    kind: GgmlType,
    offset: u64,
    bytes: u64,
}

/// The next byte of the file to be read.
struct Cursor<'a, 'p> {
    bytes: &'a [u8],
    at: usize,
    place: &'p str,
}

impl<'a> Cursor<'a, '_> {
    /// The next `count` bytes; `what` they belong to is named where the file ends before them.
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            let left = self.bytes.len() - self.at;
            let what = format!("ends in {what}: {count} bytes are to follow, {left} are left");
            Fault::model(self.place, what)
        })?;
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        let bytes = self.take(4, what)?.try_into();
        Ok(u32::from_le_bytes(bytes.expect("four bytes")))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        let bytes = self.take(8, what)?.try_into();
        Ok(u64::from_le_bytes(bytes.expect("eight bytes")))
    }

    /// The bytes of a text of at most `most` bytes.
    fn text(&mut self, most: usize, what: &str) -> Result<&'a [u8], Fault> {
        let length = self.u64(what)?;
        match usize::try_from(length)
            .ok()
            .filter(|length| *length <= most)
        {
            Some(length) => self.take(length, what),
            None => Err(Fault::model(
                self.place,
                format!("claims a text of {length} bytes in {what}; {most} are allowed"),
            )),
        }
    }

    fn name(&mut self, most: usize, what: &str) -> Result<&'a str, Fault> {
        let bytes = self.text(most, what)?;
        let name = std::str::from_utf8(bytes)
            .ok()
            .filter(|name| !name.is_empty());
        name.ok_or_else(|| Fault::model(self.place, format!("has an invalid name in {what}")))
    }

    fn kind(&mut self, what: &str) -> Result<Kind, Fault> {
        let number = self.u32(what)?;
        Kind::of(number).ok_or_else(|| {
            Fault::model(
                self.place,
                format!("has a value of the unknown type {number} in {what}"),
            )
        })
    }

    /// Type and number of the elements of an array; the number fits the bytes that are left.
    fn array_header(&mut self) -> Result<(Kind, usize), Fault> {
        let kind = self.kind("a list")?;
        let count = self.u64("a list")?;
        let least = kind.size().unwrap_or(8) as u64;
        let left = (self.bytes.len() - self.at) as u64;
        if count.checked_mul(least).is_none_or(|bytes| bytes > left) {
            return Err(Fault::model(
                self.place,
                format!("claims a list of {count} elements where {left} bytes are left"),
            ));
        }
        Ok((kind, count as usize))
    }

    /// Skips a value; `depth` arrays may still be nested.
    fn skip(&mut self, kind: Kind, key: &str, depth: usize) -> Result<(), Fault> {
        match (kind, kind.size()) {
            (_, Some(size)) => self.take(size, key).map(drop),
            (Kind::Text, _) => self.text(MAX_TEXT, key).map(drop),
            _ if depth == 0 => Err(Fault::model(
                self.place,
                format!("nests more than {MAX_DEPTH} lists in {key}"),
            )),
            _ => {
                let (kind, count) = self.array_header()?;
                if let Some(size) = kind.size() {
                    // The header has been checked: the product is within the file.
                    return self.take(count * size, key).map(drop);
                }
                (0..count).try_for_each(|_| self.skip(kind, key, depth - 1))
            }
        }
    }
}

fn metadata(cursor: &mut Cursor, count: u64) -> Result<BTreeMap<String, Value>, Fault> {
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.name(MAX_KEY, "the metadata")?;
        let label = format!("key {key}");
        let kind = cursor.kind(&label)?;
        let start = cursor.at;
        cursor.skip(kind, &label, MAX_DEPTH)?;
        // A text begins behind its length.
        let first = start + if kind == Kind::Text { 8 } else { 0 };
        let value = Value {
            kind,
            bytes: first..cursor.at,
        };
        if metadata.insert(key.to_string(), value).is_some() {
            return Err(Fault::model(cursor.place, format!("has {label} twice")));
        }
    }
    Ok(metadata)
}

fn descriptions(cursor: &mut Cursor, count: u64) -> Result<BTreeMap<String, Description>, Fault> {
    let mut tensors = BTreeMap::new();
    for _ in 0..count {
        let name = cursor.name(MAX_NAME, "the list of tensors")?;
        let label = format!("tensor {name}");
        let place = tensor_place(cursor.place, name);
        let fault = |what: String| Fault::model(&place, what);
        let axes = cursor.u32(&label)?;
        if !(1..=MAX_AXES).contains(&axes) {
            return Err(fault(format!(
                "has {axes} axes; 1 to {MAX_AXES} are allowed"
            )));
        }
        let mut sizes = Vec::new();
        for _ in 0..axes {
            sizes.push(cursor.u64(&label)?);
        }
        let number = cursor.u32(&label)?;
        let kind = GgmlType::of(number).map_err(|name| {
            let known = GgmlType::ALL.map(|kind| kind.to_string()).join(", ");
            let what =
                format!("is stored as {name}, which is not supported; supported are {known}");
            unsupported(&place, what)
        })?;
        let offset = cursor.u64(&label)?;
        let (block, block_bytes) = kind.block();
        let elements = sizes.iter().try_fold(1_u64, |product, &size| {
            product.checked_mul(size).filter(|_| size > 0)
        });
        let bytes = elements
            .map(|elements| elements / block as u64)
            .and_then(|blocks| blocks.checked_mul(block_bytes as u64));
        let shape: Result<Vec<usize>, _> =
            sizes.iter().rev().map(|&n| usize::try_from(n)).collect();
        let (Some(bytes), Ok(shape)) = (bytes, shape) else {
            return Err(fault(format!("has an impossible shape {sizes:?}")));
        };
        if !sizes[0].is_multiple_of(block as u64) {
            let width = sizes[0];
            return Err(fault(format!(
                "has rows of {width} weights, which are no whole blocks of {block} of {kind}"
            )));
        }
        let description = Description {
            shape,
            kind,
            offset,
            bytes,
        };
        if tensors.insert(name.to_string(), description).is_some() {
            return Err(fault("is described twice".to_string()));
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use safetensors::SafeTensors;

    use super::*;

    const TYPES: &[u8] = include_bytes!("../../tests/data/gguf/types.gguf");
    const VALUES: &[u8] = include_bytes!("../../tests/data/gguf/types.safetensors");

    fn open(bytes: &[u8]) -> Result<Gguf, Fault> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("a file");
        Gguf::open(file.path())
    }

    /// A file, field by field.
    struct File(Vec<u8>);

    impl File {
        fn new(tensors: u64, values: u64) -> Self {
            let file = Self(b"GGUF".to_vec());
            file.u32(3).u64(tensors).u64(values)
        }

        fn u32(mut self, value: u32) -> Self {
            self.0.extend(value.to_le_bytes());
            self
        }

        fn u64(mut self, value: u64) -> Self {
            self.0.extend(value.to_le_bytes());
            self
        }

        fn text(self, text: &[u8]) -> Self {
            let mut file = self.u64(text.len() as u64);
            file.0.extend(text);
            file
        }

        /// A u32 value of the metadata.
        fn number(self, key: &str, value: u32) -> Self {
            self.text(key.as_bytes()).u32(4).u32(value)
        }

        fn tensor(self, name: &str, sizes: &[u64], kind: u32, offset: u64) -> Self {
            let file = self.text(name.as_bytes()).u32(sizes.len() as u32);
            let file = sizes.iter().fold(file, |file, &size| file.u64(size));
            file.u32(kind).u64(offset)
        }

        /// With `bytes` bytes behind the descriptions.
        fn data(mut self, bytes: usize) -> Self {
            let start = self.0.len().next_multiple_of(32);
            self.0.resize(start + bytes, 0);
            self
        }
    }

    #[test]
    fn every_element_type_has_the_values_of_the_reference() {
        let gguf = open(TYPES).expect("a whole file");
        let expected = SafeTensors::deserialize(VALUES).expect("recorded values");
        assert_eq!(expected.len(), GgmlType::ALL.len());
        for kind in GgmlType::ALL {
            let name = kind.to_string();
            let tensor = gguf.tensor(&name).expect("a tensor of every type");
            assert_eq!((tensor.kind, &*tensor.shape), (kind, &[2, 256][..]));
            let expected = expected.tensor(&name).expect("a recorded tensor");
            let expected = expected.data().as_chunks::<4>().0.iter();
            let expected: Vec<u32> = expected.map(|bytes| u32::from_le_bytes(*bytes)).collect();
            let values = gguf.values(tensor).expect(&name);
            let values: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
            assert_eq!(values, expected, "{name}");
            let mut rows = Vec::new();
            for row in 0..2 {
                kind.dequantize(&gguf.row(tensor, row).expect(&name), &mut rows);
            }
            assert_eq!(Ok(rows), gguf.values(tensor), "{name}");
        }
    }

    #[test]
    fn exact_schemes_keep_every_bit() {
        let gguf = open(TYPES).expect("a whole file");
        let mut schemes = 0;
        for kind in GgmlType::ALL {
            let Some(scheme) = kind.exact_scheme() else {
                continue;
            };
            schemes += 1;
            let tensor = gguf.tensor(&kind.to_string()).expect("a tensor");
            let (mut words, mut scales) = (Vec::new(), Vec::new());
            kind.repack(
                &gguf.row(tensor, 0).expect("a row"),
                &mut words,
                &mut scales,
            );
            kind.repack(
                &gguf.row(tensor, 1).expect("a row"),
                &mut words,
                &mut scales,
            );
            let mut values = vec![f32::NAN; 512];
            scheme.dequantize(&words, &scales, &mut values);
            assert_eq!(Ok(values), gguf.values(tensor), "{kind}");
        }
        assert_eq!(schemes, 3);
    }

    #[test]
    fn metadata_of_every_type_is_read() {
        let gguf = open(TYPES).expect("a whole file");
        let integer = |key: &str| gguf.integer(&format!("made.{key}"));
        assert_eq!(integer("u8"), Ok(Some(200)));
        assert_eq!(integer("u16"), Ok(Some(60_000)));
        assert_eq!(integer("u32"), Ok(Some(4_000_000_000)));
        assert_eq!(integer("absent"), Ok(None));
        let float = |key: &str| gguf.float(&format!("made.{key}"));
        assert_eq!(float("i8"), Ok(Some(-100.0)));
        assert_eq!(float("i16"), Ok(Some(-30_000.0)));
        assert_eq!(float("i32"), Ok(Some(-2e9)));
        assert_eq!(float("u64"), Ok(Some(2.0_f64.powi(40))));
        assert_eq!(float("i64"), Ok(Some(-(2.0_f64.powi(40)))));
        assert_eq!(float("f32"), Ok(Some(f64::from(0.1_f32))));
        assert_eq!(float("f64"), Ok(Some(0.1)));
        assert_eq!(gguf.flag("made.true"), Ok(Some(true)));
        assert_eq!(gguf.flag("made.false"), Ok(Some(false)));
        assert_eq!(gguf.text("made.text"), Ok(Some("Größe \u{2581} 猫")));
        assert_eq!(gguf.texts("made.texts"), Ok(Some(vec!["a", "", "ü"])));
        assert_eq!(
            gguf.numbers("made.integers"),
            Ok(Some(vec![1.0, -2.0, 3.0]))
        );
        assert_eq!(gguf.numbers("made.floats"), Ok(Some(vec![0.5, -0.25])));
        assert!(gguf.has("made.nested") && gguf.numbers("made.nested").is_err());
        for (fault, says) in [
            (
                integer("i8").err(),
                "made.i8: is -100, which is out of range",
            ),
            (integer("u64").err(), "which is out of range"),
            (integer("f32").err(), "instead of an integer"),
            (integer("text").err(), "is Text instead of a number"),
            (gguf.text("made.u8").err(), "is U8 instead of text"),
            (gguf.flag("made.u8").err(), "is U8 instead of a flag"),
            (gguf.texts("made.u8").err(), "is U8 instead of a list"),
            (
                gguf.texts("made.floats").err(),
                "list of F32 instead of texts",
            ),
            (
                gguf.numbers("made.texts").err(),
                "list of Text instead of numbers",
            ),
            (
                gguf.numbers("made.flags").err(),
                "list of Bool instead of numbers",
            ),
        ] {
            let fault = fault.expect(says).to_string();
            assert!(fault.contains(says), "{says}: {fault}");
        }
    }

    #[test]
    fn files_that_lie_are_refused() {
        let nested = (0..6).fold(File::new(0, 1).text(b"k").u32(9), |file, _| {
            file.u32(9).u64(1)
        });
        let two = |first, second| {
            let file = File::new(2, 0).tensor("a", &[32], 0, first);
            file.tensor("b", &[32], 0, second).data(256)
        };
        let one = |sizes: &[u64], kind, offset| {
            File::new(1, 0).tensor("a", sizes, kind, offset).data(256)
        };
        let mut no_magic = File::new(0, 0);
        no_magic.0[0] = b'X';
        for (file, says) in [
            (
                File(Vec::new()),
                "ends in the header: 4 bytes are to follow",
            ),
            (no_magic, "is not a GGUF file"),
            (File(b"GGUF".to_vec()).u32(3), "ends in the header"),
            (File(b"GGUF".to_vec()).u32(1), "has version 1 of GGUF"),
            (
                File(b"GGUF".to_vec()).u32(3 << 24),
                "is a big-endian GGUF file",
            ),
            (File::new(0, u64::MAX), "ends in the metadata"),
            (File::new(u64::MAX, 0), "ends in the list of tensors"),
            (
                File::new(0, 1).u64(u64::MAX),
                "claims a text of 18446744073709551615 bytes",
            ),
            (
                File::new(0, 1).u64(1000),
                "ends in the metadata: 1000 bytes",
            ),
            (
                File::new(0, 1).text(b""),
                "has an invalid name in the metadata",
            ),
            (
                File::new(0, 1).text(b"\xff"),
                "has an invalid name in the metadata",
            ),
            (
                File::new(0, 1).text(b"k").u32(13),
                "unknown type 13 in key k",
            ),
            (File::new(0, 1).text(b"k").u32(10).u32(0), "ends in key k"),
            (
                File::new(0, 1).text(b"k").u32(8).u64(1 << 40),
                "claims a text of 1099511627776",
            ),
            (
                File::new(0, 1).text(b"k").u32(9).u32(0).u64(9),
                "claims a list of 9 elements",
            ),
            (
                File::new(0, 1).text(b"k").u32(9).u32(10).u64(1 << 61),
                "claims a list of",
            ),
            (
                File::new(0, 1).text(b"k").u32(9).u32(8).u64(1 << 61),
                "claims a list of",
            ),
            (nested, "nests more than 4 lists in key k"),
            (
                File::new(0, 2).number("k", 1).number("k", 1),
                "has key k twice",
            ),
            (one(&[], 0, 0), "tensor a: has 0 axes"),
            (one(&[1, 1, 1, 1, 1], 0, 0), "tensor a: has 5 axes"),
            (one(&[1 << 40, 1 << 40], 0, 0), "has an impossible shape"),
            (one(&[1 << 62], 0, 0), "has an impossible shape"),
            (one(&[32, 0], 0, 0), "has an impossible shape"),
            (
                one(&[32], 20, 0),
                "tensor a: is stored as IQ4_NL, which is not supported",
            ),
            (one(&[32], 777, 0), "is stored as type 777"),
            (
                one(&[33], 2, 0),
                "rows of 33 weights, which are no whole blocks of 32 of Q4_0",
            ),
            (one(&[32], 14, 0), "no whole blocks of 256 of Q6_K"),
            (
                one(&[32], 0, 8),
                "begins at offset 8, which is no multiple of the alignment 32",
            ),
            (
                one(&[32], 0, 1 << 50),
                "which is beyond the end of the file",
            ),
            (
                one(&[32], 0, u64::MAX - 31),
                "which is beyond the end of the file",
            ),
            (
                one(&[128], 0, 0),
                "has 512 bytes from offset 0 on, which is beyond",
            ),
            (two(0, 96), "tensor a: overlaps tensor b"),
            (
                File::new(2, 0)
                    .tensor("a", &[1], 0, 0)
                    .tensor("a", &[1], 0, 32),
                "described twice",
            ),
            (
                File::new(1, 0).text(&[b'a'; 300]),
                "claims a text of 300 bytes",
            ),
            (
                File::new(0, 1).number("general.alignment", 48),
                "instead of a power of two",
            ),
            (
                File::new(0, 1).number("general.alignment", 0),
                "instead of a power of two",
            ),
            (
                File::new(0, 1).number("split.count", 2),
                "is one of 2 files",
            ),
        ] {
            let fault = open(&file.0).err().expect(says).to_string();
            assert!(fault.contains(says), "{says}: {fault}");
        }
        let good = open(&two(0, 128).0).expect("two tensors side by side");
        assert_eq!(good.names().collect::<Vec<_>>(), ["a", "b"]);
        assert!(open(&File::new(0, 0).0).is_ok());
    }

    #[test]
    fn no_cut_and_no_flipped_bit_panics() {
        let whole = open(TYPES).expect("a whole file");
        let last = whole.tensors.values().map(|tensor| tensor.bytes.end).max();
        let last = last.expect("tensors");
        let data = whole
            .tensors
            .values()
            .map(|tensor| tensor.bytes.start)
            .min();
        let data = data.expect("tensors");
        for length in (0..data).step_by(13).chain([data, last - 1]) {
            assert!(open(&TYPES[..length as usize]).is_err(), "{length} bytes");
        }
        let mut copy = TYPES.to_vec();
        let mut opened = 0;
        for at in (0..data).step_by(3) {
            for bit in [0x01, 0x80, 0xff] {
                copy[at as usize] ^= bit;
                if let Ok(gguf) = open(&copy) {
                    opened += 1;
                    let shapes: BTreeMap<&str, &[usize]> = gguf
                        .tensors
                        .iter()
                        .map(|(name, tensor)| (name.as_str(), &*tensor.shape))
                        .collect();
                    for (name, shape) in shapes {
                        let tensor = gguf.tensor(name).expect("listed");
                        let count = shape.iter().product::<usize>();
                        assert_eq!(gguf.values(tensor).expect(name).len(), count, "{name}");
                    }
                    for key in gguf.metadata.keys() {
                        // Any answer will do.
                        let _ = (gguf.texts(key), gguf.numbers(key), gguf.flag(key));
                    }
                }
                copy[at as usize] ^= bit;
            }
        }
        assert!(opened > 0);
    }
}
