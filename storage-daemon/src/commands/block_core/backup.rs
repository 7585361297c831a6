//! Backups: from the schema's words to a job that waits to be started.

use std::sync::Arc;

use block_core::backup::{self, BackupOptions, BackupPerf, OnError, PreparedJob, SyncMode};
use block_core::bitmap::BitmapMode;
use block_core::graph::{Node, OpKind};
use block_core::job::JobGroup;
use block_core::options::{BackingRef, DetectZeroes, NodeOptions, NodeRef};
use qapi_runtime::Error;
use schema::{BlockdevOnError, MirrorSyncMode, NewImageMode};

use super::create;
use crate::convert::error::generic;
use crate::convert::options::on_cbw_error;
use crate::daemon::Daemon;

/// A backup as either command asks for it.
pub enum BackupRequest {
    /// Into a node.
    Blockdev(schema::BlockdevBackup),
    /// Into an image file.
    Drive(schema::DriveBackup),
}

pub(super) async fn blockdev_backup(daemon: &Daemon, args: schema::BlockdevBackup) -> Result<(), Error> {
    let data = schema::BlockdevBackupTxn {
        base: args,
        transactional_cancel: None,
    };
    let wrapper = schema::BlockdevBackupTxnWrapper { data };
    alone(daemon, schema::TransactionActionBranch::BlockdevBackup(wrapper)).await
}

pub(super) async fn drive_backup(daemon: &Daemon, args: schema::DriveBackup) -> Result<(), Error> {
    let data = schema::DriveBackupTxn {
        base: args,
        transactional_cancel: None,
    };
    let wrapper = schema::DriveBackupTxnWrapper { data };
    alone(daemon, schema::TransactionActionBranch::DriveBackup(wrapper)).await
}

/// A backup outside a transaction is a transaction of one, so that both start alike.
async fn alone(daemon: &Daemon, action: schema::TransactionActionBranch) -> Result<(), Error> {
    let shared = daemon.shared()?;
    daemon.on_data(crate::transaction::run_one(shared, action)).await
}

/// Makes the job of a backup: everything that can fail has happened then, and nothing is copied yet.
pub async fn backup_job(
    daemon: &Daemon,
    request: BackupRequest,
    group: Option<JobGroup>,
) -> Result<PreparedJob, Error> {
    let (options, temporary) = match request {
        BackupRequest::Blockdev(args) => {
            let device = daemon.device(&args.base.device)?;
            let target = daemon.device(&args.target)?;
            (common(args.base, device, target)?, false)
        }
        BackupRequest::Drive(args) => {
            let device = daemon.device(&args.base.device)?;
            let (sync, target) = drive_target(daemon, &args, &device).await?;
            let mut options = common(args.base, device, target)?;
            options.sync = sync;
            options.close_target = true;
            (options, true)
        }
    };
    let jobs = Arc::clone(&daemon.jobs);
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move {
            let target = Arc::clone(&options.target);
            let prepared = backup::prepare(&jobs, &graph, options, group.as_ref())
                .await
                .map_err(generic);
            if prepared.is_err() && temporary {
                graph.close_if_unused(target).await;
            }
            prepared
        })
        .await
}

fn common(args: schema::BackupCommon, device: Arc<Node>, target: Arc<Node>) -> Result<BackupOptions, Error> {
    let perf = args.x_perf;
    Ok(BackupOptions {
        // A node has no name of its own that could stand for a missing id: the empty id is refused.
        job_id: Some(args.job_id.unwrap_or_default()),
        device,
        target,
        sync: sync_mode(args.sync),
        bitmap: args.bitmap,
        bitmap_mode: args.bitmap_mode.map(|mode| match mode {
            schema::BitmapSyncMode::OnSuccess => BitmapMode::OnSuccess,
            schema::BitmapSyncMode::Never => BitmapMode::Never,
            schema::BitmapSyncMode::Always => BitmapMode::Always,
        }),
        compress: args.compress.unwrap_or(false),
        on_source_error: on_error(args.on_source_error),
        on_target_error: on_error(args.on_target_error),
        on_cbw_error: args.on_cbw_error.map(on_cbw_error).unwrap_or_default(),
        cbw_timeout: args.cbw_timeout,
        speed: args.speed.unwrap_or(0),
        auto_finalize: args.auto_finalize.unwrap_or(true),
        auto_dismiss: args.auto_dismiss.unwrap_or(true),
        filter_node_name: args.filter_node_name,
        discard_source: args.discard_source.unwrap_or(false),
        perf: match perf {
            Some(perf) => BackupPerf {
                use_copy_range: perf.use_copy_range,
                max_workers: perf.max_workers.unwrap_or(64),
                max_chunk: perf.max_chunk.unwrap_or(0),
                min_cluster_size: perf.min_cluster_size,
            },
            None => BackupPerf::default(),
        },
        close_target: false,
    })
}

