//! What went wrong in QEMU's jobs and transactions over the years, one test for each kind of mistake. The numbers are
//! those of QEMU's commits that mended it.

use std::sync::atomic::Ordering;

use super::*;
use crate::driver::BlockStatus;
use crate::job::JobGroup;

async fn two_disks(bench: &Bench) -> Vec<(Arc<Node>, Arc<Node>, Arc<Memory>)> {
    let mut disks = Vec::new();
    for name in ["a", "b"] {
        let (source, _) = bench.node(name, Memory::new(4 * MIB, 1)).await;
        let (target, copy) = bench.node(&format!("t{name}"), Memory::new(4 * MIB, 0)).await;
        disks.push((source, target, copy));
    }
    disks
}

async fn grouped(
    bench: &Bench,
    group: &JobGroup,
    change: impl Fn(&str, &mut BackupOptions),
) -> Vec<Arc<Memory>> {
    let disks = two_disks(bench).await;
    let mut jobs = Vec::new();
    for (source, target, _) in &disks {
        let mut backup = options(source.name().as_str(), source, target, SyncMode::Full);
        change(source.name().as_str(), &mut backup);
        jobs.push(
            prepare(&bench.jobs, &bench.graph, backup, Some(group))
                .await
                .unwrap(),
        );
    }
    for job in jobs.into_iter().rev() {
        job.start();
    }
    disks.into_iter().map(|disk| disk.2).collect()
}

async fn reach(bench: &Bench, id: &str, status: &str) {
    let wait = async {
        while bench.jobs.info(id).map(|info| status_name(info.status)) != Some(status) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("the status is not reached");
}

/// 111049a4ec: a job of a transaction did work before the transaction was sure to commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_copies_nothing_before_its_transaction_commits() {
    let bench = Bench::new();
    let disks = two_disks(&bench).await;
    let (source, target, copy) = &disks[0];
    let job = bench
        .prepare(options("j", source, target, SyncMode::Full))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(copy.content().iter().all(|byte| *byte == 0));
    job.abort().await;
    assert!(copy.content().iter().all(|byte| *byte == 0));
    assert_eq!(bench.take_log(), "j:created j:aborting j:concluded j:null");
}

/// 1e93b9fba2: a job whose creation failed stayed in its transaction's list.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_could_not_be_created_leaves_its_group() {
    let bench = Bench::new();
    let group = bench.jobs.new_group();
    let disks = two_disks(&bench).await;
    let bad = BackupOptions {
        speed: -1,
        ..options("bad", &disks[1].0, &disks[1].1, SyncMode::Full)
    };
    prepare(&bench.jobs, &bench.graph, bad, Some(&group))
        .await
        .unwrap_err();
    let good = options("good", &disks[0].0, &disks[0].1, SyncMode::Full);
    prepare(&bench.jobs, &bench.graph, good, Some(&group))
        .await
        .unwrap()
        .start();
    bench.ended("good").await;
    assert!(bench.take_log().contains("good:COMPLETED"));
}

/// 75859b9420: a job without a transaction must behave as a transaction of one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_job_neither_waits_for_nor_takes_down_another() {
    let bench = Bench::new();
    let disks = two_disks(&bench).await;
    disks[1].2.fail_writes.store(5, Ordering::SeqCst);
    for (source, target, _) in &disks {
        bench
            .prepare(options(source.name().as_str(), source, target, SyncMode::Full))
            .await
            .unwrap()
            .start();
    }
    bench.ended("a").await;
    bench.ended("b").await;
    let log = bench.take_log();
    assert!(log.contains("a:COMPLETED(4194304/4194304,ok)"), "{log}");
    assert!(log.contains("b:COMPLETED(0/4194304,Input/output error)"), "{log}");
}

/// e8af5686ff, 5f241594c4, 11b61fbc0d: one member that is finalized by hand holds all of its group.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_one_manual_member_waits_as_a_whole() {
    let bench = Bench::new();
    let group = bench.jobs.new_group();
    grouped(&bench, &group, |id, backup| backup.auto_finalize = id != "b").await;
    reach(&bench, "a", "pending").await;
    reach(&bench, "b", "pending").await;
    bench.jobs.verb("a", Verb::Finalize).await.unwrap();
    bench.ended("a").await;
    bench.ended("b").await;
    let log = bench.take_log();
    assert!(log.contains("b:pending b:PENDING a:pending b:COMPLETED"), "{log}");
}

