//! Transmission: one client's requests, from the end of the negotiation to the end of the connection.
//!
//! One task a connection. It takes all requests that have arrived at once, serves what needs no waiting right into
//! the reply buffer, and sends all these replies in one go. A request that has to wait goes on in a task of its own,
//! and its reply comes back through a queue.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use tokio::io::{AsyncRead as _, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Stream;
use super::context::Context;
use super::export::Export;
use super::handshake::Agreed;
use super::lookout::{self, Arrival, Lookout, Lookouts};
use super::proto::{self, MAX_PAYLOAD_BYTES, ReplyMode, Request, command, command_flag};
use crate::driver::{WriteFlags, ZeroFlags};
use crate::error::BlockError;

/// Room for requests that have arrived; payloads up to [`PIECE_BYTES`] lie in it as a whole.
const INPUT_BYTES: usize = 320 << 10;
/// Longer reads and writes are done piece by piece, so that a piece is still in the processor's cache when it goes on.
const PIECE_BYTES: usize = 128 << 10;
/// Replies are sent when this much has gathered.
const OUTPUT_BYTES: usize = 256 << 10;
/// How many requests of one client may wait at once.
const MAX_WAITING: usize = 128;
/// How many bytes of payload may lie in waiting requests of one client (a single one may be longer).
const MAX_WAITING_BYTES: usize = 64 << 20;

/// A finished reply of a request that had to wait.
struct Done {
    bytes: Vec<u8>,
    weight: usize,
}

type Execution = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

struct Session {
    stream: Box<dyn Stream>,
    export: Arc<Export>,
    mode: ReplyMode,
    contexts: Arc<[Context]>,
    handle: tokio::runtime::Handle,
    input: Input,
    output: Output,
    done: (UnboundedSender<Done>, UnboundedReceiver<Done>),
    waiting: usize,
    waiting_bytes: usize,
    /// Requests taken since the session last waited with none in flight.
    served: u32,
    /// When requests came last.
    came: Instant,
    lookout: Lookout,
    lookouts: Arc<Lookouts>,
}

/// Serves a client until it leaves, the connection breaks or the export closes.
pub(super) async fn run(
    agreed: Agreed,
    handle: tokio::runtime::Handle,
    lookouts: Arc<Lookouts>,
) -> io::Result<()> {
    let Agreed {
        stream,
        client,
        mode,
        contexts,
    } = agreed;
    let export = Arc::clone(client.export());
    let mut session = Session {
        stream,
        export: Arc::clone(&export),
        mode,
        contexts: contexts.into(),
        handle,
        input: Input::new(),
        output: Output::new(),
        done: unbounded_channel(),
        waiting: 0,
        waiting_bytes: 0,
        served: 0,
        came: Instant::now(),
        lookout: Lookout::new(),
        lookouts,
    };
    let result = tokio::select! {
        result = session.serve() => result,
        () = export.closed() => Ok(()),
    };
    // The node must be quiet before the client counts as gone.
    while session.waiting > 0 && session.done.1.recv().await.is_some() {
        session.waiting -= 1;
    }
    let _ = session.stream.shutdown().await;
    drop(client);
    result
}

impl Session {
    async fn serve(&mut self) -> io::Result<()> {
        loop {
            let go_on = self.process().await?;
            while let Ok(done) = self.done.1.try_recv() {
                self.finish(done).await?;
            }
            self.output.send(&mut self.stream).await?;
            if !go_on {
                return Ok(());
            }
            let room = self.waiting < MAX_WAITING && self.waiting_bytes < MAX_WAITING_BYTES;
            if self.waiting == 0 {
                if self.wait().await? == 0 {
                    return Ok(());
                }
                continue;
            }
            tokio::select! {
                biased;
                done = self.done.1.recv() => match done {
                    Some(done) => self.finish(done).await?,
                    None => return Ok(()),
                },
                count = self.input.fill(&mut self.stream), if room => if count? == 0 {
                    return Ok(());
                },
            }
        }
    }

