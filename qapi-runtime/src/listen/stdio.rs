//! The program's own standard input and output as one connection, without threads where that works.
//!
//! Pipes, terminals and sockets are polled like any client. Their files are opened anew where the
//! system allows it, so that nobody who shares them with us finds them non-blocking. Regular files
//! cannot be polled: they go through the runtime's helper threads.

use crate::session::Stream;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// The program's standard input and output as one connection.
pub fn stdio() -> Box<dyn Stream> {
    let polled = polled(std::io::stdin().as_fd(), 0, Interest::READABLE).and_then(|input| {
        Ok(Stdio {
            input,
            output: polled(std::io::stdout().as_fd(), 1, Interest::WRITABLE)?,
        })
    });
    match polled {
        Ok(stdio) => Box::new(stdio),
        Err(_) => Box::new(tokio::io::join(tokio::io::stdin(), tokio::io::stdout())),
    }
}

/// Two descriptors as one connection: what clients say comes from `input`, what they are told goes to `output`.
///
/// # Errors
///
/// When they cannot be polled.
pub fn pair(input: OwnedFd, output: OwnedFd) -> io::Result<Box<dyn Stream>> {
    Ok(Box::new(Stdio {
        input: register(input, Interest::READABLE)?,
        output: register(output, Interest::WRITABLE)?,
    }))
}

/// A standard stream that can be polled.
fn polled(stream: impl AsFd, number: u32, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let access = if interest.is_readable() {
        OFlags::RDONLY
    } else {
        OFlags::WRONLY
    };
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = match rustix::fs::open(format!("/proc/self/fd/{number}"), flags, Mode::empty()) {
        Ok(fd) => fd,
        // A socket, for one, cannot be opened again: it is shared with whoever gave it to us.
        Err(_) => {
            let fd = rustix::io::fcntl_dupfd_cloexec(&stream, 3)?;
            rustix::io::ioctl_fionbio(&fd, true)?;
            fd
        }
    };
    register(fd, interest)
}

/// Has a descriptor polled.
pub(super) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    if rustix::fs::fstat(&fd).is_ok_and(|file| rustix::fs::FileType::from_raw_mode(file.st_mode).is_file()) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "regular files cannot be polled",
        ));
    }
    // SAFETY: an `OwnedFd` names one open descriptor, always the same, for as long as it lives; the
    // `AsyncFd` takes it over and gives it out only as a shared reference.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(registered?)
}

/// Standard input and output, both polled.
struct Stdio {
    input: AsyncFd<OwnedFd>,
    output: AsyncFd<OwnedFd>,
}

impl AsyncRead for Stdio {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.input.poll_read_ready(cx))?;
            let read = ready.try_io(|input| Ok(rustix::io::read(input, buffer.initialize_unfilled())?));
            match read {
                Ok(read) => {
                    buffer.advance(read?);
                    return Poll::Ready(Ok(()));
                }
                // It was not ready after all.
                Err(_) => continue,
            }
        }
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.output.poll_write_ready(cx))?;
            match ready.try_io(|output| Ok(rustix::io::write(output, bytes)?)) {
                Ok(written) => return Poll::Ready(written),
                Err(_) => continue,
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
