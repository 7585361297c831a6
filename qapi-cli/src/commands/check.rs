//! `qapi check`: the diagnostics of schemas.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use qapi_codegen::diagnostic::{Diagnostic, Severity, has_errors};
use qapi_codegen::ir::Schema;
use qapi_codegen::render::{self, Style};
use qapi_codegen::source::SourceMap;
use qapi_codegen::{check, compile, fs};

use crate::cli::{Check, MessageFormat};

/// Checks every file; the diagnostics are the output.
pub fn run(args: &Check) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let style = style(out.is_terminal());
    let mut refused = false;
    for file in &args.files {
        let sources = fs::load(file);
        let diagnostics = check(&sources);
        refused |= has_errors(&diagnostics);
        let text = match args.message_format {
            MessageFormat::Human => {
                let mut text = render::human(&sources, &diagnostics, style);
                text.push_str(&summary(&diagnostics, file));
                text
            }
            MessageFormat::Short => render::short(&sources, &diagnostics),
            MessageFormat::Json => render::json(&sources, &diagnostics),
        };
        out.write_all(text.as_bytes())?;
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(refused)))
}

/// Reads a schema for a command that needs an accepted one. What is wrong goes to stderr.
pub fn load(file: &Path) -> Result<Option<Schema>> {
    let sources: SourceMap = fs::load(file);
    let compiled = compile(&sources);
    if !compiled.diagnostics.is_empty() {
        let mut err = std::io::stderr().lock();
        let style = style(err.is_terminal());
        err.write_all(render::human(&sources, &compiled.diagnostics, style).as_bytes())?;
        err.write_all(summary(&compiled.diagnostics, file).as_bytes())?;
    }
    Ok(compiled.schema)
}

fn style(terminal: bool) -> Style {
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if colours { Style::Colour } else { Style::Plain }
}

/// `schema.json: 2 errors, 1 warning`; nothing if there is nothing to count.
fn summary(diagnostics: &[Diagnostic], file: &Path) -> String {
    let count = |severity: Severity, word: &str| {
        let count = diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count();
        match count {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{count} {word}s")),
        }
    };
    let counts: Vec<String> = [
        count(Severity::Error, "error"),
        count(Severity::Warning, "warning"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if counts.is_empty() {
        String::new()
    } else {
        format!("{}: {}\n", file.display(), counts.join(", "))
    }
}
