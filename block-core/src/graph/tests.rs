use std::sync::Arc;
use std::time::Duration;

use super::{Backend, BackendUser, Graph, GraphContext, Node, Perm};
use crate::driver::WriteFlags;
use crate::event::{Event, EventSink};
use crate::options::{
    DriverOptions, FileOptions, GivenOptions, GivenValue, NodeOptions, NodeRef, NullOptions, RawOptions,
};

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

fn null(name: &str) -> NodeOptions {
    let driver = DriverOptions::NullCo(NullOptions {
        size: 1 << 20,
        read_zeroes: true,
        ..NullOptions::default()
    });
    NodeOptions {
        node_name: Some(name.into()),
        driver,
        ..NodeOptions::default()
    }
}

fn raw_on(name: &str, file: NodeRef) -> NodeOptions {
    let driver = DriverOptions::Raw(RawOptions {
        file,
        offset: 0,
        size: None,
    });
    NodeOptions {
        node_name: Some(name.into()),
        driver,
        ..NodeOptions::default()
    }
}

fn file(path: &std::path::Path) -> NodeOptions {
    let driver = DriverOptions::File(FileOptions {
        filename: path.to_str().unwrap().to_owned(),
        ..FileOptions::default()
    });
    NodeOptions {
        driver,
        ..NodeOptions::default()
    }
}

fn user(graph: &Arc<Graph>, node: &Arc<Node>) -> Arc<Backend> {
    let shared = Perm::ALL.without(Perm::RESIZE);
    Backend::new(
        graph,
        node,
        BackendUser::unnamed(),
        Perm::CONSISTENT_READ | Perm::WRITE,
        shared,
    )
    .unwrap()
}

#[tokio::test]
async fn raw_on_file_reads_what_was_written_and_closes_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![7; 65536]).unwrap();
    let graph = graph();
    let node = graph
        .add(raw_on("disk", NodeRef::Options(Box::new(file(&path)))))
        .await
        .unwrap();
    assert_eq!(graph.nodes().len(), 2);
    // What the protocol says of itself is seen through the format: it was not left open by a crash.
    assert_eq!(node.driver().info().dirty, Some(false));
    let backend = user(&graph, &node);
    backend
        .write(4096, &[1; 512], WriteFlags::default())
        .await
        .unwrap();
    let mut buf = [0; 1024];
    backend.read(4096 - 512, &mut buf).await.unwrap();
    assert_eq!(buf[..512], [7; 512]);
    assert_eq!(buf[512..], [1; 512]);
    assert_eq!(backend.read(65536 - 100, &mut buf).await.unwrap_err().errno(), 5);
    let error = graph.remove(&"disk".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "Node disk is in use");
    backend.detach().await;
    graph.remove(&"disk".into()).await.unwrap();
    assert!(graph.nodes().is_empty());
}

#[tokio::test]
async fn names_are_checked() {
    let graph = graph();
    graph.add(null("a")).await.unwrap();
    let error = graph.add(null("a")).await.unwrap_err();
    assert_eq!(error.to_string(), "Duplicate nodes with node-name='a'");
    let error = graph.add(null("9a")).await.unwrap_err();
    assert_eq!(error.to_string(), "Invalid node-name: '9a'");
    let error = graph.remove(&"b".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "Failed to find node with node-name='b'");
}

#[tokio::test]
async fn op_blockers_name_their_reason() {
    let graph = graph();
    let node = graph.add(null("a")).await.unwrap();
    let guard = node.block_op("block device is in use by block job: backup");
    let error = graph.remove(&"a".into()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Node 'a' is busy: block device is in use by block job: backup"
    );
    drop(guard);
    graph.remove(&"a".into()).await.unwrap();
}

