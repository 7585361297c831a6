//! The audit log: JSON lines of who ran what, when, and with which outcome; secrets left out.
//!
//! Lines are written by a thread of their own, so a slow disk does not hold up commands. When
//! the thread falls far behind or the disk takes no more, lines are dropped and the next one says how many.
//! A file that was moved away or deleted is begun anew under its name.

use crate::document::{Cursor, Token};
use crate::error::Error;
use crate::peer::{Peer, SessionId};
use crate::text;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lines that may wait to be written.
const QUEUED_LINES: usize = 4096;
/// Arguments are cut off beyond this.
const ARGUMENT_BYTES: usize = 4096;
/// One write takes about so much.
const BATCH_BYTES: usize = 64 << 10;

/// Writes down commands and their outcomes.
#[derive(Debug)]
pub struct AuditLog {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

impl AuditLog {
    /// Appends to a file, which is made when it is missing, readable by its owner only.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or the thread not be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dropped = Arc::<AtomicU64>::default();
        let mut output = Output {
            path: path.to_owned(),
            file: open_file(path)?,
            dropped: Arc::clone(&dropped),
        };
        let (lines, received) = sync_channel(QUEUED_LINES);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_lines(&received, &mut output))?;
        Ok(AuditLog { lines, dropped })
    }

    /// Waits until everything recorded so far is with the system.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.lines.send(Line::Flush(done)).is_ok() {
            // The thread is gone when it could not write: there is nothing to wait for then.
            let _ = written.recv();
        }
    }

    pub(crate) fn record(
        &self,
        session: SessionId,
        peer: &Peer,
        command: &str,
        arguments: Option<&[u8]>,
        duration: Option<Duration>,
        outcome: Result<(), &Error>,
    ) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Vec::with_capacity(256);
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        // Writing to a vector cannot fail.
        let _ = write!(
            line,
            "{{\"time\": {}.{:06}, \"session\": {session}, \"peer\": ",
            now.as_secs(),
            now.subsec_micros()
        );
        text::write_string(&mut line, &peer.to_string());
        line.extend_from_slice(b", \"command\": ");
        text::write_string(&mut line, command);
        if let Some(arguments) = arguments {
            line.extend_from_slice(b", \"arguments\": ");
            line.extend_from_slice(arguments);
        }
        match outcome {
            Ok(()) => line.extend_from_slice(b", \"outcome\": \"ok\""),
            Err(error) => {
                line.extend_from_slice(b", \"outcome\": \"error\", \"class\": ");
                text::write_string(&mut line, error.class.as_str());
                line.extend_from_slice(b", \"desc\": ");
                text::write_string(&mut line, &error.desc);
            }
        }
        if let Some(duration) = duration {
            let _ = write!(line, ", \"duration-us\": {}", duration.as_micros());
        }
        if dropped > 0 {
            let _ = write!(line, ", \"dropped-lines\": {dropped}");
        }
        line.extend_from_slice(b"}\n");
        match self.lines.try_send(Line::Text(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

/// The file that lines go to.
struct Output {
    path: PathBuf,
    file: File,
    dropped: Arc<AtomicU64>,
}

impl Output {
    /// Writes whole lines.
    fn write(&mut self, text: &[u8]) {
        let outcome = self.follow().and_then(|()| self.file.write_all(text));
        if let Err(error) = outcome {
            tracing::error!(target: "qmp::audit", %error, path = %self.path.display(), "cannot write the audit log");
            let lines = text.iter().filter(|byte| **byte == b'\n').count();
            self.dropped
                .fetch_add(u64::try_from(lines).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Opens the file anew when it is not the one of that name any more: it was rotated.
    fn follow(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let named = std::fs::metadata(&self.path);
        if named.is_ok_and(|named| named.dev() == ours.dev() && named.ino() == ours.ino()) {
            return Ok(());
        }
        self.file = open_file(&self.path)?;
        Ok(())
    }
}

fn write_lines(received: &Receiver<Line>, output: &mut Output) {
    let mut batch = Vec::new();
    while let Ok(first) = received.recv() {
        let mut waiting = None;
        let mut next = Some(first);
        while let Some(line) = next {
            match line {
                Line::Text(text) => batch.extend_from_slice(&text),
                Line::Flush(done) => {
                    waiting = Some(done);
                    break;
                }
            }
            next = if batch.len() < BATCH_BYTES {
                received.try_recv().ok()
            } else {
                None
            };
        }
        if !batch.is_empty() {
            output.write(&batch);
            batch.clear();
        }
        if let Some(done) = waiting {
            // Nobody waits any more: fine.
            let _ = done.send(());
        }
    }
}

/// The names of members whose values are secrets, whatever command they belong to.
fn is_secret(key: &str) -> bool {
    ["password", "passphrase", "secret", "token", "key-data"]
        .iter()
        .any(|word| key.contains(word))
}

/// Arguments as the log shows them: without secrets, and cut off when they are long.
pub(crate) fn redacted(arguments: Cursor<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write_redacted(&mut out, arguments);
    if out.len() > ARGUMENT_BYTES {
        let mut short = Vec::new();
        text::write_string(
            &mut short,
            &String::from_utf8_lossy(out.get(..ARGUMENT_BYTES).unwrap_or_default()),
        );
        return short;
    }
    out
}

fn write_redacted(out: &mut Vec<u8>, value: Cursor<'_>) {
    if out.len() > ARGUMENT_BYTES {
        out.extend_from_slice(b"null");
        return;
    }
    match value.token() {
        Token::Array { .. } => {
            out.push(b'[');
            for (at, element) in value.elements().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                write_redacted(out, element);
            }
            out.push(b']');
        }
        Token::Object { .. } => {
            // An object's data is a secret, of whatever type somebody wanted it to be, and so is the value that a
            // property of such a name is set to.
            let is_object = value.members().any(|(key, _)| key == "qom-type");
            let is_property = value.members().any(|(key, name)| {
                key == "property"
                    && name
                        .as_str()
                        .is_some_and(|name| name == "data" || is_secret(name))
            });
            out.push(b'{');
            for (at, (key, member)) in value.members().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                text::write_string(out, key);
                out.extend_from_slice(b": ");
                if is_secret(key) && matches!(member.token(), Token::String { .. })
                    || is_object && key == "data"
                    || is_property && key == "value"
                {
                    out.extend_from_slice(b"\"***\"");
                } else {
                    write_redacted(out, member);
                }
            }
            out.push(b'}');
        }
        _ => text::write_value(out, value),
    }
}
