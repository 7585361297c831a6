//! What each command does, a file each.

mod check;
mod explain;
mod generate;
mod help;
mod introspect;
mod query;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Does what the command line says.
///
/// # Errors
///
/// When something outside of the schema is in the way: a file that cannot be written, a server that does
/// not answer.
pub fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Introspect(args) => introspect::run(args),
        Command::Query(args) => query::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Completions(args) => help::completions(args),
        Command::Man(args) => help::man(args),
    }
}
