//! One client: greeting, negotiation, requests in order, replies and events out.
//!
//! A session is one future, polled on the monitor's thread. Commands that are ready at once are
//! answered within the same poll, many of them with one write; a command that waits keeps the ones
//! behind it waiting (but for those out of band), and then nothing more is read. Each turn does a bounded amount of
//! work and then lets the others run.

mod requests;

use crate::output::{Outbox, Sending};
use crate::peer::{Peer, SessionId};
use crate::scanner::Scanner;
use crate::server::{ListenOptions, Shared};
use requests::Requests;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a session talks over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One read takes at most so much.
const READ_BYTES: usize = 64 << 10;

/// Room for a message that a session keeps for its next one.
const KEEP_BYTES: usize = 64 << 10;
/// A turn ends after so many messages ...
const TURN_MESSAGES: usize = 128;
/// ... or so much output.
const TURN_OUTPUT_BYTES: usize = 64 << 10;
/// ... or so many reads.
const TURN_READS: usize = 2;
/// Unscanned input beyond this is given back once it is scanned.
const KEEP_INPUT_BYTES: usize = 4 << 10;

thread_local! {
    /// All sessions of a thread read into one buffer: an idle session holds none.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A client's session.
pub(crate) struct Session {
    stream: Box<dyn Stream>,
    scanner: Scanner,
    /// Bytes read but not scanned, from `scanned` on.
    input: Vec<u8>,
    scanned: usize,
    /// What the scanner holds, as far as the server's total knows.
    held: usize,
    requests: Requests,
    outbox: Arc<Outbox>,
    sending: Sending,
    /// The client will send nothing more.
    ended: bool,
    /// The client cannot be reached any more.
    lost: bool,
}

/// Why a turn's scanning stopped.
#[derive(Debug, PartialEq, Eq)]
enum Scanned {
    /// All input is scanned.
    All,
    /// The turn is over; there may be more.
    TurnOver,
    /// What is there has to be answered or sent first.
    Blocked,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: Box<dyn Stream>,
        peer: Peer,
        options: ListenOptions,
    ) -> Self {
        let id = SessionId(shared.next_session.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(
            shared.limits.event_backlog_bytes,
            options.policy,
            options.pretty,
            Arc::clone(&shared.unsent),
        ));
        tracing::info!(target: "qmp::session", session = %id, peer = %peer, "client connected");
        shared.hub.add(&outbox);
        outbox.write(|out| out.share(&shared.greeting));
        Session {
            stream,
            scanner: Scanner::new(shared.limits.message).keeping(KEEP_BYTES),
            input: Vec::new(),
            scanned: 0,
            held: 0,
            requests: Requests::new(shared, id, peer, options.policy, Arc::clone(&outbox)),
            outbox,
            sending: Sending::default(),
            ended: false,
            lost: false,
        }
    }

    /// Answers what is there.
    fn scan(&mut self) -> Scanned {
        let mut input = self.input.get(self.scanned..).unwrap_or_default();
        let before = input.len();
        let outcome = scan_turn(&mut self.scanner, &mut self.requests, &mut input);
        self.scanned += before - input.len();
        if self.scanned >= self.input.len() {
            self.scanned = 0;
            self.input.clear();
            self.input.shrink_to(KEEP_INPUT_BYTES);
        }
        outcome
    }

    /// Reads once and answers what came; what this turn cannot answer is kept.
    fn poll_read_and_scan(&mut self, cx: &mut Context<'_>) -> Poll<Scanned> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(target: "qmp::session", session = %self.requests.id(), %error, "reading failed");
                    self.ended = true;
                }
            }
            let mut input = buffer.filled();
            if input.is_empty() {
                self.ended = true;
                return Poll::Ready(Scanned::All);
            }
            let outcome = scan_turn(&mut self.scanner, &mut self.requests, &mut input);
            self.input.extend_from_slice(input);
            Poll::Ready(outcome)
        })
    }

    /// Sends as much as the client takes; `Ready` when everything is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.sending.is_empty() {
                self.outbox.take(&mut self.sending);
                if self.sending.is_empty() {
                    return Pin::new(&mut self.stream).poll_flush(cx);
                }
            }
            let mut slices = Sending::slots();
            let used = self.sending.slices(&mut slices);
            let slices = slices.get(..used).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sending.advance(written);
            self.outbox.sent(written);
        }
    }

    /// Keeps the sum of what unfinished messages hold over all sessions within bounds.
    fn account(&mut self) {
        let held = self.scanner.held_bytes() + self.requests.queued_bytes();
        if held == self.held {
            return;
        }
        let shared = self.requests.shared();
        let total = &shared.held_bytes;
        let sum = if held >= self.held {
            let more = held - self.held;
            total.fetch_add(more, Ordering::Relaxed).saturating_add(more)
        } else {
            total.fetch_sub(self.held - held, Ordering::Relaxed);
            0
        };
        self.held = held;
        if sum > shared.limits.total_input_bytes && held > shared.limits.assured_input_bytes {
            let queued = self.requests.queued_bytes();
            total.fetch_sub(held - queued, Ordering::Relaxed);
            self.held = queued;
            self.scanner.abandon();
            self.requests.refuse_message(&crate::scanner::SyntaxError::Size);
        }
    }

    /// One turn; `Ready` when the session is over.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut turn_over = false;
        let mut all_sent = false;
        for round in 0..TURN_READS {
            let mut progress = false;
            self.requests.poll(cx);
            if !self.lost && self.requests.ready_for_more() {
                let mut scanned = if self.input.is_empty() {
                    Scanned::All
                } else {
                    self.scan()
                };
                if scanned == Scanned::All && !self.ended && self.requests.ready_for_more() {
                    if let Poll::Ready(outcome) = self.poll_read_and_scan(cx) {
                        scanned = outcome;
                        // Only a read that finds nothing registers for more.
                        progress = !self.ended;
                    }
                    self.account();
                }
                turn_over |= scanned == Scanned::TurnOver || (progress && round + 1 == TURN_READS);
                // A command just started may have answered nothing yet: it has to learn of this task.
                self.requests.poll(cx);
            }
            if !self.lost {
                match self.poll_send(cx) {
                    Poll::Ready(Ok(())) => all_sent = true,
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(target: "qmp::session", session = %self.requests.id(), %error, "writing failed");
                        self.lost = true;
                    }
                    Poll::Pending => all_sent = false,
                }
            }
            if !progress || turn_over {
                break;
            }
        }
        let status = self.outbox.park(cx.waker());
        if status.overflowed && !self.lost {
            tracing::warn!(
                target: "qmp::session",
                session = %self.requests.id(),
                "client does not read what it is sent: closing its connection"
            );
            self.lost = true;
        }
        if self.lost {
            // A command that has begun is not cut short: it runs to its end, only its reply is lost.
            return if self.requests.is_idle() {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        }
        let no_more_requests = self.ended && self.input.is_empty() || status.finishing;
        if all_sent && no_more_requests && self.requests.is_idle() && !status.queued {
            return Poll::Ready(());
        }
        if turn_over
            || (all_sent && status.queued)
            || (self.requests.ready_for_more() && !self.input.is_empty())
        {
            yield_turn(cx);
        }
        Poll::Pending
    }
}

/// Scans and answers until the input or the turn ends.
fn scan_turn(scanner: &mut Scanner, requests: &mut Requests, input: &mut &[u8]) -> Scanned {
    for _ in 0..TURN_MESSAGES {
        if !requests.ready_for_more() {
            return Scanned::Blocked;
        }
        let unsent = match scanner.next(input) {
            None => return Scanned::All,
            Some(Ok(document)) => requests.take(document),
            Some(Err(error)) => requests.refuse_message(&error),
        };
        if unsent > TURN_OUTPUT_BYTES {
            return Scanned::TurnOver;
        }
    }
    Scanned::TurnOver
}

/// Has the task polled again after the others and after a look at the sockets.
fn yield_turn(cx: &mut Context<'_>) {
    let mut yielded = std::pin::pin!(tokio::task::yield_now());
    // The first poll asks for a wake-up once the runtime has looked around.
    if yielded.as_mut().poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().poll_turn(cx)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let shared = self.requests.shared();
        shared.held_bytes.fetch_sub(self.held, Ordering::Relaxed);
        shared.hub.remove(&self.outbox);
        shared.session_ended();
        tracing::info!(target: "qmp::session", session = %self.requests.id(), "client gone");
    }
}
