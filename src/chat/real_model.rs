//! The way to a real model: what the published checkpoints need, and how they get here.
//!
//! Nobody may pass these weights on freely, so this page does not offer them: a user downloads them from
//! their authors and converts them.

use crate::memory::MemoryNeeds;

/// A published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealModel {
    /// Its name.
    pub name: &'static str,
    /// Where its authors publish it.
    pub hub: &'static str,
    /// Bytes of the published files, proposal network included.
    pub published: u64,
    /// Bytes of the model folder in 4 bits.
    pub download: u64,
    /// What that folder needs on a GPU, so that its peaks are right to a tenth of a gigabyte.
    pub needs: MemoryNeeds,
    /// The folder that [`RealModel::command`] makes.
    pub folder: &'static str,
}

/// The repository of the proposal network's file.
pub const UPN_HUB: &str = "IDEA-Research/ChatRex";

/// The proposal network's file.
pub const UPN_FILE: &str = "upn_large.pth";

/// The published models, the smaller first.
pub static REAL_MODELS: [RealModel; 2] = [
    RealModel {
        name: "RexSeek-3B",
        hub: "IDEA-Research/RexSeek-3B",
        published: 8_050_000_000,
        download: 2_950_000_000,
        needs: MemoryNeeds {
            upn: 450_000_000,
            towers: 600_000_000,
            decoder: 1_900_000_000,
            cache: 200_000_000,
            upn_scratch: 2_550_000_000,
            towers_scratch: 0,
            decoder_scratch: 500_000_000,
            largest_buffer: 0,
        },
        folder: "rexseek-3b-q4",
    },
    RealModel {
        name: "ChatRex-7B",
        hub: "IDEA-Research/ChatRex-7B",
        published: 16_520_000_000,
        download: 5_150_000_000,
        needs: MemoryNeeds {
            upn: 450_000_000,
            towers: 680_000_000,
            decoder: 4_400_000_000,
            cache: 900_000_000,
            upn_scratch: 2_550_000_000,
            towers_scratch: 0,
            decoder_scratch: 500_000_000,
            largest_buffer: 0,
        },
        folder: "chatrex-7b-q4",
    },
];

impl RealModel {
    /// The command that makes its folder.
    pub fn command(&self) -> String {
        let Self { name, folder, .. } = self;
        format!("chatrex convert --model {name} --upn {UPN_FILE} --quant q4 --out {folder}")
    }

    /// The address where its authors publish it.
    pub fn address(&self) -> String {
        format!("https://huggingface.co/{}", self.hub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_the_folders() {
        let commands = REAL_MODELS.map(|model| model.command());
        assert_eq!(
            commands[1],
            "chatrex convert --model ChatRex-7B --upn upn_large.pth --quant q4 --out chatrex-7b-q4"
        );
        for (model, command) in REAL_MODELS.iter().zip(&commands) {
            assert!(command.contains(model.name) && command.contains(model.folder));
            assert!(model.address().ends_with(model.name));
        }
    }
}
