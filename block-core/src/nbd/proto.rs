//! The NBD protocol on the wire: numbers, and the translation between bytes and requests.
//!
//! Pure: nothing here reads a socket. Everything that comes in is checked before it is believed.

/// First eight bytes of every server: `NBDMAGIC`.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second: `IHAVEOPT`; also starts every option of a client.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second, from servers that know no options.
pub const OLD_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Starts every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Starts a compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Starts an extended request.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Starts a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Starts a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Starts an extended reply chunk.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Length of a compact request's header.
pub const REQUEST_BYTES: usize = 28;
/// Length of an extended request's header.
pub const EXTENDED_REQUEST_BYTES: usize = 32;

/// The longest payload of a read or write.
pub const MAX_PAYLOAD_BYTES: u32 = 32 << 20;
/// The longest name or description.
pub const MAX_STRING_BYTES: usize = 4096;
/// The longest option data that is looked at; longer ones are skipped and refused.
pub const MAX_OPTION_BYTES: u32 = 64 << 10;

/// Handshake flags, both ways.
pub mod handshake {
    /// The fixed newstyle negotiation.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// No 124 zero bytes after an old-style export name.
    pub const NO_ZEROES: u16 = 2;
}

/// Options of a client.
pub mod option {
    /// Old-style end of the negotiation.
    pub const EXPORT_NAME: u32 = 1;
    /// The client leaves.
    pub const ABORT: u32 = 2;
    /// Lists the exports.
    pub const LIST: u32 = 3;
    /// Starts TLS.
    pub const STARTTLS: u32 = 5;
    /// Asks about an export.
    pub const INFO: u32 = 6;
    /// Asks and ends the negotiation.
    pub const GO: u32 = 7;
    /// Asks for structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Lists metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Chooses metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Asks for extended headers.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Replies to options.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export.
    pub const SERVER: u32 = 2;
    /// One piece of information.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Not known.
    pub const ERR_UNSUP: u32 = 1 | 1 << 31;
    /// Forbidden.
    pub const ERR_POLICY: u32 = 2 | 1 << 31;
    /// Not understood.
    pub const ERR_INVALID: u32 = 3 | 1 << 31;
    /// Not possible here.
    pub const ERR_PLATFORM: u32 = 4 | 1 << 31;
    /// TLS first.
    pub const ERR_TLS_REQD: u32 = 5 | 1 << 31;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = 6 | 1 << 31;
    /// The server goes away.
    pub const ERR_SHUTDOWN: u32 = 7 | 1 << 31;
    /// The client must ask for block sizes.
    pub const ERR_BLOCK_SIZE_REQD: u32 = 8 | 1 << 31;
    /// Too long.
    pub const ERR_TOO_BIG: u32 = 9 | 1 << 31;
    /// Extended headers are in force already.
    pub const ERR_EXT_HEADER_REQD: u32 = 10 | 1 << 31;
}

/// Kinds of information.
pub mod info {
    /// Size and flags.
    pub const EXPORT: u16 = 0;
    /// Name.
    pub const NAME: u16 = 1;
    /// Description.
    pub const DESCRIPTION: u16 = 2;
    /// Block sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Flags of an export.
pub mod export_flag {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1;
    /// Refuses writes.
    pub const READ_ONLY: u16 = 1 << 1;
    /// Knows FLUSH.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// Knows FUA.
    pub const SEND_FUA: u16 = 1 << 3;
    /// Knows TRIM.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// Knows WRITE_ZEROES.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// Knows the DF flag.
    pub const SEND_DF: u16 = 1 << 7;
    /// Several connections see one cache.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// Knows RESIZE.
    pub const SEND_RESIZE: u16 = 1 << 9;
    /// Knows CACHE.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// Knows the fast-zero flag.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
    /// Takes a payload with BLOCK_STATUS that chooses contexts.
    pub const BLOCK_STAT_PAYLOAD: u16 = 1 << 12;
}

/// Commands.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// The client leaves.
    pub const DISC: u16 = 2;
    /// Flush.
    pub const FLUSH: u16 = 3;
    /// Trim.
    pub const TRIM: u16 = 4;
    /// Prefetch.
    pub const CACHE: u16 = 5;
    /// Write zeroes.
    pub const WRITE_ZEROES: u16 = 6;
    /// Block status.
    pub const BLOCK_STATUS: u16 = 7;
    /// Resize.
    pub const RESIZE: u16 = 8;
}

