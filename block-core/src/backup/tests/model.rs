//! No lost bit: random histories against a byte-vector model.
//!
//! Every bitmap has a copy of its disk that was true when the bitmap was made, and that only backups update. At every
//! moment, wherever the copy differs from the disk, the bitmap must be dirty; and a backup that succeeds must leave
//! exactly the content of its point in time. `NO_LOST_BIT_SEEDS=N` runs seeds 0 to N-1, `NO_LOST_BIT_SEED=S` one alone.

use std::sync::atomic::Ordering;

use super::*;
use crate::bitmap::{BitmapHandle, action};
use crate::graph::DrainGuard;

/// Bytes that the model writes at once; every granularity is a multiple.
const UNIT: u64 = 4096;
const LENGTH: u64 = 8 * K64 + 3 * UNIT;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

struct Tracked {
    name: String,
    bitmap: BitmapHandle,
    copy: Arc<Memory>,
    target: Arc<Node>,
}

struct Disk {
    node: Arc<Node>,
    memory: Arc<Memory>,
    guest: Arc<Backend>,
    bitmaps: Vec<Tracked>,
}

struct Running {
    id: String,
    /// The content at the point in time.
    content: Vec<u8>,
    copy: Arc<Memory>,
}

struct History {
    bench: Bench,
    random: Random,
    disks: Vec<Disk>,
    running: Vec<Running>,
    writes: tokio::task::JoinSet<()>,
    serial: u64,
    succeeded: u64,
}

impl History {
    async fn new(seed: u64) -> Self {
        let mut history = Self {
            bench: Bench::new(),
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            disks: Vec::new(),
            running: Vec::new(),
            writes: tokio::task::JoinSet::new(),
            serial: 0,
            succeeded: 0,
        };
        for name in ["a", "b"] {
            let memory = Memory::new(LENGTH, 1).slow();
            let (node, memory) = history.bench.node(name, memory).await;
            let guest = history.bench.guest(&node);
            history.disks.push(Disk {
                node,
                memory,
                guest,
                bitmaps: Vec::new(),
            });
            history.add_bitmap(history.disks.len() - 1).await;
        }
        history
    }

    fn name(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!("{prefix}{}", self.serial)
    }

    async fn drain(&self, disk: usize) -> DrainGuard {
        let node = Arc::clone(&self.disks[disk].node);
        self.bench.graph.drain(&[node]).await
    }

    async fn add_bitmap(&mut self, disk: usize) {
        let name = self.name("b");
        let drained = self.drain(disk).await;
        let content = self.disks[disk].memory.content();
        let copy = Memory::new(LENGTH, 0).slow();
        // An image that holds everything, or an overlay whose backing file is opened only when the backup is over.
        let copy = if self.random.one_in(2) {
            copy.overlay()
        } else {
            copy
        };
        copy.replace(&content);
        let (target, copy) = self.bench.node(&format!("t{name}"), copy).await;
        let granularity_bytes = 4096 << self.random.below(6);
        let spec = BitmapSpec {
            name: name.as_str().into(),
            granularity_bytes,
            persistent: true,
            disabled: false,
        };
        let node = &self.disks[disk].node;
        let bitmap = action::add(node.bitmaps(), node.length(), &spec).unwrap();
        let handle = bitmap.bitmap().clone();
        bitmap.commit();
        drop(drained);
        self.disks[disk].bitmaps.push(Tracked {
            name,
            bitmap: handle,
            copy,
            target,
        });
    }

