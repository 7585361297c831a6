//! Exports and the NBD servers that offer them: who listens where, and which export is on its way out.
//!
//! The NBD protocol itself is the block layer's; here are sockets, TLS, ids and the order of events.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use block_core::bitmap::BitmapHandle;
use block_core::event::Event;
use block_core::graph::{Graph, Node, TlsClients};
use block_core::nbd::{
    self, Export, ExportOptions, MultiConn, ServerConfig, Stream, TlsUpgrade, UpgradeFuture,
};
use block_core::{BlockError, ErrorKind};
use qapi_runtime::Error;
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::cli::CliError;
use crate::cli::chardev::Address;
use crate::convert::error::generic;
use crate::names;
use crate::objects::{ObjectUse, Objects};
use crate::process::os_text;

/// Clients at once, where a server says nothing about it.
pub const DEFAULT_CONNECTIONS: u32 = 100;
/// Seconds for the handshake, where a server says nothing about it.
pub const DEFAULT_HANDSHAKE_SECONDS: u32 = 10;
/// How long to wait after an accept that failed (no descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often, and after how long each, a client that has hung up is looked for before it counts as still there.
const GRACE_TRIES: u32 = 40;
/// See [`GRACE_TRIES`].
const GRACE_STEP: Duration = Duration::from_millis(5);

/// A server to start.
pub struct ServerOptions {
    /// Its id; the one without an id has the empty one.
    pub id: String,
    /// Where it listens.
    pub address: Address,
    /// The socket, where it was there before.
    pub passed: Option<OwnedFd>,
    /// How it treats its clients.
    pub config: ServerConfig,
    /// Keeps its credentials.
    pub credentials: Option<ObjectUse>,
}

struct RunningServer {
    id: String,
    server: Arc<nbd::Server>,
    accepting: Vec<JoinHandle<()>>,
    /// Removed when the server stops.
    socket_path: Option<String>,
    _credentials: Option<ObjectUse>,
}

/// An export to add.
pub struct NewExport {
    /// Its id.
    pub id: String,
    /// Id of the server; the one without an id has the empty one.
    pub server: String,
    /// The name that clients ask for.
    pub name: String,
    /// A text for people.
    pub description: Option<String>,
    /// Clients may write.
    pub writable: bool,
    /// Every write is made durable.
    pub writethrough: bool,
    /// Offer the depth of allocation.
    pub allocation_depth: bool,
    /// The thread that was asked for.
    pub iothread: Option<String>,
}

struct RunningExport {
    iothread: Option<String>,
    id: String,
    server: String,
    export: Arc<Export>,
    shutting_down: bool,
}

/// An export, as queries show it.
#[derive(Debug)]
pub struct ExportInfo {
    /// Its id.
    pub id: String,
    /// The node.
    pub node_name: String,
    /// It is on its way out.
    pub shutting_down: bool,
}

#[derive(Default)]
struct State {
    servers: Vec<RunningServer>,
    /// Oldest first.
    exports: Vec<RunningExport>,
}

