//! `qapi query`: whether a schema or a server has something, asked by path.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use qapi_runtime::client::blocking::Client;
use qapi_runtime::introspect::{Introspection, PathError};

use crate::cli::Query;

use super::{check, introspect};

/// There is no such thing.
const NOT_FOUND: u8 = 1;
/// The path is none, or there is nobody to ask.
const BAD: u8 = 2;

/// Answers with a type or yes, or tells what is missing.
pub fn run(args: &Query) -> Result<ExitCode> {
    let introspection = if is_server(&args.source) {
        let client = Client::connect(&args.source)
            .with_context(|| format!("cannot ask the server at '{}'", args.source))?;
        let answer = client
            .execute("query-qmp-schema", None)
            .context("query-qmp-schema failed")?;
        Introspection::new(answer)?
    } else {
        let Some(schema) = check::load(Path::new(&args.source))? else {
            return Ok(ExitCode::from(BAD));
        };
        Introspection::parse(introspect::array(&schema, &args.conditions, true).as_bytes())?
    };
    match introspection.query(&args.path) {
        Ok(found) => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{found}")?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let not_found = matches!(error, PathError::NotFound { .. });
            if not_found {
                writeln!(std::io::stdout(), "no")?;
            }
            writeln!(std::io::stderr(), "error: {error}")?;
            Ok(ExitCode::from(if not_found { NOT_FOUND } else { BAD }))
        }
    }
}

/// A schema is a file; what else has a name is a server.
fn is_server(source: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(source) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(_) => source.starts_with("unix:") || source.starts_with("tcp:"),
    }
}
