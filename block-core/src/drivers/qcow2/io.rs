//! Guest requests: what the steps of [`Meta`] need is fetched here, and the data are moved.
//!
//! A request that is dropped at an await leaves its space in quarantine: nothing refers to it, and it is handed out
//! again only after a flush, when no write of the request can come late.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::bytes::{decode_table, to_u64, to_usize};
use super::meta::{Allocation, Meta, Need, Place, Source, Step, ZeroMode};
use super::{BlockError, ErrorKind, Qcow2, Result};
use crate::driver::{IoFuture, WriteFlags, WriteMapping, ZeroFlags};
use crate::sync::lock;

/// A write to new clusters whose old content must be kept around it goes through one buffer up to this size.
const MERGE_BYTES: u64 = 256 << 10;

/// A request under way: no cluster that it may have looked up is handed out again before it ends.
pub(super) struct Busy<'a> {
    image: &'a Qcow2,
    parity: usize,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.image.busy.get(self.parity)
            && busy.fetch_sub(1, Ordering::AcqRel) == 1
            && self.image.wants_idle.load(Ordering::Acquire)
        {
            self.image.idle.notify_waiters();
        }
    }
}

/// The image all to oneself.
pub(super) struct Alone<'a> {
    image: &'a Qcow2,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        if let Some(gate) = lock(&self.image.meta).exclusive.take() {
            gate.notify_waiters();
        }
    }
}

/// Space set aside; given back if it is not committed.
pub(super) struct Hold<'a> {
    image: &'a Qcow2,
    allocation: Option<Allocation>,
}

impl<'a> Hold<'a> {
    pub(super) fn new(image: &'a Qcow2, allocation: Allocation) -> Self {
        Self {
            image,
            allocation: Some(allocation),
        }
    }

    pub(super) fn get(&self) -> Result<&Allocation> {
        self.allocation
            .as_ref()
            .ok_or_else(|| BlockError::new(ErrorKind::Invalid, "Allocation is gone"))
    }

    /// Makes the space visible.
    pub(super) async fn commit(mut self) -> Result<()> {
        if let Some(allocation) = &self.allocation {
            self.image.step(|meta| meta.commit(allocation)).await?;
            self.allocation = None;
        }
        Ok(())
    }

    /// Keeps it set aside after this handle is gone.
    pub(super) fn keep(mut self) -> Option<Allocation> {
        self.allocation.take()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some(allocation) = &self.allocation {
            lock(&self.image.meta).give_back(allocation, true);
        }
    }
}

/// References that were taken and are given back unless they are kept.
pub(super) struct Taken<'a> {
    image: &'a Qcow2,
    pub(super) first: u64,
    pub(super) count: u64,
    /// The space was never written and reads as zeroes.
    pub(super) fresh: bool,
    kept: bool,
}

impl Taken<'_> {
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let free = super::meta::Free {
                first: self.first,
                count: self.count,
                reason: super::meta::FreeReason::Other,
            };
            let mut meta = lock(&self.image.meta);
            for cluster in free.first..free.first + free.count {
                meta.metadata.remove(&cluster);
            }
            meta.frees.quarantine.push(free);
        }
    }
}

/// Marks something as being loaded; tells those who wait when it ends, however it ends.
struct Loading<'a> {
    image: &'a Qcow2,
    key: (bool, u64),
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if let Some(notify) = lock(&self.image.meta).loading.remove(&self.key) {
            notify.notify_waiters();
        }
    }
}

struct MakingTable<'a> {
    image: &'a Qcow2,
    l1_index: u64,
}

impl Drop for MakingTable<'_> {
    fn drop(&mut self) {
        if let Some(notify) = lock(&self.image.meta).l1_busy.remove(&self.l1_index) {
            notify.notify_waiters();
        }
    }
}

/// Sets the flag again when a settling flush did not end.
struct Resettle<'a>(&'a Qcow2, bool);

impl Drop for Resettle<'_> {
    fn drop(&mut self) {
        if !self.1 {
            lock(&self.0.meta).unsettled = true;
        }
    }
}

fn no_medium() -> BlockError {
    BlockError::from_errno(123, "No medium found")
}

