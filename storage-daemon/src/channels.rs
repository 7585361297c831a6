//! The channels that monitors speak on: what `--chardev` opens and `--monitor` takes into use.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use qapi_runtime::{ListenOptions, Listener, Peer, Server, Stream, UnixOptions, listen};
use tokio::net::{TcpStream, UnixStream};

use crate::cli::CliError;
use crate::cli::chardev::{Address, Backend, Chardev};
use crate::passed::Passed;
use crate::process::os_text;

/// Longest path of a unix socket.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// All channels by id, in the order of the command line.
#[derive(Default)]
pub struct Channels {
    list: Vec<Channel>,
}

/// A channel that is open.
struct Channel {
    id: String,
    is_stdio: bool,
    /// Until a monitor takes it.
    end: Option<End>,
}

/// The daemon's end of a channel.
pub enum End {
    /// Nobody is at the other end, ever.
    Null,
    /// Standard input and output.
    Stdio,
    /// Clients connect to it.
    Listener(Listener),
    /// One connection.
    Connection(Box<dyn Stream>, Peer),
    /// A connection that is made again when it is lost.
    Connector {
        /// Where to.
        address: Address,
        /// The connection, if the first try had luck.
        first: Option<(Box<dyn Stream>, Peer)>,
        /// How long to wait before each further try.
        pause: Duration,
    },
}

impl Channels {
    /// Opens a channel. `wait` holds this up until a client is there.
    pub async fn open(
        &mut self,
        chardev: Chardev,
        passed: &Passed,
        in_background: bool,
    ) -> Result<(), CliError> {
        let Chardev { id, backend } = chardev;
        if self.list.iter().any(|other| other.id == id) {
            return Err(CliError::new(format!(
                "attempt to add duplicate property '{id}' to object (type 'container')"
            )));
        }
        let is_stdio = matches!(backend, Backend::Stdio);
        let end = match backend {
            Backend::Null => End::Null,
            Backend::Stdio if in_background => {
                return Err(CliError::new("cannot use stdio with -daemonize"));
            }
            Backend::Stdio if self.list.iter().any(|other| other.is_stdio) => {
                return Err(CliError::new("cannot use stdio by multiple character devices"));
            }
            Backend::Stdio => End::Stdio,
            Backend::Pipe { path } => {
                End::Connection(open_pipes(&path)?, Peer::Other(format!("pipe:{path}")))
            }
            Backend::Socket {
                address,
                server: true,
                wait,
                ..
            } => {
                let listener = listen_at(&address, passed).await?;
                if wait {
                    listener
                        .client_waits()
                        .await
                        .map_err(|error| CliError::new(os_text(&error)))?;
                }
                End::Listener(listener)
            }
            Backend::Socket {
                address: Address::Descriptor(number),
                ..
            } => {
                let connected = listen::connection_from_fd(passed.claim(&number)?)
                    .map_err(|error| CliError::new(os_text(&error)))?;
                End::Connection(connected.0, connected.1)
            }
            Backend::Socket {
                address,
                reconnect_ms: 0,
                ..
            } => {
                let (stream, peer) = connect(&address).await?;
                End::Connection(stream, peer)
            }
            Backend::Socket {
                address,
                reconnect_ms,
                ..
            } => End::Connector {
                first: connect(&address).await.ok(),
                address,
                pause: Duration::from_millis(reconnect_ms),
            },
        };
        self.list.push(Channel {
            id,
            is_stdio,
            end: Some(end),
        });
        Ok(())
    }

    /// Takes a channel into use.
    pub fn claim(&mut self, id: &str) -> Result<End, CliError> {
        let Some(channel) = self.list.iter_mut().find(|channel| channel.id == id) else {
            return Err(CliError::new(format!("chardev \"{id}\" not found")));
        };
        channel
            .end
            .take()
            .ok_or_else(|| CliError::new(format!("chardev '{id}' is already in use")))
    }
}

impl End {
    /// Lets clients in, from a task of its own.
    pub fn serve(self, server: &Server, options: ListenOptions) {
        let server = server.clone();
        match self {
            Self::Null => {}
            Self::Stdio => drop(tokio::spawn(server.attach(listen::stdio(), Peer::Stdio, options))),
            Self::Connection(stream, peer) => drop(tokio::spawn(server.attach(stream, peer, options))),
            Self::Listener(listener) => {
                tokio::spawn(async move { server.serve(listener, options).await });
            }
            Self::Connector {
                address,
                mut first,
                pause,
            } => {
                tokio::spawn(async move {
                    while !server.stop().is_requested() {
                        let connected = match first.take() {
                            Some(connected) => Ok(connected),
                            None => connect(&address).await,
                        };
                        match connected {
                            Ok((stream, peer)) => server.attach(stream, peer, options).await,
                            Err(CliError(error)) => {
                                tracing::debug!(target: "qmp::server", %error, "no connection yet");
                            }
                        }
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            () = server.stop().requested() => {}
                        }
                    }
                });
            }
        }
    }
}

