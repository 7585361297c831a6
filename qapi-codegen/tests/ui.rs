//! A test for each file of `tests/ui`.
//!
//! `reject/NAME.json` is refused with exactly the text of `NAME.stderr`. `accept/NAME.json` is accepted,
//! with the warnings of `NAME.stderr` if it is there; `NAME.out` is what the schema prints as.
//! `BLESS=1 cargo test -p qapi-codegen --test ui` writes these files anew: read the difference.
//!
//! With `QAPI_CORPUS` set to a folder with `cases/cases.tsv`, `schemas` and `introspect`, each case there is
//! a test, too, and so is each reference introspection.

#![expect(clippy::unwrap_used, reason = "a test helper that fails is a failed test")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use qapi_codegen::diagnostic::{Diagnostic, has_errors};
use qapi_codegen::introspect::{Options, introspect};
use qapi_codegen::render::{Style, human};
use qapi_codegen::source::SourceMap;
use qapi_codegen::{compile, fs, print};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    own(&mut trials);
    match std::env::var_os("QAPI_CORPUS") {
        Some(folder) => corpus(Path::new(&folder), &mut trials),
        None => println!("QAPI_CORPUS is not set: cases from outside are skipped"),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The tests of `tests/ui`. The names in their outputs are relative to the crate's folder, in which Cargo
/// runs tests.
fn own(trials: &mut Vec<Trial>) {
    for kind in ["reject", "accept"] {
        let folder = Path::new("tests/ui").join(kind);
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        files.sort();
        for file in files {
            let name = format!("{kind}/{}", file.file_stem().unwrap().to_string_lossy());
            trials.push(Trial::test(name, move || {
                if kind == "reject" {
                    reject(&file)
                } else {
                    accept(&file)
                }
            }));
        }
    }
}

fn reject(file: &Path) -> Result<(), Failed> {
    let sources = fs::load(file);
    let compiled = compile(&sources);
    if !has_errors(&compiled.diagnostics) || compiled.schema.is_some() {
        return Err("accepted".into());
    }
    expect(
        &file.with_extension("stderr"),
        &human(&sources, &compiled.diagnostics, Style::Plain),
    )
}

fn accept(file: &Path) -> Result<(), Failed> {
    let sources = fs::load(file);
    let compiled = compile(&sources);
    let text = human(&sources, &compiled.diagnostics, Style::Plain);
    let Some(schema) = compiled.schema else {
        return Err(format!("refused:\n{text}").into());
    };
    expect(&file.with_extension("stderr"), &text)?;
    let printed = print::print(&schema);
    expect(&file.with_extension("out"), &printed)?;
    // What is printed is the same schema.
    let again = compile(&SourceMap::single("printed.json", printed.clone()));
    let Some(schema_again) = again.schema else {
        return Err(format!("the printed schema is refused: {:?}", again.diagnostics).into());
    };
    if introspect(&schema, Options::EVERYTHING) != introspect(&schema_again, Options::EVERYTHING) {
        return Err("the printed schema is another one".into());
    }
    if print::print(&schema_again) != printed {
        return Err("the printed schema prints otherwise".into());
    }
    Ok(())
}

/// Compares with a file, which is absent when nothing is expected, or writes it.
fn expect(file: &Path, text: &str) -> Result<(), Failed> {
    let wanted = std::fs::read_to_string(file).unwrap_or_default();
    if wanted == text {
        return Ok(());
    }
    if std::env::var_os("BLESS").is_some() {
        if text.is_empty() {
            std::fs::remove_file(file)?;
        } else {
            std::fs::write(file, text)?;
        }
        return Ok(());
    }
    let name = file.display();
    Err(format!("{name} differs (BLESS=1 writes it anew)\n--- wanted\n{wanted}\n--- got\n{text}").into())
}

/// Verdicts, files and lines of cases from outside, and introspection of schemas from outside.
fn corpus(folder: &Path, trials: &mut Vec<Trial>) {
    let table = std::fs::read_to_string(folder.join("cases/cases.tsv")).unwrap();
    for row in table.lines().skip(1) {
        let columns: Vec<String> = row.split('\t').map(str::to_owned).collect();
        let cases = folder.join("cases");
        if cases.join(format!("{}.json", columns[0])).is_file() {
            trials.push(Trial::test(format!("corpus/{}", columns[0]), move || {
                case(&cases, &columns)
            }));
        }
    }
    for (name, root) in [
        ("qapi", "schemas/qapi/qapi-schema.json"),
        ("qga", "schemas/qga/qapi-schema.json"),
        ("qsd", "schemas/storage-daemon/qapi/qapi-schema.json"),
    ] {
        for unmask in [false, true] {
            let suffix = if unmask { ".unmasked" } else { "" };
            let reference = folder.join(format!("introspect/{name}{suffix}.json"));
            let root = folder.join(root);
            trials.push(Trial::test(format!("introspect/{name}{suffix}"), move || {
                introspection(&root, &reference, unmask)
            }));
        }
    }
}

fn case(folder: &Path, columns: &[String]) -> Result<(), Failed> {
    let sources = fs::load(&folder.join(format!("{}.json", columns[0])));
    let compiled = compile(&sources);
    let first = compiled
        .diagnostics
        .iter()
        .find(|diagnostic| diagnostic.is_error());
    match (&*columns[1], first) {
        ("accept", None) => Ok(()),
        ("reject", Some(first)) => place(&sources, first, &columns[2], columns[3].parse()?),
        (wanted, _) => Err(format!("should {wanted}: {:?}", compiled.diagnostics).into()),
    }
}

/// The place must be on the line, or within the definition that starts on it.
fn place(sources: &SourceMap, first: &Diagnostic, file: &str, line: u32) -> Result<(), Failed> {
    let name = sources.name(first.primary.span.file);
    let at = sources.line_column(first.primary.span).line;
    let text = sources.text(first.primary.span.file);
    let starts_definition = |number: u32| {
        let index = usize::try_from(number).unwrap_or(0).saturating_sub(1);
        text.lines()
            .nth(index)
            .is_some_and(|line| line.trim_start().starts_with('{'))
    };
    let within = at == line
        || (at > line
            && starts_definition(line)
            && !(line + 1..=at).any(|other| {
                let index = usize::try_from(other).unwrap_or(0).saturating_sub(1);
                text.lines().nth(index).is_some_and(|line| line.starts_with('{'))
            }));
    if Path::new(name).ends_with(file) && within {
        Ok(())
    } else {
        Err(format!("should be {file}:{line}, is {name}:{at}: {}", first.message).into())
    }
}

fn introspection(root: &Path, reference: &Path, unmask: bool) -> Result<(), Failed> {
    let compiled = compile(&fs::load(root));
    let schema = compiled
        .schema
        .ok_or_else(|| format!("refused: {:?}", compiled.diagnostics))?;
    let ours: serde_json::Value = serde_json::from_str(&introspect(
        &schema,
        Options {
            unmask,
            ..Options::EVERYTHING
        },
    ))?;
    let theirs: serde_json::Value = serde_json::from_slice(&std::fs::read(reference)?)?;
    if ours == theirs {
        Ok(())
    } else {
        Err("the arrays differ".into())
    }
}
