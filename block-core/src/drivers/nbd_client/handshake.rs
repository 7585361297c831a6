//! The client's side of the NBD negotiation.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{BlockError, ErrorKind, Result};
use crate::nbd::proto::{self, Cursor, export_flag, handshake, info, option, reply};
use crate::nbd::{Stream, TlsUpgrade};

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
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

fn protocol(text: &str) -> BlockError {
    BlockError::new(ErrorKind::Io, text)
}

fn broken(error: &io::Error) -> BlockError {
    BlockError::from_errno(5, format!("Failed to read data: {error}"))
}

/// Negotiates for an export. `context` is the metadata context to ask for.
pub(super) async fn negotiate(
    mut stream: Box<dyn Stream>,
    export: &str,
    context: &str,
    tls: Option<&dyn TlsUpgrade>,
) -> Result<(Box<dyn Stream>, ExportInfo)> {
    let mut hello = [0; 18];
    stream
        .read_exact(&mut hello)
        .await
        .map_err(|error| broken(&error))?;
    let mut cursor = Cursor(&hello);
    if cursor.u64() != Some(proto::INIT_MAGIC) {
        return Err(protocol("Bad initial magic received"));
    }
    if cursor.u64() != Some(proto::OPTION_MAGIC) {
        return Err(protocol("Bad server magic received"));
    }
    let flags = cursor.u16().unwrap_or(0);
    if flags & handshake::FIXED_NEWSTYLE == 0 {
        return Err(protocol("Server does not support fixed newstyle negotiation"));
    }
    let answer = u32::from(flags & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES));
    stream
        .write_all(&answer.to_be_bytes())
        .await
        .map_err(|error| broken(&error))?;
    let mut talk = Talk { stream };
    if let Some(tls) = tls {
        match talk.ask(option::STARTTLS, &[]).await?.pop() {
            Some((reply::ACK, _)) => {}
            _ => return Err(protocol("Server does not support STARTTLS option")),
        }
        let encrypted = tls.upgrade(talk.stream).await;
        talk.stream = encrypted.map_err(|error| protocol(&format!("TLS handshake failed: {error}")))?;
    }
    // Extended headers have structured replies in them.
    let extended = talk.accepts(option::EXTENDED_HEADERS).await?;
    let structured = extended || talk.accepts(option::STRUCTURED_REPLY).await?;
    let context = if structured {
        talk.context(export, context).await?
    } else {
        None
    };
    let info = talk.go(export, context).await?;
    Ok((talk.stream, ExportInfo { extended, ..info }))
}

struct Talk {
    stream: Box<dyn Stream>,
}

fn with_length(text: &str) -> Vec<u8> {
    let mut data = u32::try_from(text.len()).unwrap_or(0).to_be_bytes().to_vec();
    data.extend_from_slice(text.as_bytes());
    data
}

impl Talk {
    /// Sends an option and gives all replies up to the last one.
    async fn ask(&mut self, option: u32, data: &[u8]) -> Result<Vec<(u32, Vec<u8>)>> {
        let mut out = Vec::with_capacity(16 + data.len());
        out.extend_from_slice(&proto::OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.to_be_bytes());
        out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(data);
        self.stream
            .write_all(&out)
            .await
            .map_err(|error| broken(&error))?;
        self.stream.flush().await.map_err(|error| broken(&error))?;
        let mut replies = Vec::new();
        // A server that never comes to an end is cut off.
        for _ in 0..1024 {
            let mut header = [0; 20];
            self.stream
                .read_exact(&mut header)
                .await
                .map_err(|error| broken(&error))?;
            let mut cursor = Cursor(&header);
            let (magic, about, kind, len) = (cursor.u64(), cursor.u32(), cursor.u32(), cursor.u32());
            let (Some(kind), Some(len)) = (kind, len) else {
                return Err(protocol("Short option reply"));
            };
            if magic != Some(proto::OPTION_REPLY_MAGIC) {
                return Err(protocol("Unexpected option reply magic"));
            }
            if about != Some(option) {
                return Err(protocol("Unexpected option type"));
            }
            if len > proto::MAX_OPTION_BYTES {
                return Err(protocol("option reply too long"));
            }
            let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
            self.stream
                .read_exact(&mut data)
                .await
                .map_err(|error| broken(&error))?;
            replies.push((kind, data));
            if kind == reply::ACK || kind >> 31 == 1 {
                return Ok(replies);
            }
        }
        Err(protocol("too many option replies"))
    }

    /// Whether the server agrees to an option without data.
    async fn accepts(&mut self, option: u32) -> Result<bool> {
        Ok(matches!(
            self.ask(option, &[]).await?.pop(),
            Some((reply::ACK, _))
        ))
    }

    async fn context(&mut self, export: &str, context: &str) -> Result<Option<u32>> {
        let mut data = with_length(export);
        data.extend_from_slice(&1u32.to_be_bytes());
        data.extend_from_slice(&with_length(context));
        let replies = self.ask(option::SET_META_CONTEXT, &data).await?;
        Ok(replies.into_iter().find_map(|(kind, data)| {
            let mut cursor = Cursor(&data);
            let id = cursor.u32()?;
            (kind == reply::META_CONTEXT && cursor.0 == context.as_bytes()).then_some(id)
        }))
    }

    async fn go(&mut self, export: &str, context: Option<u32>) -> Result<ExportInfo> {
        let mut data = with_length(export);
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
        let mut found = ExportInfo {
            length: 0,
            flags: 0,
            minimum_block: 1,
            maximum_block: proto::MAX_PAYLOAD_BYTES,
            context,
            extended: false,
        };
        let mut seen = false;
        for (kind, data) in self.ask(option::GO, &data).await? {
            let mut cursor = Cursor(&data);
            match kind {
                reply::INFO => match cursor.u16() {
                    Some(info::EXPORT) => {
                        let (Some(length), Some(flags)) = (cursor.u64(), cursor.u16()) else {
                            return Err(protocol("invalid export info"));
                        };
                        found.length = length;
                        found.flags = flags;
                        seen = true;
                    }
                    Some(info::BLOCK_SIZE) => {
                        let (Some(minimum), Some(_), Some(maximum)) =
                            (cursor.u32(), cursor.u32(), cursor.u32())
                        else {
                            return Err(protocol("invalid block size info"));
                        };
                        if !minimum.is_power_of_two() || minimum > 64 << 10 || maximum < minimum {
                            return Err(protocol("server's block sizes make no sense"));
                        }
                        found.minimum_block = minimum;
                        found.maximum_block = maximum.min(proto::MAX_PAYLOAD_BYTES) / minimum * minimum;
                    }
                    _ => {}
                },
                reply::ACK => {}
                reply::ERR_UNKNOWN => {
                    return Err(BlockError::new(
                        ErrorKind::NotFound,
                        "Requested export not available",
                    ));
                }
                reply::ERR_TLS_REQD => {
                    return Err(protocol("Server requires TLS for option 7 (go)")
                        .with_hint("Did you forget a valid tls-creds?"));
                }
                _ => return Err(protocol(&String::from_utf8_lossy(&data))),
            }
        }
        if !seen || found.flags & export_flag::HAS_FLAGS == 0 {
            return Err(protocol("broken server omitted NBD_INFO_EXPORT"));
        }
        if found.length > crate::types::MAX_LENGTH_BYTES {
            return Err(protocol("export length is too large"));
        }
        Ok(found)
    }
}
