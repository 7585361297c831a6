//! Many: grouped backups in one step, bitmaps on one node, a huge sparse disk. Prints time and memory for growing
//! numbers, so that anything that grows faster than its number shows.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot set itself up has nothing to say"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use block_core::backup::{BackupOptions, SyncMode, prepare};
use block_core::bitmap::{BitmapSet, BitmapSpec};
use block_core::event::{Event, EventSink};
use block_core::graph::{Graph, GraphContext, Node};
use block_core::job::JobManager;
use block_core::options::{DriverOptions, NodeOptions, NullOptions};

struct Silent;

impl EventSink for Silent {
    fn emit(&self, _event: Event) {}
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

async fn null(graph: &Arc<Graph>, name: String, size: u64) -> Arc<Node> {
    let options = NodeOptions {
        node_name: Some(name.into()),
        driver: DriverOptions::NullCo(NullOptions {
            size,
            latency_ns: 0,
            read_zeroes: true,
        }),
        ..NodeOptions::default()
    };
    graph.add(options).await.expect("a null node opens")
}

fn spec(index: usize, granularity_bytes: u32) -> BitmapSpec {
    BitmapSpec {
        name: format!("b{index}").into(),
        granularity_bytes,
        persistent: false,
        disabled: false,
    }
}

async fn grouped(number: usize) {
    let graph = Graph::new(GraphContext {
        handle: tokio::runtime::Handle::current(),
        events: Arc::new(Silent),
    });
    let jobs = JobManager::new(&graph);
    let mut nodes = Vec::new();
    for index in 0..number {
        let source = null(&graph, format!("s{index}"), 1 << 30).await;
        source
            .bitmaps()
            .add(1 << 30, &spec(0, 65536))
            .expect("a fresh name")
            .set_dirty(0, 10 << 20);
        nodes.push((source, null(&graph, format!("t{index}"), 1 << 30).await));
    }
    let before = resident_mib();
    let start = Instant::now();
    let sources: Vec<_> = nodes.iter().map(|(source, _)| Arc::clone(source)).collect();
    let drained = graph.drain(&sources).await;
    let group = jobs.new_group();
    let mut prepared = Vec::new();
    for (index, (source, target)) in nodes.iter().enumerate() {
        let mut options = BackupOptions::new(source, target, SyncMode::Incremental);
        options.job_id = Some(format!("j{index}"));
        options.bitmap = Some("b0".into());
        prepared.push(
            prepare(&jobs, &graph, options, Some(&group))
                .await
                .expect("a backup"),
        );
    }
    drop(drained);
    let set_up = start.elapsed();
    for job in prepared.into_iter().rev() {
        job.start();
    }
    while !jobs.infos().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all = start.elapsed();
    println!(
        "{number:>6} grouped backups: set up in {:>8.1} ms, done after {:>8.1} ms, {:>6.1} MiB more",
        set_up.as_secs_f64() * 1e3,
        all.as_secs_f64() * 1e3,
        resident_mib() - before
    );
}

fn bitmaps(number: usize) {
    let before = resident_mib();
    let start = Instant::now();
    let set = BitmapSet::default();
    for index in 0..number {
        set.add(1 << 40, &spec(index, 65536)).expect("a fresh name");
    }
    let added = start.elapsed();
    let start = Instant::now();
    for at in 0..100 {
        set.mark_dirty(at * 9_876_543_210, 4096);
    }
    println!(
        "{number:>6} bitmaps on one node: added in {:>7.1} ms, a write marks them in {:>7.1} us, {:>6.1} MiB more",
        added.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e4,
        resident_mib() - before
    );
}

fn huge(dirty: u64) {
    let length = 64u64 << 40;
    let before = resident_mib();
    let set = BitmapSet::default();
    let bitmap = set.add(length, &spec(0, 65536)).expect("a fresh name");
    let start = Instant::now();
    let step = length / dirty / 65536 * 65536;
    for at in 0..dirty {
        set.mark_dirty(at * step, 4096);
    }
    let marked = start.elapsed();
    let start = Instant::now();
    let areas = bitmap.dirty_ranges().len();
    println!(
        "64 TiB at 64 KiB, {areas:>8} dirty areas: marked in {:>7.1} ms, walked in {:>6.1} ms, {:>6.1} MiB more",
        marked.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
        resident_mib() - before
    );
}

async fn huge_backup() {
    let graph = Graph::new(GraphContext {
        handle: tokio::runtime::Handle::current(),
        events: Arc::new(Silent),
    });
    let jobs = JobManager::new(&graph);
    let source = null(&graph, "s".into(), 64 << 40).await;
    let target = null(&graph, "t".into(), 64 << 40).await;
    let before = resident_mib();
    let start = Instant::now();
    let mut options = BackupOptions::new(&source, &target, SyncMode::Full);
    options.job_id = Some("j".into());
    prepare(&jobs, &graph, options, None)
        .await
        .expect("a backup")
        .start();
    while !jobs.infos().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "64 TiB of zeroes, full backup: {:.1} ms, {:.1} MiB more",
        start.elapsed().as_secs_f64() * 1e3,
        resident_mib() - before
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for number in [125, 250, 500, 1000] {
        runtime.block_on(grouped(number));
    }
    for number in [1250, 2500, 5000, 10_000] {
        bitmaps(number);
    }
    for dirty in [1000, 10_000, 100_000, 1_000_000] {
        huge(dirty);
    }
    runtime.block_on(huge_backup());
}