/// 37aa19b63c, 49880165a4: finalize of a group whose member was cancelled meanwhile asserted or hung.
#[tokio::test(flavor = "multi_thread")]
async fn finalize_and_cancel_of_one_group_at_the_same_time() {
    for round in 0..20 {
        let bench = Bench::new();
        let group = bench.jobs.new_group();
        grouped(&bench, &group, |_, backup| backup.auto_finalize = false).await;
        reach(&bench, "a", "pending").await;
        reach(&bench, "b", "pending").await;
        let jobs = Arc::clone(&bench.jobs);
        let finalize = tokio::spawn(async move { jobs.verb("a", Verb::Finalize).await });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        let _ = bench.jobs.cancel("b", true, None).await;
        let _ = bench.jobs.verb("b", Verb::Finalize).await;
        let _ = finalize.await.unwrap();
        bench.ended("a").await;
        bench.ended("b").await;
        let log = bench.take_log();
        let completed = log.contains("a:COMPLETED") && log.contains("b:COMPLETED");
        let cancelled = log.contains("a:CANCELLED") && log.contains("b:CANCELLED");
        assert!(completed != cancelled, "{log}");
    }
}

/// a865cebb82: a transaction object leaked when no job joined it, or when all had left.
#[tokio::test(flavor = "multi_thread")]
async fn groups_go_with_their_last_user() {
    let bench = Bench::new();
    for _ in 0..3 {
        drop(bench.jobs.new_group());
    }
    let group = bench.jobs.new_group();
    grouped(&bench, &group, |_, _| {}).await;
    bench.ended("a").await;
    bench.ended("b").await;
    drop(group);
    assert_eq!(bench.jobs.group_count(), 0);
}

/// f4de0f8c40: undoing ran oldest first, so that an early step was undone under a later one that built on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_new_bitmap_is_undone_before_the_bitmap() {
    let bench = Bench::new();
    let disks = two_disks(&bench).await;
    let (source, target, _) = &disks[0];
    let spec = BitmapSpec {
        name: "new".into(),
        granularity_bytes: 65536,
        persistent: false,
        disabled: false,
    };
    let added = crate::bitmap::action::add(source.bitmaps(), source.length(), &spec).unwrap();
    let mut backup = options("j", source, target, SyncMode::Full);
    backup.bitmap = Some("new".into());
    backup.bitmap_mode = Some(BitmapMode::OnSuccess);
    let job = bench.prepare(backup).await.unwrap();
    // Each abort is complete when it returns, as far as the steps before it need.
    let ending = job.abort();
    assert!(!added.bitmap().info().unwrap().busy);
    added.abort();
    ending.await;
    assert!(source.bitmaps().find("new").is_none());
    assert_eq!(bench.graph.nodes().len(), 4);
}

/// d81e1efbea: a target that somebody else uses was refused for no reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_a_user_is_accepted() {
    let bench = Bench::new();
    let disks = two_disks(&bench).await;
    let (source, target, copy) = &disks[0];
    let reader = bench.guest(target);
    bench
        .prepare(options("j", source, target, SyncMode::Full))
        .await
        .unwrap()
        .start();
    bench.ended("j").await;
    let mut buf = vec![0; 4096];
    reader.read(MIB, &mut buf).await.unwrap();
    assert!(buf.iter().all(|byte| *byte == 1) && copy.content()[0] == 1);
}

