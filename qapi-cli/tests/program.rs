//! The program as its users meet it: exit statuses and what is printed where.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in a folder with two schemas.
fn qapi(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    std::fs::write(
        folder.join("good.json"),
        "{ 'command': 'open', 'data': { 'path': 'str', '*mode': { 'type': 'Mode', 'if': 'MODES' } }, 'gen': false,\n  'boxed': true }"
            .replace("{ 'path': 'str', '*mode': { 'type': 'Mode', 'if': 'MODES' } }", "'Open'")
            + "\n{ 'struct': 'Open', 'data': { 'path': 'str', '*mode': { 'type': 'Mode', 'if': 'MODES' } } }\n{ 'enum': 'Mode', 'data': [ 'read', 'write' ] }\n",
    )
    .ok();
    std::fs::write(
        folder.join("bad.json"),
        "{ 'struct': 'Node', 'data': { 'name': 'string' } }\n{ 'struct': 'Node', 'data': {} }\n",
    )
    .ok();
    let output: Option<Output> = Command::new(env!("CARGO_BIN_EXE_qapi"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .ok();
    output.map_or((-1, String::new(), String::new()), |output| {
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    })
}

#[test]
fn check_accepts_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        qapi(folder.path(), &["check", "good.json"]),
        (0, String::new(), String::new())
    );
    let (status, out, _) = qapi(
        folder.path(),
        &["check", "--message-format", "short", "good.json", "bad.json"],
    );
    assert_eq!(status, 1);
    assert_eq!(
        out,
        "bad.json:1:39: error[QAPI0305]: member uses unknown type 'string'\n\
         bad.json:2:13: error[QAPI0401]: struct 'Node' is already defined\n  bad.json:1:13: note: first defined here\n"
    );
    let (status, out, _) = qapi(folder.path(), &["check", "--message-format", "json", "bad.json"]);
    assert_eq!(status, 1);
    for line in out.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["primary"]["file"], "bad.json");
    }
    let (status, out, _) = qapi(
        folder.path(),
        &["check", "--message-format", "short", "none.json"],
    );
    assert_eq!(
        (status, out.starts_with("none.json:1:1: error[QAPI0110]: ")),
        (1, true)
    );
}

#[test]
fn introspect_follows_conditions() {
    let folder = tempfile::tempdir().unwrap();
    let members = |arguments: &[&str]| {
        let (status, out, _) = qapi(folder.path(), arguments);
        assert_eq!(status, 0);
        let array: serde_json::Value = serde_json::from_str(&out).unwrap();
        array[1]["members"].as_array().unwrap().len()
    };
    assert_eq!(members(&["introspect", "good.json"]), 1);
    assert_eq!(members(&["introspect", "good.json", "--define", "MODES"]), 2);
    assert_eq!(
        members(&["introspect", "good.json", "--all-conditions", "--unmask"]),
        2
    );
    assert_eq!(qapi(folder.path(), &["introspect", "bad.json"]).0, 1);
}

#[test]
fn query_has_three_answers() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |path: &str| {
        let (status, out, err) = qapi(folder.path(), &["query", "good.json", path, "--all-conditions"]);
        (status, out.trim().to_owned(), err)
    };
    assert_eq!(ask("open/arg-type/path").1, "str");
    assert_eq!(ask("open/arg-type/mode/^write").0, 0);
    let (status, _, err) = ask("open/arg-type/pathh");
    assert_eq!(status, 1);
    assert!(err.contains("'path'"), "{err}");
    assert_eq!(ask("open//path").0, 2);
}

#[test]
fn explain_generate_and_help() {
    let folder = tempfile::tempdir().unwrap();
    assert!(qapi(folder.path(), &["explain", "QAPI0305"]).1.contains("Wrong:"));
    assert_eq!(qapi(folder.path(), &["explain", "QAPI9999"]).0, 2);
    assert_eq!(qapi(folder.path(), &["generate", "good.json", "-o", "out"]).0, 0);
    assert!(folder.path().join("out/mod.rs").is_file());
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            qapi(folder.path(), &["completions", shell])
                .1
                .contains("introspect")
        );
    }
    assert!(
        qapi(folder.path(), &["man", "check"])
            .1
            .contains("message\\-format")
    );
}

#[test]
fn generated_files_are_checked_and_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let generate = |more: &[&str]| {
        let mut arguments = vec!["generate", "good.json", "-o", "out"];
        arguments.extend(more);
        qapi(folder.path(), &arguments)
    };
    let (status, _, text) = generate(&["--check"]);
    assert_eq!(status, 1);
    assert!(text.contains("mod.rs' is missing"), "{text}");
    assert!(!out.exists());
    assert_eq!(generate(&[]).0, 0);
    assert_eq!(generate(&["--check"]), (0, String::new(), String::new()));
    // A module that is gone, a file of somebody else, and one that was changed by hand.
    std::fs::write(
        out.join("gone.rs"),
        "// Generated from gone.json; changes here are lost.\n",
    )
    .unwrap();
    std::fs::write(out.join("own.rs"), "// Ours.\n").unwrap();
    let good = std::fs::read(out.join("good.rs")).unwrap();
    std::fs::write(out.join("good.rs"), "// Changed.\n").unwrap();
    let untouched = std::fs::metadata(out.join("mod.rs")).unwrap().modified().unwrap();
    let (status, _, text) = generate(&["--check"]);
    assert_eq!(status, 1);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        text.contains("good.rs' differs") && text.contains("gone.rs' is of an earlier schema"),
        "{text}"
    );
    assert_eq!(generate(&[]).0, 0);
    assert_eq!(std::fs::read(out.join("good.rs")).unwrap(), good);
    assert!(!out.join("gone.rs").exists() && out.join("own.rs").exists());
    assert_eq!(
        std::fs::metadata(out.join("mod.rs")).unwrap().modified().unwrap(),
        untouched
    );
    // The same bytes from another folder, by another path and in another language.
    let there: Option<Output> = Command::new(env!("CARGO_BIN_EXE_qapi"))
        .current_dir("/")
        .env("LC_ALL", "tr_TR.UTF-8")
        .arg("generate")
        .arg(folder.path().join("./good.json"))
        .args(["--check", "-o"])
        .arg(&out)
        .output()
        .ok();
    assert!(there.is_some_and(|output| output.status.success()));
    // The first line says how the files are made again, wherever they were made.
    let arguments = [
        "--role",
        "client",
        "--older-servers",
        "--set",
        "A",
        "B",
        "--derive",
        "::std::hash::Hash",
    ];
    assert_eq!(generate(&arguments).0, 0);
    let top = std::fs::read_to_string(out.join("mod.rs")).unwrap();
    let line = top.lines().next().unwrap();
    assert_eq!(
        line,
        "// Generated by `qapi generate good.json --role client --older-servers --set A B --derive ::std::hash::Hash`; \
         changes here are lost."
    );
    // What cannot be generated is said.
    let (status, _, text) = generate(&["--override", "Ghost=crate::Ghost"]);
    assert_eq!(status, 2);
    assert!(text.contains("there is no type `Ghost` in the schema"), "{text}");
    // A folder that cannot be one.
    std::fs::write(folder.path().join("file"), "").unwrap();
    let (status, _, text) = qapi(folder.path(), &["generate", "good.json", "-o", "file/inner"]);
    assert_eq!(status, 2);
    assert!(text.contains("'file/inner'"), "{text}");
}
