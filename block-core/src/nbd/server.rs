//! A server: exports by name, and the connections that use them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::export::Export;
use super::lookout::Lookouts;
use super::{Stream, TlsUpgrade, handshake, session};
use crate::error::{BlockError, ErrorKind, Result};
use crate::sync::lock;

/// How a server is set up.
#[derive(Clone, Default)]
pub struct ServerConfig {
    /// How long a client may take to negotiate; `None` is forever.
    pub handshake_timeout: Option<Duration>,
    /// How many clients may be connected at once; 0 is no limit.
    pub max_connections: usize,
    /// TLS, which clients must use then.
    pub tls: Option<Arc<dyn TlsUpgrade>>,
}

/// A server.
pub struct Server {
    config: ServerConfig,
    handle: tokio::runtime::Handle,
    /// In order of their creation.
    exports: Mutex<Vec<Arc<Export>>>,
    connections: AtomicUsize,
    closing: AtomicBool,
    /// Woken when a connection ends and when the server closes.
    changed: Notify,
    lookouts: Arc<Lookouts>,
}

/// A server, shared.
pub type ServerHandle = Arc<Server>;

impl Server {
    /// A server without exports; connections are served on `handle`.
    pub fn new(config: ServerConfig, handle: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new(Self {
            config,
            lookouts: Lookouts::new(handle.metrics().num_workers()),
            handle,
            exports: Mutex::default(),
            connections: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Its set-up.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Offers an export.
    pub fn add(&self, export: Arc<Export>) -> Result<()> {
        let mut exports = lock(&self.exports);
        if exports.iter().any(|other| other.name() == export.name()) {
            return Err(BlockError::new(
                ErrorKind::Exists,
                format!("NBD server already has export named '{}'", export.name()),
            ));
        }
        exports.push(export);
        Ok(())
    }

    /// The export of this name; the empty name is no default here.
    pub fn find(&self, name: &str) -> Option<Arc<Export>> {
        lock(&self.exports)
            .iter()
            .find(|export| export.name() == name)
            .cloned()
    }

    /// All exports, oldest first.
    pub fn exports(&self) -> Vec<Arc<Export>> {
        lock(&self.exports).clone()
    }

    /// Stops offering an export; [`Export::close`] sends its clients away.
    pub fn remove(&self, name: &str) -> Option<Arc<Export>> {
        let mut exports = lock(&self.exports);
        let at = exports.iter().position(|export| export.name() == name)?;
        Some(exports.remove(at))
    }

    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Resolves when another connection may be accepted: call it before each `accept`.
    pub async fn ready(&self) {
        loop {
            let mut wake = std::pin::pin!(self.changed.notified());
            wake.as_mut().enable();
            let max = self.config.max_connections;
            if max == 0 || self.connections() < max || self.closing.load(Ordering::SeqCst) {
                return;
            }
            wake.await;
        }
    }

    /// Serves a connection to its end, in a task of its own.
    pub fn serve(self: &Arc<Self>, stream: impl Stream + 'static) {
        let connection = Connection::new(self);
        let stream: Box<dyn Stream> = Box::new(stream);
        self.handle.spawn(async move {
            if let Err(error) = serve_one(&connection.server, stream).await {
                tracing::debug!(%error, "NBD connection ended");
            }
            drop(connection);
        });
    }

    async fn closed(&self) {
        loop {
            let mut wake = std::pin::pin!(self.changed.notified());
            wake.as_mut().enable();
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            wake.await;
        }
    }

    /// Sends away clients that are still negotiating, closes every export with its clients, and waits for all of that.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
        let exports = std::mem::take(&mut *lock(&self.exports));
        for export in exports {
            export.close().await;
        }
        loop {
            let mut wake = std::pin::pin!(self.changed.notified());
            wake.as_mut().enable();
            if self.connections() == 0 {
                return;
            }
            wake.await;
        }
    }
}

/// Counts a connection while it lives.
struct Connection {
    server: Arc<Server>,
}

impl Connection {
    fn new(server: &Arc<Server>) -> Self {
        server.connections.fetch_add(1, Ordering::SeqCst);
        Self {
            server: Arc::clone(server),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::SeqCst);
        self.server.changed.notify_waiters();
    }
}

async fn serve_one(server: &Arc<Server>, stream: Box<dyn Stream>) -> std::io::Result<()> {
    let negotiation = async {
        match server.config.handshake_timeout {
            Some(limit) => match tokio::time::timeout(limit, handshake::negotiate(server, stream)).await {
                Ok(result) => result,
                Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
            },
            None => handshake::negotiate(server, stream).await,
        }
    };
    let agreed = tokio::select! {
        agreed = negotiation => agreed?,
        () = server.closed() => return Ok(()),
    };
    match agreed {
        Some(agreed) => session::run(agreed, server.handle.clone(), Arc::clone(&server.lookouts)).await,
        None => Ok(()),
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("exports", &self.exports())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}
