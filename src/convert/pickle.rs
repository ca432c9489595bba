//! Python pickles as PyTorch writes them, read as plain data.
//!
//! A pickle is a program for a stack machine that may name any function of the reader's Python. Here
//! its instructions only build values; the few functions that checkpoints need are known by name
//! ([`callee`]) and stand for values too, every other name is refused. The instructions are those
//! of Python's `pickletools`, protocols 0 to 5.

use std::collections::HashMap;

use safetensors::Dtype;

use crate::error::{Fault, FaultKind};

/// Instructions and copied items of one pickle; bounds its memory to some hundred megabytes.
const MAX_STEPS: usize = 1 << 22;

/// Axes of one tensor.
const MAX_RANK: usize = 32;

/// A value's place in its [`Tree`].
pub type Id = u32;

/// One value. Containers hold the places of their items, so values may be shared and even contain
/// themselves.
#[derive(Debug)]
pub enum Node<'a> {
    /// Nothing.
    None,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond 64 bits: two's complement, lowest byte first.
    Long(&'a [u8]),
    /// A text.
    Text(&'a str),
    /// A list, a tuple or a set.
    Sequence(Vec<Id>),
    /// Keys and values in the order they were written.
    Dict(Vec<(Id, Id)>),
    /// A known function or type.
    Global(Callee),
    /// Elements stored elsewhere.
    Storage(Storage<'a>),
    /// A view of a storage.
    Tensor(Box<Stored<'a>>),
    /// Something no checkpoint reader needs: a fraction, bytes, an object of another library.
    Opaque,
}

/// Elements that lie outside the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Its name in the file.
    pub key: &'a str,
    /// The type its length is counted in.
    pub dtype: Dtype,
    /// Its length in elements of `dtype`.
    pub elements: u64,
}

/// A tensor as a view of a storage.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Where its elements are.
    pub storage: Storage<'a>,
    /// Its element type; only for storages of plain bytes another than the storage's.
    pub dtype: Dtype,
    /// Its first element, counted in `dtype`.
    pub offset: u64,
    /// Elements along each axis.
    pub shape: Vec<usize>,
    /// Elements from one to the next along each axis.
    pub strides: Vec<usize>,
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// `torch._utils._rebuild_tensor` and `.._v2`: a tensor of its storage's element type.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`: a tensor of a named element type.
    TypedTensor,
    /// `torch._utils._rebuild_parameter`: its first argument.
    Parameter,
    /// A dictionary type.
    Dict,
    /// `torch.Size`: its first argument.
    Size,
    /// A storage type.
    Storage(Dtype),
    /// A `torch.dtype`.
    Dtype(Dtype),
    /// A type whose objects are not looked into.
    Inert,
}

/// The values of one pickle.
#[derive(Debug)]
pub struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    root: Id,
}

impl<'a> Tree<'a> {
    /// The value of the whole pickle.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The value at `id`.
    pub fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    /// The text at `id`, if it is one.
    pub fn text(&self, id: Id) -> Option<&'a str> {
        text(&self.nodes, id)
    }

    /// The keys and values of the dictionary at `id`, if it is one.
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// Every reference to elements stored elsewhere.
    pub fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The value under `key` of the dictionary at `id`; the last one where it was set twice.
    pub fn find(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?.iter().rev();
        entries
            .map(|&(name, value)| (self.text(name), value))
            .find_map(|(name, value)| (name == Some(key)).then_some(value))
    }
}

/// Reads the pickle at the beginning of `bytes`: its values and its length in bytes. `place` names
/// the file.
///
/// # Errors
/// The pickle is cut or no pickle, is too large, or names a function that is not known here.
pub fn read<'a>(bytes: &'a [u8], place: &str) -> Result<(Tree<'a>, usize), Fault> {
    let mut machine = Machine {
        input: bytes,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        steps: 0,
    };
    match machine.run() {
        Ok(root) => Ok((
            Tree {
                nodes: machine.nodes,
                root,
            },
            machine.at,
        )),
        Err(Wrong::Asks(name)) => Err(Fault::new(
            FaultKind::Model,
            place,
            format!("asks to run `{name}`; nothing was run"),
            "Take the checkpoint from its authors, or save only its tensors",
        )),
        Err(Wrong::Damaged(what)) => Err(Fault::model(
            place,
            format!("its pickle {what} (byte {})", machine.at),
        )),
    }
}