    /// Waits for more requests when none is being served; 0 is the end of the stream.
    async fn wait(&mut self) -> io::Result<usize> {
        let served = std::mem::take(&mut self.served);
        let start = Instant::now();
        let mut looked = None;
        let mut seen = None;
        // With more than one in flight the next ones are mostly there already, or come while others are served.
        if served == 1
            && self.lookout.is_on()
            && let Some(_permit) = self.lookouts.take()
        {
            loop {
                seen = self.input.try_fill(&mut self.stream).await?;
                if seen.is_some() || start.elapsed() >= lookout::LONGEST {
                    break;
                }
                // The runtime looks at all its sockets and runs whatever else is ready.
                tokio::task::yield_now().await;
            }
            looked = Some(seen.is_some());
        }
        let count = match seen {
            Some(count) => count,
            None => self.input.fill(&mut self.stream).await?,
        };
        let now = Instant::now();
        self.lookout.came(Arrival {
            served,
            cycle: now.duration_since(self.came),
            wait: now.duration_since(start),
            looked,
        });
        self.came = now;
        Ok(count)
    }

    async fn finish(&mut self, done: Done) -> io::Result<()> {
        self.waiting -= 1;
        self.waiting_bytes -= done.weight;
        if done.bytes.len() > PIECE_BYTES {
            self.output.send(&mut self.stream).await?;
            self.stream.write_all(&done.bytes).await
        } else {
            self.output.append(&done.bytes);
            Ok(())
        }
    }

