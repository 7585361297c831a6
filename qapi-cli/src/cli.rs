//! The command line, as data: from it come parsing, help, completions and man pages.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Check, explain, introspect and query QAPI schemas
#[derive(Debug, Parser)]
#[command(
    name = "qapi",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
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
    /// Ask a schema or a running server whether it has something
    ///
    /// A path starts at a command or an event and names one thing a segment: arg-type, ret-type, member,
    /// *optional-member, +union-branch, ^enum-value, $feature, !built-in-type. For example:
    /// blockdev-add/arg-type/+qcow2/encrypt/+luks/key-secret
    ///
    /// The exit status is 0 if it is there, 1 if it is not, 2 if the path or the source is no good.
    #[command(verbatim_doc_comment)]
    Query(Query),
    /// Generate Rust code from a schema
    Generate(Generate),
    /// Print a script that completes this program's arguments
    Completions(Completions),
    /// Print or write manual pages
    Man(Man),
}

/// How diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MessageFormat {
    /// With the lines of the schema
    Human,
    /// One line each
    #[value(
        help = "FILE:LINE:COL: error[CODE]: text, one a line; lines about further places begin with two spaces"
    )]
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

/// Arguments of `query`.
#[derive(Debug, Args)]
pub struct Query {
    /// The root file of a schema, or a server: unix:PATH, tcp:HOST:PORT or the path of a socket
    #[arg(value_name = "FILE|ADDRESS")]
    pub source: String,
    /// What to look for
    #[arg(value_name = "PATH")]
    pub path: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the documentation would replace that of the command")]
    pub conditions: Conditions,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// The root file of a schema
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The folder that the files go to; files that would not change are not touched, generated ones that are no
    /// longer needed are removed
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Write nothing: say which files would change, and exit with status 1 if any would
    #[arg(long)]
    pub check: bool,
    /// Which end of the connection the code is for
    #[arg(long, default_value = "server")]
    pub role: Role,
    /// Types only: no traits, tables and client
    #[arg(long)]
    pub types_only: bool,
    /// Keep members that the schema does not have (clients only)
    #[arg(long)]
    pub keep_unknown: bool,
    /// Take members that a server older than the schema leaves out for empty, 0 or false (clients only)
    #[arg(long)]
    pub older_servers: bool,
    /// Turn conditions into `#[cfg(SYMBOL)]`
    #[arg(long, group = "conditions")]
    pub cfg: bool,
    /// Turn conditions into `#[cfg(feature = "symbol")]`
    #[arg(long, group = "conditions")]
    pub features: bool,
    /// Decide conditions now: these symbols are set. Without any of these options all are
    #[arg(long, value_name = "SYMBOL", num_args = 0.., group = "conditions")]
    pub set: Option<Vec<String>>,
    /// Let every type derive this trait too: `Eq`, `::my_crate::MyTrait`
    #[arg(long, value_name = "PATH", action = clap::ArgAction::Append)]
    pub derive: Vec<String>,
    /// Let a Rust type stand for a type of the schema, which is not generated then
    #[arg(long = "override", value_name = "TYPE=RUST", action = clap::ArgAction::Append, value_parser = type_override)]
    pub overrides: Vec<(String, String)>,
    /// Leave this command out of the traits: something below the handler answers it
    #[arg(long, value_name = "COMMAND", action = clap::ArgAction::Append)]
    pub answered_by_runtime: Vec<String>,
    /// Do not mark with `#[deprecated]` what the schema marks so
    #[arg(long)]
    pub no_deprecated: bool,
}

/// `TYPE=RUST`
fn type_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((schema_type, rust_type)) => Ok((schema_type.to_owned(), rust_type.to_owned())),
        None => Err("expected TYPE=RUST, such as Uuid=crate::Uuid".to_owned()),
    }
}

/// Which end of the connection generated code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Strict about what it receives
    Server,
    /// Tolerant of what it does not know
    Client,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The command whose page is printed; without one, that of the program
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    pub command: Option<String>,
    /// Write all pages into this folder
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}
