//! Parser for the Python pickles that PyTorch writes. Nothing in a pickle is executed.
//!
//! A pickle is a program for a stack machine that may call any Python function. Here its instructions
//! only build values. The few functions that checkpoints need are an allow list ([`callee`]) and are
//! values as well; every other name is an error. The instructions are those of Python's `pickletools`,
//! protocols 0 to 5.

use std::collections::HashMap;

use safetensors::Dtype;

use crate::error::{Fault, FaultKind};

/// Maximum instructions and copied items of a pickle; limits memory to some hundred megabytes.
const MAX_STEPS: usize = 1 << 22;

/// Maximum axes of a tensor.
const MAX_RANK: usize = 32;

/// Index of a value in its [`Tree`].
pub type Id = u32;

/// A value. Containers hold the indices of their items, so values may be shared and may contain
/// themselves.
#[derive(Debug)]
pub enum Node<'a> {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer beyond 64 bits: two's complement, little-endian.
    Long(&'a [u8]),
    /// A string.
    Text(&'a str),
    /// A list, tuple or set.
    Sequence(Vec<Id>),
    /// Keys and values in their written order.
    Dict(Vec<(Id, Id)>),
    /// An allowed function or type.
    Global(Callee),
    /// Elements stored outside the pickle.
    Storage(Storage<'a>),
    /// A view of a storage.
    Tensor(Box<Stored<'a>>),
    /// A value that is not needed: a float, bytes, an object of another library.
    Opaque,
}

/// Elements stored outside the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Its key in the file.
    pub key: &'a str,
    /// The dtype of its length.
    pub dtype: Dtype,
    /// Its length in elements of `dtype`.
    pub elements: u64,
}

/// A tensor as a view of a storage.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The storage of its elements.
    pub storage: Storage<'a>,
    /// Its dtype; differs from the storage's only for storages of bytes.
    pub dtype: Dtype,
    /// The offset of its first element in elements of `dtype`.
    pub offset: u64,
    /// Elements along each axis.
    pub shape: Vec<usize>,
    /// Strides in elements.
    pub strides: Vec<usize>,
}

/// A function or type that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// `torch._utils._rebuild_tensor` and `.._v2`: a tensor of its storage's dtype.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`: a tensor of a given dtype.
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
    /// A type whose objects are ignored.
    Inert,
}

/// The values of one pickle.
#[derive(Debug)]
pub struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    root: Id,
}

impl<'a> Tree<'a> {
    /// The pickle's result.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The value at `id`.
    pub fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    /// The string at `id`, if it is one.
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

    /// All storages.
    pub fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The value under `key` of the dictionary at `id`; of a repeated key the last one.
    pub fn find(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?.iter().rev();
        entries
            .map(|&(name, value)| (self.text(name), value))
            .find_map(|(name, value)| (name == Some(key)).then_some(value))
    }
}

/// Parses the pickle at the start of `bytes`; returns its values and its length in bytes. `place` names
/// the file in errors.
///
/// # Errors
/// The pickle is truncated, invalid or too large, or names a function that is not allowed.
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
        Err(Invalid::Disallowed(name)) => Err(Fault::new(
            FaultKind::Model,
            place,
            format!("asks to run `{name}`; nothing was run"),
            "Take the checkpoint from its authors, or save only its tensors",
        )),
        Err(Invalid::Damaged(what)) => Err(Fault::model(
            place,
            format!("its pickle {what} (byte {})", machine.at),
        )),
    }
}

/// The meaning of `module.name`, if it is allowed.
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

/// The meaning of `torch.name`, if it is allowed.
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