    /// Serves every complete request in the input; false when the client has said that it leaves.
    async fn process(&mut self) -> io::Result<bool> {
        loop {
            if self.waiting >= MAX_WAITING || self.waiting_bytes >= MAX_WAITING_BYTES {
                return Ok(true);
            }
            let extended = self.mode == ReplyMode::Extended;
            let (request, header) = match Request::parse(self.input.ready(), extended) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => return Ok(true),
                Err(bad) => {
                    let text = format!(
                        "invalid magic (got 0x{:x}, expected 0x{:x})",
                        bad.got, bad.expected
                    );
                    // Nothing after it can be understood.
                    self.refuse(&bad.request, &BlockError::from_errno(22, text));
                    return Ok(false);
                }
            };
            self.served = self.served.saturating_add(1);
            if request.command == command::DISC {
                return Ok(false);
            }
            let payload = request.payload_bytes(extended);
            if payload > u64::from(MAX_PAYLOAD_BYTES) {
                // The payload is not waited for, so that the next request cannot be found.
                self.refuse(&request, &too_long(&request));
                return Ok(false);
            }
            let payload = usize::try_from(payload).unwrap_or(usize::MAX);
            if payload > PIECE_BYTES {
                self.input.consume(header);
                self.long_payload(request, payload).await?;
            } else if self.input.ready().len() < header + payload {
                return Ok(true);
            } else {
                self.input.consume(header);
                self.dispatch(request, payload).await?;
                self.input.consume(payload);
            }
            if self.output.is_full() {
                self.output.send(&mut self.stream).await?;
            }
        }
    }

    fn refuse(&mut self, request: &Request, error: &BlockError) {
        let head = self.output.head();
        proto::plain_reply(head, self.mode, request, error.errno(), &error.to_string());
        self.output.append_head();
    }

    fn answer(&mut self, request: &Request, result: &Result<(), BlockError>) {
        match result {
            Ok(()) => {
                let head = self.output.head();
                proto::plain_reply(head, self.mode, request, 0, "");
                self.output.append_head();
            }
            Err(error) => self.refuse(request, error),
        }
    }

    /// Serves a request whose payload, if any, lies at the start of the input.
    async fn dispatch(&mut self, request: Request, payload: usize) -> io::Result<()> {
        if let Err(error) = check(&self.export, self.mode, &request) {
            self.refuse(&request, &error);
            return Ok(());
        }
        match request.command {
            command::READ if request.len > 0 => return self.read(request).await,
            command::WRITE => {
                if let Some(result) = self.try_write(&request, payload) {
                    self.answer(&request, &result);
                    return Ok(());
                }
            }
            command::CACHE => {
                // Nothing is cached on the way: the host's page cache does it.
                self.answer(&request, &Ok(()));
                return Ok(());
            }
            _ => {}
        }
        let payload = self.input.ready()[..payload].to_vec();
        self.execute(request.offset, request, payload).await;
        Ok(())
    }

    fn try_write(&mut self, request: &Request, payload: usize) -> Option<Result<(), BlockError>> {
        let backend = self.export.backend();
        let _entered = backend.try_enter()?;
        let flags = WriteFlags {
            fua: request.has(command_flag::FUA) || self.export.is_writethrough(),
            ..WriteFlags::default()
        };
        backend.try_write_entered(request.offset, &self.input.ready()[..payload], flags)
    }

    /// Reads into the reply buffer as far as that needs no waiting, piece by piece.
    async fn read(&mut self, request: Request) -> io::Result<()> {
        let total = usize::try_from(request.len).unwrap_or(usize::MAX);
        // Several chunks want a mode that has them and a client that takes them.
        let piece = if self.mode.is_chunked() && !request.has(command_flag::DF) && total > PIECE_BYTES {
            PIECE_BYTES
        } else {
            total
        };
        let mut done = 0;
        while done < total {
            let len = piece.min(total - done);
            let last = done + len == total;
            let offset = request.offset + done as u64;
            let len_u32 = u32::try_from(len).unwrap_or(u32::MAX);
            let head = self.output.head();
            proto::read_header(head, self.mode, &request, offset, len_u32, last);
            let mark = self.output.append_head();
            let backend = self.export.backend();
            let result = match backend.try_enter() {
                Some(_entered) => backend.try_read_entered(offset, self.output.space(len)),
                None => None,
            };
            match result {
                Some(Ok(())) => self.output.advance(len),
                Some(Err(error)) => {
                    self.output.cut(mark);
                    self.refuse(&request, &error);
                    return Ok(());
                }
                None => {
                    self.output.cut(mark);
                    let rest = Request {
                        offset,
                        len: (total - done) as u64,
                        ..request
                    };
                    self.execute(request.offset, rest, Vec::new()).await;
                    return Ok(());
                }
            }
            done += len;
            if !last || self.output.is_full() {
                self.output.send(&mut self.stream).await?;
            }
        }
        Ok(())
    }

    /// Takes a long write from the stream, piece by piece straight into the node while that needs no waiting.
    async fn long_payload(&mut self, request: Request, payload: usize) -> io::Result<()> {
        // Replies that are ready must not wait for the payload.
        self.output.send(&mut self.stream).await?;
        let mut result = check(&self.export, self.mode, &request);
        let flags = WriteFlags {
            fua: request.has(command_flag::FUA) || self.export.is_writethrough(),
            ..WriteFlags::default()
        };
        let direct = request.command == command::WRITE && !flags.fua;
        let mut gathered: Option<Vec<u8>> = None;
        let mut gathered_from = 0;
        let mut done = 0;
        while done < payload {
            let want = PIECE_BYTES.min(payload - done);
            while self.input.ready().len() < want {
                if self.input.fill(&mut self.stream).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            if result.is_ok() {
                if let Some(buffer) = &mut gathered {
                    buffer.extend_from_slice(&self.input.ready()[..want]);
                } else {
                    let offset = request.offset + done as u64;
                    let backend = self.export.backend();
                    let written = match backend.try_enter() {
                        Some(_entered) if direct => {
                            backend.try_write_entered(offset, &self.input.ready()[..want], flags)
                        }
                        _ => None,
                    };
                    match written {
                        Some(outcome) => result = outcome,
                        None => {
                            let mut buffer = Vec::with_capacity(payload - done);
                            buffer.extend_from_slice(&self.input.ready()[..want]);
                            gathered = Some(buffer);
                            gathered_from = done;
                        }
                    }
                }
            }
            self.input.consume(want);
            done += want;
        }
        match (result, gathered) {
            (Ok(()), Some(buffer)) => {
                let rest = Request {
                    offset: request.offset + gathered_from as u64,
                    len: buffer.len() as u64,
                    ..request
                };
                self.execute(request.offset, rest, buffer).await;
            }
            (result, _) => self.answer(&request, &result),
        }
        Ok(())
    }

    /// Runs a request, or the rest of one that began at `origin`, that may have to wait: here, if it turns out not to,
    /// else in a task of its own.
    async fn execute(&mut self, origin: u64, request: Request, payload: Vec<u8>) {
        let weight = match request.command {
            command::READ | command::WRITE => usize::try_from(request.len).unwrap_or(usize::MAX),
            _ => 0,
        };
        let mut execution: Execution = Box::pin(execute(
            Arc::clone(&self.export),
            self.mode,
            Arc::clone(&self.contexts),
            origin,
            request,
            payload,
        ));
        let now = poll_fn(|cx| Poll::Ready(execution.as_mut().poll(cx))).await;
        self.waiting += 1;
        self.waiting_bytes = self.waiting_bytes.saturating_add(weight);
        match now {
            // Through the queue as well: its only difference is that it is there already.
            Poll::Ready(bytes) => {
                let _ = self.done.0.send(Done { bytes, weight });
            }
            Poll::Pending => {
                let sender = self.done.0.clone();
                self.handle.spawn(async move {
                    let bytes = execution.await;
                    let _ = sender.send(Done { bytes, weight });
                });
            }
        }
    }
}