    /// Where the copy differs from the disk, the bitmap is dirty.
    fn check_coverage(&self) {
        for disk in &self.disks {
            let content = disk.memory.content();
            for tracked in &disk.bitmaps {
                let info = tracked.bitmap.info().unwrap();
                if info.busy {
                    continue;
                }
                let mut dirty = vec![false; usize::try_from(LENGTH / UNIT).unwrap()];
                for (offset, len) in tracked.bitmap.dirty_ranges() {
                    let (from, to) = (offset / UNIT, (offset + len).div_ceil(UNIT));
                    dirty[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(true);
                }
                let copy = tracked.copy.content();
                let unit = usize::try_from(UNIT).unwrap();
                for (index, (now, then)) in content.chunks(unit).zip(copy.chunks(unit)).enumerate() {
                    assert!(
                        now == then || dirty[index],
                        "bitmap {} lost unit {index}",
                        tracked.name
                    );
                }
            }
        }
    }

    fn write(&mut self) {
        let disk = usize::try_from(self.random.below(2)).unwrap();
        let offset = self.random.below(LENGTH / UNIT) * UNIT;
        let longest = (LENGTH - offset).min(if self.random.one_in(4) { 4 * K64 } else { 2 * UNIT });
        let len = (self.random.below(longest) / UNIT).max(1) * UNIT;
        let byte = u8::try_from(self.random.below(256)).unwrap();
        let guest = Arc::clone(&self.disks[disk].guest);
        let kind = self.random.below(8);
        self.writes.spawn(async move {
            // A write may fail with the copy that it waits for; then it has changed nothing.
            let _ = match kind {
                0 => {
                    guest
                        .write_zeroes(offset, len, crate::driver::ZeroFlags::default())
                        .await
                }
                1 => guest.discard(offset, len).await,
                _ => write(&guest, offset, len, byte).await,
            };
        });
    }

    async fn prepare(&mut self, disk: usize, group: Option<&crate::job::JobGroup>) -> Option<PreparedJob> {
        let free: Vec<usize> = (0..self.disks[disk].bitmaps.len())
            .filter(|at| !self.disks[disk].bitmaps[*at].bitmap.info().unwrap().busy)
            .collect();
        let at = *free.get(usize::try_from(self.random.below(free.len().max(1) as u64)).unwrap())?;
        let id = self.name("j");
        let tracked = &self.disks[disk].bitmaps[at];
        let (sync, mode) = match self.random.below(8) {
            0 => (SyncMode::Full, Some(BitmapMode::OnSuccess)),
            1 => (SyncMode::Full, Some(BitmapMode::Always)),
            2 => (SyncMode::Bitmap, Some(BitmapMode::Never)),
            3 => (SyncMode::Bitmap, Some(BitmapMode::Always)),
            4 => (SyncMode::Top, Some(BitmapMode::OnSuccess)),
            5 => (SyncMode::Auto, None),
            _ => (SyncMode::Incremental, None),
        };
        let policies = [OnError::Report, OnError::Ignore, OnError::Stop, OnError::Enospc];
        let pick = |random: &mut Random| policies[usize::try_from(random.below(4)).unwrap()];
        let options = BackupOptions {
            bitmap: Some(tracked.name.clone()),
            bitmap_mode: mode,
            on_source_error: pick(&mut self.random),
            on_target_error: pick(&mut self.random),
            on_cbw_error: if self.random.one_in(3) {
                OnCbwError::BreakSnapshot
            } else {
                OnCbwError::BreakGuestWrite
            },
            cbw_timeout: Some(u32::try_from(self.random.below(3)).unwrap()),
            speed: if self.random.one_in(3) { 1 << 18 } else { 0 },
            auto_finalize: !self.random.one_in(5),
            auto_dismiss: !self.random.one_in(5),
            ..options(&id, &self.disks[disk].node, &tracked.target, sync)
        };
        let copy = Arc::clone(&tracked.copy);
        let job = prepare(&self.bench.jobs, &self.bench.graph, options, group)
            .await
            .ok()?;
        // Nothing has run since the drain inside of `prepare` ended.
        let content = self.disks[disk].memory.content();
        self.running.push(Running { id, content, copy });
        Some(job)
    }

    async fn transaction(&mut self) {
        let guards = [self.drain(0).await, self.drain(1).await];
        let group = (!self.random.one_in(3)).then(|| self.bench.jobs.new_group());
        let mut undo = Vec::new();
        // A step on a bitmap beside the jobs.
        let set = self.disks[0].node.bitmaps();
        let name = self.disks[0].bitmaps[0].name.clone();
        match self.random.below(4) {
            0 => undo.extend(action::clear(set, &name)),
            1 => undo.extend(action::set_enabled(set, &name, false)),
            2 => undo.extend(action::remove(set, &name)),
            _ => {}
        }
        let before = self.running.len();
        let mut jobs = Vec::new();
        let mut fails = self.random.one_in(3) || !undo.is_empty();
        for disk in 0..2 {
            match self.prepare(disk, group.as_ref()).await {
                Some(job) => jobs.push(job),
                None => {
                    fails = true;
                    break;
                }
            }
        }
        if fails {
            let mut endings = Vec::new();
            for job in jobs.into_iter().rev() {
                endings.push(job.abort());
            }
            for undo in undo.into_iter().rev() {
                undo.abort();
            }
            self.running.truncate(before);
            drop(guards);
            for ending in endings {
                ending.await;
            }
        } else {
            for job in jobs.into_iter().rev() {
                job.start();
            }
        }
    }

    async fn verb(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.below(self.running.len() as u64)).unwrap();
        let id = self.running[at].id.clone();
        let jobs = Arc::clone(&self.bench.jobs);
        let _ = match self.random.below(8) {
            0 => jobs.cancel(&id, true, None).await,
            1 => jobs.cancel(&id, true, Some(Duration::from_millis(5))).await,
            2 | 3 => jobs.verb(&id, Verb::Pause).await,
            4 => {
                jobs.verb(
                    &id,
                    Verb::SetSpeed(if self.random.one_in(2) { 0 } else { 1 << 19 }),
                )
                .await
            }
            5 => jobs.verb(&id, Verb::Finalize).await,
            _ => jobs.verb(&id, Verb::Resume).await,
        };
    }

