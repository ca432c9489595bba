//! Parser of safetensors files that are in memory as a whole: small ones, for parity and benchmarks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Offset of the JSON header; before it stands its length.
const HEADER: usize = 8;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Its name.
    pub name: String,
    /// Type of its elements, by the format's name.
    pub dtype: String,
    /// Sizes, outermost axis first.
    pub shape: Vec<usize>,
    /// Its elements, row-major, little-endian.
    pub bytes: &'a [u8],
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The metadata of `file` (null where there is none) and its tensors, sorted by name.
///
/// # Errors
/// It is damaged; the message continues a sentence that begins with the file's name.
pub fn read(file: &[u8]) -> Result<(Value, Vec<Stored<'_>>), String> {
    let (length, rest) = file
        .split_first_chunk::<HEADER>()
        .ok_or("is no safetensors file")?;
    let length = u64::from_le_bytes(*length);
    let (header, bytes) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| format!("has a header of {length} bytes"))?;
    let mut entries: BTreeMap<String, Value> =
        serde_json::from_slice(header).map_err(|error| format!("header: {error}"))?;
    let metadata = entries.remove("__metadata__").unwrap_or_default();
    let tensors = entries.into_iter().map(|(name, entry)| {
        let Entry {
            dtype,
            shape,
            data_offsets: [start, end],
        } = serde_json::from_value(entry).map_err(|error| format!("tensor {name}: {error}"))?;
        let element = bytes_of(&dtype)
            .ok_or_else(|| format!("tensor {name}: unknown type of elements {dtype:?}"))?;
        let size = shape
            .iter()
            .try_fold(element, |size, &side| size.checked_mul(side));
        let bytes = bytes
            .get(start..end)
            .filter(|bytes| Some(bytes.len()) == size)
            .ok_or_else(|| format!("tensor {name}: {start} to {end} are not its bytes"))?;
        Ok(Stored {
            name,
            dtype,
            shape,
            bytes,
        })
    });
    Ok((metadata, tensors.collect::<Result<_, String>>()?))
}

fn bytes_of(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "I8" | "U8" | "BOOL" => 1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &Value, bytes: &[u8]) -> Vec<u8> {
        let header = header.to_string();
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), bytes].concat()
    }

    #[test]
    fn tensors_have_their_bytes() {
        let header = serde_json::json!({
            "__metadata__": {"config": "x"},
            "b": {"dtype": "U8", "shape": [2, 2], "data_offsets": [2, 6]},
            "a": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]},
        });
        let file = file(&header, &[1, 2, 3, 4, 5, 6]);
        let (metadata, tensors) = read(&file).expect("well formed");
        assert_eq!(metadata["config"], "x");
        let found: Vec<_> = tensors.iter().map(|t| (&t.name[..], t.bytes)).collect();
        assert_eq!(found, [("a", &[1, 2][..]), ("b", &[3, 4, 5, 6])]);
    }

    #[test]
    fn damage_is_reported() {
        let entry = |dtype: &str, shape: &[usize], end: usize| {
            let header = serde_json::json!(
                {"t": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}});
            file(&header, &[0; 8])
        };
        for (file, message) in [
            (vec![1, 2, 3], "is no safetensors file"),
            (vec![9, 0, 0, 0, 0, 0, 0, 0, 1], "has a header of 9 bytes"),
            (vec![0xff; 8], "has a header of"),
            (entry("F4", &[2], 8), "unknown type"),
            (entry("F32", &[3], 8), "are not its bytes"),
            (entry("F32", &[3], 12), "are not its bytes"),
            (entry("F32", &[usize::MAX, 3], 8), "are not its bytes"),
            (file(&serde_json::json!({"t": 1}), &[]), "tensor t"),
        ] {
            let refused = read(&file).expect_err(message);
            assert!(refused.contains(message), "{refused}");
        }
    }
}
