//! The client's side of the NBD negotiation, with servers of every age.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{BlockError, ErrorKind, Result};
use crate::nbd::proto::{self, Cursor, handshake, info, option, reply};
use crate::nbd::{Stream, TlsUpgrade};

/// The longest text that is sent to a server: the name of an export or of a context.
pub(super) const MAX_TEXT_BYTES: usize = proto::MAX_STRING_BYTES;
/// The largest block that a server may ask for.
const MAX_BLOCK_BYTES: u32 = 32 << 20;
/// A server that never comes to an end with an option is cut off.
const MAX_REPLIES: usize = 1 << 16;
/// Zero bytes that stand behind what an old server tells of its export.
const RESERVED_BYTES: usize = 124;

/// What the server told of the export.
#[derive(Debug, Clone)]
pub(super) struct ExportInfo {
    pub(super) length: u64,
    pub(super) flags: u16,
    pub(super) minimum_block: u32,
    pub(super) maximum_block: u32,
    /// The id of the context for block status.
    pub(super) context: Option<u32>,
    /// Requests and replies have extended headers.
    pub(super) extended: bool,
}

impl ExportInfo {
    fn new(length: u64, flags: u16) -> Self {
        Self {
            length,
            flags,
            minimum_block: 1,
            maximum_block: proto::MAX_PAYLOAD_BYTES,
            context: None,
            extended: false,
        }
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

fn protocol(text: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Io, text.into())
}

/// Negotiates for an export. `context` is the metadata context to ask for.
pub(super) async fn negotiate(
    stream: Box<dyn Stream>,
    export: &str,
    context: &str,
    tls: Option<&dyn TlsUpgrade>,
) -> Result<(Box<dyn Stream>, ExportInfo)> {
    let mut talk = Talk { stream };
    let magic = u64::from_be_bytes(talk.array("initial magic").await?);
    if magic != proto::INIT_MAGIC {
        return Err(protocol(format!("Bad initial magic received: 0x{magic:x}")));
    }
    let info = match u64::from_be_bytes(talk.array("server magic").await?) {
        proto::OPTION_MAGIC => talk.newstyle(export, context, tls).await?,
        proto::OLD_MAGIC => {
            if tls.is_some() {
                return Err(protocol("Server does not support STARTTLS"));
            }
            talk.oldstyle(export).await?
        }
        other => return Err(protocol(format!("Bad server magic received: 0x{other:x}"))),
    };
    if info.length > crate::types::MAX_LENGTH_BYTES {
        return Err(BlockError::from_errno(
            libc::EFBIG,
            "Could not refresh total sector count: File too large",
        ));
    }
    Ok((talk.stream, info))
}

fn with_length(text: &str) -> Vec<u8> {
    let mut data = u32::try_from(text.len()).unwrap_or(0).to_be_bytes().to_vec();
    data.extend_from_slice(text.as_bytes());
    data
}

/// One reply to an option.
struct Reply {
    kind: u32,
    data: Vec<u8>,
}

impl Reply {
    fn is_error(&self) -> bool {
        self.kind >> 31 == 1
    }

    /// The refusal of an option that is needed.
    fn error(&self, option: u32) -> BlockError {
        let about = format!("option {option} ({})", proto::option_name(option));
        let error = match self.kind {
            reply::ERR_UNKNOWN => {
                return BlockError::new(ErrorKind::NotFound, "Requested export not available");
            }
            reply::ERR_POLICY => protocol(format!("Denied by server for {about}")),
            reply::ERR_INVALID => protocol(format!("Invalid parameters for {about}")),
            reply::ERR_PLATFORM => protocol(format!("Server lacks support for {about}")),
            reply::ERR_TLS_REQD => {
                return protocol(format!("TLS negotiation required before {about}"))
                    .with_hint("Did you forget a valid tls-creds?");
            }
            reply::ERR_SHUTDOWN => protocol(format!("Server shutting down before {about}")),
            reply::ERR_BLOCK_SIZE_REQD => protocol(format!("Server requires INFO_BLOCK_SIZE for {about}")),
            _ => protocol(format!("Unknown error code when asking for {about}")),
        };
        let text = String::from_utf8_lossy(&self.data);
        if text.is_empty() {
            error
        } else {
            error.with_hint(format!("server reported: {text}"))
        }
    }

