//! Where clients come from: unix sockets, TCP, sockets that systemd or a parent opened, standard input.

mod stdio;

pub use stdio::{pair, stdio};

use crate::peer::Peer;
use crate::session::Stream;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::net::{TcpListener, UnixListener};

/// Clients that may wait for an accept.
const BACKLOG: i32 = 1024;

/// How a unix socket is made.
#[derive(Debug, Clone, Copy)]
pub struct UnixOptions {
    /// Permission bits of the socket file.
    pub mode: u32,
}

impl Default for UnixOptions {
    fn default() -> Self {
        UnixOptions { mode: 0o600 }
    }
}

/// Something that clients connect to.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Unix {
        listener: UnixListener,
        made: Option<MadeSocket>,
    },
    Tcp(TcpListener),
}

impl AsFd for Listener {
    /// The listening socket: readable when a client waits.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.kind {
            Kind::Unix { listener, .. } => listener.as_fd(),
            Kind::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// A socket file that we made and that we remove in the end, if it is still ours.
#[derive(Debug)]
struct MadeSocket {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for MadeSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| file.dev() == self.device && file.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(target: "qmp::server", path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// A client that has connected.
pub(crate) struct Accepted {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) peer: Peer,
}

impl Listener {
    /// Listens on a unix socket. A socket file that nobody listens on is replaced; a live one is not.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when somebody listens there, and whatever the system refuses.
    pub fn unix(path: &Path, options: UnixOptions) -> io::Result<Self> {
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Before the file appears, so that there is no moment at which others may connect.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(options.mode))?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let file = std::fs::symlink_metadata(path)?;
        let made = MadeSocket {
            path: path.to_owned(),
            device: file.dev(),
            inode: file.ino(),
        };
        if file.permissions().mode() & 0o777 != options.mode {
            // The umask took bits away that were asked for.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.mode))?;
        }
        rustix::net::listen(&socket, BACKLOG)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Listener {
            kind: Kind::Unix {
                listener,
                made: Some(made),
            },
        })
    }

    /// Listens on a TCP address.
    ///
    /// # Errors
    ///
    /// Whatever the system refuses.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Listener {
            kind: Kind::Tcp(TcpListener::bind(address).await?),
        })
    }

    /// Listens on a socket that somebody else has opened and bound.
    ///
    /// # Errors
    ///
    /// When it is neither a unix nor a TCP socket that listens.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if !rustix::net::sockopt::socket_acceptconn(&fd)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the file descriptor is no listening socket",
            ));
        }
        rustix::io::ioctl_fionbio(&fd, true)?;
        let family = rustix::net::sockopt::socket_domain(&fd)?;
        let kind = if family == AddressFamily::UNIX {
            Kind::Unix {
                listener: UnixListener::from_std(fd.into())?,
                made: None,
            }
        } else if family == AddressFamily::INET || family == AddressFamily::INET6 {
            Kind::Tcp(TcpListener::from_std(fd.into())?)
        } else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the socket is neither unix nor TCP",
            ));
        };
        Ok(Listener { kind })
    }

    /// Waits until a client has connected; whoever accepts it greets it.
    ///
    /// # Errors
    ///
    /// When the system cannot watch the socket.
    pub async fn client_waits(&self) -> io::Result<()> {
        // Watched through a descriptor of its own: the listener's is registered with the runtime already.
        let watched = self.as_fd().try_clone_to_owned()?;
        let watched = stdio::register(watched, Interest::READABLE)?;
        watched.readable().await.map(drop)
    }

    /// The port of a TCP listener, for those who asked for any.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix { .. } => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match &self.kind {
            Kind::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let peer = unix_peer(&stream);
                Ok(Accepted {
                    stream: Box::new(stream),
                    peer,
                })
            }
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Replies are written whole: waiting for more would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(target: "qmp::server", %error, "cannot set TCP_NODELAY");
                }
                Ok(Accepted {
                    stream: Box::new(stream),
                    peer: Peer::Tcp(address),
                })
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The file goes before the socket is closed: a client that comes in between hears nothing.
        if let Kind::Unix { made, .. } = &mut self.kind {
            made.take();
        }
    }
}

