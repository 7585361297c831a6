//! The client for programs without an async runtime: the same calls, each waiting for its end.
//!
//! A thread of its own runs the connection, so replies and events are taken while nobody calls.
//! A generated client's calls are waited for with [`Client::wait`]:
//!
//! ```ignore
//! let connection = blocking::Client::connect("unix:/run/qmp.sock")?;
//! let qmp = qemu::Client::new(connection.calls());
//! let version = connection.wait(qmp.query_version())?;
//! ```

use super::{Address, ClientError, ClientOptions, Greeting, Incoming, JobEnd, Progress};
use crate::document::Document;
use crate::session::Stream;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A connection, for calls that wait. Not to be used on a thread that runs an async runtime.
#[derive(Debug)]
pub struct Client {
    // Fields are dropped in this order: the connection before the thread that serves it.
    client: super::Client,
    runtime: Arc<Runtime>,
}

/// The thread that runs the connection; it ends with the last that uses it.
#[derive(Debug)]
struct Runtime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and then it has said so.
            let _ = thread.join();
        }
    }
}

impl Runtime {
    fn start() -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect {
            address: "the client's own thread".into(),
            source,
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // The sender is dropped, not used: an error is what ends it.
            let _ = runtime.block_on(stopped);
        };
        let thread = std::thread::Builder::new()
            .name("qmp-client".into())
            .spawn(run)
            .map_err(failed)?;
        Ok(Runtime {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Client {
    /// Connects to `unix:PATH`, `tcp:HOST:PORT`, or a plain path of a socket.
    ///
    /// # Errors
    ///
    /// See [`super::Client::connect`].
    pub fn connect(address: &str) -> Result<Self, ClientError> {
        Client::connect_with(&address.parse()?, ClientOptions::default())
    }

    /// Connects as the options say.
    ///
    /// # Errors
    ///
    /// See [`super::Client::connect_with`].
    pub fn connect_with(address: &Address, options: ClientOptions) -> Result<Self, ClientError> {
        Client::start(super::Client::connect_with(address, options))
    }

    /// Talks over a connection of one's own. `open` makes it where the client's thread can serve it, from one that
    /// std has opened, say: `|| tokio::net::UnixStream::from_std(socket)`.
    ///
    /// # Errors
    ///
    /// When `open` fails; else see [`super::Client::over`].
    pub fn over<S: Stream + 'static>(
        open: impl FnOnce() -> io::Result<S>,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        Client::start(async {
            let stream = open().map_err(|source| ClientError::Connect {
                address: "the connection given".into(),
                source,
            })?;
            super::Client::over(stream, options).await
        })
    }

    fn start(connect: impl Future<Output = Result<super::Client, ClientError>>) -> Result<Self, ClientError> {
        let runtime = Runtime::start()?;
        let client = runtime.handle.block_on(connect)?;
        Ok(Client {
            client,
            runtime: Arc::new(runtime),
        })
    }

    /// What a generated client is made over; [`Client::wait`] runs its calls. It is of use as long as this client is there.
    pub fn calls(&self) -> super::Client {
        self.client.clone()
    }

    /// Waits for a call, or for anything else that is to run while the connection is served.
    pub fn wait<F: Future>(&self, call: F) -> F::Output {
        self.runtime.handle.block_on(call)
    }

    /// What the server said of itself.
    pub fn greeting(&self) -> Greeting {
        self.client.greeting()
    }

    /// Runs a command. `arguments` is the JSON text of an object.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn execute(&self, command: &str, arguments: Option<&[u8]>) -> Result<Document, ClientError> {
        self.wait(self.client.execute(command, arguments))
    }

    /// Runs a command and waits so long for its return value.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn execute_within(
        &self,
        command: &str,
        arguments: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<Document, ClientError> {
        self.wait(self.client.call(command, arguments, false, Some(timeout)))
    }

    /// All events from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            events: self.client.subscribe(),
            runtime: Arc::clone(&self.runtime),
        }
    }

    /// Watches a job from now on.
    pub fn job(&self, id: &str) -> Job {
        Job {
            job: self.client.job(id),
            runtime: Arc::clone(&self.runtime),
        }
    }
}

/// Events, fetched by waiting for them.
#[derive(Debug)]
pub struct Subscription {
    events: super::Subscription,
    runtime: Arc<Runtime>,
}

impl Subscription {
    /// The next event, if one comes in time.
    ///
    /// # Errors
    ///
    /// When no more events can come.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Incoming>, Arc<str>> {
        let next = async { tokio::time::timeout(timeout, self.events.next()).await };
        self.runtime.handle.block_on(next).ok().transpose()
    }
}

/// A job that is watched.
#[derive(Debug)]
pub struct Job {
    job: super::Job,
    runtime: Arc<Runtime>,
}

impl Job {
    /// See [`super::Job::wait`].
    ///
    /// # Errors
    ///
    /// See [`super::Job::wait`].
    pub fn wait(&mut self) -> Result<JobEnd, ClientError> {
        self.runtime.handle.block_on(self.job.wait())
    }

    /// See [`super::Job::completed`].
    ///
    /// # Errors
    ///
    /// See [`super::Job::completed`].
    pub fn completed(&mut self) -> Result<(), ClientError> {
        self.runtime.handle.block_on(self.job.completed())
    }

    /// See [`super::Job::progress`].
    pub fn progress(&mut self) -> Option<Progress> {
        self.runtime.handle.block_on(self.job.progress())
    }
}
