//! Snapshots: overlays on top of a node, and those inside an image.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use block_core::driver::SnapshotInfo;
use block_core::graph::{Graph, Node, OpKind, Perm};
use block_core::options::{BackingRef, NodeOptions};
use qapi_runtime::Error;
use schema::NewImageMode;

use super::create;
use crate::convert::error::generic;
use crate::convert::nodes::{is_filter, snapshot_info};
use crate::daemon::Daemon;

/// Longer names of internal snapshots are cut off, in bytes.
const LONGEST_SNAPSHOT_NAME: usize = 255;

/// What goes on top of a node.
pub enum Overlay {
    /// An open node.
    Node(schema::BlockdevSnapshot),
    /// A new image file.
    File(schema::BlockdevSnapshotSync),
}

pub(super) async fn snapshot_sync(daemon: &Daemon, args: schema::BlockdevSnapshotSync) -> Result<(), Error> {
    take(daemon, Overlay::File(args)).await
}

pub(super) async fn snapshot(daemon: &Daemon, args: schema::BlockdevSnapshot) -> Result<(), Error> {
    take(daemon, Overlay::Node(args)).await
}

async fn take(daemon: &Daemon, overlay: Overlay) -> Result<(), Error> {
    let (base, overlay) = open_overlay(daemon, overlay).await?;
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move {
            let result = append_overlay(&graph, &overlay, &base).await;
            if result.is_ok() {
                settle_base(&graph, &base).await;
            }
            // An overlay that was opened for this and that nobody uses goes away again.
            graph.close_if_unused(overlay).await;
            result
        })
        .await
}

/// Puts the overlay on top.
pub async fn append_overlay(graph: &Arc<Graph>, overlay: &Arc<Node>, base: &Arc<Node>) -> Result<(), Error> {
    graph.append(overlay, base).await.map_err(generic)
}

/// Makes the base, which nobody writes any more, read-only. Without that it works as well, so a failure is a warning.
pub async fn settle_base(graph: &Arc<Graph>, base: &Arc<Node>) {
    if base.is_read_only() {
        return;
    }
    if let Err(error) = graph.make_read_only(base).await {
        tracing::warn!(node = %base.name(), %error, "a node that got an overlay stays writable");
    }
}

/// Finds the base and finds or makes the overlay; the first of the pair is the base.
pub async fn open_overlay(daemon: &Daemon, overlay: Overlay) -> Result<(Arc<Node>, Arc<Node>), Error> {
    match overlay {
        Overlay::Node(args) => {
            let base = daemon.device(&args.node)?;
            base.check_op(OpKind::ExternalSnapshot).map_err(generic)?;
            let overlay = daemon.device(&args.overlay)?;
            check_overlay(&overlay)?;
            Ok((base, overlay))
        }
        Overlay::File(args) => {
            let base = daemon.device_or_node(args.device.as_deref(), args.node_name.as_deref())?;
            base.check_op(OpKind::ExternalSnapshot).map_err(generic)?;
            let Some(name) = args.snapshot_node_name else {
                // A device keeps its name when it gets an overlay; a node cannot.
                return Err(Error::generic("New overlay node-name missing"));
            };
            if daemon.graph.find(&name).is_some() {
                return Err(Error::generic("New overlay node-name already in use"));
            }
            let format = args.format.unwrap_or_else(|| "qcow2".to_owned());
            let graph = Arc::clone(&daemon.graph);
            daemon
                .on_data(async move {
                    if args.mode != Some(NewImageMode::Existing) {
                        let backing = (base.filename(), base.driver().name().to_owned());
                        create::image(&graph, &args.snapshot_file, &format, base.length(), Some(backing))
                            .await?;
                    }
                    let file = &args.snapshot_file;
                    let options =
                        create::format_options(&graph, file, Some(&format), BackingRef::None).await?;
                    let options = NodeOptions {
                        node_name: Some(name.into()),
                        read_only: Some(base.is_read_only()),
                        ..options
                    };
                    let overlay = graph.open_temporary(options).await.map_err(generic)?;
                    if let Err(error) = check_overlay(&overlay) {
                        graph.close_if_unused(overlay).await;
                        return Err(error);
                    }
                    Ok((base, overlay))
                })
                .await
        }
    }
}

