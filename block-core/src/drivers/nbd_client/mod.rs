//! `nbd`: a node whose content a remote NBD server holds.
//!
//! A lost connection is made anew in the background. Requests wait for it for `reconnect-delay` seconds and are then
//! sent again (each request of NBD may be repeated); without a delay they fail at once.

mod connect;
mod handshake;
mod link;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::{
    BlockStatus, Driver, DriverInfo, IoFuture, Limits, Preallocation, WriteFlags, ZeroFlags,
};
use crate::error::{BlockError, ErrorKind, Result};
use crate::graph::OpenContext;
use crate::nbd::TlsUpgrade;
use crate::nbd::proto::{self, Request, command, command_flag, export_flag};
use crate::options::{NbdAddress, NbdOptions};
use crate::sync::lock;
use handshake::ExportInfo;
use link::{Link, Reply};

/// Pause between attempts to connect; it doubles up to the second number.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(16));

/// Opens a node: connects, and keeps trying for `open-timeout` seconds.
pub async fn open(context: &OpenContext<'_>, options: &NbdOptions) -> Result<Arc<dyn Driver>> {
    let tls = match &options.tls_creds {
        None => None,
        Some(id) => Some(context.graph().tls_client(id, tls_hostname(options))?),
    };
    let too_long = |text: Option<&String>| text.is_some_and(|text| text.len() > handshake::MAX_TEXT_BYTES);
    let refuse = |text: &str| Err(BlockError::new(ErrorKind::Invalid, text));
    if too_long(options.export.as_ref()) {
        return refuse("export name too long to send to server");
    }
    if too_long(options.x_dirty_bitmap.as_ref()) {
        return refuse("x-dirty-bitmap query too long to send to server");
    }
    let handle = context.graph().handle().clone();
    let endpoint = Endpoint {
        options: options.clone(),
        tls,
    };
    let deadline = Instant::now() + Duration::from_secs(u64::from(options.open_timeout));
    let link = loop {
        match endpoint.connect(&handle).await {
            Ok(link) => break link,
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(RETRY.0.min(deadline - Instant::now())).await,
        }
    };
    let info = link.info().clone();
    if info.has(export_flag::READ_ONLY) && !context.read_only() {
        if context.options().auto_read_only != Some(true) {
            return Err(BlockError::from_errno(
                libc::EACCES,
                "Could not open image: Permission denied",
            ));
        }
        context.force_read_only();
    }
    let shared = Arc::new(Shared {
        endpoint,
        state: Mutex::new(State::Connected(Arc::new(link))),
        changed: Notify::new(),
        closed: Notify::new(),
    });
    handle.spawn(supervise(Arc::clone(&shared), handle.clone()));
    Ok(Arc::new(Nbd { shared, info }))
}

fn tls_hostname(options: &NbdOptions) -> Option<&str> {
    options.tls_hostname.as_deref().or(match &options.server {
        NbdAddress::Inet { host, .. } => Some(host),
        NbdAddress::Unix(_) | NbdAddress::AbstractUnix { .. } => None,
    })
}

struct Endpoint {
    options: NbdOptions,
    tls: Option<Arc<dyn TlsUpgrade>>,
}

impl Endpoint {
    async fn connect(&self, handle: &tokio::runtime::Handle) -> Result<Link> {
        let stream = connect::connect(&self.options.server).await?;
        let export = self.options.export.as_deref().unwrap_or("");
        let context = self
            .options
            .x_dirty_bitmap
            .as_deref()
            .unwrap_or("base:allocation");
        let (stream, info) = handshake::negotiate(stream, export, context, self.tls.as_deref()).await?;
        if self.options.x_dirty_bitmap.is_some() && info.context.is_none() {
            // Nothing says more than this in QEMU either.
            return Err(BlockError::from_errno(
                libc::EINVAL,
                "Could not open image: Invalid argument",
            ));
        }
        Ok(Link::new(stream, info, handle))
    }
}

enum State {
    Connected(Arc<Link>),
    /// Since this time.
    Lost(Instant),
    Closed,
}

struct Shared {
    endpoint: Endpoint,
    state: Mutex<State>,
    /// Woken when the state changes.
    changed: Notify,
    /// Woken when the node closes.
    closed: Notify,
}