    fn fault(&mut self) {
        let disk = usize::try_from(self.random.below(2)).unwrap();
        let errno = if self.random.one_in(2) { 28 } else { 5 };
        let failures = u32::try_from(1 + self.random.below(3)).unwrap();
        let memory = if self.random.one_in(3) {
            &self.disks[disk].memory
        } else {
            let at = usize::try_from(self.random.below(self.disks[disk].bitmaps.len() as u64)).unwrap();
            &self.disks[disk].bitmaps[at].copy
        };
        memory.failures.store(failures, Ordering::SeqCst);
        if Arc::ptr_eq(memory, &self.disks[disk].memory) {
            memory.fail_reads.store(errno, Ordering::SeqCst);
        } else {
            memory.fail_writes.store(errno, Ordering::SeqCst);
        }
    }

    /// One bitmap takes in another of its disk or of the other, for good or taken back: it covers more than it must,
    /// never less.
    async fn merge(&mut self, disk: usize) {
        let _drained = self.drain(disk).await;
        let elsewhere = self.random.one_in(3);
        let swapped = self.random.one_in(2);
        let from = if elsewhere { 1 - disk } else { disk };
        let (Some(first), Some(last)) = (self.disks[disk].bitmaps.first(), self.disks[from].bitmaps.last())
        else {
            return;
        };
        let (target, source) = if swapped && !elsewhere {
            (last, first)
        } else {
            (first, last)
        };
        let disk = &self.disks[disk];
        // Refused while a job holds either.
        if let Ok(merged) = action::merge(
            disk.node.bitmaps(),
            &target.name,
            std::slice::from_ref(&source.bitmap),
        ) {
            if self.random.one_in(2) {
                merged.commit();
            } else {
                merged.abort();
            }
        }
    }

    /// The daemon ends (or is killed) and starts again: bitmaps are stored and loaded, or are not to be trusted.
    async fn restart(&mut self, killed: bool) {
        self.settle().await;
        for at in 0..2 {
            let disk = self.disks.remove(0);
            disk.guest.detach().await;
            let length = disk.node.length();
            let mut stored = disk.node.bitmaps().to_store();
            for bitmap in &mut stored {
                bitmap.inconsistent |= killed;
                if killed {
                    bitmap.dirty.clear();
                }
            }
            self.bench.graph.remove(disk.node.name()).await.unwrap();
            let options = NodeOptions {
                node_name: Some(disk.node.name().clone()),
                ..NodeOptions::default()
            };
            let node = self
                .bench
                .graph
                .adopt(&options, disk.memory.clone() as Arc<dyn Driver>)
                .await
                .unwrap();
            node.bitmaps().load(length, stored, false);
            let guest = self.bench.guest(&node);
            let mut bitmaps = disk.bitmaps;
            for tracked in &mut bitmaps {
                tracked.bitmap = node.bitmaps().get(&tracked.name).unwrap();
            }
            if killed {
                self.replace_inconsistent(&node, &disk.memory, &mut bitmaps).await;
            }
            self.disks.push(Disk {
                node,
                memory: disk.memory,
                guest,
                bitmaps,
            });
            debug_assert!(at < 2);
        }
    }

    /// No backup takes a bitmap that nobody can trust. It is removed, and a new chain begins with the disk as it is.
    async fn replace_inconsistent(&mut self, node: &Arc<Node>, memory: &Memory, bitmaps: &mut [Tracked]) {
        for tracked in bitmaps {
            let mut backup = options("no", node, &tracked.target, SyncMode::Incremental);
            backup.bitmap = Some(tracked.name.clone());
            let refused = self.bench.prepare(backup).await.unwrap_err();
            assert!(refused.to_string().contains("inconsistent"), "{refused}");
            action::clear(node.bitmaps(), &tracked.name).unwrap_err();
            action::remove(node.bitmaps(), &tracked.name).unwrap().commit();
            tracked.copy.replace(&memory.content());
            let spec = BitmapSpec {
                name: tracked.name.as_str().into(),
                granularity_bytes: 4096 << self.random.below(6),
                persistent: true,
                disabled: false,
            };
            let added = action::add(node.bitmaps(), node.length(), &spec).unwrap();
            tracked.bitmap = added.bitmap().clone();
            added.commit();
        }
    }

