//! The client library: replies to whom they belong, time-outs, dropped calls, lost connections, jobs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test ends by failing, and is no page for users"
)]

mod support;

use qapi_runtime::client::{
    Address, Client, ClientError, ClientOptions, Incoming, JobEnd, Reconnect, blocking,
};
use qapi_runtime::{Document, ErrorClass, Map, Token, execute};
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{TestServer, Tick};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

fn member_int(document: &Document, name: &str) -> i64 {
    let value = document
        .root()
        .unwrap()
        .members()
        .find(|(key, _)| *key == name)
        .unwrap()
        .1;
    match value.token() {
        Token::Int(value) => value,
        other => panic!("{other:?}"),
    }
}

async fn echo(client: &Client, number: i64) -> Result<i64, ClientError> {
    let reply = client
        .execute("echo", Some(format!("{{\"n\": {number}}}").as_bytes()))
        .await?;
    Ok(member_int(&reply, "n"))
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_reply() {
    let server = TestServer::start();
    let client = Client::connect(server.path.to_str().unwrap()).await.unwrap();
    assert_eq!(client.greeting().version, (1, 2, 3));
    assert_eq!(client.greeting().capabilities, ["oob"]);
    let calls: Vec<_> = (0..500)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { (number, echo(&client, number).await.unwrap()) })
        })
        .collect();
    for call in calls {
        let (sent, got) = call.await.unwrap();
        assert_eq!(sent, got);
    }
}

#[tokio::test]
async fn errors_of_the_server() {
    let server = TestServer::start();
    let client = Client::connect(server.path.to_str().unwrap()).await.unwrap();
    match client.execute("nope", None).await {
        Err(ClientError::Qmp(error)) => {
            assert_eq!(error.class, qapi_runtime::ErrorClass::CommandNotFound);
            assert_eq!(error.desc, "The command nope has not been found");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        Client::connect(server.folder().join("none").to_str().unwrap()).await,
        Err(ClientError::Connect { .. })
    ));
}

