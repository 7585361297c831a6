//! Generated code compiles: for every schema, as server and as client, without a condition set, with all
//! set, and with each alone, without a warning of the compiler; without a condition and with all, neither clippy
//! nor rustdoc has one.
//!
//! The project's own small schemas are always tried. With `QAPI_CORPUS` naming a folder that has
//! `schemas/{qapi/qapi-schema,qga/qapi-schema,storage-daemon/qapi/qapi-schema}.json` and `cases/cases.tsv`, these are tried
//! too, and so are the root files in `QAPI_SCHEMAS`, as `PATH` has folders: schemas of other versions. With
//! `QAPI_COMPILE=whole` each condition is tried alone, else a fixed sample of six:
//!
//! ```text
//! QAPI_CORPUS=/path/to/corpus QAPI_COMPILE=whole cargo test -p qapi-codegen --test compile -- --nocapture
//! ```
//!
//! `QAPI_COMPILE=2/8` tries the second eighth of them, so that the whole can be done in pieces. Each group of schemas
//! says at its end what was tried and how long it took.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure is the test's"
)]

use qapi_codegen::emit::{self, Layout, Options};
use qapi_codegen::ir::Schema;
use qapi_codegen::{Conditions, Role};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Schemas that become one crate, and so are compiled together.
struct Group {
    name: &'static str,
    schemas: Vec<(String, PathBuf)>,
}

#[test]
fn own_schemas() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let mut schemas: Vec<(String, PathBuf)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_string_lossy().replace('-', "_"),
                path,
            )
        })
        .collect();
    schemas.sort();
    assert!(!schemas.is_empty());
    check(&Group { name: "own", schemas });
}

#[test]
fn corpus() {
    let Some(corpus) = std::env::var_os("QAPI_CORPUS").map(PathBuf::from) else {
        println!("skipped: QAPI_CORPUS is not set");
        return;
    };
    let table = std::fs::read_to_string(corpus.join("cases/cases.tsv")).unwrap();
    let cases = table
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('\t');
            let (name, verdict) = (columns.next()?, columns.next()?);
            let path = corpus.join(format!("cases/{name}.json"));
            (verdict == "accept" && path.exists()).then(|| (format!("case_{}", name.replace('-', "_")), path))
        })
        .collect();
    check(&Group {
        name: "cases",
        schemas: cases,
    });
    for (name, path) in [
        ("qga", "schemas/qga/qapi-schema.json"),
        ("qsd", "schemas/storage-daemon/qapi/qapi-schema.json"),
        ("qapi", "schemas/qapi/qapi-schema.json"),
    ] {
        let path = corpus.join(path);
        if path.exists() {
            check(&Group {
                name,
                schemas: vec![(name.to_owned(), path)],
            });
        } else {
            println!("skipped: no {}", path.display());
        }
    }
}

#[test]
fn others() {
    let Some(paths) = std::env::var_os("QAPI_SCHEMAS") else {
        println!("skipped: QAPI_SCHEMAS is not set");
        return;
    };
    let schemas = std::env::split_paths(&paths)
        .enumerate()
        .map(|(number, path)| (format!("other_{number}"), path))
        .collect();
    check(&Group {
        name: "others",
        schemas,
    });
}

fn compile(path: &Path) -> Schema {
    let sources = qapi_codegen::fs::load(path);
    let compiled = qapi_codegen::compile(&sources);
    let text = || qapi_codegen::render::short(&sources, &compiled.diagnostics);
    compiled.schema.clone().unwrap_or_else(|| panic!("{}", text()))
}