/// Removes a socket file that nobody listens on.
///
/// # Errors
///
/// `AddrInUse` when somebody listens there, `AlreadyExists` when the file is no socket.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is in the way",
        ));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(rustix::io::Errno::CONNREFUSED) => std::fs::remove_file(path),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        // Connected, or would be if the other were less busy.
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "somebody listens on this socket",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The first file descriptor that systemd passes.
const FIRST_PASSED_FD: i32 = 3;

/// A socket that systemd has opened for this process.
#[derive(Debug)]
pub struct PassedSocket {
    /// The number by which it was passed.
    pub number: i32,
    /// What systemd calls it (`FileDescriptorName=`); empty without a name.
    pub name: String,
    /// The socket.
    pub fd: OwnedFd,
}

/// The sockets that systemd has opened for this process (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`); none without it.
///
/// Call it once, at the start: each call would own the same descriptors again.
///
/// # Errors
///
/// When one of them is not open.
pub fn systemd_sockets() -> io::Result<Vec<PassedSocket>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let for_us = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    let count = if for_us {
        number("LISTEN_FDS").unwrap_or(0)
    } else {
        0
    };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut listeners = Vec::new();
    for number in (FIRST_PASSED_FD..).take(usize::try_from(count).unwrap_or(0)) {
        // SAFETY: by systemd's protocol the descriptors from three on, as many as LISTEN_FDS says, are
        // open and belong to the process that LISTEN_PID names, which is this one; nothing else in
        // it knows of them, as long as this is called once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
        listeners.push(PassedSocket {
            number,
            name: names.next().unwrap_or_default().to_owned(),
            fd,
        });
    }
    Ok(listeners)
}

/// A socket that this process was started with, by its number; it is owned from now on.
///
/// # Errors
///
/// `InvalidInput` when there is no such socket, or it is owned already.
pub fn inherited_socket(number: i32) -> io::Result<OwnedFd> {
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "not a socket");
    let link = std::fs::read_link(format!("/proc/self/fd/{number}")).map_err(|_| none())?;
    if number < FIRST_PASSED_FD || !link.as_os_str().as_encoded_bytes().starts_with(b"socket:") {
        return Err(none());
    }
    // SAFETY: the number was found open just now, and it is only borrowed here to look at its flags.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed)?;
    if flags.contains(rustix::io::FdFlags::CLOEXEC) {
        // Whatever this program opens is closed on exec, and so is what it took over: this one is somebody's.
        return Err(none());
    }
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor has survived an exec, so no code of this process had opened it, and with the
    // flag just set a second call refuses it: nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A socket that is connected already, as something a session can talk over, and who is at its other end.
///
/// # Errors
///
/// When it is neither a unix nor a TCP socket that is connected.
pub fn connection_from_fd(fd: OwnedFd) -> io::Result<(Box<dyn Stream>, Peer)> {
    rustix::net::getpeername(&fd)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    if rustix::net::sockopt::socket_domain(&fd)? == AddressFamily::UNIX {
        let stream = tokio::net::UnixStream::from_std(fd.into())?;
        let peer = unix_peer(&stream);
        Ok((Box::new(stream), peer))
    } else {
        let stream = tokio::net::TcpStream::from_std(fd.into())?;
        let peer = Peer::Tcp(stream.peer_addr()?);
        Ok((Box::new(stream), peer))
    }
}

/// Who is at the other end of a unix socket, as far as the system knows.
pub fn unix_peer(stream: &tokio::net::UnixStream) -> Peer {
    let credentials = stream.peer_cred().ok();
    Peer::Unix {
        pid: credentials.and_then(|known| known.pid()),
        uid: credentials.map(|known| known.uid()),
        gid: credentials.map(|known| known.gid()),
    }
}

/// Tells systemd something (`READY=1`, `STOPPING=1`); nothing without it.
///
/// # Errors
///
/// When systemd's socket cannot be written to.
pub fn notify_systemd(message: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

/// Allows this process as many open files as the system lets it have: each client is one.
///
/// Gives the limit from now on, when there is one.
pub fn raise_open_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // As it was, then.
        Err(_) => limit.current,
    }
}
