//! PyTorch's `.pth` files: the places of their tensors.
//!
//! There are two layouts (PyTorch's `torch/serialization.py`). Since 1.6: a zip archive of uncompressed
//! entries, where `NAME/data.pkl` describes the tensors and `NAME/data/KEY` holds one storage each.
//! Before: five pickles (magic number, version, byte order of the machine, description, keys of the
//! storages), then every storage as its number of elements and its bytes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive};
use safetensors::Dtype;

use super::pickle::{self, Node, Stored, Tree};
use super::tensor_view::TensorView;
use crate::error::Fault;

/// The first pickle of the legacy layout: 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The only version of the legacy layout.
const VERSION: i64 = 1001;

/// The keys under which training programs store a network's tensors, by priority.
const STATE_KEYS: [&str; 3] = ["model", "state_dict", "module"];

/// Maximum such tables within one another; a pickled table may contain itself.
const MAX_NESTED: usize = 4;

/// Whether `bytes` start like a zip archive.
pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// Whether `bytes` start like the layout before PyTorch 1.6.
pub fn is_legacy(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80) && bytes.get(4..14) == Some(&MAGIC)
}

/// The tensors of the file `bytes` of either layout: those under the key `model`, else under
/// `state_dict`, else at the top level. Other values are skipped. `place` names the file in errors.
///
/// # Errors
/// The file is truncated, compressed, encrypted, big-endian or no `.pth`; its pickle asks to run code; a
/// tensor exceeds its storage; a name is used twice.
pub fn locate(bytes: &[u8], place: &str) -> Result<BTreeMap<String, TensorView>, Fault> {
    if is_zip(bytes) {
        locate_zip(bytes, place)
    } else {
        locate_legacy(bytes, place)
    }
}

fn locate_zip(bytes: &[u8], place: &str) -> Result<BTreeMap<String, TensorView>, Fault> {
    let entries = entries(bytes, place)?;
    let mut descriptions = entries
        .keys()
        .filter_map(|path| path.strip_suffix("data.pkl"))
        .filter(|folder| folder.is_empty() || folder.ends_with('/'));
    let folder = match (descriptions.next(), descriptions.next()) {
        (Some(folder), None) => folder,
        (None, _) => return Err(Fault::model(place, "is a zip archive without a `data.pkl`")),
        _ => {
            return Err(Fault::model(
                place,
                "is a zip archive with several `data.pkl`",
            ));
        }
    };
    let entry = |path: &str| entries.get(&format!("{folder}{path}"));
    if let Some(order) = entry("byteorder") {
        check_byte_order(&bytes[order.bytes(place)?] == b"little", place)?;
    }
    let description = entry("data.pkl").expect("found above").bytes(place)?;
    let (tree, _) = pickle::read(&bytes[description], place)?;
    tensors(&tree, place, |stored| {
        let path = format!("data/{}", stored.storage.key);
        match entry(&path) {
            Some(entry) => entry.bytes(place),
            None => Err(Fault::model(
                place,
                format!("`{folder}{path}`, which its description names, is missing"),
            )),
        }
    })
}

/// One file in a zip archive.
struct Entry {
    path: String,
    data: Range<usize>,
    /// Neither compressed nor encrypted.
    is_stored: bool,
}

impl Entry {
    /// The range of its bytes in the archive.
    fn bytes(&self, place: &str) -> Result<Range<usize>, Fault> {
        if self.is_stored {
            return Ok(self.data.clone());
        }
        Err(Fault::model(
            place,
            format!(
                "`{}` is compressed or encrypted; PyTorch does neither",
                self.path
            ),
        ))
    }
}

