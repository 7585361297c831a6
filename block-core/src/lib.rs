//! Block nodes, image formats, dirty bitmaps, jobs, backup and the NBD data plane.
//!
//! This crate knows nothing of QMP or JSON, and opens no control socket: the daemon translates its schema's
//! types into [`options`] and calls, and [`event::Event`]s into QMP events.

pub mod backup;
pub mod bitmap;
pub mod driver;
pub mod drivers;
pub mod engine;
pub mod error;
pub mod event;
pub mod graph;
pub mod job;
pub mod nbd;
pub mod options;
mod sync;
pub mod types;

pub use error::{BlockError, ErrorKind, Result};
