//! The dry runs that compile GPU pipelines, in order.

use std::collections::VecDeque;

use burn::tensor::Device;

use crate::gpu::buffer::is_gpu;
use crate::model::config::{ModelConfig, ProposerConfig};

/// Widths of the test patterns for UPN, which keeps the aspect ratio, most usual first: the pipelines of
/// burn's own operations depend on whether the width of a feature map is a multiple of 2 or 4.
const UPN_WIDTHS: [u32; 7] = [64, 36, 48, 57, 60, 66, 72];

/// Sizes of the test patterns for the detector, most usual first: one for each size that its preprocessing
/// pads to.
const DETECTOR_SIZES: [[u32; 2]; 7] = [
    [64, 48],
    [48, 64],
    [64, 64],
    [64, 16],
    [64, 32],
    [32, 64],
    [16, 64],
];

/// A dry run of one model part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// UPN, for a test pattern of this width.
    Upn(u32),
    /// The detector, for a test pattern of this size.
    Detector([u32; 2]),
    /// The vision towers, or the projector of class scores.
    Towers,
    /// The language model.
    Decoder,
}

/// The dry runs that are still to be made. Those of further test patterns come last.
#[derive(Debug, Default)]
pub(super) struct Warmup {
    pub(super) steps: VecDeque<Step>,
    pub(super) total: usize,
}

impl Warmup {
    /// All dry runs for the networks of `config`; none natively and on the CPU.
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        if !cfg!(target_family = "wasm") || !is_gpu(device) {
            return Self::default();
        }
        Self::of(config)
    }

    fn of(config: &ModelConfig) -> Self {
        let mut proposers: Vec<Step> = match config.proposer {
            Some(ProposerConfig::Upn(_)) => UPN_WIDTHS.map(Step::Upn).into(),
            Some(ProposerConfig::Detector(_)) => DETECTOR_SIZES.map(Step::Detector).into(),
            None => Vec::new(),
        };
        let further = proposers.split_off(proposers.len().min(1));
        let towers = config.towers.as_ref().map(|_| Step::Towers);
        let steps: VecDeque<_> = proposers
            .into_iter()
            .chain(towers)
            .chain([Step::Decoder])
            .chain(further)
            .collect();
        Self {
            total: steps.len(),
            steps,
        }
    }
}
