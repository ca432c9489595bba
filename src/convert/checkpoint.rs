//! Tensors of checkpoint files: their places, and their values on demand.
//!
//! Only headers are parsed when opening, so a checkpoint of many gigabytes opens at once. Several threads
//! may read tensors in chunks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::disk::{self, InputFile};
use super::pth;
use super::tensor_view::TensorView;
use crate::error::{ErrorCode, Fault};
use crate::weights::DType;

/// The index of a hub folder's shards.
const INDEX: &str = "model.safetensors.index.json";

/// The file of a hub folder without shards.
const SINGLE: &str = "model.safetensors";

/// Maximum bytes of a safetensors header, by the format, and of an index.
const MAX_HEADER: u64 = 100_000_000;

/// Maximum bytes of a `.pth` file where files are not mapped: it is then in memory as a whole.
const MAX_PTH: Option<u64> = if cfg!(feature = "native") {
    None
} else {
    Some(2 << 30)
};

/// Maximum tensor names in a message.
const MAX_LISTED: usize = 10;

/// Maximum bytes of the tensor names in a message; the first is always whole.
const MAX_LISTED_BYTES: usize = 256;

/// Tensor names for a message: the first ones, and the number of the others.
pub fn name_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut bytes = 0;
    let fits = |name: &&&str| {
        let fits = bytes == 0 || bytes + name.len() <= MAX_LISTED_BYTES;
        bytes += name.len();
        fits
    };
    let shown = names.iter().take(MAX_LISTED).take_while(fits).count();
    let list = names[..shown].join(", ");
    match names.len() - shown {
        0 => list,
        others => format!("{list} and {others} more"),
    }
}

/// Little-endian elements as f32, rounded to the nearest; `None` if the dtype holds other than floating-point numbers.
fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F64 => {
            let values = bytes.as_chunks::<8>().0.iter();
            values
                .map(|bytes| f64::from_le_bytes(*bytes) as f32)
                .collect()
        }
        Dtype::F32 => DType::F32.to_f32(bytes),
        Dtype::F16 => DType::F16.to_f32(bytes),
        Dtype::BF16 => DType::BF16.to_f32(bytes),
        _ => return None,
    })
}

/// The tensors of one published model.
pub struct Checkpoint {
    files: Vec<InputFile>,
    tensors: BTreeMap<String, TensorView>,
}

impl Checkpoint {
    /// A folder as the Hugging Face hub serves it: the shards that `model.safetensors.index.json`
    /// lists, else `model.safetensors`, else every `*.safetensors`.
    ///
    /// # Errors
    /// No such files, a damaged file, a missing shard or tensor that the index names, a tensor in two
    /// shards, a shard outside the folder.
    pub fn hub(folder: &Path) -> Result<Self, Fault> {
        let index = folder.join(INDEX);
        if disk::exists(&index) {
            return Self::sharded(folder, &index);
        }
        let single = folder.join(SINGLE);
        if disk::exists(&single) {
            return Self::safetensors(&single);
        }
        let mut paths = disk::list(folder)?;
        paths.retain(|path| {
            path.extension()
                .is_some_and(|ending| ending == "safetensors")
        });
        if paths.is_empty() {
            return Err(Fault::model(
                folder.display().to_string(),
                format!("holds neither {INDEX} nor a safetensors file"),
            ));
        }
        paths.sort();
        Self::shards(&paths)
    }

    /// One safetensors file.
    ///
    /// # Errors
    /// It cannot be read, or its header is invalid; the tensor is named.
    pub fn safetensors(path: &Path) -> Result<Self, Fault> {
        Self::shards(&[path.to_path_buf()])
    }

