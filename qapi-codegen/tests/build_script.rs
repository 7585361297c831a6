//! What a build script writes, leaves alone and tells Cargo.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use qapi_codegen::build_script::{BuildError, Built};
use qapi_codegen::{Build, Conditions};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A package with a schema of two modules.
struct Package(tempfile::TempDir);

impl Package {
    fn new() -> Package {
        let package = Package(tempfile::tempdir().unwrap());
        package.write(
            "schema.json",
            "{ 'include': 'sub/part.json' }\n{ 'command': 'go', 'data': 'Part', 'if': 'GO' }\n",
        );
        package.write(
            "sub/part.json",
            "{ 'struct': 'Part', 'data': { 'name': 'str' } }\n",
        );
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn build(&self) -> Result<Built, BuildError> {
        Build::new(self.path("schema.json"))
            .conditions(Conditions::cargo_features())
            .out_dir(self.path("out"))
            .try_run()
    }

    /// Every file of the output, dated back, so that one that is written again can be told.
    fn date_back(&self) {
        for name in self.times().keys() {
            let past = SystemTime::now() - Duration::from_secs(3600);
            let file = fs::File::options()
                .write(true)
                .open(self.path("out").join(name))
                .unwrap();
            file.set_modified(past).unwrap();
        }
    }

    fn times(&self) -> BTreeMap<String, SystemTime> {
        fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, SystemTime>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    let name = path
                        .strip_prefix(root)
                        .unwrap()
                        .to_string_lossy()
                        .replace('\\', "/");
                    found.insert(name, fs::metadata(&path).unwrap().modified().unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.path("out"), &self.path("out"), &mut found);
        found
    }

    /// The files that `change` makes a build write.
    fn written_after(&self, change: impl FnOnce()) -> Vec<String> {
        self.date_back();
        let before = self.times();
        change();
        self.build().unwrap();
        let after = self.times();
        let written = after
            .into_iter()
            .filter(|(name, time)| before.get(name) != Some(time));
        written.map(|(name, _)| name).collect()
    }
}

#[test]
fn cargo_is_told_of_every_file_and_every_condition() {
    let package = Package::new();
    let built = package.build().unwrap();
    assert_eq!(built.top, package.path("out/schema.rs"));
    let mut told: Vec<String> = built.instructions;
    told.sort();
    let changed = |name: &str| format!("cargo::rerun-if-changed={}", package.path(name).display());
    assert_eq!(
        told,
        [
            changed("schema.json"),
            changed("sub/part.json"),
            "cargo::rustc-check-cfg=cfg(feature, values(\"go\"))".to_owned(),
        ]
    );
}

#[test]
fn only_what_changes_is_written() {
    let package = Package::new();
    package.build().unwrap();
    let names: Vec<String> = package.times().into_keys().collect();
    assert_eq!(names, ["schema.rs", "schema/part.rs", "schema/schema.rs"]);
    assert_eq!(package.written_after(|| {}), Vec::<String>::new());
    // A comment is nothing that code is made of, as long as lines stay where they are.
    let comment = || {
        package.write(
            "sub/part.json",
            "{ 'struct': 'Part', 'data': { 'name': 'str' } } # it\n",
        )
    };
    assert_eq!(package.written_after(comment), Vec::<String>::new());
    let member = || {
        package.write(
            "sub/part.json",
            "{ 'struct': 'Part', 'data': { 'name': 'str', '*size': 'int' } }\n",
        );
    };
    // The type, and introspection.
    assert_eq!(package.written_after(member), ["schema.rs", "schema/part.rs"]);
    let command = || {
        package.write(
            "schema.json",
            "{ 'include': 'sub/part.json' }\n{ 'command': 'go', 'if': 'GO' }\n",
        );
    };
    assert_eq!(package.written_after(command), ["schema.rs", "schema/schema.rs"]);
}

#[test]
fn mistakes_are_told_as_cargo_shows_them() {
    let package = Package::new();
    package.write(
        "sub/part.json",
        "{ 'struct': 'Part', 'data': { 'name': 'string' } }\n",
    );
    let Err(BuildError::Schema {
        text,
        short,
        instructions,
    }) = package.build()
    else {
        unreachable!("the type is unknown");
    };
    assert!(
        text.contains("error[QAPI0305]") && text.contains("^^^^^^^^"),
        "{text}"
    );
    assert_eq!(short.len(), 1);
    assert!(
        short
            .iter()
            .all(|line| line.contains("part.json:1:39: error[QAPI0305]")),
        "{short:?}"
    );
    // Also of a schema with mistakes: it is built again when one of its files changes.
    assert_eq!(instructions.len(), 2);
    assert!(!package.path("out").exists());
}

#[test]
fn only_files_that_are_there_are_watched() {
    let package = Package::new();
    package.write(
        "schema.json",
        "# { 'include': 'gone.json' }\n{ 'include': 'sub/part.json' }\n",
    );
    // Cargo takes a file that is not there for one that changes all the time.
    let built = package.build().unwrap();
    let watched = ["schema.json", "sub/part.json"]
        .map(|name| format!("cargo::rerun-if-changed={}", package.path(name).display()));
    assert_eq!(built.instructions, watched);
    // One that is missed may come: its folder's script runs again until it does.
    package.write("schema.json", "{ 'include': 'gone.json' }\n");
    let Err(BuildError::Schema { instructions, .. }) = package.build() else {
        unreachable!("the file is not there");
    };
    assert!(
        instructions.iter().any(|line| line.ends_with("gone.json")),
        "{instructions:?}"
    );
}

#[test]
fn a_type_that_is_not_there_cannot_be_overridden() {
    let package = Package::new();
    let build = |name: &str| {
        let build = Build::new(package.path("schema.json")).type_override(name, "crate::Part");
        build.out_dir(package.path("out")).try_run()
    };
    assert!(build("Part").is_ok());
    let error = build("Prat").unwrap_err().to_string();
    assert_eq!(error, "there is no type `Prat` in the schema to stand in for");
}

#[test]
fn cargo_shows_warnings_too() {
    let package = Package::new();
    let doubtful = "{ 'enum': 'Way', 'data': [ { 'name': 'up', 'features': [ 'steep', 'steep' ] } ] }\n";
    package.write("schema.json", doubtful);
    let built = package.build().unwrap();
    let warned: Vec<&String> = built
        .instructions
        .iter()
        .filter(|line| line.contains("warning"))
        .collect();
    assert_eq!(warned.len(), 1, "{:?}", built.instructions);
    assert!(
        warned[0].starts_with("cargo::warning=") && warned[0].contains("schema.json:1:"),
        "{warned:?}"
    );
    // Beside a mistake it stays a warning.
    package.write(
        "schema.json",
        &format!("{doubtful}{{ 'command': 'go', 'data': 'Ghost' }}\n"),
    );
    let Err(BuildError::Schema {
        short, instructions, ..
    }) = package.build()
    else {
        unreachable!("the type is unknown");
    };
    assert_eq!(short.len(), 1);
    assert!(short[0].contains("error[QAPI0305]"));
    assert!(
        instructions
            .iter()
            .any(|line| line.starts_with("cargo::warning="))
    );
}

#[test]
fn what_is_derived_anyway_is_not_derived_twice() {
    let package = Package::new();
    package.write(
        "schema.json",
        "{ 'enum': 'Way', 'data': [ 'up' ] }\n{ 'struct': 'Part', 'data': { 'way': 'Way' } }\n{ 'event': 'GONE' }\n",
    );
    let build = Build::new(package.path("schema.json"))
        .derive("::std::cmp::Eq")
        .derive("Hash");
    let build = build.derive("::mine::Hash").out_dir(package.path("out"));
    build.try_run().unwrap();
    let text = fs::read_to_string(package.path("out/schema/schema.rs")).unwrap();
    let derives: Vec<&str> = text.lines().filter(|line| line.starts_with("#[derive")).collect();
    assert_eq!(
        derives,
        [
            "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ::mine::Hash)]",
            "#[derive(Debug, Clone, PartialEq, ::std::cmp::Eq, Hash, ::mine::Hash)]",
            "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, ::mine::Hash)]",
        ]
    );
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let package = Package::new();
    package.write("out", "a file, no folder");
    let error = package.build().unwrap_err().to_string();
    assert!(error.starts_with("cannot write `"), "{error}");
    assert!(error.contains("out/schema"), "{error}");
}