#[tokio::test]
async fn a_dropped_call_takes_nothing_from_the_others() {
    let server = TestServer::start();
    let client = Client::connect(server.path.to_str().unwrap()).await.unwrap();
    for round in 0..200 {
        let dropped = tokio::time::timeout(Duration::from_micros(round * 7), echo(&client, -1));
        let (_, kept) = tokio::join!(dropped, echo(&client, i64::try_from(round).unwrap()));
        assert_eq!(kept.unwrap(), i64::try_from(round).unwrap());
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long() {
    let server = TestServer::start();
    let client = Client::connect(server.path.to_str().unwrap()).await.unwrap();
    let late = client
        .call("gate", None, false, Some(Duration::from_millis(50)))
        .await;
    assert!(
        matches!(late, Err(ClientError::TimedOut { may_have_run: true })),
        "{late:?}"
    );
    server.handler.gate.add_permits(1);
    assert_eq!(echo(&client, 5).await.unwrap(), 5);
    assert_eq!(server.handler.finished.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn out_of_band() {
    let server = TestServer::start();
    let options = ClientOptions {
        oob: true,
        ..ClientOptions::default()
    };
    let client = Client::connect_with(&Address::Unix(server.path.clone()), options)
        .await
        .unwrap();
    let gate = client.execute("gate", None);
    let open = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        client.execute_oob("oob-open-gate", None).await
    };
    let (gate, open) = tokio::join!(gate, open);
    gate.unwrap();
    open.unwrap();
    // A handle for such calls, as generated clients want it.
    let gate = client.execute("gate", None);
    let open = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        execute::without_arguments::<_, ()>(&client.out_of_band(), "oob-open-gate").await
    };
    let (gate, open) = tokio::join!(gate, open);
    gate.unwrap();
    open.unwrap();
    let refused = execute::without_arguments::<_, ()>(&client.out_of_band(), "gate").await;
    assert_eq!(refused.unwrap_err().class(), Some(ErrorClass::GenericError));
    let hasty = client.with_timeout(Duration::from_millis(30));
    let late = execute::without_arguments::<_, ()>(&hasty, "gate").await;
    assert!(matches!(late, Err(ClientError::TimedOut { may_have_run: true })));
    server.handler.gate.add_permits(1);
}

#[tokio::test]
async fn events() {
    let server = TestServer::start();
    let client = Client::connect(server.path.to_str().unwrap()).await.unwrap();
    let mut all = client.subscribe();
    let mut odd = client.subscribe_if(|event| {
        let number = event
            .data()
            .and_then(|data| data.members().next().map(|(_, value)| value.token()));
        matches!(number, Some(Token::Int(number)) if number % 2 == 1)
    });
    drop(client.subscribe());
    client.execute("ticks", Some(b"{\"count\": 4}")).await.unwrap();
    for _ in 0..4 {
        assert!(matches!(all.next().await, Ok(Incoming::Event(event)) if &*event.name == "TICK"));
    }
    assert!(odd.try_next().is_some() && odd.try_next().is_some() && odd.try_next().is_none());
    server.server.finish(Duration::from_secs(5)).await;
    assert!(all.next().await.is_err());
}

/// A server that says what the test tells it to.
struct Scripted {
    listener: UnixListener,
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

struct Line {
    stream: BufReader<tokio::net::UnixStream>,
}

impl Scripted {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q");
        Scripted {
            listener: UnixListener::bind(&path).unwrap(),
            path,
            _folder: folder,
        }
    }

    /// Accepts a client and negotiates with it.
    async fn accept(&self) -> Line {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut line = Line {
            stream: BufReader::new(stream),
        };
        // As a daemon of another version might: with members that nobody knows.
        line.say("{\"return\": {}, \"id\": 17}").await;
        line.say("{\"QMP\": {\"version\": {\"qemu\": {\"major\": 99, \"minor\": 1, \"micro\": 0, \"nano\": 7}, \"package\": \"p\"}, \"capabilities\": [\"oob\", \"warp\"], \"new\": {}}}").await;
        let (command, id) = line.request().await;
        assert_eq!(command, "qmp_capabilities");
        line.say(&format!("{{\"return\": {{}}, \"id\": {id}}}")).await;
        line
    }
}

impl Line {
    async fn say(&mut self, text: &str) {
        self.stream
            .write_all(format!("{text}\r\n").as_bytes())
            .await
            .unwrap();
    }

    async fn request(&mut self) -> (String, u64) {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        (
            value["execute"].as_str().unwrap().to_owned(),
            value["id"].as_u64().unwrap(),
        )
    }
}

#[tokio::test]
async fn replies_out_of_order_and_from_a_server_of_the_future() {
    let script = Scripted::new();
    let path = script.path.clone();
    let server = tokio::spawn(async move {
        let mut line = script.accept().await;
        let (_, first) = line.request().await;
        let (_, second) = line.request().await;
        line.say("{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"NEW\", \"data\": {}, \"more\": 1}").await;
        line.say(&format!(
            "{{\"return\": {{\"n\": 2}}, \"id\": {second}, \"extra\": []}}"
        ))
        .await;
        line.say("{\"return\": {}, \"id\": \"whose\"}").await;
        line.say(&format!(
            "{{\"error\": {{\"class\": \"Brandnew\", \"desc\": \"d\", \"x\": 0}}, \"id\": {first}}}"
        ))
        .await;
        line
    });
    let client = Client::connect(path.to_str().unwrap()).await.unwrap();
    assert_eq!(client.greeting().version, (99, 1, 0));
    let (first, second) = tokio::join!(client.execute("a", None), client.execute("b", None));
    assert!(matches!(first, Err(ClientError::Qmp(error)) if error.desc == "d"));
    assert_eq!(member_int(&second.unwrap(), "n"), 2);
    server.await.unwrap();
}

#[tokio::test]
async fn a_reply_larger_than_any_request_may_be() {
    let server = Scripted::new();
    let serve = async {
        let mut line = server.accept().await;
        let (_, id) = line.request().await;
        let elements = "7, ".repeat(2_200_000);
        line.say(&format!("{{\"return\": [{elements}7], \"id\": {id}}}"))
            .await;
        line
    };
    let call = async {
        let client = Client::connect(server.path.to_str().unwrap()).await.unwrap();
        client.execute("query-much", None).await
    };
    let (reply, _line) = tokio::join!(call, serve);
    let reply = reply.unwrap();
    assert!(matches!(
        reply.root().unwrap().token(),
        Token::Array { len: 2_200_001, .. }
    ));
}

#[tokio::test]
async fn a_lost_connection_ends_every_call() {
    let script = Scripted::new();
    let path = script.path.clone();
    let server = tokio::spawn(async move {
        let mut line = script.accept().await;
        line.request().await;
        line.request().await;
    });
    let client = Client::connect(path.to_str().unwrap()).await.unwrap();
    let mut job = client.job("j");
    let (first, second, waited) =
        tokio::join!(client.execute("a", None), client.execute("b", None), job.wait());
    server.await.unwrap();
    for lost in [first.map(|_| ()), second.map(|_| ())] {
        assert!(
            matches!(&lost, Err(error @ ClientError::Disconnected { .. }) if error.may_have_run()),
            "{lost:?}"
        );
    }
    assert!(matches!(waited, Err(ClientError::Disconnected { .. })));
    let late = client.execute("c", None).await;
    assert!(
        matches!(&late, Err(error @ ClientError::Disconnected { .. }) if !error.may_have_run()),
        "{late:?}"
    );
    assert_eq!(
        late.unwrap_err().to_string(),
        "connection lost: the server closed the connection (the command has not run)"
    );
}

#[tokio::test]
async fn reconnecting() {
    let script = Scripted::new();
    let address = Address::Unix(script.path.clone());
    let reconnect = Reconnect::Backoff {
        first: Duration::from_millis(5),
        longest: Duration::from_millis(20),
        tries: 50,
    };
    let options = ClientOptions {
        reconnect,
        ..ClientOptions::default()
    };
    let server = tokio::spawn(async move {
        let mut line = script.accept().await;
        line.request().await;
        drop(line);
        let mut line = script.accept().await;
        let (command, id) = line.request().await;
        // What may have run is not sent again.
        assert_eq!(command, "second");
        line.say(&format!("{{\"return\": {{}}, \"id\": {id}}}")).await;
        line
    });
    let client = Client::connect_with(&address, options).await.unwrap();
    let mut events = client.subscribe();
    let lost = client.execute("first", None).await.unwrap_err();
    assert!(lost.may_have_run());
    client.execute("second", None).await.unwrap();
    assert!(matches!(events.try_next(), Some(Incoming::Gap)));
    server.await.unwrap();
}

#[tokio::test]
async fn jobs() {
    let status = |id: &str, status: &str| {
        format!(
            "{{\"timestamp\": {{\"seconds\": 1, \"microseconds\": 2}}, \"event\": \"JOB_STATUS_CHANGE\", \"data\": {{\"status\": \"{status}\", \"id\": \"{id}\"}}}}"
        )
    };
    let block = |event: &str, id: &str, error: &str| {
        format!(
            "{{\"timestamp\": {{\"seconds\": 1, \"microseconds\": 2}}, \"event\": \"{event}\", \"data\": {{\"device\": \"{id}\", \"len\": 1, \"offset\": 1{error}}}}}"
        )
    };
    let script = Scripted::new();
    let path = script.path.clone();
    let server = tokio::spawn(async move {
        let mut line = script.accept().await;
        let (_, id) = line.request().await;
        // Everything happens before the reply of the command that started it.
        let all = [
            status("good", "created"),
            status("good", "running"),
            status("other", "concluded"),
            block("BLOCK_JOB_COMPLETED", "good", ""),
            status("good", "concluded"),
            status("good", "null"),
            status("bad", "aborting"),
            block("BLOCK_JOB_COMPLETED", "bad", ", \"error\": \"No space\""),
            status("bad", "concluded"),
            block("BLOCK_JOB_CANCELLED", "cancelled", ""),
            status("cancelled", "null"),
            status("creating", "aborting"),
            status("creating", "concluded"),
        ];
        for text in all {
            line.say(&text).await;
        }
        line.say(&format!("{{\"return\": {{}}, \"id\": {id}}}")).await;
        let (command, id) = line.request().await;
        assert_eq!(command, "query-jobs");
        line.say(&format!("{{\"return\": [{{\"id\": \"creating\", \"type\": \"create\", \"status\": \"concluded\", \"current-progress\": 1, \"total-progress\": 1, \"error\": \"no room\"}}], \"id\": {id}}}")).await;
        line
    });
    let client = Client::connect(path.to_str().unwrap()).await.unwrap();
    let (mut good, mut bad) = (client.job("good"), client.job("bad"));
    let (mut cancelled, mut creating) = (client.job("cancelled"), client.job("creating"));
    client.execute("start", None).await.unwrap();
    assert_eq!(good.wait().await.unwrap(), JobEnd::Completed);
    good.completed().await.unwrap();
    assert_eq!(good.progress().await, None);
    assert_eq!(bad.wait().await.unwrap(), JobEnd::Failed("No space".into()));
    assert_eq!(bad.completed().await.unwrap_err().to_string(), "No space");
    assert_eq!(cancelled.wait().await.unwrap(), JobEnd::Cancelled);
    assert_eq!(creating.wait().await.unwrap(), JobEnd::Failed("no room".into()));
    server.await.unwrap();
}

#[tokio::test]
async fn the_blocking_client() {
    let server = TestServer::start();
    let path = server.path.to_str().unwrap().to_owned();
    let hub = std::sync::Arc::clone(&server.handler.hub);
    let calls = tokio::task::spawn_blocking(move || {
        let client = blocking::Client::connect(&path).unwrap();
        let mut events = client.subscribe();
        assert_eq!(
            member_int(&client.execute("echo", Some(b"{\"n\": 3}")).unwrap(), "n"),
            3
        );
        hub.emit(&Tick {
            number: 1,
            ballast: 0,
        });
        assert!(matches!(
            events.next_within(Duration::from_secs(5)),
            Ok(Some(Incoming::Event(_)))
        ));
        assert!(matches!(events.next_within(Duration::from_millis(20)), Ok(None)));
        let late = client.execute_within("gate", None, Duration::from_millis(30));
        assert!(matches!(late, Err(ClientError::TimedOut { .. })));
        // Over a connection that std has opened, with the calls that a generated client makes.
        let open = || {
            let socket = std::os::unix::net::UnixStream::connect(&path)?;
            socket.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(socket)
        };
        let own = blocking::Client::over(open, ClientOptions::default()).unwrap();
        let calls = own.calls();
        own.wait(execute::without_arguments::<_, Map>(&calls, "query-version"))
            .unwrap();
        // A handle that outlives the client hears that it is over.
        drop(own);
        let over = client.wait(execute::without_arguments::<_, Map>(&calls, "query-version"));
        assert!(matches!(
            over,
            Err(ClientError::Disconnected {
                may_have_run: false,
                ..
            })
        ));
        let refused = || Err::<tokio::net::UnixStream, _>(std::io::Error::other("no"));
        let refused = blocking::Client::over(refused, ClientOptions::default());
        assert!(matches!(refused, Err(ClientError::Connect { .. })));
    });
    calls.await.unwrap();
    server.handler.gate.add_permits(1);
    server.wait_for_sessions(0).await;
}
