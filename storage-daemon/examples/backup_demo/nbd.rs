//! The least of an NBD client that reads and writes: fixed newstyle, one request at a time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Result, ensure};

const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_ERR_BIT: u32 = 1 << 31;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;

/// A connection to one export.
pub struct Nbd {
    stream: UnixStream,
    handle: u64,
}

impl Nbd {
    /// Connects to the export `name`.
    pub fn connect(socket: &Path, name: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        ensure!(greeting.starts_with(b"NBDMAGICIHAVEOPT"), "no NBD server");
        // Fixed newstyle, and no 124 zero bytes after the negotiation.
        stream.write_all(&3_u32.to_be_bytes())?;
        let length = u32::try_from(name.len())?;
        let mut option = Vec::new();
        option.extend(OPTION_MAGIC.to_be_bytes());
        option.extend(OPT_GO.to_be_bytes());
        option.extend((length + 6).to_be_bytes());
        option.extend(length.to_be_bytes());
        option.extend(name.as_bytes());
        option.extend(0_u16.to_be_bytes());
        stream.write_all(&option)?;
        loop {
            let mut header = [0; 20];
            stream.read_exact(&mut header)?;
            ensure!(
                header.starts_with(&OPTION_REPLY_MAGIC.to_be_bytes()),
                "a strange option reply"
            );
            let [.., r0, r1, r2, r3, l0, l1, l2, l3] = header;
            let reply = u32::from_be_bytes([r0, r1, r2, r3]);
            let mut data = vec![0; usize::try_from(u32::from_be_bytes([l0, l1, l2, l3]))?.min(4096)];
            stream.read_exact(&mut data)?;
            ensure!(
                reply & REP_ERR_BIT == 0,
                "export {name} is refused: {}",
                String::from_utf8_lossy(&data)
            );
            if reply == REP_ACK {
                return Ok(Self { stream, handle: 0 });
            }
        }
    }

    fn request(&mut self, command: u16, offset: u64, length: u32, data: &[u8]) -> Result<()> {
        self.handle += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0_u16.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(self.handle.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)?;
        Ok(())
    }

    fn reply(&mut self) -> Result<()> {
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        ensure!(reply.starts_with(&REPLY_MAGIC.to_be_bytes()), "a strange reply");
        ensure!(
            reply.ends_with(&self.handle.to_be_bytes()),
            "a reply to another request"
        );
        let [_, _, _, _, e0, e1, e2, e3, ..] = reply;
        let error = u32::from_be_bytes([e0, e1, e2, e3]);
        ensure!(error == 0, "the server reports error {error}");
        Ok(())
    }

    /// Fills `data` from `offset`.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.request(CMD_READ, offset, u32::try_from(data.len())?, &[])?;
        self.reply()?;
        self.stream.read_exact(data)?;
        Ok(())
    }

    /// Writes `data` at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.request(CMD_WRITE, offset, u32::try_from(data.len())?, data)?;
        self.reply()
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        let _ = self.request(CMD_DISC, 0, 0, &[]);
    }
}