/// Whether a request can be served at all.
fn check(export: &Export, mode: ReplyMode, request: &Request) -> Result<(), BlockError> {
    let writes = matches!(
        request.command,
        command::WRITE | command::TRIM | command::WRITE_ZEROES | command::RESIZE
    );
    if writes && !export.is_writable() {
        // Clients know this one errno for every request that is refused before it is tried.
        return Err(BlockError::from_errno(22, "Export is read-only"));
    }
    let allowed = match request.command {
        command::READ if mode.is_chunked() => command_flag::DF | command_flag::FUA,
        command::READ => command_flag::FUA,
        command::WRITE if mode == ReplyMode::Extended => command_flag::FUA | command_flag::PAYLOAD_LEN,
        command::WRITE | command::TRIM | command::FLUSH | command::CACHE => command_flag::FUA,
        command::WRITE_ZEROES => command_flag::FUA | command_flag::NO_HOLE | command_flag::FAST_ZERO,
        command::BLOCK_STATUS if mode == ReplyMode::Extended => {
            command_flag::REQ_ONE | command_flag::FUA | command_flag::PAYLOAD_LEN
        }
        command::BLOCK_STATUS if mode.is_chunked() => command_flag::REQ_ONE | command_flag::FUA,
        command::RESIZE => 0,
        other => {
            return Err(BlockError::from_errno(
                22,
                format!("invalid request type ({other}) received"),
            ));
        }
    };
    if request.flags & !allowed != 0 {
        return Err(BlockError::from_errno(
            22,
            format!(
                "unsupported flags for command {} (got 0x{:x})",
                command_name(request.command),
                request.flags
            ),
        ));
    }
    let moves_data = matches!(request.command, command::READ | command::WRITE | command::CACHE);
    if moves_data && request.len > u64::from(MAX_PAYLOAD_BYTES) {
        return Err(too_long(request));
    }
    if request.command == command::FLUSH {
        return Ok(());
    }
    if request.command == command::RESIZE {
        // The new size stands where other requests have their offset.
        return if request.len == 0 {
            Ok(())
        } else {
            Err(BlockError::from_errno(22, "resize has a length"))
        };
    }
    if request.has(command_flag::PAYLOAD_LEN) && request.command == command::BLOCK_STATUS {
        // The range stands in the payload, which is looked at later.
        return Ok(());
    }
    check_range(export, request)
}

fn too_long(request: &Request) -> BlockError {
    let text = format!(
        "len ({}) is larger than max len ({MAX_PAYLOAD_BYTES})",
        request.len
    );
    BlockError::from_errno(22, text)
}

/// Whether the range of a request lies inside the export.
fn check_range(export: &Export, request: &Request) -> Result<(), BlockError> {
    let size = export.backend().length();
    if request
        .offset
        .checked_add(request.len)
        .is_none_or(|end| end > size)
    {
        return Err(BlockError::from_errno(
            22,
            format!(
                "operation past EOF; From: {}, Len: {}, Size: {size}",
                request.offset, request.len
            ),
        ));
    }
    if request.command == command::BLOCK_STATUS && request.len == 0 {
        return Err(BlockError::from_errno(22, "need non-zero length"));
    }
    Ok(())
}

fn command_name(command: u16) -> &'static str {
    match command {
        command::READ => "read",
        command::WRITE => "write",
        command::FLUSH => "flush",
        command::TRIM => "trim",
        command::CACHE => "cache",
        command::WRITE_ZEROES => "write zeroes",
        command::BLOCK_STATUS => "block status",
        command::RESIZE => "resize",
        _ => "<unknown>",
    }
}

