//! The QMP commands, one file a schema module, and what the command line shares with them.

pub mod block_core;
mod block_export;
mod control;
mod job;
mod qom;
pub mod startup;
mod throttle;
mod transaction;

use std::time::Duration;

use qapi_runtime::{CommandTable, EventHub};

use crate::cli::help::QEMU_VERSION;
use crate::daemon::Daemon;

/// The reply of `query-qmp-schema`.
pub const INTROSPECTION: &[u8] = schema::INTROSPECTION;

/// Every command.
pub fn table() -> CommandTable<Daemon> {
    schema::commands()
}

/// The version object of the greeting.
pub fn version_json() -> String {
    let (major, minor, micro) = QEMU_VERSION;
    format!(
        "{{\"qemu\": {{\"micro\": {micro}, \"minor\": {minor}, \"major\": {major}}}, \"package\": \"storage-daemon {}\"}}",
        env!("CARGO_PKG_VERSION")
    )
}

/// Events that could come in floods are told at most once a second for each node.
pub fn limit_event_rates(hub: &EventHub) {
    hub.limit_rate("BLOCK_IO_ERROR", Duration::from_secs(1), Some("node-name"));
}
