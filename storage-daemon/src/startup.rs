//! From the command line to a daemon that serves: options take effect in their order.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qapi_runtime::audit::AuditLog;
use qapi_runtime::{EventHub, ListenOptions, Listener, Peer, Policy, Server, Stop, UnixOptions, listen};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::chardev::{Address, Backend, Chardev};
use crate::cli::options::{Given, Name};
use crate::cli::{CliError, help, policy};
use crate::commands;
use crate::daemon::Daemon;
use crate::process::{self, Background, PidFile, os_text};

/// How long clients have to read what was sent to them before the program ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Stack of a thread that does block I/O.
const DATA_STACK_BYTES: usize = 16 << 20;
/// Threads that do block I/O, where the machine has as many processors.
const MOST_DATA_THREADS: usize = 4;

/// Runs the program; the exit status.
pub fn run(arguments: &[String]) -> u8 {
    match try_run(arguments) {
        Ok(status) => status,
        Err(CliError(text)) => {
            eprintln!("storage-daemon: {text}");
            1
        }
    }
}

fn try_run(arguments: &[String]) -> Result<u8, CliError> {
    let given = crate::cli::options::parse(arguments)?;
    let early = Early::from(&given)?;
    let background = Background::enter()?;
    if early.daemonize && background.is_none() {
        return process::start_in_background(arguments);
    }
    init_log(early.log.as_deref())?;
    let audit = match &early.audit {
        Some(path) => Some(
            AuditLog::open(Path::new(path))
                .map_err(|error| CliError::new(format!("--audit {path}: {}", os_text(&error))))?,
        ),
        None => None,
    };
    qapi_runtime::listen::raise_open_file_limit();
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::new)?;
    let data = data_runtime()?;
    let status = main.block_on(async {
        let stop = Stop::new();
        let hub = Arc::new(EventHub::new());
        commands::limit_event_rates(&hub);
        let daemon = Daemon::new(data.handle().clone(), Arc::clone(&hub), stop.clone());
        let server = Server::builder(commands::table(), Arc::clone(&daemon))
            .version(commands::version_json())
            .introspection(commands::INTROSPECTION)
            .events(Arc::clone(&hub))
            .stop(stop)
            .audit(audit)
            .build();
        let mut startup = Startup {
            daemon: Arc::clone(&daemon),
            server,
            options: ListenOptions { policy: early.policy },
            chardevs: Vec::new(),
            monitors: Vec::new(),
            passed: PassedSockets::take()?,
        };
        let result = serve(&mut startup, &given, &early, background).await;
        daemon.close().await;
        startup.server.finish(FAREWELL).await;
        result
    });
    // Nothing is waited for here: `close` has ended all block I/O, and a read of standard input has no end.
    data.shutdown_background();
    main.shutdown_background();
    status
}

async fn serve(
    startup: &mut Startup,
    given: &[Given],
    early: &Early,
    background: Option<Background>,
) -> Result<u8, CliError> {
    // Caught from here on, so that whatever has been set up is also taken down.
    let mut signals = Signals::new()?;
    for option in given {
        match startup
            .apply(option)
            .await
            .map_err(|error| error.at(&option.location))?
        {
            After::Continue => {}
            After::Exit => return Ok(0),
        }
        if startup.server.stop().is_requested() {
            return Ok(0);
        }
    }
    let pid_file = match &early.pid_file {
        Some(path) => Some(PidFile::create(Path::new(path))?),
        None => None,
    };
    startup.start_monitors()?;
    if let Some(background) = background {
        background.ready()?;
    }
    if let Err(error) = listen::notify_systemd("READY=1") {
        tracing::warn!(%error, "cannot tell systemd that the daemon is ready");
    }
    tokio::select! {
        () = startup.server.stop().requested() => {}
        name = signals.received() => {
            tracing::info!(signal = name, "ending");
            startup.server.stop().request();
        }
    }
    let _ = listen::notify_systemd("STOPPING=1");
    startup.daemon.close().await;
    startup.server.finish(FAREWELL).await;
    drop(pid_file);
    Ok(0)
}

fn data_runtime() -> Result<Runtime, CliError> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.min(MOST_DATA_THREADS))
        .thread_name("data")
        // Requests go down a backing chain level by level, each a frame or two; untouched stack costs nothing.
        .thread_stack_size(DATA_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(CliError::new)
}

/// Options that count wherever they stand.
struct Early {
    daemonize: bool,
    pid_file: Option<String>,
    log: Option<String>,
    audit: Option<String>,
    policy: Policy,
}