/// The files of a zip archive by path.
fn entries(bytes: &[u8], place: &str) -> Result<HashMap<String, Entry>, Fault> {
    let damaged = |error: rawzip::Error| {
        Fault::model(
            place,
            format!("is cut or damaged: as a zip archive, {error}"),
        )
    };
    let archive = ZipArchive::from_slice(bytes).map_err(damaged)?;
    let mut found = HashMap::new();
    let mut listing = archive.entries();
    while let Some(record) = listing.next_entry().map_err(damaged)? {
        let path = String::from_utf8_lossy(record.file_path().as_ref()).into_owned();
        let data = archive.get_entry(record.wayfinder()).map_err(damaged)?;
        let (start, end) = data.compressed_data_range();
        let entry = Entry {
            path: path.clone(),
            data: start as usize..end as usize,
            is_stored: record.compression_method() == CompressionMethod::STORE
                && !record.flags().is_encrypted()
                && record.uncompressed_size_hint() == end - start,
        };
        if found.insert(path.clone(), entry).is_some() {
            return Err(Fault::model(place, format!("holds `{path}` twice")));
        }
    }
    if found.len() as u64 != archive.entries_hint() {
        return Err(Fault::model(
            place,
            format!(
                "lists {} of its {} entries",
                found.len(),
                archive.entries_hint()
            ),
        ));
    }
    Ok(found)
}

fn locate_legacy(bytes: &[u8], place: &str) -> Result<BTreeMap<String, TensorView>, Fault> {
    let mut at = 0;
    let mut next = || -> Result<Tree<'_>, Fault> {
        let (tree, length) = pickle::read(&bytes[at..], place)?;
        at += length;
        Ok(tree)
    };
    let magic = next()?;
    let version = next()?;
    let machine = next()?;
    if !matches!(magic.node(magic.root()), Node::Long(bytes) if *bytes == MAGIC)
        || !matches!(version.node(version.root()), Node::Int(VERSION))
    {
        return Err(Fault::model(place, "is not a PyTorch file"));
    }
    let order = machine.find(machine.root(), "little_endian");
    let big = order.is_some_and(|id| matches!(machine.node(id), Node::Bool(false)));
    check_byte_order(!big, place)?;
    let description = next()?;
    let keys = next()?;
    let storages = storages(&bytes[at..], at, &description, &keys, place)?;
    tensors(&description, place, |stored| {
        let found = storages.get(stored.storage.key);
        found.cloned().ok_or_else(|| {
            Fault::model(
                place,
                format!("storage `{}` is missing", stored.storage.key),
            )
        })
    })
}

fn check_byte_order(is_little_endian: bool, place: &str) -> Result<(), Fault> {
    if is_little_endian {
        return Ok(());
    }
    Err(Fault::model(
        place,
        "was written by a machine with another byte order; only little-endian files are read",
    ))
}

/// The ranges of the legacy layout's storages in the file. `rest` is the file from byte `base`, after the
/// keys.
fn storages<'a>(
    rest: &[u8],
    base: usize,
    description: &Tree<'_>,
    keys: &Tree<'a>,
    place: &str,
) -> Result<HashMap<&'a str, Range<usize>>, Fault> {
    let mut widths: HashMap<&str, usize> = HashMap::new();
    for storage in description.storages() {
        let width = storage.dtype.bitsize() / 8;
        if *widths.entry(storage.key).or_insert(width) != width {
            let what = format!("storage `{}` has two element types", storage.key);
            return Err(Fault::model(place, what));
        }
    }
    let Node::Sequence(order) = keys.node(keys.root()) else {
        return Err(Fault::model(place, "has no list of its storages"));
    };
    let mut found = HashMap::new();
    let mut at = 0;
    for &id in order {
        let key = keys.text(id).unwrap_or_default();
        let Some(width) = widths.get(key) else {
            let what = format!("lists storage `{key}`, which nothing refers to");
            return Err(Fault::model(place, what));
        };
        let range = storage_at(rest, at, *width).ok_or_else(|| {
            let size = base + rest.len();
            Fault::model(
                place,
                format!("is cut: its {size} bytes end within storage `{key}`"),
            )
        })?;
        at = range.end;
        if found
            .insert(key, base + range.start..base + range.end)
            .is_some()
        {
            return Err(Fault::model(place, format!("lists storage `{key}` twice")));
        }
    }
    Ok(found)
}