impl Shared {
    fn set(&self, state: State) {
        {
            let mut current = lock(&self.state);
            if matches!(*current, State::Closed) {
                return;
            }
            *current = state;
        }
        self.changed.notify_waiters();
    }

    fn is_closed(&self) -> bool {
        matches!(*lock(&self.state), State::Closed)
    }
}

/// Makes lost connections anew until the node closes.
async fn supervise(shared: Arc<Shared>, handle: tokio::runtime::Handle) {
    let mut closed = std::pin::pin!(shared.closed.notified());
    closed.as_mut().enable();
    loop {
        let link = match &*lock(&shared.state) {
            State::Connected(link) => Arc::clone(link),
            State::Lost(_) | State::Closed => return,
        };
        let length = link.info().length;
        tokio::select! {
            () = link.lost() => {}
            () = &mut closed => return,
        }
        drop(link);
        shared.set(State::Lost(Instant::now()));
        let mut pause = RETRY.0;
        loop {
            if shared.is_closed() {
                return;
            }
            let attempt = tokio::select! {
                attempt = shared.endpoint.connect(&handle) => attempt,
                () = &mut closed => return,
            };
            match attempt {
                // Another disk under the old name is as bad as none.
                Ok(link) if link.info().length == length => {
                    shared.set(State::Connected(Arc::new(link)));
                    break;
                }
                Ok(_) => tracing::warn!("the NBD server came back with another length"),
                Err(error) => tracing::debug!(%error, "NBD reconnection failed"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut closed => return,
            }
            pause = (pause * 2).min(RETRY.1);
        }
    }
}

struct Nbd {
    shared: Arc<Shared>,
    /// Of the first connection; later ones have the same length.
    info: ExportInfo,
}

impl std::fmt::Debug for Nbd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nbd")
            .field("server", &self.shared.endpoint.options.server)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Nbd {
    /// The connection, waiting for a new one where that is allowed.
    async fn link(&self) -> Result<Arc<Link>> {
        let delay = Duration::from_secs(u64::from(self.shared.endpoint.options.reconnect_delay));
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let since = match &*lock(&self.shared.state) {
                State::Connected(link) if !link.is_lost() => return Ok(Arc::clone(link)),
                // The supervisor is about to notice.
                State::Connected(_) => Instant::now(),
                State::Lost(since) => *since,
                State::Closed => return Err(lost()),
            };
            if delay.is_zero() || tokio::time::timeout_at(since + delay, changed).await.is_err() {
                return Err(lost());
            }
        }
    }

    async fn ask(&self, command: u16, flags: u16, offset: u64, len: u64, payload: &[u8]) -> Result<Reply> {
        let request = Request {
            flags,
            command,
            cookie: 0,
            offset,
            len,
        };
        loop {
            let link = self.link().await?;
            let Some(reply) = link.ask(request, payload.to_vec()).await else {
                continue;
            };
            if reply.errno == 0 {
                return Ok(reply);
            }
            let error: BlockError = std::io::Error::from_raw_os_error(reply.errno).into();
            if !reply.message.is_empty() {
                tracing::debug!(server = reply.message, "NBD request failed");
            }
            return Err(error);
        }
    }

    fn fua(&self, wanted: bool) -> u16 {
        if wanted && self.info.has(export_flag::SEND_FUA) {
            command_flag::FUA
        } else {
            0
        }
    }

    async fn after(&self, fua: bool) -> Result<()> {
        if fua && !self.info.has(export_flag::SEND_FUA) {
            self.flush().await
        } else {
            Ok(())
        }
    }
}

fn lost() -> BlockError {
    BlockError::from_errno(5, "Input/output error")
}

/// The longest range of a request without payload, aligned.
const MAX_RANGE: u64 = 1 << 30;