/// The known meaning of `module.name`.
fn callee(module: &str, name: &str) -> Option<Callee> {
    Some(match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Callee::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Callee::TypedTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Callee::Parameter
        }
        ("collections", "OrderedDict" | "defaultdict" | "Counter")
        | ("builtins" | "__builtin__", "dict") => Callee::Dict,
        ("torch", "Size") => Callee::Size,
        ("torch.storage", "UntypedStorage" | "_UntypedStorage") => Callee::Storage(Dtype::U8),
        ("torch", name) => return torch(name),
        ("argparse", "Namespace")
        | ("copyreg" | "copy_reg", "_reconstructor")
        | (
            "builtins" | "__builtin__",
            "object" | "set" | "frozenset" | "list" | "tuple" | "int" | "float" | "bool" | "str"
            | "complex" | "slice" | "bytearray",
        )
        | ("_codecs", "encode")
        | ("pathlib", "Path" | "PosixPath" | "PurePosixPath" | "WindowsPath")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | ("numpy", "dtype" | "ndarray") => Callee::Inert,
        _ => return None,
    })
}

/// The known meaning of `torch.name`.
fn torch(name: &str) -> Option<Callee> {
    if let Some(kind) = name.strip_suffix("Storage") {
        return Some(Callee::Storage(match kind {
            "Double" => Dtype::F64,
            "Float" => Dtype::F32,
            "Half" => Dtype::F16,
            "BFloat16" => Dtype::BF16,
            "Long" => Dtype::I64,
            "Int" => Dtype::I32,
            "Short" => Dtype::I16,
            "Char" => Dtype::I8,
            "Byte" | "Untyped" => Dtype::U8,
            "Bool" => Dtype::BOOL,
            "ComplexFloat" => Dtype::C64,
            _ => return None,
        }));
    }
    Some(Callee::Dtype(match name {
        "float64" | "double" => Dtype::F64,
        "float32" | "float" => Dtype::F32,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" | "long" => Dtype::I64,
        "uint64" => Dtype::U64,
        "int32" | "int" => Dtype::I32,
        "uint32" => Dtype::U32,
        "int16" | "short" => Dtype::I16,
        "uint16" => Dtype::U16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        "complex64" => Dtype::C64,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "device" => return Some(Callee::Inert),
        _ => return None,
    }))
}

/// Why a pickle is not read.
enum Wrong {
    /// It names this function.
    Asks(String),
    /// It is no valid pickle.
    Damaged(String),
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Damaged(what.into()))
}

