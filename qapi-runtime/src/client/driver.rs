//! The task that owns a client's connection: greets, sends, receives, and makes it anew.

use super::{
    Address, ClientError, ClientEvent, ClientOptions, Greeting, Link, Reconnect, State, member, request,
};
use crate::document::{Cursor, Document, Token};
use crate::error::{Error, ErrorClass};
use crate::scanner::{Limits, Scanner};
use crate::session::Stream;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One read takes at most so much.
const READ_BYTES: usize = 64 << 10;
/// A message of the server may have a token for so many of the bytes that it may have.
const BYTES_A_TOKEN: usize = 4;
/// The id of our own `qmp_capabilities`; calls count from zero and never get there.
const HANDSHAKE_ID: u64 = u64::MAX;

pub(super) struct Driver {
    connection: Connection,
    address: Option<Address>,
    options: ClientOptions,
    link: Arc<Link>,
}

/// A connection that has been negotiated.
struct Connection {
    stream: Box<dyn Stream>,
    scanner: Scanner,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are read but not scanned.
    unscanned: std::ops::Range<usize>,
}

/// What ended a connection.
enum End {
    /// Nobody uses the client any more.
    Deserted,
    Lost(Arc<str>),
}

impl Connection {
    /// The next message of the server.
    async fn message(&mut self) -> Result<Document, Arc<str>> {
        loop {
            let mut input = self.buffer.get(self.unscanned.clone()).unwrap_or_default();
            let before = input.len();
            let outcome = self.scanner.next(&mut input).map(|outcome| outcome.cloned());
            self.unscanned.start += before - input.len();
            match outcome {
                Some(Ok(document)) => return Ok(document),
                Some(Err(error)) => return Err(error.to_string().into()),
                None => {}
            }
            // Dropping this future between reads loses nothing: what was read is in the buffer.
            match self.stream.read(&mut self.buffer).await {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(read) => self.unscanned = 0..read,
                Err(error) => return Err(error.to_string().into()),
            }
        }
    }
}

impl Driver {
    /// Makes a connection ready for commands.
    pub(super) async fn greet(
        stream: Box<dyn Stream>,
        address: Option<Address>,
        options: ClientOptions,
        link: Arc<Link>,
    ) -> Result<Self, ClientError> {
        let connection = greet(stream, options, &link).await?;
        Ok(Driver {
            connection,
            address,
            options,
            link,
        })
    }

    pub(super) async fn run(mut self) {
        loop {
            let reason = match self.converse().await {
                End::Deserted => return,
                End::Lost(reason) => reason,
            };
            tracing::debug!(target: "qmp::client", %reason, "connection lost");
            {
                let mut state = self.link.lock();
                fail_sent(&mut state, &reason);
                if self.options.reconnect == Reconnect::Never || self.address.is_none() {
                    return lose(&mut state, &reason);
                }
            }
            match self.reconnect().await {
                Ok(Some(connection)) => self.connection = connection,
                Ok(None) => return,
                Err(error) => return lose(&mut self.link.lock(), &error.to_string().into()),
            }
            self.link.lock().subscribers.gap();
        }
    }

    /// Sends and receives until the connection ends.
    async fn converse(&mut self) -> End {
        loop {
            let (bytes, deserted) = {
                let mut state = self.link.lock();
                let mut bytes = Vec::new();
                while let Some(outgoing) = state.outgoing.pop_front() {
                    if let Some(waiting) = state.waiting.get_mut(&outgoing.id) {
                        // From here on nobody can tell any more whether the server has seen it.
                        waiting.sent = true;
                        bytes.extend_from_slice(&outgoing.bytes);
                    }
                }
                (bytes, state.deserted)
            };
            if deserted {
                return End::Deserted;
            }
            if !bytes.is_empty() {
                if let Err(reason) = self.send(&bytes).await {
                    return End::Lost(reason);
                }
                continue;
            }
            let link = Arc::clone(&self.link);
            tokio::select! {
                message = self.connection.message() => match message {
                    Ok(message) => receive(&link, &message),
                    Err(reason) => return End::Lost(reason),
                },
                () = link.work.notified() => {}
            }
        }
    }