/// The range of the storage whose number of elements is at `at`; `None` if it is truncated.
fn storage_at(rest: &[u8], at: usize, width: usize) -> Option<Range<usize>> {
    let count = *rest.get(at..)?.first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(count))
        .ok()?
        .checked_mul(width)?;
    let start = at + 8;
    let end = start.checked_add(length)?;
    (end <= rest.len()).then_some(start..end)
}

/// The tensors that `tree` describes; `storage` returns the range of a tensor's storage in the file.
fn tensors(
    tree: &Tree<'_>,
    place: &str,
    storage: impl Fn(&Stored<'_>) -> Result<Range<usize>, Fault>,
) -> Result<BTreeMap<String, TensorView>, Fault> {
    let mut table = tree.root();
    for _ in 0..MAX_NESTED {
        let mut inner = STATE_KEYS.iter().filter_map(|key| tree.find(table, key));
        match inner.find(|id| tree.entries(*id).is_some()) {
            Some(inner) => table = inner,
            None => break,
        }
    }
    let Some(entries) = tree.entries(table) else {
        return Err(Fault::model(place, "holds no table of tensors"));
    };
    let mut found = BTreeMap::new();
    for &(name, value) in entries {
        let (Some(name), Node::Tensor(stored)) = (tree.text(name), tree.node(value)) else {
            continue;
        };
        let place = format!("{place}, tensor {name}");
        let bytes = storage(stored).map_err(|fault| Fault {
            place: place.clone(),
            ..fault
        })?;
        let view = view(stored, bytes).map_err(|what| Fault::model(&place, what))?;
        if found.insert(name.to_string(), view).is_some() {
            return Err(Fault::model(place, "is named twice"));
        }
    }
    if found.is_empty() {
        return Err(Fault::model(place, "holds no tensors"));
    }
    Ok(found)
}

/// The view of `stored`, whose storage is the range `bytes` of the file.
fn view(stored: &Stored<'_>, bytes: Range<usize>) -> Result<TensorView, String> {
    let width = |dtype: Dtype| dtype.bitsize() as u64 / 8;
    let beyond = || "exceeds its storage".to_string();
    let room = stored
        .storage
        .elements
        .checked_mul(width(stored.storage.dtype))
        .ok_or_else(beyond)?;
    if room > bytes.len() as u64 {
        return Err(format!(
            "has a storage of {} instead of {room} bytes",
            bytes.len()
        ));
    }
    let skipped = stored
        .offset
        .checked_mul(width(stored.dtype))
        .ok_or_else(beyond)?;
    let view = TensorView {
        dtype: stored.dtype,
        shape: stored.shape.clone(),
        file: 0,
        offset: bytes.start as u64 + skipped.min(room),
        strides: stored.strides.clone(),
    };
    let used = view.extent().and_then(|used| used.checked_add(skipped));
    if used.is_none_or(|used| used > room) {
        return Err(beyond());
    }
    Ok(view)
}

/// Files in PyTorch's layouts, for tests.
#[cfg(test)]
pub(super) mod test_files {
    use std::io::Write;

    use super::*;

    /// Pickle instructions that add a tensor `name` of f32, a view of the `elements` of storage `key`, to
    /// the dictionary on top of the stack.
    pub fn tensor(
        name: &str,
        (key, elements): (&str, u64),
        offset: i64,
        shape: &[i64],
        strides: &[i64],
    ) -> String {
        let tuple = |items: &[i64]| {
            let items: String = items.iter().map(|item| format!("I{item}\n")).collect();
            format!("({items}t")
        };
        format!(
            "V{name}\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV{key}\n\
             Vcpu\nI{elements}\ntQI{offset}\n{}{}I00\nccollections\nOrderedDict\n)RtRs",
            tuple(shape),
            tuple(strides)
        )
    }

    /// The legacy layout: `entries` in the top-level dictionary, then the storages.
    pub fn legacy(entries: &str, storages: &[(&str, &[f32])]) -> Vec<u8> {
        let mut file = vec![0x80, 2, 0x8a, 10];
        file.extend(MAGIC);
        file.extend(b".\x80\x02M\xe9\x03.}Vlittle_endian\nI01\ns.}");
        file.extend(entries.as_bytes());
        let keys: String = storages
            .iter()
            .map(|(key, _)| format!("V{key}\n"))
            .collect();
        file.extend(format!(".({keys}l.").as_bytes());
        for (_, values) in storages {
            file.extend((values.len() as u64).to_le_bytes());
            file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        file
    }

    /// A zip archive of these files, stored whatever `method` claims.
    pub fn zip(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
        for (path, content) in files {
            let (mut entry, config) = archive
                .new_file(*path)
                .compression_method(method)
                .start()
                .expect("an entry");
            let mut writer = config.wrap(&mut entry);
            writer.write_all(content).expect("bytes");
            let (_, descriptor) = writer.finish().expect("a file");
            entry.finish(descriptor).expect("an entry");
        }
        archive.finish().expect("an archive");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &[u8] = include_bytes!("../../tests/data/golden/checkpoint/upn_cut_legacy.pth");
    const HOSTILE: &[u8] = include_bytes!("../../tests/data/golden/checkpoint/hostile.pth");
    const TRUNCATED: &[u8] = include_bytes!("../../tests/data/golden/checkpoint/truncated.pth");

    fn error_of(bytes: &[u8]) -> String {
        locate(bytes, "f.pth").expect_err("rejected").to_string()
    }

    fn floats(entries: &str) -> Vec<u8> {
        test_files::legacy(entries, &[("7", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])])
    }

    fn zipped(entries: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
        let description = format!("}}{entries}.");
        let mut files = vec![("a/data.pkl", description.as_bytes())];
        files.extend(more);
        test_files::zip(&files, CompressionMethod::STORE)
    }

    /// Parses arbitrary bytes. Returns whether they are a file; its tensors must lie within it.
    fn parses(bytes: &[u8]) -> bool {
        let Ok(found) = locate(bytes, "f.pth") else {
            return false;
        };
        for view in found.values() {
            let end = view.extent().map(|extent| view.offset + extent);
            assert!(end.is_some_and(|end| end <= bytes.len() as u64), "{view:?}");
        }
        true
    }

    #[test]
    fn a_pickle_that_asks_to_run_code_is_rejected() {
        let fault = error_of(HOSTILE);
        let message = "f.pth: asks to run `__builtin__.eval`; nothing was run";
        assert!(fault.starts_with(message), "{fault}");
    }

    #[test]
    fn truncated_files_are_rejected() {
        let fault = error_of(TRUNCATED);
        assert!(fault.starts_with("f.pth: is cut or damaged"), "{fault}");
        let whole = floats(&test_files::tensor("w", ("7", 6), 0, &[6], &[1]));
        assert!(parses(&whole));
        let fault = error_of(&whole[..whole.len() - 10]);
        assert!(fault.contains("is cut: its"), "{fault}");
        assert!(fault.contains("within storage `7`"), "{fault}");
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_panics() {
        let entries = test_files::tensor("w", ("7", 6), 0, &[2, 3], &[3, 1]);
        let zip = zipped(
            &entries,
            &[("a/data/7", &[0; 24]), ("a/byteorder", b"little")],
        );
        assert!(parses(&zip));
        for file in [LEGACY, HOSTILE, &zip] {
            for length in (0..file.len()).step_by(97) {
                assert!(!parses(&file[..length]), "{length} bytes are a prefix only");
            }
            let mut copy = file.to_vec();
            let described = file.len().min(8000);
            for at in (0..described).chain((described..file.len()).step_by(211)) {
                for bit in [0x01, 0x10, 0x80, 0xff] {
                    copy[at] ^= bit;
                    parses(&copy);
                    copy[at] ^= bit;
                }
            }
        }
        assert!(parses(LEGACY));
    }

    #[test]
    fn views_have_offsets_and_strides() {
        let entries = test_files::tensor("w", ("7", 6), 1, &[2, 2], &[1, 3]);
        let file = floats(&entries);
        let found = locate(&file, "f.pth").expect("a file");
        let expected = TensorView {
            dtype: Dtype::F32,
            shape: vec![2, 2],
            file: 0,
            offset: file.len() as u64 - 20,
            strides: vec![1, 3],
        };
        assert_eq!(found["w"], expected);
        assert_eq!(found.len(), 1);
        let zip = zipped(
            &entries,
            &[("a/data/7", &[9; 24]), ("a/byteorder", b"little")],
        );
        let found = locate(&zip, "f.pth").expect("a file");
        let (at, strides) = (found["w"].offset as usize, &found["w"].strides);
        assert_eq!(
            (&zip[at..at + 20], strides),
            ([9; 20].as_slice(), &vec![1, 3])
        );
    }

    /// An archive of one stored file whose sizes and offsets are all in zip64 records.
    fn zip64(path: &str, content: &[u8]) -> Vec<u8> {
        let sizes = [content.len() as u64; 2].map(u64::to_le_bytes).concat();
        let extra = |fields: &[u8]| [&[1, 0, fields.len() as u8, 0], fields].concat();
        let head = |extra: &[u8], inner: &[u8]| {
            let lengths = [path.len() as u16, extra.len() as u16].map(u16::to_le_bytes);
            let fixed = [
                &[45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                [0xff; 8].as_slice(),
            ];
            [
                &fixed.concat(),
                &lengths.concat(),
                inner,
                path.as_bytes(),
                extra,
            ]
            .concat()
        };
        let local = [b"PK\x03\x04", head(&extra(&sizes), &[]).as_slice(), content].concat();
        let within = [sizes.as_slice(), &[0; 8]].concat();
        let inner = [[0; 10].as_slice(), &[0xff; 4]].concat();
        let central = [
            b"PK\x01\x02\x2d\0",
            head(&extra(&within), &inner).as_slice(),
        ]
        .concat();
        let ends = [1, 1, central.len() as u64, local.len() as u64]
            .map(u64::to_le_bytes)
            .concat();
        let end = [
            b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0",
            ends.as_slice(),
        ];
        let at = ((local.len() + central.len()) as u64).to_le_bytes();
        let locator = [b"PK\x06\x07\0\0\0\0", at.as_slice(), &[1, 0, 0, 0]];
        let last = [b"PK\x05\x06\0\0\0\0", [0xff; 12].as_slice(), &[0, 0]];
        [
            local,
            central,
            end.concat(),
            locator.concat(),
            last.concat(),
        ]
        .concat()
    }

    #[test]
    fn zip64_archives_are_read() {
        let file = zip64("a/data.pkl", b"}.");
        let found = entries(&file, "f.pth").expect("an archive");
        let range = found["a/data.pkl"].bytes("f.pth").expect("a stored file");
        assert_eq!(&file[range], b"}.");
        assert!(error_of(&file).contains("holds no tensors"));
    }

    #[test]
    fn the_key_model_precedes_state_dict_and_the_top_level() {
        let tensor = |name| test_files::tensor(name, ("7", 6), 0, &[6], &[1]);
        let below = |key: &str, entries: String| format!("V{key}\n}}{entries}s");
        let names = |entries: String| -> Vec<String> {
            let found = locate(&floats(&entries), "f.pth").expect("a file");
            found.into_keys().collect()
        };
        let (state, model) = (
            below("state_dict", tensor("b")),
            below("model", tensor("c")),
        );
        assert_eq!(names(tensor("a")), ["a"]);
        assert_eq!(names(tensor("a") + &state), ["b"]);
        assert_eq!(names(tensor("a") + &state + &model), ["c"]);
        assert_eq!(names(state + "Vmodel\nVswin\ns"), ["b"]);
        let other = "Vepoch\nI3\nsVargs\ncargparse\nNamespace\n(tR}Vlr\nF0.1\nsbs";
        assert_eq!(names(model + other), ["c"]);
    }

    #[test]
    fn tensors_outside_their_storage_are_rejected() {
        let max = i64::MAX;
        for (offset, shape, strides, message) in [
            (0, vec![7], vec![1], "exceeds its storage"),
            (1, vec![6], vec![1], "exceeds its storage"),
            (max, vec![1], vec![1], "exceeds its storage"),
            (max, vec![0], vec![1], "exceeds its storage"),
            (0, vec![max, max], vec![1, 1], "exceeds its storage"),
            (0, vec![2], vec![max], "exceeds its storage"),
            (0, vec![-1], vec![1], "no unsigned integer"),
            (-1, vec![1], vec![1], "no unsigned integer"),
            (0, vec![1, 2], vec![1], "different numbers of sizes"),
            (0, vec![1; 33], vec![1; 33], "more than 32 axes"),
        ] {
            let fault = error_of(&floats(&test_files::tensor(
                "w",
                ("7", 6),
                offset,
                &shape,
                &strides,
            )));
            assert!(
                fault.contains(message),
                "{offset} {shape:?} {strides:?}: {fault}"
            );
        }
    }

    #[test]
    fn damaged_zip_archives_are_rejected() {
        let entries = test_files::tensor("w", ("7", 6), 0, &[6], &[1]);
        let storage = ("a/data/7", [0; 24].as_slice());
        assert!(parses(&zipped(&entries, &[storage])));
        let description = format!("}}{entries}.");
        let deflated = [("a/data.pkl", description.as_bytes()), storage];
        for (file, message) in [
            (
                zipped(&entries, &[]),
                "`a/data/7`, which its description names, is missing",
            ),
            (
                zipped(&entries, &[storage, storage]),
                "holds `a/data/7` twice",
            ),
            (
                zipped(&entries, &[("a/data/7", &[0; 20])]),
                "of 20 instead of 24 bytes",
            ),
            (
                zipped(&entries, &[storage, ("a/byteorder", b"big")]),
                "byte order",
            ),
            (
                zipped(&entries, &[storage, ("b/data.pkl", b".")]),
                "several `data.pkl`",
            ),
            (zipped("", &[]), "holds no tensors"),
            (
                zipped(&(entries.clone() + &entries), &[storage]),
                "tensor w: is named twice",
            ),
            (
                test_files::zip(&[storage], CompressionMethod::STORE),
                "without a `data.pkl`",
            ),
            (
                test_files::zip(&deflated, CompressionMethod::DEFLATE),
                "`a/data.pkl` is compressed",
            ),
        ] {
            let fault = error_of(&file);
            assert!(fault.contains(message), "{message}: {fault}");
        }
    }

    #[test]
    fn damaged_legacy_files_are_rejected() {
        let entries = test_files::tensor("w", ("7", 6), 0, &[6], &[1]);
        let six = [0.0f32; 6];
        let mut count = test_files::legacy(&entries, &[("7", &six)]);
        let at = count.len() - 32;
        count[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let big = floats(&entries);
        let order = big
            .windows(4)
            .position(|at| at == b"I01\n")
            .expect("an order");
        let mut big = big.clone();
        big[order + 2] = b'0';
        for (file, message) in [
            (test_files::legacy(&entries, &[]), "storage `7` is missing"),
            (
                test_files::legacy(&entries, &[("8", &six)]),
                "storage `8`, which nothing refers to",
            ),
            (
                test_files::legacy(&entries, &[("7", &six), ("7", &six)]),
                "lists storage `7` twice",
            ),
            (
                test_files::legacy(&entries, &[("7", &six[..5])]),
                "of 20 instead of 24 bytes",
            ),
            (count, "is cut"),
            (big, "byte order"),
        ] {
            let fault = error_of(&file);
            assert!(fault.contains(message), "{message}: {fault}");
        }
    }
}
