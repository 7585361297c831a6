//! What a session still has to send: filled by its own replies and, from any thread, by events.
//!
//! Replies and events share one queue, so a client sees them in the order in which they happened.
//! The queue is bounded: the session stops taking requests while much is unsent, and a client that
//! lets events pile up beyond the limit is given up (see `docs/qmp.md`).

use crate::policy::Policy;
use crate::pretty;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Shared pieces below this are copied: one buffer is cheaper to write than many.
const COPY_BYTES: usize = 4096;
/// With so much unsent the client is behind: events are then shared among sessions, not copied.
const BEHIND_BYTES: usize = 16 << 10;
/// A buffer that grew beyond this is given back once it is sent.
const KEEP_BYTES: usize = 16 << 10;
/// Pieces for one vectored write.
const MAX_SLICES: usize = 16;

/// What the queues of all sessions hold together.
#[derive(Debug, Default)]
pub(crate) struct Total {
    unsent: AtomicUsize,
    /// Beyond this a session that holds more than `assured` is given up.
    limit: usize,
    assured: usize,
}

impl Total {
    pub(crate) fn new(limit: usize, assured: usize) -> Self {
        Total {
            unsent: AtomicUsize::new(0),
            limit,
            assured,
        }
    }
}

/// A session's queue of output.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    policy: Policy,
    /// Messages are laid out for people.
    pretty: bool,
    total: Arc<Total>,
}

#[derive(Debug, Default)]
struct State {
    /// Full pieces, then the buffer that is being filled.
    pieces: VecDeque<Piece>,
    tail: Vec<u8>,
    /// Bytes in here and bytes taken but not yet sent.
    unsent: usize,
    /// Events are taken up to so many unsent bytes.
    event_limit: usize,
    /// The session has negotiated and wants events.
    subscribed: bool,
    /// Too much was unsent: the client missed an event, or took more than its share.
    overflowed: bool,
    /// The session is to send what there is and to end.
    finishing: bool,
    /// To be woken when an event comes.
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Piece {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

impl State {
    /// All that is queued.
    fn into_bytes(self) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in &self.pieces {
            text.extend_from_slice(piece.bytes());
        }
        text.extend_from_slice(&self.tail);
        text
    }

    /// Appends messages, laid out for people.
    fn lay_out(&mut self, text: &[u8]) {
        let before = self.tail.len();
        pretty::write(&mut self.tail, text);
        self.unsent += self.tail.len() - before;
    }

    fn share(&mut self, bytes: &Bytes) {
        if bytes.len() < COPY_BYTES && self.unsent < BEHIND_BYTES {
            self.tail.extend_from_slice(bytes);
        } else {
            if !self.tail.is_empty() {
                let full = std::mem::take(&mut self.tail);
                self.pieces.push_back(Piece::Owned(full));
            }
            self.pieces.push_back(Piece::Shared(bytes.clone()));
        }
        self.unsent += bytes.len();
    }
}

impl Outbox {
    pub(crate) fn new(event_limit: usize, policy: Policy, pretty: bool, total: Arc<Total>) -> Self {
        Outbox {
            state: Mutex::new(State {
                event_limit,
                ..State::default()
            }),
            policy,
            pretty,
            total,
        }
    }

