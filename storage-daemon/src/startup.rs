//! From the command line to a daemon that serves: options take effect in their order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qapi_runtime::audit::AuditLog;
use qapi_runtime::{EventHub, ListenOptions, Policy, Server, Stop, listen};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::channels::{Channels, End};
use crate::cli::chardev::{self, Chardev};
use crate::cli::options::{Given, Name};
use crate::cli::trace::{self, Trace};
use crate::cli::{CliError, help, policy};
use crate::commands;
use crate::daemon::Daemon;
use crate::passed::Passed;
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
            eprintln!("{}: {text}", process::program_name());
            1
        }
    }
}

fn try_run(arguments: &[String]) -> Result<u8, CliError> {
    let given = crate::cli::options::parse(arguments)?;
    // Before anything else is looked at, as mistakes in other options are no reason to refuse help.
    match given
        .iter()
        .map(|option| option.name)
        .find(|name| name.is_question())
    {
        Some(Name::Version) => return print(&help::version()).map(|()| 0),
        Some(_) => return print(help::HELP).map(|()| 0),
        None => {}
    }
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
        let passed = Passed::take()?;
        let stop = Stop::new();
        let hub = Arc::new(EventHub::new());
        commands::limit_event_rates(&hub);
        let daemon = Daemon::new(data.handle().clone(), Arc::clone(&hub), stop.clone(), passed);
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
            options: ListenOptions {
                policy: early.policy,
                pretty: false,
            },
            in_background: early.daemonize,
            channels: Channels::default(),
            monitors: Vec::new(),
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
        // An option may wait: for a client, for a name server, for a disk.
        let applied = tokio::select! {
            applied = startup.apply(option) => applied,
            name = signals.received() => {
                tracing::info!(signal = name, "ending before the start is complete");
                return Ok(0);
            }
        };
        match applied.map_err(|error| error.at(&option.location))? {
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
                    // The last one counts, as a whole.
                    early.policy =
                        policy::parse(&option.value).map_err(|error| error.at(&option.location))?;
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
    in_background: bool,
    channels: Channels,
    monitors: Vec<(End, ListenOptions)>,
}

impl Startup {
    async fn apply(&mut self, option: &Given) -> Result<After, CliError> {
        match option.name {
            Name::Chardev => {
                if matches!(option.value.as_str(), "help" | "?") {
                    print("Available chardev backend types: \n  null\n  pipe\n  socket\n  stdio\n")?;
                    return Ok(After::Exit);
                }
                for warning in chardev::deprecations(&option.value)? {
                    eprintln!("{}: {}: {warning}", process::program_name(), option.location);
                }
                let chardev = Chardev::parse(&option.value)?;
                self.channels
                    .open(chardev, &self.daemon.passed, self.in_background)
                    .await?;
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
            Name::Trace => match trace::parse(&option.value)? {
                Trace::List => {
                    print(trace::TARGETS)?;
                    return Ok(After::Exit);
                }
                Trace::Enable(names) => {
                    for warning in trace::unknown(&names) {
                        eprintln!("{}: {}: {warning}", process::program_name(), option.location);
                    }
                }
            },
            Name::Stray => return Err(CliError::new("Unexpected argument")),
            // Counted already.
            Name::Help
            | Name::Version
            | Name::Daemonize
            | Name::Pidfile
            | Name::Log
            | Name::Audit
            | Name::Compat => {}
        }
        Ok(After::Continue)
    }

    fn monitor(&mut self, text: &str) -> Result<(), CliError> {
        let monitor = commands::startup::monitor(text)?;
        let end = self.channels.claim(&monitor.chardev)?;
        if monitor.readline {
            return Err(CliError::new("Only QMP is supported"));
        }
        let options = ListenOptions {
            pretty: monitor.pretty,
            policy: monitor.policy(self.options.policy),
        };
        self.monitors.push((end, options));
        Ok(())
    }

    /// Lets clients in. Sockets that systemd passed and that no channel has claimed are monitors too.
    fn start_monitors(&mut self) -> Result<(), CliError> {
        let events = self.server.clone();
        tokio::spawn(async move { events.run_events().await });
        for (end, options) in self.monitors.drain(..) {
            end.serve(&self.server, options);
        }
        for listener in self.daemon.passed.rest()? {
            End::Listener(listener).serve(&self.server, self.options);
        }
        Ok(())
    }
}

fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| CliError::new(os_text(&error)))
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