/// Why a pickle is rejected.
enum Invalid {
    /// It names this function, which is not allowed.
    Disallowed(String),
    /// It is damaged.
    Damaged(String),
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid::Damaged(what.into()))
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
    /// Stack lengths at marks; values below the last mark cannot be popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    steps: usize,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, Invalid> {
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
                b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memo(opcode)?,
                b'N' | 0x88 | 0x89 | b'I' | b'L' | b'J' | b'K' | b'M' | 0x8a | 0x8b => {
                    self.number(opcode)?;
                }
                b'F' | b'G' | b'B' | b'C' | 0x8e | 0x96 => self.ignored(opcode)?,
                b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d => self.string(opcode)?,
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

    fn spend(&mut self, steps: usize) -> Result<(), Invalid> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return damaged(format!("has more than {MAX_STEPS} instructions"));
        }
        Ok(())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Invalid> {
        let rest = &self.input[self.at..];
        match usize::try_from(count) {
            Ok(count) if count <= rest.len() => {
                self.at += count;
                Ok(&rest[..count])
            }
            _ => damaged("ends early"),
        }
    }

    fn byte(&mut self) -> Result<u8, Invalid> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian unsigned integer of `width` bytes.
    fn unsigned(&mut self, width: u64) -> Result<u64, Invalid> {
        let bytes = self.take(width)?.iter().rev();
        Ok(bytes.fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// Bytes preceded by their number in `width` bytes.
    fn counted(&mut self, width: u64) -> Result<&'a [u8], Invalid> {
        let count = self.unsigned(width)?;
        self.take(count)
    }

    /// The text up to the next newline, which is skipped.
    fn line(&mut self) -> Result<&'a str, Invalid> {
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

    fn top(&self) -> Result<Id, Invalid> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => damaged("pops from an empty stack"),
        }
    }

    fn pop(&mut self) -> Result<Id, Invalid> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// Pops everything above the last mark, and the mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Invalid> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => damaged("pops to a mark that was not set"),
        }
    }

    fn protocol(&mut self) -> Result<(), Invalid> {
        match self.byte()? {
            0..=5 => Ok(()),
            version => damaged(format!("is of protocol {version}; 0 to 5 are known")),
        }
    }

    /// Stores the top value in the memo, or pushes a value from it.
    fn memo(&mut self, opcode: u8) -> Result<(), Invalid> {
        let index = match opcode {
            b'q' | b'h' => self.unsigned(1)? as u32,
            b'r' | b'j' => self.unsigned(4)? as u32,
            0x94 => self.memo.len() as u32,
            _ => match self.line()?.parse() {
                Ok(index) => index,
                Err(_) => return damaged("has a memo index that is no number"),
            },
        };
        if matches!(opcode, b'p' | b'q' | b'r' | 0x94) {
            self.memo.insert(index, self.top()?);
        } else {
            match self.memo.get(&index) {
                Some(&id) => self.stack.push(id),
                None => return damaged(format!("reads memo {index} before it is stored")),
            }
        }
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Result<(), Invalid> {
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

    /// Values that are ignored.
    fn ignored(&mut self, opcode: u8) -> Result<(), Invalid> {
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

    fn string(&mut self, opcode: u8) -> Result<(), Invalid> {
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

    fn sequence(&mut self, opcode: u8) -> Result<(), Invalid> {
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

    /// Creates dictionaries and adds items to containers.
    fn fill(&mut self, opcode: u8) -> Result<(), Invalid> {
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
                    return damaged("has a key without a value");
                };
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            (Node::Opaque, _) => {}
            _ => return damaged("adds items to a value that is no container"),
        }
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<(), Invalid> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (text(&self.nodes, module), text(&self.nodes, name)) {
                (Some(module), Some(name)) => (module, name),
                _ => return damaged("names a function by a value that is no string"),
            }
        };
        let callee = allowed(module, name)?;
        self.push(Node::Global(callee));
        Ok(())
    }

    /// The instructions that call a function.
    fn apply(&mut self, opcode: u8) -> Result<(), Invalid> {
        let (function, arguments) = match opcode {
            b'i' => {
                let callee = allowed(self.line()?, self.line()?)?;
                let items = self.pop_to_mark()?;
                let items = self.add(Node::Sequence(items));
                (self.add(Node::Global(callee)), items)
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
            return damaged("calls a value that is no function");
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
                    return damaged("has a tensor whose dtype is no dtype");
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

    fn items(&self, id: Id) -> Result<&[Id], Invalid> {
        match &self.nodes[id as usize] {
            Node::Sequence(items) => Ok(items),
            _ => damaged("has another value instead of a list"),
        }
    }

    fn argument(&self, arguments: Id, index: usize) -> Result<Id, Invalid> {
        match self.items(arguments)?.get(index) {
            Some(&id) => Ok(id),
            None => damaged("calls a function with too few arguments"),
        }
    }

    fn unsigned_value(&self, id: Id) -> Result<u64, Invalid> {
        match self.nodes[id as usize] {
            Node::Int(value) if value >= 0 => Ok(value as u64),
            _ => damaged("has a size or offset that is no unsigned integer"),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>, Invalid> {
        let items = self.items(id)?;
        if items.len() > MAX_RANK {
            return damaged(format!("has a tensor of more than {MAX_RANK} axes"));
        }
        items
            .iter()
            .map(|&id| Ok(self.unsigned_value(id)? as usize))
            .collect()
    }

    /// A tensor from the arguments storage, offset, shape and strides; others are ignored.
    fn tensor(&mut self, arguments: Id, dtype: Option<Dtype>) -> Result<Stored<'a>, Invalid> {
        let storage = self.argument(arguments, 0)?;
        let Node::Storage(storage) = self.nodes[storage as usize] else {
            return damaged("has a tensor whose storage is no storage");
        };
        self.spend(2 * MAX_RANK)?;
        let shape = self.sizes(self.argument(arguments, 2)?)?;
        let strides = self.sizes(self.argument(arguments, 3)?)?;
        if shape.len() != strides.len() {
            return damaged("has a tensor with different numbers of sizes and strides");
        }
        Ok(Stored {
            dtype: dtype.unwrap_or(storage.dtype),
            storage,
            offset: self.unsigned_value(self.argument(arguments, 1)?)?,
            shape,
            strides,
        })
    }

    /// The entries of `OrderedDict([[key, value], ..])` as Python 2 writes it.
    fn pairs(&mut self, arguments: Id) -> Result<Vec<(Id, Id)>, Invalid> {
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
                _ => damaged("has a key without a value"),
            })
            .collect()
    }

    /// Sets attributes of an object; they are ignored.
    fn build(&mut self) -> Result<(), Invalid> {
        self.pop()?;
        let target = self.top()?;
        match self.nodes[target as usize] {
            Node::Opaque | Node::Dict(_) => Ok(()),
            _ => damaged("sets attributes of a value that has none"),
        }
    }

    /// A persistent id `("storage", type, key, device, elements)`: elements outside the pickle.
    fn persistent(&mut self) -> Result<(), Invalid> {
        let id = self.pop()?;
        let items = self.items(id)?;
        let Some((&[tag, kind, key, _, elements], views)) = items.split_first_chunk::<5>() else {
            return damaged("has a persistent id that is no storage");
        };
        let named = (text(&self.nodes, tag), text(&self.nodes, key));
        let (Node::Global(Callee::Storage(dtype)), (Some("storage"), Some(key))) =
            (&self.nodes[kind as usize], named)
        else {
            return damaged("has a persistent id that is no storage");
        };
        let is_whole = |&view: &Id| matches!(self.nodes[view as usize], Node::None);
        if !views.iter().all(is_whole) {
            return damaged("has a view of a storage, as PyTorch before 0.4 wrote them");
        }
        let storage = Storage {
            key,
            dtype: *dtype,
            elements: self.unsigned_value(elements)?,
        };
        self.push(Node::Storage(storage));
        Ok(())
    }
}

fn allowed(module: &str, name: &str) -> Result<Callee, Invalid> {
    callee(module, name).ok_or_else(|| {
        let shown: String = format!("{module}.{name}").chars().take(200).collect();
        Invalid::Disallowed(shown.escape_debug().to_string())
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, Invalid> {
    std::str::from_utf8(bytes).or_else(|_| damaged("has a string that is not UTF-8"))
}

/// An integer in two's complement, little-endian.
fn long<'a>(bytes: &'a [u8]) -> Node<'a> {
    if bytes.len() > 8 {
        return Node::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut extended = [if negative { 0xff } else { 0 }; 8];
    extended[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(extended))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(bytes: &[u8]) -> String {
        read(bytes, "f.pth").expect_err("rejected").to_string()
    }

    /// `OrderedDict`, followed by the instructions `rest`.
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
    fn objects_of_other_libraries_are_ignored() {
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
    fn dictionaries_of_python_2_and_3_are_read() {
        for rest in [
            b")R(X\x01\0\0\0kK\x05u}X\x09\0\0\0_metadata}sb.".as_slice(),
            b"](](X\x01\0\0\0kK\x05ee\x85R.",
        ] {
            let bytes = after_ordered_dict(rest);
            let (tree, _) = read(&bytes, "f").expect("a dictionary");
            let value = tree.find(tree.root(), "k").expect("k");
            assert!(matches!(tree.node(value), Node::Int(5)));
        }
        let fault = error_of(&after_ordered_dict(b"](](K\x05ee\x85R."));
        assert!(fault.contains("a key without a value"), "{fault}");
    }

    #[test]
    fn other_functions_are_rejected_where_they_are_named() {
        for bytes in [
            b"c__builtin__\neval\n.".as_slice(),
            b"\x8c\x0b__builtin__\x8c\x04eval\x93.",
            b"(i__builtin__\neval\n.",
        ] {
            let message = "f.pth: asks to run `__builtin__.eval`; nothing was run";
            assert!(error_of(bytes).starts_with(message), "{}", error_of(bytes));
        }
        let strange = error_of(&[b"c\x1b[2J\n", [b'x'; 5000].as_slice(), b"\n."].concat());
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
    fn damaged_pickles_are_rejected() {
        for (bytes, message) in [
            (b"".as_slice(), "ends early"),
            (b"K", "ends early"),
            (b"X\xff\xff\xff\xffab.", "ends early"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "ends early"),
            (b"c__main__", "ends early"),
            (b".", "empty stack"),
            (b"K\x01(\x85.", "empty stack"),
            (b"t.", "not set"),
            (b"h\x07.", "before it is stored"),
            (b"K\x01K\x02s.", "empty stack"),
            (b"}K\x01K\x02K\x03K\x04\x87u.", "not set"),
            (b"}(K\x01u.", "a key without a value"),
            (b"K\x01(K\x02e.", "no container"),
            (b"K\x01)R.", "no function"),
            (b"K\x01K\x02b.", "attributes"),
            (b"K\x01Q.", "instead of a list"),
            (b")Q.", "no storage"),
            (b"\x80\x09.", "protocol 9"),
            (b"X\x01\0\0\0\xff.", "not UTF-8"),
            (b"\xff.", "unknown instruction 0xff"),
            (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "too few"),
            (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR.", "no storage"),
        ] {
            let fault = error_of(bytes);
            assert!(fault.contains(message), "{bytes:?}: {fault}");
        }
    }

    #[test]
    fn memory_is_limited() {
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
        assert!(error_of(&endless).contains("instructions"));
        let mut copies = after_ordered_dict(b"q\0](");
        copies.extend(b"NN\x86".repeat(2000));
        copies.extend(b"eq\x01");
        copies.extend(b"h\0h\x01\x85R0".repeat(5000));
        copies.push(b'.');
        assert!(error_of(&copies).contains("instructions"));
    }
}
