//! The thread pool: threads that block so that tasks need not.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Engine, Op, Outcome, Reply, is_interrupted};
use crate::sync::lock;

/// How many threads there are at most.
const MAX_THREADS: usize = 32;
/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);

/// A pool that grows with its work.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Op, Reply)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Shared")
            .field("threads", &state.threads)
            .field("queue", &state.queue.len())
            .finish()
    }
}

impl Default for ThreadPool {
    fn default() -> Self {
        Self::new()
    }
}

impl ThreadPool {
    /// A pool without threads yet.
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
        }
    }
}

impl Engine for ThreadPool {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn submit(&self, op: Op, reply: Reply) {
        let grow = {
            let mut state = lock(&self.shared.state);
            state.queue.push_back((op, reply));
            let grow = state.queue.len() > state.idle && state.threads < MAX_THREADS;
            if grow {
                state.threads += 1;
            }
            grow
        };
        if grow {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new()
                .name("block-io".to_owned())
                .spawn(move || shared.run());
            if spawned.is_err() {
                let mut state = lock(&self.shared.state);
                state.threads -= 1;
                if state.threads == 0 {
                    // Nobody is there to do it: do it here rather than never.
                    let work: Vec<_> = state.queue.drain(..).collect();
                    drop(state);
                    for (op, reply) in work {
                        let _ = reply.send(perform(op));
                    }
                }
            }
        }
        self.shared.work.notify_one();
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some((op, reply)) = state.queue.pop_front() {
                drop(state);
                // The receiver may have gone; the work was done all the same.
                let _ = reply.send(perform(op));
                state = lock(&self.state);
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (next, timeout) = self
                .work
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

fn perform(op: Op) -> Outcome {
    match op {
        Op::Read {
            file,
            offset,
            mut buffer,
        } => {
            let result = read_full(&file, offset, &mut buffer).map(|()| 0);
            Outcome {
                result,
                buffer: Some(buffer),
            }
        }
        Op::Write { file, offset, buffer } => {
            let result = write_full(&file, offset, &buffer).map(|()| 0);
            Outcome {
                result,
                buffer: Some(buffer),
            }
        }
        Op::Sync { file } => Outcome {
            result: rustix::fs::fdatasync(&file).map(|()| 0).map_err(io::Error::from),
            buffer: None,
        },
        Op::Call(call) => Outcome {
            result: call(),
            buffer: None,
        },
    }
}

/// Fills `buf` from `offset`; beyond the end of the file there are zeroes.
pub(crate) fn read_full(file: &OwnedFd, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match rustix::io::pread(file, &mut *buf, offset).map_err(io::Error::from) {
            Ok(0) => {
                buf.fill(0);
                return Ok(());
            }
            Ok(count) => {
                buf = &mut buf[count..];
                offset += count as u64;
            }
            Err(error) if is_interrupted(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `buf` at `offset`.
pub(crate) fn write_full(file: &OwnedFd, mut offset: u64, mut buf: &[u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match rustix::io::pwrite(file, buf, offset).map_err(io::Error::from) {
            Ok(0) => return Err(io::Error::from_raw_os_error(28)),
            Ok(count) => {
                buf = &buf[count..];
                offset += count as u64;
            }
            Err(error) if is_interrupted(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