    /// Sends, and receives meanwhile: a server that waits for us to read would never take the rest.
    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Arc<str>> {
        while !bytes.is_empty() {
            let Connection {
                stream,
                scanner,
                buffer,
                unscanned,
            } = &mut self.connection;
            let (mut reader, mut writer) = tokio::io::split(stream);
            if unscanned.start == unscanned.end {
                tokio::select! {
                    written = writer.write(bytes) => {
                        let written = written.map_err(|error| Arc::from(error.to_string()))?;
                        bytes = bytes.get(written..).unwrap_or_default();
                    }
                    read = reader.read(buffer) => match read {
                        Ok(0) => return Err("the server closed the connection".into()),
                        Ok(read) => *unscanned = 0..read,
                        Err(error) => return Err(error.to_string().into()),
                    },
                }
            }
            loop {
                let mut input = buffer.get(unscanned.clone()).unwrap_or_default();
                let before = input.len();
                let outcome = scanner.next(&mut input);
                unscanned.start += before - input.len();
                match outcome {
                    Some(Ok(message)) => receive(&self.link, message),
                    Some(Err(error)) => return Err(error.to_string().into()),
                    None => break,
                }
            }
        }
        self.connection
            .stream
            .flush()
            .await
            .map_err(|error| error.to_string().into())
    }

    /// Makes the connection anew; `None` when nobody is interested any more.
    async fn reconnect(&mut self) -> Result<Option<Connection>, ClientError> {
        let (
            Some(address),
            Reconnect::Backoff {
                first,
                longest,
                tries,
            },
        ) = (self.address.clone(), self.options.reconnect)
        else {
            return Ok(None);
        };
        let mut pause = first;
        let mut tried = 0;
        loop {
            tokio::time::sleep(pause).await;
            if self.link.lock().deserted {
                return Ok(None);
            }
            let attempt = async { greet(address.connect().await?, self.options, &self.link).await };
            match attempt.await {
                Ok(connection) => return Ok(Some(connection)),
                Err(error) => {
                    tried += 1;
                    tracing::debug!(target: "qmp::client", %error, tried, "cannot reconnect");
                    if tried >= tries {
                        return Err(error);
                    }
                }
            }
            pause = (pause * 2).min(longest).max(Duration::from_millis(1));
        }
    }
}

impl Drop for Driver {
    /// Whoever still waits hears of it when the task ends with its runtime.
    fn drop(&mut self) {
        let mut state = self.link.lock();
        if state.lost.is_none() {
            lose(&mut state, &"the client was shut down".into());
        }
    }
}

/// Reads the greeting and negotiates.
async fn greet(
    stream: Box<dyn Stream>,
    options: ClientOptions,
    link: &Link,
) -> Result<Connection, ClientError> {
    // What a server sends is as large as what it was asked about: only its bytes are limited, and real messages
    // have more than so many for a token.
    let usual = Limits::default();
    let limits = Limits {
        message_bytes: options.message_bytes,
        tokens: usual.tokens.max(options.message_bytes / BYTES_A_TOKEN),
        ..usual
    };
    let mut connection = Connection {
        stream,
        scanner: Scanner::new(limits),
        buffer: vec![0; READ_BYTES],
        unscanned: 0..0,
    };
    let negotiate = async {
        let greeting = loop {
            let message = connection.message().await.map_err(|reason| protocol(&reason))?;
            match message.root().and_then(|root| member(root, "QMP")) {
                Some(qmp) => break read_greeting(qmp),
                // Servers are known to hand a new client the rest of what the one before it was owed.
                None => tracing::debug!(target: "qmp::client", "message before the greeting ignored"),
            }
        };
        let oob = options.oob && greeting.capabilities.iter().any(|capability| capability == "oob");
        let arguments: Option<&[u8]> = oob.then_some(b"{\"enable\": [\"oob\"]}");
        let bytes = request("qmp_capabilities", arguments, false, HANDSHAKE_ID);
        let sent = async {
            connection.stream.write_all(&bytes).await?;
            connection.stream.flush().await
        };
        sent.await
            .map_err(|error: io::Error| protocol(&error.to_string()))?;
        loop {
            let message = connection.message().await.map_err(|reason| protocol(&reason))?;
            let Some(root) = message.root() else { continue };
            if member(root, "id").map(Cursor::token) != Some(Token::UInt(HANDSHAKE_ID)) {
                continue;
            }
            match member(root, "error") {
                Some(error) => return Err(ClientError::Qmp(read_error(error))),
                None => return Ok(greeting),
            }
        }
    };
    let greeting = tokio::time::timeout(options.handshake_timeout, negotiate)
        .await
        .map_err(|_| ClientError::TimedOut { may_have_run: false })??;
    link.lock().greeting = greeting;
    Ok(connection)
}

