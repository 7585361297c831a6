//! The compiler in a build script.
//!
//! ```no_run
//! use qapi_codegen::{Build, Role};
//!
//! fn main() {
//!     Build::new("schema.json").role(Role::Server).run();
//! }
//! ```
//!
//! What is wrong with the schema is printed as Cargo prints errors; nothing panics. A file is written
//! only when its bytes change, and Cargo is told of every file that was read, so that nothing is built
//! again when nothing changed.

use crate::diagnostic::{Diagnostic, has_errors};
use crate::emit::{self, Conditions, Layout, Options, Role};
use crate::ir::{Condition, Schema};
use crate::render::{self, Style};
use crate::source::SourceMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A schema to generate code from, and how.
#[derive(Debug, Clone)]
#[must_use]
pub struct Build {
    schema: PathBuf,
    options: Options,
    out_dir: Option<PathBuf>,
    name: Option<String>,
}

/// What a build did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Built {
    /// The file to `include!`.
    pub top: PathBuf,
    /// Lines for Cargo.
    pub instructions: Vec<String>,
    /// Warnings about the schema, rendered.
    pub warnings: String,
}

/// Why a build gave no code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The schema has mistakes.
    #[error("{text}")]
    Schema {
        /// All mistakes, rendered.
        text: String,
        /// One line a mistake.
        short: Vec<String>,
        /// Lines for Cargo.
        instructions: Vec<String>,
    },
    /// What is to be generated cannot be.
    #[error(transparent)]
    Emit(#[from] emit::EmitError),
    /// A file could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two builds of one script write the same file.
    #[error("`{}` is written by two builds: one of them needs another `name`", .0.display())]
    Twice(PathBuf),
    /// This is no build script.
    #[error("OUT_DIR is not set: `Build::run` belongs into a build script; elsewhere say `out_dir`")]
    NoOutDir,
}