/// All exports and NBD servers.
pub struct Exports {
    graph: Arc<Graph>,
    data: Handle,
    state: Mutex<State>,
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl Exports {
    /// No servers and no exports. Connections are served on `data`.
    pub fn new(graph: Arc<Graph>, data: Handle) -> Arc<Self> {
        Arc::new(Self {
            graph,
            data,
            state: Mutex::default(),
        })
    }

    /// Nothing panics while it is held, so a poisoned lock holds a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a server.
    pub async fn start_server(&self, options: ServerOptions) -> Result<(), Error> {
        self.check_not_running(&options.id)?;
        let listeners = match options.passed {
            Some(fd) => passed_listener(fd).map(|bound| vec![bound]),
            None => listen(&options.address).await,
        }
        .map_err(|CliError(text)| Error::generic(text))?;
        // Whoever came first while the name was being resolved stays.
        self.check_not_running(&options.id)?;
        let server = nbd::Server::new(options.config, self.data.clone());
        let socket_path = match &options.address {
            Address::Unix {
                path,
                is_abstract: false,
            } => Some(path.clone()),
            _ => None,
        };
        let accepting = listeners
            .into_iter()
            .map(|listener| {
                let server = Arc::clone(&server);
                // Registered with the data runtime, which serves the connections.
                self.data.spawn(async move {
                    match listener.register() {
                        Ok(listener) => accept_all(&listener, &server).await,
                        Err(error) => tracing::error!(%error, "cannot listen for NBD clients"),
                    }
                })
            })
            .collect();
        self.lock().servers.push(RunningServer {
            id: options.id,
            server,
            accepting,
            socket_path,
            _credentials: options.credentials,
        });
        Ok(())
    }

    fn check_not_running(&self, id: &str) -> Result<(), Error> {
        if self.lock().servers.iter().any(|server| server.id == id) {
            Err(Error::generic("NBD server already running"))
        } else {
            Ok(())
        }
    }

    /// Whether the server of that id runs.
    pub fn has_server(&self, id: &str) -> bool {
        self.lock().servers.iter().any(|server| server.id == id)
    }

    /// Stops a server and takes its exports away.
    pub async fn stop_server(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let server = {
            let mut state = self.lock();
            let Some(at) = state.servers.iter().position(|server| server.id == id) else {
                return Err(Error::generic("NBD server not running"));
            };
            state.servers.remove(at)
        };
        self.end_server(server).await;
        Ok(())
    }

    async fn end_server(self: &Arc<Self>, server: RunningServer) {
        for task in &server.accepting {
            task.abort();
        }
        if let Some(path) = &server.socket_path {
            // It may have been removed by hand.
            let _ = std::fs::remove_file(path);
        }
        // Those that nobody uses go first, newest first, and then the others as their clients were there: as in QEMU.
        let ids: Vec<String> = {
            let state = self.lock();
            let of_server = || state.exports.iter().filter(|export| export.server == server.id);
            let idle = of_server().rev().filter(|export| export.export.clients() == 0);
            let used = of_server().filter(|export| export.export.clients() > 0);
            idle.chain(used).map(|export| export.id.clone()).collect()
        };
        for id in ids {
            self.close(&id).await;
        }
        server.server.close().await;
    }

    /// Whether the id can be given to a new export.
    pub fn check_id(&self, id: &str) -> Result<(), Error> {
        if !names::is_id(id) {
            return Err(Error::generic("Invalid block export id"));
        }
        if self.lock().exports.iter().any(|export| export.id == id) {
            return Err(Error::generic(format!(
                "Block export id '{id}' is already in use"
            )));
        }
        Ok(())
    }

    /// Adds an export; `bitmaps` looks up those that it shows, by their names, once all else is well.
    pub fn add(
        &self,
        node: &Arc<Node>,
        new: NewExport,
        bitmaps: impl FnOnce() -> Result<Vec<(String, BitmapHandle)>, Error>,
    ) -> Result<(), Error> {
        self.check_id(&new.id)?;
        let backend = Export::attach(&self.graph, node, new.writable).map_err(generic)?;
        let Some(server) = self
            .lock()
            .servers
            .iter()
            .find(|server| server.id == new.server)
            .map(|one| Arc::clone(&one.server))
        else {
            return Err(Error::generic("NBD server not running"));
        };
        if server.find(&new.name).is_some() {
            return Err(Error::generic(format!(
                "NBD server already has export named '{}'",
                new.name
            )));
        }
        Export::check_texts(&new.name, new.description.as_deref()).map_err(generic)?;
        Export::keep_length(&backend, new.writable).map_err(generic)?;
        let options = ExportOptions {
            id: new.id.as_str().into(),
            name: new.name,
            description: new.description,
            writable: new.writable,
            writethrough: new.writethrough,
            bitmaps: bitmaps()?,
            allocation_depth: new.allocation_depth,
            // Nobody can have a second connection to a server that takes one at a time.
            multi_conn: match server.config().max_connections {
                1 => MultiConn::Off,
                _ => MultiConn::Auto,
            },
        };
        let export = Export::on(backend, options).map_err(generic)?;
        if let Err(error) = server.add(Arc::clone(&export)) {
            self.data.spawn(async move { export.close().await });
            return Err(generic(error));
        }
        self.lock().exports.push(RunningExport {
            iothread: new.iothread,
            id: new.id,
            server: new.server,
            export,
            shutting_down: false,
        });
        Ok(())
    }

    /// Takes an export away. With clients it is gone only some time later, when its event comes.
    pub async fn remove(self: &Arc<Self>, id: &str, hard: bool) -> Result<(), Error> {
        if !hard {
            self.let_clients_go(id).await;
        }
        let idle = {
            let mut state = self.lock();
            let Some(found) = state.exports.iter_mut().find(|export| export.id == id) else {
                return Err(Error::generic(format!("Export '{id}' is not found")));
            };
            if found.shutting_down {
                return Err(Error::generic(format!("Export '{id}' is already shutting down")));
            }
            let idle = found.export.clients() == 0;
            if !idle && !hard {
                return Err(Error::generic(format!("export '{id}' still in use")));
            }
            found.shutting_down = true;
            idle
        };
        let this = Arc::clone(self);
        let id = id.to_owned();
        let closing = self.data.spawn(async move { this.close(&id).await });
        if idle {
            // Nothing to wait for: it is gone before the reply.
            let _ = closing.await;
        }
        Ok(())
    }

    /// Waits a moment for clients that have hung up already: their sessions end on other threads, and a client
    /// that disconnects and then asks for the export to be deleted must not be told that it is still there.
    async fn let_clients_go(&self, id: &str) {
        for _ in 0..GRACE_TRIES {
            let busy = {
                let state = self.lock();
                let found = state.exports.iter().find(|export| export.id == id);
                found.is_some_and(|found| found.export.clients() > 0)
            };
            if !busy {
                return;
            }
            tokio::time::sleep(GRACE_STEP).await;
        }
    }

    /// Sends an export's clients away, gives its node up, tells that it is gone.
    async fn close(&self, id: &str) {
        let found = {
            let mut state = self.lock();
            let State { servers, exports } = &mut *state;
            exports.iter_mut().find(|export| export.id == id).map(|found| {
                found.shutting_down = true;
                if let Some(server) = servers.iter().find(|server| server.id == found.server) {
                    server.server.remove(found.export.name());
                }
                Arc::clone(&found.export)
            })
        };
        let Some(export) = found else {
            return;
        };
        export.close().await;
        let was_there = {
            let mut state = self.lock();
            let before = state.exports.len();
            state.exports.retain(|other| other.id != id);
            state.exports.len() < before
        };
        // Two may have closed it at once; it is told once.
        if was_there {
            self.graph.emit(Event::BlockExportDeleted { id: id.into() });
        }
    }

    /// All exports, newest first.
    pub fn list(&self) -> Vec<ExportInfo> {
        self.lock()
            .exports
            .iter()
            .rev()
            .map(|export| ExportInfo {
                id: export.id.clone(),
                // The node that it is on now: a filter or an overlay may have come in between.
                node_name: export.export.backend().node().name().as_str().to_owned(),
                shutting_down: export.shutting_down,
            })
            .collect()
    }

    /// The thread that was last asked for, for exports of this node that are still there.
    pub fn iothread_of(&self, node: &Arc<Node>) -> Option<String> {
        self.lock()
            .exports
            .iter()
            .rev()
            .filter(|export| Arc::ptr_eq(&export.export.backend().node(), node))
            .find_map(|export| export.iothread.clone())
    }

    /// Takes everything away: the end of the program.
    pub async fn close_all(self: &Arc<Self>) {
        let servers = std::mem::take(&mut self.lock().servers);
        for server in servers {
            self.end_server(server).await;
        }
    }
}

/// A socket that is bound, but not yet registered with a runtime.
enum Bound {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener),
}

