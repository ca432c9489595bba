//! Looks at the segments of JPEG files: is the file truncated, are its colors in separate scans? Decoders,
//! including those of browsers, silently fill missing data with gray.

/// The end of the data that some phones write in place of the end marker.
const MAKERS_END: &[u8] = b"SEFT";

/// The end marker.
const END: [u8; 2] = [0xff, 0xd9];

/// False if `bytes` start like a JPEG file and end before its end marker.
pub fn is_complete(bytes: &[u8]) -> bool {
    bytes.ends_with(MAKERS_END) || has_end(bytes)
}

/// A complete file with the end marker that it lacks, without which browsers refuse it; `None` if `bytes`
/// need none.
pub fn with_end(bytes: &[u8]) -> Option<Vec<u8>> {
    (is_complete(bytes) && !has_end(bytes)).then(|| [bytes, &END].concat())
}

/// False if `bytes` start like a JPEG file and have no end marker behind their scans.
fn has_end(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(&[0xff, 0xd8]) else {
        return true;
    };
    loop {
        // Inside a scan, 0xff is followed by 0 (byte stuffing) or by a restart marker.
        let Some(at) = rest.windows(2).position(|pair| {
            pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff)
        }) else {
            return false;
        };
        if rest[at + 1] == 0xd9 {
            return true;
        }
        let Some(&[high, low]) = rest.get(at + 2..at + 4) else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = rest.get(at + 2 + length..) else {
            return false;
        };
        rest = after;
    }
}

/// Whether `bytes` are a sequential JPEG file whose first scan has fewer components than the picture, as some cameras
/// and optimizers write them.
#[cfg(any(feature = "native", test))]
pub fn has_separate_scans(bytes: &[u8]) -> bool {
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).unwrap_or_default();
    let mut components = None;
    while let [0xff, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let segment = rest.get(4..2 + length).unwrap_or_default();
        match marker {
            // The start of a frame: precision, height, width, number of components.
            0xc0 | 0xc1 => components = segment.get(5).copied(),
            // The start of a scan.
            0xda => {
                let both = segment.first().copied().zip(components);
                return both.is_some_and(|(of_scan, of_frame)| of_scan < of_frame);
            }
            _ => {}
        }
        rest = rest.get(2 + length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{END, MAKERS_END, has_separate_scans, is_complete, with_end};

    #[test]
    fn separate_scans_are_detected() {
        let file = |frame: u8, components: u8| {
            let mut file = b"\xff\xd8\xff\xe0\0\x04ab".to_vec();
            file.extend([0xff, frame, 0, 11, 8, 0, 16, 0, 16, 3, 0, 0, 0]);
            file.extend([0xff, 0xda, 0, 8, components, 0, 0, 0, 0, 0]);
            file
        };
        assert!(has_separate_scans(&file(0xc0, 1)) && has_separate_scans(&file(0xc1, 2)));
        assert!(!has_separate_scans(&file(0xc0, 3)));
        // Progressive files have separate scans always.
        assert!(!has_separate_scans(&file(0xc2, 1)));
        for length in 0..file(0xc0, 3).len() {
            assert!(!has_separate_scans(&file(0xc0, 3)[..length]), "{length}");
        }
    }

    /// A segment that contains an end marker (a thumbnail), a scan with a stuffed byte, the end.
    const FILE: &[u8] =
        b"\xff\xd8\xff\xe1\0\x06\xff\xd9\0\0\xff\xda\0\x03x\x12\xff\0\xff\xd0\x34\xff\xd9";

    #[test]
    fn every_truncation_is_detected() {
        assert!(is_complete(FILE));
        assert!(is_complete(&[FILE, b"trailing bytes"].concat()));
        for length in 2..FILE.len() {
            assert!(!is_complete(&FILE[..length]), "{length}");
        }
        assert!(is_complete(b"not a JPEG"));
        let panorama = [&FILE[..FILE.len() - 2], b"data of the maker", MAKERS_END].concat();
        assert!(is_complete(&panorama));
        assert_eq!(with_end(&panorama), Some([&panorama[..], &END].concat()));
        for whole in [FILE, b"not a JPEG", &FILE[..9]] {
            assert_eq!(with_end(whole), None, "{whole:?}");
        }
    }
}
