//! Reaching a server: from the address in a node's options to a stream of bytes.

use std::io;
use std::net::SocketAddr;

use crate::error::{BlockError, ErrorKind, Result};
use crate::nbd::Stream;
use crate::options::NbdAddress;

/// What the address of a unix socket has room for.
const PATH_BYTES: usize = 108;

/// Connects to a server.
pub(super) async fn connect(address: &NbdAddress) -> Result<Box<dyn Stream>> {
    match address {
        NbdAddress::Unix(path) => {
            if path.len() >= PATH_BYTES {
                return Err(invalid(format!("UNIX socket path '{path}' is too long")));
            }
            if path.is_empty() {
                return Err(failed("", io::Error::from_raw_os_error(libc::ECONNREFUSED)));
            }
            let stream = tokio::net::UnixStream::connect(path).await;
            Ok(Box::new(stream.map_err(|error| failed(path, error))?))
        }
        NbdAddress::AbstractUnix { name, tight } => Ok(Box::new(abstract_unix(name, *tight)?)),
        NbdAddress::Inet { host, port } => inet(host, port).await,
    }
}

fn invalid(text: String) -> BlockError {
    BlockError::new(ErrorKind::Invalid, text)
}

fn failed(place: &str, error: io::Error) -> BlockError {
    BlockError::from(error).context(format_args!("Failed to connect to '{place}'"))
}

/// A socket with a name but without a file. Where the name is not tight, zero bytes up to the end of the address
/// belong to it.
fn abstract_unix(name: &str, tight: bool) -> Result<tokio::net::UnixStream> {
    use std::os::linux::net::SocketAddrExt;
    // One byte says that there is no file.
    const ROOM: usize = PATH_BYTES - 1;
    if name.len() > ROOM {
        return Err(invalid(format!("UNIX socket path '{name}' is too long")));
    }
    let mut bytes = name.as_bytes().to_vec();
    if !tight {
        bytes.resize(ROOM, 0);
    }
    let connect = || {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&bytes)?;
        // Waits only while the server's queue of connections is full.
        let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    };
    connect().map_err(|error| failed(name, error))
}

async fn inet(host: &str, port: &str) -> Result<Box<dyn Stream>> {
    let place = format!("{host}:{port}");
    let unresolved = |why: &str| invalid(format!("address resolution failed for {place}: {why}"));
    let number: u32 = port
        .parse()
        .map_err(|_| unresolved("Servname not supported for ai_socktype"))?;
    // As the resolver of the C library has it, which lets the upper bits fall.
    let number = u16::try_from(number & u32::from(u16::MAX)).unwrap_or_default();
    if host.is_empty() {
        return Err(unresolved("Name or service not known"));
    }
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, number))
        .await
        .map_err(|error| {
            let text = error.to_string();
            unresolved(text.trim_start_matches("failed to lookup address information: "))
        })?
        .collect();
    let mut last = io::Error::from_raw_os_error(libc::ECONNREFUSED);
    for address in found {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => {
                // Small requests must not wait for more to send.
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(&place, last))
}