fn check_overlay(overlay: &Arc<Node>) -> Result<(), Error> {
    // Somebody reads it. One that is only written, as a backup's target, may be put on top.
    if overlay.cumulative_permissions().0.contains(Perm::CONSISTENT_READ) {
        return Err(Error::generic("The overlay is already in use"));
    }
    if overlay.child("backing").is_some() {
        return Err(Error::generic("The overlay already has a backing image"));
    }
    if is_filter(overlay.driver().name()) {
        return Err(Error::generic("Filters cannot be used as overlays"));
    }
    if overlay.driver().name() != "qcow2" {
        return Err(Error::generic("The overlay does not support backing images"));
    }
    Ok(())
}

pub(super) async fn take_internal(
    daemon: &Daemon,
    args: schema::BlockdevSnapshotInternal,
) -> Result<(), Error> {
    internal_snapshot(daemon, args).await.map(drop)
}

/// Takes a snapshot inside an image; the node and the snapshot's id.
pub async fn internal_snapshot(
    daemon: &Daemon,
    args: schema::BlockdevSnapshotInternal,
) -> Result<(Arc<Node>, String), Error> {
    let node = daemon.root_device(&args.device)?;
    node.check_op(OpKind::InternalSnapshot).map_err(generic)?;
    let device = args.device;
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move {
            if node.is_read_only() {
                return Err(Error::generic(format!("Device '{device}' is read only")));
            }
            let keeper = node.snapshot_node();
            let Some(store) = keeper.as_ref().and_then(|keeper| keeper.driver().image_store()) else {
                return Err(Error::generic(format!(
                    "Block format '{}' used by device '{device}' does not support internal snapshots",
                    node.driver().name()
                )));
            };
            let name = args.name;
            if name.is_empty() {
                return Err(Error::generic("Name is empty"));
            }
            if store.snapshots().iter().any(|snapshot| snapshot.name == name) {
                return Err(Error::generic(format!(
                    "Snapshot with name '{name}' already exists on device '{device}'"
                )));
            }
            let drained = graph.drain(std::slice::from_ref(&node)).await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let info = SnapshotInfo {
                name: name
                    .chars()
                    .scan(0, |bytes, each| {
                        *bytes += each.len_utf8();
                        (*bytes <= LONGEST_SNAPSHOT_NAME).then_some(each)
                    })
                    .collect(),
                date: (
                    u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
                    now.subsec_nanos(),
                ),
                // No machine runs here: its clock is the host's.
                vm_clock_nanoseconds: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
                disk_bytes: node.length(),
                ..SnapshotInfo::default()
            };
            let taken = store.create_snapshot(info).await.map_err(|error| {
                Error::generic(format!(
                    "Failed to create snapshot '{name}' on device '{device}': {error}"
                ))
            });
            drop(drained);
            let id = taken?.id;
            Ok((Arc::clone(&node), id))
        })
        .await
}

/// Deletes a snapshot by its id.
pub async fn delete_snapshot(graph: &Arc<Graph>, node: &Arc<Node>, id: &str) -> Result<(), Error> {
    let keeper = node.snapshot_node();
    let Some(store) = keeper.as_ref().and_then(|keeper| keeper.driver().image_store()) else {
        return Err(Error::generic("The node has no snapshots"));
    };
    let drained = graph.drain(std::slice::from_ref(node)).await;
    let result = store.delete_snapshot(id).await.map_err(generic);
    drop(drained);
    result
}

pub(super) async fn delete_internal(
    daemon: &Daemon,
    args: schema::BlockdevSnapshotDeleteInternalSync,
) -> Result<schema::SnapshotInfo, Error> {
    let node = daemon.root_device(&args.device)?;
    if args.id.is_none() && args.name.is_none() {
        return Err(Error::generic("Name or id must be provided"));
    }
    node.check_op(OpKind::InternalSnapshotDelete).map_err(generic)?;
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move {
            let keeper = node.snapshot_node();
            let store = keeper.as_ref().and_then(|keeper| keeper.driver().image_store());
            let Some(snapshots) = store.map(|store| store.snapshots()) else {
                return Err(Error::generic(
                    "Failed to get a snapshot list: Operation not supported",
                ));
            };
            let found = snapshots.into_iter().find(|snapshot| {
                args.id.as_ref().is_none_or(|id| snapshot.id == *id)
                    && args.name.as_ref().is_none_or(|name| snapshot.name == *name)
            });
            let Some(found) = found else {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
                return Err(Error::generic(format!(
                    "Snapshot with id '{}' and name '{}' does not exist on device '{}'",
                    shown(&args.id),
                    shown(&args.name),
                    args.device
                )));
            };
            delete_snapshot(&graph, &node, &found.id).await?;
            Ok(snapshot_info(found))
        })
        .await
}