fn sync_mode(mode: MirrorSyncMode) -> SyncMode {
    match mode {
        MirrorSyncMode::Top => SyncMode::Top,
        MirrorSyncMode::Full => SyncMode::Full,
        MirrorSyncMode::None => SyncMode::None,
        MirrorSyncMode::Incremental => SyncMode::Incremental,
        MirrorSyncMode::Bitmap => SyncMode::Bitmap,
        MirrorSyncMode::Auto => SyncMode::Auto,
    }
}

fn on_error(policy: Option<BlockdevOnError>) -> OnError {
    match policy {
        None | Some(BlockdevOnError::Report) => OnError::Report,
        Some(BlockdevOnError::Ignore) => OnError::Ignore,
        Some(BlockdevOnError::Enospc | BlockdevOnError::Auto) => OnError::Enospc,
        Some(BlockdevOnError::Stop) => OnError::Stop,
    }
}

/// Makes and opens the target of a `drive-backup`; also the sync mode, which is full where there is no top.
async fn drive_target(
    daemon: &Daemon,
    args: &schema::DriveBackup,
    device: &Arc<Node>,
) -> Result<(SyncMode, Arc<Node>), Error> {
    device.check_op(OpKind::BackupSource).map_err(generic)?;
    let existing = args.mode == Some(NewImageMode::Existing);
    let backing = device.child("backing").map(|child| child.node());
    let mut sync = sync_mode(args.base.sync);
    // The image below a target that holds only the top, or only what was overwritten.
    let below = match sync {
        SyncMode::Top => backing,
        SyncMode::None => Some(Arc::clone(device)),
        _ => None,
    };
    if sync == SyncMode::Top && below.is_none() {
        sync = SyncMode::Full;
    }
    let reads_through_source = sync == SyncMode::None;
    let format = match &args.format {
        Some(format) => Some(format.clone()),
        None if existing => None,
        None => Some(device.driver().name().to_owned()),
    };
    let size = device.length();
    let backing_image = below.map(|node| (node.filename(), node.driver().name().to_owned()));
    let source_name = device.name().clone();
    let filename = args.target.clone();
    let graph = Arc::clone(&daemon.graph);
    let target = daemon
        .on_data(async move {
            if !existing {
                let format = format.as_deref().unwrap_or_default();
                create::image(&graph, &filename, format, size, backing_image).await?;
            }
            let options = create::format_options(
                &graph,
                &filename,
                format.as_deref(),
                if reads_through_source {
                    BackingRef::Node(NodeRef::Name(source_name))
                } else {
                    BackingRef::FromImage
                },
            )
            .await?;
            let options = NodeOptions {
                read_only: Some(false),
                discard_unmap: Some(true),
                detect_zeroes: DetectZeroes::Unmap,
                ..options
            };
            let target = graph.open_temporary(options).await.map_err(generic)?;
            // What is overwritten goes above the source: the image must be able to have something below.
            if reads_through_source && target.driver().name() != "qcow2" {
                let text = format!(
                    "Driver '{}' of node '{}' does not support backing files",
                    target.driver().name(),
                    target.name()
                );
                graph.close_if_unused(target).await;
                return Err(Error::generic(text));
            }
            Ok(target)
        })
        .await?;
    Ok((sync, target))
}
