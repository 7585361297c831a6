//! `qapi generate`: Rust code from a schema.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use qapi_codegen::emit::{self, Layout, Options, Output};
use qapi_codegen::{Conditions, Role};

use crate::cli::{self, Generate};

use super::check;

/// How the files of modules begin.
const MARK: &str = "// Generated from ";

/// Writes the files that differ from what is there, and removes those of modules that are gone.
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
    options.older_servers = args.older_servers;
    options.derives.clone_from(&args.derive);
    options.type_overrides = args.overrides.iter().cloned().collect();
    options.answered_by_runtime = args.answered_by_runtime.iter().cloned().collect();
    options.deprecated_attributes = !args.no_deprecated;
    let outputs = emit::generate(&schema, &options, Layout::Folder)?;
    let stale = stale(&args.output, &outputs)?;
    if args.check {
        return Ok(differences(&args.output, &outputs, &stale));
    }
    fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder '{}'", args.output.display()))?;
    for output in outputs {
        let path = args.output.join(&output.name);
        if fs::read(&path).is_ok_and(|old| old == output.text.as_bytes()) {
            continue;
        }
        fs::write(&path, &output.text).with_context(|| format!("cannot write '{}'", path.display()))?;
    }
    for path in stale {
        fs::remove_file(&path).with_context(|| format!("cannot remove '{}'", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Files of an earlier run that this one does not write: modules that the schema no longer has.
fn stale(folder: &Path, outputs: &[Output]) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the folder '{}'", folder.display()));
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read the folder '{}'", folder.display()))?
            .path();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let is_written = outputs
            .iter()
            .any(|output| path.file_name().is_some_and(|name| name == output.name.as_str()));
        if is_rust && !is_written && begins_as_generated(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Files that somebody wrote by hand are nobody's to remove.
fn begins_as_generated(path: &Path) -> bool {
    let mut head = [0; MARK.len()];
    fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == *MARK.as_bytes()
}

/// Says which files would change.
fn differences(folder: &Path, outputs: &[Output], stale: &[PathBuf]) -> ExitCode {
    let mut lines = Vec::new();
    for output in outputs {
        let path = folder.join(&output.name);
        match fs::read(&path) {
            Ok(old) if old == output.text.as_bytes() => {}
            Ok(_) => lines.push(format!("'{}' differs from what the schema gives", path.display())),
            Err(_) => lines.push(format!("'{}' is missing", path.display())),
        }
    }
    lines.extend(
        stale
            .iter()
            .map(|path| format!("'{}' is of an earlier schema", path.display())),
    );
    for line in &lines {
        eprintln!("{line}");
    }
    if lines.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
