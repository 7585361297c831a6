//! The io_uring engine: one ring, owned by one thread.
//!
//! Callers put requests into a queue and wake the ring thread through an eventfd that the ring itself reads. The
//! ring thread alone touches the ring, so that nothing of it needs a lock.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::{Engine, Op, Outcome, Reply, ThreadPool};
use crate::sync::lock;

/// Requests in the kernel at once.
const ENTRIES: u32 = 256;
/// Marks the completion of the wake-up read.
const WAKE: u64 = u64::MAX;

/// The engine.
#[derive(Debug)]
pub struct Uring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Does what a ring cannot.
    pool: Arc<ThreadPool>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Queue {
    new: Vec<(Op, Reply)>,
    closed: bool,
    /// The ring thread has been woken and has not looked yet.
    woken: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("new", &lock(&self.queue).new.len())
            .finish_non_exhaustive()
    }
}

impl Uring {
    /// A ring, if the kernel has io_uring with what we need and the sandbox permits it. Calls go to `pool`.
    pub fn new(pool: Arc<ThreadPool>) -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        for code in [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE] {
            if !probe.is_supported(code) {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "io_uring lacks an operation",
                ));
            }
        }
        let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake,
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("block-ring".to_owned())
                .spawn(move || RingThread::new(ring, shared).run())?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
            pool,
        })
    }

    fn wake(&self) {
        // An eventfd takes a write at any time short of 2^64 wake-ups.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Engine for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn submit(&self, op: Op, reply: Reply) {
        if let Op::Call(_) = op {
            self.pool.submit(op, reply);
            return;
        }
        let first = {
            let mut queue = lock(&self.shared.queue);
            queue.new.push((op, reply));
            !std::mem::replace(&mut queue.woken, true)
        };
        if first {
            self.wake();
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // The thread ends when the kernel has given every buffer back.
            let _ = thread.join();
        }
    }
}

/// A request in the kernel.
struct Flight {
    op: Op,
    reply: Reply,
    /// Bytes done so far.
    done: usize,
}

struct RingThread {
    ring: IoUring,
    shared: Arc<Shared>,
    flights: HashMap<u64, Flight>,
    /// Accepted, but the ring was full.
    pending: Vec<Flight>,
    next: u64,
    wake_buffer: Box<[u8; 8]>,
    wake_armed: bool,
}

impl RingThread {
    fn new(ring: IoUring, shared: Arc<Shared>) -> Self {
        Self {
            ring,
            shared,
            flights: HashMap::new(),
            pending: Vec::new(),
            next: 0,
            wake_buffer: Box::new([0; 8]),
            wake_armed: false,
        }
    }

    fn run(mut self) {
        loop {
            let closed = self.take_new();
            if closed && self.flights.is_empty() && self.pending.is_empty() {
                return;
            }
            self.fill();
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
                    ) => {}
                Err(error) => {
                    tracing::error!(%error, "the ring failed; its requests fail with it");
                    self.fail_all();
                    return;
                }
            }
            self.reap();
        }
    }

    fn take_new(&mut self) -> bool {
        let mut queue = lock(&self.shared.queue);
        queue.woken = false;
        let new = std::mem::take(&mut queue.new);
        let closed = queue.closed;
        drop(queue);
        self.pending
            .extend(new.into_iter().map(|(op, reply)| Flight { op, reply, done: 0 }));
        closed
    }

    /// Moves requests into the ring as far as it has room.
    fn fill(&mut self) {
        let capacity = usize::try_from(ENTRIES).unwrap_or(usize::MAX) - 2;
        while self.flights.len() < capacity {
            let Some(flight) = self.pending.pop() else { break };
            self.start(flight);
        }
        if !self.wake_armed {
            let entry = opcode::Read::new(
                types::Fd(self.shared.wake.as_raw_fd()),
                self.wake_buffer.as_mut_ptr(),
                8,
            )
            .build()
            .user_data(WAKE);
            // SAFETY: the buffer and the eventfd live as long as this thread, which waits for all completions that
            // touch memory: it ends with the ring, whose closing cancels this read.
            self.wake_armed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        }
    }

    fn start(&mut self, mut flight: Flight) {
        let id = self.next;
        // The mark of the wake-up is never reached: that takes 2^64 requests.
        self.next += 1;
        let entry = entry(&mut flight).user_data(id);
        // SAFETY: buffer and file are owned by the flight, which stays in the table, its heap memory unmoved, until the
        // completion is taken; see `reap` and `fail_all`.
        let pushed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        if pushed {
            self.flights.insert(id, flight);
        } else {
            self.pending.push(flight);
        }
    }

    fn reap(&mut self) {
        let completions: Vec<(u64, i32)> = self
            .ring
            .completion()
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        for (id, result) in completions {
            if id == WAKE {
                self.wake_armed = false;
                continue;
            }
            let Some(mut flight) = self.flights.remove(&id) else {
                continue;
            };
            match advance(&mut flight, result) {
                Some(result) => finish(flight, result),
                None => self.pending.push(flight),
            }
        }
    }

    /// The ring is beyond repair. The kernel may still hold buffers: they are given up for good, not freed.
    fn fail_all(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.take_new();
        for (_, flight) in self.flights.drain() {
            let _ = flight.reply.send(Outcome {
                result: Err(io::Error::from_raw_os_error(libc::EIO)),
                buffer: None,
            });
            std::mem::forget(flight.op);
        }
        for flight in self.pending.drain(..) {
            finish(flight, Err(io::Error::from_raw_os_error(libc::EIO)));
        }
    }
}

fn entry(flight: &mut Flight) -> squeue::Entry {
    let done = flight.done;
    // The kernel takes at most 2 GiB at once; the rest follows.
    let length = |rest: usize| u32::try_from(rest).unwrap_or(1 << 30).min(1 << 30);
    match &mut flight.op {
        Op::Read { file, offset, buffer } => {
            let rest = &mut buffer[done..];
            opcode::Read::new(types::Fd(file.as_raw_fd()), rest.as_mut_ptr(), length(rest.len()))
                .offset(*offset + done as u64)
                .build()
        }
        Op::Write { file, offset, buffer } => {
            let rest = &buffer[done..];
            opcode::Write::new(types::Fd(file.as_raw_fd()), rest.as_ptr(), length(rest.len()))
                .offset(*offset + done as u64)
                .build()
        }
        Op::Sync { file } => opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        // Calls never come here (`submit` sends them to the pool).
        Op::Call(_) => opcode::Nop::new().build(),
    }
}

/// Takes a completion in; `None` when the request must go on.
fn advance(flight: &mut Flight, result: i32) -> Option<io::Result<u64>> {
    let count = match usize::try_from(result) {
        Ok(count) => count,
        Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) => return None,
        Err(_) => return Some(Err(io::Error::from_raw_os_error(-result))),
    };
    let done = flight.done + count;
    match &mut flight.op {
        Op::Read { buffer, .. } if done < buffer.len() => {
            if count == 0 {
                buffer[done..].fill(0);
                return Some(Ok(0));
            }
        }
        Op::Write { buffer, .. } if done < buffer.len() => {
            if count == 0 {
                return Some(Err(io::Error::from_raw_os_error(libc::ENOSPC)));
            }
        }
        _ => return Some(Ok(0)),
    }
    flight.done = done;
    None
}

fn finish(flight: Flight, result: io::Result<u64>) {
    let buffer = match flight.op {
        Op::Read { buffer, .. } | Op::Write { buffer, .. } => Some(buffer),
        Op::Sync { .. } | Op::Call(_) => None,
    };
    let _ = flight.reply.send(Outcome { result, buffer });
}
