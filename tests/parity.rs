//! Every recorded fixture of the original implementation, on the processor.

use std::path::Path;

use burn::tensor::Device;
use chatrex::memory::KvCacheDType;

/// The copy of the recordings in the repository.
fn golden() -> std::path::PathBuf {
    Path::new("tests/data/golden").to_owned()
}

#[test]
fn every_fixture_agrees() {
    let report =
        chatrex::diagnostics::parity::run(&golden(), None, &Device::flex(), KvCacheDType::F32)
            .unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(report.failed, 0, "{}", report.table());
    assert_eq!(report.skipped, 0);
    assert_eq!(
        report.fixtures.len(),
        chatrex::diagnostics::parity::FIXTURES.len()
    );
}