fn protocol(reason: &str) -> ClientError {
    ClientError::Protocol(format!("no greeting: {reason}"))
}

fn read_greeting(qmp: Cursor<'_>) -> Greeting {
    let mut greeting = Greeting::default();
    if let Some(version) = member(qmp, "version") {
        let number = |name| match member(version, "qemu")
            .and_then(|qemu| member(qemu, name))
            .map(Cursor::token)
        {
            Some(Token::Int(value)) => value,
            _ => 0,
        };
        greeting.version = (number("major"), number("minor"), number("micro"));
        greeting.package = member(version, "package")
            .and_then(Cursor::as_str)
            .unwrap_or_default()
            .to_owned();
    }
    if let Some(capabilities) = member(qmp, "capabilities") {
        greeting.capabilities = capabilities
            .elements()
            .filter_map(Cursor::as_str)
            .map(str::to_owned)
            .collect();
    }
    greeting
}

fn read_error(error: Cursor<'_>) -> Error {
    let text = |name| member(error, name).and_then(Cursor::as_str).unwrap_or_default();
    let classes = [
        ErrorClass::CommandNotFound,
        ErrorClass::DeviceNotActive,
        ErrorClass::DeviceNotFound,
        ErrorClass::KVMMissingCap,
    ];
    // A class of a server newer than this client is as good as none.
    let class = classes
        .into_iter()
        .find(|class| class.as_str() == text("class"))
        .unwrap_or(ErrorClass::GenericError);
    Error::new(class, text("desc"))
}

/// Gives a message to whom it belongs.
fn receive(link: &Link, message: &Document) {
    let Some(root) = message.root() else { return };
    if let Some(name) = member(root, "event").and_then(Cursor::as_str) {
        let part = |name| match member(root, "timestamp")
            .and_then(|stamp| member(stamp, name))
            .map(Cursor::token)
        {
            Some(Token::Int(value)) => value,
            _ => 0,
        };
        let event = ClientEvent::new(name, (part("seconds"), part("microseconds")), message.clone());
        link.lock().subscribers.tell(&event);
        return;
    }
    let id = match member(root, "id").map(Cursor::token) {
        Some(Token::Int(id)) => u64::try_from(id).ok(),
        _ => None,
    };
    let waiting = id.and_then(|id| link.lock().waiting.remove(&id));
    let Some(waiting) = waiting else {
        tracing::debug!(target: "qmp::client", "reply that nobody waits for");
        return;
    };
    let outcome = match (member(root, "return"), member(root, "error")) {
        (Some(value), None) => Ok(value.to_document()),
        (None, Some(error)) => Err(ClientError::Qmp(read_error(error))),
        _ => Err(ClientError::Protocol(
            "a reply with neither return nor error".into(),
        )),
    };
    // The caller may have given up just now.
    let _ = waiting.reply.send(outcome);
}

/// Ends the calls whose requests have left.
fn fail_sent(state: &mut State, reason: &Arc<str>) {
    let sent: Vec<u64> = state
        .waiting
        .iter()
        .filter(|(_, waiting)| waiting.sent)
        .map(|(id, _)| *id)
        .collect();
    for id in sent {
        if let Some(waiting) = state.waiting.remove(&id) {
            let error = ClientError::Disconnected {
                may_have_run: true,
                reason: Arc::clone(reason),
            };
            let _ = waiting.reply.send(Err(error));
        }
    }
}

/// Ends everything.
fn lose(state: &mut State, reason: &Arc<str>) {
    state.lost = Some(Arc::clone(reason));
    state.outgoing.clear();
    for (_, waiting) in state.waiting.drain() {
        let error = ClientError::Disconnected {
            may_have_run: waiting.sent,
            reason: Arc::clone(reason),
        };
        let _ = waiting.reply.send(Err(error));
    }
    state.subscribers.end(reason);
}
