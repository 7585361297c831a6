//! An export: a node that NBD clients can reach by a name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::proto::{MAX_STRING_BYTES, ReplyMode, export_flag};
use crate::bitmap::{BitmapHandle, BitmapHold};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::{Backend, BackendUser, Graph, Node, Perm};
use crate::types::ExportId;

/// Whether clients may use several connections as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MultiConn {
    /// Wherever it is safe, which is everywhere here: all connections share one backend.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

/// An export to make.
#[derive(Debug)]
pub struct ExportOptions {
    /// Its id.
    pub id: ExportId,
    /// The name that clients ask for.
    pub name: String,
    /// A text for people.
    pub description: Option<String>,
    /// Whether clients may write.
    pub writable: bool,
    /// Bitmaps to show, with the names they have there.
    pub bitmaps: Vec<(String, BitmapHandle)>,
    /// Offer `qemu:allocation-depth`.
    pub allocation_depth: bool,
    /// Make every write durable before it is acknowledged.
    pub writethrough: bool,
    /// Several connections.
    pub multi_conn: MultiConn,
}

/// An export.
#[derive(Debug)]
pub struct Export {
    id: ExportId,
    name: String,
    description: Option<String>,
    writable: bool,
    multi_conn: bool,
    allocation_depth: bool,
    writethrough: bool,
    bitmaps: Vec<(String, BitmapHold)>,
    backend: Arc<Backend>,
    clients: AtomicUsize,
    closing: AtomicBool,
    /// Woken when closing begins and when a client leaves.
    changed: Notify,
}

impl Export {
    /// Attaches an export to a node.
    pub fn new(graph: &Arc<Graph>, node: &Arc<Node>, options: ExportOptions) -> Result<Arc<Self>> {
        let backend = Self::attach(graph, node, options.writable)?;
        Self::keep_length(&backend, options.writable)?;
        Self::on(backend, options)
    }

    /// The user of the node that an export is. Its own step, because whether the node may be used so is told before
    /// anything else that may be wrong with an export.
    pub fn attach(graph: &Arc<Graph>, node: &Arc<Node>, writable: bool) -> Result<Arc<Backend>> {
        if writable && node.is_read_only() {
            return Err(BlockError::new(
                ErrorKind::ReadOnly,
                "Cannot export read-only node as writable",
            ));
        }
        let writes = if writable { Perm::WRITE } else { Perm::NONE };
        let perm = Perm::CONSISTENT_READ | writes;
        Backend::new(graph, node, BackendUser::unnamed(), perm, Perm::ALL)
    }

    /// Whether clients can be told the name and the description.
    pub fn check_texts(name: &str, description: Option<&str>) -> Result<()> {
        let too_long = |text: String| Err(BlockError::new(ErrorKind::Invalid, text));
        if name.len() > MAX_STRING_BYTES {
            return too_long(format!("export name '{name}' too long"));
        }
        match description {
            Some(text) if text.len() > MAX_STRING_BYTES => too_long(format!("description '{text}' too long")),
            _ => Ok(()),
        }
    }

    /// Lets nobody else change the node's length from now on: the second step of [`attach`](Self::attach), so that of
    /// two conflicts the one over reading and writing is reported.
    pub fn keep_length(backend: &Arc<Backend>, writable: bool) -> Result<()> {
        let writes = if writable { Perm::WRITE } else { Perm::NONE };
        backend.set_permissions(Perm::CONSISTENT_READ | writes, Perm::ALL.without(Perm::RESIZE))
    }

