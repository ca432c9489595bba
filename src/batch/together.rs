//! Groups of pictures whose vision networks run together.
//!
//! A group is the next pictures in the order of the batch, whether or not they are read already, so that its members do
//! not depend on the time that reading takes.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ahead::Loaded;
use crate::engine::together::{Encoded, Input};
use crate::error::{ErrorCode, Fault, FaultKind};

/// A picture of a group.
pub(super) struct Member {
    /// What was read.
    pub(super) loaded: Loaded,
    /// What the vision networks made of it; nothing if it was not encoded with the group.
    pub(super) encoded: Encoded,
}

impl From<Loaded> for Member {
    fn from(loaded: Loaded) -> Self {
        Self {
            loaded,
            encoded: Encoded::default(),
        }
    }
}

/// The places of the members that will be opened: decoded ones whose results are not known by the SHA-256 of their file
/// and will not be copied from a member before.
pub(super) fn to_encode(
    group: &[Member],
    is_known: impl Fn(usize, &[u8; 32]) -> bool,
) -> Vec<usize> {
    let mut seen = HashSet::new();
    let is_wanted = |place: &usize| {
        let loaded = &group[*place].loaded;
        let is_decoded = matches!(loaded.content, Ok(Some(_)));
        let is_new = |sha256: &[u8; 32]| !is_known(*place, sha256) && seen.insert(*sha256);
        is_decoded && loaded.sha256.as_ref().is_none_or(is_new)
    };
    (0..group.len()).filter(is_wanted).collect()
}

/// Encodes the members at `places` by `encode`, unless there is only one: then nothing is gained.
///
/// # Errors
/// That of `encode`, or `OutOfMemory` if it panics, as kernels do for buffers that the device cannot bind, and if panics
/// unwind. Then no member is encoded.
pub(super) fn encode(
    group: &mut [Member],
    places: &[usize],
    encode: impl FnOnce(&[Input<'_>]) -> Result<Vec<Encoded>, Fault>,
) -> Result<(), Fault> {
    if places.len() < 2 {
        return Ok(());
    }
    let contents = places
        .iter()
        .filter_map(|&place| match &group[place].loaded.content {
            Ok(Some(content)) => Some(content),
            _ => None,
        });
    let inputs: Vec<Input> = contents
        .map(|content| Input {
            pixels: &content.pixels,
            prepared: &content.prepared,
        })
        .collect();
    let encoded = catch_unwind(AssertUnwindSafe(|| encode(&inputs)));
    let encoded = encoded.unwrap_or_else(|_| Err(too_large()))?;
    for (&place, encoded) in places.iter().zip(encoded) {
        group[place].encoded = encoded;
    }
    Ok(())
}

fn too_large() -> Fault {
    Fault::new(
        FaultKind::Device,
        "group of pictures",
        "is too large for the device",
        "Use a smaller --together",
    )
    .code(ErrorCode::OutOfMemory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ahead::Content;
    use crate::engine::prepare::Preparation;
    use crate::image::Pixels;

    fn fault(code: ErrorCode) -> Fault {
        Fault::new(FaultKind::Device, "GPU", "failed", "").code(code)
    }

    /// A picture whose file has the SHA-256 `[file; 32]`.
    fn decoded(file: u8) -> Member {
        let pixels = Pixels::new(1, 1, vec![file; 3]).expect("a picture");
        let prepared = Preparation::none().prepare(&pixels);
        read(Some(file), Ok(Some(Content { pixels, prepared })))
    }

    fn read(file: Option<u8>, content: Result<Option<Content>, Fault>) -> Member {
        Member::from(Loaded {
            sha256: file.map(|file| [file; 32]),
            content,
            milliseconds: [0.0; 2],
        })
    }

    /// Known, new, damaged, new, a copy that was decoded, a copy that was not, missing, new.
    fn group() -> Vec<Member> {
        vec![
            decoded(1),
            decoded(2),
            read(Some(3), Err(fault(ErrorCode::InvalidInput))),
            decoded(4),
            decoded(2),
            read(Some(4), Ok(None)),
            read(None, Err(fault(ErrorCode::NotFound))),
            decoded(5),
        ]
    }

    #[test]
    fn pictures_that_will_not_be_opened_are_not_encoded() {
        let is_known = |place: usize, sha256: &[u8; 32]| {
            assert_eq!(sha256[0], [1, 2, 0, 4, 2, 0, 0, 5][place]);
            sha256[0] == 1
        };
        assert_eq!(to_encode(&group(), is_known), [1, 3, 7]);
    }

    #[test]
    fn members_get_their_own_results_or_none() {
        let mut group = group();
        let places = [1, 3, 7];
        let outcome = encode(&mut group, &places, |inputs| {
            let levels: Vec<u8> = inputs.iter().map(|input| input.pixels.rgb[0]).collect();
            assert_eq!(levels, [2, 4, 5]);
            Err(fault(ErrorCode::OutOfMemory))
        });
        assert_eq!(
            outcome.map_err(|fault| fault.code),
            Err(ErrorCode::OutOfMemory)
        );
        let times = |group: &[Member]| -> Vec<f64> {
            group
                .iter()
                .map(|m| m.encoded.towers_milliseconds())
                .collect()
        };
        assert_eq!(times(&group), [0.0; 8]);
        let outcome = encode(&mut group, &places, |inputs| {
            Ok(inputs
                .iter()
                .map(|i| Encoded::timed(f64::from(i.pixels.rgb[0])))
                .collect())
        });
        assert_eq!(outcome, Ok(()));
        assert_eq!(times(&group), [0.0, 2.0, 0.0, 4.0, 0.0, 0.0, 0.0, 5.0]);
        let outcome = encode(&mut group, &[3], |_| panic!("one picture is no group"));
        assert_eq!(outcome, Ok(()));
        let outcome = encode(&mut group, &places, |_| panic!("a buffer is too large"));
        assert_eq!(
            outcome.map_err(|fault| fault.code),
            Err(ErrorCode::OutOfMemory)
        );
    }
}