    /// What the session thinks of deprecated and unstable output.
    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Nothing in here panics half-way, so a poisoned lock holds a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the output what `write` appends; says how much is unsent.
    pub(crate) fn write(&self, write: impl FnOnce(&mut Writer<'_>)) -> usize {
        let mut state = self.lock();
        let before = state.unsent;
        if self.pretty {
            let mut plain = State::default();
            write(&mut Writer {
                counted: 0,
                state: &mut plain,
            });
            state.lay_out(&plain.into_bytes());
        } else {
            let mut writer = Writer {
                counted: state.tail.len(),
                state: &mut state,
            };
            write(&mut writer);
            writer.count();
        }
        self.add_to_total(&mut state, before);
        state.unsent
    }

    /// Counts what was added; a session that holds much while all together hold too much is given up.
    fn add_to_total(&self, state: &mut State, before: usize) {
        let added = state.unsent.saturating_sub(before);
        let sum = self
            .total
            .unsent
            .fetch_add(added, Ordering::Relaxed)
            .saturating_add(added);
        if sum > self.total.limit && state.unsent > self.total.assured {
            state.overflowed = true;
        }
    }

    /// Adds an event, unless the session does not want any; from any thread.
    pub(crate) fn event(&self, message: &Bytes) {
        let mut state = self.lock();
        if !state.subscribed || state.overflowed {
            return;
        }
        if state.unsent + message.len() > state.event_limit {
            state.overflowed = true;
        } else {
            let before = state.unsent;
            if self.pretty {
                state.lay_out(message);
            } else {
                state.share(message);
            }
            self.add_to_total(&mut state, before);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// From now on events are wanted.
    pub(crate) fn subscribe(&self) {
        self.lock().subscribed = true;
    }

    /// Has the task woken when there is something to send or the session is to end.
    pub(crate) fn park(&self, waker: &Waker) -> Status {
        let mut state = self.lock();
        match &mut state.waker {
            Some(current) if current.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        }
        Status {
            queued: !state.tail.is_empty() || !state.pieces.is_empty(),
            overflowed: state.overflowed,
            finishing: state.finishing,
        }
    }

    /// Asks the session to send what it has and to end.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.finishing = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves everything queued to `sending`, which is empty.
    pub(crate) fn take(&self, sending: &mut Sending) {
        let mut state = self.lock();
        std::mem::swap(&mut sending.pieces, &mut state.pieces);
        std::mem::swap(&mut sending.tail, &mut state.tail);
    }

    /// So many bytes are sent.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut state = self.lock();
        state.unsent = state.unsent.saturating_sub(bytes);
        self.total.unsent.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn unsent(&self) -> usize {
        self.lock().unsent
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let unsent = self.lock().unsent;
        self.total.unsent.fetch_sub(unsent, Ordering::Relaxed);
    }
}

/// What a session has to know before it waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    /// There is output that is not taken yet.
    pub(crate) queued: bool,
    /// The client did not read, and is given up.
    pub(crate) overflowed: bool,
    /// The session is to end.
    pub(crate) finishing: bool,
}

/// Appends to a session's output.
pub(crate) struct Writer<'a> {
    state: &'a mut State,
    /// So many bytes of the tail are in `unsent`.
    counted: usize,
}

impl Writer<'_> {
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.state.tail
    }

    /// Appends bytes made beforehand, without a copy when they are many.
    pub(crate) fn share(&mut self, bytes: &Bytes) {
        self.count();
        self.state.share(bytes);
        self.counted = self.state.tail.len();
    }

    fn count(&mut self) {
        self.state.unsent += self.state.tail.len().saturating_sub(self.counted);
        self.counted = self.state.tail.len();
    }
}

/// Output that a session is sending.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    pieces: VecDeque<Piece>,
    tail: Vec<u8>,
    /// Bytes of the first piece (or the tail) that are sent.
    done: usize,
}

impl Sending {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    /// The next pieces to write; how many of `slices` are used.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let mut used = 0;
        let mut skip = self.done;
        let tail = std::iter::once(self.tail.as_slice());
        for (slot, bytes) in slices
            .iter_mut()
            .zip(self.pieces.iter().map(Piece::bytes).chain(tail))
        {
            *slot = IoSlice::new(bytes.get(skip..).unwrap_or_default());
            skip = 0;
            used += 1;
        }
        used
    }

    /// So many bytes more are written.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.done += bytes;
        while let Some(piece) = self.pieces.front() {
            let len = piece.bytes().len();
            if self.done < len {
                return;
            }
            self.done -= len;
            self.pieces.pop_front();
        }
        if self.done >= self.tail.len() {
            self.done = 0;
            self.tail.clear();
            self.tail.shrink_to(KEEP_BYTES);
            self.pieces.shrink_to(MAX_SLICES);
        }
    }

    pub(crate) fn slots<'a>() -> [IoSlice<'a>; MAX_SLICES] {
        [IoSlice::new(&[]); MAX_SLICES]
    }
}