fn check_path(path: &str) -> Result<(), CliError> {
    if path.len() > MAX_SOCKET_PATH_BYTES {
        return Err(CliError::new(format!(
            "UNIX socket path '{path}' is too long\nPath must be less than {} bytes",
            MAX_SOCKET_PATH_BYTES + 1
        )));
    }
    Ok(())
}

async fn listen_at(address: &Address, passed: &Passed) -> Result<Listener, CliError> {
    match address {
        Address::Unix { path, is_abstract } => {
            check_path(path)?;
            let listener = if *is_abstract {
                listen_abstract(path)
            } else {
                Listener::unix(Path::new(path), UnixOptions::default())
            };
            listener.map_err(|error| {
                CliError::new(format!("Failed to bind socket to {path}: {}", os_text(&error)))
            })
        }
        Address::Inet { .. } => {
            let mut failure = None;
            for candidate in crate::net::resolve(address).await? {
                match Listener::tcp(candidate).await {
                    Ok(listener) => return Ok(listener),
                    Err(error) => failure = Some(error),
                }
            }
            let why = failure.map_or_else(|| "no address".to_owned(), |error| os_text(&error));
            Err(CliError::new(format!("Failed to bind socket: {why}")))
        }
        Address::Descriptor(number) => passed.claim_listener(number),
    }
}

fn listen_abstract(name: &str) -> std::io::Result<Listener> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let socket = std::os::unix::net::UnixListener::bind_addr(&address)?;
    socket.set_nonblocking(true)?;
    Listener::from_fd(OwnedFd::from(socket))
}

async fn connect(address: &Address) -> Result<(Box<dyn Stream>, Peer), CliError> {
    match address {
        Address::Unix { path, is_abstract } => {
            check_path(path)?;
            let stream = if *is_abstract {
                connect_abstract(path)
            } else {
                UnixStream::connect(path).await
            };
            let stream = stream.map_err(|error| {
                CliError::new(format!("Failed to connect to '{path}': {}", os_text(&error)))
            })?;
            let peer = listen::unix_peer(&stream);
            Ok((Box::new(stream), peer))
        }
        Address::Inet { host, port, .. } => {
            let mut failure = None;
            for candidate in crate::net::resolve(address).await? {
                match TcpStream::connect(candidate).await {
                    Ok(stream) => return Ok(tcp(stream, candidate)),
                    Err(error) => failure = Some(error),
                }
            }
            let why = failure.map_or_else(|| "no address".to_owned(), |error| os_text(&error));
            Err(CliError::new(format!(
                "Failed to connect to '{host}:{port}': {why}"
            )))
        }
        Address::Descriptor(number) => Err(CliError::new(format!(
            "File descriptor '{number}' cannot be connected again"
        ))),
    }
}

fn tcp(stream: TcpStream, address: SocketAddr) -> (Box<dyn Stream>, Peer) {
    // Replies are written whole: waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(target: "qmp::server", %error, "cannot set TCP_NODELAY");
    }
    (Box::new(stream), Peer::Tcp(address))
}

fn connect_abstract(name: &str) -> std::io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Two named pipes, or a file for both directions.
///
/// Each is opened for reading and writing: a pipe so opened waits for nobody and does not end when its
/// last writer goes, so one client can come after the other.
fn open_pipes(path: &str) -> Result<Box<dyn Stream>, CliError> {
    use rustix::fs::{Mode, OFlags};
    let open = |path: &str| {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let fail = |error: std::io::Error| CliError::new(format!("Could not open '{path}': {}", os_text(&error)));
    match (open(&format!("{path}.in")), open(&format!("{path}.out"))) {
        (Ok(input), Ok(output)) => listen::pair(input, output).map_err(fail),
        _ => {
            let input = open(path).map_err(|error| fail(error.into()))?;
            let output = input.try_clone().map_err(fail)?;
            listen::pair(input, output).map_err(fail)
        }
    }
}