impl Build {
    /// Code from the schema in `path`, which is relative to the package.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Build {
            schema: path.into(),
            options: Options::default(),
            out_dir: None,
            name: None,
        }
    }

    /// Which end of the connection the code is for; a server if nothing is said.
    pub fn role(mut self, role: Role) -> Self {
        self.options.role = role;
        self
    }

    /// What becomes of `if`; everything is there if nothing is said.
    pub fn conditions(mut self, conditions: Conditions) -> Self {
        self.options.conditions = conditions;
        self
    }

    /// Types only: no traits, rows and client.
    pub fn types_only(mut self) -> Self {
        self.options.types_only = true;
        self
    }

    /// A client keeps members that the schema does not have, in a field `unknown`.
    pub fn keep_unknown(mut self) -> Self {
        self.options.keep_unknown = true;
        self
    }

    /// A client talks to servers that are older than its schema and leave out members that are new in it, also
    /// those that must be there: they have no content then, that is, they are an empty text or list, 0, `false`, or
    /// the unknown value of an enumeration. If nothing is said only lists may be left out, and another
    /// missing member is an error.
    pub fn older_servers(mut self) -> Self {
        self.options.older_servers = true;
        self
    }

    /// Every type of the schema and every event derives this trait too: `Eq`, `::my_crate::MyTrait`. Where it is derived
    /// anyway, as `Eq` is for enumerations, it is not derived twice.
    pub fn derive(mut self, path: impl Into<String>) -> Self {
        self.options.derives.push(path.into());
        self
    }

    /// The type `schema_type` is not generated; `rust_type` stands for it everywhere, and its path must be
    /// good in every module: `crate::Uuid`, `::std::path::PathBuf`.
    ///
    /// What it has to implement follows from where the schema uses it:
    ///
    /// * everywhere `Debug`, `Clone`, `PartialEq`, the runtime's `Decode` and `Encode`, and what else is derived;
    /// * as a base, a branch, or a union's data also `Members`; `qapi_runtime::object!` gives the other two from it;
    /// * an enumeration that a union goes by has the variants that would have been generated.
    pub fn type_override(mut self, schema_type: impl Into<String>, rust_type: impl Into<String>) -> Self {
        self.options
            .type_overrides
            .insert(schema_type.into(), rust_type.into());
        self
    }

    /// These commands have no method to implement, because something below the handler answers them.
    pub fn answered_by_runtime<S: Into<String>>(mut self, commands: impl IntoIterator<Item = S>) -> Self {
        self.options
            .answered_by_runtime
            .extend(commands.into_iter().map(Into::into));
        self
    }

    /// Whether what the schema marks deprecated gets `#[deprecated]`; it does if nothing is said.
    pub fn deprecated_attributes(mut self, yes: bool) -> Self {
        self.options.deprecated_attributes = yes;
        self
    }

    /// Where the files go; `OUT_DIR` if nothing is said.
    pub fn out_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(path.into());
        self
    }

    /// The name of the file to include, without `.rs`; that of the schema's file if nothing is said. The file belongs into a
    /// module of its own, where nothing else can hide what it means.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Generates, and tells Cargo all about it. When the schema has mistakes it prints them and ends the
    /// build script.
    pub fn run(self) {
        match self.try_run().and_then(only_once) {
            Ok(built) => {
                eprint!("{}", built.warnings);
                print!("{}", lines(&built.instructions));
            }
            Err(error) => {
                let mut instructions = Vec::new();
                match &error {
                    BuildError::Schema {
                        text,
                        short,
                        instructions: files,
                    } => {
                        eprintln!("{text}");
                        instructions.extend(files.iter().cloned());
                        instructions.extend(short.iter().map(|line| format!("cargo::error={line}")));
                    }
                    other => instructions.push(format!("cargo::error={other}")),
                }
                print!("{}", lines(&instructions));
                std::process::exit(1);
            }
        }
    }

    /// Generates, and says what to tell Cargo.
    ///
    /// # Errors
    /// When the schema has mistakes or a file cannot be written.
    pub fn try_run(&self) -> Result<Built, BuildError> {
        let out_dir = match &self.out_dir {
            Some(folder) => folder.clone(),
            None => std::env::var_os("OUT_DIR")
                .map(PathBuf::from)
                .ok_or(BuildError::NoOutDir)?,
        };
        let sources = crate::fs::load(&self.schema);
        let mut instructions: Vec<String> = sources
            .files()
            .map(|(_, source)| changed(source.name()))
            .collect();
        let compiled = crate::compile(&sources);
        let Some(schema) = compiled.schema.filter(|_| !has_errors(&compiled.diagnostics)) else {
            let text = render::human(&sources, &compiled.diagnostics, Style::Plain);
            let (errors, warnings): (Vec<_>, Vec<_>) =
                compiled.diagnostics.into_iter().partition(Diagnostic::is_error);
            let short = one_a_line(&sources, &errors);
            instructions.extend(cargo_warnings(&sources, &warnings));
            return Err(BuildError::Schema {
                text,
                short,
                instructions,
            });
        };
        // A file that cannot be read and is not missed is named in a comment: told of it, Cargo would build again and again.
        instructions = sources
            .files()
            .filter(|(_, source)| source.problem().is_none())
            .map(|(_, source)| changed(source.name()))
            .collect();
        instructions.extend(self.check_cfgs(&schema));
        let folder = match &self.name {
            Some(name) => name.clone(),
            None => self
                .schema
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        let outputs = emit::generate(&schema, &self.options, Layout::OutDir(&folder))?;
        let inner = out_dir.join(&folder);
        make_folder(&inner)?;
        let top = out_dir.join(format!("{folder}.rs"));
        for (at, output) in outputs.iter().enumerate() {
            let path = if at == 0 {
                top.clone()
            } else {
                inner.join(&output.name)
            };
            write_if_changed(&path, output.text.as_bytes())?;
        }
        let warnings = render::human(&sources, &compiled.diagnostics, Style::Plain);
        instructions.extend(cargo_warnings(&sources, &compiled.diagnostics));
        Ok(Built {
            top,
            instructions,
            warnings,
        })
    }

    /// Tells rustc which configurations the code may ask for.
    fn check_cfgs(&self, schema: &Schema) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for_each_condition(schema, &mut |condition| {
            condition.symbols(&mut |symbol| {
                if let Some(predicate) = self.options.conditions.predicate(symbol) {
                    let check = match predicate.split_once('=') {
                        Some((key, value)) => format!("cfg({}, values({}))", key.trim(), value.trim()),
                        None => format!("cfg({predicate})"),
                    };
                    found.insert(format!("cargo::rustc-check-cfg={check}"));
                }
            });
        });
        found
    }
}

