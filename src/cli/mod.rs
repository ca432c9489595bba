//! The subcommands of the `chatrex` program.

mod batch;
mod bench;
mod chat;
mod convert;
mod dialogues;
mod eval;
mod examine;
mod export;
mod fake_checkpoint;
mod names;
mod parity;
mod process;
mod propose;
mod scenes;
mod serve;
mod stdio_client;
mod train;

use crate::error::Fault;

/// The subcommands.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Propose object boxes in an image
    Propose(propose::Options),
    /// Ask questions about an image
    Chat(chat::Options),
    /// Ask about many pictures; what is done is kept, and a second run goes on
    Batch(batch::Options),
    /// Serve a model over HTTP: OpenAI's protocol and Label Studio's
    Serve(serve::Options),
    /// Compare the networks with reference tensors of the original implementation
    Parity(parity::Options),
    /// Generate synthetic scenes with annotations and dialogues
    Scenes(scenes::Options),
    /// Make dialogues from the user's pictures, for training
    Dialogues(dialogues::Options),
    /// Run one training stage of nano or mini
    Train(train::Options),
    /// Evaluate a model on test scenes
    Eval(eval::Options),
    /// Export trained weights as a checkpoint folder
    Export(export::Options),
    /// Convert a checkpoint to a model folder, optionally quantized
    Convert(convert::Options),
    /// Compare the intermediate activations of two devices
    Examine(examine::Options),
    /// Benchmark the stages of a model on a device
    Bench(bench::Options),
    /// Write a checkpoint of random weights with the tensor names and shapes of a published model
    FakeCheckpoint(fake_checkpoint::Options),
}

/// Runs a subcommand. `Ok(false)` means that it ran and a check failed.
///
/// # Errors
/// The subcommand could not run.
pub fn run(command: &Command) -> Result<bool, Fault> {
    process::prepare(command);
    match command {
        Command::Propose(options) => propose::run(options),
        Command::Chat(options) => chat::run(options),
        Command::Batch(options) => batch::run(options),
        Command::Serve(options) => serve::run(options),
        Command::Parity(options) => parity::run(options),
        Command::Scenes(options) => scenes::run(options),
        Command::Dialogues(options) => dialogues::run(options),
        Command::Train(options) => train::run(options),
        Command::Eval(options) => eval::run(options),
        Command::Export(options) => export::run(options),
        Command::Convert(options) => convert::run(options),
        Command::Examine(options) => examine::run(options),
        Command::Bench(options) => bench::run(options),
        Command::FakeCheckpoint(options) => fake_checkpoint::run(options),
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data serializes")
}
