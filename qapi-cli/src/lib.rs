//! The program `qapi`: check, explain, introspect, query and generate from QAPI schemas.
//!
//! This crate reads arguments and prints results. It knows nothing of the schema language: that is
//! `qapi-codegen`'s.

pub mod cli;
mod commands;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            // A reader that has seen enough, as in `qapi introspect FILE | head`, is no failure to report.
            let broken_pipe = error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
            if !broken_pipe {
                let _ = writeln!(std::io::stderr(), "error: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}
