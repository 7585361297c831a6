//! The drivers: protocols at the bottom, formats and filters above them.

pub mod blkdebug;
pub mod file;
pub mod null;
pub mod qcow2;
pub mod raw;
