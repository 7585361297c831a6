//! The server: what all sessions share, listeners that make sessions, and the orderly end.
//!
//! Knows what a client may use up ([`ServerLimits`]), and nothing of what commands do.

use crate::audit::AuditLog;
use crate::dispatch::CommandTable;
use crate::event::EventHub;
use crate::introspect;
use crate::listen::{Accepted, Listener};
use crate::output::Total;
use crate::peer::Peer;
use crate::policy::{Policy, Special};
use crate::scanner::Limits;
use crate::service::Service;
use crate::session::{Session, Stream};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// What clients may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// One message.
    pub message: Limits,
    /// Bytes that unfinished messages of all clients may hold together ...
    pub total_input_bytes: usize,
    /// ... though so much is always granted to each.
    pub assured_input_bytes: usize,
    /// While more than this is unsent, a client's requests wait.
    pub unsent_reply_bytes: usize,
    /// A client with so much unsent misses the next event, and its connection is closed.
    pub event_backlog_bytes: usize,
    /// Bytes that all clients together may leave unsent; beyond it each that holds more than
    /// `unsent_reply_bytes` is given up when it asks for more.
    pub total_unsent_bytes: usize,
    /// Bytes of in-band requests that wait behind a running one: while more wait, nothing is read.
    pub queued_bytes: usize,
    /// In-band requests that wait behind a running one, once out-of-band execution is negotiated;
    /// and out-of-band ones that run at once.
    pub queued_requests: usize,
    /// Clients at once; more are turned away.
    pub clients: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            message: Limits::default(),
            total_input_bytes: 256 << 20,
            assured_input_bytes: 64 << 10,
            unsent_reply_bytes: 256 << 10,
            event_backlog_bytes: 4 << 20,
            total_unsent_bytes: 512 << 20,
            queued_bytes: 1 << 20,
            queued_requests: 8,
            clients: 4096,
        }
    }
}

/// Tells a server, from anywhere, to take no further requests.
///
/// The handler of `quit` requests it: its own reply is still sent, whenever it comes, so are events, but no command
/// after it runs.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    requested: AtomicBool,
    changed: Notify,
}

impl Stop {
    /// A stop that nobody has requested.
    pub fn new() -> Self {
        Stop::default()
    }

    /// From now on no request is taken.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Whether somebody has requested it.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Waits for somebody to request it.
    pub async fn requested(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_requested() {
                return;
            }
            changed.await;
        }
    }
}

/// The time before a server is set up, in which only commands run that the schema allows then (`allow-preconfig`).
///
/// A server that was given one refuses the others until some handler, or whoever sets things up, ends it.
#[derive(Debug, Clone, Default)]
pub struct Preconfig(Arc<AtomicBool>);

impl Preconfig {
    /// It has begun.
    pub fn new() -> Self {
        Preconfig::default()
    }

    /// From now on all commands run.
    pub fn end(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What all sessions of a server share.
pub(crate) struct Shared {
    pub(crate) service: Service,
    pub(crate) hub: Arc<EventHub>,
    pub(crate) greeting: Bytes,
    introspection: Bytes,
    /// The same without what is deprecated in it; made when the first client asks whose policy hides that.
    modern_introspection: OnceLock<Bytes>,
    pub(crate) limits: ServerLimits,
    pub(crate) audit: Option<AuditLog>,
    pub(crate) stop: Stop,
    pub(crate) preconfig: Option<Preconfig>,
    pub(crate) held_bytes: AtomicUsize,
    pub(crate) unsent: Arc<Total>,
    pub(crate) next_session: AtomicU64,
    sessions: AtomicUsize,
    /// The last session has ended.
    deserted: Notify,
}

impl Shared {
    /// The return value of `query-qmp-schema` under a policy.
    pub(crate) fn introspection(&self, policy: Policy) -> Bytes {
        if policy.hides(Special::DEPRECATED) {
            let modern = || Bytes::from(introspect::without_deprecated(&self.introspection));
            self.modern_introspection.get_or_init(modern).clone()
        } else {
            self.introspection.clone()
        }
    }

    pub(crate) fn session_ended(&self) {
        if self.sessions.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.deserted.notify_waiters();
        }
    }
}

/// Sets up a [`Server`].
pub struct ServerBuilder {
    service: Service,
    hub: Arc<EventHub>,
    version: String,
    introspection: Bytes,
    limits: ServerLimits,
    audit: Option<AuditLog>,
    stop: Stop,
    preconfig: Option<Preconfig>,
}

impl ServerBuilder {
    /// The `version` object of the greeting, as JSON text.
    pub fn version(mut self, json: impl Into<String>) -> Self {
        self.version = json.into();
        self
    }

    /// The return value of `query-qmp-schema`, as JSON text.
    pub fn introspection(mut self, json: &'static [u8]) -> Self {
        // Clients take a message a line. Text that is laid out for people has its line ends between
        // tokens only: JSON strings hold none.
        self.introspection = if json.contains(&b'\n') {
            json.iter()
                .copied()
                .filter(|byte| !matches!(byte, b'\n' | b'\r'))
                .collect()
        } else {
            Bytes::from_static(json)
        };
        self
    }

