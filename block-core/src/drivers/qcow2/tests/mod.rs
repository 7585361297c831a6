//! Tests of whole images: over memory that fails on purpose, against a model, and against QEMU's own tools.

mod basic;
mod bitmaps;
mod broken;
mod crash;
mod faults;
mod foreign;
mod matrix;
mod memory;
mod model;
mod script;
mod snapshots;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs one of QEMU's tools; `None`, said aloud, when it is not installed.
pub(super) fn qemu(tool: &str, arguments: &[&str]) -> Option<(i32, String)> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => {
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&output.stderr));
            Some((output.status.code().unwrap_or(-1), text))
        }
        Err(_) => {
            eprintln!("skipped: {tool} is not installed");
            None
        }
    }
}

/// `qemu-img check` finds no errors, and no leaks unless they are allowed.
pub(super) fn assert_check(path: &Path, leaks: bool) {
    let Some((code, text)) = qemu("qemu-img", &["check", "-f", "qcow2", path.to_str().unwrap()]) else {
        return;
    };
    assert!(
        code == 0 || (leaks && code == 3),
        "qemu-img check gave {code}: {text}"
    );
}

pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Numbers that look random; the same seed gives the same ones.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
