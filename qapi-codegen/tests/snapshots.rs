//! What is generated, for people to read: a small schema of each thing, as server and as client.
//!
//! `UPDATE_EXPECT=1 cargo test -p qapi-codegen --test snapshots` writes the files anew; read the diff.
//! The same code is compiled without warnings by the test `compile`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure is the test's"
)]

use expect_test::expect_file;
use qapi_codegen::emit::{self, Layout, Options};
use qapi_codegen::{Conditions, Role};
use std::path::Path;

fn generated(role: Role, conditions: Conditions) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/small.json");
    let compiled = qapi_codegen::compile(&qapi_codegen::fs::load(&path));
    let schema = compiled
        .schema
        .unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
    let mut options = Options::default();
    options.role = role;
    options.conditions = conditions;
    let text = |outputs: Vec<emit::Output>| -> String {
        outputs
            .iter()
            .map(|output| format!("// ===== {} =====\n{}\n", output.name, output.text))
            .collect()
    };
    let once = text(emit::generate(&schema, &options, Layout::Folder).unwrap());
    let again = text(emit::generate(&schema, &options, Layout::Folder).unwrap());
    assert_eq!(once, again, "the same schema gives the same bytes");
    once
}

#[test]
fn server() {
    expect_file!["snapshots/server.rs"].assert_eq(&generated(Role::Server, Conditions::all_set()));
}

#[test]
fn client() {
    expect_file!["snapshots/client.rs"].assert_eq(&generated(Role::Client, Conditions::all_set()));
}