fn check(group: &Group) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("compile")
        .join(group.name);
    let source = folder.join("src");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir_all(&source).unwrap();
    let mut symbols = BTreeSet::new();
    let mut lib = String::from("//! Generated code of many schemas.\n");
    for (name, path) in &group.schemas {
        let schema = compile(path);
        qapi_codegen::build_script::for_each_condition(&schema, &mut |condition| {
            condition.symbols(&mut |symbol| {
                symbols.insert(symbol.to_owned());
            });
        });
        let mapped = Conditions::cargo_features();
        let mut roles = vec![
            (Role::Server, "server", mapped.clone()),
            (Role::Client, "client", mapped),
        ];
        if group.name == "own" {
            // Also what is decided when the code is generated.
            let some = symbols.iter().step_by(2).cloned();
            roles.push((Role::Server, "decided", Conditions::set(some)));
            roles.push((Role::Server, "bare", Conditions::set::<String>([])));
        }
        for (role, end, conditions) in roles {
            let mut options = Options::default();
            options.role = role;
            options.conditions = conditions;
            // Every second client keeps what it does not know, so that both are tried.
            options.keep_unknown = role == Role::Client && name.len() % 2 == 0;
            options.older_servers = role == Role::Client && name.len() % 3 == 0;
            let outputs = emit::generate(&schema, &options, Layout::Folder).unwrap();
            let module = format!("{name}_{end}");
            qapi_codegen::build_script::write_outputs(&source.join(&module), &outputs).unwrap();
            writeln!(
                lib,
                "/// {}.\npub mod {module};",
                path.file_name().unwrap().to_string_lossy()
            )
            .unwrap();
        }
    }
    std::fs::write(source.join("lib.rs"), lib).unwrap();
    write_manifest(&folder, &symbols);
    let features: Vec<String> = symbols.iter().map(|symbol| feature(symbol)).collect();
    let mut runs = vec![Vec::new(), features.clone()];
    let part = Part::asked();
    let singles = part.of(&features);
    runs.extend(
        singles
            .into_iter()
            .filter(|_| features.len() > 1)
            .map(|feature| vec![feature]),
    );
    println!(
        "{}: {} schemas, {} conditions, {} runs",
        group.name,
        group.schemas.len(),
        features.len(),
        runs.len()
    );
    let began = std::time::Instant::now();
    for (number, run) in runs.iter().enumerate() {
        // Each condition alone is a matter of what compiles; style and documentation are that of both extremes.
        let tools: &[&[&str]] = if number >= 2 {
            &[&["check"]]
        } else if matches!(part, Part::Piece(..)) {
            // Other pieces have had these.
            &[]
        } else {
            &[&["clippy"], &["doc", "--no-deps"]]
        };
        for tool in tools {
            cargo(group, &folder, tool, run);
        }
    }
    println!(
        "{}: as server and as client, no warning under {} of {} single conditions{} in {:.0?}",
        group.name,
        runs.len() - 2,
        features.len(),
        if matches!(part, Part::Piece(..)) {
            ""
        } else {
            ", none and all"
        },
        began.elapsed()
    );
}

/// Which single conditions are tried.
enum Part {
    /// A fixed sample of six.
    Sample,
    /// Each.
    Whole,
    /// One piece, counted from one, of so many.
    Piece(usize, usize),
}

impl Part {
    /// What `QAPI_COMPILE` says.
    fn asked() -> Part {
        match std::env::var("QAPI_COMPILE") {
            Err(_) => Part::Sample,
            Ok(what) if what == "whole" => Part::Whole,
            Ok(what) => {
                let (piece, of) = what
                    .split_once('/')
                    .unwrap_or_else(|| panic!("QAPI_COMPILE is `whole` or a piece like `2/8`"));
                let (piece, of) = (piece.parse().unwrap(), of.parse().unwrap());
                assert!(0 < piece && piece <= of, "there is no piece {piece} of {of}");
                Part::Piece(piece, of)
            }
        }
    }

    fn of(&self, features: &[String]) -> Vec<String> {
        let (skip, step) = match self {
            Part::Sample => (0, features.len().div_ceil(6).max(1)),
            Part::Whole => (0, 1),
            Part::Piece(piece, of) => (piece - 1, *of),
        };
        features.iter().skip(skip).step_by(step).cloned().collect()
    }
}

/// Runs a tool that must have nothing to say.
fn cargo(group: &Group, folder: &Path, tool: &[&str], features: &[String]) {
    let began = std::time::Instant::now();
    let output = Command::new(env!("CARGO"))
        .args(tool)
        .args(["--offline", "--quiet", "--features", &features.join(",")])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder.parent().unwrap().join("target"))
        // Nothing is compiled twice with the same conditions.
        .env("CARGO_INCREMENTAL", "0")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTDOCFLAGS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let quiet = !text.contains("warning") && !text.contains("error");
    assert!(
        output.status.success() && quiet,
        "{}: cargo {tool:?} with features {features:?}:\n{}",
        group.name,
        head(&text)
    );
    println!(
        "  {} with {} conditions: {:.1?}",
        tool.join(" "),
        features.len(),
        began.elapsed()
    );
}

fn head(text: &str) -> String {
    text.lines().take(80).collect::<Vec<_>>().join("\n")
}

fn feature(symbol: &str) -> String {
    symbol.to_ascii_lowercase().replace('_', "-")
}

/// A package with the workspace's lints and a feature for each condition.
fn write_manifest(folder: &Path, symbols: &BTreeSet<String>) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = std::fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
    let lints: String = manifest
        .split("\n[")
        .filter(|table| table.starts_with("workspace.lints."))
        .map(|table| format!("[{}\n", table.trim_start_matches("workspace.")))
        .collect();
    assert!(lints.contains("missing_docs"));
    let features: String = symbols
        .iter()
        .map(|symbol| format!("{} = []\n", feature(symbol)))
        .collect();
    let text = format!(
        "[package]\nname = \"generated\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [features]\n{features}\n[dependencies]\nqapi-runtime = {{ path = {:?}, features = [\"serde\"] }}\n\n{lints}\n[workspace]\n",
        workspace.join("qapi-runtime")
    );
    std::fs::write(folder.join("Cargo.toml"), text).unwrap();
    std::fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    std::fs::copy(workspace.join("clippy.toml"), folder.join("clippy.toml")).unwrap();
}