    fn unexpected(&self, expected: u32) -> BlockError {
        protocol(format!(
            "Unexpected reply type {} ({}), expected {expected} ({})",
            self.kind,
            proto::reply_name(self.kind),
            proto::reply_name(expected)
        ))
    }
}

struct Talk {
    stream: Box<dyn Stream>,
}

impl Talk {
    async fn read(&mut self, buffer: &mut [u8], what: &str) -> Result<()> {
        match self.stream.read_exact(buffer).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(protocol(format!(
                "Failed to read {what}: Unexpected end-of-file before all data were read"
            ))),
            Err(error) => Err(BlockError::from(error).context(format_args!("Failed to read {what}"))),
        }
    }

    async fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes, what).await?;
        Ok(bytes)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut result = self.stream.write_all(bytes).await;
        if result.is_ok() {
            result = self.stream.flush().await;
        }
        result.map_err(|error| BlockError::from(error).context("Failed to send option request"))
    }

    /// A server from before there were options.
    async fn oldstyle(&mut self, export: &str) -> Result<ExportInfo> {
        if !export.is_empty() {
            return Err(protocol("Server does not support non-empty export names"));
        }
        let length = u64::from_be_bytes(self.array("export length").await?);
        let flags = u32::from_be_bytes(self.array("export flags").await?);
        // What the old form has in the upper half is the greeting's.
        let flags =
            u16::try_from(flags).map_err(|_| protocol(format!("Unexpected export flags {flags:x}x")))?;
        self.array::<RESERVED_BYTES>("reserved block").await?;
        Ok(ExportInfo::new(length, flags))
    }

    async fn newstyle(
        &mut self,
        export: &str,
        context: &str,
        tls: Option<&dyn TlsUpgrade>,
    ) -> Result<ExportInfo> {
        let flags = u16::from_be_bytes(self.array("server flags").await?);
        let agreed = flags & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        self.write(&u32::from(agreed).to_be_bytes()).await?;
        let no_zeroes = flags & handshake::NO_ZEROES != 0;
        if flags & handshake::FIXED_NEWSTYLE == 0 {
            if tls.is_some() {
                return Err(protocol("Server does not support STARTTLS"));
            }
            return self.export_name(export, no_zeroes).await;
        }
        if let Some(tls) = tls {
            if !self.accepts(option::STARTTLS).await? {
                return Err(protocol("Server does not support STARTTLS option"));
            }
            let plain: Box<dyn Stream> = Box::new(tokio::io::empty());
            let plain = std::mem::replace(&mut self.stream, plain);
            let encrypted = tls.upgrade(plain).await;
            self.stream = encrypted.map_err(|error| protocol(format!("TLS handshake failed: {error}")))?;
        }
        // Extended headers have structured replies in them.
        let extended = self.accepts(option::EXTENDED_HEADERS).await?;
        let structured = extended || self.accepts(option::STRUCTURED_REPLY).await?;
        let context = if structured {
            self.context(export, context).await?
        } else {
            None
        };
        match self.go(export).await? {
            Some(info) => Ok(ExportInfo {
                context,
                extended,
                ..info
            }),
            // Chunks were agreed on all the same, but contexts and extended headers hold with the new option only.
            None if extended => Err(protocol("Server has extended headers, but not option 7 (go)")),
            None => {
                self.look_up(export).await?;
                self.export_name(export, no_zeroes).await
            }
        }
    }

    async fn send(&mut self, option: u32, data: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(16 + data.len());
        out.extend_from_slice(&proto::OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.to_be_bytes());
        out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(data);
        self.write(&out).await
    }

    /// The next reply to an option.
    async fn reply(&mut self, option: u32) -> Result<Reply> {
        let header: [u8; 20] = self.array("option reply").await?;
        let mut cursor = Cursor(&header);
        let (magic, about, kind, len) = (cursor.u64(), cursor.u32(), cursor.u32(), cursor.u32());
        let (Some(about), Some(kind), Some(len)) = (about, kind, len) else {
            return Err(protocol("Failed to read option reply"));
        };
        if magic != Some(proto::OPTION_REPLY_MAGIC) {
            return Err(protocol("Unexpected option reply magic"));
        }
        if about != option {
            return Err(protocol(format!(
                "Unexpected option type {about} ({}), expected {option} ({})",
                proto::option_name(about),
                proto::option_name(option)
            )));
        }
        if len > proto::MAX_OPTION_BYTES {
            return Err(protocol(format!(
                "option {option} ({}) reply is too long",
                proto::option_name(option)
            )));
        }
        let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
        let what = match kind {
            reply::INFO => "info payload",
            reply::META_CONTEXT => "context name",
            reply::SERVER => "export name",
            _ => "option reply payload",
        };
        self.read(&mut data, what).await?;
        Ok(Reply { kind, data })
    }

    /// Whether the server agrees to an option without data.
    async fn accepts(&mut self, option: u32) -> Result<bool> {
        self.send(option, &[]).await?;
        let answer = self.reply(option).await?;
        let name = proto::option_name(option);
        if answer.is_error() {
            return Ok(false);
        }
        if answer.kind != reply::ACK {
            return Err(protocol(format!(
                "Server answered option {option} ({name}) with unexpected reply {} ({})",
                answer.kind,
                proto::reply_name(answer.kind)
            )));
        }
        if answer.data.is_empty() {
            Ok(true)
        } else {
            Err(protocol(format!(
                "Option {option} ('{name}') response length is {} (it should be zero)",
                answer.data.len()
            )))
        }
    }

    /// Chooses the one context; none where the server has none of that name.
    async fn context(&mut self, export: &str, context: &str) -> Result<Option<u32>> {
        const OPTION: u32 = option::SET_META_CONTEXT;
        let mut data = with_length(export);
        data.extend_from_slice(&1u32.to_be_bytes());
        data.extend_from_slice(&with_length(context));
        self.send(OPTION, &data).await?;
        let mut answer = self.reply(OPTION).await?;
        let mut found = None;
        if answer.is_error() {
            return Ok(None);
        }
        if answer.kind == reply::META_CONTEXT {
            let mut cursor = Cursor(&answer.data);
            let Some(id) = cursor.u32().filter(|_| !cursor.0.is_empty()) else {
                return Err(protocol(format!(
                    "Failed to negotiate meta context, server answered with unexpected length {}",
                    answer.data.len()
                )));
            };
            if cursor.0 != context.as_bytes() {
                return Err(protocol(format!(
                    "Failed to negotiate meta context '{context}', server answered with different context '{}'",
                    String::from_utf8_lossy(cursor.0)
                )));
            }
            found = Some(id);
            answer = self.reply(OPTION).await?;
            if answer.kind == reply::META_CONTEXT {
                return Err(protocol("Server answered with more than one context"));
            }
            if answer.is_error() {
                return Ok(None);
            }
        } else if answer.kind != reply::ACK {
            return Err(answer.unexpected(reply::META_CONTEXT));
        }
        if answer.kind != reply::ACK {
            return Err(answer.unexpected(reply::ACK));
        }
        if answer.data.is_empty() {
            Ok(found)
        } else {
            Err(protocol("Unexpected length to ACK response"))
        }
    }

    /// Asks for the export; `None` from a server that does not know this option.
    async fn go(&mut self, export: &str) -> Result<Option<ExportInfo>> {
        let mut data = with_length(export);
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
        self.send(option::GO, &data).await?;
        let mut found = ExportInfo::new(0, 0);
        for _ in 0..MAX_REPLIES {
            let answer = self.reply(option::GO).await?;
            match answer.kind {
                reply::INFO => take_info(&mut found, &answer.data)?,
                reply::ACK if !answer.data.is_empty() => {
                    return Err(protocol("server sent invalid NBD_REP_ACK"));
                }
                reply::ACK if found.flags == 0 => {
                    return Err(protocol("broken server omitted NBD_INFO_EXPORT"));
                }
                reply::ACK => {
                    found.maximum_block -= found.maximum_block % found.minimum_block;
                    return Ok(Some(found));
                }
                reply::ERR_UNSUP => return Ok(None),
                _ if answer.is_error() => return Err(answer.error(option::GO)),
                _ => return Err(answer.unexpected(reply::INFO)),
            }
        }
        Err(protocol("too many option replies"))
    }

    /// Whether an old server lists the export: its way to be asked for one has no reply that says that there is none.
    async fn look_up(&mut self, export: &str) -> Result<()> {
        self.send(option::LIST, &[]).await?;
        let mut found = false;
        for _ in 0..MAX_REPLIES {
            let answer = self.reply(option::LIST).await?;
            match answer.kind {
                reply::SERVER => {
                    let mut cursor = Cursor(&answer.data);
                    let len = cursor.u32().and_then(|len| usize::try_from(len).ok());
                    let name = len
                        .and_then(|len| cursor.take(len))
                        .ok_or_else(|| protocol("incorrect option name length"))?;
                    found |= name == export.as_bytes();
                }
                reply::ACK if found => return Ok(()),
                reply::ACK => {
                    return Err(protocol(format!("No export with name '{export}' available")));
                }
                // It does not want to tell, which does not mean that it has not.
                reply::ERR_UNSUP => return Ok(()),
                _ if answer.is_error() => return Err(answer.error(option::LIST)),
                _ => return Err(answer.unexpected(reply::SERVER)),
            }
        }
        Err(protocol("too many option replies"))
    }

    /// Asks for the export in the old way, in which a server that has it not just leaves.
    async fn export_name(&mut self, export: &str, no_zeroes: bool) -> Result<ExportInfo> {
        self.send(option::EXPORT_NAME, export.as_bytes()).await?;
        let length = u64::from_be_bytes(self.array("export length").await?);
        let flags = u16::from_be_bytes(self.array("export flags").await?);
        if !no_zeroes {
            self.array::<RESERVED_BYTES>("reserved block").await?;
        }
        Ok(ExportInfo::new(length, flags))
    }
}

