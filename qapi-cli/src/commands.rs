//! What each command does, a file each.

mod check;
mod introspect;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Check(args) => check::run(&args),
        Command::Explain(_) => Ok(ExitCode::SUCCESS),
        Command::Introspect(args) => introspect::run(&args),
    }
}
