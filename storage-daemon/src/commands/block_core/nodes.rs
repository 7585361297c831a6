//! Nodes: open, close, reopen, resize, and what queries show of them.

use std::sync::Arc;

use block_core::graph::{ChildRole, Node, OpKind, Parent};
use qapi_runtime::{Error, ErrorClass};

use crate::convert::error::generic;
use crate::convert::options::node_options;
use crate::convert::{nodes, stats as counters};
use crate::daemon::Daemon;
use crate::objects::Kind;

pub(super) fn query(daemon: &Daemon, flat: bool) -> Vec<schema::BlockDeviceInfo> {
    // Newest first, as clients know it.
    daemon
        .graph
        .nodes()
        .iter()
        .rev()
        .map(|node| nodes::device_info(node, flat))
        .collect()
}

pub(super) fn stats(daemon: &Daemon, query_nodes: bool) -> Vec<schema::BlockStats> {
    if query_nodes {
        daemon.graph.nodes().iter().map(counters::node_stats).collect()
    } else {
        // Only guest devices have counters of their own, and this program has none.
        Vec::new()
    }
}

pub(super) async fn add(daemon: &Daemon, options: schema::BlockdevOptions) -> Result<(), Error> {
    if options.node_name.is_none() {
        return Err(Error::generic("'node-name' must be specified for the root node"));
    }
    let options = node_options(options)?;
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move { graph.add(options).await.map(drop).map_err(generic) })
        .await
}

pub(super) async fn reopen(daemon: &Daemon, options: Vec<schema::BlockdevOptions>) -> Result<(), Error> {
    let options = options
        .into_iter()
        .map(|options| {
            if options.node_name.is_none() {
                return Err(Error::generic("node-name not specified"));
            }
            node_options(options)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move { graph.reopen(options).await.map_err(generic) })
        .await
}

pub(super) async fn del(daemon: &Daemon, name: String) -> Result<(), Error> {
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move {
            if graph.find(&name).is_none() {
                return Err(Error::generic(format!(
                    "Failed to find node with node-name='{name}'"
                )));
            }
            graph.remove(&name.into()).await.map_err(generic)
        })
        .await
}

pub(super) async fn resize(daemon: &Daemon, args: schema::BlockResize) -> Result<(), Error> {
    let node = daemon.device_or_node(args.device.as_deref(), args.node_name.as_deref())?;
    let Ok(size) = u64::try_from(args.size) else {
        return Err(Error::generic("Parameter 'size' expects a >0 size"));
    };
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move { graph.resize(&node, size).await.map_err(generic) })
        .await
}

/// Rewrites the backing file's name in an image's header.
pub(super) async fn change_backing_file(
    daemon: &Daemon,
    args: schema::ChangeBackingFile,
) -> Result<(), Error> {
    let device = daemon.root_device(&args.device)?;
    let image = daemon.device_or_node(None, Some(&args.image_node_name))?;
    let mut at = Some(device);
    while let Some(node) = &at
        && !Arc::ptr_eq(node, &image)
    {
        at = nodes::child_below(node).map(|child| child.node());
    }
    if at.is_none() && nodes::child_below(&image).is_some() {
        return Err(Error::generic(format!(
            "'{}' and image file are not in the same chain",
            args.device
        )));
    }
    let Some(format) = image.backing().map(|backing| backing.driver().name().to_owned()) else {
        return Err(Error::generic(
            "not allowing backing file change on an image without a backing file",
        ));
    };
    image.check_op(OpKind::ExternalSnapshot).or_else(|error| {
        // An image in the middle of a chain may be changed; one that a job works on may not.
        let in_chain = image
            .parents()
            .iter()
            .any(|edge| edge.role() == ChildRole::Backing);
        if in_chain { Ok(()) } else { Err(generic(error)) }
    })?;
    let graph = Arc::clone(&daemon.graph);
    daemon
        .on_data(async move {
            graph
                .change_backing_file(&image, &args.backing_file, &format)
                .await
                .map_err(generic)
        })
        .await
}

/// Nodes are not bound to threads: only what was named is checked.
pub(super) fn set_iothread(daemon: &Daemon, args: &schema::XBlockdevSetIothread) -> Result<(), Error> {
    let name = &args.node_name;
    let node = daemon
        .graph
        .find(name)
        .ok_or_else(|| Error::generic(format!("Failed to find node with node-name='{name}'")))?;
    if args.force != Some(true) && node.parents().iter().any(|edge| edge.name() == "root") {
        return Err(Error::generic(format!(
            "Node {name} is associated with a BlockBackend and could be in use (use force=true to override this \
             check)"
        )));
    }
    match &args.iothread {
        schema::StrOrNull::N => Ok(()),
        schema::StrOrNull::S(id)
            if daemon
                .objects
                .get(id)
                .is_some_and(|object| matches!(object.kind, Kind::Iothread)) =>
        {
            Ok(())
        }
        schema::StrOrNull::S(id) => Err(Error::generic(format!("Cannot find iothread {id}"))),
    }
}

pub(super) fn set_write_threshold(
    daemon: &Daemon,
    args: &schema::BlockSetWriteThreshold,
) -> Result<(), Error> {
    match daemon.graph.find(&args.node_name) {
        Some(node) => {
            node.set_write_threshold(args.write_threshold);
            Ok(())
        }
        None => Err(Error::new(
            ErrorClass::GenericError,
            format!("Device '{}' not found", args.node_name),
        )),
    }
}

impl Daemon {
    /// The node that a command names as its device.
    pub fn device(&self, name: &str) -> Result<Arc<Node>, Error> {
        self.graph
            .find(name)
            .ok_or_else(|| Error::generic(format!("Cannot find device='{name}' nor node-name='{name}'")))
    }

    /// The node that a bitmap is on.
    pub fn bitmap_node(&self, name: &str) -> Result<Arc<Node>, Error> {
        self.graph
            .find(name)
            .ok_or_else(|| Error::generic(format!("Node '{name}' not found")))
    }

    /// The node of a command that takes a device or a node. There are no devices here, so only the node counts.
    pub fn device_or_node(&self, device: Option<&str>, node_name: Option<&str>) -> Result<Arc<Node>, Error> {
        let device = device.unwrap_or_default();
        let name = node_name.unwrap_or_default();
        self.graph
            .find(name)
            .ok_or_else(|| Error::generic(format!("Cannot find device='{device}' nor node-name='{name}'")))
    }

    /// The node of a command that works on the top of a tree only.
    pub fn root_device(&self, name: &str) -> Result<Arc<Node>, Error> {
        let node = self.device(name)?;
        let below_another = node
            .parents()
            .iter()
            .any(|edge| !matches!(edge.parent(), Parent::Backend(_)) || edge.name() != "root");
        if below_another {
            Err(Error::generic("Need a root block node"))
        } else {
            Ok(node)
        }
    }

    /// Opens a node from the command line.
    pub async fn add_node(&self, options: schema::BlockdevOptions) -> Result<(), Error> {
        add(self, options).await
    }
}
