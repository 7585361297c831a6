//! Events: from wherever something happened to every session that wants to know.
//!
//! [`EventHub::emit`] is synchronous and never waits: it encodes the event once, stamps it, and
//! appends it to each session's output. All sessions see all events in one order, and an event
//! emitted before a command's handler returns is sent before the command's reply.

use crate::encode::Writer;
use crate::output::Outbox;
use crate::policy::{Policy, Special};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Something that happened, ready to be told; the generated event types implement it.
pub trait Event {
    /// The event's name on the wire.
    fn name(&self) -> &'static str;

    /// Whether it is deprecated or unstable.
    fn special(&self) -> Special {
        Special::NONE
    }

    /// Appends the `data` object; nothing for an event without data.
    fn encode_data(&self, out: &mut Writer);
}

/// Tells events to all sessions.
#[derive(Debug, Default)]
pub struct EventHub {
    state: Mutex<State>,
    /// A held-back event has a new deadline.
    held: Notify,
}

#[derive(Debug, Default)]
struct State {
    sessions: Vec<Arc<Outbox>>,
    limits: HashMap<&'static str, RateLimit>,
    throttled: HashMap<(&'static str, String), Throttled>,
}

/// How often an event may be told.
#[derive(Debug, Clone, Copy)]
struct RateLimit {
    period: Duration,
    /// The data member by which events of this name are told apart.
    key: Option<&'static str>,
}

#[derive(Debug)]
struct Throttled {
    /// Until then only the latest is kept.
    until: Instant,
    held: Option<Message>,
}

impl EventHub {
    /// A hub without sessions.
    pub fn new() -> Self {
        EventHub::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event at most once a `period` (for each value of the data member `key`, if given): the
    /// first at once, of those that come too early only the last, when the period is over.
    pub fn limit_rate(&self, event: &'static str, period: Duration, key: Option<&'static str>) {
        self.lock().limits.insert(event, RateLimit { period, key });
    }

    /// Tells an event to every session that has negotiated and whose policy does not hide it.
    pub fn emit(&self, event: &impl Event) {
        let name = event.name();
        let encode = |policy: Policy| {
            let mut data = Writer::new(policy);
            event.encode_data(&mut data);
            data.into_bytes()
        };
        let data = encode(Policy::default());
        tracing::debug!(target: "qmp::event", event = name, data = %String::from_utf8_lossy(&data));
        let head = head(name);
        let mut message = Message {
            plain: message(&head, &data),
            others: Vec::new(),
        };
        let mut state = self.lock();
        for session in &state.sessions {
            let policy = session.policy();
            if policy != Policy::default() && !message.others.iter().any(|(known, _)| *known == policy) {
                let shown = !policy.hides(event.special());
                let other = shown.then(|| self::message(&head, &encode(policy)));
                message.others.push((policy, other));
            }
        }
        if let Some(limit) = state.limits.get(name).copied() {
            let key = limit.key.map(|key| member_text(&data, key)).unwrap_or_default();
            let now = Instant::now();
            let slot = state.throttled.entry((name, key));
            let throttled = slot.or_insert(Throttled {
                until: now,
                held: None,
            });
            if now < throttled.until {
                throttled.held = Some(message);
                drop(state);
                self.held.notify_one();
                return;
            }
            throttled.until = now + limit.period;
        }
        for session in &state.sessions {
            message.tell(session);
        }
    }

    /// Tells held-back events when their time comes; runs as long as the server does.
    pub(crate) async fn run(&self) {
        loop {
            match self.release() {
                Some(next) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => {}
                        () = self.held.notified() => {}
                    }
                }
                None => self.held.notified().await,
            }
        }
    }

    /// Tells what is due; says when the next one is.
    fn release(&self) -> Option<Instant> {
        let mut state = self.lock();
        let State {
            sessions,
            limits,
            throttled,
        } = &mut *state;
        let now = Instant::now();
        for ((name, _), entry) in throttled.iter_mut() {
            if now >= entry.until
                && let Some(message) = entry.held.take()
            {
                entry.until = now + limits.get(name).map_or(Duration::ZERO, |limit| limit.period);
                for session in sessions.iter() {
                    message.tell(session);
                }
            }
        }
        throttled.retain(|_, entry| now < entry.until);
        throttled
            .values()
            .filter(|entry| entry.held.is_some())
            .map(|entry| entry.until)
            .min()
    }

    /// Adds a session; it gets events once it has subscribed.
    pub(crate) fn add(&self, session: &Arc<Outbox>) {
        self.lock().sessions.push(Arc::clone(session));
    }

    /// Asks every session to send what it has and to end.
    pub(crate) fn finish_all(&self) {
        for session in &self.lock().sessions {
            session.finish();
        }
    }

    pub(crate) fn remove(&self, session: &Arc<Outbox>) {
        let mut state = self.lock();
        if let Some(at) = state
            .sessions
            .iter()
            .position(|other| Arc::ptr_eq(other, session))
        {
            state.sessions.swap_remove(at);
        }
    }
}

/// An event, ready for every session.
#[derive(Debug)]
struct Message {
    /// For sessions with the usual policy.
    plain: Bytes,
    /// For each other policy in use; nothing when it hides the event.
    others: Vec<(Policy, Option<Bytes>)>,
}

impl Message {
    fn tell(&self, session: &Outbox) {
        let policy = session.policy();
        if policy == Policy::default() {
            session.event(&self.plain);
        } else if let Some((_, Some(message))) = self.others.iter().find(|(other, _)| *other == policy) {
            session.event(message);
        }
    }
}

/// The beginning of the message of an event that happens now.
fn head(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut head = String::with_capacity(96);
    // Writing to a string cannot fail.
    let _ = write!(
        head,
        "{{\"timestamp\": {{\"seconds\": {}, \"microseconds\": {}}}, \"event\": \"{name}\"",
        now.as_secs(),
        now.subsec_micros()
    );
    head
}

fn message(head: &str, data: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(head.len() + data.len() + 16);
    message.extend_from_slice(head.as_bytes());
    if !data.is_empty() {
        message.extend_from_slice(b", \"data\": ");
        message.extend_from_slice(data);
    }
    message.extend_from_slice(b"}\r\n");
    Bytes::from(message)
}

/// A member of encoded data, as text.
fn member_text(data: &[u8], key: &str) -> String {
    let mut scanner = crate::scanner::Scanner::default();
    let mut input = data;
    match scanner.next(&mut input) {
        Some(Ok(document)) => document
            .root()
            .and_then(|root| root.members().find(|(name, _)| *name == key))
            .map(|(_, value)| {
                value
                    .as_str()
                    .map_or_else(|| format!("{:?}", value.token()), str::to_owned)
            })
            .unwrap_or_default(),
        _ => String::new(),
    }
}
