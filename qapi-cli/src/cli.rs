//! The command line, as data: from it come parsing, help, completions and man pages.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Check, explain, introspect and query QAPI schemas
#[derive(Debug, Parser)]
#[command(name = "qapi", version, propagate_version = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check schemas and say everything that is wrong with them
    ///
    /// The exit status is 0 if all are accepted, 1 if one is refused.
    Check(Check),
    /// Print what a rule is about, with a wrong and a right example
    Explain(Explain),
    /// Print the answer of query-qmp-schema for a schema, as JSON
    Introspect(Introspect),
}

/// How diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MessageFormat {
    /// With the lines of the schema
    Human,
    /// FILE:LINE:COL: error[CODE]: text, one a line; lines about further places begin with two spaces
    Short,
    /// One JSON object a line
    Json,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Root files of schemas
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to print diagnostics
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub message_format: MessageFormat,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A code like QAPI0305; without one, all rules are listed
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

/// Arguments of `introspect`.
#[derive(Debug, Args)]
pub struct Introspect {
    /// The root file of a schema
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print names of types as the schema has them, not the numbers that servers send
    #[arg(long)]
    pub unmask: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the documentation would replace that of the command")]
    pub conditions: Conditions,
}

/// Which conditions hold. With neither option no symbol is set.
#[derive(Debug, Args)]
pub struct Conditions {
    /// Let every condition be true, so that nothing is left out
    #[arg(long, conflicts_with = "define")]
    pub all_conditions: bool,
    /// Let these symbols be set
    #[arg(long, short = 'D', value_name = "NAME", num_args = 1.., action = clap::ArgAction::Append)]
    pub define: Vec<String>,
}
