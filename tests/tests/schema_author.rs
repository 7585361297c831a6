//! What the build says to a schema author: which method is missing, which match is not exhaustive, which line is wrong.
//!
//! Each test changes a copy of the daemon's schema and checks the copy of the daemon against it; the other crates are
//! the workspace's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// One build folder for all tests here, used by one at a time.
static BUILD: Mutex<()> = Mutex::new(());

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap_or_default()
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Copies schema and daemon, lets `edit` change one schema module, and checks the daemon.
fn check_with(module: &str, edit: impl FnOnce(String) -> String) -> std::io::Result<String> {
    let _one_at_a_time = BUILD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let root = root();
    let folder = tempfile::tempdir()?;
    for name in ["schema", "storage-daemon"] {
        copy(&root.join(name), &folder.path().join(name))?;
    }
    // The documents that sources include by path.
    copy(&root.join("docs"), &folder.path().join("docs"))?;
    fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock"))?;
    let mut manifest = String::new();
    for line in fs::read_to_string(root.join("Cargo.toml"))?.lines() {
        let line = if line.starts_with("members") {
            "members = [\"schema\", \"storage-daemon\"]".to_owned()
        } else if ["qapi-codegen", "qapi-runtime", "block-core"]
            .iter()
            .any(|name| line.starts_with(&format!("{name} =")))
        {
            line.replace("path = \"", &format!("path = \"{}/", root.display()))
        } else {
            line.to_owned()
        };
        manifest.push_str(&line);
        manifest.push('\n');
    }
    fs::write(folder.path().join("Cargo.toml"), manifest)?;
    let module = folder.path().join("schema").join(module);
    fs::write(&module, edit(fs::read_to_string(&module)?))?;
    let output: Output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "-p", "storage-daemon", "--lib"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", root.join("target/schema-author"))
        .env("CARGO_TERM_COLOR", "never")
        .env_remove("RUSTFLAGS")
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "the build was expected to fail:\n{text}"
    );
    Ok(text)
}

const RENAME: &str = "
##
# @block-dirty-bitmap-rename:
#
# Give a bitmap another name.
#
# @node: node that the bitmap is on
#
# @name: today's name
#
# @new-name: name from now on
#
# Since: 11.0
##
{ 'command': 'block-dirty-bitmap-rename',
  'data': { 'node': 'str', 'name': 'str', 'new-name': 'str' } }
";

#[test]
fn a_new_command_does_not_compile_until_it_is_handled() {
    let text = check_with("block-core.json", |schema| schema + RENAME).expect("a build");
    assert!(text.contains("error[E0046]"), "{text}");
    assert!(text.contains("missing: `block_dirty_bitmap_rename`"), "{text}");
    assert_eq!(text.matches("error[").count(), 1, "to the point:\n{text}");
}

#[test]
fn a_new_branch_does_not_compile_until_it_is_matched() {
    let text = check_with("transaction.json", |schema| {
        let (before, kind) = schema.split_once("# @TransactionActionKind:").expect("the kinds");
        let kind = kind
            .replacen(
                "# @abort:",
                "# @block-dirty-bitmap-rename: gives a bitmap another name\n#\n# @abort:",
                1,
            )
            .replacen("[ 'abort',", "[ 'abort', 'block-dirty-bitmap-rename',", 1)
            .replacen(
                "'data': { 'abort':",
                "'data': { 'block-dirty-bitmap-rename': 'BlockDirtyBitmapWrapper', 'abort':",
                1,
            );
        format!("{before}# @TransactionActionKind:{kind}")
    })
    .expect("a build");
    assert!(text.contains("error[E0004]"), "{text}");
    assert!(text.contains("BlockDirtyBitmapRename(_)` not covered"), "{text}");
}

#[test]
fn a_slip_is_shown_in_the_schema_file() {
    let text = check_with("block-core.json", |schema| {
        schema + &RENAME.replace("'new-name': 'str'", "'new-name': 'strr'")
    })
    .expect("a build");
    assert!(text.contains("QAPI0305"), "{text}");
    assert!(text.contains("block-core.json:"), "{text}");
    assert!(text.contains("'new-name': 'strr'"), "{text}");
    assert!(text.contains("did you mean 'str'?"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}
