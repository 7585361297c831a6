//! Engines: who waits in the kernel for file I/O, so that no task of the runtime has to.
//!
//! Two implementations behind one trait: [`ThreadPool`] and [`Uring`], a ring in a thread of its own. Requests own
//! their buffers and files, so that a caller that goes away leaves nothing behind that the kernel could write into.

mod buffer;
#[cfg(test)]
mod tests;
mod threads;
mod uring;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

pub use buffer::Buffer;
pub use threads::ThreadPool;
pub(crate) use threads::{read_full, write_full};
pub use uring::Uring;

use crate::options::AioBackend;

/// Work that blocks and has no form of its own.
pub type Call = Box<dyn FnOnce() -> io::Result<u64> + Send>;

/// One request. Reads and writes are whole: an engine goes on where the kernel stopped short.
pub enum Op {
    /// Fills the buffer; what lies beyond the end of the file reads as zeroes.
    Read {
        /// The file.
        file: Arc<OwnedFd>,
        /// Offset in bytes.
        offset: u64,
        /// Where the bytes go.
        buffer: Buffer,
    },
    /// Writes the buffer.
    Write {
        /// The file.
        file: Arc<OwnedFd>,
        /// Offset in bytes.
        offset: u64,
        /// The bytes.
        buffer: Buffer,
    },
    /// Makes data durable (`fdatasync`).
    Sync {
        /// The file.
        file: Arc<OwnedFd>,
    },
    /// Anything else.
    Call(Call),
}

/// How a request ended.
#[derive(Debug)]
pub struct Outcome {
    /// The number of a call, or 0.
    pub result: io::Result<u64>,
    /// The buffer of a read or write.
    pub buffer: Option<Buffer>,
}

/// Where an outcome goes. The receiver may be gone by then.
pub type Reply = oneshot::Sender<Outcome>;

/// Does requests without blocking the caller.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Takes a request. The outcome is sent when it is done, in any order.
    fn submit(&self, op: Op, reply: Reply);
}

impl dyn Engine + '_ {
    /// Does a request and waits for it.
    pub async fn run(&self, op: Op) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        self.submit(op, reply);
        outcome.await.unwrap_or_else(|_| Outcome {
            result: Err(io::Error::from_raw_os_error(125)),
            buffer: None,
        })
    }

    /// Does a piece of blocking work and gives what it returns.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (give, take) = oneshot::channel();
        let call: Call = Box::new(move || {
            let _ = give.send(work());
            Ok(0)
        });
        let outcome = self.run(Op::Call(call)).await;
        match take.await {
            Ok(result) => result,
            Err(_) => Err(outcome
                .result
                .err()
                .unwrap_or_else(|| io::Error::from_raw_os_error(125))),
        }
    }
}

/// The engines of a process, made when first asked for.
#[derive(Debug, Default)]
pub struct Engines {
    threads: OnceLock<Arc<ThreadPool>>,
    uring: OnceLock<Option<Arc<Uring>>>,
}

impl Engines {
    /// The thread pool.
    pub fn threads(&self) -> Arc<dyn Engine> {
        self.pool()
    }

    fn pool(&self) -> Arc<ThreadPool> {
        Arc::clone(self.threads.get_or_init(|| Arc::new(ThreadPool::new())))
    }

    /// The ring, where the kernel and the sandbox allow one.
    pub fn uring(&self) -> Option<Arc<dyn Engine>> {
        let ring = self.uring.get_or_init(|| match Uring::new(self.pool()) {
            Ok(ring) => Some(Arc::new(ring)),
            Err(error) => {
                tracing::info!(%error, "io_uring is not available; a thread pool does the I/O");
                None
            }
        });
        ring.clone().map(|ring| ring as Arc<dyn Engine>)
    }

    /// The engine that was asked for or, where that is not to be had, the thread pool.
    pub fn choose(&self, wanted: Option<AioBackend>) -> Arc<dyn Engine> {
        match wanted {
            Some(AioBackend::Threads) => self.threads(),
            Some(AioBackend::Native | AioBackend::IoUring) | None => {
                self.uring().unwrap_or_else(|| self.threads())
            }
        }
    }
}

/// Whether a system call was merely interrupted.
fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}
