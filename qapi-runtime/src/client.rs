//! A QMP client: any number of calls at once, replies matched by id, events to whoever subscribed.
//!
//! One task owns the connection; [`Client`] is a handle to it that can be cloned and used from anywhere.
//! A call that is dropped or times out takes nothing from the others: its reply, if one comes, is
//! thrown away. When the connection is lost every waiting call ends with an error that says whether
//! the command may have run. A request that was not sent yet is never sent then, unless the
//! client was told to reconnect.
//!
//! It knows no schema: typed calls are generated on top of [`Client::execute`].

mod address;
pub mod blocking;
mod driver;
mod job;
mod subscription;

pub use address::Address;
pub use job::{Job, JobEnd, Progress};
pub use subscription::{ClientEvent, Incoming, Subscription};

use crate::document::{Cursor, Document};
use crate::error::{DecodeError, Error, ErrorClass};
use crate::execute::Execute;
use crate::session::Stream;
use crate::text;
use driver::Driver;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subscription::Subscribers;
use tokio::sync::{Notify, oneshot};

/// Why a call has no return value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server refused the command or the command failed.
    #[error("{0}")]
    Qmp(Error),
    /// The connection was lost.
    #[error("connection lost: {reason} ({})", may_have_run_text(*.may_have_run))]
    Disconnected {
        /// The command was sent: it may have run, or still run.
        may_have_run: bool,
        /// How the connection was lost.
        reason: Arc<str>,
    },
    /// No reply came in time.
    #[error("no reply in time ({})", may_have_run_text(*.may_have_run))]
    TimedOut {
        /// The command was sent: it may have run, or still run.
        may_have_run: bool,
    },
    /// The server does not speak QMP as we know it.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The return value is not what was expected.
    #[error("unexpected return value: {0}")]
    Decode(String),
    /// The connection could not be made.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

fn may_have_run_text(may_have_run: bool) -> &'static str {
    if may_have_run {
        "the command may have run"
    } else {
        "the command has not run"
    }
}

impl ClientError {
    /// The class of the server's refusal, if that is what it is.
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            ClientError::Qmp(error) => Some(error.class),
            _ => None,
        }
    }

    /// The command may have had its effect although no reply tells of it.
    pub fn may_have_run(&self) -> bool {
        match self {
            ClientError::Disconnected { may_have_run, .. } | ClientError::TimedOut { may_have_run } => {
                *may_have_run
            }
            ClientError::Decode(_) => true,
            ClientError::Qmp(_) | ClientError::Protocol(_) | ClientError::Connect { .. } => false,
        }
    }
}

/// What to do when the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// Nothing: the client is of no use any more.
    Never,
    /// Try again and again; calls made meanwhile wait for the new connection.
    Backoff {
        /// The wait before the first try; it doubles with each.
        first: Duration,
        /// The longest wait.
        longest: Duration,
        /// So many tries, then the client is of no use any more.
        tries: u32,
    },
}

/// How a client is to behave.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// How long a call waits for its reply, unless it says otherwise. `None`: for ever.
    pub timeout: Option<Duration>,
    /// What to do when the connection is lost.
    pub reconnect: Reconnect,
    /// Ask for out-of-band execution where the server has it.
    pub oob: bool,
    /// Time for greeting and negotiation.
    pub handshake_timeout: Duration,
    /// Bytes of one message of the server. Until it is decoded a message may take four times as much memory.
    pub message_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            timeout: None,
            reconnect: Reconnect::Never,
            oob: false,
            handshake_timeout: Duration::from_secs(30),
            message_bytes: 256 << 20,
        }
    }
}

/// What the server said in its greeting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// Major, minor and micro version.
    pub version: (i64, i64, i64),
    /// What the packager calls it.
    pub package: String,
    /// What it offers: `oob`.
    pub capabilities: Vec<String>,
}

/// A handle to a connection; clones share it.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    options: ClientOptions,
    /// Calls that do not say it themselves are sent out of band.
    out_of_band: bool,
}

/// What handles and the connection's task share.
struct Link {
    state: Mutex<State>,
    /// Something is to be sent, or the last handle is gone.
    work: Notify,
}

#[derive(Default)]
struct State {
    next_id: u64,
    /// Requests that are not sent yet.
    outgoing: VecDeque<Outgoing>,
    /// Calls that wait for a reply, by id.
    waiting: HashMap<u64, Waiting>,
    subscribers: Subscribers,
    greeting: Greeting,
    /// The connection is lost for good.
    lost: Option<Arc<str>>,
    /// No handle is left.
    deserted: bool,
}

struct Outgoing {
    id: u64,
    bytes: Vec<u8>,
}

struct Waiting {
    reply: oneshot::Sender<Result<Document, ClientError>>,
    /// Some of its bytes may have left.
    sent: bool,
}

impl Link {
    /// Every change under the lock is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a call back when its future is dropped.
struct Withdraw<'a> {
    link: &'a Link,
    id: u64,
    done: bool,
}

impl Withdraw<'_> {
    /// The call is of no interest any more; whether its command may have run.
    fn withdraw(&mut self) -> bool {
        self.done = true;
        let mut state = self.link.lock();
        let sent = state.waiting.remove(&self.id).is_none_or(|waiting| waiting.sent);
        if !sent {
            state.outgoing.retain(|outgoing| outgoing.id != self.id);
        }
        sent
    }
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.withdraw();
        }
    }
}