#[tokio::test]
async fn a_drain_holds_requests_and_a_filter_goes_between() {
    let graph = graph();
    let node = graph.add(null("a")).await.unwrap();
    let backend = user(&graph, &node);
    let guard = graph.drain(&[Arc::clone(&node)]).await;
    let task = {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { backend.write(0, &[1; 512], WriteFlags::default()).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!task.is_finished());
    drop(guard);
    task.await.unwrap().unwrap();

    let filter = graph
        .insert_filter(&node, raw_on("f", NodeRef::Name("a".into())))
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&backend.node(), &filter));
    assert_eq!(filter.parents().len(), 1);
    assert_eq!(node.parents().len(), 1);
    graph.remove_filter(&filter).await.unwrap();
    drop(filter);
    assert!(Arc::ptr_eq(&backend.node(), &node));
    assert_eq!(graph.nodes().len(), 1);
    assert_eq!(node.parents().len(), 1);
}

#[tokio::test]
async fn a_conflict_names_both_parents() {
    let graph = graph();
    let node = graph.add(null("a")).await.unwrap();
    let options = NodeOptions {
        driver: DriverOptions::Raw(RawOptions {
            file: NodeRef::Name("a".into()),
            offset: 512,
            size: None,
        }),
        node_name: Some("window".into()),
        ..NodeOptions::default()
    };
    graph.add(options).await.unwrap();
    let error = Backend::new(&graph, &node, BackendUser::unnamed(), Perm::RESIZE, Perm::ALL)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "Permission conflict on node 'a': permissions 'resize' are both required by an unnamed block device (uses \
         node 'a' as 'root' child) and unshared by node 'window' (uses node 'a' as 'file' child)."
    );
    assert_eq!(node.parents().len(), 1);
}

#[tokio::test]
async fn reopen_changes_what_may_change_and_refuses_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![7; 65536]).unwrap();
    let graph = graph();
    let open = |read_only| NodeOptions {
        read_only,
        ..raw_on("disk", NodeRef::Options(Box::new(file(&path))))
    };
    let node = graph.add(open(None)).await.unwrap();
    graph.reopen(vec![open(Some(true))]).await.unwrap();
    assert!(node.is_read_only());
    // The file below was opened with its parent and follows it.
    assert!(node.child("file").unwrap().node().is_read_only());
    assert_eq!(
        node.write(0, &[1; 512], WriteFlags::default())
            .await
            .unwrap_err()
            .errno(),
        1
    );
    graph.reopen(vec![open(None)]).await.unwrap();
    node.write(0, &[1; 512], WriteFlags::default()).await.unwrap();
    let backend = user(&graph, &node);
    let error = graph.reopen(vec![open(Some(true))]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Read-only block node 'disk' cannot support read-write users"
    );
    assert!(!node.is_read_only());
    let other = folder.path().join("other");
    std::fs::write(&other, b"").unwrap();
    let error = graph
        .reopen(vec![raw_on("disk", NodeRef::Options(Box::new(file(&other))))])
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "Cannot change the option 'filename'");
    let error = graph.reopen(vec![null("disk")]).await.unwrap_err();
    assert_eq!(error.to_string(), "Cannot change the option 'driver'");
    let error = graph.reopen(vec![null("zz")]).await.unwrap_err();
    assert_eq!(error.to_string(), "Failed to find node with node-name='zz'");
    let error = graph.resize(&node, 1 << 20).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("Permission conflict on node 'disk': permissions 'resize'"),
        "{error}"
    );
    backend.detach().await;
    graph.resize(&node, 1 << 20).await.unwrap();
    assert_eq!(node.length(), 1 << 20);
}

#[tokio::test]
async fn a_child_opened_with_its_parent_follows_it_by_name_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![7; 65536]).unwrap();
    let graph = graph();
    let below = NodeOptions {
        node_name: Some("file".into()),
        ..file(&path)
    };
    let with = |read_only, file| NodeOptions {
        read_only,
        ..raw_on("disk", file)
    };
    let by_name = || NodeRef::Name("file".into());
    let node = graph
        .add(with(Some(true), NodeRef::Options(Box::new(below))))
        .await
        .unwrap();
    let file = node.child("file").unwrap().node();
    assert!(file.is_read_only());
    graph.reopen(vec![with(Some(false), by_name())]).await.unwrap();
    assert!(!file.is_read_only());
    node.write(0, &[1; 512], WriteFlags::default()).await.unwrap();
    graph.reopen(vec![with(Some(true), by_name())]).await.unwrap();
    assert!(file.is_read_only());
    // What the parent is not given now stays as it is.
    graph.reopen(vec![with(None, by_name())]).await.unwrap();
    assert!(file.is_read_only());
}

