//! A file in memory that remembers what a power cut may lose.

use std::sync::{Arc, Mutex};

use super::super::storage::Storage;
use super::Random;
use crate::driver::{BlockStatus, HostExtent, IoFuture, Preallocation, WriteFlags, WriteMapping, ZeroFlags};
use crate::sync::lock;
use crate::{BlockError, Result};

/// One change since the last flush.
#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Debug, Default)]
struct State {
    /// What readers see.
    now: Vec<u8>,
    /// What a flush made certain.
    durable: Vec<u8>,
    /// What may or may not be there after a power cut.
    volatile: Vec<Change>,
    /// Writes that are let through before every further one fails; `None`: all.
    budget: Option<u64>,
    writes: u64,
    flushes: u64,
    /// Requests so far, and what happens to them.
    requests: u64,
    fault: Option<Fault>,
    /// The file cannot grow beyond this.
    room: Option<u64>,
    /// Every n-th write is given to a dropped or delayed request: the future pends once.
    stall: Option<Random>,
    inline: bool,
}

/// What goes wrong, counted in requests of any kind from the beginning.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// This one fails and nothing of it is done.
    Once(u64),
    /// This one fails and half of it is done.
    Half(u64),
    /// This one fails and all of it is done.
    Done(u64),
    /// All from this one on fail.
    From(u64),
    /// Flushes from this request on fail.
    Flushes(u64),
}

impl Fault {
    /// Whether request `nth` fails, and how much of it is done first, in halves.
    fn hits(self, nth: u64, flush: bool) -> Option<usize> {
        match self {
            Fault::Once(at) if at == nth => Some(0),
            Fault::Half(at) if at == nth => Some(1),
            Fault::Done(at) if at == nth => Some(2),
            Fault::From(at) if nth >= at => Some(0),
            Fault::Flushes(at) if flush && nth >= at => Some(0),
            _ => None,
        }
    }
}

/// The file.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            if bytes.len() < start + data.len() {
                bytes.resize(start + data.len(), 0);
            }
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Change::Truncate(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
    }
}

impl Memory {
    pub(super) fn new() -> Arc<Self> {
        Self::with(Vec::new())
    }

    pub(super) fn with(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            now: bytes.clone(),
            durable: bytes,
            ..State::default()
        })))
    }

    /// Fails every write after `budget` more.
    pub(super) fn fail_after(&self, budget: u64) {
        lock(&self.0).budget = Some(budget);
    }

    /// Makes something go wrong from now on.
    pub(super) fn fault(&self, fault: Option<Fault>) {
        lock(&self.0).fault = fault;
    }

    /// The file cannot grow beyond this any more.
    pub(super) fn limit(&self, room: Option<u64>) {
        lock(&self.0).room = room;
    }

    /// Reads, writes and flushes so far.
    pub(super) fn requests(&self) -> u64 {
        lock(&self.0).requests
    }

    /// Counts a request; the error it gets.
    fn count(&self, flush: bool) -> Result<()> {
        let mut state = lock(&self.0);
        state.requests += 1;
        let nth = state.requests;
        match state.fault.and_then(|fault| fault.hits(nth, flush)) {
            Some(_) => Err(BlockError::from_errno(5, "Input/output error")),
            None => Ok(()),
        }
    }

    pub(super) fn writes(&self) -> u64 {
        lock(&self.0).writes
    }

    /// Makes requests wait now and then, so that others overtake them.
    pub(super) fn stall(&self, seed: u64) {
        lock(&self.0).stall = Some(Random::new(seed));
    }

    /// Offers the paths that do not wait.
    pub(super) fn inline(&self) {
        lock(&self.0).inline = true;
    }

    /// What a reader sees now.
    pub(super) fn bytes(&self) -> Vec<u8> {
        lock(&self.0).now.clone()
    }

    /// What a power cut leaves: the durable state, with some of the changes since, in any order, some of them torn
    /// at a sector.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let state = lock(&self.0);
        let mut bytes = state.durable.clone();
        let mut order: Vec<usize> = (0..state.volatile.len()).collect();
        for at in (1..order.len()).rev() {
            let other = usize::try_from(random.below(at as u64 + 1)).unwrap();
            order.swap(at, other);
        }
        let mode = random.below(4);
        for at in order {
            let keep = match mode {
                0 => false,
                1 => true,
                _ => random.below(2) == 0,
            };
            if !keep {
                continue;
            }
            match &state.volatile[at] {
                Change::Write(offset, data) if data.len() > 512 && random.below(3) == 0 => {
                    for (nth, sector) in data.chunks(512).enumerate() {
                        if random.below(2) == 0 {
                            apply(
                                &mut bytes,
                                &Change::Write(offset + nth as u64 * 512, sector.to_vec()),
                            );
                        }
                    }
                }
                change => apply(&mut bytes, change),
            }
        }
        bytes
    }

    /// Writes as the holder of a mapping does, past the image.
    pub(super) fn fill_mapping(&self, mapping: &WriteMapping, data: &[u8]) {
        self.change(Change::Write(mapping.extent.offset, data.to_vec()))
            .unwrap();
    }

    fn change(&self, change: Change) -> Result<()> {
        let mut state = lock(&self.0);
        if let Some(budget) = &mut state.budget {
            match budget.checked_sub(1) {
                Some(left) => *budget = left,
                None => return Err(BlockError::from_errno(5, "Input/output error")),
            }
        }
        state.requests += 1;
        let nth = state.requests;
        let fault = state.fault.and_then(|fault| fault.hits(nth, false));
        if let Change::Write(offset, data) = &change
            && let Some(room) = state.room
            && offset + data.len() as u64 > room
        {
            return Err(BlockError::from_errno(28, "No space left on device"));
        }
        let (change, result) = match (fault, change) {
            (None, change) => (change, Ok(())),
            (Some(halves), Change::Write(offset, data)) if halves > 0 => {
                // A sector is written as a whole or not at all.
                let len = if halves > 1 {
                    data.len()
                } else {
                    data.len() / 1024 * 512
                };
                let part = data[..len].to_vec();
                (
                    Change::Write(offset, part),
                    Err(BlockError::from_errno(5, "Input/output error")),
                )
            }
            _ => return Err(BlockError::from_errno(5, "Input/output error")),
        };
        state.writes += 1;
        apply(&mut state.now, &change);
        state.volatile.push(change);
        result
    }

    fn stalls(&self) -> u64 {
        match &mut lock(&self.0).stall {
            Some(random) => random.below(4),
            None => 0,
        }
    }

    async fn pause(&self) {
        for _ in 0..self.stalls() {
            tokio::task::yield_now().await;
        }
    }

    fn fill(&self, offset: u64, buf: &mut [u8]) {
        let state = lock(&self.0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(state.now.len());
        let inside = (state.now.len() - start).min(buf.len());
        buf[..inside].copy_from_slice(&state.now[start..start + inside]);
        buf[inside..].fill(0);
    }
}