    /// The export that uses what [`attach`](Self::attach) gave.
    pub fn on(backend: Arc<Backend>, options: ExportOptions) -> Result<Arc<Self>> {
        Self::check_texts(&options.name, options.description.as_deref())?;
        let bitmaps = options
            .bitmaps
            .into_iter()
            .map(|(name, bitmap)| Ok((name, bitmap.hold()?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Self {
            id: options.id,
            name: options.name,
            description: options.description,
            writable: options.writable,
            multi_conn: options.multi_conn != MultiConn::Off,
            allocation_depth: options.allocation_depth,
            writethrough: options.writethrough,
            bitmaps,
            backend,
            clients: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    /// Its id.
    pub fn id(&self) -> &ExportId {
        &self.id
    }

    /// The name that clients ask for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A text for people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Whether clients may write.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The user of the node that stands for all clients.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Changes the length of the node. The export itself lets nobody else do that, so that it asks for it only for as
    /// long as it takes.
    pub(super) async fn resize(&self, length: u64) -> Result<()> {
        let perm = Perm::CONSISTENT_READ | Perm::WRITE;
        self.backend.set_permissions(perm, Perm::ALL)?;
        let graph = self.backend.graph();
        let result = graph.resize(&self.backend.node(), length).await;
        self.backend
            .set_permissions(perm, Perm::ALL.without(Perm::RESIZE))?;
        result
    }

    /// How many clients are connected to it.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }

    /// Waits until no client is connected, for so long at most; tells whether that came about. A client that has just
    /// left is noticed a moment later, which must not make it count as connected.
    pub async fn settle(&self, longest: std::time::Duration) -> bool {
        let idle = async {
            loop {
                let mut wake = std::pin::pin!(self.changed.notified());
                wake.as_mut().enable();
                if self.clients() == 0 {
                    return;
                }
                wake.await;
            }
        };
        tokio::time::timeout(longest, idle).await.is_ok()
    }

    /// Whether it is being closed.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The bitmaps that it shows.
    pub(super) fn bitmaps(&self) -> &[(String, BitmapHold)] {
        &self.bitmaps
    }

    /// Whether every write is made durable.
    pub(super) fn is_writethrough(&self) -> bool {
        self.writethrough
    }

    pub(super) fn has_allocation_depth(&self) -> bool {
        self.allocation_depth
    }

    /// The flags that a client is told.
    pub(super) fn flags(&self, mode: ReplyMode) -> u16 {
        let mut flags = export_flag::HAS_FLAGS
            | export_flag::SEND_FLUSH
            | export_flag::SEND_FUA
            | export_flag::SEND_CACHE;
        if self.writable {
            flags |= export_flag::SEND_TRIM
                | export_flag::SEND_WRITE_ZEROES
                | export_flag::SEND_FAST_ZERO
                | export_flag::SEND_RESIZE;
        } else {
            flags |= export_flag::READ_ONLY;
        }
        if self.multi_conn {
            flags |= export_flag::CAN_MULTI_CONN;
        }
        if mode.is_chunked() {
            flags |= export_flag::SEND_DF;
        }
        if mode == ReplyMode::Extended {
            flags |= export_flag::BLOCK_STAT_PAYLOAD;
        }
        flags
    }

    /// Counts a client in, unless the export is closing.
    pub(super) fn join(self: &Arc<Self>) -> Option<Client> {
        self.clients.fetch_add(1, Ordering::SeqCst);
        let client = Client {
            export: Arc::clone(self),
        };
        if self.is_closing() { None } else { Some(client) }
    }

    /// Resolves when the export begins to close.
    pub(super) async fn closed(&self) {
        loop {
            let mut wake = std::pin::pin!(self.changed.notified());
            wake.as_mut().enable();
            if self.is_closing() {
                return;
            }
            wake.await;
        }
    }

    /// Sends every client away, waits for their requests and gives the node up.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
        loop {
            let mut wake = std::pin::pin!(self.changed.notified());
            wake.as_mut().enable();
            if self.clients() == 0 {
                break;
            }
            wake.await;
        }
        self.backend.detach().await;
    }
}

/// A connected client of an export.
#[derive(Debug)]
pub(super) struct Client {
    export: Arc<Export>,
}

impl Client {
    pub(super) fn export(&self) -> &Arc<Export> {
        &self.export
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.export.clients.fetch_sub(1, Ordering::SeqCst);
        self.export.changed.notify_waiters();
    }
}
