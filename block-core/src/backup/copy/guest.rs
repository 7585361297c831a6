//! A guest's write: what it is about to overwrite is saved first, by itself or by whoever copies it already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{BUFFER_BYTES, BlockCopy, Claim, CopyError, Sets, Way, overlaps};
use crate::backup::scratch::with_buffer;
use crate::driver::WriteFlags;
use crate::error::BlockError;
use crate::graph::is_zero;
use crate::sync::lock;

/// A guest's write that may have to wait.
struct Delay<'a> {
    copy: &'a BlockCopy,
    started: Instant,
    waited: bool,
}

impl Drop for Delay<'_> {
    fn drop(&mut self) {
        if self.waited {
            self.copy.note_delay(self.started);
        }
    }
}

impl BlockCopy {
    /// Takes for a guest's write what of a run it has to save.
    fn guest_claim(
        self: &Arc<Self>,
        sets: &mut Sets,
        run: (u64, u64),
        clusters: (u64, u64),
        bytes: (u64, u64),
    ) -> Claim {
        let mut claim = self.claim(sets, run.0, run.1, Way::Buffer);
        claim.for_guest = true;
        if clusters.1 - clusters.0 == 1 && self.by_blocks.load(Ordering::Relaxed) {
            let touched = self.blocks_in(clusters.0, bytes.0, bytes.1);
            if touched != self.blocks_in(clusters.0, 0, u64::MAX) {
                claim.blocks = Some(touched);
            }
        }
        claim
    }

    /// Whether nothing in the range has to be copied: its clusters are not in the set, or all blocks that it touches are
    /// saved.
    fn is_saved(&self, sets: &Sets, clusters: (u64, u64), bytes: (u64, u64)) -> bool {
        sets.dirty.next_set(clusters.0, clusters.1).is_none_or(|cluster| {
            let touched = self.blocks_in(cluster, bytes.0, bytes.1);
            clusters.1 - clusters.0 == 1
                && sets
                    .saved
                    .get(&cluster)
                    .is_some_and(|saved| touched & !saved == 0)
        })
    }

    /// Whether a guest may overwrite the range now: nothing in it has to be copied, is on its way or is being read.
    fn is_free(&self, sets: &Sets, clusters: (u64, u64), bytes: (u64, u64)) -> bool {
        self.is_saved(sets, clusters, bytes)
            && !sets.in_flight.iter().any(|range| overlaps(*range, clusters))
            && !sets.readers.iter().any(|range| overlaps(*range, bytes))
    }

    /// Copies what a guest is about to overwrite, if that can be done without waiting. `None`: it cannot.
    pub fn try_before_write(self: &Arc<Self>, offset: u64, len: u64) -> Option<Result<(), CopyError>> {
        if self.is_retired() {
            return Some(Ok(()));
        }
        let clusters = self.clusters(offset, len);
        let claim = {
            let mut sets = lock(&self.sets);
            if self.is_free(&sets, clusters, (offset, offset.saturating_add(len))) {
                return Some(Ok(()));
            }
            if self.discards_source() || self.compress.load(Ordering::Relaxed) {
                return None;
            }
            let first = sets.dirty.next_run(clusters.0, clusters.1, u64::MAX);
            let alone = !sets.in_flight.iter().any(|range| overlaps(*range, clusters))
                && !sets
                    .readers
                    .iter()
                    .any(|range| overlaps(*range, (offset, offset.saturating_add(len))));
            // One run of few clusters; anything else is left to the path that may wait.
            let (start, end) =
                first.filter(|(start, end)| alone && (end - start) * self.cluster <= BUFFER_BYTES)?;
            if sets.dirty.next_set(end, clusters.1).is_some() {
                return None;
            }
            self.guest_claim(
                &mut sets,
                (start, end),
                clusters,
                (offset, offset.saturating_add(len)),
            )
        };
        let started = Instant::now();
        let mut result = Ok(());
        for (at, len) in self.pieces(&claim) {
            result = with_buffer(usize::try_from(len).ok()?, |buf| {
                if let Err(error) = self.source.try_read(at, buf)? {
                    return Some(Err(CopyError::read(error)));
                }
                if is_zero(buf) {
                    // Finding out whether the target is zero already may wait.
                    return None;
                }
                self.target
                    .try_write(at, buf, WriteFlags::default())
                    .map(|result| result.map_err(CopyError::write))
            })?;
            if result.is_err() {
                break;
            }
        }
        self.note_delay(started);
        if result.is_ok() {
            claim.done();
        }
        Some(result)
    }

    /// Copies what a guest is about to overwrite, and waits for whoever copies or reads parts of it already.
    pub async fn before_write(self: &Arc<Self>, offset: u64, len: u64) -> Result<(), CopyError> {
        // Noted when it is dropped: a guest may give up waiting.
        let mut delay = Delay {
            copy: self,
            started: Instant::now(),
            waited: false,
        };
        let mut buffer = Vec::new();
        let clusters = self.clusters(offset, len);
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.is_retired() {
                return Ok(());
            }
            let claim = {
                let mut sets = lock(&self.sets);
                if self.is_free(&sets, clusters, (offset, offset.saturating_add(len))) {
                    return Ok(());
                }
                let chunk = (BUFFER_BYTES / self.cluster).max(1);
                let bytes = (offset, offset.saturating_add(len));
                let run = sets.dirty.next_run(clusters.0, clusters.1, chunk);
                // What is saved and only still being read is waited for.
                run.filter(|_| !self.is_saved(&sets, clusters, bytes))
                    .map(|run| self.guest_claim(&mut sets, run, clusters, bytes))
            };
            delay.waited = true;
            match claim {
                None => changed.await,
                Some(claim) => {
                    let retired = self.retire.notified();
                    tokio::select! {
                        result = self.transfer(claim, &mut buffer) => {
                            if result.is_err() && !self.is_retired() {
                                return result;
                            }
                        }
                        () = retired => {}
                    }
                }
            }
        }
    }

    fn note_delay(&self, started: Instant) {
        let delay = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.guest_delay_max_ns.fetch_max(delay, Ordering::Relaxed);
    }

    /// Waits at most this long for a guest write's copy; `None` waits for ever.
    pub async fn before_write_within(
        self: &Arc<Self>,
        offset: u64,
        len: u64,
        within: Option<Duration>,
    ) -> Result<(), CopyError> {
        match within {
            None => self.before_write(offset, len).await,
            Some(within) => tokio::time::timeout(within, self.before_write(offset, len))
                .await
                .unwrap_or_else(|_| {
                    Err(CopyError::write(BlockError::from_errno(
                        110,
                        "Connection timed out",
                    )))
                }),
        }
    }
}