/// One piece of information about the export.
fn take_info(found: &mut ExportInfo, data: &[u8]) -> Result<()> {
    let mut cursor = Cursor(data);
    let Some(kind) = cursor.u16() else {
        let len = data.len();
        return Err(protocol(format!("NBD_REP_INFO length {len} is too short")));
    };
    let rest = cursor.0.len();
    let unexpected = || protocol(format!("remaining export info len {rest} is unexpected size"));
    match kind {
        info::EXPORT => {
            let (Some(length), Some(flags)) = (cursor.u64(), cursor.u16()) else {
                return Err(unexpected());
            };
            if !cursor.0.is_empty() {
                return Err(unexpected());
            }
            (found.length, found.flags) = (length, flags);
        }
        info::BLOCK_SIZE => {
            let (Some(minimum), Some(preferred), Some(maximum)) = (cursor.u32(), cursor.u32(), cursor.u32())
            else {
                return Err(unexpected());
            };
            if !cursor.0.is_empty() {
                return Err(unexpected());
            }
            if !minimum.is_power_of_two() || minimum > MAX_BLOCK_BYTES {
                return Err(protocol(format!(
                    "server minimum block size {minimum} is not a power of two"
                )));
            }
            if !preferred.is_power_of_two() || preferred < minimum {
                return Err(protocol(format!(
                    "server preferred block size {preferred} is not valid"
                )));
            }
            if maximum < minimum {
                return Err(protocol(format!(
                    "server maximum block size {maximum} is not valid"
                )));
            }
            found.minimum_block = minimum;
            found.maximum_block = maximum.min(proto::MAX_PAYLOAD_BYTES);
        }
        _ => {}
    }
    Ok(())
}
