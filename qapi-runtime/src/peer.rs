//! Who is at the other end of a session.

use std::fmt;

/// A session's number, unique while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who is at the other end of a session, as far as the system tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A process on this machine, with the credentials that it had when it connected.
    Unix {
        /// Its process id, when the system knows it.
        pid: Option<i32>,
        /// Its user.
        uid: Option<u32>,
        /// Its group.
        gid: Option<u32>,
    },
    /// An address of a network.
    Tcp(std::net::SocketAddr),
    /// The program's own standard input and output.
    Stdio,
    /// Something the embedding program made.
    Other(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Unix { pid, uid, gid } => {
                f.write_str("unix:")?;
                let mut separator = "";
                let parts = [
                    ("pid", pid.map(i64::from)),
                    ("uid", uid.map(i64::from)),
                    ("gid", gid.map(i64::from)),
                ];
                for (name, value) in parts {
                    if let Some(value) = value {
                        write!(f, "{separator}{name}={value}")?;
                        separator = ",";
                    }
                }
                Ok(())
            }
            Peer::Tcp(address) => write!(f, "tcp:{address}"),
            Peer::Stdio => f.write_str("stdio"),
            Peer::Other(name) => f.write_str(name),
        }
    }
}
