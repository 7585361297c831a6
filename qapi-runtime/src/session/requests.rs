//! A session's requests: in band one after the other, out of band at once, one reply each.

use crate::call::Call;
use crate::dispatch::{Pending, Reply};
use crate::document::{Cursor, Document};
use crate::error::{Error, ErrorClass};
use crate::output::{Outbox, Writer};
use crate::peer::{Peer, SessionId};
use crate::policy::Policy;
use crate::request::{Refused, Request};
use crate::scanner::SyntaxError;
use crate::server::Shared;
use crate::service::{self, Capabilities, Command, Target};
use crate::text;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What waits behind a running command.
#[derive(Debug)]
enum Queued {
    Message(Document),
    Refusal(Error),
}

/// A command that did not answer at once.
struct Running {
    future: Pending,
    /// The id as JSON text.
    id: Option<Vec<u8>>,
    watched: Watched,
}

/// What is told of a command to logs, and when it began.
struct Watched {
    command: &'static str,
    success_response: bool,
    oob: bool,
    begun: Option<Instant>,
    span: tracing::Span,
    /// The arguments as the audit log shows them.
    arguments: Option<Vec<u8>>,
}

/// A request's id, for its reply.
#[derive(Clone, Copy)]
enum Id<'a> {
    Scanned(Option<Cursor<'a>>),
    Text(Option<&'a [u8]>),
}

impl Id<'_> {
    fn is_some(self) -> bool {
        match self {
            Id::Scanned(id) => id.is_some(),
            Id::Text(id) => id.is_some(),
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        match self {
            Id::Scanned(Some(id)) => text::write_value(out, id),
            Id::Text(Some(id)) => out.extend_from_slice(id),
            Id::Scanned(None) | Id::Text(None) => {}
        }
    }
}

pub(crate) struct Requests {
    shared: Arc<Shared>,
    id: SessionId,
    peer: Arc<Peer>,
    policy: Policy,
    outbox: Arc<Outbox>,
    negotiated: Option<Capabilities>,
    running: Option<Running>,
    queue: VecDeque<Queued>,
    /// Bytes of the messages in the queue.
    queued_bytes: usize,
    running_oob: Vec<Running>,
    /// What the outbox holds unsent, as of the last reply.
    unsent: usize,
}

impl Requests {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: SessionId,
        peer: Peer,
        policy: Policy,
        outbox: Arc<Outbox>,
    ) -> Self {
        Requests {
            shared,
            id,
            peer: Arc::new(peer),
            policy,
            outbox,
            negotiated: None,
            running: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            running_oob: Vec::new(),
            unsent: 0,
        }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Bytes of the messages that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// No request is being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none() && self.running_oob.is_empty() && self.queue.is_empty()
    }

    /// Another message can be taken: there is room for it and for its reply.
    pub(crate) fn ready_for_more(&mut self) -> bool {
        if self.shared.stop.is_requested() {
            return false;
        }
        if self.unsent > self.shared.limits.unsent_reply_bytes {
            self.unsent = self.outbox.unsent();
            if self.unsent > self.shared.limits.unsent_reply_bytes {
                return false;
            }
        }
        let oob = self.negotiated.is_some_and(|capabilities| capabilities.oob);
        if oob {
            let limit = self.shared.limits.queued_requests;
            self.queue.len() < limit
                && self.queued_bytes < self.shared.limits.queued_bytes
                && self.running_oob.len() < limit
        } else {
            self.running.is_none()
        }
    }

    /// Takes a message; says how much output is unsent.
    pub(crate) fn take(&mut self, message: &Document) -> usize {
        let Some(root) = message.root() else {
            return self.unsent;
        };
        let oob = self.negotiated.is_some_and(|capabilities| capabilities.oob);
        if !oob {
            self.execute_message(root);
            return self.unsent;
        }
        match Request::read(root, true) {
            Ok(request) if request.oob => self.execute(&request),
            _ if self.running.is_some() || !self.queue.is_empty() => {
                let message = root.to_document();
                self.queued_bytes += message.held_bytes();
                self.queue.push_back(Queued::Message(message));
            }
            _ => self.execute_message(root),
        }
        self.unsent
    }

    /// Answers a message that cannot be read.
    pub(crate) fn refuse_message(&mut self, error: &SyntaxError) -> usize {
        let error = Error::generic(error.to_string());
        if self.running.is_some() || !self.queue.is_empty() {
            self.queue.push_back(Queued::Refusal(error));
        } else {
            self.refuse(Id::Text(None), &error);
        }
        self.unsent
    }

    /// Goes on with commands that wait, and with those behind them.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        let mut at = 0;
        while let Some(running) = self.running_oob.get_mut(at) {
            match poll_running(running, cx) {
                Poll::Ready(outcome) => {
                    let running = self.running_oob.swap_remove(at);
                    self.answer(Id::Text(running.id.as_deref()), &running.watched, outcome);
                }
                Poll::Pending => at += 1,
            }
        }
        loop {
            if let Some(running) = &mut self.running {
                let Poll::Ready(outcome) = poll_running(running, cx) else {
                    return;
                };
                if let Some(running) = self.running.take() {
                    self.answer(Id::Text(running.id.as_deref()), &running.watched, outcome);
                }
            }
            if self.shared.stop.is_requested() {
                self.queue.clear();
                self.queued_bytes = 0;
            }
            match self.queue.pop_front() {
                None => return,
                Some(Queued::Refusal(error)) => self.refuse(Id::Text(None), &error),
                Some(Queued::Message(message)) => {
                    self.queued_bytes = self.queued_bytes.saturating_sub(message.held_bytes());
                    if let Some(root) = message.root() {
                        self.execute_message(root);
                    }
                }
            }
        }
    }

    fn execute_message(&mut self, root: Cursor<'_>) {
        let oob = self.negotiated.is_some_and(|capabilities| capabilities.oob);
        match Request::read(root, oob) {
            Ok(request) => self.execute(&request),
            Err(Refused { id, error }) => self.refuse(Id::Scanned(id), &error),
        }
    }

    fn execute(&mut self, request: &Request<'_>) {
        let id = Id::Scanned(request.id);
        let command = match self.find(request) {
            Ok(command) => command,
            Err(error) => {
                self.log_refusal(request, &error);
                return self.refuse(id, &error);
            }
        };
        let watched = self.watch(command, request);
        let outcome = match command.target {
            Target::Row(row) => match self.start(row, command, request, &watched) {
                Ok(mut future) => {
                    match poll_contained(
                        &mut future,
                        command.name,
                        &watched.span,
                        &mut Context::from_waker(Waker::noop()),
                    ) {
                        Poll::Ready(outcome) => outcome,
                        Poll::Pending => return self.keep_running(future, request, watched),
                    }
                }
                Err(error) => Err(error),
            },
            Target::Commands => service::no_arguments(request.arguments).map(|()| {
                let mut names = Vec::with_capacity(4096);
                self.shared.service.write_names(&mut names);
                Reply::Encoded(names)
            }),
            Target::Schema => service::no_arguments(request.arguments)
                .map(|()| Reply::Shared(self.shared.introspection(self.policy))),
            Target::Capabilities => self.negotiate(request.arguments),
        };
        let negotiated = command.target == Target::Capabilities && outcome.is_ok();
        self.answer(id, &watched, outcome);
        if negotiated {
            // Only now: the reply that ends the negotiation comes before the first event.
            self.outbox.subscribe();
        }
    }

    fn find(&self, request: &Request<'_>) -> Result<Command, Error> {
        let name = request.command;
        let command = self.shared.service.find(name);
        if self.negotiated.is_none() && !command.is_some_and(|command| command.target == Target::Capabilities)
        {
            let desc = "Expecting capabilities negotiation with 'qmp_capabilities'";
            return Err(Error::new(ErrorClass::CommandNotFound, desc));
        }
        let Some(command) = command else {
            let desc = format!("The command {name} has not been found");
            return Err(Error::new(ErrorClass::CommandNotFound, desc));
        };
        self.policy.check_command(name, command.flags.special())?;
        if request.oob && !command.flags.allow_oob {
            return Err(Error::generic(format!("The command {name} does not support OOB")));
        }
        let too_early = self
            .shared
            .preconfig
            .as_ref()
            .is_some_and(|preconfig| !preconfig.has_ended());
        // What every server answers itself does not depend on anything that is set up.
        if too_early && matches!(command.target, Target::Row(_)) && !command.flags.allow_preconfig {
            return Err(Error::generic(format!(
                "The command '{name}' is permitted only after machine initialization has completed"
            )));
        }
        Ok(command)
    }

    fn negotiate(&mut self, arguments: Option<Cursor<'_>>) -> Result<Reply, Error> {
        let wanted = Capabilities::decode(arguments)?;
        if self.negotiated.is_some() {
            let desc = "Capabilities negotiation is already complete, command ignored";
            return Err(Error::new(ErrorClass::CommandNotFound, desc));
        }
        self.negotiated = Some(wanted);
        Ok(Reply::Encoded(b"{}".to_vec()))
    }

    fn start(
        &self,
        row: usize,
        command: Command,
        request: &Request<'_>,
        watched: &Watched,
    ) -> Result<Pending, Error> {
        let call = Call {
            command: command.name,
            session: self.id,
            peer: Arc::clone(&self.peer),
            oob: request.oob,
            policy: self.policy,
        };
        let _entered = watched.span.enter();
        let start = AssertUnwindSafe(|| self.shared.service.start(row, call, request.arguments));
        catch_unwind(start).unwrap_or_else(|panic| Err(panicked(command.name, panic.as_ref())))
    }

    /// Keeps a command that did not answer at once; the next [`Requests::poll`] tells it whom to wake.
    fn keep_running(&mut self, future: Pending, request: &Request<'_>, watched: Watched) {
        let id = request.id.map(|id| {
            let mut text = Vec::new();
            text::write_value(&mut text, id);
            text
        });
        let running = Running { future, id, watched };
        if running.watched.oob {
            self.running_oob.push(running);
        } else {
            self.running = Some(running);
        }
    }

    fn watch(&self, command: Command, request: &Request<'_>) -> Watched {
        let span = tracing::debug_span!(
            target: "qmp::command",
            "command",
            name = command.name,
            session = self.id.0,
            oob = request.oob
        );
        let audit = self.shared.audit.as_ref();
        Watched {
            command: command.name,
            success_response: command.flags.success_response,
            oob: request.oob,
            begun: (audit.is_some() || !span.is_disabled()).then(Instant::now),
            arguments: audit.and(request.arguments).map(crate::audit::redacted),
            span,
        }
    }

    fn log_refusal(&self, request: &Request<'_>, error: &Error) {
        tracing::debug!(
            target: "qmp::command",
            name = request.command,
            session = self.id.0,
            class = error.class.as_str(),
            "refused"
        );
        if let Some(audit) = &self.shared.audit {
            let arguments = request.arguments.map(crate::audit::redacted);
            audit.record(
                self.id,
                &self.peer,
                request.command,
                arguments.as_deref(),
                None,
                Err(error),
            );
        }
    }

    /// Says how a command ended to the client, the log and the audit.
    fn answer(&mut self, id: Id<'_>, watched: &Watched, outcome: Result<Reply, Error>) {
        if let Some(begun) = watched.begun {
            let duration = begun.elapsed();
            let _entered = watched.span.enter();
            let result = outcome.as_ref().map(|_| ());
            match result {
                Ok(()) => tracing::debug!(target: "qmp::command", ?duration, "done"),
                Err(error) => {
                    tracing::debug!(target: "qmp::command", ?duration, class = error.class.as_str(), desc = %error, "failed");
                }
            }
            if let Some(audit) = &self.shared.audit {
                let arguments = watched.arguments.as_deref();
                audit.record(
                    self.id,
                    &self.peer,
                    watched.command,
                    arguments,
                    Some(duration),
                    result,
                );
            }
        }
        match outcome {
            Ok(_) if !watched.success_response => {}
            Ok(reply) => self.reply(id, &reply),
            Err(error) => self.refuse(id, &error),
        }
    }

    fn reply(&mut self, id: Id<'_>, reply: &Reply) {
        self.unsent = self.outbox.write(|out: &mut Writer<'_>| {
            out.buffer().extend_from_slice(b"{\"return\": ");
            match reply {
                Reply::Encoded(value) => out.buffer().extend_from_slice(value),
                Reply::Shared(value) => out.share(value),
            }
            if id.is_some() {
                out.buffer().extend_from_slice(b", \"id\": ");
                id.write(out.buffer());
            }
            out.buffer().extend_from_slice(b"}\r\n");
        });
    }

    fn refuse(&mut self, id: Id<'_>, error: &Error) {
        self.unsent = self.outbox.write(|out: &mut Writer<'_>| {
            let out = out.buffer();
            out.push(b'{');
            if id.is_some() {
                out.extend_from_slice(b"\"id\": ");
                id.write(out);
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(b"\"error\": {\"class\": \"");
            out.extend_from_slice(error.class.as_str().as_bytes());
            out.extend_from_slice(b"\", \"desc\": ");
            text::write_string(out, shortened(&error.desc));
            out.extend_from_slice(b"}}\r\n");
        });
    }
}

/// An error's text may quote what the client sent; it is cut off when it is longer than any text is worth.
fn shortened(desc: &str) -> &str {
    let mut end = desc.len().min(DESC_BYTES);
    while !desc.is_char_boundary(end) {
        end -= 1;
    }
    desc.get(..end).unwrap_or(desc)
}

/// Bytes of an error's text.
const DESC_BYTES: usize = 256 << 10;

fn poll_running(running: &mut Running, cx: &mut Context<'_>) -> Poll<Result<Reply, Error>> {
    poll_contained(
        &mut running.future,
        running.watched.command,
        &running.watched.span,
        cx,
    )
}

/// Polls a handler; a panic in it becomes an error of its command and of nothing else.
fn poll_contained(
    future: &mut Pending,
    command: &'static str,
    span: &tracing::Span,
    cx: &mut Context<'_>,
) -> Poll<Result<Reply, Error>> {
    let _entered = span.enter();
    match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(panicked(command, panic.as_ref()))),
    }
}

fn panicked(command: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(target: "qmp::command", command, panic = text, "handler panicked");
    Error::generic(format!("The command {command} failed on an internal error"))
}
