//! One connection in transmission: a task that sends requests, a task that takes replies.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};

use super::handshake::ExportInfo;
use crate::nbd::Stream;
use crate::nbd::proto::{self, Cursor, Request, chunk, command, command_flag};
use crate::sync::lock;

/// A reply: an errno (0 is success) with the server's text, and what came with it.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) errno: i32,
    pub(super) message: String,
    /// Data of a read.
    pub(super) data: Vec<u8>,
    /// Extents of a block status: lengths with flags.
    pub(super) extents: Vec<(u64, u32)>,
}

struct Pending {
    request: Request,
    reply: Reply,
    /// How many bytes of a read have come.
    covered: u64,
    sender: oneshot::Sender<Reply>,
}

/// A connection.
pub(super) struct Link {
    info: ExportInfo,
    outgoing: mpsc::UnboundedSender<(Request, Vec<u8>)>,
    shared: Arc<Shared>,
    next_cookie: AtomicU64,
    tasks: [tokio::task::AbortHandle; 2],
}

struct Shared {
    /// `None` once the connection is lost.
    pending: Mutex<Option<HashMap<u64, Pending>>>,
    lost: Notify,
}

impl Shared {
    fn lose(&self) {
        // Dropping the senders tells everyone who waits.
        *lock(&self.pending) = None;
        self.lost.notify_waiters();
    }
}

impl Link {
    pub(super) fn new(stream: Box<dyn Stream>, info: ExportInfo, handle: &tokio::runtime::Handle) -> Self {
        let (reader, mut writer) = tokio::io::split(stream);
        let shared = Arc::new(Shared {
            pending: Mutex::new(Some(HashMap::new())),
            lost: Notify::new(),
        });
        let extended = info.extended;
        let (outgoing, mut requests) = mpsc::unbounded_channel::<(Request, Vec<u8>)>();
        let send = {
            let shared = Arc::clone(&shared);
            handle.spawn(async move {
                let mut out = Vec::new();
                while let Some((request, payload)) = requests.recv().await {
                    out.clear();
                    encode(request, extended, &mut out);
                    let mut result = Ok(());
                    if payload.len() < 64 << 10 {
                        out.extend_from_slice(&payload);
                    } else {
                        result = writer.write_all(&out).await;
                        out.clear();
                        out.extend_from_slice(&payload);
                    }
                    // Requests that have come meanwhile go along.
                    while out.len() < 256 << 10 {
                        let Ok((request, payload)) = requests.try_recv() else {
                            break;
                        };
                        encode(request, extended, &mut out);
                        out.extend_from_slice(&payload);
                    }
                    if result.is_ok() {
                        result = writer.write_all(&out).await;
                    }
                    if result.is_ok() {
                        result = writer.flush().await;
                    }
                    if result.is_err() {
                        break;
                    }
                }
                shared.lose();
            })
        };
        let receive = {
            let shared = Arc::clone(&shared);
            handle.spawn(async move {
                if let Err(error) = receive(reader, &shared, extended).await {
                    tracing::debug!(%error, "NBD connection lost");
                }
                shared.lose();
            })
        };
        let tasks = [send.abort_handle(), receive.abort_handle()];
        Self {
            info,
            outgoing,
            shared,
            next_cookie: AtomicU64::new(1),
            tasks,
        }
    }

    pub(super) fn info(&self) -> &ExportInfo {
        &self.info
    }

    pub(super) fn is_lost(&self) -> bool {
        lock(&self.shared.pending).is_none()
    }

    /// Resolves when the connection is lost.
    pub(super) async fn lost(&self) {
        loop {
            let mut wake = std::pin::pin!(self.shared.lost.notified());
            wake.as_mut().enable();
            if self.is_lost() {
                return;
            }
            wake.await;
        }
    }

    /// Sends a request and waits for its reply; `None` when the connection was lost before it came.
    pub(super) async fn ask(&self, mut request: Request, payload: Vec<u8>) -> Option<Reply> {
        request.cookie = self.next_cookie.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let reply = Reply {
            data: match request.command {
                command::READ => vec![0; usize::try_from(request.len).unwrap_or(0)],
                _ => Vec::new(),
            },
            ..Reply::default()
        };
        lock(&self.shared.pending).as_mut()?.insert(
            request.cookie,
            Pending {
                request,
                reply,
                covered: 0,
                sender,
            },
        );
        self.outgoing.send((request, payload)).ok()?;
        receiver.await.ok()
    }

