mod history;
mod memory;
mod model;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::bitmap::{BitmapMode, BitmapSpec};
use crate::driver::{Driver, WriteFlags};
use crate::event::{AutoMode, Event, EventSink};
use crate::graph::{Backend, BackendUser, Graph, GraphContext, Node, Perm};
use crate::job::{JobManager, Verb, status_name};
use crate::options::{NodeOptions, OnCbwError};
use crate::sync::lock;
use memory::Memory;

const K64: u64 = 65536;
const MIB: u64 = 1 << 20;

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl EventSink for Log {
    fn emit(&self, event: Event) {
        let text = match &event {
            Event::JobStatusChange { id, status } => format!("{id}:{}", status_name(*status)),
            Event::BlockJobCompleted { job, error, .. } => {
                format!(
                    "{}:COMPLETED({}/{},{})",
                    job.id,
                    job.offset,
                    job.len,
                    error.as_deref().unwrap_or("ok")
                )
            }
            Event::BlockJobCancelled { job } => format!("{}:CANCELLED", job.id),
            Event::BlockJobError { id, is_read, action } => {
                let operation = if *is_read { "read" } else { "write" };
                format!("{id}:ERROR({operation},{action:?})")
            }
            Event::BlockJobPending { id, .. } => format!("{id}:PENDING"),
            other => format!("{other:?}"),
        };
        lock(&self.0).push(text);
    }
}

struct Bench {
    graph: Arc<Graph>,
    jobs: Arc<JobManager>,
    log: Arc<Log>,
}

impl Bench {
    fn new() -> Self {
        let log = Arc::new(Log::default());
        let handle = tokio::runtime::Handle::current();
        let graph = Graph::new(GraphContext {
            handle,
            events: log.clone(),
        });
        let jobs = JobManager::new(&graph);
        Self { graph, jobs, log }
    }

    async fn node(&self, name: &str, memory: Memory) -> (Arc<Node>, Arc<Memory>) {
        let memory = Arc::new(memory);
        let options = NodeOptions {
            node_name: Some(name.into()),
            ..NodeOptions::default()
        };
        let node = self
            .graph
            .adopt(&options, memory.clone() as Arc<dyn Driver>)
            .await
            .unwrap();
        (node, memory)
    }

    fn guest(&self, node: &Arc<Node>) -> Arc<Backend> {
        let perm = Perm::CONSISTENT_READ | Perm::WRITE;
        Backend::new(
            &self.graph,
            node,
            BackendUser::unnamed(),
            perm,
            Perm::ALL.without(Perm::RESIZE),
        )
        .unwrap()
    }

    fn bitmap(&self, node: &Arc<Node>, name: &str) -> crate::bitmap::BitmapHandle {
        let spec = BitmapSpec {
            name: name.into(),
            granularity_bytes: 65536,
            persistent: false,
            disabled: false,
        };
        node.bitmaps().add(node.length(), &spec).unwrap()
    }

    async fn prepare(&self, options: BackupOptions) -> crate::Result<PreparedJob> {
        prepare(&self.jobs, &self.graph, options, None).await
    }

    async fn ended(&self, id: &str) {
        tokio::time::timeout(Duration::from_secs(10), self.jobs.wait_ended(id))
            .await
            .expect("the job hangs");
    }

    fn take_log(&self) -> String {
        std::mem::take(&mut *lock(&self.log.0)).join(" ")
    }
}

fn options(id: &str, device: &Arc<Node>, target: &Arc<Node>, sync: SyncMode) -> BackupOptions {
    BackupOptions {
        job_id: Some(id.to_owned()),
        ..BackupOptions::new(device, target, sync)
    }
}