enum Registered {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl Bound {
    fn register(self) -> std::io::Result<Registered> {
        match self {
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(Registered::Unix)
            }
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Registered::Tcp)
            }
        }
    }
}

async fn accept_all(listener: &Registered, server: &Arc<nbd::Server>) {
    loop {
        server.ready().await;
        let accepted = match listener {
            Registered::Unix(listener) => listener.accept().await.map(|(stream, _)| server.serve(stream)),
            Registered::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Small replies must not wait for more to send.
                let _ = stream.set_nodelay(true);
                server.serve(stream);
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "cannot accept an NBD client");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// A socket that was bound before this process began.
fn passed_listener(fd: OwnedFd) -> Result<Bound, CliError> {
    let fail = |error: rustix::io::Errno| CliError::new(os_text(&error.into()));
    if !rustix::net::sockopt::socket_acceptconn(&fd).map_err(fail)? {
        rustix::net::listen(&fd, 128).map_err(fail)?;
    }
    let family = rustix::net::sockopt::socket_domain(&fd).map_err(fail)?;
    Ok(if family == rustix::net::AddressFamily::UNIX {
        Bound::Unix(fd.into())
    } else {
        Bound::Tcp(fd.into())
    })
}

async fn listen(address: &Address) -> Result<Vec<Bound>, CliError> {
    match address {
        Address::Unix { path, is_abstract } => {
            // What the address of a socket has room for.
            const MOST_BYTES: usize = 108;
            if path.len() >= MOST_BYTES {
                return Err(CliError::new(format!("UNIX socket path '{path}' is too long")));
            }
            if !*is_abstract && std::path::Path::new(path).is_dir() {
                return Err(CliError::new(format!(
                    "Failed to unlink socket {path}: Is a directory"
                )));
            }
            let bound = if *is_abstract {
                use std::os::linux::net::SocketAddrExt;
                std::os::unix::net::SocketAddr::from_abstract_name(path)
                    .and_then(|address| std::os::unix::net::UnixListener::bind_addr(&address))
            } else {
                qapi_runtime::listen::remove_stale(std::path::Path::new(path))
                    .and_then(|()| std::os::unix::net::UnixListener::bind(path))
            };
            let bound = bound.map_err(|error| {
                CliError::new(format!("Failed to bind socket to {path}: {}", os_text(&error)))
            })?;
            Ok(vec![Bound::Unix(bound)])
        }
        Address::Inet { host, port, .. } => {
            // A name can have several addresses (IPv4 and IPv6): all of one port that are free.
            let mut listeners = Vec::new();
            let mut on_port = None;
            let mut failure = None;
            for candidate in crate::net::resolve(address).await? {
                if on_port.is_some_and(|port| port != candidate.port()) {
                    break;
                }
                match std::net::TcpListener::bind(candidate) {
                    Ok(listener) => {
                        on_port = Some(candidate.port());
                        listeners.push(Bound::Tcp(listener));
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if listeners.is_empty() {
                let why = failure.map_or_else(|| "no address".to_owned(), |error| os_text(&error));
                return Err(CliError::new(format!(
                    "Failed to find an available port at {host}:{port}: {why}"
                )));
            }
            Ok(listeners)
        }
        Address::Descriptor(number) => Err(CliError::new(format!(
            "File descriptor '{number}' is not a socket"
        ))),
    }
}

/// TLS for the clients of a server.
pub struct ServerTls {
    /// Does the handshake.
    pub acceptor: tokio_rustls::TlsAcceptor,
    /// Who of those with a good certificate is let in: an object, looked up for each client.
    pub authorization: Option<(Arc<Objects>, String)>,
}

impl ServerTls {
    /// Whether a client with these certificates may go on.
    fn authorize(&self, certificates: Option<&[CertificateDer<'_>]>) -> std::io::Result<()> {
        let Some((objects, id)) = &self.authorization else {
            return Ok(());
        };
        let name = certificates
            .and_then(<[_]>::first)
            .and_then(|own| crate::tls::name::subject(own))
            .ok_or_else(|| std::io::Error::other("the client has no certificate with a name"))?;
        match objects.authorizes(id, &name) {
            Ok(true) => Ok(()),
            Ok(false) => Err(std::io::Error::new(
                std::io::ErrorKind::PermissionDenied,
                format!("TLS x509 authz check for {name} is denied"),
            )),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        }
    }
}

impl TlsUpgrade for ServerTls {
    fn upgrade(&self, stream: Box<dyn Stream>) -> UpgradeFuture<'_> {
        Box::pin(async move {
            let stream = self.acceptor.accept(stream).await?;
            self.authorize(stream.get_ref().1.peer_certificates())?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// TLS towards the servers of `nbd` nodes.
struct ClientTls {
    connector: tokio_rustls::TlsConnector,
    server: rustls::pki_types::ServerName<'static>,
}

impl TlsUpgrade for ClientTls {
    fn upgrade(&self, stream: Box<dyn Stream>) -> UpgradeFuture<'_> {
        Box::pin(async move {
            let stream = self.connector.connect(self.server.clone(), stream).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Finds the credentials of `nbd` nodes among the objects.
pub struct ObjectCredentials(pub Arc<Objects>);

impl TlsClients for ObjectCredentials {
    fn client(&self, id: &str, hostname: Option<&str>) -> block_core::Result<Arc<dyn TlsUpgrade>> {
        let refuse = |text: String| BlockError::new(ErrorKind::Invalid, text);
        let config = self
            .0
            .client_credentials(id)
            .map_err(|error| refuse(error.to_string()))?;
        // Where the server has no name (a unix socket), one must be given to check its certificate against.
        let name = hostname.unwrap_or("localhost").to_owned();
        let server = rustls::pki_types::ServerName::try_from(name)
            .map_err(|error| refuse(format!("The server's name is not valid: {error}")))?;
        Ok(Arc::new(ClientTls {
            connector: tokio_rustls::TlsConnector::from(config),
            server,
        }))
    }
}
