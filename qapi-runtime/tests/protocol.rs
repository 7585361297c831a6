//! The protocol as a client sees it: greeting, negotiation, order, ids, out-of-band, events, the end.
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

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use support::{TestServer, Tick};
use tokio::io::AsyncWriteExt;

fn error(class: &str, desc: &str) -> Value {
    json!({"class": class, "desc": desc})
}

#[tokio::test]
async fn greeting_and_negotiation() {
    let server = TestServer::start();
    let mut plain = server.connect().await;
    let expecting = error(
        "CommandNotFound",
        "Expecting capabilities negotiation with 'qmp_capabilities'",
    );
    assert_eq!(
        plain.call("{'execute': 'query-version', 'id': 1}").await,
        json!({"id": 1, "error": expecting})
    );
    assert_eq!(plain.call("{'execute': 'nope'}").await["error"], expecting);
    let cases = [
        (
            "{'enable': ['warp']}",
            "Parameter 'null' does not accept value 'warp'",
        ),
        (
            "{'enable': 'oob'}",
            "Invalid parameter type for 'enable', expected: array",
        ),
        (
            "{'enable': [1]}",
            "Invalid parameter type for 'enable[0]', expected: string",
        ),
        ("{'enable': [], 'x': 1}", "Parameter 'x' is unexpected"),
    ];
    for (arguments, desc) in cases {
        let text = format!("{{'execute': 'qmp_capabilities', 'arguments': {arguments}}}");
        assert_eq!(plain.call(&text).await["error"], error("GenericError", desc));
        assert_eq!(
            plain.call("{'execute': 'query-version'}").await["error"],
            expecting
        );
    }
    let done = plain
        .call("{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob', 'oob']}}")
        .await;
    assert_eq!(done, json!({"return": {}}));
    assert_eq!(
        plain.call("{'execute': 'query-version'}").await["return"]["qemu"]["major"],
        1
    );
    assert_eq!(
        plain.call("{'execute': 'qmp_capabilities'}").await["error"]["class"],
        "CommandNotFound"
    );
    // Each connection for itself.
    let mut other = server.connect().await;
    assert_eq!(
        other.call("{'execute': 'query-version'}").await["error"],
        expecting
    );
}

#[tokio::test]
async fn shapes_of_requests() {
    let server = TestServer::start();
    let mut plain = server.negotiated(false).await;
    let generic = [
        ("[]", "QMP input must be a JSON object"),
        ("12 ", "QMP input must be a JSON object"),
        ("{}", "QMP input lacks member 'execute'"),
        ("{'execute': 1}", "QMP input member 'execute' must be a string"),
        (
            "{'execute': 'nope', 'extra': 1}",
            "QMP input member 'extra' is unexpected",
        ),
        ("{'extra': 1}", "QMP input member 'extra' is unexpected"),
        (
            "{'arguments': 1}",
            "QMP input member 'arguments' must be an object",
        ),
        (
            "{'execute': 'nope', 'arguments': []}",
            "QMP input member 'arguments' must be an object",
        ),
        (
            "{'exec-oob': 'oob-ping'}",
            "QMP input member 'exec-oob' is unexpected",
        ),
        (
            "{'execute': 'x', 'execute': 'y'}",
            "JSON parse error, duplicate key",
        ),
        (
            "{'execute': 'query-qmp-schema', 'arguments': {'a': 1}}",
            "Parameter 'a' is unexpected",
        ),
    ];
    for (text, desc) in generic {
        assert_eq!(
            plain.call(text).await["error"],
            error("GenericError", desc),
            "{text}"
        );
    }
    assert_eq!(
        plain
            .call("{'execute': 'n\\u00f6pe', 'id': [null, 1.5, 'é']}")
            .await,
        json!({"id": [null, 1.5, "é"], "error": error("CommandNotFound", "The command nöpe has not been found")})
    );
    let names = plain.call("{'execute': 'query-commands'}").await;
    let names: Vec<&str> = names["return"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name["name"].as_str().unwrap())
        .collect();
    for name in [
        "query-version",
        "qmp_capabilities",
        "query-commands",
        "query-qmp-schema",
        "quit",
    ] {
        assert_eq!(names.iter().filter(|other| **other == name).count(), 1, "{name}");
    }
    let schema = plain.call("{'execute': 'query-qmp-schema', 'id': 's'}").await;
    assert_eq!(schema["return"].as_array().unwrap().len(), 2000);
    assert_eq!(schema["id"], "s");
}

#[tokio::test]
async fn a_waiting_command_keeps_those_behind_it_in_order() {
    let server = TestServer::start();
    let mut plain = server.negotiated(false).await;
    plain
        .send("{'execute':'gate','id':1}{'execute':'query-version','id':2}{]{'execute':'nope','id':3}")
        .await;
    plain.silent().await;
    server.handler.gate.add_permits(1);
    assert_eq!(plain.message().await, json!({"return": {}, "id": 1}));
    assert_eq!(plain.message().await["id"], 2);
    assert_eq!(
        plain.message().await["error"]["desc"],
        "JSON parse error, expecting value"
    );
    assert_eq!(plain.message().await["id"], 3);
}

