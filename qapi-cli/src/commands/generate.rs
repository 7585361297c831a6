//! `qapi generate`: Rust code from a schema.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use qapi_codegen::emit::{self, Layout, Options};
use qapi_codegen::{Conditions, Role};

use crate::cli::{self, Generate};

use super::check;

/// Writes the files that differ from what is there.
pub fn run(args: &Generate) -> Result<ExitCode> {
    let Some(schema) = check::load(&args.file)? else {
        return Ok(ExitCode::FAILURE);
    };
    let conditions = if args.cfg {
        Conditions::cfgs()
    } else if args.features {
        Conditions::cargo_features()
    } else if let Some(symbols) = &args.set {
        Conditions::set(symbols.iter().cloned())
    } else {
        Conditions::all_set()
    };
    let mut options = Options::default();
    options.role = match args.role {
        cli::Role::Server => Role::Server,
        cli::Role::Client => Role::Client,
    };
    options.conditions = conditions;
    options.types_only = args.types_only;
    options.keep_unknown = args.keep_unknown;
    let outputs = emit::generate(&schema, &options, Layout::Folder)?;
    fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder '{}'", args.output.display()))?;
    for output in outputs {
        let path = args.output.join(&output.name);
        if fs::read(&path).is_ok_and(|old| old == output.text.as_bytes()) {
            continue;
        }
        fs::write(&path, &output.text).with_context(|| format!("cannot write '{}'", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
