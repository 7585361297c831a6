//! What the daemon asks of the operating system: pid file, background, readiness, small files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::CliError;

/// The environment variable by which a background process knows the pipe that its parent waits on.
const READY_PIPE: &str = "STORAGE_DAEMON_READY_FD";

/// A pid file, removed when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Holds the lock that says that its process lives.
    _file: File,
}

impl PidFile {
    /// Writes this process's id to `path`, unless a living process holds that file.
    pub fn create(path: &Path) -> Result<Self, CliError> {
        let shown = path.display();
        let fail = |error: &dyn std::fmt::Display| CliError::new(format!("cannot create PID file: {error}"));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| fail(&format!("Could not create '{shown}': {}", os_text(&error))))?;
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| fail(&format!("Cannot lock '{shown}': {}", os_text(&error.into()))))?;
        let write = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        write.map_err(|error| fail(&format!("Failed to write to '{shown}': {}", os_text(&error))))?;
        // The daemon may change its directory later: the path must still name the file at exit.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { path, _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// An operating system error as C programs print it.
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

/// The whole of a small file; `None` when it has more than `most` bytes. What tells no size beforehand, as a pipe or a
/// device, is read no further either.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok((read as u64 <= most).then_some(bytes))
}

/// The name under which this program was started: messages begin with it, as whoever put it in the place of another
/// program expects.
pub fn program_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| Some(Path::new(&path).file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "storage-daemon".to_owned())
}

/// Starts this program again in the background and waits until it says that it is set up.
///
/// A new process rather than a fork: nothing of this one (threads, locks) can be inherited half-way. Returns
/// the exit status for the parent.
pub fn start_in_background(arguments: &[String]) -> Result<u8, CliError> {
    let fail = |error: io::Error| CliError::new(format!("cannot daemonize: {}", os_text(&error)));
    let (reader, writer) = rustix::pipe::pipe().map_err(|error| fail(error.into()))?;
    let program = std::env::current_exe().map_err(fail)?;
    let mut child = Command::new(program)
        .arg0(program_name())
        .args(arguments)
        .env(READY_PIPE, writer.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .spawn()
        .map_err(fail)?;
    drop(writer);
    let mut said = Vec::new();
    // The child keeps the inherited end as well as the one it opens by name, so the pipe ends only with it:
    // read no further than the word.
    File::from(reader).take(5).read_to_end(&mut said).map_err(fail)?;
    if said == b"ready" {
        return Ok(0);
    }
    let status = child.wait().map_err(fail)?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    // It may have ended well: `--help` and its like.
    Ok(u8::try_from(code).unwrap_or(1))
}

/// The background half: knows whom to tell that all is set up.
#[derive(Debug)]
pub struct Background {
    pipe: File,
}

impl Background {
    /// Whether this process was started by [`start_in_background`]; leaves the terminal if so.
    pub fn enter() -> Result<Option<Self>, CliError> {
        let Some(number) = std::env::var_os(READY_PIPE) else {
            return Ok(None);
        };
        let fail = |error: &dyn std::fmt::Display| CliError::new(format!("cannot daemonize: {error}"));
        // Opened by its name in /proc: the number from the environment is not trusted to be ours to close.
        let path = Path::new("/proc/self/fd").join(number);
        let pipe = File::options()
            .write(true)
            .open(path)
            .map_err(|error| fail(&os_text(&error)))?;
        // Fails only where this process leads a session already, and then there is nothing to leave.
        let _ = rustix::process::setsid();
        Ok(Some(Self { pipe }))
    }

    /// Tells the parent, which then exits with status 0, and lets go of its terminal.
    ///
    /// Until now its output was still the parent's, so that complaints and `--help` could be read.
    pub fn ready(mut self) -> Result<(), CliError> {
        let fail = |error: io::Error| CliError::new(format!("cannot daemonize: {}", os_text(&error)));
        let null = OwnedFd::from(
            File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map_err(fail)?,
        );
        rustix::stdio::dup2_stdout(&null).map_err(|error| fail(error.into()))?;
        rustix::stdio::dup2_stderr(&null).map_err(|error| fail(error.into()))?;
        self.pipe.write_all(b"ready").map_err(fail)?;
        Ok(())
    }
}