    fn heal(&self) {
        for disk in &self.disks {
            for memory in disk
                .bitmaps
                .iter()
                .map(|tracked| &tracked.copy)
                .chain([&disk.memory])
            {
                memory.fail_reads.store(0, Ordering::SeqCst);
                memory.fail_writes.store(0, Ordering::SeqCst);
            }
        }
    }

    /// Judges the jobs that are over.
    fn judge(&mut self) {
        let log = lock(&self.bench.log.0).join("\n");
        self.running.retain(|running| {
            let over = |text: &str| {
                log.lines()
                    .any(|line| line.starts_with(&format!("{}:{text}", running.id)))
            };
            if over("COMPLETED")
                && log.lines().any(|line| {
                    line.starts_with(&format!("{}:COMPLETED", running.id)) && line.ends_with(",ok)")
                })
            {
                // Mode `bitmap` copies what the bitmap says; with what the copy held before that is all.
                assert!(
                    running.copy.content() == running.content,
                    "{} is not its point in time",
                    running.id
                );
                self.succeeded += 1;
            }
            !over("concluded")
        });
    }

    /// Ends all jobs.
    async fn settle(&mut self) {
        self.heal();
        while !self.bench.jobs.infos().is_empty() {
            for info in self.bench.jobs.infos() {
                for verb in [Verb::Resume, Verb::SetSpeed(0), Verb::Finalize] {
                    let _ = self.bench.jobs.verb(info.id.as_str(), verb).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.judge();
            for info in self.bench.jobs.infos() {
                let _ = self.bench.jobs.verb(info.id.as_str(), Verb::Dismiss).await;
            }
        }
        while self.writes.join_next().await.is_some() {}
        self.judge();
        assert!(self.running.is_empty());
        assert_eq!(
            self.bench
                .graph
                .nodes()
                .iter()
                .filter(|node| node.has_generated_name())
                .count(),
            0
        );
    }

    async fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => self.write(),
            8 | 9 => {
                let disk = usize::try_from(self.random.below(2)).unwrap();
                if let Some(job) = self.prepare(disk, None).await {
                    job.start();
                }
            }
            10 => self.transaction().await,
            11..=13 => self.verb().await,
            14 => self.fault(),
            15 if self.disks[0].bitmaps.len() < 3 => {
                let disk = usize::try_from(self.random.below(2)).unwrap();
                self.add_bitmap(disk).await;
            }
            16 => {
                self.settle().await;
                if self.random.one_in(3) {
                    let killed = self.random.one_in(3);
                    self.restart(killed).await;
                }
            }
            17 => {
                let disk = usize::try_from(self.random.below(2)).unwrap();
                self.merge(disk).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(self.random.below(40))).await,
        }
        for _ in 0..self.random.below(30) {
            tokio::task::yield_now().await;
        }
        self.judge();
        // A write is marked when its data is in place, before it is acknowledged; between two steps of the same
        // task, on one thread, both have happened or neither.
        self.check_coverage();
    }

    async fn run(mut self) -> u64 {
        for _ in 0..24 {
            self.step().await;
        }
        self.settle().await;
        self.check_coverage();
        // A last increment of each: then every copy is the disk.
        for disk in 0..2 {
            for at in 0..self.disks[disk].bitmaps.len() {
                let id = self.name("last");
                let tracked = &self.disks[disk].bitmaps[at];
                let mut backup = options(
                    &id,
                    &self.disks[disk].node,
                    &tracked.target,
                    SyncMode::Incremental,
                );
                backup.bitmap = Some(tracked.name.clone());
                self.bench.prepare(backup).await.unwrap().start();
                self.bench.ended(&id).await;
                assert!(
                    tracked.copy.content() == self.disks[disk].memory.content(),
                    "{id} differs"
                );
            }
        }
        self.succeeded
    }
}

fn run(seed: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let history = async { History::new(seed).await.run().await };
        tokio::time::timeout(Duration::from_secs(36_000), history)
            .await
            .expect("the history hangs")
    })
}

#[test]
fn no_lost_bit() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("NO_LOST_BIT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NO_LOST_BIT_SEEDS").unwrap_or(1000),
    };
    let count = seeds.end - seeds.start;
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let succeeded: u64 = std::thread::scope(|scope| {
        let work = || {
            let mut succeeded = 0;
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= seeds.end {
                    return succeeded;
                }
                succeeded += std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
                    eprintln!("seed {seed} failed; run it alone with NO_LOST_BIT_SEED={seed}");
                    std::panic::resume_unwind(panic);
                });
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a seed failed, see above"))
            .sum()
    });
    println!("{succeeded} backups succeeded");
    // Histories in which nothing ever succeeds would prove nothing.
    assert!(
        count < 100 || succeeded > count / 2,
        "only {succeeded} backups succeeded"
    );
}
