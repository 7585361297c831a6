use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{WriteFlags, ZeroFlags};
use crate::event::{Event, EventSink};
use crate::graph::{Backend, BackendUser, Graph, GraphContext, Perm};
use crate::options::{AioBackend, CacheOptions, DriverOptions, FileOptions, NodeOptions};

struct NoEvents;
impl EventSink for NoEvents {
    fn emit(&self, _event: Event) {}
}

fn graph() -> Arc<Graph> {
    Graph::new(GraphContext {
        handle: tokio::runtime::Handle::current(),
        events: Arc::new(NoEvents),
    })
}

fn file(path: &Path) -> NodeOptions {
    let driver = DriverOptions::File(FileOptions {
        filename: path.to_str().unwrap().to_owned(),
        ..FileOptions::default()
    });
    NodeOptions {
        node_name: Some("f".into()),
        driver,
        discard_unmap: Some(true),
        ..NodeOptions::default()
    }
}

fn writer(graph: &Arc<Graph>) -> crate::Result<Arc<Backend>> {
    let node = graph.find("f").unwrap();
    let perm = Perm::CONSISTENT_READ | Perm::WRITE;
    Backend::new(graph, &node, BackendUser::unnamed(), perm, Perm::CONSISTENT_READ)
}

/// Folders in memory and, where that is another file system, on disk.
fn folders() -> Vec<tempfile::TempDir> {
    let mut folders = vec![tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()];
    folders.extend(tempfile::tempdir_in("/dev/shm"));
    folders
}

