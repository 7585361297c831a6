//! The drivers: protocols at the bottom, formats and filters above them.

pub mod blkdebug;
pub mod by_name;
pub mod copy_before_write;
pub mod create_file;
pub mod file;
pub mod nbd_client;
pub mod null;
pub mod qcow2;
pub mod raw;
pub mod snapshot_access;
pub mod throttle;
