//! block-core.json: nodes, images, bitmaps, snapshots, backups and block jobs.
//!
//! The trait is answered here, method by method; each subject has a file below.

mod backup;
pub mod bitmaps;
mod block_jobs;
mod create;
mod graph_query;
mod nodes;
mod snapshots;

pub use backup::{BackupRequest, backup_job};
pub use snapshots::{Overlay, append_overlay, delete_snapshot, internal_snapshot, open_overlay, settle_base};

use block_core::job::Verb;
use qapi_runtime::{Call, Error};
use schema::{
    BlockCoreCommands, BlockDeviceInfo, BlockDirtyBitmap, BlockDirtyBitmapAdd, BlockDirtyBitmapMerge,
    BlockDirtyBitmapSha256, BlockInfo, BlockJobCancel, BlockJobChangeOptions, BlockJobComplete,
    BlockJobDismiss, BlockJobFinalize, BlockJobInfo, BlockJobPause, BlockJobResume, BlockJobSetSpeed,
    BlockResize, BlockSetWriteThreshold, BlockStats, BlockdevBackup, BlockdevCreate, BlockdevDel,
    BlockdevOptions, BlockdevReopen, BlockdevSnapshot, BlockdevSnapshotDeleteInternalSync,
    BlockdevSnapshotInternal, BlockdevSnapshotSync, ChangeBackingFile, DriveBackup, QueryBlockstats,
    QueryNamedBlockNodes, SnapshotInfo, XBlockdevSetIothread, XDbgBlockGraph,
};

use crate::daemon::Daemon;

impl BlockCoreCommands for Daemon {
    async fn query_block(&self, _call: &Call) -> Result<Vec<BlockInfo>, Error> {
        // Guest devices are another program's: this one has none.
        Ok(Vec::new())
    }

    async fn query_blockstats(&self, _call: &Call, args: QueryBlockstats) -> Result<Vec<BlockStats>, Error> {
        Ok(nodes::stats(self, args.query_nodes.unwrap_or(false)))
    }

    async fn query_block_jobs(&self, _call: &Call) -> Result<Vec<BlockJobInfo>, Error> {
        Ok(block_jobs::query(self))
    }

    async fn block_resize(&self, _call: &Call, args: BlockResize) -> Result<(), Error> {
        nodes::resize(self, args).await
    }

    async fn blockdev_snapshot_sync(&self, _call: &Call, args: BlockdevSnapshotSync) -> Result<(), Error> {
        snapshots::snapshot_sync(self, args).await
    }

    async fn blockdev_snapshot(&self, _call: &Call, args: BlockdevSnapshot) -> Result<(), Error> {
        snapshots::snapshot(self, args).await
    }

    async fn drive_backup(&self, _call: &Call, args: DriveBackup) -> Result<(), Error> {
        backup::drive_backup(self, args).await
    }

    async fn blockdev_backup(&self, _call: &Call, args: BlockdevBackup) -> Result<(), Error> {
        backup::blockdev_backup(self, args).await
    }

    async fn query_named_block_nodes(
        &self,
        _call: &Call,
        args: QueryNamedBlockNodes,
    ) -> Result<Vec<BlockDeviceInfo>, Error> {
        Ok(nodes::query(self, args.flat.unwrap_or(false)))
    }

    async fn x_debug_query_block_graph(&self, _call: &Call) -> Result<XDbgBlockGraph, Error> {
        Ok(graph_query::query(self))
    }

    async fn block_dirty_bitmap_add(&self, _call: &Call, args: BlockDirtyBitmapAdd) -> Result<(), Error> {
        bitmaps::add(self, args).await
    }

    async fn block_dirty_bitmap_remove(&self, _call: &Call, args: BlockDirtyBitmap) -> Result<(), Error> {
        bitmaps::remove(self, args).await
    }

    async fn block_dirty_bitmap_clear(&self, _call: &Call, args: BlockDirtyBitmap) -> Result<(), Error> {
        bitmaps::clear(self, args).await
    }