#[tokio::test]
async fn content_survives_every_way_of_opening() {
    for folder in folders() {
        for direct in [false, true] {
            for aio in [AioBackend::Threads, AioBackend::IoUring] {
                let path = folder.path().join("disk");
                std::fs::write(&path, vec![7; 70_001]).unwrap();
                let graph = graph();
                let mut options = file(&path);
                options.cache = CacheOptions {
                    direct: Some(direct),
                    no_flush: None,
                };
                let DriverOptions::File(driver) = &mut options.driver else {
                    unreachable!()
                };
                driver.aio = Some(aio);
                let node = match graph.add(options).await {
                    Ok(node) => node,
                    Err(error) if direct && error.errno() == 22 => {
                        eprintln!("SKIPPED: no direct I/O on {}", folder.path().display());
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(node.length(), 70_144);
                let mut expected = vec![7; 70_001];
                expected.resize(70_144, 0);
                for (offset, len) in [
                    (0usize, 512usize),
                    (1000, 3000),
                    (4095, 2),
                    (65_000, 5144),
                    (70_143, 1),
                ] {
                    let data = vec![u8::try_from(len % 250).unwrap() + 1; len];
                    node.write(offset as u64, &data, WriteFlags::default())
                        .await
                        .unwrap();
                    expected[offset..offset + len].copy_from_slice(&data);
                }
                node.write(
                    8192,
                    &[3; 100],
                    WriteFlags {
                        fua: true,
                        ..WriteFlags::default()
                    },
                )
                .await
                .unwrap();
                expected[8192..8292].fill(3);
                for (offset, len, may_unmap) in [(12_288usize, 4096usize, true), (20_000, 9999, false)] {
                    let flags = ZeroFlags {
                        may_unmap,
                        ..ZeroFlags::default()
                    };
                    node.write_zeroes(offset as u64, len as u64, flags).await.unwrap();
                    expected[offset..offset + len].fill(0);
                }
                node.flush().await.unwrap();
                let mut all = vec![1; 70_144];
                node.read(0, &mut all).await.unwrap();
                assert!(
                    all == expected,
                    "direct {direct}, {aio:?}, {}",
                    folder.path().display()
                );
                let mut part = vec![1; 777];
                node.read(60_001, &mut part).await.unwrap();
                assert_eq!(part[..], expected[60_001..60_778]);
                graph.remove(&"f".into()).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn holes_show_and_zeroes_beyond_the_end_grow_the_file() {
    for folder in folders() {
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let graph = graph();
        let node = graph.add(file(&path)).await.unwrap();
        node.discard(65_536, 65_536).await.unwrap();
        let status = node.block_status(0, 1 << 20, false).await.unwrap();
        if status.len == 65_536 {
            assert!(status.data && !status.zero);
            let status = node.block_status(65_536, 1 << 20, false).await.unwrap();
            assert_eq!((status.len, status.data, status.zero), (65_536, false, true));
        } else {
            eprintln!("SKIPPED: no holes on {}", folder.path().display());
        }
        for (end, may_unmap) in [((1 << 20) + 8192, true), ((1 << 20) + 20_480, false)] {
            let flags = ZeroFlags {
                may_unmap,
                ..ZeroFlags::default()
            };
            node.write_zeroes(end - 4096, 4096, flags).await.unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), end);
            assert_eq!(node.length(), end);
        }
    }
}

#[tokio::test]
async fn texts_of_what_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no such file");
    let graph = graph();
    let error = graph.add(file(&path)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Could not open '{}': No such file or directory", path.display())
    );
    let error = graph.add(file(folder.path())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Could not open '{}': Is a directory", folder.path().display())
    );
    let error = graph.add(file(Path::new("/dev/null"))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "'file' driver requires '/dev/null' to be a regular file"
    );
    assert!(graph.nodes().is_empty());
}

#[tokio::test]
async fn two_processes_cannot_both_be_the_only_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![7; 65_536]).unwrap();
    // Two graphs have separate open files, so that they stand against each other as two processes do.
    let (one, other) = (graph(), graph());
    one.add(file(&path)).await.unwrap();
    other.add(file(&path)).await.unwrap();
    let first = writer(&one).unwrap();
    let error = writer(&other).unwrap_err();
    assert_eq!(error.to_string(), "Failed to get \"write\" lock");
    assert_eq!(
        error.hint(),
        Some(format!("Is another process using the image [{}]?", path.display()).as_str())
    );
    first.detach().await;
    let second = writer(&other).unwrap();
    // A refused attempt leaves no lock behind that would refuse the next one.
    assert!(writer(&one).is_err());
    second.detach().await;
    writer(&one).unwrap().detach().await;
}

async fn output(command: &mut Command) -> Option<(bool, String)> {
    let output = command.stdin(Stdio::null()).output();
    match output {
        Ok(output) => Some((
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
        Err(_) => {
            eprintln!("SKIPPED: {:?} is not installed", command.get_program());
            None
        }
    }
}

#[tokio::test]
async fn a_qemu_on_the_same_image_is_refused_and_the_reverse() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![7; 65_536]).unwrap();
    let graph = graph();
    graph.add(file(&path)).await.unwrap();
    let backend = writer(&graph).unwrap();
    let write = ["-f", "raw", "-c", "write 0 512", path.to_str().unwrap()];
    let Some((ok, text)) = output(Command::new("qemu-io").args(write)).await else {
        return;
    };
    assert!(!ok && text.contains("Failed to get \"write\" lock"), "{text}");
    let copy = folder.path().join("copy");
    let convert = [
        "convert",
        "-f",
        "raw",
        path.to_str().unwrap(),
        copy.to_str().unwrap(),
    ];
    let Some((ok, text)) = output(Command::new("qemu-img").args(convert)).await else {
        return;
    };
    assert!(
        !ok && text.contains("Failed to get shared \"write\" lock"),
        "{text}"
    );
    backend.detach().await;
    let (ok, text) = output(Command::new("qemu-io").args(write)).await.unwrap();
    assert!(ok, "{text}");

    // The other way round: qemu-io waits for our answer with the image open.
    let mut qemu = Command::new("qemu-io")
        .args(["-f", "raw", path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut refused = None;
    for _ in 0..200 {
        match writer(&graph) {
            Ok(backend) => backend.detach().await,
            Err(error) => {
                refused = Some(error.to_string());
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(qemu.stdin.take());
    qemu.wait().unwrap();
    let text = refused.expect("qemu-io locked the image and we did not notice");
    assert!(text.starts_with("Failed to get "), "{text}");
    writer(&graph).unwrap();
}

#[tokio::test]
async fn an_image_that_ends_within_a_block_is_not_written_without_leave_to_grow() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("disk");
    for (length, refused) in [(1_000_000, true), (1 << 20, false)] {
        // All of it is a hole, in which a read of any size tells nothing of the device's blocks.
        std::fs::File::create(&path).unwrap().set_len(length).unwrap();
        let graph = graph();
        let mut options = file(&path);
        options.cache.direct = Some(true);
        let node = match graph.add(options).await {
            Ok(node) => node,
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        if refused && node.limits().request_alignment < 4096 {
            eprintln!("SKIPPED: this file system tells the size of its blocks");
            return;
        }
        let error = writer(&graph).err().map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            refused.then_some(
                "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment"
            )
        );
        let perm = Perm::CONSISTENT_READ | Perm::WRITE | Perm::RESIZE;
        Backend::new(&graph, &node, BackendUser::unnamed(), perm, Perm::ALL).unwrap();
    }
}

#[tokio::test]
async fn names_of_passed_descriptors_are_refused() {
    let graph = graph();
    for (name, text) in [
        (
            "/dev/fdset/1",
            "Could not open '/dev/fdset/1': Function not implemented",
        ),
        ("/dev/fdset/x", "Could not parse fdset /dev/fdset/x"),
    ] {
        let error = graph.add(file(Path::new(name))).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}