/// No test image is larger: a wild offset must not take all memory.
const MAX_LENGTH: u64 = 1 << 30;

impl Storage for Memory {
    fn length(&self) -> u64 {
        lock(&self.0).now.len() as u64
    }

    fn read<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            self.pause().await;
            self.count(false)?;
            self.fill(offset, buf);
            Ok(())
        })
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        if !lock(&self.0).inline {
            return None;
        }
        Some(self.count(false).map(|()| self.fill(offset, buf)))
    }

    fn write<'a>(&'a self, offset: u64, buf: &'a [u8], _flags: WriteFlags) -> IoFuture<'a> {
        Box::pin(async move {
            self.pause().await;
            if offset.saturating_add(buf.len() as u64) > MAX_LENGTH {
                return Err(BlockError::from_errno(27, "File too large"));
            }
            self.change(Change::Write(offset, buf.to_vec()))?;
            self.pause().await;
            Ok(())
        })
    }

    fn try_write(&self, offset: u64, buf: &[u8], _flags: WriteFlags) -> Option<Result<()>> {
        let inline = lock(&self.0).inline && offset.saturating_add(buf.len() as u64) <= MAX_LENGTH;
        inline.then(|| self.change(Change::Write(offset, buf.to_vec())))
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: ZeroFlags) -> IoFuture<'_> {
        Box::pin(async move {
            self.pause().await;
            if offset.saturating_add(len) > MAX_LENGTH {
                return Err(BlockError::from_errno(27, "File too large"));
            }
            self.change(Change::Write(offset, vec![0; usize::try_from(len).unwrap()]))
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoFuture<'_> {
        Box::pin(async move {
            let inside = self.length().saturating_sub(offset).min(len);
            // What is discarded is anything afterwards.
            self.change(Change::Write(
                offset,
                vec![0xdd; usize::try_from(inside).unwrap()],
            ))
        })
    }

    fn flush(&self) -> IoFuture<'_> {
        Box::pin(async move {
            self.pause().await;
            self.count(true)?;
            let mut state = lock(&self.0);
            if state.budget == Some(0) {
                return Err(BlockError::from_errno(5, "Input/output error"));
            }
            state.flushes += 1;
            let volatile = std::mem::take(&mut state.volatile);
            for change in &volatile {
                apply(&mut state.durable, change);
            }
            Ok(())
        })
    }

    fn truncate(&self, length: u64, _preallocation: Preallocation) -> IoFuture<'_> {
        Box::pin(async move {
            if length > MAX_LENGTH {
                return Err(BlockError::from_errno(27, "File too large"));
            }
            self.change(Change::Truncate(length))
        })
    }

    fn map_for_write(&self, offset: u64, len: u64) -> IoFuture<'_, Option<WriteMapping>> {
        Box::pin(async move {
            // Nobody writes to this file: the tests put the bytes into memory.
            let file = std::fs::File::open("/dev/null")?;
            let extent = HostExtent {
                file: Arc::new(file.into()),
                offset,
            };
            Ok(Some(WriteMapping {
                extent,
                len,
                token: 0,
            }))
        })
    }

    fn block_status(&self, _offset: u64, len: u64, _want_host: bool) -> IoFuture<'_, BlockStatus> {
        Box::pin(async move {
            Ok(BlockStatus {
                len,
                allocated: true,
                data: true,
                ..BlockStatus::default()
            })
        })
    }
}
