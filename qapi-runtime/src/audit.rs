//! The audit log: JSON lines of who ran what, when, and with which outcome; secrets left out.
//!
//! Lines are written by a thread of their own, so a slow disk does not hold up commands. When
//! the thread falls far behind, lines are dropped and the next one says how many.

use crate::document::{Cursor, Token};
use crate::error::Error;
use crate::peer::{Peer, SessionId};
use crate::text;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lines that may wait to be written.
const QUEUED_LINES: usize = 4096;
/// Arguments are cut off beyond this.
const ARGUMENT_BYTES: usize = 4096;

/// Writes down commands and their outcomes.
#[derive(Debug)]
pub struct AuditLog {
    lines: SyncSender<Line>,
    dropped: AtomicU64,
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
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().append(true).create(true).mode(0o600).open(path)?;
        let (lines, received) = sync_channel(QUEUED_LINES);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_lines(&received, file))?;
        Ok(AuditLog {
            lines,
            dropped: AtomicU64::new(0),
        })
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

fn write_lines(received: &Receiver<Line>, file: File) {
    let mut file = BufWriter::new(file);
    while let Ok(first) = received.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            let outcome = match line {
                Line::Text(text) => file.write_all(&text),
                Line::Flush(done) => {
                    let outcome = file.flush();
                    // Nobody waits any more: fine.
                    let _ = done.send(());
                    outcome
                }
            };
            if let Err(error) = outcome {
                tracing::error!(target: "qmp::audit", %error, "cannot write the audit log");
            }
            next = received.try_recv().ok();
        }
        if let Err(error) = file.flush() {
            tracing::error!(target: "qmp::audit", %error, "cannot write the audit log");
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
            // A secret object holds its secret in a member with a plain name.
            let is_secret_object = value
                .members()
                .any(|(key, kind)| key == "qom-type" && kind.as_str().is_some_and(is_secret));
            out.push(b'{');
            for (at, (key, member)) in value.members().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                text::write_string(out, key);
                out.extend_from_slice(b": ");
                if is_secret(key) && matches!(member.token(), Token::String { .. })
                    || is_secret_object && key == "data"
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
