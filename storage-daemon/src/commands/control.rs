//! control.json: the session itself.

use qapi_runtime::{Call, Error};
use schema::{ControlCommands, VersionInfo, VersionTriple};

use crate::cli::help::QEMU_VERSION;
use crate::daemon::Daemon;

impl ControlCommands for Daemon {
    async fn query_version(&self, _call: &Call) -> Result<VersionInfo, Error> {
        let (major, minor, micro) = QEMU_VERSION;
        Ok(VersionInfo {
            qemu: VersionTriple { major, minor, micro },
            package: concat!("storage-daemon ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    async fn quit(&self, call: &Call) -> Result<(), Error> {
        tracing::info!(peer = %call.peer, "quit");
        self.request_shutdown();
        // The reply is the last that this client hears: behind it nothing happens any more.
        self.closed().await;
        Ok(())
    }
}
