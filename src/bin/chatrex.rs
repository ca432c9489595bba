//! The `chatrex` program.

use std::process::ExitCode;

use chatrex::cli::{self, Command};
use clap::Parser;

/// Local inference with ChatRex models: propose object boxes and ask grounded questions about images
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match cli::run(&Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(fault) => {
            eprintln!("chatrex: {fault}");
            ExitCode::from(2)
        }
    }
}
