//! `qapi introspect`: the answer of `query-qmp-schema` for a schema.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use qapi_codegen::introspect::{Options, introspect};
use qapi_codegen::ir::{Condition, Schema};

use crate::cli::{Conditions, Introspect};

use super::check;

/// Prints the array.
pub fn run(args: &Introspect) -> Result<ExitCode> {
    let Some(schema) = check::load(&args.file)? else {
        return Ok(ExitCode::FAILURE);
    };
    let text = array(&schema, &args.conditions, args.unmask);
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The array under the conditions that were asked for.
pub fn array(schema: &Schema, conditions: &Conditions, unmask: bool) -> String {
    let holds = |condition: &Condition| {
        conditions.all_conditions
            || condition.holds(&|symbol| conditions.define.iter().any(|name| name == symbol))
    };
    introspect(
        schema,
        Options {
            unmask,
            holds: &holds,
        },
    )
}
