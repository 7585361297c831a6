//! The qcow2 image format, versions 2 and 3.
//!
//! One `Meta` owns every table of an open image and changes in synchronous steps; `io` carries out
//! what the steps need and moves the data; `writeback` brings tables to the disk in an order that a crash can
//! interrupt anywhere: refcounts before what refers to clusters, and nothing is freed before nothing refers to it.
//! The driver does not know the graph: below it are two [`Storage`]s, the image's file and the backing node.
//!
//! Not supported, and refused by name: extended L2 entries, external data files, encryption.

mod backing;
mod bitmaps;
mod bytes;
mod cache;
mod check;
mod compress;
mod create;
mod driver;
mod entry;
mod header;
mod io;
mod meta;
mod open;
mod refcount;
mod resize;
mod shadow;
mod snapshots;
mod status;
pub mod storage;
mod writeback;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

pub use check::CheckReport;
pub use create::{CreateOptions, create};
pub use driver::{open, probe};
pub use header::Compression;
pub use open::OpenOptions;
pub use storage::Storage;

use crate::{BlockError, ErrorKind, Result};

/// The header as it lies on disk.
struct DiskHeader {
    header: header::Header,
    /// What lies behind the first sector, once it was written here. Whoever made the image may have laid it out otherwise.
    tail: Option<Vec<u8>>,
}

/// An open image.
pub struct Qcow2 {
    file: Arc<dyn Storage>,
    backing: ArcSwapOption<Arc<dyn Storage>>,
    meta: Mutex<meta::Meta>,
    /// The header as it lies on disk; writers of the header take turns. Held over awaits: only header writes wait for it.
    disk_header: tokio::sync::Mutex<DiskHeader>,
    /// A header write was begun and not seen to end.
    header_unsettled: AtomicBool,
    /// Write-backs take turns. Held over awaits: what runs under it never waits for another holder of it.
    turn: tokio::sync::Mutex<()>,
    /// A metadata write was begun and not seen to end.
    unsettled: AtomicBool,
    /// Operations that change the image's structure (snapshots, resize, stored bitmaps) take turns.
    operations: tokio::sync::Mutex<()>,
    /// Requests under way, by the parity they entered in.
    busy: [AtomicU64; 2],
    /// Somebody waits for `busy` to become zero.
    wants_idle: AtomicBool,
    idle: Notify,
    length: AtomicU64,
    read_only: AtomicBool,
    /// The bitmap directory as it lies on disk.
    directory: Mutex<Vec<bitmaps::Entry>>,
    snapshots: Mutex<snapshots::Snapshots>,
    /// Host space that others fill, by token.
    mappings: Mutex<HashMap<u64, io::Mapping>>,
    next_token: AtomicU64,
    /// See [`is_preallocated`](Self::is_preallocated).
    preallocated: tokio::sync::OnceCell<bool>,
    options: ArcSwap<OpenOptions>,
}

impl fmt::Debug for Qcow2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qcow2")
            .field("file", &self.file)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
