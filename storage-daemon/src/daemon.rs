//! What all command handlers share.

use std::future::Future;
use std::sync::{Arc, Weak};

use block_core::event::EventSink;
use block_core::graph::{Graph, GraphContext};
use block_core::job::JobManager;
use qapi_runtime::{Error, EventHub, Stop};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::convert::events::QmpEvents;
use crate::exports::{Exports, ObjectCredentials};
use crate::objects::Objects;
use crate::passed::Passed;

/// The daemon: everything that commands act on.
pub struct Daemon {
    /// The block nodes.
    pub graph: Arc<Graph>,
    /// The jobs.
    pub jobs: Arc<JobManager>,
    /// Exports and NBD servers.
    pub exports: Arc<Exports>,
    /// Objects by id.
    pub objects: Arc<Objects>,
    /// Sockets that the process was started with.
    pub passed: Passed,
    /// Ends the program.
    stop: Stop,
    /// Everything is closed.
    closed: watch::Sender<bool>,
    /// The runtime that block I/O, jobs and exports live on.
    data: Handle,
    /// This daemon, for work that outlives the call it was started by.
    this: Weak<Daemon>,
}

impl Daemon {
    /// A daemon without nodes. `data` is the runtime for block I/O.
    pub fn new(data: Handle, events: Arc<EventHub>, stop: Stop, passed: Passed) -> Arc<Self> {
        let sink: Arc<dyn EventSink> = Arc::new(QmpEvents(events));
        let graph = Graph::new(GraphContext {
            handle: data.clone(),
            events: sink,
        });
        let jobs = JobManager::new(&graph);
        let objects = Arc::<Objects>::default();
        graph.set_tls_clients(Arc::new(ObjectCredentials(Arc::clone(&objects))));
        graph.set_descriptions(Arc::new(crate::convert::options::JsonNames));
        Arc::new_cyclic(|this| Self {
            exports: Exports::new(Arc::clone(&graph), data.clone()),
            objects,
            passed,
            graph,
            jobs,
            stop,
            closed: watch::Sender::new(false),
            data,
            this: this.clone(),
        })
    }

    /// The daemon, shared.
    pub fn shared(&self) -> Result<Arc<Self>, Error> {
        self.this
            .upgrade()
            .ok_or_else(|| Error::generic("The daemon is ending"))
    }

    /// Asks the program to end, as `quit` and the signals do.
    pub fn request_shutdown(&self) {
        self.stop.request();
    }

    /// Waits until [`close`](Self::close) has closed everything and all of it has been told.
    pub async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        // The sender is part of this daemon and so outlives the wait.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Runs block layer work where it belongs, so that the loop that serves QMP clients never waits for it.
    ///
    /// A panic in there becomes an error of this one command. The work goes on when the caller is dropped.
    pub async fn on_data<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.data.spawn(work).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a command's work has ended without a result");
                Err(Error::generic(
                    "Internal error: the operation has ended without a result",
                ))
            }
        }
    }

    /// Closes everything in order: exports and their servers, jobs, then the nodes. Harmless when repeated.
    pub async fn close(&self) {
        let (exports, jobs, graph) = (
            Arc::clone(&self.exports),
            Arc::clone(&self.jobs),
            Arc::clone(&self.graph),
        );
        let closed = self
            .on_data(async move {
                graph.lift_limits();
                exports.close_all().await;
                jobs.shutdown().await;
                graph.close_all().await;
                Ok(())
            })
            .await;
        if let Err(error) = closed {
            tracing::error!(%error, "cannot close everything");
        }
        self.closed.send_replace(true);
    }
}