    async fn block_dirty_bitmap_enable(&self, _call: &Call, args: BlockDirtyBitmap) -> Result<(), Error> {
        bitmaps::set_enabled(self, args, true).await
    }

    async fn block_dirty_bitmap_disable(&self, _call: &Call, args: BlockDirtyBitmap) -> Result<(), Error> {
        bitmaps::set_enabled(self, args, false).await
    }

    async fn block_dirty_bitmap_merge(&self, _call: &Call, args: BlockDirtyBitmapMerge) -> Result<(), Error> {
        bitmaps::merge(self, args).await
    }

    async fn x_debug_block_dirty_bitmap_sha256(
        &self,
        _call: &Call,
        args: BlockDirtyBitmap,
    ) -> Result<BlockDirtyBitmapSha256, Error> {
        bitmaps::sha256(self, args).await
    }

    async fn block_job_set_speed(&self, _call: &Call, args: BlockJobSetSpeed) -> Result<(), Error> {
        block_jobs::verb(self, &args.device, Verb::SetSpeed(args.speed)).await
    }

    async fn block_job_cancel(&self, _call: &Call, args: BlockJobCancel) -> Result<(), Error> {
        block_jobs::cancel(self, &args).await
    }

    async fn block_job_pause(&self, _call: &Call, args: BlockJobPause) -> Result<(), Error> {
        block_jobs::verb(self, &args.device, Verb::Pause).await
    }

    async fn block_job_resume(&self, _call: &Call, args: BlockJobResume) -> Result<(), Error> {
        block_jobs::verb(self, &args.device, Verb::Resume).await
    }

    async fn block_job_complete(&self, _call: &Call, args: BlockJobComplete) -> Result<(), Error> {
        block_jobs::verb(self, &args.device, Verb::Complete).await
    }

    async fn block_job_dismiss(&self, _call: &Call, args: BlockJobDismiss) -> Result<(), Error> {
        block_jobs::verb(self, &args.id, Verb::Dismiss).await
    }

    async fn block_job_finalize(&self, _call: &Call, args: BlockJobFinalize) -> Result<(), Error> {
        block_jobs::verb(self, &args.id, Verb::Finalize).await
    }

    async fn block_job_change(&self, _call: &Call, args: BlockJobChangeOptions) -> Result<(), Error> {
        block_jobs::change(self, &args).await
    }

    async fn blockdev_add(&self, _call: &Call, args: BlockdevOptions) -> Result<(), Error> {
        nodes::add(self, args).await
    }

    async fn blockdev_reopen(&self, _call: &Call, args: BlockdevReopen) -> Result<(), Error> {
        nodes::reopen(self, args.options).await
    }

    async fn blockdev_del(&self, _call: &Call, args: BlockdevDel) -> Result<(), Error> {
        nodes::del(self, args.node_name).await
    }

    async fn blockdev_create(&self, _call: &Call, args: BlockdevCreate) -> Result<(), Error> {
        create::create(self, args).await
    }

    async fn change_backing_file(&self, _call: &Call, args: ChangeBackingFile) -> Result<(), Error> {
        nodes::change_backing_file(self, args).await
    }

    async fn x_blockdev_set_iothread(&self, _call: &Call, args: XBlockdevSetIothread) -> Result<(), Error> {
        nodes::set_iothread(self, &args)
    }

    async fn block_set_write_threshold(
        &self,
        _call: &Call,
        args: BlockSetWriteThreshold,
    ) -> Result<(), Error> {
        nodes::set_write_threshold(self, &args)
    }

    async fn blockdev_snapshot_internal_sync(
        &self,
        _call: &Call,
        args: BlockdevSnapshotInternal,
    ) -> Result<(), Error> {
        snapshots::take_internal(self, args).await
    }

    async fn blockdev_snapshot_delete_internal_sync(
        &self,
        _call: &Call,
        args: BlockdevSnapshotDeleteInternalSync,
    ) -> Result<SnapshotInfo, Error> {
        snapshots::delete_internal(self, args).await
    }
}