/// Flags of commands.
pub mod command_flag {
    /// On stable storage before the reply.
    pub const FUA: u16 = 1;
    /// Zeroes must keep their space.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One data chunk.
    pub const DF: u16 = 1 << 2;
    /// One extent per context.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Zeroes only if that is fast.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// The length is that of the payload.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Chunks of structured replies.
pub mod chunk {
    /// Flag: the last one.
    pub const DONE: u16 = 1;
    /// Nothing more to say.
    pub const NONE: u16 = 0;
    /// Offset and data.
    pub const OFFSET_DATA: u16 = 1;
    /// Offset and length of zeroes.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents with 32-bit lengths.
    pub const BLOCK_STATUS: u16 = 5;
    /// Extents with 64-bit lengths.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// An error.
    pub const ERROR: u16 = 1 | 1 << 15;
    /// An error at an offset.
    pub const ERROR_OFFSET: u16 = 2 | 1 << 15;
}

/// Flags of `base:allocation`.
pub mod state {
    /// Not allocated.
    pub const HOLE: u32 = 1;
    /// Reads as zeroes.
    pub const ZERO: u32 = 2;
    /// Flag of `qemu:dirty-bitmap:`: dirty.
    pub const DIRTY: u32 = 1;
}

/// The protocol's number for an errno of Linux.
pub fn wire_errno(errno: i32) -> u32 {
    match errno {
        0 => 0,
        1 | 30 => 1,
        5 => 5,
        12 => 12,
        27 | 28 | 122 => 28,
        75 => 75,
        95 => 95,
        108 => 108,
        // Everything that the protocol has no number for (EACCES of a point in time, a timeout).
        _ => 22,
    }
}

/// The errno of Linux for the protocol's number.
pub fn local_errno(wire: u32) -> i32 {
    match wire {
        1 => 1,
        5 => 5,
        12 => 12,
        28 => 28,
        75 => 75,
        95 => 95,
        108 => 108,
        // What is not known counts as an invalid request, as the protocol says.
        _ => 22,
    }
}

/// A request, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// See [`command_flag`].
    pub flags: u16,
    /// See [`command`].
    pub command: u16,
    /// The client's mark.
    pub cookie: u64,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes of what is asked for or sent.
    pub len: u64,
}

/// The payload of a block status request: for how many bytes, and of which contexts.
pub fn parse_status_payload(payload: &[u8]) -> Option<(u64, Vec<u32>)> {
    let mut cursor = Cursor(payload);
    let len = cursor.u64()?;
    let mut ids = Vec::new();
    while !cursor.0.is_empty() {
        ids.push(cursor.u32()?);
    }
    Some((len, ids))
}

/// The stream does not hold a request where one must be: nothing after it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadMagic {
    /// What stands there.
    pub got: u32,
    /// What should.
    pub expected: u32,
    /// What would be the request, for the answer.
    pub request: Request,
}

impl Request {
    /// Reads a request's header from the start of `bytes`; `None` when more bytes are needed.
    pub fn parse(bytes: &[u8], extended: bool) -> Result<Option<(Self, usize)>, BadMagic> {
        let mut cursor = Cursor(bytes);
        let Some(magic) = cursor.u32() else {
            return Ok(None);
        };
        let expected = if extended {
            EXTENDED_REQUEST_MAGIC
        } else {
            REQUEST_MAGIC
        };
        let size = if extended {
            EXTENDED_REQUEST_BYTES
        } else {
            REQUEST_BYTES
        };
        let request = (|| {
            let (flags, command) = (cursor.u16()?, cursor.u16()?);
            let (cookie, offset) = (cursor.u64()?, cursor.u64()?);
            let len = if extended {
                cursor.u64()?
            } else {
                u64::from(cursor.u32()?)
            };
            Some(Self {
                flags,
                command,
                cookie,
                offset,
                len,
            })
        })();
        match request {
            None => Ok(None),
            Some(request) if magic == expected => Ok(Some((request, size))),
            Some(request) => Err(BadMagic {
                got: magic,
                expected,
                request,
            }),
        }
    }