/// 2842ff2d81: a drain never ended while a job kept its requests coming, or slept.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_whatever_the_job_does() {
    let bench = Bench::new();
    let disks = two_disks(&bench).await;
    let (source, target, copy) = &disks[0];
    let drain = async || {
        let drain = bench.graph.drain(std::slice::from_ref(source));
        drop(
            tokio::time::timeout(Duration::from_secs(5), drain)
                .await
                .expect("the drain hangs"),
        );
    };
    // Asleep for its speed limit.
    let slow = BackupOptions {
        speed: 1024,
        ..options("j", source, target, SyncMode::Full)
    };
    bench.prepare(slow).await.unwrap().start();
    drain().await;
    // Paused.
    bench.jobs.verb("j", Verb::Pause).await.unwrap();
    drain().await;
    bench.jobs.cancel("j", true, None).await.unwrap();
    bench.ended("j").await;
    // Stopped by an error, with a guest's write that has just failed with it.
    copy.fail_writes.store(5, Ordering::SeqCst);
    let stops = BackupOptions {
        on_target_error: OnError::Stop,
        ..options("j", source, target, SyncMode::Full)
    };
    bench.prepare(stops).await.unwrap().start();
    reach(&bench, "j", "paused").await;
    drain().await;
    // Busy trying again.
    bench.jobs.cancel("j", true, None).await.unwrap();
    bench.ended("j").await;
    let again = BackupOptions {
        on_target_error: OnError::Ignore,
        ..options("j", source, target, SyncMode::Full)
    };
    bench.prepare(again).await.unwrap().start();
    drain().await;
    bench.jobs.cancel("j", true, None).await.unwrap();
    bench.ended("j").await;
}

/// 2842ff2d81 again: a drain that comes between a copier's claim and its copy, with a guest's write waiting for it.
#[tokio::test(flavor = "multi_thread")]
async fn drains_under_load_never_hang() {
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(8 * MIB, 1).slow()).await;
    let (target, copy) = bench.node("t", Memory::new(8 * MIB, 0).slow()).await;
    let guest = bench.guest(&source);
    for round in 0..10u8 {
        let before = memory.content();
        bench
            .prepare(options("j", &source, &target, SyncMode::Full))
            .await
            .unwrap()
            .start();
        let guest = Arc::clone(&guest);
        let writer = tokio::spawn(async move {
            for at in 0..128 {
                write(&guest, at * K64, 512, round).await.unwrap();
            }
        });
        while !bench.jobs.infos().is_empty() {
            let drain = bench.graph.drain(std::slice::from_ref(&source));
            drop(
                tokio::time::timeout(Duration::from_secs(5), drain)
                    .await
                    .expect("the drain hangs"),
            );
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
        assert!(copy.content() == before);
    }
}

/// 1d4a43e946: a forced cancel of a job whose requests are stuck waited for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_group_keeps_to_the_deadline() {
    let bench = Bench::new();
    let group = bench.jobs.new_group();
    let disks = two_disks(&bench).await;
    for disk in &disks {
        disk.2.hold.store(true, Ordering::SeqCst);
    }
    let mut jobs = Vec::new();
    for (source, target, _) in &disks {
        let backup = options(source.name().as_str(), source, target, SyncMode::Full);
        jobs.push(
            prepare(&bench.jobs, &bench.graph, backup, Some(&group))
                .await
                .unwrap(),
        );
    }
    for job in jobs.into_iter().rev() {
        job.start();
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    bench
        .jobs
        .cancel("a", true, Some(Duration::from_millis(50)))
        .await
        .unwrap();
    bench.ended("a").await;
    bench.ended("b").await;
    assert_eq!(bench.graph.nodes().len(), 4);
}

