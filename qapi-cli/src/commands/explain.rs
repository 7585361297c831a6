//! `qapi explain`: what a rule is about.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use qapi_codegen::codes::Code;
use qapi_codegen::explain::{explain, rules};

use crate::cli::Explain;

/// Prints one rule, or a list of all.
pub fn run(args: &Explain) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &args.code {
        Some(text) => {
            let Some(rule) = Code::parse(text).and_then(explain) else {
                bail!("there is no rule '{text}'; `qapi explain` without a code lists all");
            };
            write!(out, "{rule}")?;
        }
        None => {
            for rule in rules() {
                let first = rule.text.split_once(". ").map_or(rule.text, |(first, _)| first);
                writeln!(out, "{}  {}", rule.code, first.trim_end_matches('.'))?;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
