//! Every recorded fixture of the original implementation, on the processor.

use std::path::Path;

use burn::tensor::Device;

/// The copy of the recordings in the repository.
fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden")
}

#[test]
fn every_fixture_agrees() {
    let mut failed = Vec::new();
    for &(name, _) in chatrex::parity::FIXTURES {
        let report = chatrex::parity::run(&golden(), Some(name), &Device::flex())
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
        if report.failed > 0 {
            failed.push(report.table());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
