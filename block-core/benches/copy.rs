//! A full backup of a raw file beside `cp`, in `BENCH_DIR` (default: /dev/shm) with `BENCH_MIB` (default: 1024) of data.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot set itself up has nothing to say"
)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block_core::backup::{BackupOptions, BackupPerf, SyncMode, prepare};
use block_core::event::{Event, EventSink};
use block_core::graph::{Graph, GraphContext, Node};
use block_core::job::JobManager;
use block_core::options::{DriverOptions, FileOptions, NodeOptions, NodeRef, RawOptions};

struct Silent;

impl EventSink for Silent {
    fn emit(&self, _event: Event) {}
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

async fn raw(graph: &Arc<Graph>, name: &str, path: &Path) -> Arc<Node> {
    let file = NodeOptions {
        driver: DriverOptions::File(FileOptions {
            filename: path.to_string_lossy().into_owned(),
            ..FileOptions::default()
        }),
        ..NodeOptions::default()
    };
    let options = NodeOptions {
        node_name: Some(name.into()),
        driver: DriverOptions::Raw(RawOptions {
            file: NodeRef::Options(Box::new(file)),
            offset: 0,
            size: None,
        }),
        ..NodeOptions::default()
    };
    graph.add(options).await.expect("the file opens")
}

async fn backup(source: &Path, target: &Path, size: u64, perf: BackupPerf) {
    let file = std::fs::File::create(target).expect("a target");
    file.set_len(size).expect("a length");
    drop(file);
    let graph = Graph::new(GraphContext {
        handle: tokio::runtime::Handle::current(),
        events: Arc::new(Silent),
    });
    let jobs = JobManager::new(&graph);
    let (s, t) = (raw(&graph, "s", source).await, raw(&graph, "t", target).await);
    let mut options = BackupOptions::new(&s, &t, SyncMode::Full);
    options.job_id = Some("j".into());
    options.perf = perf;
    prepare(&jobs, &graph, options, None)
        .await
        .expect("a backup")
        .start();
    while !jobs.infos().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    graph.close_all().await;
}

fn main() {
    let folder = std::env::var("BENCH_DIR").unwrap_or_else(|_| "/dev/shm".to_owned());
    let mib: u64 = std::env::var("BENCH_MIB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1024);
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let (source, target, copy) = (
        folder.path().join("source"),
        folder.path().join("target"),
        folder.path().join("copy"),
    );
    let mut out = std::io::BufWriter::new(std::fs::File::create(&source).expect("a source"));
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..mib << 17 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).expect("space");
    }
    drop(out);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for _ in 0..5 {
        for (name, offload) in [("in the kernel", None), ("by buffers", Some(false))] {
            let (start, before) = (Instant::now(), cpu());
            let perf = BackupPerf {
                use_copy_range: offload,
                ..BackupPerf::default()
            };
            runtime.block_on(backup(&source, &target, mib << 20, perf));
            println!(
                "backup {name:14} {:.3} s, CPU {:.2} s",
                start.elapsed().as_secs_f64(),
                cpu() - before
            );
            let _ = std::fs::remove_file(&target);
        }
        let start = Instant::now();
        let status = Command::new("cp")
            .args(["--reflink=never", "--sparse=auto"])
            .arg(&source)
            .arg(&copy)
            .status();
        if status.is_ok_and(|status| status.success()) {
            println!("cp                    {:.3} s", start.elapsed().as_secs_f64());
        }
        let _ = std::fs::remove_file(&copy);
    }
}