    /// Says goodbye.
    pub(super) async fn leave(&self) {
        let request = Request {
            flags: 0,
            command: command::DISC,
            cookie: 0,
            offset: 0,
            len: 0,
        };
        let _ = self.outgoing.send((request, Vec::new()));
        // The server closes the connection when it has read that far.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.lost()).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Extended headers tell of a payload where there is one.
fn encode(mut request: Request, extended: bool, out: &mut Vec<u8>) {
    if extended && request.command == command::WRITE {
        request.flags |= command_flag::PAYLOAD_LEN;
    }
    request.encode(extended, out);
}

async fn receive(reader: impl AsyncRead + Unpin, shared: &Shared, extended: bool) -> io::Result<()> {
    let mut reader = tokio::io::BufReader::with_capacity(128 << 10, reader);
    loop {
        let magic = reader.read_u32().await?;
        match magic {
            proto::SIMPLE_REPLY_MAGIC if !extended => simple(&mut reader, shared).await?,
            proto::STRUCTURED_REPLY_MAGIC if !extended => structured(&mut reader, shared, false).await?,
            proto::EXTENDED_REPLY_MAGIC if extended => structured(&mut reader, shared, true).await?,
            _ => return Err(invalid("bad reply magic")),
        }
    }
}

fn take(shared: &Shared, cookie: u64) -> io::Result<Pending> {
    let mut pending = lock(&shared.pending);
    let pending = pending.as_mut().and_then(|pending| pending.remove(&cookie));
    pending.ok_or_else(|| invalid("reply to a request that was not made"))
}

async fn simple(reader: &mut (impl AsyncRead + Unpin), shared: &Shared) -> io::Result<()> {
    let errno = reader.read_u32().await?;
    let cookie = reader.read_u64().await?;
    let mut pending = take(shared, cookie)?;
    if errno == 0 {
        if pending.request.command == command::READ {
            reader.read_exact(&mut pending.reply.data).await?;
        }
    } else {
        pending.reply.errno = proto::local_errno(errno);
    }
    let _ = pending.sender.send(pending.reply);
    Ok(())
}

async fn structured(
    reader: &mut (impl AsyncRead + Unpin),
    shared: &Shared,
    extended: bool,
) -> io::Result<()> {
    let flags = reader.read_u16().await?;
    let kind = reader.read_u16().await?;
    let cookie = reader.read_u64().await?;
    let len = if extended {
        let _offset = reader.read_u64().await?;
        u32::try_from(reader.read_u64().await?).map_err(|_| invalid("chunk too long"))?
    } else {
        reader.read_u32().await?
    };
    let mut pending = take(shared, cookie)?;
    chunk_body(reader, &mut pending, kind, len).await?;
    if flags & chunk::DONE != 0 {
        let missing = pending.request.command == command::READ && pending.covered < pending.request.len;
        if pending.reply.errno == 0 && missing {
            return Err(invalid("a read was not answered as a whole"));
        }
        let _ = pending.sender.send(pending.reply);
    } else if let Some(all) = lock(&shared.pending).as_mut() {
        all.insert(cookie, pending);
    }
    Ok(())
}

async fn chunk_body(
    reader: &mut (impl AsyncRead + Unpin),
    pending: &mut Pending,
    kind: u16,
    len: u32,
) -> io::Result<()> {
    let request = pending.request;
    // Where a piece of a read lies in the buffer.
    let place = |offset: u64, len: u64| {
        let start = offset.checked_sub(request.offset)?;
        (start.checked_add(len)? <= request.len).then_some(())?;
        let start = usize::try_from(start).ok()?;
        Some(start..start + usize::try_from(len).ok()?)
    };
    match kind {
        chunk::NONE if len == 0 => Ok(()),
        chunk::OFFSET_DATA if request.command == command::READ && len > 8 => {
            let offset = reader.read_u64().await?;
            let range =
                place(offset, u64::from(len - 8)).ok_or_else(|| invalid("data outside of the request"))?;
            reader.read_exact(&mut pending.reply.data[range]).await?;
            pending.covered += u64::from(len - 8);
            Ok(())
        }
        chunk::OFFSET_HOLE if request.command == command::READ && len == 12 => {
            let offset = reader.read_u64().await?;
            let hole = u64::from(reader.read_u32().await?);
            let range = place(offset, hole).ok_or_else(|| invalid("hole outside of the request"))?;
            pending.reply.data[range].fill(0);
            pending.covered += hole;
            Ok(())
        }
        _ => {
            if len > proto::MAX_OPTION_BYTES * 4 {
                return Err(invalid("chunk too long"));
            }
            let mut body = vec![0; usize::try_from(len).unwrap_or(0)];
            reader.read_exact(&mut body).await?;
            let mut cursor = Cursor(&body);
            if kind == chunk::BLOCK_STATUS && request.command == command::BLOCK_STATUS {
                let _context = cursor.u32();
                while let (Some(len), Some(flags)) = (cursor.u32(), cursor.u32()) {
                    pending.reply.extents.push((u64::from(len), flags));
                }
                Ok(())
            } else if kind == chunk::BLOCK_STATUS_EXT && request.command == command::BLOCK_STATUS {
                let (_context, _count) = (cursor.u32(), cursor.u32());
                while let (Some(len), Some(flags)) = (cursor.u64(), cursor.u64()) {
                    // Flags of the one context that is asked for fit in 32 bits; higher ones are nobody's.
                    pending
                        .reply
                        .extents
                        .push((len, u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0)));
                }
                Ok(())
            } else if kind & 1 << 15 != 0 {
                let errno = cursor.u32().ok_or_else(|| invalid("short error chunk"))?;
                pending.reply.errno = proto::local_errno(errno);
                let text = cursor.u16().and_then(|len| cursor.take(usize::from(len)));
                pending.reply.message = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
                Ok(())
            } else {
                Err(invalid("unexpected chunk"))
            }
        }
    }
}