impl Driver for Nbd {
    fn name(&self) -> &'static str {
        "nbd"
    }

    fn length(&self) -> u64 {
        self.info.length
    }

    fn limits(&self) -> Limits {
        Limits {
            request_alignment: self.info.minimum_block,
            max_transfer: self.info.maximum_block,
            ..Limits::default()
        }
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            let reply = self.ask(command::READ, 0, offset, buf.len() as u64, &[]).await?;
            if reply.data.len() != buf.len() {
                return Err(lost());
            }
            buf.copy_from_slice(&reply.data);
            Ok(())
        })
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            self.ask(command::WRITE, self.fua(flags.fua), offset, buf.len() as u64, buf)
                .await?;
            self.after(flags.fua).await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            let unsupported = BlockError::from_errno(95, "Operation not supported");
            let mut wire = self.fua(flags.fua);
            if !flags.may_unmap {
                wire |= command_flag::NO_HOLE;
            }
            if flags.no_fallback {
                if !self.info.has(export_flag::SEND_FAST_ZERO) {
                    return Err(unsupported);
                }
                wire |= command_flag::FAST_ZERO;
            }
            let mut done = 0;
            while done < len {
                let (at, rest) = (offset + done, len - done);
                if self.info.has(export_flag::SEND_WRITE_ZEROES) {
                    let part = rest.min(MAX_RANGE);
                    self.ask(command::WRITE_ZEROES, wire, at, part, &[]).await?;
                    done += part;
                } else {
                    let part = rest.min(u64::from(self.info.maximum_block)).min(1 << 20);
                    let zeroes = vec![0; usize::try_from(part).unwrap_or(0)];
                    self.ask(command::WRITE, self.fua(flags.fua), at, part, &zeroes)
                        .await?;
                    done += part;
                }
            }
            self.after(flags.fua).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            let mut done = 0;
            while done < len && self.info.has(export_flag::SEND_TRIM) {
                let part = (len - done).min(MAX_RANGE);
                self.ask(command::TRIM, 0, offset + done, part, &[]).await?;
                done += part;
            }
            Ok(())
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async move {
            if self.info.has(export_flag::SEND_FLUSH) {
                self.ask(command::FLUSH, 0, 0, 0, &[]).await?;
            }
            Ok(())
        })
    }

    fn block_status(&self, offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            let whole = BlockStatus {
                len,
                allocated: true,
                data: true,
                ..BlockStatus::default()
            };
            let Some(inside) = self.info.length.checked_sub(offset).filter(|rest| *rest > 0) else {
                // What rounds the length up to whole sectors is not the server's.
                return Ok(BlockStatus {
                    data: false,
                    zero: true,
                    ..whole
                });
            };
            if self.info.context.is_none() {
                return Ok(whole);
            }
            let asked = len.min(inside).min(MAX_RANGE);
            let reply = self
                .ask(command::BLOCK_STATUS, command_flag::REQ_ONE, offset, asked, &[])
                .await?;
            let Some((run, flags)) = reply.extents.first().filter(|(run, _)| *run > 0) else {
                return Err(lost());
            };
            Ok(BlockStatus {
                len: (*run).min(len),
                data: flags & proto::state::HOLE == 0,
                zero: flags & proto::state::ZERO != 0,
                ..whole
            })
        })
    }

    fn truncate(&self, length: u64, _preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async move {
            if length > self.info.length {
                return Err(BlockError::new(ErrorKind::Unsupported, "Cannot grow NBD nodes"));
            }
            if length < self.info.length {
                return Err(BlockError::new(ErrorKind::Unsupported, "Cannot resize NBD nodes"));
            }
            Ok(())
        })
    }

    fn close(&self) -> IoFuture<'_> {
        Box::pin(async move {
            let old = std::mem::replace(&mut *lock(&self.shared.state), State::Closed);
            self.shared.closed.notify_waiters();
            self.shared.changed.notify_waiters();
            if let State::Connected(link) = old {
                link.leave().await;
            }
            Ok(())
        })
    }

    fn info(&self) -> DriverInfo {
        let options = &self.shared.endpoint.options;
        let export = options.export.as_deref().unwrap_or("");
        let filename = match &options.server {
            NbdAddress::AbstractUnix { name, .. } if export.is_empty() => {
                format!("nbd+unix://?socket={name}")
            }
            NbdAddress::AbstractUnix { name, .. } => format!("nbd+unix:///{export}?socket={name}"),
            NbdAddress::Unix(path) if export.is_empty() => format!("nbd+unix://?socket={path}"),
            NbdAddress::Unix(path) => format!("nbd+unix:///{export}?socket={path}"),
            NbdAddress::Inet { host, port } if export.is_empty() => format!("nbd://{host}:{port}"),
            NbdAddress::Inet { host, port } => format!("nbd://{host}:{port}/{export}"),
        };
        DriverInfo {
            filename,
            ..DriverInfo::default()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        *lock(&self.shared.state) = State::Closed;
        self.shared.closed.notify_waiters();
    }
}
