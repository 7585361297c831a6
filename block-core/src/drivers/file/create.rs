//! Creating files (`blockdev-create` with driver `file`).

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use super::lock::{self, Held};
use super::space;
use crate::driver::Preallocation;
use crate::error::{BlockError, Result};
use crate::graph::Perm;

/// Makes a file of this length, emptying one that is there. Blocks: call it on an engine.
pub fn create(filename: &str, length: u64, preallocation: Preallocation) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        // Only after the lock says that nobody uses it.
        .truncate(false)
        .mode(0o644)
        .open(filename)
        .map_err(|error| BlockError::from(error).context(format_args!("Could not create '{filename}'")))?;
    let file = OwnedFd::from(file);
    let wanted = Held::new(Perm::WRITE | Perm::RESIZE, Perm::ALL.without(Perm::RESIZE));
    if lock::is_supported(&file) {
        lock::change(&file, Held::NOTHING, wanted)?;
        lock::check(&file, wanted, filename)?;
    }
    rustix::fs::ftruncate(&file, 0)
        .map_err(|error| BlockError::from(error).context("Could not clear file"))?;
    space::truncate(&file, 0, length, preallocation)
}