/// b660a84bbb: each job of a group has its own lock; whoever took a group down held one while it waited for another's,
/// which a drain or a guest's write held.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_comes_down_while_each_member_is_drained_and_written() {
    const MEMBERS: u64 = 8;
    for round in 0..10 {
        let bench = Bench::new();
        let group = bench.jobs.new_group();
        let mut disks = Vec::new();
        for number in 0..MEMBERS {
            let (source, _) = bench
                .node(&format!("s{number}"), Memory::new(MIB, 1).slow())
                .await;
            let (target, copy) = bench
                .node(&format!("t{number}"), Memory::new(MIB, 0).slow())
                .await;
            let guest = bench.guest(&source);
            disks.push((source, target, copy, guest));
        }
        let mut jobs = Vec::new();
        for (number, (source, target, ..)) in disks.iter().enumerate() {
            let backup = BackupOptions {
                // One runs until it is taken down.
                speed: if number == 0 { 1 } else { 0 },
                ..options(&format!("j{number}"), source, target, SyncMode::Full)
            };
            jobs.push(
                prepare(&bench.jobs, &bench.graph, backup, Some(&group))
                    .await
                    .unwrap(),
            );
        }
        for job in jobs.into_iter().rev() {
            job.start();
        }
        let mut users = tokio::task::JoinSet::new();
        for (source, _, _, guest) in &disks {
            let (graph, source, guest) = (Arc::clone(&bench.graph), Arc::clone(source), Arc::clone(guest));
            users.spawn(async move {
                for at in 0..16 {
                    drop(graph.drain(std::slice::from_ref(&source)).await);
                    let _ = write(&guest, at * K64, 4096, 7).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(round)).await;
        let victim = format!("j{}", round % MEMBERS);
        // Cancelled, or taken down from inside.
        if round % 2 == 0 {
            bench.jobs.cancel(&victim, true, None).await.unwrap();
        } else {
            let (_, _, copy, guest) = &disks[0];
            copy.fail_writes.store(5, Ordering::SeqCst);
            let _ = write(guest, MIB - K64, 4096, 8).await;
            // It may have failed by itself meanwhile.
            let _ = bench.jobs.cancel("j0", true, None).await;
        }
        let all_done = async {
            for number in 0..MEMBERS {
                bench.ended(&format!("j{number}")).await;
            }
            while let Some(user) = users.join_next().await {
                let _ = user;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all_done)
            .await
            .expect("the group hangs");
        let log = bench.take_log();
        assert!(!log.contains(",ok)"), "round {round}: {log}");
        assert_eq!(bench.graph.nodes().len() as u64, 2 * MEMBERS);
        assert_eq!(bench.jobs.infos().len(), 0);
    }
}

/// The end of the program with jobs in every state.
#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_jobs_in_every_state() {
    let bench = Bench::new();
    let group = bench.jobs.new_group();
    grouped(&bench, &group, |_, backup| backup.auto_finalize = false).await;
    reach(&bench, "a", "pending").await;
    let (source, _) = bench.node("s", Memory::new(MIB, 1)).await;
    let (target, copy) = bench.node("t", Memory::new(MIB, 0)).await;
    copy.hold.store(true, Ordering::SeqCst);
    bench
        .prepare(options("stuck", &source, &target, SyncMode::Full))
        .await
        .unwrap()
        .start();
    bench.jobs.create_image("made", async { Ok(()) }).unwrap();
    reach(&bench, "made", "concluded").await;
    bench.jobs.cancel_all(Duration::from_millis(50)).await;
    assert!(bench.jobs.infos().is_empty());
    bench.graph.close_all().await;
}

/// At the end of the program each job has ended before the next one is cancelled, newest first.
#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_one_job_after_the_other() {
    let bench = Bench::new();
    for id in ["x", "y"] {
        // More than one request: a limit lets the first one pass, whatever its length, and a disk of one is copied then.
        let (source, _) = bench.node(&format!("s{id}"), Memory::new(8 * MIB, 1)).await;
        let (target, _) = bench.node(&format!("t{id}"), Memory::new(8 * MIB, 0)).await;
        let mut backup = options(id, &source, &target, SyncMode::Full);
        backup.speed = 1;
        bench.prepare(backup).await.unwrap().start();
        reach(&bench, id, "running").await;
    }
    bench.take_log();
    bench.jobs.cancel_all(Duration::from_secs(10)).await;
    assert_eq!(
        bench.take_log(),
        "y:aborting y:CANCELLED y:concluded y:null x:aborting x:CANCELLED x:concluded x:null"
    );
}

/// Fleecing: the point in time is read while the guest writes, and nothing outside of it is.
#[tokio::test(flavor = "multi_thread")]
async fn fleecing_reads_the_point_in_time() {
    use crate::options::{CopyBeforeWriteOptions, DriverOptions, NodeRef};
    let bench = Bench::new();
    let (source, memory) = bench.node("s", Memory::new(4 * MIB + 512, 1).slow()).await;
    let (_, _) = bench.node("t", Memory::new(4 * MIB + 512, 0).slow()).await;
    let bitmap = bench.bitmap(&source, "b");
    bitmap.set_dirty(MIB, MIB);
    let keeper = NodeOptions {
        node_name: Some("cbw".into()),
        driver: DriverOptions::CopyBeforeWrite(CopyBeforeWriteOptions {
            file: NodeRef::Name("s".into()),
            target: NodeRef::Name("t".into()),
            bitmap: Some(("s".into(), "b".into())),
            on_cbw_error: OnCbwError::BreakGuestWrite,
            cbw_timeout: None,
            min_cluster_size: None,
            discard_source: false,
        }),
        ..NodeOptions::default()
    };
    let cbw = bench.graph.add(keeper).await.unwrap();
    let view = NodeOptions {
        node_name: Some("view".into()),
        read_only: Some(true),
        driver: DriverOptions::SnapshotAccess {
            file: NodeRef::Name("cbw".into()),
        },
        ..NodeOptions::default()
    };
    let view = bench.graph.add(view).await.unwrap();
    let guest = bench.guest(&cbw);
    let reader = Backend::new(
        &bench.graph,
        &view,
        BackendUser::unnamed(),
        Perm::CONSISTENT_READ,
        Perm::ALL,
    )
    .unwrap();
    let writer = {
        let guest = Arc::clone(&guest);
        tokio::spawn(async move {
            for at in 0..64 {
                write(&guest, at * K64 + 100, 1000, 7).await.unwrap();
            }
        })
    };
    for at in 0..256 {
        let mut buf = vec![0; 4096];
        reader.read(MIB + at * 4096, &mut buf).await.unwrap();
        assert!(buf.iter().all(|byte| *byte == 1), "block {at}");
    }
    writer.await.unwrap();
    assert!(memory.content()[usize::try_from(MIB).unwrap() + 100] == 7);
    let mut buf = vec![0; 512];
    assert_eq!(reader.read(0, &mut buf).await.unwrap_err().errno(), 13);
    assert_eq!(
        reader.read(2 * MIB - 100, &mut buf).await.unwrap_err().errno(),
        13
    );
    let status: BlockStatus = reader.block_status(MIB, MIB, false).await.unwrap();
    assert!(status.len > 0 && status.data);
    // What the reader gives back is not saved any more, nor shown.
    reader.discard(MIB, K64).await.unwrap_or_default();
    if let Some(driver) = cbw
        .driver()
        .as_any()
        .downcast_ref::<crate::drivers::copy_before_write::CopyBeforeWrite>()
    {
        driver.discard_snapshot(MIB, K64).await.unwrap();
    }
    assert_eq!(reader.read(MIB, &mut buf).await.unwrap_err().errno(), 13);
    reader.read(MIB + K64, &mut buf).await.unwrap();
}

/// `sync: auto` says what it took and why.
#[tokio::test(flavor = "multi_thread")]
async fn auto_tells_its_mode_and_its_reason() {
    let bench = Bench::new();
    let disks = two_disks(&bench).await;
    let (source, target, _) = &disks[0];
    let bitmap = bench.bitmap(source, "b");
    let taken = async |bitmap: Option<&str>| {
        let mut backup = options("j", source, target, SyncMode::Auto);
        backup.bitmap = bitmap.map(str::to_owned);
        backup.auto_dismiss = false;
        bench.prepare(backup).await.unwrap().start();
        bench.ended("j").await;
        let auto = bench.jobs.info("j").unwrap().details.auto.unwrap();
        bench.jobs.verb("j", Verb::Dismiss).await.unwrap();
        (auto.0, auto.1)
    };
    let pair = |mode: AutoMode, reason: &str| (mode, reason.to_owned());
    assert_eq!(taken(None).await, pair(AutoMode::Full, "no bitmap was given"));
    assert_eq!(
        taken(Some("none")).await,
        pair(AutoMode::Full, "there is no bitmap 'none'")
    );
    assert_eq!(
        taken(Some("b")).await,
        pair(AutoMode::Incremental, "bitmap 'b' holds every change")
    );
    bitmap.disable().unwrap();
    assert_eq!(
        taken(Some("b")).await,
        pair(AutoMode::Full, "bitmap 'b' does not record")
    );
}
