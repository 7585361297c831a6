//! One action type for each kind of step.

use std::sync::Arc;

use block_core::backup::PreparedJob;
use block_core::bitmap::action::{self, Undo};
use block_core::graph::{Graph, Node};
use block_core::job::JobGroup;
use qapi_runtime::Error;
use qapi_runtime::transaction::{Action, Prepared, Preparing};

use super::Settling;
use crate::commands::block_core::{
    BackupRequest, Overlay, append_overlay, backup_job, bitmaps, delete_snapshot, internal_snapshot,
    open_overlay, settle_base,
};
use crate::convert::error::generic;
use crate::daemon::Daemon;

/// Fails.
pub struct Abort;

impl Action for Abort {
    fn name(&self) -> &str {
        "abort"
    }

    fn prepare(self: Box<Self>) -> Preparing {
        Box::pin(async { Err(Error::generic("Transaction aborted using Abort action")) })
    }
}

/// A change of a bitmap that is made and can be taken back.
struct BitmapUndo(Option<Undo>);

impl Prepared for BitmapUndo {
    fn commit(&mut self) {
        if let Some(undo) = self.0.take() {
            undo.commit();
        }
    }

    fn abort(&mut self) {
        if let Some(undo) = self.0.take() {
            undo.abort();
        }
    }
}

fn made(undo: Undo) -> Box<dyn Prepared> {
    Box::new(BitmapUndo(Some(undo)))
}

/// Makes a bitmap.
pub struct BitmapAdd {
    pub daemon: Arc<Daemon>,
    pub data: schema::BlockDirtyBitmapAdd,
}

impl Action for BitmapAdd {
    fn name(&self) -> &str {
        "block-dirty-bitmap-add"
    }

    fn prepare(self: Box<Self>) -> Preparing {
        Box::pin(async move {
            bitmaps::check_named(&self.data)?;
            let node = self.daemon.device(&self.data.node)?;
            let spec = bitmaps::spec(&node, &self.data)?;
            action::add(node.bitmaps(), node.length(), &spec)
                .map(made)
                .map_err(generic)
        })
    }
}

/// What is done to one bitmap.
#[derive(Debug, Clone, Copy)]
pub enum BitmapChange {
    Remove,
    Clear,
    Enable,
    Disable,
}

/// Changes one bitmap.
pub struct Bitmap {
    pub daemon: Arc<Daemon>,
    pub change: BitmapChange,
    pub data: schema::BlockDirtyBitmap,
    pub settling: Settling,
}

impl Action for Bitmap {
    fn name(&self) -> &str {
        match self.change {
            BitmapChange::Remove => "block-dirty-bitmap-remove",
            BitmapChange::Clear => "block-dirty-bitmap-clear",
            BitmapChange::Enable => "block-dirty-bitmap-enable",
            BitmapChange::Disable => "block-dirty-bitmap-disable",
        }
    }

    fn prepare(self: Box<Self>) -> Preparing {
        Box::pin(async move {
            let node = self.daemon.bitmap_node(&self.data.node)?;
            let set = node.bitmaps();
            let name = &self.data.name;
            match self.change {
                BitmapChange::Remove => {
                    let undo = action::remove(set, name).map_err(generic)?;
                    Ok(Box::new(BitmapRemoval {
                        undo: Some(undo),
                        node: Arc::clone(&node),
                        name: self.data.name,
                        settling: self.settling,
                    }) as Box<dyn Prepared>)
                }
                BitmapChange::Clear => action::clear(set, name).map(made).map_err(generic),
                BitmapChange::Enable => action::set_enabled(set, name, true).map(made).map_err(generic),
                BitmapChange::Disable => action::set_enabled(set, name, false).map(made).map_err(generic),
            }
        })
    }
}

/// A bitmap that is hidden until it is known whether it goes.
struct BitmapRemoval {
    undo: Option<Undo>,
    node: Arc<Node>,
    name: String,
    settling: Settling,
}

impl Prepared for BitmapRemoval {
    fn commit(&mut self) {
        let Some(undo) = self.undo.take() else {
            return;
        };
        let stored = undo.bitmap().info().is_some_and(|info| info.persistent);
        undo.commit();
        if stored {
            let node = Arc::clone(&self.node);
            let name = std::mem::take(&mut self.name);
            self.settling.later(async move {
                if let Some(store) = node.driver().image_store()
                    && let Err(error) = store.remove_bitmap(&name).await
                {
                    // It is gone from the node; its copy in the image goes when the image is closed.
                    tracing::warn!(node = %node.name(), bitmap = name, %error, "cannot remove a stored bitmap yet");
                }
            });
        }
    }

    fn abort(&mut self) {
        if let Some(undo) = self.undo.take() {
            undo.abort();
        }
    }
}

/// Adds bitmaps to another.
pub struct BitmapMerge {
    pub daemon: Arc<Daemon>,
    pub data: schema::BlockDirtyBitmapMerge,
}

impl Action for BitmapMerge {
    fn name(&self) -> &str {
        "block-dirty-bitmap-merge"
    }