impl Early {
    fn from(given: &[Given]) -> Result<Self, CliError> {
        let mut early = Self {
            daemonize: false,
            pid_file: None,
            log: None,
            audit: None,
            policy: Policy::default(),
        };
        for option in given {
            let value = || Some(option.value.clone());
            match option.name {
                Name::Daemonize => early.daemonize = true,
                Name::Pidfile => early.pid_file = value(),
                Name::Log => early.log = value(),
                Name::Audit => early.audit = value(),
                Name::Compat => {
                    policy::apply(&mut early.policy, &option.value)
                        .map_err(|error| error.at(&option.location))?;
                }
                _ => {}
            }
        }
        Ok(early)
    }
}

fn init_log(filter: Option<&str>) -> Result<(), CliError> {
    use tracing_subscriber::EnvFilter;
    let filter = match (filter, std::env::var("RUST_LOG")) {
        (Some(filter), _) => EnvFilter::try_new(filter).map_err(|error| CliError::new(error).at("--log"))?,
        (None, Ok(filter)) => {
            EnvFilter::try_new(filter).map_err(|error| CliError::new(error).at("RUST_LOG"))?
        }
        // Without a wish nothing is set up: a filter costs memory and a look at every event.
        (None, Err(_)) => return Ok(()),
    };
    let set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
    set.map_err(CliError::new)
}

/// Whether to go on after an option.
enum After {
    Continue,
    Exit,
}

struct Startup {
    daemon: Arc<Daemon>,
    server: Server,
    options: ListenOptions,
    chardevs: Vec<Channel>,
    monitors: Vec<Monitor>,
    passed: PassedSockets,
}

/// A channel that is open.
struct Channel {
    id: String,
    end: Option<End>,
}

/// The daemon's end of a channel.
enum End {
    Null,
    Stdio,
    Listener(Listener),
    Connection(Connection),
}

/// A connection that the daemon has made.
enum Connection {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream, std::net::SocketAddr),
}

struct Monitor {
    end: End,
}

impl Startup {
    async fn apply(&mut self, option: &Given) -> Result<After, CliError> {
        match option.name {
            Name::Help => {
                print(help::HELP)?;
                return Ok(After::Exit);
            }
            Name::Version => {
                print(&help::version())?;
                return Ok(After::Exit);
            }
            Name::Chardev => {
                if option.value == "help" {
                    print("Available chardev backend types: \n  null\n  socket\n  stdio\n")?;
                    return Ok(After::Exit);
                }
                self.chardev(Chardev::parse(&option.value)?).await?;
            }
            Name::Monitor => self.monitor(&option.value)?,
            Name::Blockdev => commands::startup::blockdev(&self.daemon, &option.value).await?,
            Name::NbdServer => commands::startup::nbd_server(&self.daemon, &option.value).await?,
            Name::Export => commands::startup::export(&self.daemon, &option.value)?,
            Name::Object => {
                if let Some(text) = commands::startup::object(&self.daemon, &option.value)? {
                    print(&text)?;
                    return Ok(After::Exit);
                }
            }
            // Counted already, or (trace) without a meaning here.
            Name::Daemonize | Name::Pidfile | Name::Log | Name::Audit | Name::Compat | Name::Trace => {}
        }
        Ok(After::Continue)
    }

    async fn chardev(&mut self, chardev: Chardev) -> Result<(), CliError> {
        if self.chardevs.iter().any(|other| other.id == chardev.id) {
            let id = chardev.id;
            return Err(CliError::new(format!(
                "attempt to add duplicate property '{id}' to object (type 'container')"
            )));
        }
        let end = match chardev.backend {
            Backend::Null => End::Null,
            Backend::Stdio => {
                let taken = self
                    .chardevs
                    .iter()
                    .any(|other| matches!(other.end, Some(End::Stdio)))
                    || self
                        .monitors
                        .iter()
                        .any(|monitor| matches!(monitor.end, End::Stdio));
                if taken {
                    return Err(CliError::new("cannot use stdio by multiple character devices"));
                }
                End::Stdio
            }
            Backend::Socket {
                address,
                server: false,
                ..
            } => End::Connection(connect(&address).await?),
            Backend::Socket {
                address,
                server: true,
                wait,
                ..
            } => {
                let listener = self.listen(&address).await?;
                if wait {
                    wait_for_client(&listener)?;
                }
                End::Listener(listener)
            }
        };
        self.chardevs.push(Channel {
            id: chardev.id,
            end: Some(end),
        });
        Ok(())
    }

    async fn listen(&mut self, address: &Address) -> Result<Listener, CliError> {
        match address {
            Address::Unix {
                path,
                is_abstract: false,
            } => Listener::unix(Path::new(path), UnixOptions::default()).map_err(|error| {
                CliError::new(format!("Failed to bind socket to {path}: {}", os_text(&error)))
            }),
            Address::Unix {
                path,
                is_abstract: true,
            } => {
                use std::os::linux::net::SocketAddrExt;
                let bind = std::os::unix::net::SocketAddr::from_abstract_name(path)
                    .and_then(|address| std::os::unix::net::UnixListener::bind_addr(&address));
                bind.and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    Listener::from_fd(OwnedFd::from(socket))
                })
                .map_err(|error| {
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
                Err(CliError::new(format!("Failed to find an available port: {why}")))
            }
            Address::Descriptor(number) => self.passed.claim(*number).ok_or_else(|| {
                CliError::new(format!(
                    "File descriptor {number} was not passed as a listening socket"
                ))
            }),
        }
    }

