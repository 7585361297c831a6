//! Generated code is run: what a server, a client and a client that keeps everything make of values, right and wrong.

use qapi_codegen::emit::{self, Layout, Options};
use qapi_codegen::{Conditions, Role};
use std::path::Path;
use std::process::Command;

#[test]
fn generated_types_read_and_write_what_the_schema_says() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("behaviour");
    let source = folder.join("src");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir_all(&source).unwrap();
    let compiled = qapi_codegen::compile(&qapi_codegen::fs::load(&here.join("tests/run/shapes.json")));
    let schema = compiled.schema.unwrap();
    for (name, role, keeps) in [
        ("server", Role::Server, false),
        ("client", Role::Client, false),
        ("keeping", Role::Client, true),
    ] {
        let mut options = Options::default();
        options.role = role;
        options.conditions = Conditions::set::<String>([]);
        options.keep_unknown = keeps;
        options.older_servers = keeps;
        options.deprecated_attributes = false;
        let outputs = emit::generate(&schema, &options, Layout::Folder).unwrap();
        qapi_codegen::build_script::write_outputs(&source.join(name), &outputs).unwrap();
    }
    std::fs::write(
        source.join("lib.rs"),
        "pub mod client;\npub mod keeping;\npub mod server;\n",
    )
    .unwrap();
    std::fs::copy(here.join("tests/run/behaviour.rs"), source.join("main.rs")).unwrap();
    let workspace = here.parent().unwrap();
    let manifest = format!(
        "[package]\nname = \"generated\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [dependencies]\nqapi-runtime = {{ path = {:?} }}\n\n[profile.dev]\ndebug = false\n\n[workspace]\n",
        workspace.join("qapi-runtime")
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--offline", "--quiet"])
        .current_dir(&folder)
        .env(
            "CARGO_TARGET_DIR",
            folder.parent().unwrap().join("compile/target"),
        )
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && text == "as it should be\n",
        "{text}{errors}"
    );
}
