//! The fixed newstyle negotiation: from the first byte to the start of transmission.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;
use super::context::Context;
use super::export::{Client, Export};
use super::proto::{self, Cursor, Malformed, ReplyMode, handshake, info, option, reply};
use super::server::Server;

/// What a client and the server agreed on.
pub(super) struct Agreed {
    pub(super) stream: Box<dyn Stream>,
    pub(super) client: Client,
    pub(super) mode: ReplyMode,
    pub(super) contexts: Vec<Context>,
}

struct Negotiation<'a> {
    server: &'a Arc<Server>,
    stream: Box<dyn Stream>,
    no_zeroes: bool,
    /// The client knows the fixed form of the negotiation, in which options can be refused.
    fixed: bool,
    /// TLS is in force.
    secure: bool,
    mode: ReplyMode,
    /// The export that contexts were chosen for, and the contexts.
    contexts: Option<(String, Vec<Context>)>,
}

enum Next {
    More,
    Leave,
    Start(Client),
}

/// Negotiates; `None` when the client left without starting transmission.
pub(super) async fn negotiate(
    server: &Arc<Server>,
    mut stream: Box<dyn Stream>,
) -> io::Result<Option<Agreed>> {
    let mut hello = Vec::with_capacity(18);
    hello.extend_from_slice(&proto::INIT_MAGIC.to_be_bytes());
    hello.extend_from_slice(&proto::OPTION_MAGIC.to_be_bytes());
    hello.extend_from_slice(&(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES).to_be_bytes());
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let flags = stream.read_u32().await?;
    let known = u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
    if flags & !known != 0 {
        return Err(invalid("unknown client flags"));
    }
    let mut negotiation = Negotiation {
        server,
        stream,
        fixed: flags & u32::from(handshake::FIXED_NEWSTYLE) != 0,
        no_zeroes: flags & u32::from(handshake::NO_ZEROES) != 0,
        secure: false,
        mode: ReplyMode::Simple,
        contexts: None,
    };
    loop {
        match negotiation.option().await? {
            Next::More => {}
            Next::Leave => return Ok(None),
            Next::Start(client) => {
                // Contexts hold for the export that they were chosen for, only.
                let contexts = match negotiation.contexts {
                    Some((name, contexts)) if name == client.export().name() => contexts,
                    _ => Vec::new(),
                };
                return Ok(Some(Agreed {
                    stream: negotiation.stream,
                    client,
                    mode: negotiation.mode,
                    contexts,
                }));
            }
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Negotiation<'_> {
    async fn option(&mut self) -> io::Result<Next> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).await?;
        let mut cursor = Cursor(&header);
        let (Some(magic), Some(option), Some(len)) = (cursor.u64(), cursor.u32(), cursor.u32()) else {
            return Err(invalid("short option"));
        };
        if magic != proto::OPTION_MAGIC {
            return Err(invalid("bad option magic"));
        }
        if len > proto::MAX_PAYLOAD_BYTES || (len > proto::MAX_OPTION_BYTES && option == option::EXPORT_NAME)
        {
            return Err(invalid("option too long"));
        }
        if !self.fixed && option != option::EXPORT_NAME {
            return Err(invalid("a client of the old negotiation sent an option"));
        }
        // Nobody needs so much data; what is left of it serves to say what is wrong.
        let kept = len.min(proto::MAX_OPTION_BYTES);
        let mut data = vec![0; usize::try_from(kept).unwrap_or(0)];
        self.stream.read_exact(&mut data).await?;
        if len > kept {
            self.skip(len - kept).await?;
            let takes_data = matches!(
                option,
                option::INFO | option::GO | option::LIST_META_CONTEXT | option::SET_META_CONTEXT
            );
            if takes_data {
                return self
                    .refuse(option, reply::ERR_TOO_BIG, b"option payload is too long")
                    .await;
            }
        }
        if self.server.config().tls.is_some() && !self.secure {
            return self.before_tls(option, &data).await;
        }
        match option {
            option::EXPORT_NAME => self.export_name(&data).await,
            option::ABORT => {
                self.reply(option, reply::ACK, b"").await?;
                Ok(Next::Leave)
            }
            option::LIST => self.list(&data).await,
            option::STARTTLS => {
                if !data.is_empty() {
                    return self.malformed(option, Malformed::Trailing).await;
                }
                let (kind, text): (_, &[u8]) = if self.secure {
                    (reply::ERR_INVALID, b"TLS already enabled")
                } else {
                    (reply::ERR_POLICY, b"TLS not configured")
                };
                self.refuse(option, kind, text).await
            }
            option::INFO | option::GO => self.info(option, &data).await,
            option::STRUCTURED_REPLY => self.structured(&data).await,
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta(option, &data).await,
            option::EXTENDED_HEADERS => self.extended(&data).await,
            other => {
                let text = format!("Unsupported option {other} ({})", proto::option_name(other));
                self.refuse(option, reply::ERR_UNSUP, text.as_bytes()).await
            }
        }
    }

    async fn skip(&mut self, len: u32) -> io::Result<()> {
        let mut rest = usize::try_from(len).unwrap_or(usize::MAX);
        let mut sink = [0; 4096];
        while rest > 0 {
            let want = rest.min(sink.len());
            let count = self.stream.read(&mut sink[..want]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest -= count;
        }
        Ok(())
    }

    async fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(20 + data.len());
        proto::option_reply(&mut out, option, kind, data);
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    async fn refuse(&mut self, option: u32, kind: u32, text: &[u8]) -> io::Result<Next> {
        self.reply(option, kind, text).await?;
        Ok(Next::More)
    }

    async fn malformed(&mut self, option: u32, why: Malformed) -> io::Result<Next> {
        self.refuse(option, reply::ERR_INVALID, why.text(option).as_bytes())
            .await
    }

    fn find(&self, name: &[u8]) -> Option<Arc<Export>> {
        self.server.find(std::str::from_utf8(name).ok()?)
    }

    async fn not_present(&mut self, option: u32, name: &[u8]) -> io::Result<Next> {
        let text = format!("export '{}' not present", String::from_utf8_lossy(name));
        self.refuse(option, reply::ERR_UNKNOWN, text.as_bytes()).await
    }

    async fn before_tls(&mut self, option: u32, data: &[u8]) -> io::Result<Next> {
        match option {
            option::STARTTLS if data.is_empty() => {
                self.reply(option, reply::ACK, b"").await?;
                let Some(tls) = self.server.config().tls.clone() else {
                    return Err(invalid("TLS is gone"));
                };
                let plain: Box<dyn Stream> = Box::new(tokio::io::empty());
                let plain = std::mem::replace(&mut self.stream, plain);
                self.stream = tls.upgrade(plain).await?;
                self.secure = true;
                // What was agreed on in the clear counts no more.
                self.mode = ReplyMode::Simple;
                self.contexts = None;
                Ok(Next::More)
            }
            option::STARTTLS => self.malformed(option, Malformed::Trailing).await,
            option::ABORT => {
                self.reply(option, reply::ACK, b"").await?;
                Ok(Next::Leave)
            }
            // This option has no error reply.
            option::EXPORT_NAME => Err(invalid("Option 0x1 not permitted before TLS")),
            _ => {
                let text = format!("Option 0x{option:x} not permitted before TLS");
                self.refuse(option, reply::ERR_TLS_REQD, text.as_bytes()).await
            }
        }
    }

    async fn export_name(&mut self, data: &[u8]) -> io::Result<Next> {
        let name = std::str::from_utf8(data).map_err(|_| invalid("export name is not UTF-8"))?;
        if self.mode == ReplyMode::Extended {
            return Err(invalid("Extended headers already negotiated"));
        }
        let export = self
            .server
            .find(name)
            .ok_or_else(|| invalid("export not found"))?;
        let client = export.join().ok_or_else(|| invalid("export is closing"))?;
        let mut out = Vec::with_capacity(134);
        out.extend_from_slice(&export.backend().length().to_be_bytes());
        out.extend_from_slice(&export.flags(self.mode).to_be_bytes());
        if !self.no_zeroes {
            out.resize(134, 0);
        }
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(Next::Start(client))
    }

    async fn list(&mut self, data: &[u8]) -> io::Result<Next> {
        if !data.is_empty() {
            return self.malformed(option::LIST, Malformed::Trailing).await;
        }
        let mut out = Vec::new();
        for export in self.server.exports() {
            let mut item = Vec::new();
            item.extend_from_slice(&length_prefix(export.name()));
            item.extend_from_slice(export.name().as_bytes());
            item.extend_from_slice(export.description().unwrap_or_default().as_bytes());
            proto::option_reply(&mut out, option::LIST, reply::SERVER, &item);
        }
        proto::option_reply(&mut out, option::LIST, reply::ACK, b"");
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(Next::More)
    }

    async fn info(&mut self, option: u32, data: &[u8]) -> io::Result<Next> {
        let request = match proto::parse_info(data) {
            Ok(request) => request,
            Err(why) => return self.malformed(option, why).await,
        };
        let Some(export) = self.find(request.name) else {
            return self.not_present(option, request.name).await;
        };
        let mut out = Vec::new();
        let mut piece = |kind: u16, data: &[u8]| {
            let mut item = kind.to_be_bytes().to_vec();
            item.extend_from_slice(data);
            proto::option_reply(&mut out, option, reply::INFO, &item);
        };
        let asked = |kind| request.kinds.contains(&kind);
        if asked(info::NAME) {
            piece(info::NAME, export.name().as_bytes());
        }
        // Told to everyone, asked for or not, as QEMU does.
        if let Some(text) = export.description() {
            piece(info::DESCRIPTION, text.as_bytes());
        }
        // A client that does not ask for sizes is taken to know none: unaligned requests are served in any case.
        let mut sizes = Vec::with_capacity(12);
        let limits = export.backend().limits();
        let minimum = if asked(info::BLOCK_SIZE) {
            limits.request_alignment.max(1)
        } else {
            1
        };
        sizes.extend_from_slice(&minimum.to_be_bytes());
        sizes.extend_from_slice(&minimum.max(4096).to_be_bytes());
        sizes.extend_from_slice(&proto::MAX_PAYLOAD_BYTES.to_be_bytes());
        piece(info::BLOCK_SIZE, &sizes);
        let mut main = export.backend().length().to_be_bytes().to_vec();
        main.extend_from_slice(&export.flags(self.mode).to_be_bytes());
        piece(info::EXPORT, &main);
        let next = if option == option::GO {
            let Some(client) = export.join() else {
                return self
                    .refuse(option, reply::ERR_SHUTDOWN, b"export is closing")
                    .await;
            };
            Next::Start(client)
        } else {
            Next::More
        };
        proto::option_reply(&mut out, option, reply::ACK, b"");
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(next)
    }

    async fn structured(&mut self, data: &[u8]) -> io::Result<Next> {
        let option = option::STRUCTURED_REPLY;
        if !data.is_empty() {
            return self.malformed(option, Malformed::Trailing).await;
        }
        match self.mode {
            ReplyMode::Extended => {
                self.refuse(
                    option,
                    reply::ERR_EXT_HEADER_REQD,
                    b"extended headers already negotiated",
                )
                .await
            }
            ReplyMode::Structured => {
                self.refuse(option, reply::ERR_INVALID, b"structured reply already negotiated")
                    .await
            }
            ReplyMode::Simple => {
                self.mode = ReplyMode::Structured;
                self.reply(option, reply::ACK, b"").await?;
                Ok(Next::More)
            }
        }
    }

    async fn extended(&mut self, data: &[u8]) -> io::Result<Next> {
        let option = option::EXTENDED_HEADERS;
        if !data.is_empty() {
            return self.malformed(option, Malformed::Trailing).await;
        }
        if self.mode == ReplyMode::Extended {
            return self
                .refuse(option, reply::ERR_INVALID, b"extended headers already negotiated")
                .await;
        }
        self.mode = ReplyMode::Extended;
        self.reply(option, reply::ACK, b"").await?;
        Ok(Next::More)
    }

    async fn meta(&mut self, option: u32, data: &[u8]) -> io::Result<Next> {
        let setting = option == option::SET_META_CONTEXT;
        if setting && !self.mode.is_chunked() {
            let text = b"request option 'set meta context' when structured reply is not negotiated";
            return self.refuse(option, reply::ERR_INVALID, text).await;
        }
        if setting {
            self.contexts = None;
        }
        let request = match proto::parse_contexts(data) {
            Ok(request) => request,
            Err(why) => return self.malformed(option, why).await,
        };
        let Some(export) = self.find(request.name) else {
            return self.not_present(option, request.name).await;
        };
        let queries = match request.queries {
            Ok(queries) => queries,
            Err(why) => return self.malformed(option, why).await,
        };
        let chosen = choose(&export, &queries, !setting);
        let mut out = Vec::new();
        for context in &chosen {
            // The id is reserved (zero) while listing.
            let mut item = (if setting { context.id() } else { 0 }).to_be_bytes().to_vec();
            item.extend_from_slice(context.name(&export).as_bytes());
            proto::option_reply(&mut out, option, reply::META_CONTEXT, &item);
        }
        proto::option_reply(&mut out, option, reply::ACK, b"");
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        if setting {
            self.contexts = Some((export.name().to_owned(), chosen));
        }
        Ok(Next::More)
    }
}

fn choose(export: &Export, queries: &[&[u8]], listing: bool) -> Vec<Context> {
    let mut all = Context::all(export);
    // A list request without queries asks for everything.
    if !(listing && queries.is_empty()) {
        all.retain(|context| {
            queries
                .iter()
                .any(|query| context.matches(export, query, listing))
        });
    }
    all
}

fn length_prefix(text: &str) -> [u8; 4] {
    u32::try_from(text.len()).unwrap_or(0).to_be_bytes()
}
