//! What each step of a `transaction` does, as actions of the runtime's engine.
//!
//! Who joins the group is decided in `membership`, before any of this exists.

mod actions;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block_core::graph::Node;
use block_core::job::{HeldJob, JobGroup};
use qapi_runtime::transaction::Action;
use qapi_runtime::{Error, Transaction};
use schema::TransactionActionBranch as Branch;

use crate::daemon::Daemon;
use crate::membership::{self, ActionWish, TransactionWish};

/// Something left to be done.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What commits and aborts, which cannot wait, leave for the end of the transaction.
#[derive(Clone, Default)]
pub struct Settling {
    works: Arc<Mutex<Vec<Work>>>,
    held: Arc<Mutex<Vec<HeldJob>>>,
}

impl Settling {
    /// Leaves something to be done.
    pub fn later(&self, work: impl Future<Output = ()> + Send + 'static) {
        lock(&self.works).push(Box::pin(work));
    }

    /// Leaves a job to be let go when the nodes are not drained any more.
    pub fn hold(&self, job: HeldJob) {
        lock(&self.held).push(job);
    }

    /// Does what was left, in its order.
    pub async fn settle(&self) {
        let works = std::mem::take(&mut *lock(&self.works));
        for work in works {
            work.await;
        }
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one action as a transaction of its own.
pub async fn run_one(daemon: Arc<Daemon>, branch: Branch) -> Result<(), Error> {
    let action = schema::TransactionAction {
        properties: None,
        branch,
    };
    run(
        daemon,
        schema::Transaction {
            actions: vec![action],
            transactional_cancel: None,
            properties: None,
        },
    )
    .await
}

/// Runs a transaction: all of its actions or none.
pub async fn run(daemon: Arc<Daemon>, args: schema::Transaction) -> Result<(), Error> {
    let joins = decide(&args)?;
    let group = joins.contains(&true).then(|| daemon.jobs.new_group());
    let touched = touched_nodes(&daemon, &args.actions);
    let settling = Settling::default();
    let mut transaction = Transaction::new();
    for (action, joins) in args.actions.into_iter().zip(joins) {
        let group = if joins { group.clone() } else { None };
        transaction.push(action_of(&daemon, action.branch, group, &settling));
    }
    // All steps see one moment: guests' writes to these nodes wait, those to all others go on.
    let drained = daemon.graph.drain(&touched).await;
    let result = transaction.run().await;
    settling.settle().await;
    drop(drained);
    // In the order in which they were started.
    let held = std::mem::take(&mut *lock(&settling.held));
    held.into_iter().for_each(drop);
    result
}

/// Whether each action's job joins the group.
fn decide(args: &schema::Transaction) -> Result<Vec<bool>, Error> {
    let whole = TransactionWish {
        transactional_cancel: args.transactional_cancel,
        grouped: args
            .properties
            .as_ref()
            .and_then(|properties| properties.completion_mode)
            .map(|mode| mode == schema::ActionCompletionMode::Grouped),
    };
    let kinds: Vec<_> = args.actions.iter().map(schema::TransactionAction::kind).collect();
    let wishes: Vec<_> = args
        .actions
        .iter()
        .zip(&kinds)
        .map(|(action, kind)| {
            let (starts_job, data) = match &action.branch {
                Branch::BlockdevBackup(backup) => (true, backup.data.transactional_cancel),
                Branch::DriveBackup(backup) => (true, backup.data.transactional_cancel),
                Branch::Abort(_)
                | Branch::BlockDirtyBitmapAdd(_)
                | Branch::BlockDirtyBitmapRemove(_)
                | Branch::BlockDirtyBitmapClear(_)
                | Branch::BlockDirtyBitmapEnable(_)
                | Branch::BlockDirtyBitmapDisable(_)
                | Branch::BlockDirtyBitmapMerge(_)
                | Branch::BlockdevSnapshot(_)
                | Branch::BlockdevSnapshotInternalSync(_)
                | Branch::BlockdevSnapshotSync(_) => (false, None),
            };
            ActionWish {
                kind: kind.as_str(),
                starts_job,
                data,
                properties: action
                    .properties
                    .as_ref()
                    .and_then(|properties| properties.transactional_cancel),
            }
        })
        .collect();
    membership::decide(whole, &wishes).map_err(Error::generic)
}

/// The nodes whose users must hold still. A name that is unknown is the action's own error later.
fn touched_nodes(daemon: &Daemon, actions: &[schema::TransactionAction]) -> Vec<Arc<Node>> {
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for action in actions {
        let name = match &action.branch {
            Branch::Abort(_) => continue,
            Branch::BlockDirtyBitmapAdd(bitmap) => &bitmap.data.node,
            Branch::BlockDirtyBitmapRemove(bitmap)
            | Branch::BlockDirtyBitmapClear(bitmap)
            | Branch::BlockDirtyBitmapEnable(bitmap)
            | Branch::BlockDirtyBitmapDisable(bitmap) => &bitmap.data.node,
            Branch::BlockDirtyBitmapMerge(merge) => &merge.data.node,
            Branch::BlockdevBackup(backup) => &backup.data.device,
            Branch::DriveBackup(backup) => &backup.data.device,
            Branch::BlockdevSnapshot(snapshot) => &snapshot.data.node,
            Branch::BlockdevSnapshotInternalSync(snapshot) => &snapshot.data.device,
            Branch::BlockdevSnapshotSync(snapshot) => {
                match snapshot.data.node_name.as_ref().or(snapshot.data.device.as_ref()) {
                    Some(name) => name,
                    None => continue,
                }
            }
        };
        if seen.insert(name.clone())
            && let Some(node) = daemon.graph.find(name)
        {
            nodes.push(node);
        }
    }
    nodes
}

/// Exhaustive: a new kind of step does not compile until it is here.
fn action_of(
    daemon: &Arc<Daemon>,
    branch: Branch,
    group: Option<JobGroup>,
    settling: &Settling,
) -> Box<dyn Action> {
    use crate::commands::block_core::{BackupRequest, Overlay};
    use actions::{
        Abort, Backup, Bitmap, BitmapAdd, BitmapChange, BitmapMerge, InternalSnapshot, OverlaySnapshot,
    };
    let daemon = Arc::clone(daemon);
    let settling = settling.clone();
    let bitmap = |change, data| {
        Box::new(Bitmap {
            daemon: Arc::clone(&daemon),
            change,
            data,
            settling: settling.clone(),
        })
    };
    match branch {
        Branch::Abort(_) => Box::new(Abort),
        Branch::BlockDirtyBitmapAdd(add) => Box::new(BitmapAdd {
            daemon,
            data: add.data,
        }),
        Branch::BlockDirtyBitmapRemove(one) => bitmap(BitmapChange::Remove, one.data),
        Branch::BlockDirtyBitmapClear(one) => bitmap(BitmapChange::Clear, one.data),
        Branch::BlockDirtyBitmapEnable(one) => bitmap(BitmapChange::Enable, one.data),
        Branch::BlockDirtyBitmapDisable(one) => bitmap(BitmapChange::Disable, one.data),
        Branch::BlockDirtyBitmapMerge(merge) => Box::new(BitmapMerge {
            daemon,
            data: merge.data,
        }),
        Branch::BlockdevBackup(backup) => Box::new(Backup {
            daemon,
            request: BackupRequest::Blockdev(backup.data.base),
            group,
            settling,
        }),
        Branch::DriveBackup(backup) => Box::new(Backup {
            daemon,
            request: BackupRequest::Drive(backup.data.base),
            group,
            settling,
        }),
        Branch::BlockdevSnapshot(snapshot) => Box::new(OverlaySnapshot {
            daemon,
            overlay: Overlay::Node(snapshot.data),
            settling,
        }),
        Branch::BlockdevSnapshotSync(snapshot) => Box::new(OverlaySnapshot {
            daemon,
            overlay: Overlay::File(snapshot.data),
            settling,
        }),
        Branch::BlockdevSnapshotInternalSync(snapshot) => Box::new(InternalSnapshot {
            daemon,
            data: snapshot.data,
            settling,
        }),
    }
}