    fn prepare(self: Box<Self>) -> Preparing {
        Box::pin(async move {
            let node = self.daemon.bitmap_node(&self.data.node)?;
            let sources = bitmaps::sources(&self.daemon, &node, &self.data)?;
            action::merge(node.bitmaps(), &self.data.target, &sources)
                .map(made)
                .map_err(generic)
        })
    }
}

/// Starts a backup.
pub struct Backup {
    pub daemon: Arc<Daemon>,
    pub request: BackupRequest,
    pub group: Option<JobGroup>,
    pub settling: Settling,
}

impl Action for Backup {
    fn name(&self) -> &str {
        match self.request {
            BackupRequest::Blockdev(_) => "blockdev-backup",
            BackupRequest::Drive(_) => "drive-backup",
        }
    }

    fn supports_grouped_completion(&self) -> bool {
        true
    }

    fn prepare(self: Box<Self>) -> Preparing {
        Box::pin(async move {
            let job = backup_job(&self.daemon, self.request, self.group).await?;
            Ok(Box::new(BackupJob {
                job: Some(job),
                settling: self.settling,
            }) as Box<dyn Prepared>)
        })
    }
}

/// A backup that waits for its start.
struct BackupJob {
    job: Option<PreparedJob>,
    settling: Settling,
}

impl Prepared for BackupJob {
    fn commit(&mut self) {
        if let Some(job) = self.job.take()
            && let Some(held) = job.start_held()
        {
            self.settling.hold(held);
        }
    }

    fn abort(&mut self) {
        // What the job holds (its bitmap) is given back at once, for the actions before it to undo theirs.
        if let Some(ending) = self.job.take().and_then(PreparedJob::begin_abort) {
            self.settling.later(async move { ending.ended().await });
        }
    }
}

/// Puts an overlay on top of a node.
pub struct OverlaySnapshot {
    pub daemon: Arc<Daemon>,
    pub overlay: Overlay,
    pub settling: Settling,
}

impl Action for OverlaySnapshot {
    fn name(&self) -> &str {
        match self.overlay {
            Overlay::Node(_) => "blockdev-snapshot",
            Overlay::File(_) => "blockdev-snapshot-sync",
        }
    }

    fn prepare(self: Box<Self>) -> Preparing {
        Box::pin(async move {
            let graph = Arc::clone(&self.daemon.graph);
            let (base, overlay) = open_overlay(&self.daemon, self.overlay).await?;
            if let Err(error) = append_overlay(&graph, &overlay, &base).await {
                graph.close_if_unused(overlay).await;
                return Err(error);
            }
            let settling = self.settling;
            Ok(Box::new(Appended {
                graph,
                base,
                overlay,
                settling,
            }) as Box<dyn Prepared>)
        })
    }
}

struct Appended {
    graph: Arc<Graph>,
    base: Arc<Node>,
    overlay: Arc<Node>,
    settling: Settling,
}

impl Prepared for Appended {
    fn commit(&mut self) {
        let (graph, overlay, base) = (
            Arc::clone(&self.graph),
            Arc::clone(&self.overlay),
            Arc::clone(&self.base),
        );
        self.settling.later(async move {
            settle_base(&graph, &base).await;
            // An overlay that was opened for this and that nobody uses goes away again.
            graph.close_if_unused(overlay).await;
        });
    }

    fn abort(&mut self) {
        let (graph, overlay, base) = (
            Arc::clone(&self.graph),
            Arc::clone(&self.overlay),
            Arc::clone(&self.base),
        );
        self.settling.later(async move {
            if let Err(error) = graph.unappend(&overlay, &base).await {
                tracing::error!(node = %base.name(), %error, "cannot take a snapshot back");
            }
            graph.close_if_unused(overlay).await;
        });
    }
}

/// Takes a snapshot inside an image.
pub struct InternalSnapshot {
    pub daemon: Arc<Daemon>,
    pub data: schema::BlockdevSnapshotInternal,
    pub settling: Settling,
}

impl Action for InternalSnapshot {
    fn name(&self) -> &str {
        "blockdev-snapshot-internal-sync"
    }

    fn prepare(self: Box<Self>) -> Preparing {
        Box::pin(async move {
            let graph = Arc::clone(&self.daemon.graph);
            let (node, id) = internal_snapshot(&self.daemon, self.data).await?;
            Ok(Box::new(TakenSnapshot {
                graph,
                node,
                id,
                settling: self.settling,
            }) as Box<dyn Prepared>)
        })
    }
}

struct TakenSnapshot {
    graph: Arc<Graph>,
    node: Arc<Node>,
    id: String,
    settling: Settling,
}

impl Prepared for TakenSnapshot {
    fn commit(&mut self) {}

    fn abort(&mut self) {
        let (graph, node, id) = (
            Arc::clone(&self.graph),
            Arc::clone(&self.node),
            std::mem::take(&mut self.id),
        );
        self.settling.later(async move {
            if let Err(error) = delete_snapshot(&graph, &node, &id).await {
                tracing::error!(node = %node.name(), snapshot = id, %error, "cannot delete an aborted snapshot");
            }
        });
    }
}