    /// Appends the request as it goes over the wire.
    pub fn encode(&self, extended: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(
            &(if extended {
                EXTENDED_REQUEST_MAGIC
            } else {
                REQUEST_MAGIC
            })
            .to_be_bytes(),
        );
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.command.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        if extended {
            out.extend_from_slice(&self.len.to_be_bytes());
        } else {
            // Compact headers carry 32 bits; callers keep to it.
            out.extend_from_slice(&u32::try_from(self.len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }

    /// Whether the flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// How many bytes of payload follow the header.
    pub fn payload_bytes(&self, extended: bool) -> u64 {
        if self.command == command::WRITE || (extended && self.has(command_flag::PAYLOAD_LEN)) {
            self.len
        } else {
            0
        }
    }
}

/// How replies look on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// Simple replies only.
    Simple,
    /// Structured replies for reads and block status, simple ones allowed for the rest.
    Structured,
    /// Extended chunks for everything.
    Extended,
}

impl ReplyMode {
    /// Whether replies come in chunks.
    pub fn is_chunked(self) -> bool {
        self != Self::Simple
    }

    /// The longest header of any reply, offset of data included.
    pub const MAX_HEADER_BYTES: usize = 40;
}

/// Writes the header of a simple reply.
pub fn simple_header(out: &mut Vec<u8>, errno: u32, cookie: u64) {
    out.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&errno.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
}

/// Writes the header of a chunk whose payload of `len` bytes follows. `request_offset` is what the extended form
/// carries.
pub fn chunk_header(
    out: &mut Vec<u8>,
    mode: ReplyMode,
    flags: u16,
    kind: u16,
    cookie: u64,
    request_offset: u64,
    len: u32,
) {
    let magic = if mode == ReplyMode::Extended {
        EXTENDED_REPLY_MAGIC
    } else {
        STRUCTURED_REPLY_MAGIC
    };
    out.extend_from_slice(&magic.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    if mode == ReplyMode::Extended {
        out.extend_from_slice(&request_offset.to_be_bytes());
        out.extend_from_slice(&u64::from(len).to_be_bytes());
    } else {
        out.extend_from_slice(&len.to_be_bytes());
    }
}

/// Appends the whole reply to a request without data: success or an error, with a text where the form has room.
pub fn plain_reply(out: &mut Vec<u8>, mode: ReplyMode, request: &Request, errno: i32, message: &str) {
    let wire = wire_errno(errno);
    // A structured connection may answer reads and status in chunks only; for the rest either is right.
    let in_chunks = match mode {
        ReplyMode::Simple => false,
        ReplyMode::Structured => {
            wire != 0 || matches!(request.command, command::READ | command::BLOCK_STATUS)
        }
        ReplyMode::Extended => true,
    };
    if !in_chunks {
        simple_header(out, wire, request.cookie);
    } else if wire == 0 {
        chunk_header(
            out,
            mode,
            chunk::DONE,
            chunk::NONE,
            request.cookie,
            request.offset,
            0,
        );
    } else {
        let text = &message.as_bytes()[..message.floor_char_boundary_at(MAX_STRING_BYTES)];
        let text_len = u16::try_from(text.len()).unwrap_or(0);
        chunk_header(
            out,
            mode,
            chunk::DONE,
            chunk::ERROR,
            request.cookie,
            request.offset,
            6 + u32::from(text_len),
        );
        out.extend_from_slice(&wire.to_be_bytes());
        out.extend_from_slice(&text_len.to_be_bytes());
        out.extend_from_slice(&text[..usize::from(text_len)]);
    }
}

trait CharBoundary {
    fn floor_char_boundary_at(&self, at: usize) -> usize;
}

impl CharBoundary for str {
    fn floor_char_boundary_at(&self, at: usize) -> usize {
        let mut at = at.min(self.len());
        while !self.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// Writes the header of a reply that carries `len` bytes read from `offset`; the bytes follow.
pub fn read_header(out: &mut Vec<u8>, mode: ReplyMode, request: &Request, offset: u64, len: u32, last: bool) {
    if mode.is_chunked() {
        let flags = if last { chunk::DONE } else { 0 };
        chunk_header(
            out,
            mode,
            flags,
            chunk::OFFSET_DATA,
            request.cookie,
            request.offset,
            len.saturating_add(8),
        );
        out.extend_from_slice(&offset.to_be_bytes());
    } else {
        simple_header(out, 0, request.cookie);
    }
}

/// Appends a chunk that says that `len` bytes from `offset` on are zeroes.
pub fn hole_chunk(out: &mut Vec<u8>, mode: ReplyMode, request: &Request, offset: u64, len: u32, last: bool) {
    const BODY_BYTES: u32 = 12;
    chunk_header(
        out,
        mode,
        if last { chunk::DONE } else { 0 },
        chunk::OFFSET_HOLE,
        request.cookie,
        request.offset,
        BODY_BYTES,
    );
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

/// Appends one context's extents.
pub fn status_chunk(
    out: &mut Vec<u8>,
    mode: ReplyMode,
    request: &Request,
    context: u32,
    extents: &[(u64, u32)],
    last: bool,
) {
    let flags = if last { chunk::DONE } else { 0 };
    let count = u32::try_from(extents.len()).unwrap_or(u32::MAX);
    if mode == ReplyMode::Extended {
        let len = 8u32.saturating_add(count.saturating_mul(16));
        chunk_header(
            out,
            mode,
            flags,
            chunk::BLOCK_STATUS_EXT,
            request.cookie,
            request.offset,
            len,
        );
        out.extend_from_slice(&context.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        for (len, flags) in extents {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&u64::from(*flags).to_be_bytes());
        }
    } else {
        let len = 4u32.saturating_add(count.saturating_mul(8));
        chunk_header(
            out,
            mode,
            flags,
            chunk::BLOCK_STATUS,
            request.cookie,
            request.offset,
            len,
        );
        out.extend_from_slice(&context.to_be_bytes());
        for (len, flags) in extents {
            out.extend_from_slice(&u32::try_from(*len).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(&flags.to_be_bytes());
        }
    }
}

/// Appends a reply to an option.
pub fn option_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(data);
}

/// Reads numbers and strings from the start of a slice; `None` when it is too short.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// So many bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    /// A 16-bit number.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Bytes with their length in 32 bits before them.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    /// The name of an export, its length before it.
    fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let mut ahead = *self;
        let len = ahead.u32().ok_or(Malformed::Lengths)?;
        if usize::try_from(len).is_ok_and(|len| len > MAX_STRING_BYTES) {
            return Err(Malformed::LongName(len));
        }
        self.counted().ok_or(Malformed::Lengths)
    }
}

/// Why the data of an option cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A length in it leads beyond its end.
    Lengths,
    /// The name of the export is too long.
    LongName(u32),
    /// There is more of it than it should have.
    Trailing,
}

impl Malformed {
    /// What the client is told.
    pub fn text(self, option: u32) -> String {
        let option = option_name(option);
        match self {
            Self::Lengths => format!("Inconsistent lengths in option {option}"),
            Self::LongName(len) => format!("Invalid name length: {len}"),
            Self::Trailing => format!("option '{option}' has unexpected length"),
        }
    }
}

/// The name of an option in messages.
pub fn option_name(option: u32) -> &'static str {
    match option {
        option::EXPORT_NAME => "export name",
        option::ABORT => "abort",
        option::LIST => "list",
        option::STARTTLS => "starttls",
        option::INFO => "info",
        option::GO => "go",
        option::STRUCTURED_REPLY => "structured reply",
        option::LIST_META_CONTEXT => "list meta context",
        option::SET_META_CONTEXT => "set meta context",
        option::EXTENDED_HEADERS => "extended headers",
        _ => "<unknown>",
    }
}

/// The name of a reply in messages.
pub fn reply_name(reply: u32) -> &'static str {
    match reply {
        reply::ACK => "ack",
        reply::SERVER => "server",
        reply::INFO => "info",
        reply::META_CONTEXT => "meta context",
        reply::ERR_UNSUP => "unsupported",
        reply::ERR_POLICY => "denied by policy",
        reply::ERR_INVALID => "invalid",
        reply::ERR_PLATFORM => "platform lacks support",
        reply::ERR_TLS_REQD => "TLS required",
        reply::ERR_UNKNOWN => "export unknown",
        reply::ERR_SHUTDOWN => "server shutting down",
        reply::ERR_BLOCK_SIZE_REQD => "block size required",
        reply::ERR_TOO_BIG => "option payload too big",
        reply::ERR_EXT_HEADER_REQD => "extended headers required",
        _ => "<unknown>",
    }
}

/// What INFO and GO ask.
#[derive(Debug, PartialEq, Eq)]
pub struct InfoRequest<'a> {
    /// The export; empty is the default one.
    pub name: &'a [u8],
    /// Kinds of information.
    pub kinds: Vec<u16>,
}