impl Qcow2 {
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.read_only.load(Ordering::Acquire) {
            Err(BlockError::new(ErrorKind::ReadOnly, "Block node is read-only"))
        } else {
            Ok(())
        }
    }

    // ---- Entering ----

    /// Starts a request, or tells what to wait for.
    fn enter(&self, meta: &Meta) -> Step<Busy<'_>> {
        if meta.broken {
            return Err(Need::Fail(no_medium()));
        }
        if let Some(gate) = &meta.exclusive {
            return Err(Need::Wait(Arc::clone(gate).notified_owned()));
        }
        let parity = meta.epoch;
        if let Some(busy) = self.busy.get(parity) {
            busy.fetch_add(1, Ordering::AcqRel);
        }
        Ok(Busy { image: self, parity })
    }

    /// Starts a request.
    pub(super) async fn begin(&self) -> Result<Busy<'_>> {
        self.step(|meta| self.enter(meta)).await
    }

    /// Waits until no request is under way and keeps new ones out.
    pub(super) async fn alone(&self) -> Result<Alone<'_>> {
        let alone = self
            .step(|meta| match &meta.exclusive {
                Some(gate) => Err(Need::Wait(Arc::clone(gate).notified_owned())),
                None => {
                    meta.exclusive = Some(Arc::new(Notify::new()));
                    Ok(Alone { image: self })
                }
            })
            .await?;
        loop {
            let woken = self.idle.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.wants_idle.store(true, Ordering::SeqCst);
            if self.busy.iter().all(|busy| busy.load(Ordering::SeqCst) == 0) {
                self.wants_idle.store(false, Ordering::Release);
                return Ok(alone);
            }
            woken.await;
        }
    }

    // ---- Fetching what steps need ----

    /// Does a step, as often as it needs something first.
    pub(super) async fn step<T>(&self, mut step: impl FnMut(&mut Meta) -> Step<T> + Send) -> Result<T> {
        loop {
            let outcome = step(&mut lock(&self.meta));
            match outcome {
                Ok(value) => return Ok(value),
                Err(Need::Wait(woken)) => woken.await,
                Err(need) => self.satisfy(need).await?,
            }
        }
    }

    /// Boxed, because making a table takes steps of its own.
    fn satisfy(&self, need: Need) -> IoFuture<'_> {
        Box::pin(async move {
            match need {
                Need::Slice(key) => self.load_slice(key).await,
                Need::Refblock(block) => self.load_refblock(block).await,
                Need::Room => self.write_back(false).await,
                Need::Table(l1_index) => self.make_table(l1_index).await,
                Need::Wait(woken) => {
                    woken.await;
                    Ok(())
                }
                Need::Settle => {
                    lock(&self.meta).unsettled = false;
                    let mut guard = Resettle(self, false);
                    self.file.flush().await?;
                    guard.1 = true;
                    Ok(())
                }
                Need::Corrupt(corruption) => Err(self.corrupted(&corruption).await),
                Need::Fail(error) => Err(error),
            }
        })
    }

    /// Reads of the file may go beyond its end, where tables that end in zeroes were not written whole.
    pub(super) async fn read_file(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.file.try_read(offset, buf) {
            Some(result) => result,
            None => self.file.read(offset, buf).await,
        }
    }

    /// Claims the loading of a piece; `None`: it is there, or somebody else loaded it meanwhile.
    async fn claim(&self, key: (bool, u64), have: impl Fn(&Meta) -> bool) -> Option<Loading<'_>> {
        let woken = {
            let mut meta = lock(&self.meta);
            if have(&meta) {
                return None;
            }
            match meta.loading.get(&key) {
                Some(notify) => Arc::clone(notify).notified_owned(),
                None => {
                    meta.loading.insert(key, Arc::new(Notify::new()));
                    return Some(Loading { image: self, key });
                }
            }
        };
        woken.await;
        None
    }

    async fn load_slice(&self, key: u64) -> Result<()> {
        let Some(claim) = self.claim((false, key), |meta| meta.l2.contains(key)).await else {
            return Ok(());
        };
        let (table, bytes) = {
            let meta = lock(&self.meta);
            let table = meta.table(meta.slice_l1(key)).ok().flatten();
            (
                table.map(|(table, _)| meta.slice_offset(table, key)),
                meta.geometry.slice_bytes(),
            )
        };
        let Some(offset) = table else { return Ok(()) };
        let mut buf = vec![0u8; bytes];
        self.file.event("l2_load");
        self.read_file(offset, &mut buf).await?;
        lock(&self.meta)
            .l2
            .insert(key, decode_table(&buf).into_boxed_slice());
        drop(claim);
        Ok(())
    }

    pub(super) async fn load_refblock(&self, block: u64) -> Result<()> {
        let claim = self
            .claim((true, block), |meta| meta.refblocks.contains(block))
            .await;
        let Some(claim) = claim else { return Ok(()) };
        let (place, bytes) = {
            let meta = lock(&self.meta);
            (
                meta.refblock_offset(block).ok().flatten(),
                meta.geometry.cluster_len(),
            )
        };
        let Some(offset) = place else { return Ok(()) };
        let mut buf = vec![0u8; bytes];
        self.file.event("refblock_load");
        self.read_file(offset, &mut buf).await?;
        lock(&self.meta).refblocks.insert(block, buf.into_boxed_slice());
        drop(claim);
        Ok(())
    }

    /// Takes exactly `count` adjoining clusters; they go back unless kept.
    pub(super) async fn take(&self, count: u64) -> Result<Taken<'_>> {
        let mut cursor = 0;
        self.file.event("cluster_alloc");
        self.file.event("refblock_alloc");
        let (first, fresh) = self.step(|meta| meta.take_exact(count, &mut cursor)).await?;
        Ok(Taken {
            image: self,
            first,
            count,
            fresh,
            kept: false,
        })
    }

    /// Gives an L1 entry an L2 table of its own: an empty one, or a copy of one that a snapshot shares.
    async fn make_table(&self, l1_index: u64) -> Result<()> {
        let woken = {
            let mut meta = lock(&self.meta);
            if matches!(meta.table(l1_index), Ok(Some((_, true)))) {
                return Ok(());
            }
            match meta.l1_busy.get(&l1_index) {
                Some(notify) => Some(Arc::clone(notify).notified_owned()),
                None => {
                    meta.l1_busy.insert(l1_index, Arc::new(Notify::new()));
                    None
                }
            }
        };
        if let Some(woken) = woken {
            woken.await;
            return Ok(());
        }
        let _making = MakingTable {
            image: self,
            l1_index,
        };
        self.file.event("l2_alloc_write");
        let taken = self.take(1).await?;
        let (old, cluster, bits) = {
            let meta = lock(&self.meta);
            let old = meta.table(l1_index).ok().flatten().map(|(host, _)| host);
            (old, meta.geometry.cluster_len(), meta.geometry.cluster_bits)
        };
        let host = taken.first << bits;
        match old {
            None if taken.fresh && self.file.wants_space() => {
                self.file.take_space(host, to_u64(cluster)).await?;
            }
            None if taken.fresh => {}
            None => {
                self.file
                    .write_zeroes(host, to_u64(cluster), ZeroFlags::default())
                    .await?
            }
            Some(old) => {
                // Nothing of a shared table is dirty: changes are made to tables of one's own only.
                let mut bytes = vec![0u8; cluster];
                self.file.event("l2_alloc_cow_read");
                self.read_file(old, &mut bytes).await?;
                self.file.write(host, &bytes, WriteFlags::default()).await?;
            }
        }
        lock(&self.meta).set_table(l1_index, host);
        taken.keep();
        Ok(())
    }

    // ---- Reading ----

    pub(super) fn backing_len(&self) -> u64 {
        self.backing.load().as_ref().map_or(0, |backing| backing.length())
    }

    /// Reads if all that is needed is at hand.
    pub(super) fn read_now(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (busy, found) = {
                let mut meta = lock(&self.meta);
                let found = meta.find(at, to_u64(rest.len())).ok()?;
                (self.enter(&meta).ok()?, found)
            };
            let (part, after) = rest.split_at_mut(usize::try_from(found.len).ok()?);
            match found.source {
                Source::Data(host) => match self.file.try_read(host, part)? {
                    Ok(()) => {}
                    Err(error) => return Some(Err(error)),
                },
                Source::Zero(_) => part.fill(0),
                Source::Backing => {
                    let backing = self.backing.load();
                    match backing.as_ref() {
                        None => part.fill(0),
                        Some(backing) => {
                            let inside = backing.length().saturating_sub(at).min(found.len);
                            let (below, beyond) = part.split_at_mut(usize::try_from(inside).ok()?);
                            beyond.fill(0);
                            if !below.is_empty()
                                && let Err(error) = backing.try_read(at, below)?
                            {
                                return Some(Err(error));
                            }
                        }
                    }
                }
                Source::Compressed(_) => return None,
            }
            drop(busy);
            at += found.len;
            rest = after;
        }
        Some(Ok(()))
    }

    pub(super) async fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let _busy = self.begin().await?;
        self.read_inside(offset, buf).await
    }

    /// Reads for a request that is under way already.
    pub(super) async fn read_inside(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let len = to_u64(rest.len());
            let found = self.step(|meta| meta.find(at, len)).await?;
            let (part, after) = rest.split_at_mut(to_usize(found.len)?);
            match found.source {
                Source::Data(host) => {
                    self.file.event("read_aio");
                    self.read_file(host, part).await?;
                }
                Source::Zero(_) => part.fill(0),
                Source::Backing => self.read_backing(at, part).await?,
                Source::Compressed(compressed) => self.read_compressed(compressed, at, part).await?,
            }
            at += found.len;
            rest = after;
        }
        Ok(())
    }

    async fn read_backing(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let backing = self.backing.load_full();
        let Some(backing) = backing.as_ref() else {
            buf.fill(0);
            return Ok(());
        };
        let inside = backing.length().saturating_sub(offset).min(to_u64(buf.len()));
        let (below, beyond) = buf.split_at_mut(to_usize(inside)?);
        beyond.fill(0);
        if below.is_empty() {
            return Ok(());
        }
        self.file.event("read_backing_aio");
        match backing.try_read(offset, below) {
            Some(result) => result,
            None => backing.read(offset, below).await,
        }
    }

    // ---- Writing ----

    /// Writes if all that is needed is at hand, new clusters included.
    pub(super) fn write_now(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Option<Result<()>> {
        if flags.fua || flags.compressed || self.read_only.load(Ordering::Acquire) {
            return None;
        }
        let backing_len = self.backing_len();
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (busy, place, bits) = {
                let mut meta = lock(&self.meta);
                let busy = self.enter(&meta).ok()?;
                let place = meta.plan_write(at, to_u64(rest.len()), backing_len, true).ok()?;
                (busy, place, meta.geometry.cluster_bits)
            };
            let len = match place {
                Place::There { host, len } => {
                    if let Err(error) =
                        self.file
                            .try_write(host, rest.get(..usize::try_from(len).ok()?)?, flags)?
                    {
                        return Some(Err(error));
                    }
                    len
                }
                Place::New { allocation, len } => {
                    let head = at & ((1 << bits) - 1);
                    let whole = head + len == allocation.count << bits && head == 0;
                    // Beyond the old end of the disk, and in space never written, zeroes need no writing.
                    let plain = whole
                        || (allocation.fresh
                            && allocation.head_zero
                            && allocation.tail_zero
                            && !self.file.wants_space());
                    let data = rest.get(..usize::try_from(len).ok()?)?;
                    let written = if plain {
                        self.file.try_write(allocation.host + head, data, flags)
                    } else {
                        None
                    };
                    let mut meta = lock(&self.meta);
                    match written {
                        Some(Ok(())) if meta.commit(&allocation).is_ok() => {}
                        Some(Ok(())) => {
                            meta.give_back(&allocation, true);
                            return None;
                        }
                        Some(Err(error)) => {
                            meta.give_back(&allocation, true);
                            return Some(Err(error));
                        }
                        None => {
                            meta.give_back(&allocation, false);
                            return None;
                        }
                    }
                    len
                }
            };
            drop(busy);
            at += len;
            rest = rest.get(usize::try_from(len).ok()?..)?;
        }
        Some(Ok(()))
    }

    pub(super) async fn write_at(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        self.check_writable()?;
        let _busy = self.begin().await?;
        self.write_inside(offset, buf, flags).await?;
        if flags.fua {
            self.write_back(true).await
        } else {
            Ok(())
        }
    }

    /// Writes for a request that is under way already.
    pub(super) async fn write_inside(&self, offset: u64, buf: &[u8], flags: WriteFlags) -> Result<()> {
        let flags = WriteFlags {
            fua: false,
            compressed: false,
            ..flags
        };
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (len, backing_len) = (to_u64(rest.len()), self.backing_len());
            match self
                .step(|meta| meta.plan_write(at, len, backing_len, true))
                .await?
            {
                Place::There { host, len } => {
                    let (data, after) = rest.split_at(to_usize(len)?);
                    self.file.event("write_aio");
                    self.write_file(host, data, flags).await?;
                    rest = after;
                    at += len;
                }
                Place::New { allocation, len } => {
                    self.file.event("cluster_alloc");
                    self.file.event("refblock_alloc");
                    let hold = Hold::new(self, allocation);
                    let (data, after) = rest.split_at(to_usize(len)?);
                    self.fill_new(hold.get()?, at, data, flags).await?;
                    hold.commit().await?;
                    rest = after;
                    at += len;
                }
            }
        }
        Ok(())
    }

    async fn write_file(&self, host: u64, data: &[u8], flags: WriteFlags) -> Result<()> {
        match self.file.try_write(host, data, flags) {
            Some(result) => result,
            None => self.file.write(host, data, flags).await,
        }
    }

    /// Puts data into new clusters, and around them what the guest sees there now.
    async fn fill_new(&self, allocation: &Allocation, at: u64, data: &[u8], flags: WriteFlags) -> Result<()> {
        let bits = lock(&self.meta).geometry.cluster_bits;
        let start = allocation.first << bits;
        let total = allocation.count << bits;
        let head = at - start;
        let tail = total - head - to_u64(data.len());
        let (read_head, read_tail) = (
            head > 0 && !allocation.head_zero,
            tail > 0 && !allocation.tail_zero,
        );
        if (head > 0 || tail > 0) && !read_head && !read_tail {
            self.file.event("cluster_alloc_space");
        }
        let silent = allocation.fresh || (head == 0 && tail == 0);
        if !read_head && !read_tail && silent {
            if (head > 0 || tail > 0) && self.file.wants_space() {
                self.file.take_space(allocation.host, total).await?;
            }
            self.file.event("write_aio");
            return self.write_file(allocation.host + head, data, flags).await;
        }
        let tail_at = head + to_u64(data.len());
        if total <= MERGE_BYTES {
            let mut buf = vec![0u8; to_usize(total)?];
            let (before, rest) = buf.split_at_mut(to_usize(head)?);
            let (middle, after) = rest.split_at_mut(data.len());
            middle.copy_from_slice(data);
            if read_head || read_tail {
                self.file.event("cow_read");
            }
            if read_head {
                self.read_old(start, before).await?;
            }
            if read_tail {
                self.read_old(start + tail_at, after).await?;
            }
            self.file.event("write_aio");
            return self.write_file(allocation.host, &buf, flags).await;
        }
        for (place, len, read) in [(0, head, read_head), (tail_at, tail, read_tail)] {
            if read {
                let mut buf = vec![0u8; to_usize(len)?];
                self.file.event("cow_read");
                self.read_old(start + place, &mut buf).await?;
                self.file.event("cow_write");
                self.write_file(allocation.host + place, &buf, flags).await?;
            } else if len > 0 && !allocation.fresh {
                self.file
                    .write_zeroes(allocation.host + place, len, ZeroFlags::default())
                    .await?;
            }
        }
        self.file.event("write_aio");
        self.write_file(allocation.host + head, data, flags).await
    }

    /// Reads what the guest sees, zeroes beyond the disk's end. Boxed: reading may take a compressed cluster apart.
    fn read_old<'a>(&'a self, offset: u64, buf: &'a mut [u8]) -> IoFuture<'a> {
        Box::pin(async move {
            let inside = self
                .length
                .load(Ordering::Acquire)
                .saturating_sub(offset)
                .min(to_u64(buf.len()));
            let (part, beyond) = buf.split_at_mut(to_usize(inside)?);
            beyond.fill(0);
            self.read_inside(offset, part).await
        })
    }

    // ---- Zeroes and discards ----

    pub(super) async fn zero_at(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_writable()?;
        let _busy = self.begin().await?;
        let (cluster, v3) = {
            let meta = lock(&self.meta);
            (meta.geometry.cluster(), meta.geometry.version >= 3)
        };
        let end = offset + len;
        let first = offset.next_multiple_of(cluster);
        // The last cluster may reach beyond the disk: it is whole all the same.
        let to_end = end >= self.length.load(Ordering::Acquire);
        let last = if to_end {
            end.next_multiple_of(cluster)
        } else {
            end - end % cluster
        };
        if first >= last || (!v3 && self.backing.load().is_some()) || (!v3 && !flags.may_unmap) {
            if flags.no_fallback && !(v3 && self.reads_zero(offset, len).await?) {
                return Err(BlockError::from_errno(95, "Operation not supported"));
            }
            self.zero_bytes(offset, end, v3 && flags.may_unmap).await?;
        } else {
            if flags.no_fallback && (offset < first || last < end) {
                let rims = [(offset, first), (last.min(end), end)];
                for (from, to) in rims {
                    if from < to && !self.reads_zero(from, to - from).await? {
                        return Err(BlockError::from_errno(95, "Operation not supported"));
                    }
                }
            }
            if offset < first {
                self.zero_bytes(offset, first, flags.may_unmap).await?;
            }
            let mode = match (v3, flags.may_unmap, self.options.load().discard_no_unref) {
                (false, ..) => ZeroMode::Forget,
                (true, true, false) => ZeroMode::Unmap,
                (true, ..) => ZeroMode::Keep,
            };
            self.zero_clusters(first / cluster, (last - first) / cluster, mode)
                .await?;
            if last < end {
                self.zero_bytes(last, end, flags.may_unmap).await?;
            }
        }
        if flags.fua {
            self.write_back(true).await
        } else {
            Ok(())
        }
    }

    pub(super) async fn zero_clusters(&self, first: u64, count: u64, mode: ZeroMode) -> Result<()> {
        let backing = self.backing.load().is_some();
        let (mut at, end) = (first, first + count);
        while at < end {
            at += self.step(|meta| meta.zero(at, end - at, mode, backing)).await?;
        }
        Ok(())
    }

    /// Whether a range reads as zeroes without looking at data.
    pub(super) async fn reads_zero(&self, offset: u64, len: u64) -> Result<bool> {
        let (mut at, end) = (offset, offset + len);
        let backing_len = self.backing_len();
        while at < end {
            let found = self.step(|meta| meta.find(at, end - at)).await?;
            match found.source {
                Source::Zero(_) => {}
                Source::Backing if at >= backing_len => {}
                Source::Backing => {
                    let backing = self.backing.load_full();
                    let run = match backing {
                        Some(backing) => backing.zero_run(at, found.len.min(backing_len - at)).await?,
                        None => found.len,
                    };
                    if run == 0 {
                        return Ok(false);
                    }
                    at += run;
                    continue;
                }
                _ => return Ok(false),
            }
            at += found.len;
        }
        Ok(true)
    }

    /// Makes parts of clusters zero. A cluster whose rest is zero already becomes a zero cluster.
    async fn zero_bytes(&self, offset: u64, end: u64, unmap: bool) -> Result<()> {
        let (cluster, v3) = {
            let meta = lock(&self.meta);
            (meta.geometry.cluster(), meta.geometry.version >= 3)
        };
        let mut at = offset;
        while at < end {
            let stop = end.min((at / cluster + 1) * cluster);
            let start = at - at % cluster;
            let disk_end = self.length.load(Ordering::Acquire).min(start + cluster);
            let zero_already = self.reads_zero(at, stop - at).await?;
            let rest_zero = v3
                && self.reads_zero(start, at - start).await?
                && self.reads_zero(stop, disk_end.saturating_sub(stop)).await?;
            // A zero cluster says so itself, whatever the layers below will hold.
            if rest_zero || !zero_already {
                if rest_zero {
                    let mode = if unmap { ZeroMode::Unmap } else { ZeroMode::Keep };
                    let backing = self.backing.load().is_some();
                    let still = self
                        .step(|meta| meta.zero_if_empty(start / cluster, mode, backing))
                        .await?;
                    if !still {
                        // Another request has written beside this one meanwhile: look again.
                        continue;
                    }
                } else {
                    let zeroes = vec![0u8; to_usize(stop - at)?];
                    self.write_inside(at, &zeroes, WriteFlags::default()).await?;
                }
            }
            at = stop;
        }
        Ok(())
    }

    pub(super) async fn discard_at(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable()?;
        let (cluster, v3) = {
            let meta = lock(&self.meta);
            (meta.geometry.cluster(), meta.geometry.version >= 3)
        };
        if !v3 && self.backing.load().is_some() {
            // Version 2 has no zero clusters: stale content of the backing file would show.
            return Err(BlockError::from_errno(95, "Operation not supported"));
        }
        let _busy = self.begin().await?;
        let end = offset + len;
        let first = offset.next_multiple_of(cluster);
        let to_end = end >= self.length.load(Ordering::Acquire);
        let last = if to_end {
            end.next_multiple_of(cluster)
        } else {
            end - end % cluster
        };
        if first < last {
            let mode = if self.options.load().discard_no_unref {
                ZeroMode::DiscardKeep
            } else {
                ZeroMode::Discard
            };
            self.zero_clusters(first / cluster, (last - first) / cluster, mode)
                .await?;
        }
        Ok(())
    }

    // ---- Host space for others to fill ----

    /// Sets host space aside for whole clusters that hold nothing yet.
    pub(super) async fn map_at(&self, offset: u64, len: u64) -> Result<Option<WriteMapping>> {
        self.check_writable()?;
        let _busy = self.begin().await?;
        let length = self.length.load(Ordering::Acquire);
        let cluster = lock(&self.meta).geometry.cluster();
        let end = offset + len;
        let whole_end = if end >= length { end } else { end - end % cluster };
        if !offset.is_multiple_of(cluster) || whole_end <= offset {
            return Ok(None);
        }
        let backing_len = self.backing_len();
        let place = self
            .step(
                |meta| match meta.plan_write(offset, whole_end - offset, backing_len, false) {
                    Err(Need::Fail(error)) if error.kind() == ErrorKind::Exists => Ok(None),
                    other => other.map(Some),
                },
            )
            .await?;
        let Some(Place::New { allocation, len }) = place else {
            return Ok(None);
        };
        let (host, fresh, total) = (allocation.host, allocation.fresh, allocation.count * cluster);
        let hold = Hold::new(self, allocation);
        let Some(inner) = self.file.map_for_write(host, len).await? else {
            return Ok(None);
        };
        let guard = Mapped {
            image: self,
            inner: Some(inner),
        };
        if guard.inner.as_ref().is_none_or(|inner| inner.len < len) {
            return Ok(None);
        }
        if len < total && !fresh {
            // What lies beyond the disk's end in its last cluster.
            self.file
                .write_zeroes(host + len, total - len, ZeroFlags::default())
                .await?;
        }
        let Some((inner, allocation)) = guard.take().zip(hold.keep()) else {
            return Ok(None);
        };
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let extent = inner.extent.clone();
        lock(&self.mappings).insert(
            token,
            Mapping {
                inner,
                allocation,
                host,
            },
        );
        Ok(Some(WriteMapping { extent, len, token }))
    }

    pub(super) async fn commit_mapping(&self, token: u64) -> Result<()> {
        let Some(mapping) = lock(&self.mappings).remove(&token) else {
            return Err(BlockError::new(ErrorKind::Invalid, "Unknown write mapping"));
        };
        let hold = Hold::new(self, mapping.allocation);
        let _busy = self.begin().await?;
        self.file.commit_write(mapping.host, mapping.inner).await?;
        hold.commit().await
    }

    pub(super) fn abandon_mapping(&self, token: u64) {
        let mapping = lock(&self.mappings).remove(&token);
        if let Some(mapping) = mapping {
            self.file.abandon_write(mapping.inner);
            drop(Hold::new(self, mapping.allocation));
        }
    }
}

/// Host space that somebody else fills.
pub(super) struct Mapping {
    inner: WriteMapping,
    allocation: Allocation,
    host: u64,
}

/// A mapping of the file below, abandoned unless it is taken.
struct Mapped<'a> {
    image: &'a Qcow2,
    inner: Option<WriteMapping>,
}

impl Mapped<'_> {
    fn take(mut self) -> Option<WriteMapping> {
        self.inner.take()
    }
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.image.file.abandon_write(inner);
        }
    }
}
