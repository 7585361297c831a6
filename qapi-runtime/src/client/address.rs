//! Where a server is.

use super::ClientError;
use crate::session::Stream;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use tokio::net::{TcpStream, UnixStream};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String),
}

impl FromStr for Address {
    type Err = ClientError;

    /// `unix:PATH`, `tcp:HOST:PORT`; anything else is the path of a socket.
    fn from_str(text: &str) -> Result<Self, ClientError> {
        if let Some(path) = text.strip_prefix("unix:") {
            Ok(Address::Unix(path.into()))
        } else if let Some(host) = text.strip_prefix("tcp:") {
            Ok(Address::Tcp(host.to_owned()))
        } else if text.is_empty() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the address is empty");
            Err(ClientError::Connect {
                address: text.to_owned(),
                source,
            })
        } else {
            Ok(Address::Unix(text.into()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

impl Address {
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let stream: io::Result<Box<dyn Stream>> = match self {
            Address::Unix(path) => UnixStream::connect(path)
                .await
                .map(|stream| Box::new(stream) as Box<dyn Stream>),
            Address::Tcp(host) => match TcpStream::connect(host.as_str()).await {
                Ok(stream) => stream
                    .set_nodelay(true)
                    .map(|()| Box::new(stream) as Box<dyn Stream>),
                Err(error) => Err(error),
            },
        };
        stream.map_err(|source| ClientError::Connect {
            address: self.to_string(),
            source,
        })
    }
}