/// Serves a checked request and gives the whole reply.
async fn execute(
    export: Arc<Export>,
    mode: ReplyMode,
    contexts: Arc<[Context]>,
    origin: u64,
    request: Request,
    payload: Vec<u8>,
) -> Vec<u8> {
    let mut out = Vec::new();
    // Replies name the offset that the client did.
    let reply = Request {
        offset: origin,
        ..request
    };
    let backend = export.backend();
    let fua = request.has(command_flag::FUA) || export.is_writethrough();
    let result = match request.command {
        command::READ => {
            let result = match usize::try_from(request.len) {
                Ok(0) => Ok(()),
                Ok(_) if mode.is_chunked() && !request.has(command_flag::DF) => {
                    match read_sparse(&export, mode, &reply, &request, &mut out).await {
                        Ok(()) => return out,
                        Err(error) => Err(error),
                    }
                }
                Ok(len) => {
                    let len_u32 = u32::try_from(len).unwrap_or(u32::MAX);
                    match read_data(&export, mode, &reply, request.offset, len_u32, true, &mut out).await {
                        Ok(()) => return out,
                        Err(error) => Err(error),
                    }
                }
                Err(_) => Err(BlockError::from_errno(22, "Invalid argument")),
            };
            out.clear();
            result
        }
        command::WRITE => {
            let flags = WriteFlags {
                fua,
                ..WriteFlags::default()
            };
            backend
                .write(request.offset, &payload, flags)
                .await
                .map_err(|e| e.context("writing to file failed"))
        }
        command::WRITE_ZEROES => {
            let flags = ZeroFlags {
                fua,
                may_unmap: !request.has(command_flag::NO_HOLE),
                no_fallback: request.has(command_flag::FAST_ZERO),
            };
            let result = backend.write_zeroes(request.offset, request.len, flags).await;
            result.map_err(|e| e.context("writing to file failed"))
        }
        command::FLUSH => backend.flush().await.map_err(|e| e.context("flush failed")),
        command::TRIM => {
            let mut result = backend.discard(request.offset, request.len).await;
            if result.is_ok() && fua {
                result = backend.flush().await;
            }
            result.map_err(|e| e.context("discard failed"))
        }
        command::RESIZE => export.resize(request.offset).await,
        command::BLOCK_STATUS => match status(&export, mode, &contexts, &request, &payload, &mut out).await {
            Ok(()) => return out,
            Err(error) => {
                out.clear();
                Err(error)
            }
        },
        _ => Ok(()),
    };
    match result {
        Ok(()) => proto::plain_reply(&mut out, mode, &reply, 0, ""),
        Err(error) => proto::plain_reply(&mut out, mode, &reply, error.errno(), &error.to_string()),
    }
    out
}

/// Appends one chunk with data.
async fn read_data(
    export: &Export,
    mode: ReplyMode,
    reply: &Request,
    offset: u64,
    len: u32,
    last: bool,
    out: &mut Vec<u8>,
) -> Result<(), BlockError> {
    let bytes = usize::try_from(len).unwrap_or(usize::MAX);
    out.reserve_exact(ReplyMode::MAX_HEADER_BYTES + bytes);
    proto::read_header(out, mode, reply, offset, len, last);
    let start = out.len();
    out.resize(start + bytes, 0);
    export
        .backend()
        .read(offset, &mut out[start..])
        .await
        .map_err(|error| error.context("reading from file failed"))
}

/// Reads what has to be waited for: areas of zeroes are told, not read, as QEMU's server does.
async fn read_sparse(
    export: &Export,
    mode: ReplyMode,
    reply: &Request,
    request: &Request,
    out: &mut Vec<u8>,
) -> Result<(), BlockError> {
    let backend = export.backend();
    let mut done = 0;
    while done < request.len {
        let (offset, rest) = (request.offset + done, request.len - done);
        let status = {
            // A drain must see this request: status walks the graph.
            let _entered = backend.enter().await;
            backend.node().status_above(None, offset, rest).await
        };
        let status = status.map_err(|error| error.context("unable to check for holes"))?;
        let run = status.len.clamp(1, rest);
        let len = u32::try_from(run).unwrap_or(u32::MAX);
        let last = done + run == request.len;
        if status.zero {
            proto::hole_chunk(out, mode, reply, offset, len, last);
        } else {
            read_data(export, mode, reply, offset, len, last, out).await?;
        }
        done += run;
    }
    Ok(())
}