    /// Where events come from.
    pub fn events(mut self, hub: Arc<EventHub>) -> Self {
        self.hub = hub;
        self
    }

    /// What clients may use up.
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Where to write down who ran what.
    pub fn audit(mut self, audit: Option<AuditLog>) -> Self {
        self.audit = audit;
        self
    }

    /// What ends the taking of requests.
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// What ends the time in which only the commands run that the schema allows before everything is set up. Without it
    /// all commands run at once.
    pub fn preconfig(mut self, preconfig: Preconfig) -> Self {
        self.preconfig = Some(preconfig);
        self
    }

    /// The server; it has no listener yet.
    pub fn build(self) -> Server {
        let mut greeting = format!(
            "{{\"QMP\": {{\"version\": {}, \"capabilities\": [\"oob\"]}}}}",
            self.version
        );
        greeting.push_str("\r\n");
        Server {
            shared: Arc::new(Shared {
                service: self.service,
                hub: self.hub,
                greeting: Bytes::from(greeting),
                introspection: self.introspection,
                modern_introspection: OnceLock::new(),
                limits: self.limits,
                audit: self.audit,
                stop: self.stop,
                preconfig: self.preconfig,
                held_bytes: AtomicUsize::new(0),
                unsent: Arc::new(Total::new(
                    self.limits.total_unsent_bytes,
                    self.limits.unsent_reply_bytes,
                )),
                next_session: AtomicU64::new(1),
                sessions: AtomicUsize::new(0),
                deserted: Notify::new(),
            }),
        }
    }
}

/// Serves a table of commands to any number of clients.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What the sessions of one listener have in common.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListenOptions {
    /// What they think of deprecated and unstable things.
    pub policy: Policy,
    /// Messages are laid out for people, over many lines.
    pub pretty: bool,
}

impl Server {
    /// Begins to set up a server for the commands of a table.
    pub fn builder<H: Send + Sync + 'static>(table: CommandTable<H>, handler: Arc<H>) -> ServerBuilder {
        ServerBuilder {
            service: Service::new(table, handler),
            hub: Arc::new(EventHub::new()),
            version: "{\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 0}, \"package\": \"\"}".into(),
            introspection: Bytes::from_static(b"[]"),
            limits: ServerLimits::default(),
            audit: None,
            stop: Stop::new(),
            preconfig: None,
        }
    }

    /// Where events are told.
    pub fn events(&self) -> &Arc<EventHub> {
        &self.shared.hub
    }

    /// What ends the taking of requests.
    pub fn stop(&self) -> &Stop {
        &self.shared.stop
    }

    /// How many clients there are.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Acquire)
    }

    /// Tells rate-limited events when their time has come; the program spawns this once beside its listeners.
    pub async fn run_events(&self) {
        self.shared.hub.run().await;
    }

    /// One session over a connection that is there already; ends with it.
    pub fn attach<T: Stream + 'static>(
        &self,
        stream: T,
        peer: Peer,
        options: ListenOptions,
    ) -> impl Future<Output = ()> + Send + use<T> {
        self.session(Box::new(stream), peer, options)
    }

    fn session(&self, stream: Box<dyn Stream>, peer: Peer, options: ListenOptions) -> Session {
        self.shared.sessions.fetch_add(1, Ordering::AcqRel);
        Session::new(Arc::clone(&self.shared), stream, peer, options)
    }

    /// Accepts clients until the server is stopped; each gets a task of its own.
    pub async fn serve(&self, listener: Listener, options: ListenOptions) {
        let accept_all = async {
            loop {
                match listener.accept().await {
                    Ok(Accepted { stream, peer }) => {
                        if self.sessions() >= self.shared.limits.clients {
                            tracing::warn!(target: "qmp::server", peer = %peer, "too many clients: turned away");
                            continue;
                        }
                        tokio::spawn(self.session(stream, peer, options));
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: the next try would fail as well.
                        tracing::warn!(target: "qmp::server", %error, "cannot accept a client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept_all => {}
            () = self.shared.stop.requested() => {}
        }
    }

    /// Ends all sessions: no request is taken, what is queued for clients is sent, but no longer than `patience`.
    pub async fn finish(&self, patience: Duration) {
        self.shared.stop.request();
        let deserted = async {
            loop {
                let ended = self.shared.deserted.notified();
                if self.sessions() == 0 {
                    return;
                }
                self.shared.hub.finish_all();
                ended.await;
            }
        };
        if tokio::time::timeout(patience, deserted).await.is_err() {
            tracing::warn!(target: "qmp::server", clients = self.sessions(), "clients do not read their last messages");
        }
        if let Some(audit) = &self.shared.audit {
            audit.flush();
        }
    }
}

/// A failed accept is tried again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