    fn monitor(&mut self, text: &str) -> Result<(), CliError> {
        let monitor = commands::startup::monitor(text)?;
        let id = monitor.chardev;
        let Some(channel) = self.chardevs.iter_mut().find(|channel| channel.id == id) else {
            return Err(CliError::new(format!("chardev \"{id}\" not found")));
        };
        let Some(end) = channel.end.take() else {
            return Err(CliError::new(format!("chardev '{id}' is already in use")));
        };
        self.monitors.push(Monitor { end });
        Ok(())
    }

    /// Lets clients in. Sockets that systemd passed and that no channel has claimed are monitors too.
    fn start_monitors(&mut self) -> Result<(), CliError> {
        let events = self.server.clone();
        tokio::spawn(async move { events.run_events().await });
        let options = self.options;
        for Monitor { end } in self.monitors.drain(..) {
            let server = self.server.clone();
            match end {
                End::Null => {}
                End::Stdio => drop(tokio::spawn(server.attach(listen::stdio(), Peer::Stdio, options))),
                End::Listener(listener) => {
                    tokio::spawn(async move { server.serve(listener, options).await });
                }
                End::Connection(Connection::Unix(stream)) => {
                    let credentials = stream.peer_cred().map_err(CliError::new)?;
                    let peer = Peer::Unix {
                        pid: credentials.pid(),
                        uid: Some(credentials.uid()),
                        gid: Some(credentials.gid()),
                    };
                    tokio::spawn(server.attach(stream, peer, options));
                }
                End::Connection(Connection::Tcp(stream, address)) => {
                    tokio::spawn(server.attach(stream, Peer::Tcp(address), options));
                }
            }
        }
        for listener in self.passed.rest() {
            let server = self.server.clone();
            tokio::spawn(async move { server.serve(listener, options).await });
        }
        Ok(())
    }
}

/// `wait=on`: the start-up goes on when the first client is there.
fn wait_for_client(listener: &Listener) -> Result<(), CliError> {
    use rustix::event::{PollFd, PollFlags, poll};
    let fd = listener.as_fd();
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(CliError::new(os_text(&error.into()))),
        }
    }
}

async fn connect(address: &Address) -> Result<Connection, CliError> {
    match address {
        Address::Unix { path, .. } => tokio::net::UnixStream::connect(path)
            .await
            .map(Connection::Unix)
            .map_err(|error| CliError::new(format!("Failed to connect to '{path}': {}", os_text(&error)))),
        Address::Inet { host, port, .. } => {
            let mut failure = None;
            for candidate in crate::net::resolve(address).await? {
                match tokio::net::TcpStream::connect(candidate).await {
                    Ok(stream) => return Ok(Connection::Tcp(stream, candidate)),
                    Err(error) => failure = Some(error),
                }
            }
            let why = failure.map_or_else(|| "no address".to_owned(), |error| os_text(&error));
            Err(CliError::new(format!(
                "Failed to connect to '{host}:{port}': {why}"
            )))
        }
        Address::Descriptor(_) => Err(CliError::new(
            "A passed file descriptor must be a listening socket (server=on)",
        )),
    }
}

fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| CliError::new(os_text(&error)))
}

/// Listening sockets that systemd opened for this process.
struct PassedSockets(Vec<(i32, Option<Listener>)>);

impl PassedSockets {
    fn take() -> Result<Self, CliError> {
        let listeners = listen::systemd_sockets().map_err(|error| {
            CliError::new(format!(
                "a socket from systemd cannot be used: {}",
                os_text(&error)
            ))
        })?;
        // By systemd's protocol the first one is number 3.
        Ok(Self((3..).zip(listeners.into_iter().map(Some)).collect()))
    }

    fn claim(&mut self, number: i32) -> Option<Listener> {
        self.0.iter_mut().find(|(other, _)| *other == number)?.1.take()
    }

    fn rest(&mut self) -> Vec<Listener> {
        self.0.drain(..).filter_map(|(_, listener)| listener).collect()
    }
}

/// The signals that end the program in order.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        let catch =
            |kind| signal(kind).map_err(|error| CliError::new(format!("cannot catch signals: {error}")));
        Ok(Self {
            term: catch(SignalKind::terminate())?,
            int: catch(SignalKind::interrupt())?,
            hup: catch(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
            _ = self.hup.recv() => "SIGHUP",
        }
    }
}