#[tokio::test]
async fn out_of_band_overtakes() {
    let server = TestServer::start();
    let mut plain = server.negotiated(true).await;
    plain
        .send("{'execute':'gate','id':1}{'execute':'query-version','id':2}{]")
        .await;
    plain.silent().await;
    assert_eq!(
        plain.call("{'exec-oob':'oob-ping','id':3}").await,
        json!({"return": true, "id": 3})
    );
    assert_eq!(
        plain.call("{'exec-oob':'query-version','id':4}").await["error"]["desc"],
        "The command query-version does not support OOB"
    );
    assert_eq!(
        plain.call("{'exec-oob':'nope','id':5}").await["error"]["class"],
        "CommandNotFound"
    );
    assert_eq!(plain.call("{'exec-oob':'oob-open-gate','id':6}").await["id"], 6);
    assert_eq!(plain.message().await["id"], 1);
    assert_eq!(plain.message().await["id"], 2);
    assert_eq!(
        plain.message().await["error"]["desc"],
        "JSON parse error, expecting value"
    );
    // In band it is a command as any other.
    assert_eq!(
        plain.call("{'execute':'oob-ping'}").await,
        json!({"return": false})
    );
}

#[tokio::test]
async fn the_queue_behind_a_waiting_command_is_bounded() {
    let server = TestServer::start();
    let mut plain = server.negotiated(true).await;
    plain.send("{'execute':'gate','id':0}").await;
    for id in 1..=12 {
        plain
            .send(format!("{{'execute':'query-version','id':{id}}}"))
            .await;
    }
    // The queue of eight is full: even out-of-band requests wait, unread.
    plain.send("{'exec-oob':'oob-ping','id':'late'}").await;
    plain.silent().await;
    server.handler.gate.add_permits(1);
    let mut ids = Vec::new();
    for _ in 0..14 {
        ids.push(plain.message().await["id"].clone());
    }
    let in_band: Vec<Value> = ids.iter().filter(|id| id.is_number()).cloned().collect();
    assert_eq!(in_band, (0..=12).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_come_before_the_reply_and_to_all_who_negotiated() {
    let server = TestServer::start();
    let mut one = server.negotiated(false).await;
    let mut two = server.negotiated(true).await;
    let mut early = server.connect().await;
    one.send("{'execute':'ticks','arguments':{'count':3},'id':'t'}")
        .await;
    for number in 0..3 {
        let event = one.message().await;
        assert_eq!(event["event"], "TICK");
        assert_eq!(event["data"]["number"], number);
        assert!(event["timestamp"]["seconds"].is_i64() && event["timestamp"]["microseconds"].is_i64());
        assert_eq!(two.message().await, event);
    }
    assert_eq!(one.message().await, json!({"return": {}, "id": "t"}));
    early.silent().await;
    two.silent().await;
    // From another thread, and with nobody asking.
    let hub = std::sync::Arc::clone(&server.handler.hub);
    std::thread::spawn(move || {
        hub.emit(&Tick {
            number: 9,
            ballast: 0,
        })
    })
    .join()
    .unwrap();
    assert_eq!(two.message().await["data"]["number"], 9);
}

#[tokio::test]
async fn a_rate_limit_tells_the_first_and_the_last() {
    let server = TestServer::start();
    server
        .handler
        .hub
        .limit_rate("TICK", Duration::from_millis(150), None);
    let mut plain = server.negotiated(false).await;
    plain.send("{'execute':'ticks','arguments':{'count':5}}").await;
    assert_eq!(plain.message().await["data"]["number"], 0);
    assert_eq!(plain.message().await, json!({"return": {}}));
    assert_eq!(plain.message().await["data"]["number"], 4);
    plain.silent().await;
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_command_only() {
    let server = TestServer::start();
    let mut plain = server.negotiated(false).await;
    for command in ["panic-now", "panic-later"] {
        let reply = plain.call(&format!("{{'execute':'{command}','id':1}}")).await;
        let desc = format!("The command {command} failed on an internal error");
        assert_eq!(reply, json!({"id": 1, "error": error("GenericError", &desc)}));
    }
    assert_eq!(plain.call("{'execute':'query-version','id':2}").await["id"], 2);
}

#[tokio::test]
async fn quit_is_answered_and_nothing_after_it() {
    let server = TestServer::start();
    let mut other = server.negotiated(false).await;
    let mut plain = server.negotiated(false).await;
    plain
        .send("{'execute':'quit','id':1}{'execute':'query-version','id':2}{]")
        .await;
    assert_eq!(plain.message().await, json!({"return": {}, "id": 1}));
    other.send("{'execute':'query-version','id':3}").await;
    // What happens on the way out is still told.
    server.handler.hub.emit(&Tick {
        number: 1,
        ballast: 0,
    });
    server.server.finish(Duration::from_secs(5)).await;
    for client in [&mut plain, &mut other] {
        assert_eq!(client.message().await["event"], "TICK");
        assert_eq!(client.line().await, None);
    }
    assert_eq!(server.server.sessions(), 0);
    assert!(!server.path.exists());
}

#[tokio::test]
async fn a_client_that_stops_sending_is_still_answered() {
    let server = TestServer::start();
    let mut plain = server.negotiated(false).await;
    plain
        .send("{'execute':'sleep','arguments':{'ms':50},'id':1}{'execute':'query-version','id':2}{'execute':")
        .await;
    plain.stream.shutdown().await.unwrap();
    assert_eq!(plain.message().await["id"], 1);
    assert_eq!(plain.message().await["id"], 2);
    assert_eq!(plain.line().await, None);
    server.wait_for_sessions(0).await;
}

#[tokio::test]
async fn a_command_may_have_no_reply() {
    let server = TestServer::start();
    let mut plain = server.negotiated(false).await;
    plain.send("{'execute':'silent'}").await;
    assert_eq!(plain.call("{'execute':'query-version','id':1}").await["id"], 1);
}

#[tokio::test]
async fn unix_sockets_are_private_and_a_live_one_is_not_taken() {
    use qapi_runtime::{Listener, UnixOptions};
    let server = TestServer::start();
    let mode = std::fs::metadata(&server.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = Listener::unix(&server.path, UnixOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    // The probe did no harm.
    server.negotiated(false).await;

    let stale = server.folder().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let listener = Listener::unix(&stale, UnixOptions { mode: 0o660 }).unwrap();
    assert_eq!(
        std::fs::metadata(&stale).unwrap().permissions().mode() & 0o777,
        0o660
    );
    drop(listener);
    assert!(!stale.exists());

    let file = server.folder().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(Listener::unix(&file, UnixOptions::default()).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn tcp_and_passed_sockets() {
    use qapi_runtime::{ListenOptions, Listener};
    let server = TestServer::start();
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = bound.local_addr().unwrap();
    let passed = Listener::from_fd(bound.into()).unwrap();
    let serve = server.server.clone();
    tokio::spawn(async move { serve.serve(passed, ListenOptions::default()).await });
    let client = qapi_runtime::client::Client::connect(&format!("tcp:{address}"))
        .await
        .unwrap();
    assert_eq!(client.greeting().version, (1, 2, 3));
    client.execute("query-version", None).await.unwrap();
    let no_listener = std::fs::File::open("/dev/null").unwrap();
    assert!(Listener::from_fd(no_listener.into()).is_err());
}

#[tokio::test]
async fn the_audit_log_tells_all_but_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let server = TestServer::with(qapi_runtime::ServerLimits::default(), Some(&path));
    let mut plain = server.negotiated(false).await;
    plain
        .call("{'execute':'echo','arguments':{'qom-type':'secret','data':'hunter2','password':'hunter3','deep':{'key-secret':'s0'},'id':'x'}}")
        .await;
    plain.call("{'execute':'nope'}").await;
    plain.call("{'execute':'panic-now'}").await;
    plain
        .call("{'execute':'echo','arguments':{'property':'data','value':'hunter4','qom-type':'Secret','data':['hunter5']}}")
        .await;
    server.server.finish(Duration::from_secs(5)).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hunter"), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let commands: Vec<&str> = lines
        .iter()
        .map(|line| line["command"].as_str().unwrap())
        .collect();
    assert_eq!(
        commands,
        ["qmp_capabilities", "echo", "nope", "panic-now", "echo"]
    );
    let outcomes: Vec<&str> = lines
        .iter()
        .map(|line| line["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["ok", "ok", "error", "error", "ok"]);
    let uid = format!("uid={}", rustix::process::getuid().as_raw());
    assert!(lines[1]["peer"].as_str().unwrap().contains(&uid), "{}", lines[1]);
    assert_eq!(lines[1]["arguments"]["id"], "x");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn an_audit_log_that_was_moved_away_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let server = TestServer::with(qapi_runtime::ServerLimits::default(), Some(&path));
    let mut plain = server.negotiated(false).await;
    let lines = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().count()
    };
    let wait = async |path: &std::path::Path, wanted: usize| {
        for _ in 0..500 {
            if lines(path) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(lines(path), wanted);
    };
    plain.call("{'execute':'query-version'}").await;
    wait(&path, 2).await;
    let moved = folder.path().join("audit.1");
    std::fs::rename(&path, &moved).unwrap();
    plain.call("{'execute':'query-version'}").await;
    wait(&path, 1).await;
    assert_eq!(lines(&moved), 2);
    // Nothing can be written for a while; what is lost is counted.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    plain.call("{'execute':'query-version'}").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::fs::remove_dir(&path).unwrap();
    plain.call("{'execute':'query-version'}").await;
    wait(&path, 1).await;
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(line["dropped-lines"], 1);
}