async fn write(guest: &Backend, offset: u64, len: u64, byte: u8) -> crate::Result<()> {
    guest
        .write(
            offset,
            &vec![byte; usize::try_from(len).unwrap()],
            WriteFlags::default(),
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn full_is_the_point_in_time() {
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(8 * MIB + 512, 1).slow()).await;
    let (target, copy) = bench.node("t", Memory::new(8 * MIB + 512, 9).slow()).await;
    let guest = bench.guest(&source);
    write(&guest, 3 * MIB, MIB, 0).await.unwrap();
    let before = memory.content();
    let job = bench
        .prepare(options("j", &source, &target, SyncMode::Full))
        .await
        .unwrap();
    write(&guest, 100, 5, 7).await.unwrap();
    job.start();
    for at in 0..64 {
        write(&guest, at * 131_072, 4096, 8).await.unwrap();
    }
    bench.ended("j").await;
    assert_eq!(copy.content(), before);
    assert_ne!(memory.content(), before);
    let len = 8 * MIB + K64;
    assert_eq!(
        bench.take_log(),
        format!("j:created j:running j:waiting j:pending j:COMPLETED({len}/{len},ok) j:concluded j:null")
    );
    assert_eq!(bench.graph.nodes().len(), 2);
    write(&guest, 0, 100, 9).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_consumes_its_bitmap() {
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(4 * MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(4 * MIB, 1)).await;
    let guest = bench.guest(&source);
    let bitmap = bench.bitmap(&source, "b");
    write(&guest, MIB, 4096, 2).await.unwrap();
    write(&guest, 2 * MIB, 4096, 3).await.unwrap();
    let before = memory.content();
    let mut backup = options("j", &source, &target, SyncMode::Incremental);
    backup.bitmap = Some("b".into());
    let job = bench.prepare(backup.clone()).await.unwrap();
    write(&guest, 2 * MIB + 100, 100, 4).await.unwrap();
    write(&guest, 3 * MIB, 100, 5).await.unwrap();
    let error = bench.prepare(backup).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "Bitmap 'b' is currently in use by another operation and cannot be used"
    );
    job.start();
    bench.ended("j").await;
    assert_eq!(copy.content(), before);
    assert_eq!(bitmap.dirty_ranges(), [(2 * MIB, K64), (3 * MIB, K64)]);
    assert!(
        bench
            .take_log()
            .contains(&format!("COMPLETED({0}/{0},ok)", 2 * K64))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_group_keeps_every_bitmap() {
    let bench = Bench::new();
    let group = bench.jobs.new_group();
    let mut prepared = Vec::new();
    let mut bitmaps = Vec::new();
    for name in ["a", "b", "c"] {
        let (source, _) = bench.node(name, Memory::new(4 * MIB, 1)).await;
        let (target, memory) = bench.node(&format!("t{name}"), Memory::new(4 * MIB, 0)).await;
        if name == "b" {
            memory.fail_writes.store(5, Ordering::SeqCst);
        }
        let bitmap = bench.bitmap(&source, "x");
        bitmap.set_dirty(0, MIB);
        bitmaps.push(bitmap);
        let mut backup = options(name, &source, &target, SyncMode::Incremental);
        backup.bitmap = Some("x".into());
        prepared.push(
            prepare(&bench.jobs, &bench.graph, backup, Some(&group))
                .await
                .unwrap(),
        );
    }
    for job in prepared.into_iter().rev() {
        job.start();
    }
    for id in ["a", "b", "c"] {
        bench.ended(id).await;
    }
    for bitmap in bitmaps {
        assert_eq!(bitmap.dirty_ranges(), [(0, MIB)]);
        assert!(!bitmap.info().unwrap().busy);
    }
    let log = bench.take_log();
    assert!(log.contains("b:ERROR(write,Report)"), "{log}");
    assert!(
        log.contains("b:COMPLETED(0/1048576,Input/output error) b:concluded b:null"),
        "{log}"
    );
    assert!(log.contains("c:CANCELLED c:concluded c:null"), "{log}");
    assert!(log.contains("a:CANCELLED a:concluded a:null"), "{log}");
    assert_eq!(bench.graph.nodes().len(), 6);
}

/// A source that cannot tell what it holds is read, and no error policy is asked; where the answer decides what is
/// copied, the job fails with it.
#[tokio::test(flavor = "multi_thread")]
async fn block_status_is_no_reading() {
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(MIB, 0)).await;
    memory.fail_status.store(13, Ordering::SeqCst);
    let mut backup = options("j", &source, &target, SyncMode::Full);
    backup.on_source_error = OnError::Stop;
    bench.prepare(backup.clone()).await.unwrap().start();
    bench.ended("j").await;
    assert_eq!(copy.content(), memory.content());
    assert!(bench.take_log().contains("j:COMPLETED(1048576/1048576,ok)"));
    backup.sync = SyncMode::Top;
    bench.prepare(backup).await.unwrap().start();
    bench.ended("j").await;
    assert_eq!(
        bench.take_log(),
        "j:created j:running j:aborting j:COMPLETED(0/1048576,Permission denied) j:concluded j:null"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_and_resume_finishes_the_copy() {
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(4 * MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(4 * MIB, 0)).await;
    copy.fail_writes.store(28, Ordering::SeqCst);
    let mut backup = options("j", &source, &target, SyncMode::Full);
    backup.on_target_error = OnError::Enospc;
    bench.prepare(backup).await.unwrap().start();
    let info = loop {
        let info = bench.jobs.info("j").unwrap();
        if status_name(info.status) == "paused" {
            break info;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(info.io_status, crate::job::IoStatus::NoSpace);
    copy.fail_writes.store(0, Ordering::SeqCst);
    bench.jobs.verb("j", Verb::Resume).await.unwrap();
    bench.ended("j").await;
    assert_eq!(copy.content(), memory.content());
    assert!(
        bench
            .take_log()
            .starts_with("j:created j:running j:ERROR(write,Stop) j:paused j:running j:waiting")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ignore_tries_again() {
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(4 * MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(4 * MIB, 0)).await;
    memory.failures.store(1, Ordering::SeqCst);
    memory.fail_reads.store(5, Ordering::SeqCst);
    let mut backup = options("j", &source, &target, SyncMode::Full);
    backup.on_source_error = OnError::Ignore;
    bench.prepare(backup).await.unwrap().start();
    bench.ended("j").await;
    assert_eq!(copy.content(), memory.content());
    assert!(bench.take_log().contains("j:ERROR(read,Ignore) j:waiting"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_with_a_deadline_does_not_hang_on_a_stuck_target() {
    let bench = Bench::new();
    let (source, _) = bench.node("s", Memory::new(4 * MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(4 * MIB, 0)).await;
    let guest = bench.guest(&source);
    let bitmap = bench.bitmap(&source, "b");
    bitmap.set_dirty(0, 4 * MIB);
    copy.hold.store(true, Ordering::SeqCst);
    let mut backup = options("j", &source, &target, SyncMode::Incremental);
    backup.bitmap = Some("b".into());
    bench.prepare(backup).await.unwrap().start();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // A guest's write is stuck with the target.
    let stuck = tokio::spawn(async move { write(&guest, 3 * MIB, 100, 9).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!stuck.is_finished());
    bench
        .jobs
        .cancel("j", true, Some(Duration::from_millis(50)))
        .await
        .unwrap();
    bench.ended("j").await;
    stuck.await.unwrap().unwrap();
    assert_eq!(bitmap.dirty_ranges(), [(0, 4 * MIB)]);
    assert!(!bitmap.info().unwrap().busy);
    assert!(
        bench
            .take_log()
            .ends_with("j:aborting j:CANCELLED j:concluded j:null")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn break_snapshot_lets_the_guest_go_on() {
    let bench = Bench::new();
    let (source, _) = bench.node("s", Memory::new(4 * MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(4 * MIB, 0)).await;
    let guest = bench.guest(&source);
    let mut backup = options("j", &source, &target, SyncMode::None);
    backup.on_cbw_error = OnCbwError::BreakSnapshot;
    bench.prepare(backup.clone()).await.unwrap().start();
    copy.fail_writes.store(28, Ordering::SeqCst);
    write(&guest, 0, 100, 2).await.unwrap();
    bench.ended("j").await;
    assert!(
        bench
            .take_log()
            .contains("COMPLETED(0/4194304,No space left on device)")
    );

    copy.fail_writes.store(0, Ordering::SeqCst);
    copy.hold.store(true, Ordering::SeqCst);
    backup.cbw_timeout = Some(1);
    bench.prepare(backup).await.unwrap().start();
    let started = std::time::Instant::now();
    write(&guest, 0, 100, 2).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    bench.ended("j").await;
    assert!(bench.take_log().contains("Connection timed out"));
}

/// A small write saves its blocks, the job the rest of their clusters, and the point in time reads right in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_guest_write_saves_only_its_blocks() {
    let bench = Bench::new();
    let length = 4 * K64 + 3 * 4096 + 512;
    let memory = Memory::new(length, 1);
    let (source, memory) = bench.node("s", memory).await;
    let before: Vec<u8> = (0..length)
        .map(|at| u8::try_from(at / 512 % 251 + 1).unwrap())
        .collect();
    memory.replace(&before);
    let (target, copy) = bench.node("t", Memory::new(length, 0)).await;
    let guest = bench.guest(&source);
    let mut backup = options("j", &source, &target, SyncMode::Full);
    backup.filter_node_name = Some("flt".into());
    let job = bench.prepare(backup).await.unwrap();
    let mut saved = vec![0u8; before.len()];
    // Odd places, the same block twice, two blocks at once, one that is saved beside one that is not, the short end.
    for (at, len) in [
        (5, 10),
        (100, 10),
        (K64 + 4000, 200),
        (K64 + 8000, 300),
        (length - 100, 100),
    ] {
        write(&guest, at, len, 250).await.unwrap();
        let blocks = usize::try_from(at / 4096 * 4096).unwrap()
            ..usize::try_from((at + len).next_multiple_of(4096).min(length)).unwrap();
        saved[blocks.clone()].copy_from_slice(&before[blocks]);
        assert!(copy.content() == saved, "after the write at {at}");
    }
    let filter = bench.graph.find("flt").unwrap();
    let keeper = filter
        .driver()
        .as_any()
        .downcast_ref::<crate::drivers::copy_before_write::CopyBeforeWrite>()
        .unwrap();
    let mut past = vec![0; before.len()];
    keeper.read_snapshot(0, &mut past).await.unwrap();
    assert!(past == before);
    job.start();
    bench.ended("j").await;
    assert!(copy.content() == before);
}

/// Nobody said how long a guest may wait: it is not for ever, and the job ends without a cancel.
#[tokio::test(start_paused = true)]
async fn a_stuck_target_breaks_the_snapshot_by_itself() {
    for sync in [SyncMode::None, SyncMode::Full] {
        let bench = Bench::new();
        let (source, _) = bench.node("s", Memory::new(4 * MIB, 1)).await;
        let (target, copy) = bench.node("t", Memory::new(4 * MIB, 0)).await;
        let guest = bench.guest(&source);
        let mut backup = options("j", &source, &target, sync);
        backup.on_cbw_error = OnCbwError::BreakSnapshot;
        copy.hold.store(true, Ordering::SeqCst);
        bench.prepare(backup).await.unwrap().start();
        let started = tokio::time::Instant::now();
        write(&guest, 0, 100, 2).await.unwrap();
        let waited = started.elapsed().as_secs();
        assert!((9..=11).contains(&waited), "{waited}");
        // From then on nobody waits.
        let started = tokio::time::Instant::now();
        write(&guest, MIB, 100, 2).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(1));
        bench.ended("j").await;
        assert!(bench.take_log().contains("Connection timed out"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn break_guest_write_fails_the_write_only() {
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(4 * MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(4 * MIB, 0)).await;
    let guest = bench.guest(&source);
    let before = memory.content();
    let job = bench
        .prepare(options("j", &source, &target, SyncMode::Full))
        .await
        .unwrap();
    copy.fail_writes.store(5, Ordering::SeqCst);
    write(&guest, 0, 100, 2).await.unwrap_err();
    assert_eq!(memory.content(), before);
    copy.fail_writes.store(0, Ordering::SeqCst);
    write(&guest, 0, 100, 2).await.unwrap();
    job.start();
    bench.ended("j").await;
    assert_eq!(copy.content(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_in_the_words_that_clients_know() {
    let bench = Bench::new();
    let (source, _) = bench.node("s", Memory::new(MIB, 1)).await;
    let (target, _) = bench.node("t", Memory::new(MIB, 0)).await;
    let (small, _) = bench.node("small", Memory::new(MIB - 512, 0)).await;
    bench.bitmap(&source, "b");
    let text = async |change: &dyn Fn(&mut BackupOptions)| {
        let mut backup = options("j", &source, &target, SyncMode::Full);
        change(&mut backup);
        let error = bench.prepare(backup).await.unwrap_err().to_string();
        assert_eq!(bench.graph.nodes().len(), 3, "{error}");
        error
    };
    assert_eq!(
        text(&|o| o.target = source.clone()).await,
        "Source and target cannot be the same"
    );
    assert_eq!(
        text(&|o| o.target = small.clone()).await,
        "Source and target image have different sizes"
    );
    assert_eq!(
        text(&|o| o.compress = true).await,
        "Compression is not supported for this drive "
    );
    assert_eq!(
        text(&|o| o.sync = SyncMode::Bitmap).await,
        "must provide a valid bitmap name for 'bitmap' sync mode"
    );
    assert_eq!(
        text(&|o| o.bitmap = Some("b".into())).await,
        "Bitmap sync mode must be given when providing a bitmap"
    );
    assert_eq!(
        text(&|o| o.bitmap_mode = Some(BitmapMode::Never)).await,
        "Cannot specify bitmap sync mode without a bitmap"
    );
    let with = |sync, mode| {
        move |o: &mut BackupOptions| {
            o.sync = sync;
            o.bitmap = Some("b".into());
            o.bitmap_mode = Some(mode);
        }
    };
    assert_eq!(
        text(&with(SyncMode::Top, BitmapMode::Never)).await,
        "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode 'top'"
    );
    assert_eq!(
        text(&with(SyncMode::None, BitmapMode::Always)).await,
        "sync mode 'none' does not produce meaningful bitmap outputs"
    );
    assert_eq!(
        text(&with(SyncMode::Incremental, BitmapMode::Always)).await,
        "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'"
    );
    assert_eq!(
        text(&|o| o.perf.max_workers = 0).await,
        "max-workers must be between 1 and 2147483647"
    );
    assert_eq!(
        text(&|o| o.perf.max_chunk = 1000).await,
        "Required max-chunk (1000) is less than backup cluster size (65536)"
    );
    assert_eq!(
        text(&|o| o.perf.min_cluster_size = Some(u64::MAX)).await,
        "min-cluster-size too large: 18446744073709551615 > 9223372036854775807"
    );
    assert_eq!(
        text(&|o| o.perf.min_cluster_size = Some(1000)).await,
        "Could not create node: Cannot create block-copy-state: min-cluster-size needs to be a power of 2"
    );
    assert_eq!(
        text(&|o| o.job_id = Some("1 x".into())).await,
        "Invalid job ID '1 x'"
    );
    assert_eq!(
        text(&|o| o.filter_node_name = Some("t".into())).await,
        "Could not create node: Duplicate nodes with node-name='t'"
    );
    assert_eq!(
        text(&|o| o.speed = -1).await,
        "Parameter 'speed' expects a non-negative value"
    );
    let job = bench
        .prepare(options("k", &source, &target, SyncMode::Full))
        .await
        .unwrap();
    let error = bench
        .prepare(options("l", &source, &target, SyncMode::Full))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Node 't' is busy: block device is in use by block job: backup"
    );
    job.abort().await;
    assert_eq!(bench.graph.nodes().len(), 3);
}