impl Client {
    /// Connects to `unix:PATH`, `tcp:HOST:PORT`, or a plain path of a socket.
    ///
    /// # Errors
    ///
    /// When there is no connection or the server does not greet as a QMP server does.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Client::connect_with(&address.parse::<Address>()?, ClientOptions::default()).await
    }

    /// Connects as the options say.
    ///
    /// # Errors
    ///
    /// When there is no connection or the server does not greet as a QMP server does.
    pub async fn connect_with(address: &Address, options: ClientOptions) -> Result<Self, ClientError> {
        let stream = address.connect().await?;
        Client::start(stream, Some(address.clone()), options).await
    }

    /// Talks over a connection that is there already: a socket that was passed, TLS, or the two pipes of a child,
    /// as `tokio::io::join(stdout, stdin)`. It cannot be made anew when it is lost.
    ///
    /// # Errors
    ///
    /// When the server does not greet as a QMP server does.
    pub async fn over(stream: impl Stream + 'static, options: ClientOptions) -> Result<Self, ClientError> {
        Client::start(Box::new(stream), None, options).await
    }

    async fn start(
        stream: Box<dyn Stream>,
        address: Option<Address>,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let link = Arc::new(Link {
            state: Mutex::new(State::default()),
            work: Notify::new(),
        });
        let driver = Driver::greet(stream, address, options, Arc::clone(&link)).await?;
        tokio::spawn(driver.run());
        Ok(Client {
            handle: Arc::new(Handle { link }),
            options,
            out_of_band: false,
        })
    }

    /// The same connection, whose calls wait so long for their replies. `None`: for ever.
    ///
    /// Generated clients are made over it like over any other: `qemu::Client::new(connection.with_timeout(..))`.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        let mut client = self.clone();
        client.options.timeout = timeout.into();
        client
    }

    /// The same connection, whose calls are sent out of band: the server runs them as soon as it reads them. It refuses
    /// commands that the schema does not allow to be sent so, and all of them unless [`ClientOptions::oob`] asked for it.
    #[must_use]
    pub fn out_of_band(&self) -> Self {
        let mut client = self.clone();
        client.out_of_band = true;
        client
    }

    /// What the server said of itself.
    pub fn greeting(&self) -> Greeting {
        self.handle.link.lock().greeting.clone()
    }

    /// Runs a command and waits for its return value. `arguments` is the JSON text of an object.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn execute(&self, command: &str, arguments: Option<&[u8]>) -> Result<Document, ClientError> {
        self.call(command, arguments, self.out_of_band, self.options.timeout)
            .await
    }

    /// Runs a command out of band, as soon as the server reads it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn execute_oob(
        &self,
        command: &str,
        arguments: Option<&[u8]>,
    ) -> Result<Document, ClientError> {
        self.call(command, arguments, true, self.options.timeout).await
    }

    /// Runs a command and waits so long for its return value.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn call(
        &self,
        command: &str,
        arguments: Option<&[u8]>,
        oob: bool,
        timeout: Option<Duration>,
    ) -> Result<Document, ClientError> {
        let (sender, receiver) = oneshot::channel();
        let mut call = {
            let mut state = self.handle.link.lock();
            if let Some(reason) = &state.lost {
                return Err(ClientError::Disconnected {
                    may_have_run: false,
                    reason: Arc::clone(reason),
                });
            }
            let id = state.next_id;
            state.next_id += 1;
            state.waiting.insert(
                id,
                Waiting {
                    reply: sender,
                    sent: false,
                },
            );
            state.outgoing.push_back(Outgoing {
                id,
                bytes: request(command, arguments, oob, id),
            });
            Withdraw {
                link: &self.handle.link,
                id,
                done: false,
            }
        };
        self.handle.link.work.notify_one();
        let outcome = match timeout {
            None => receiver.await,
            Some(timeout) => match tokio::time::timeout(timeout, receiver).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    return Err(ClientError::TimedOut {
                        may_have_run: call.withdraw(),
                    });
                }
            },
        };
        match outcome {
            Ok(outcome) => {
                call.done = true;
                outcome
            }
            // The task that owns the connection is gone, with its runtime.
            Err(_) => Err(ClientError::Disconnected {
                may_have_run: call.withdraw(),
                reason: "the client was shut down".into(),
            }),
        }
    }

    /// All events from now on.
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_if(|_| true)
    }

    /// The events from now on that `wanted` likes.
    pub fn subscribe_if(&self, wanted: impl Fn(&ClientEvent) -> bool + Send + 'static) -> Subscription {
        self.handle.link.lock().subscribers.add(Box::new(wanted))
    }

    /// Watches a job from now on; made before the command that starts it is sent, it misses nothing.
    pub fn job(&self, id: &str) -> Job {
        Job::new(self.clone(), id)
    }
}

/// Ends the connection's task when the last handle is dropped.
struct Handle {
    link: Arc<Link>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.lock().deserted = true;
        self.link.work.notify_one();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        ClientError::Decode(error.to_string())
    }
}

impl Execute for Client {
    type Error = ClientError;

    async fn execute(
        &self,
        command: &'static str,
        arguments: Option<Vec<u8>>,
    ) -> Result<Document, ClientError> {
        Client::execute(self, command, arguments.as_deref()).await
    }
}

/// A request as JSON text.
fn request(command: &str, arguments: Option<&[u8]>, oob: bool, id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + command.len() + arguments.map_or(0, <[u8]>::len));
    out.extend_from_slice(if oob {
        b"{\"exec-oob\": "
    } else {
        b"{\"execute\": "
    });
    text::write_string(&mut out, command);
    if let Some(arguments) = arguments {
        out.extend_from_slice(b", \"arguments\": ");
        out.extend_from_slice(arguments);
    }
    out.extend_from_slice(b", \"id\": ");
    text::write_uint(&mut out, id);
    out.extend_from_slice(b"}\r\n");
    out
}

/// A member of an object.
fn member<'a>(object: Cursor<'a>, name: &str) -> Option<Cursor<'a>> {
    object
        .members()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}