async fn status(
    export: &Export,
    mode: ReplyMode,
    contexts: &[Context],
    request: &Request,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BlockError> {
    if contexts.is_empty() {
        return Err(BlockError::from_errno(22, "CMD_BLOCK_STATUS not negotiated"));
    }
    let mut request = *request;
    let mut chosen: Vec<&Context> = contexts.iter().collect();
    if request.has(command_flag::PAYLOAD_LEN) {
        let invalid = || BlockError::from_errno(22, "CMD_BLOCK_STATUS payload not valid");
        let (len, mut ids) = proto::parse_status_payload(payload).ok_or_else(invalid)?;
        let asked = ids.len();
        ids.sort_unstable();
        ids.dedup();
        let known = |id: &u32| contexts.iter().any(|one| one.id() == *id);
        if ids.is_empty() || ids.len() < asked || !ids.iter().all(known) {
            return Err(invalid());
        }
        chosen.retain(|context| ids.contains(&context.id()));
        request.len = len;
        check_range(export, &request)?;
    }
    let request = &request;
    // A drain must see this request: status walks the graph.
    let _entered = export.backend().enter().await;
    for (index, context) in chosen.iter().enumerate() {
        let extents = context
            .extents(export, request)
            .await
            .map_err(|e| e.context("can't get block status"))?;
        proto::status_chunk(
            out,
            mode,
            request,
            context.id(),
            &extents,
            index + 1 == chosen.len(),
        );
    }
    Ok(())
}

/// Bytes that have arrived.
struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Input {
    fn new() -> Self {
        Self {
            bytes: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn ready(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Takes what has come; `None` when that is nothing.
    async fn try_fill(&mut self, stream: &mut Box<dyn Stream>) -> io::Result<Option<usize>> {
        self.make_room();
        let mut room = tokio::io::ReadBuf::new(&mut self.bytes[self.end..]);
        let read = poll_fn(|cx| match Pin::new(&mut *stream).poll_read(cx, &mut room) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        match read {
            None => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(())) => {
                let count = room.filled().len();
                self.end += count;
                Ok(Some(count))
            }
        }
    }

    /// Waits for more bytes; 0 is the end of the stream. Nothing is lost when the future is dropped.
    async fn fill(&mut self, stream: &mut Box<dyn Stream>) -> io::Result<usize> {
        self.make_room();
        let count = stream.read(&mut self.bytes[self.end..]).await?;
        self.end += count;
        Ok(count)
    }

    fn make_room(&mut self) {
        if self.end == self.bytes.len() || self.start > self.bytes.len() / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

/// Replies that are ready to be sent.
struct Output {
    bytes: Vec<u8>,
    used: usize,
    head: Vec<u8>,
}

impl Output {
    fn new() -> Self {
        Self {
            bytes: vec![0; OUTPUT_BYTES + PIECE_BYTES],
            used: 0,
            head: Vec::with_capacity(64),
        }
    }

    fn is_full(&self) -> bool {
        self.used >= OUTPUT_BYTES
    }

    /// A scratch buffer for a header.
    fn head(&mut self) -> &mut Vec<u8> {
        self.head.clear();
        &mut self.head
    }

    /// Takes what was put into [`head`](Self::head); gives the place where it begins.
    fn append_head(&mut self) -> usize {
        let mark = self.used;
        let head = std::mem::take(&mut self.head);
        self.append(&head);
        self.head = head;
        mark
    }

    fn append(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Room for so many bytes.
    fn space(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.used..end]
    }

    fn advance(&mut self, len: usize) {
        self.used += len;
    }

    fn cut(&mut self, mark: usize) {
        self.used = mark;
    }

    async fn send(&mut self, stream: &mut Box<dyn Stream>) -> io::Result<()> {
        if self.used > 0 {
            stream.write_all(&self.bytes[..self.used]).await?;
            stream.flush().await?;
            self.used = 0;
            // A single long reply must not keep its memory for good.
            if self.bytes.len() > 4 * OUTPUT_BYTES {
                self.bytes = vec![0; OUTPUT_BYTES + PIECE_BYTES];
            }
        }
        Ok(())
    }
}