    /// UPN's weights: a `.pth` of either layout or a safetensors file, distinguished by content. Of a
    /// `.pth`, the tensors under `model`, else under `state_dict`, else at the top level.
    ///
    /// # Errors
    /// It cannot be read, is of another kind, or is damaged; see [`pth::locate`].
    pub fn open_upn(path: &Path) -> Result<Self, Fault> {
        let file = InputFile::open(path)?;
        let place = file.place();
        let begin = file.read(0..file.len().min(16))?;
        let tensors = if begin.get(8) == Some(&b'{') {
            header(&file)?
        } else if pth::is_zip(&begin) || pth::is_legacy(&begin) {
            if let Some(most) = MAX_PTH.filter(|most| file.len() > *most) {
                let what = format!("has {} bytes; at most {most} are read here", file.len());
                return Err(Fault::model(place, what).code(ErrorCode::Unsupported));
            }
            pth::locate(file.head(file.len())?, &place)?
        } else {
            return Err(Fault::model(
                place,
                "is neither a PyTorch file nor a safetensors file",
            ));
        };
        drop(begin);
        let mut checkpoint = Self::empty();
        checkpoint.add(file, tensors)?;
        Ok(checkpoint)
    }

    fn empty() -> Self {
        Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
        }
    }

    fn sharded(folder: &Path, index: &Path) -> Result<Self, Fault> {
        let listed = read_index(index)?;
        let names: BTreeSet<&str> = listed.values().map(String::as_str).collect();
        let mut paths = Vec::new();
        for name in names {
            let path = folder.join(name);
            if !disk::is_file(&path) {
                let tensor = listed.iter().find(|(_, shard)| *shard == name);
                let tensor = tensor.map_or("", |(tensor, _)| tensor);
                return Err(Fault::model(
                    path.display().to_string(),
                    format!("is missing; {INDEX} names it for tensor {tensor}"),
                ));
            }
            paths.push(path);
        }
        let checkpoint = Self::shards(&paths)?;
        for (tensor, shard) in &listed {
            let path = folder.join(shard);
            let found = checkpoint
                .get(tensor)
                .is_some_and(|view| checkpoint.files[view.file].path() == path);
            if !found {
                return Err(Fault::model(
                    format!("{}, tensor {tensor}", path.display()),
                    format!("is named by {INDEX} but not in the file"),
                ));
            }
        }
        Ok(checkpoint)
    }

    fn shards(paths: &[PathBuf]) -> Result<Self, Fault> {
        let mut checkpoint = Self::empty();
        for path in paths {
            let file = InputFile::open(path)?;
            let tensors = header(&file)?;
            checkpoint.add(file, tensors)?;
        }
        Ok(checkpoint)
    }

    /// Adds the tensors of one file, after checking that each lies within it and has no more elements
    /// than fit into it.
    fn add(&mut self, file: InputFile, tensors: BTreeMap<String, TensorView>) -> Result<(), Fault> {
        let size = file.len();
        for (name, mut view) in tensors {
            let place = format!("{}, tensor {name}", file.place());
            let end = view
                .extent()
                .and_then(|extent| extent.checked_add(view.offset));
            if end.is_none_or(|end| end > size) {
                return Err(Fault::model(place, "reaches beyond the end of the file"));
            }
            let bits = view.elements() as u128 * view.dtype.bitsize() as u128;
            if bits > u128::from(size) * 8 {
                return Err(Fault::model(
                    place,
                    format!(
                        "repeats elements: {:?} are more than the file holds",
                        view.shape
                    ),
                ));
            }
            view.file = self.files.len();
            if let Some(other) = self.tensors.get(&name) {
                let other = self.files[other.file].place();
                return Err(Fault::model(place, format!("is in {other} too")));
            }
            self.tensors.insert(name, view);
        }
        self.files.push(file);
        Ok(())
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The view of tensor `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&TensorView> {
        self.tensors.get(name)
    }

    /// Tensor `name` with its file, for messages; the name alone if there is none.
    pub fn place(&self, name: &str) -> String {
        match self.get(name) {
            Some(view) => format!("{}, tensor {name}", self.files[view.file].place()),
            None => format!("tensor {name}"),
        }
    }

    fn find(&self, name: &str) -> Result<&TensorView, Fault> {
        self.get(name)
            .ok_or_else(|| Fault::model(self.place(name), "is missing"))
    }

    /// `elements` of tensor `name` in row-major order, rounded to the nearest f32.
    ///
    /// # Errors
    /// There is no such tensor or it is not of F64, F32, F16 or BF16.
    ///
    /// # Panics
    /// The range reaches beyond the tensor.
    pub fn read_f32(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>, Fault> {
        let view = self.find(name)?;
        let size = view.elements();
        assert!(
            elements.start <= elements.end && elements.end <= size,
            "{elements:?} of {size} elements"
        );
        let raw = self.gather(view, elements)?;
        floats(view.dtype, &raw).ok_or_else(|| {
            Fault::model(
                self.place(name),
                format!(
                    "has dtype {:?}, which is not supported for weights",
                    view.dtype
                ),
            )
        })
    }

    /// `rows` of tensor `name` as f32; a row spans all axes but the first. A scalar is one row.
    ///
    /// # Errors
    /// As [`Checkpoint::read_f32`].
    ///
    /// # Panics
    /// The range reaches beyond the tensor.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Fault> {
        let shape = &self.find(name)?.shape;
        let width: usize = shape.iter().skip(1).product();
        self.read_f32(name, rows.start * width..rows.end * width)
    }

    /// All values of tensor `name` as f32, row-major.
    ///
    /// # Errors
    /// As [`Checkpoint::read_f32`].
    pub fn values(&self, name: &str) -> Result<Vec<f32>, Fault> {
        let elements = self.find(name)?.elements();
        self.read_f32(name, 0..elements)
    }

    /// The stored bytes of tensor `name`, row-major and little-endian.
    ///
    /// # Errors
    /// There is no such tensor, or its elements are not in this order.
    pub fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, Fault> {
        let view = self.find(name)?;
        if !view.is_contiguous() {
            return Err(Fault::model(
                self.place(name),
                format!(
                    "has strides {:?}: its elements are not in row-major order",
                    view.strides
                ),
            ));
        }
        let extent = view.extent().expect("checked when it was added");
        self.span(view, 0..extent)
    }

    /// Bytes of a file, counted from the first element of a tensor.
    fn span(&self, view: &TensorView, bytes: Range<u64>) -> Result<Cow<'_, [u8]>, Fault> {
        let file = &self.files[view.file];
        file.read(view.offset + bytes.start..view.offset + bytes.end)
    }

    /// The bytes of `elements` of a tensor in row-major order.
    fn gather(&self, view: &TensorView, elements: Range<usize>) -> Result<Cow<'_, [u8]>, Fault> {
        let width = view.dtype.bitsize() / 8;
        if elements.is_empty() {
            return Ok(Cow::Borrowed(&[]));
        }
        if view.is_contiguous() {
            let (start, end) = (elements.start as u64, elements.end as u64);
            return self.span(view, start * width as u64..end * width as u64);
        }
        let extent = view.extent().expect("checked when it was added");
        let all = self.span(view, 0..extent)?;
        let mut gathered = Vec::with_capacity(elements.len() * width);
        let mut index = unravel(elements.start, &view.shape);
        for _ in elements {
            let axes = index.iter().zip(&view.strides);
            let at = axes.map(|(index, stride)| index * stride).sum::<usize>() * width;
            gathered.extend_from_slice(&all[at..at + width]);
            advance(&mut index, &view.shape);
        }
        Ok(Cow::Owned(gathered))
    }
}

/// The index along each axis of element `element` in row-major order.
fn unravel(mut element: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, size) in index.iter_mut().zip(shape).rev() {
        *place = element % size;
        element /= size;
    }
    index
}

/// Moves `index` to the next element in row-major order.
fn advance(index: &mut [usize], shape: &[usize]) {
    for (place, size) in index.iter_mut().zip(shape).rev() {
        *place += 1;
        if *place < *size {
            return;
        }
        *place = 0;
    }
}

/// A JSON object in its written order; a repeated key is an error.
pub(super) struct Members(pub Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut seen = BTreeSet::new();
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if !seen.insert(name.clone()) {
                        return Err(de::Error::custom(format!("`{name}` is named twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// The shard of every tensor in an index.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, Fault> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Members,
    }
    let file = InputFile::open(path)?;
    let place = file.place();
    if file.len() > MAX_HEADER {
        return Err(Fault::model(place, "is too large for an index"));
    }
    let index: Index = serde_json::from_slice(&file.read(0..file.len())?)
        .map_err(|error| Fault::model(&place, format!("is not an index of shards ({error})")))?;
    let mut listed = BTreeMap::new();
    for (tensor, shard) in index.weight_map.0 {
        let plain = shard
            .as_str()
            .filter(|name| !name.is_empty() && !name.contains(['/', '\\', ':', '\0']))
            .filter(|name| !name.starts_with('.'));
        let Some(shard) = plain else {
            return Err(Fault::model(
                format!("{place}, tensor {tensor}"),
                format!("its shard {shard} is not the name of a file in the folder"),
            ));
        };
        listed.insert(tensor, shard.to_string());
    }
    if listed.is_empty() {
        return Err(Fault::model(place, "lists no tensors"));
    }
    Ok(listed)
}

/// One tensor in the header of a safetensors file.
#[derive(Deserialize)]
struct HeaderEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The tensors of a safetensors file (`github.com/huggingface/safetensors`, "Format"): the length of the
/// header in 8 bytes, a JSON header, then the tensors' bytes without gaps.
fn header(file: &InputFile) -> Result<BTreeMap<String, TensorView>, Fault> {
    let place = &*file.place();
    let size = file.len();
    let begin = file.read(0..size.min(8))?;
    let Some(length) = begin.first_chunk::<8>() else {
        let what = format!("is cut: {size} bytes are no safetensors file");
        return Err(Fault::model(place, what));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > size - 8 {
        return Err(Fault::model(
            place,
            format!("is cut or no safetensors file: a header of {length} bytes does not fit"),
        ));
    }
    let json = &*file.read(8..8 + length)?;
    let members: Members = serde_json::from_slice(json)
        .map_err(|error| Fault::model(place, format!("has no safetensors header ({error})")))?;
    let mut entries = Vec::new();
    for (name, value) in members.0 {
        if name == "__metadata__" {
            continue;
        }
        let entry: HeaderEntry = serde_json::from_value(value).map_err(|error| {
            Fault::model(
                format!("{place}, tensor {name}"),
                format!("is not described ({error})"),
            )
        })?;
        entries.push((name, entry));
    }
    let base = 8 + length;
    check_layout(entries, base, size - base, place)
}

/// Checks that `entries` fill the `size` bytes from byte `base` of their file without gaps or overlaps.
fn check_layout(
    mut entries: Vec<(String, HeaderEntry)>,
    base: u64,
    size: u64,
    place: &str,
) -> Result<BTreeMap<String, TensorView>, Fault> {
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut at = 0;
    let mut views = BTreeMap::new();
    for (name, entry) in entries {
        let place = format!("{place}, tensor {name}");
        let (start, end) = entry.data_offsets;
        if start != at || end < start || end > size {
            return Err(Fault::model(
                place,
                format!("is at {start}..{end} where {at} of {size} bytes are taken"),
            ));
        }
        let view = TensorView::contiguous(entry.dtype, entry.shape, base + start);
        if view.extent() != Some(end - start) {
            return Err(Fault::model(
                place,
                format!(
                    "is {} bytes, which are not {:?} {:?}",
                    end - start,
                    view.dtype,
                    view.shape
                ),
            ));
        }
        at = end;
        views.insert(name, view);
    }
    if at != size {
        return Err(Fault::model(
            place,
            format!("has {size} bytes of tensors where its header describes {at}"),
        ));
    }
    Ok(views)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::convert::pth::test_files;
    use crate::weights::dtype::first_not_finite;

    const GOLDEN: &str = "tests/data/golden";

    fn golden(path: &str) -> PathBuf {
        Path::new(GOLDEN).join(path)
    }

    /// A temporary folder with these files.
    fn folder_with(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (file, bytes) in files {
            std::fs::write(folder.path().join(file), bytes).expect("a file");
        }
        folder
    }

    fn shard(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes);
            (*name, view.expect("shape and values agree"))
        });
        safetensors::serialize(views, None).expect("small tensors serialise")
    }

    fn one(name: &str, value: f32) -> Vec<u8> {
        shard(&[(name, Dtype::F32, vec![1], value.to_le_bytes().to_vec())])
    }

    fn raw(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn error_of<T>(result: Result<T, Fault>) -> String {
        match result {
            Ok(_) => panic!("accepted"),
            Err(fault) => fault.to_string(),
        }
    }

    fn rounded(dtype: Dtype, value: f32) -> f32 {
        match dtype {
            Dtype::F16 => half::f16::from_f32(value).to_f32(),
            Dtype::BF16 => half::bf16::from_f32(value).to_f32(),
            _ => value,
        }
    }

    /// Asserts that the tensors in both checkpoints are equal after rounding; returns their number.
    fn assert_equal(checkpoint: &Checkpoint, expected: &Checkpoint) -> usize {
        let mut count = 0;
        for name in checkpoint.names() {
            let (actual, Some(wanted)) = (checkpoint.get(name).expect(name), expected.get(name))
            else {
                continue;
            };
            assert_eq!(actual.shape, wanted.shape, "{name}");
            if actual.dtype == Dtype::I64 {
                assert_eq!(checkpoint.bytes(name), expected.bytes(name), "{name}");
            } else {
                let wanted = expected.values(name).expect(name);
                let wanted: Vec<f32> = wanted.iter().map(|&v| rounded(actual.dtype, v)).collect();
                assert_eq!(checkpoint.values(name).expect(name), wanted, "{name}");
            }
            count += 1;
        }
        count
    }

    #[test]
    fn long_lists_of_names_are_cut() {
        assert_eq!(name_list([]), "");
        assert_eq!(name_list(["a"]), "a");
        let short: Vec<String> = (0..607).map(|i| format!("t{i}")).collect();
        let list = |count: usize| name_list(short[..count].iter().map(String::as_str));
        let ten = "t0, t1, t2, t3, t4, t5, t6, t7, t8, t9";
        assert_eq!(list(10), ten);
        assert_eq!(list(11), format!("{ten} and 1 more"));
        assert_eq!(list(607), format!("{ten} and 597 more"));
        let long = "n".repeat(100);
        let list = name_list([&*long; 12]);
        assert_eq!(list, format!("{long}, {long} and 10 more"));
        let longest = "n".repeat(1000);
        assert_eq!(name_list([&*longest, "a"]), format!("{longest} and 1 more"));
    }

    #[test]
    fn a_hub_folder_holds_the_recorded_weights() {
        let checkpoint = Checkpoint::hub(&golden("checkpoint/chatrex")).expect("a folder");
        let expected = Checkpoint::safetensors(&golden("rexseek/weights.safetensors"));
        let expected = expected.expect("a file");
        assert_eq!(
            assert_equal(&checkpoint, &expected),
            expected.names().count()
        );
        let types: BTreeSet<String> = checkpoint
            .names()
            .map(|name| format!("{:?}", checkpoint.get(name).expect(name).dtype))
            .collect();
        assert_eq!(
            types.into_iter().collect::<Vec<_>>(),
            ["BF16", "F16", "F32"]
        );
        assert!(checkpoint.get("lm_head.weight").is_some());
    }

    #[test]
    fn a_zip_pth_holds_the_recorded_weights_and_one_other() {
        let checkpoint = Checkpoint::open_upn(&golden("checkpoint/upn_tiny.pth")).expect("a file");
        let expected = Checkpoint::open_upn(&golden("upn/weights.safetensors")).expect("a file");
        let left_over: Vec<&str> = checkpoint
            .names()
            .filter(|name| expected.get(name).is_none())
            .collect();
        assert_eq!(
            left_over,
            ["transformer.some_leftover_from_pretraining.weight"]
        );
        assert_eq!(
            assert_equal(&checkpoint, &expected),
            expected.names().count()
        );
    }

    #[test]
    fn a_legacy_pth_holds_a_part_of_the_recorded_weights() {
        let path = golden("checkpoint/upn_cut_legacy.pth");
        let checkpoint = Checkpoint::open_upn(&path).expect("a file");
        let expected = Checkpoint::open_upn(&golden("upn/weights.safetensors")).expect("a file");
        assert_eq!(
            assert_equal(&checkpoint, &expected),
            checkpoint.names().count()
        );
        assert_eq!(checkpoint.names().count(), 40);
        assert!(checkpoint.get("transformer.level_embed").is_none());
    }

    #[test]
    fn hostile_and_truncated_files_are_rejected() {
        for (file, message) in [
            (
                "hostile.pth",
                "hostile.pth: asks to run `__builtin__.eval`; nothing was run",
            ),
            ("truncated.pth", "truncated.pth: is cut or damaged"),
            (
                "chatrex/config.json",
                "config.json: is neither a PyTorch file nor",
            ),
        ] {
            let fault = error_of(Checkpoint::open_upn(&golden("checkpoint").join(file)));
            assert!(fault.contains(message), "{fault}");
        }
        let fault = error_of(Checkpoint::open_upn(Path::new("no/such.pth")));
        assert!(fault.starts_with("no/such.pth: cannot be read"), "{fault}");
        let empty = folder_with(&[("e.pth", b"")]);
        let fault = error_of(Checkpoint::open_upn(&empty.path().join("e.pth")));
        assert!(fault.contains("is neither"), "{fault}");
        let fault = error_of(Checkpoint::safetensors(&empty.path().join("e.pth")));
        assert!(fault.contains("is cut: 0 bytes"), "{fault}");
    }

    #[test]
    fn strided_tensors_are_read_in_row_major_order() {
        let values: Vec<f32> = (0..30).map(|v| v as f32).collect();
        let entries = test_files::tensor("t", ("k", 30), 2, &[2, 3, 4], &[1, 8, 2])
            + &test_files::tensor("p", ("k", 30), 6, &[1, 2, 3], &[99, 3, 1])
            + &test_files::tensor("s", ("k", 30), 29, &[], &[])
            + &test_files::tensor("n", ("k", 30), 30, &[0, 5], &[5, 1])
            + &test_files::tensor("e", ("k", 30), 4, &[2, 2], &[0, 0]);
        let folder = folder_with(&[("t.pth", &test_files::legacy(&entries, &[("k", &values)]))]);
        let checkpoint = Checkpoint::open_upn(&folder.path().join("t.pth")).expect("a file");
        let expected: Vec<f32> = (0..24)
            .map(|at| (2 + at / 12 + at / 4 % 3 * 8 + at % 4 * 2) as f32)
            .collect();
        assert_eq!(checkpoint.values("t").expect("t"), expected);
        for range in [0..0, 5..6, 7..19, 23..24, 24..24] {
            let part = checkpoint.read_f32("t", range.clone()).expect("t");
            assert_eq!(part, expected[range]);
        }
        assert_eq!(checkpoint.rows("t", 1..2).expect("t"), expected[12..]);
        assert!(error_of(checkpoint.bytes("t")).contains("not in row-major order"));
        assert_eq!(checkpoint.values("p").expect("p"), values[6..12]);
        assert_eq!(checkpoint.bytes("p").expect("p")[..4], 6f32.to_le_bytes());
        assert_eq!(checkpoint.rows("s", 0..1).expect("s"), [29.0]);
        assert_eq!(checkpoint.values("n").expect("n"), [0f32; 0]);
        assert_eq!(checkpoint.values("e").expect("e"), [4.0; 4]);
        let fault = error_of(checkpoint.values("x"));
        assert!(fault.starts_with("tensor x: is missing"), "{fault}");
    }

    #[test]
    fn a_tensor_with_more_elements_than_its_file_is_rejected() {
        let entries = test_files::tensor("t", ("k", 1), 0, &[1 << 40, 1 << 20], &[0, 0]);
        let folder = folder_with(&[("t.pth", &test_files::legacy(&entries, &[("k", &[1.0])]))]);
        let fault = error_of(Checkpoint::open_upn(&folder.path().join("t.pth")));
        assert!(fault.contains("tensor t: repeats elements"), "{fault}");
    }

    #[test]
    fn float_dtypes_are_read_and_no_others() {
        let tensors = [
            (
                "d",
                Dtype::F64,
                vec![2],
                [0.1f64, 1e300].map(f64::to_le_bytes).concat(),
            ),
            (
                "f",
                Dtype::F32,
                vec![2],
                [0.1f32, f32::NAN].map(f32::to_le_bytes).concat(),
            ),
            (
                "h",
                Dtype::F16,
                vec![1],
                half::f16::from_f32(0.1).to_le_bytes().to_vec(),
            ),
            (
                "b",
                Dtype::BF16,
                vec![1],
                half::bf16::from_f32(0.1).to_le_bytes().to_vec(),
            ),
            ("i", Dtype::I64, vec![1], 3i64.to_le_bytes().to_vec()),
        ];
        let folder = folder_with(&[("t.safetensors", &shard(&tensors))]);
        let checkpoint = Checkpoint::hub(folder.path()).expect("one file");
        let values = |name| checkpoint.values(name).expect(name);
        assert_eq!(values("d"), [0.1, f32::INFINITY]);
        assert_eq!(first_not_finite(&values("d")), Some(1));
        assert_eq!(first_not_finite(&values("f")), Some(1));
        assert_eq!(first_not_finite(&values("h")), None);
        assert_eq!(values("h"), [rounded(Dtype::F16, 0.1)]);
        assert_eq!(values("b"), [rounded(Dtype::BF16, 0.1)]);
        let fault = error_of(checkpoint.values("i"));
        assert!(
            fault.contains("t.safetensors, tensor i: has dtype I64"),
            "{fault}"
        );
        assert_eq!(
            checkpoint.bytes("i").as_deref(),
            Ok(3i64.to_le_bytes().as_slice())
        );
    }

    #[test]
    fn damaged_safetensors_are_rejected() {
        let entry = |shape: &str, from: u64, to: u64| {
            format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let (a, b) = (entry("[2]", 0, 8), entry("[2]", 8, 16));
        let whole = raw(
            &format!(r#"{{"a":{a},"b":{b},"__metadata__":{{"format":"pt"}}}}"#),
            16,
        );
        let mut long = whole.clone();
        long[..8].copy_from_slice(&(1u64 << 63).to_le_bytes());
        let max = u64::MAX;
        let case = |text: String, data| raw(&text, data);
        let cases = [
            (long, "a header of 9223372036854775808 bytes does not fit"),
            (whole[..20].to_vec(), "does not fit"),
            (whole[..5].to_vec(), "is cut: 5 bytes"),
            (whole[..whole.len() - 1].to_vec(), "tensor b: is at 8..16"),
            (
                [whole.as_slice(), b"x"].concat(),
                "has 17 bytes of tensors where",
            ),
            (case(r#"["a"]"#.into(), 0), "has no safetensors header"),
            (
                case(format!(r#"{{"a":{a},"a":{a}}}"#), 8),
                "`a` is named twice",
            ),
            (
                case(format!(r#"{{"a":{a},"b":{}}}"#, entry("[2]", 4, 12)), 12),
                "tensor b: is at 4..12",
            ),
            (
                case(format!(r#"{{"a":{a},"b":{}}}"#, entry("[2]", 9, 17)), 17),
                "tensor b: is at 9..17",
            ),
            (
                case(format!(r#"{{"a":{}}}"#, entry("[2]", 0, max)), 8),
                "tensor a: is at",
            ),
            (
                case(format!(r#"{{"a":{}}}"#, entry("[2]", 8, 0)), 8),
                "tensor a: is at 8..0",
            ),
            (
                case(format!(r#"{{"a":{}}}"#, entry("[3]", 0, 8)), 8),
                "tensor a: is 8 bytes, which are not F32 [3]",
            ),
            (
                case(
                    format!(r#"{{"a":{}}}"#, entry("[4294967296,4294967296,4]", 0, 0)),
                    0,
                ),
                "tensor a: is 0 bytes",
            ),
            (
                case(format!(r#"{{"a":{}}}"#, entry("[-1]", 0, 8)), 8),
                "tensor a: is not described",
            ),
            (
                case(
                    r#"{"a":{"dtype":"Q7","shape":[],"data_offsets":[0,0]}}"#.into(),
                    0,
                ),
                "tensor a: is not described",
            ),
            (case(r#"{"a":3}"#.into(), 0), "tensor a: is not described"),
        ];
        let folder = folder_with(&[]);
        let path = folder.path().join("f.safetensors");
        let header_of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            header(&InputFile::open(&path)?)
        };
        assert!(header_of(&whole).is_ok());
        for (file, message) in cases {
            let fault = error_of(header_of(&file));
            assert!(
                fault.starts_with(&path.display().to_string()) && fault.contains(message),
                "{message}: {fault}"
            );
        }
        for length in 0..whole.len() {
            assert!(header_of(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn wrong_folders_are_rejected() {
        let index = |map: &str| format!(r#"{{"metadata":{{}},"weight_map":{{{map}}}}}"#);
        let (x, y, xy) = (one("x", 1.0), one("y", 2.0), one("y", 3.0));
        type Files<'a> = &'a [(&'a str, &'a [u8])];
        let cases: [(&str, String, Files<'_>, &str); 8] = [
            (
                "absent",
                index(r#""x":"1.safetensors","y":"2.safetensors""#),
                &[("1.safetensors", &x)],
                "2.safetensors: is missing; model.safetensors.index.json names it for tensor y",
            ),
            (
                "lacks",
                index(r#""x":"1.safetensors","z":"1.safetensors""#),
                &[("1.safetensors", &x)],
                "1.safetensors, tensor z: is named by",
            ),
            (
                "other",
                index(r#""x":"2.safetensors","y":"2.safetensors""#),
                &[("1.safetensors", &x), ("2.safetensors", &y)],
                "2.safetensors, tensor x: is named by",
            ),
            (
                "twice",
                index(r#""y":"1.safetensors","z":"2.safetensors""#),
                &[("1.safetensors", &y), ("2.safetensors", &xy)],
                "2.safetensors, tensor y: is in",
            ),
            (
                "leaves",
                index(r#""x":"../1.safetensors""#),
                &[("1.safetensors", &x)],
                "is not the name of a file",
            ),
            (
                "number",
                index(r#""x":1"#),
                &[("1.safetensors", &x)],
                "is not the name of a file",
            ),
            (
                "repeated",
                index(r#""x":"1.safetensors","x":"1.safetensors""#),
                &[("1.safetensors", &x)],
                "`x` is named twice",
            ),
            ("json", "{}".into(), &[], "is not an index of shards"),
        ];
        for (name, index, files, message) in cases {
            let mut files = files.to_vec();
            files.push((INDEX, index.as_bytes()));
            let folder = folder_with(&files);
            let fault = error_of(Checkpoint::hub(folder.path()));
            assert!(fault.contains(message), "{name}: {fault}");
        }
        let none = folder_with(&[("readme.md", b"")]);
        assert!(error_of(Checkpoint::hub(none.path())).contains("holds neither"));
        assert!(Checkpoint::hub(Path::new("no/such/folder")).is_err());
        let both = folder_with(&[("b.safetensors", &y), ("a.safetensors", &x)]);
        let checkpoint = Checkpoint::hub(both.path()).expect("two files");
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["x", "y"]);
        assert!(checkpoint.place("y").ends_with("b.safetensors, tensor y"));
    }

    #[test]
    fn a_checkpoint_is_send_and_sync() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Checkpoint>();
    }
}
