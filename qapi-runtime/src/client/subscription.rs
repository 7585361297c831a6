//! Who wants which events, and what has come for them.

use super::member;
use crate::document::{Cursor, Document};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Events that a subscription keeps for whoever does not fetch them.
const KEPT_EVENTS: usize = 64 << 10;

/// An event that a server told.
#[derive(Debug, Clone)]
pub struct ClientEvent {
    /// Its name.
    pub name: Arc<str>,
    /// Seconds and microseconds of the server's clock.
    pub timestamp: (i64, i64),
    message: Arc<Document>,
}

impl ClientEvent {
    pub(super) fn new(name: &str, timestamp: (i64, i64), message: Document) -> Self {
        ClientEvent {
            name: name.into(),
            timestamp,
            message: Arc::new(message),
        }
    }

    /// What the event says, if anything.
    pub fn data(&self) -> Option<Cursor<'_>> {
        member(self.message.root()?, "data")
    }

    /// A member of its data that is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        member(self.data()?, name)?.as_str()
    }
}

/// What a subscription brings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Incoming {
    /// An event.
    Event(ClientEvent),
    /// Events may be missing here: the connection was made anew, or too many were not fetched.
    Gap,
}

/// The events that somebody wanted, in order.
pub struct Subscription {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<QueueState>,
    arrived: Notify,
}

#[derive(Default)]
struct QueueState {
    items: VecDeque<Incoming>,
    /// No more will come.
    ended: Option<Arc<str>>,
    /// The subscription is dropped.
    unwanted: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: Incoming) {
        let mut state = self.lock();
        if state.items.len() >= KEPT_EVENTS {
            state.items.clear();
            state.items.push_back(Incoming::Gap);
        }
        state.items.push_back(item);
        drop(state);
        self.arrived.notify_one();
    }
}

impl Subscription {
    /// The next event. `Err`: the connection is lost for good, and why.
    ///
    /// Dropping the future loses no event.
    ///
    /// # Errors
    ///
    /// When no more events can come.
    pub async fn next(&mut self) -> Result<Incoming, Arc<str>> {
        loop {
            {
                let mut state = self.queue.lock();
                if let Some(item) = state.items.pop_front() {
                    return Ok(item);
                }
                if let Some(reason) = &state.ended {
                    return Err(Arc::clone(reason));
                }
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next event that is there already.
    pub fn try_next(&mut self) -> Option<Incoming> {
        self.queue.lock().items.pop_front()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.unwanted = true;
        state.items.clear();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("waiting", &self.queue.lock().items.len())
            .finish()
    }
}

type Wanted = Box<dyn Fn(&ClientEvent) -> bool + Send>;

/// All subscriptions of a client.
#[derive(Default)]
pub(super) struct Subscribers {
    list: Vec<(Wanted, Arc<Queue>)>,
    ended: Option<Arc<str>>,
}

impl Subscribers {
    pub(super) fn add(&mut self, wanted: Wanted) -> Subscription {
        let state = QueueState {
            ended: self.ended.clone(),
            ..QueueState::default()
        };
        let queue = Arc::new(Queue {
            state: Mutex::new(state),
            arrived: Notify::new(),
        });
        self.list.push((wanted, Arc::clone(&queue)));
        Subscription { queue }
    }

    pub(super) fn tell(&mut self, event: &ClientEvent) {
        self.list.retain(|(_, queue)| !queue.lock().unwanted);
        for (wanted, queue) in &self.list {
            if wanted(event) {
                queue.push(Incoming::Event(event.clone()));
            }
        }
    }

    pub(super) fn gap(&mut self) {
        for (_, queue) in &self.list {
            queue.push(Incoming::Gap);
        }
    }

    pub(super) fn end(&mut self, reason: &Arc<str>) {
        self.ended = Some(Arc::clone(reason));
        for (_, queue) in &self.list {
            queue.lock().ended = Some(Arc::clone(reason));
            queue.arrived.notify_one();
        }
    }
}
