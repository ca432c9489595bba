//! The subcommands of the `chatrex` program: arguments in, JSON or words out.

mod bench;
mod chat;
mod convert;
mod eval;
mod examine;
mod export;
mod fake_checkpoint;
mod names;
mod parity;
mod propose;
mod scenes;
mod stdio_client;
mod train;

use crate::error::Fault;

/// What the program can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Find boxes in a picture
    Propose(propose::Options),
    /// Ask about a picture
    Chat(chat::Options),
    /// Compare the networks with tensors recorded from the original
    Parity(parity::Options),
    /// Draw scenes with annotations and dialogues
    Scenes(scenes::Options),
    /// Train one stage of the nano model
    Train(train::Options),
    /// Measure a model on scenes it has never seen
    Eval(eval::Options),
    /// Put trained weights into a checkpoint folder
    Export(export::Options),
    /// Make a model folder of a checkpoint
    Convert(convert::Options),
    /// Compare what two devices compute, stage by stage
    Examine(examine::Options),
    /// Measure how fast a device is at what a model does
    Bench(bench::Options),
    /// Write a checkpoint of random numbers with real names and shapes
    FakeCheckpoint(fake_checkpoint::Options),
}

/// Carries out a command: `Ok(true)` is good, `Ok(false)` ran and fell short.
///
/// # Errors
/// It could not run.
pub fn run(command: &Command) -> Result<bool, Fault> {
    match command {
        Command::Propose(options) => propose::run(options),
        Command::Chat(options) => chat::run(options),
        Command::Parity(options) => parity::run(options),
        Command::Scenes(options) => scenes::run(options),
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
    serde_json::to_string(value).expect("plain data becomes JSON")
}