/// Writes files into a folder, as they are; one that has these bytes already keeps its time.
///
/// # Errors
/// When a file cannot be written.
pub fn write_outputs(folder: &Path, outputs: &[emit::Output]) -> Result<(), BuildError> {
    make_folder(folder)?;
    outputs
        .iter()
        .try_for_each(|output| write_if_changed(&folder.join(&output.name), output.text.as_bytes()))
}

/// Notices a build that has overwritten what an earlier one of the same script has written.
fn only_once(built: Built) -> Result<Built, BuildError> {
    static WRITTEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if written.insert(built.top.clone()) {
        Ok(built)
    } else {
        Err(BuildError::Twice(built.top))
    }
}

fn make_folder(path: &Path) -> Result<(), BuildError> {
    std::fs::create_dir_all(path).map_err(|source| BuildError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    std::fs::write(path, bytes).map_err(|source| BuildError::Write {
        path: path.to_owned(),
        source,
    })
}

fn changed(file: &str) -> String {
    format!("cargo::rerun-if-changed={file}")
}

/// One line a diagnostic, without further places.
fn one_a_line(sources: &SourceMap, diagnostics: &[Diagnostic]) -> Vec<String> {
    let text = render::short(sources, diagnostics);
    let lines = text.lines().filter(|line| !line.starts_with("  "));
    lines.map(str::to_owned).collect()
}

/// Cargo shows nothing else that a build script says when all is well.
fn cargo_warnings(sources: &SourceMap, warnings: &[Diagnostic]) -> Vec<String> {
    let lines = one_a_line(sources, warnings).into_iter();
    lines.map(|line| format!("cargo::warning={line}")).collect()
}

fn lines(instructions: &[String]) -> String {
    instructions.iter().fold(String::new(), |mut text, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
        text
    })
}

/// Calls `found` with every condition of a schema.
pub fn for_each_condition<'s>(schema: &'s Schema, found: &mut dyn FnMut(&'s Condition)) {
    use crate::ir::{Feature, TypeKind};
    fn features<'f>(list: &'f [Feature], found: &mut dyn FnMut(&'f Condition)) {
        list.iter().for_each(|feature| found(&feature.condition));
    }
    for (_, ty) in schema.types() {
        found(&ty.condition);
        features(&ty.features, found);
        match &ty.kind {
            TypeKind::Enum(of) => of.values.iter().for_each(|value| {
                found(&value.condition);
                features(&value.features, found);
            }),
            TypeKind::Struct(of) => of.members.iter().for_each(|member| {
                found(&member.condition);
                features(&member.features, found);
            }),
            TypeKind::Union(of) => of.branches.iter().for_each(|branch| found(&branch.condition)),
            TypeKind::Alternate(of) => of.alternatives.iter().for_each(|one| found(&one.condition)),
        }
    }
    for (_, command) in schema.commands() {
        found(&command.condition);
        features(&command.features, found);
    }
    for (_, event) in schema.events() {
        found(&event.condition);
        features(&event.features, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_builds_of_a_script_write_two_files() {
        let built = |name: &str| Built {
            top: name.into(),
            instructions: Vec::new(),
            warnings: String::new(),
        };
        assert!(only_once(built("out/server.rs")).is_ok());
        assert!(only_once(built("out/client.rs")).is_ok());
        let error = only_once(built("out/server.rs")).unwrap_err().to_string();
        assert_eq!(
            error,
            "`out/server.rs` is written by two builds: one of them needs another `name`"
        );
    }
}