/// Reads the data of INFO and GO.
pub fn parse_info(data: &[u8]) -> Result<InfoRequest<'_>, Malformed> {
    let mut cursor = Cursor(data);
    let name = cursor.name()?;
    let count = cursor.u16().ok_or(Malformed::Lengths)?;
    let kinds = (0..count).map(|_| cursor.u16()).collect::<Option<Vec<_>>>();
    let kinds = kinds.ok_or(Malformed::Lengths)?;
    if cursor.0.is_empty() {
        Ok(InfoRequest { name, kinds })
    } else {
        Err(Malformed::Trailing)
    }
}

/// What LIST_META_CONTEXT and SET_META_CONTEXT ask.
#[derive(Debug)]
pub struct ContextRequest<'a> {
    /// The export.
    pub name: &'a [u8],
    /// Queries, such as `base:allocation` or `qemu:`, or why there are none. That an export is not there is told first.
    pub queries: Result<Vec<&'a [u8]>, Malformed>,
}

/// Reads the data of the metadata context options.
pub fn parse_contexts(data: &[u8]) -> Result<ContextRequest<'_>, Malformed> {
    let mut cursor = Cursor(data);
    let name = cursor.name()?;
    let mut queries = || {
        let count = cursor.u32().ok_or(Malformed::Lengths)?;
        // Every query takes at least four bytes, so that the count cannot make us allocate more than was sent.
        if u64::from(count) * 4 > cursor.0.len() as u64 {
            return Err(Malformed::Lengths);
        }
        let queries = (0..count).map(|_| cursor.counted()).collect::<Option<Vec<_>>>();
        let queries = queries.ok_or(Malformed::Lengths)?;
        if cursor.0.is_empty() {
            Ok(queries)
        } else {
            Err(Malformed::Trailing)
        }
    };
    Ok(ContextRequest {
        name,
        queries: queries(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire_in_both_forms() {
        let request = Request {
            flags: 3,
            command: 1,
            cookie: 7,
            offset: 1 << 40,
            len: 4096,
        };
        for extended in [false, true] {
            let mut bytes = Vec::new();
            request.encode(extended, &mut bytes);
            let size = bytes.len();
            assert_eq!(Request::parse(&bytes, extended), Ok(Some((request, size))));
            for short in 0..size {
                let parsed = Request::parse(&bytes[..short], extended);
                assert_eq!(parsed, Ok(None), "{short} bytes");
            }
            bytes.resize(EXTENDED_REQUEST_BYTES, 0);
            assert!(Request::parse(&bytes, !extended).is_err());
        }
    }

    #[test]
    fn context_queries_cannot_claim_more_than_was_sent() {
        let mut data = vec![0, 0, 0, 1, b'x'];
        data.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(parse_contexts(&data).unwrap().queries, Err(Malformed::Lengths));
        let mut data = vec![0, 0, 0, 1, b'x', 0, 0, 0, 1, 0, 0, 0, 5];
        data.extend_from_slice(b"qemu:");
        let parsed = parse_contexts(&data).unwrap();
        assert_eq!(
            (parsed.name, parsed.queries),
            (&b"x"[..], Ok(vec![&b"qemu:"[..]]))
        );
        data.push(0);
        assert_eq!(parse_contexts(&data).unwrap().queries, Err(Malformed::Trailing));
    }

    #[test]
    fn an_error_text_is_cut_between_characters() {
        let text = "ä".repeat(3000);
        let request = Request {
            flags: 0,
            command: 0,
            cookie: 1,
            offset: 0,
            len: 1,
        };
        let mut out = Vec::new();
        plain_reply(&mut out, ReplyMode::Structured, &request, 5, &text);
        assert_eq!(out.len(), 20 + 6 + 4096);
        assert!(std::str::from_utf8(&out[26..]).is_ok());
    }
}