fn text<'a>(nodes: &[Node<'a>], id: Id) -> Option<&'a str> {
    match nodes[id as usize] {
        Node::Text(text) => Some(text),
        _ => None,
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Stack lengths; what lies below the last one is out of reach.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    steps: usize,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, Wrong> {
        loop {
            self.spend(1)?;
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    if self.pop().is_err() {
                        self.pop_to_mark()?;
                    }
                }
                b'1' => {
                    self.pop_to_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                0x80 => self.protocol()?,
                0x95 => {
                    self.take(8)?;
                }
                b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.remember(opcode)?,
                b'N' | 0x88 | 0x89 | b'I' | b'L' | b'J' | b'K' | b'M' | 0x8a | 0x8b => {
                    self.number(opcode)?;
                }
                b'F' | b'G' | b'B' | b'C' | 0x8e | 0x96 => self.unread(opcode)?,
                b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d => self.words(opcode)?,
                b']' | b')' | 0x8f | b'l' | b't' | 0x91 | 0x85..=0x87 => self.sequence(opcode)?,
                b'}' | b'd' | b's' | b'u' | b'a' | b'e' | 0x90 => self.fill(opcode)?,
                b'c' | 0x93 => self.global(opcode)?,
                b'R' | 0x81 | 0x92 | b'i' | b'o' => self.apply(opcode)?,
                b'b' => self.build()?,
                b'Q' => self.persistent()?,
                _ => return damaged(format!("has the unknown instruction {opcode:#04x}")),
            }
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Wrong> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return damaged(format!("has more than {MAX_STEPS} instructions"));
        }
        Ok(())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Wrong> {
        let rest = &self.input[self.at..];
        match usize::try_from(count) {
            Ok(count) if count <= rest.len() => {
                self.at += count;
                Ok(&rest[..count])
            }
            _ => damaged("ends early"),
        }
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned number of `width` bytes, lowest first.
    fn unsigned(&mut self, width: u64) -> Result<u64, Wrong> {
        let bytes = self.take(width)?.iter().rev();
        Ok(bytes.fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// As many bytes as a number of `width` bytes says.
    fn counted(&mut self, width: u64) -> Result<&'a [u8], Wrong> {
        let count = self.unsigned(width)?;
        self.take(count)
    }

    /// The bytes up to the next line end, which is skipped.
    fn line(&mut self) -> Result<&'a str, Wrong> {
        let rest = &self.input[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return damaged("ends early");
        };
        self.at += length + 1;
        utf8(&rest[..length])
    }

    fn add(&mut self, node: Node<'a>) -> Id {
        self.nodes.push(node);
        (self.nodes.len() - 1) as Id
    }

    fn push(&mut self, node: Node<'a>) {
        let id = self.add(node);
        self.stack.push(id);
    }

    fn top(&self) -> Result<Id, Wrong> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => damaged("takes a value that it never made"),
        }
    }

    fn pop(&mut self) -> Result<Id, Wrong> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// Everything above the last mark; the mark goes too.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Wrong> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => damaged("takes values up to a mark that it never set"),
        }
    }

    fn protocol(&mut self) -> Result<(), Wrong> {
        match self.byte()? {
            0..=5 => Ok(()),
            version => damaged(format!("is of protocol {version}; 0 to 5 are known")),
        }
    }

    /// Puts the top value under a number, or gets it back.
    fn remember(&mut self, opcode: u8) -> Result<(), Wrong> {
        let index = match opcode {
            b'q' | b'h' => self.unsigned(1)? as u32,
            b'r' | b'j' => self.unsigned(4)? as u32,
            0x94 => self.memo.len() as u32,
            _ => match self.line()?.parse() {
                Ok(index) => index,
                Err(_) => return damaged("numbers a value by what is no number"),
            },
        };
        if matches!(opcode, b'p' | b'q' | b'r' | 0x94) {
            self.memo.insert(index, self.top()?);
        } else {
            match self.memo.get(&index) {
                Some(&id) => self.stack.push(id),
                None => return damaged(format!("uses value {index} before it is made")),
            }
        }
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Result<(), Wrong> {
        let node = match opcode {
            b'N' => Node::None,
            0x88 => Node::Bool(true),
            0x89 => Node::Bool(false),
            b'J' => Node::Int(i64::from(self.unsigned(4)? as u32 as i32)),
            b'K' => Node::Int(self.unsigned(1)? as i64),
            b'M' => Node::Int(self.unsigned(2)? as i64),
            0x8a => long(self.counted(1)?),
            0x8b => long(self.counted(4)?),
            _ => match self.line()? {
                "00" if opcode == b'I' => Node::Bool(false),
                "01" if opcode == b'I' => Node::Bool(true),
                digits => match digits.trim_end_matches('L').parse() {
                    Ok(value) => Node::Int(value),
                    Err(_) => Node::Opaque,
                },
            },
        };
        self.push(node);
        Ok(())
    }

    /// Values that are only stepped over.
    fn unread(&mut self, opcode: u8) -> Result<(), Wrong> {
        match opcode {
            b'F' => self.line()?.as_bytes(),
            b'G' => self.take(8)?,
            b'C' => self.counted(1)?,
            b'B' => self.counted(4)?,
            _ => self.counted(8)?,
        };
        self.push(Node::Opaque);
        Ok(())
    }

    fn words(&mut self, opcode: u8) -> Result<(), Wrong> {
        let node = match opcode {
            b'S' | b'V' => {
                let line = self.line()?;
                let quote = |c| matches!(c, '\'' | '"');
                let line = if opcode == b'S' {
                    line.trim_matches(quote)
                } else {
                    line
                };
                if line.contains('\\') {
                    Node::Opaque
                } else {
                    Node::Text(line)
                }
            }
            b'T' | b'U' => {
                let bytes = self.counted(if opcode == b'T' { 4 } else { 1 })?;
                std::str::from_utf8(bytes).map_or(Node::Opaque, Node::Text)
            }
            b'X' => Node::Text(utf8(self.counted(4)?)?),
            0x8c => Node::Text(utf8(self.counted(1)?)?),
            _ => Node::Text(utf8(self.counted(8)?)?),
        };
        self.push(node);
        Ok(())
    }

    fn sequence(&mut self, opcode: u8) -> Result<(), Wrong> {
        let items = match opcode {
            b']' | b')' | 0x8f => Vec::new(),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let mut items = (0..count)
                    .map(|_| self.pop())
                    .collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                items
            }
            _ => self.pop_to_mark()?,
        };
        self.push(Node::Sequence(items));
        Ok(())
    }

    /// Makes dictionaries and puts items into containers.
    fn fill(&mut self, opcode: u8) -> Result<(), Wrong> {
        let items = match opcode {
            b'}' => Vec::new(),
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        if matches!(opcode, b'}' | b'd') {
            self.push(Node::Dict(Vec::new()));
        }
        let target = self.top()? as usize;
        match (&mut self.nodes[target], opcode) {
            (Node::Sequence(list), b'a' | b'e' | 0x90) => list.extend(items),
            (Node::Dict(entries), b'}' | b'd' | b's' | b'u') => {
                let (pairs, []) = items.as_chunks::<2>() else {
                    return damaged("gives a key without a value");
                };
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            (Node::Opaque, _) => {}
            _ => return damaged("puts items into what holds none"),
        }
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<(), Wrong> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (text(&self.nodes, module), text(&self.nodes, name)) {
                (Some(module), Some(name)) => (module, name),
                _ => return damaged("names a function by what is no text"),
            }
        };
        let known = known(module, name)?;
        self.push(Node::Global(known));
        Ok(())
    }

    /// Every way to write "call this with that".
    fn apply(&mut self, opcode: u8) -> Result<(), Wrong> {
        let (function, arguments) = match opcode {
            b'i' => {
                let known = known(self.line()?, self.line()?)?;
                let items = self.pop_to_mark()?;
                let items = self.add(Node::Sequence(items));
                (self.add(Node::Global(known)), items)
            }
            b'o' => {
                let mut items = self.pop_to_mark()?;
                if items.is_empty() {
                    return damaged("calls nothing");
                }
                let function = items.remove(0);
                (function, self.add(Node::Sequence(items)))
            }
            0x92 => {
                self.pop()?;
                let arguments = self.pop()?;
                (self.pop()?, arguments)
            }
            _ => {
                let arguments = self.pop()?;
                (self.pop()?, arguments)
            }
        };
        let Node::Global(function) = self.nodes[function as usize] else {
            return damaged("calls what is no function");
        };
        match function {
            Callee::Parameter | Callee::Size => {
                let first = self.argument(arguments, 0)?;
                self.stack.push(first);
            }
            Callee::Tensor => {
                let tensor = self.tensor(arguments, None)?;
                self.push(Node::Tensor(Box::new(tensor)));
            }
            Callee::TypedTensor => {
                let dtype = self.argument(arguments, 6)?;
                let Node::Global(Callee::Dtype(dtype)) = self.nodes[dtype as usize] else {
                    return damaged("gives a tensor an element type that is none");
                };
                let tensor = self.tensor(arguments, Some(dtype))?;
                self.push(Node::Tensor(Box::new(tensor)));
            }
            Callee::Dict => {
                let entries = self.pairs(arguments)?;
                self.push(Node::Dict(entries));
            }
            Callee::Storage(_) | Callee::Dtype(_) | Callee::Inert => self.push(Node::Opaque),
        }
        Ok(())
    }

    fn items(&self, id: Id) -> Result<&[Id], Wrong> {
        match &self.nodes[id as usize] {
            Node::Sequence(items) => Ok(items),
            _ => damaged("gives something else where a list belongs"),
        }
    }

    fn argument(&self, arguments: Id, index: usize) -> Result<Id, Wrong> {
        match self.items(arguments)?.get(index) {
            Some(&id) => Ok(id),
            None => damaged("calls a function with too few arguments"),
        }
    }

    fn whole(&self, id: Id) -> Result<u64, Wrong> {
        match self.nodes[id as usize] {
            Node::Int(value) if value >= 0 => Ok(value as u64),
            _ => damaged("gives a size or place that is no whole number from 0"),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>, Wrong> {
        let items = self.items(id)?;
        if items.len() > MAX_RANK {
            return damaged(format!("gives a tensor more than {MAX_RANK} axes"));
        }
        items
            .iter()
            .map(|&id| Ok(self.whole(id)? as usize))
            .collect()
    }

    /// A tensor from the arguments storage, offset, shape, strides and others that do not matter.
    fn tensor(&mut self, arguments: Id, dtype: Option<Dtype>) -> Result<Stored<'a>, Wrong> {
        let storage = self.argument(arguments, 0)?;
        let Node::Storage(storage) = self.nodes[storage as usize] else {
            return damaged("makes a tensor of what is no storage");
        };
        self.spend(2 * MAX_RANK)?;
        let shape = self.sizes(self.argument(arguments, 2)?)?;
        let strides = self.sizes(self.argument(arguments, 3)?)?;
        if shape.len() != strides.len() {
            return damaged("gives a tensor other numbers of sizes and of strides");
        }
        Ok(Stored {
            dtype: dtype.unwrap_or(storage.dtype),
            storage,
            offset: self.whole(self.argument(arguments, 1)?)?,
            shape,
            strides,
        })
    }

    /// The entries of `OrderedDict([[key, value], ..])`, the way Python 2 wrote it.
    fn pairs(&mut self, arguments: Id) -> Result<Vec<(Id, Id)>, Wrong> {
        let Some(&list) = self.items(arguments)?.first() else {
            return Ok(Vec::new());
        };
        let Node::Sequence(pairs) = &self.nodes[list as usize] else {
            return Ok(Vec::new());
        };
        let count = pairs.len();
        self.spend(count)?;
        let pairs = self.items(list)?.iter();
        pairs
            .map(|&pair| match self.items(pair)? {
                &[key, value] => Ok((key, value)),
                _ => damaged("gives a key without a value"),
            })
            .collect()
    }

    /// Attributes of an object; none that a checkpoint's reader knows has any that matter.
    fn build(&mut self) -> Result<(), Wrong> {
        self.pop()?;
        let target = self.top()?;
        match self.nodes[target as usize] {
            Node::Opaque | Node::Dict(_) => Ok(()),
            _ => damaged("gives attributes to what has none"),
        }
    }

    /// `("storage", type, key, device, elements)`: elements stored elsewhere.
    fn persistent(&mut self) -> Result<(), Wrong> {
        let id = self.pop()?;
        let items = self.items(id)?;
        let Some((&[tag, kind, key, _, elements], views)) = items.split_first_chunk::<5>() else {
            return damaged("refers to something stored elsewhere that is no storage");
        };
        let named = (text(&self.nodes, tag), text(&self.nodes, key));
        let (Node::Global(Callee::Storage(dtype)), (Some("storage"), Some(key))) =
            (&self.nodes[kind as usize], named)
        else {
            return damaged("refers to something stored elsewhere that is no storage");
        };
        let whole = |&view: &Id| matches!(self.nodes[view as usize], Node::None);
        if !views.iter().all(whole) {
            return damaged("has a storage inside a storage, as PyTorch before 0.4 wrote them");
        }
        let storage = Storage {
            key,
            dtype: *dtype,
            elements: self.whole(elements)?,
        };
        self.push(Node::Storage(storage));
        Ok(())
    }
}

fn known(module: &str, name: &str) -> Result<Callee, Wrong> {
    callee(module, name).ok_or_else(|| {
        let shown: String = format!("{module}.{name}").chars().take(200).collect();
        Wrong::Asks(shown.escape_debug().to_string())
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, Wrong> {
    std::str::from_utf8(bytes).or_else(|_| damaged("holds a text that is not UTF-8"))
}

/// A whole number in two's complement, lowest byte first.
fn long<'a>(bytes: &'a [u8]) -> Node<'a> {
    if bytes.len() > 8 {
        return Node::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        read(bytes, "f.pth").expect_err("refused").to_string()
    }

    /// `OrderedDict` with what follows as the arguments' and the rest's instructions.
    fn after_ordered_dict(rest: &[u8]) -> Vec<u8> {
        [b"\x80\x02ccollections\nOrderedDict\n", rest].concat()
    }

    #[test]
    fn values_of_every_protocol_are_read() {
        let old = b"(dp0\nS'a'\np1\nI12\nsS'b'\nI01\nsVc\nL-3L\nsVd\nF0.5\ns.".as_slice();
        let new = b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94K\x0c\x8c\x01b\x88\
            X\x01\0\0\0c\x8a\x01\xfd\x8c\x01dG\x3f\xe0\0\0\0\0\0\0u."
            .as_slice();
        for bytes in [old, new] {
            let padded = [bytes, b"more"].concat();
            let (tree, length) = read(&padded, "f").expect("a dictionary");
            assert_eq!(length, bytes.len());
            let value = |key| tree.node(tree.find(tree.root(), key).expect(key));
            assert!(matches!(value("a"), Node::Int(12)), "{tree:?}");
            assert!(matches!(value("b"), Node::Bool(true)), "{tree:?}");
            assert!(matches!(value("c"), Node::Int(-3)), "{tree:?}");
            assert!(matches!(value("d"), Node::Opaque), "{tree:?}");
            assert!(tree.find(tree.root(), "e").is_none());
        }
    }

    #[test]
    fn numbers_keep_their_sign_and_width() {
        for (bytes, expected) in [
            (b"J\xff\xff\xff\xff.".as_slice(), -1),
            (b"M\xe9\x03.", 1001),
            (b"\x8a\0.", 0),
            (b"\x8a\x02\0\x80.", -32768),
            (b"\x8b\x01\0\0\0\x7f.", 127),
        ] {
            let (tree, _) = read(bytes, "f").expect("a number");
            assert!(matches!(tree.node(tree.root()), Node::Int(value) if *value == expected));
        }
        let (tree, _) = read(b"\x8a\x09\x01\0\0\0\0\0\0\0\x01.", "f").expect("a number");
        assert!(matches!(tree.node(tree.root()), Node::Long(bytes) if bytes.len() == 9));
    }

    #[test]
    fn other_libraries_objects_are_stepped_over() {
        let namespaces: [&[u8]; 4] = [
            b"cargparse\nNamespace\n)\x81}(X\x02\0\0\0lrG\0\0\0\0\0\0\0\0ub.",
            b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR}b.",
            b"(iargparse\nNamespace\n}b.",
            b"cargparse\nNamespace\n)}\x92.",
        ];
        for bytes in namespaces {
            let (tree, _) = read(bytes, "f").expect("an object");
            assert!(matches!(tree.node(tree.root()), Node::Opaque));
        }
    }

    #[test]
    fn dictionaries_of_every_writer_are_read() {
        for rest in [
            b")R(X\x01\0\0\0kK\x05u}X\x09\0\0\0_metadata}sb.".as_slice(),
            b"](](X\x01\0\0\0kK\x05ee\x85R.",
        ] {
            let bytes = after_ordered_dict(rest);
            let (tree, _) = read(&bytes, "f").expect("a dictionary");
            let value = tree.find(tree.root(), "k").expect("k");
            assert!(matches!(tree.node(value), Node::Int(5)));
        }
        let fault = refusal(&after_ordered_dict(b"](](K\x05ee\x85R."));
        assert!(fault.contains("a key without a value"), "{fault}");
    }

    #[test]
    fn names_that_are_not_known_are_refused_before_any_use() {
        for bytes in [
            b"c__builtin__\neval\n.".as_slice(),
            b"\x8c\x0b__builtin__\x8c\x04eval\x93.",
            b"(i__builtin__\neval\n.",
        ] {
            let says = "f.pth: asks to run `__builtin__.eval`; nothing was run";
            assert!(refusal(bytes).starts_with(says), "{}", refusal(bytes));
        }
        let strange = refusal(&[b"c\x1b[2J\n", [b'x'; 5000].as_slice(), b"\n."].concat());
        assert!(
            strange.len() < 500 && !strange.contains('\x1b'),
            "{strange}"
        );
        for (module, name) in [
            ("os", "system"),
            ("torch", "load"),
            ("torch", "hub.load"),
            ("torch._utils", "_rebuild_tensor_v2.__globals__"),
            ("builtins", "getattr"),
        ] {
            assert_eq!(callee(module, name), None, "{module}.{name}");
        }
    }

    #[test]
    fn damaged_pickles_are_refused() {
        for (bytes, says) in [
            (b"".as_slice(), "ends early"),
            (b"K", "ends early"),
            (b"X\xff\xff\xff\xffab.", "ends early"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "ends early"),
            (b"c__main__", "ends early"),
            (b".", "never made"),
            (b"K\x01(\x85.", "never made"),
            (b"t.", "never set"),
            (b"h\x07.", "before it is made"),
            (b"K\x01K\x02s.", "takes a value"),
            (b"}K\x01K\x02K\x03K\x04\x87u.", "never set"),
            (b"}(K\x01u.", "a key without a value"),
            (b"K\x01(K\x02e.", "holds none"),
            (b"K\x01)R.", "no function"),
            (b"K\x01K\x02b.", "attributes"),
            (b"K\x01Q.", "where a list belongs"),
            (b")Q.", "no storage"),
            (b"\x80\x09.", "protocol 9"),
            (b"X\x01\0\0\0\xff.", "not UTF-8"),
            (b"\xff.", "unknown instruction 0xff"),
            (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "too few"),
            (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR.", "no storage"),
        ] {
            let fault = refusal(bytes);
            assert!(fault.contains(says), "{bytes:?}: {fault}");
        }
    }

    #[test]
    fn bombs_stay_small() {
        let nested = [
            vec![b']'; 1 << 20],
            vec![b'a'; (1 << 20) - 1],
            b".".to_vec(),
        ]
        .concat();
        assert!(read(&nested, "f").is_ok());
        let own_item = b"]q\0h\0a.";
        assert!(read(own_item, "f").is_ok());
        let endless = vec![b'N'; MAX_STEPS + 1];
        assert!(refusal(&endless).contains("instructions"));
        let mut copies = after_ordered_dict(b"q\0](");
        copies.extend(b"NN\x86".repeat(2000));
        copies.extend(b"eq\x01");
        copies.extend(b"h\0h\x01\x85R0".repeat(5000));
        copies.push(b'.');
        assert!(refusal(&copies).contains("instructions"));
    }
}
