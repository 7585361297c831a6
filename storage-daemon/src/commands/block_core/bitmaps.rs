//! Dirty bitmaps.

use std::sync::Arc;

use block_core::bitmap::{BitmapHandle, BitmapSpec, action, default_granularity};
use block_core::graph::Node;
use qapi_runtime::Error;
use schema::BlockDirtyBitmapOrStr;

use crate::convert::error::generic;
use crate::daemon::Daemon;

/// A new bitmap has a name; this is told before its node is looked for.
pub fn check_named(args: &schema::BlockDirtyBitmapAdd) -> Result<(), Error> {
    if args.name.is_empty() {
        return Err(Error::generic("Bitmap name cannot be empty"));
    }
    Ok(())
}

/// What a new bitmap is like, checked against its node.
pub fn spec(node: &Arc<Node>, args: &schema::BlockDirtyBitmapAdd) -> Result<BitmapSpec, Error> {
    check_named(args)?;
    let granularity_bytes = args
        .granularity
        .unwrap_or_else(|| default_granularity(node.driver().info().cluster_bytes));
    if granularity_bytes < 512 || !granularity_bytes.is_power_of_two() {
        return Err(Error::generic("Granularity must be power of 2 and at least 512"));
    }
    let persistent = args.persistent.unwrap_or(false);
    if persistent {
        let node_name = node.name();
        match node.driver().image_store() {
            Some(store) => store
                .can_store_bitmap(&args.name, granularity_bytes)
                .map_err(|why| {
                    Error::generic(format!(
                        "Can't make bitmap '{}' persistent in '{node_name}': {why}",
                        args.name
                    ))
                })?,
            None => {
                return Err(Error::generic(format!(
                    "Can't store persistent bitmaps to {node_name}: Operation not supported"
                )));
            }
        }
    }
    Ok(BitmapSpec {
        name: args.name.as_str().into(),
        granularity_bytes,
        persistent,
        disabled: args.disabled.unwrap_or(false),
    })
}

/// The bitmaps to merge from, looked up and checked one after the other before anything is changed. The target is
/// looked for first: its absence is the error that is told.
pub fn sources(
    daemon: &Daemon,
    node: &Arc<Node>,
    args: &schema::BlockDirtyBitmapMerge,
) -> Result<Vec<BitmapHandle>, Error> {
    let target = node.bitmaps().get(&args.target).map_err(generic)?;
    args.bitmaps
        .iter()
        .map(|source| {
            let source = match source {
                BlockDirtyBitmapOrStr::Local(name) => node.bitmaps().get(name),
                BlockDirtyBitmapOrStr::External(external) => {
                    daemon.bitmap_node(&external.node)?.bitmaps().get(&external.name)
                }
            }
            .map_err(generic)?;
            target.check_merge(&source).map_err(generic)?;
            Ok(source)
        })
        .collect()
}

pub(super) async fn add(daemon: &Daemon, args: schema::BlockDirtyBitmapAdd) -> Result<(), Error> {
    check_named(&args)?;
    let node = daemon.device(&args.node)?;
    daemon
        .on_data(async move {
            let spec = spec(&node, &args)?;
            node.bitmaps()
                .add(node.length(), &spec)
                .map(drop)
                .map_err(generic)
        })
        .await
}

pub(super) async fn remove(daemon: &Daemon, args: schema::BlockDirtyBitmap) -> Result<(), Error> {
    let node = daemon.bitmap_node(&args.node)?;
    daemon
        .on_data(async move { remove_now(&node, &args.name).await })
        .await
}

/// Removes a bitmap, from the image first: what is left after a failure there is a bitmap that still works.
async fn remove_now(node: &Arc<Node>, name: &str) -> Result<(), Error> {
    let bitmap = node.bitmaps().get(name).map_err(generic)?;
    let undo = action::remove(node.bitmaps(), name).map_err(generic)?;
    let stored = bitmap.info().is_some_and(|info| info.persistent);
    if stored
        && let Some(store) = node.driver().image_store()
        && let Err(error) = store.remove_bitmap(name).await
    {
        undo.abort();
        return Err(generic(error));
    }
    undo.commit();
    Ok(())
}

pub(super) async fn clear(daemon: &Daemon, args: schema::BlockDirtyBitmap) -> Result<(), Error> {
    let node = daemon.bitmap_node(&args.node)?;
    daemon
        .on_data(async move {
            action::clear(node.bitmaps(), &args.name)
                .map_err(generic)?
                .commit();
            Ok(())
        })
        .await
}

pub(super) async fn set_enabled(
    daemon: &Daemon,
    args: schema::BlockDirtyBitmap,
    enabled: bool,
) -> Result<(), Error> {
    let node = daemon.bitmap_node(&args.node)?;
    action::set_enabled(node.bitmaps(), &args.name, enabled)
        .map_err(generic)?
        .commit();
    Ok(())
}

pub(super) async fn merge(daemon: &Daemon, args: schema::BlockDirtyBitmapMerge) -> Result<(), Error> {
    let node = daemon.bitmap_node(&args.node)?;
    let sources = sources(daemon, &node, &args)?;
    daemon
        .on_data(async move {
            action::merge(node.bitmaps(), &args.target, &sources)
                .map_err(generic)?
                .commit();
            Ok(())
        })
        .await
}

/// The checksum of a bitmap, whatever state it is in.
pub(super) async fn sha256(
    daemon: &Daemon,
    args: schema::BlockDirtyBitmap,
) -> Result<schema::BlockDirtyBitmapSha256, Error> {
    let node = daemon.bitmap_node(&args.node)?;
    let bitmap = node.bitmaps().get(&args.name).map_err(generic)?;
    let bits = bitmap.snapshot().map(|(bits, _)| bits);
    // A bitmap can have gigabytes of bits: it is hashed where nobody waits for the thread.
    let hash = tokio::task::spawn_blocking(move || {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        if let Some(bits) = bits {
            block_core::bitmap::for_each_piece(&bits, |piece| context.update(piece));
        }
        context.finish()
    });
    let hash = hash.await.map_err(|error| Error::generic(error.to_string()))?;
    let sha256 = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(schema::BlockDirtyBitmapSha256 { sha256 })
}