#[tokio::test]
async fn a_child_can_be_exchanged_by_reopen() {
    let graph = graph();
    graph.add(null("a")).await.unwrap();
    graph.add(null("b")).await.unwrap();
    let node = graph.add(raw_on("r", NodeRef::Name("a".into()))).await.unwrap();
    graph
        .reopen(vec![raw_on("r", NodeRef::Name("b".into()))])
        .await
        .unwrap();
    assert_eq!(node.child("file").unwrap().node().name().as_str(), "b");
    graph.remove(&"a".into()).await.unwrap();
    let above = graph.add(raw_on("s", NodeRef::Name("r".into()))).await.unwrap();
    let error = graph
        .reopen(vec![raw_on("r", NodeRef::Name("s".into()))])
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Making 's' a file child of 'r' would create a cycle"
    );
    drop(above);
}

#[tokio::test]
async fn a_file_name_is_a_path_where_that_says_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("di\"sk");
    std::fs::write(&path, vec![7; 65536]).unwrap();
    let graph = graph();
    let whole = graph
        .add(raw_on("whole", NodeRef::Options(Box::new(file(&path)))))
        .await
        .unwrap();
    assert_eq!(whole.filename(), path.to_str().unwrap());
    let window = NodeOptions {
        driver: DriverOptions::Raw(RawOptions {
            file: NodeRef::Options(Box::new(file(&path))),
            offset: 512,
            size: Some(1024),
        }),
        node_name: Some("window".into()),
        given: GivenOptions::new(vec![
            ("size".to_owned(), GivenValue::Number(1024)),
            ("offset".to_owned(), GivenValue::Number(512)),
        ]),
        ..NodeOptions::default()
    };
    let window = graph.add(window).await.unwrap();
    let quoted = path.to_str().unwrap().replace('"', "\\\"");
    assert_eq!(
        window.filename(),
        format!(
            "json:{{\"offset\": 512, \"driver\": \"raw\", \"size\": 1024, \"file\": {{\"driver\": \"file\", \
             \"filename\": \"{quoted}\"}}}}"
        )
    );
}

/// Faults can wait for a flush: each tells of itself once, and only when something was written since the last one.
#[tokio::test]
async fn a_flush_tells_fault_injection_of_itself() {
    use crate::options::{BlkdebugOptions, InjectError, SetState};
    let graph = graph();
    let faults = DriverOptions::Blkdebug(BlkdebugOptions {
        image: NodeRef::Options(Box::new(null("below"))),
        config: None,
        take_child_perms: super::Perm::NONE,
        unshare_child_perms: super::Perm::NONE,
        align: 0,
        max_transfer: 0,
        opt_write_zero: 0,
        max_write_zero: 0,
        opt_discard: 0,
        max_discard: 0,
        inject_error: vec![InjectError {
            event: "read_aio".to_owned(),
            state: 3,
            iotype: None,
            errno: 5,
            sector: None,
            once: true,
            immediately: false,
        }],
        set_state: [(1, 2), (2, 3)]
            .map(|(state, new_state)| SetState {
                event: "flush_to_disk".to_owned(),
                state,
                new_state,
            })
            .to_vec(),
    });
    let faults = NodeOptions {
        driver: faults,
        ..NodeOptions::default()
    };
    let node = graph
        .add(raw_on("disk", NodeRef::Options(Box::new(faults))))
        .await
        .unwrap();
    let backend = user(&graph, &node);
    let mut buf = [0; 512];
    for _ in 0..3 {
        backend.flush().await.unwrap();
    }
    backend.write(0, &[1; 512], WriteFlags::default()).await.unwrap();
    backend.flush().await.unwrap();
    backend.flush().await.unwrap();
    backend.read(0, &mut buf).await.unwrap();
    backend.write(0, &[1; 512], WriteFlags::default()).await.unwrap();
    backend.flush().await.unwrap();
    assert_eq!(backend.read(0, &mut buf).await.unwrap_err().errno(), 5);
    backend.read(0, &mut buf).await.unwrap();
}
