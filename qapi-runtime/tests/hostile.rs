//! Clients that misbehave: nobody else notices, and memory stays bounded.
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

use qapi_runtime::ServerLimits;
use qapi_runtime::scanner::Limits;
use serde_json::json;
use std::time::{Duration, Instant};
use support::{TestServer, Tick};
use tokio::io::AsyncWriteExt;

/// Bytes of memory that this process has in use.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A client answers within a second.
async fn well(client: &mut support::Plain) {
    let begun = Instant::now();
    assert_eq!(
        client.call("{'execute':'query-version','id':'well'}").await["id"],
        "well"
    );
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_never_reads_is_not_served_beyond_its_bound() {
    let server = TestServer::start();
    let mut good = server.negotiated(false).await;
    let before = resident_bytes();
    let mut bad = server.negotiated(false).await;
    let flood = "{'execute':'query-qmp-schema'}".repeat(2000);
    // The server stops reading, so the write cannot end.
    let write = tokio::time::timeout(Duration::from_secs(1), async {
        for _ in 0..1000 {
            bad.send(&flood).await;
        }
    });
    assert!(
        write.await.is_err(),
        "the server took 2 million requests of a client that reads nothing"
    );
    well(&mut good).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "grown by {grown} bytes");
    // It reads after all: every reply is there, whole and in order.
    for _ in 0..200 {
        assert_eq!(bad.message().await["return"].as_array().unwrap().len(), 2000);
    }
    drop(bad);
    server.wait_for_sessions(1).await;
    well(&mut good).await;
}

#[tokio::test]
async fn a_client_that_lets_events_pile_up_is_given_up() {
    let limits = ServerLimits {
        event_backlog_bytes: 1 << 20,
        ..ServerLimits::default()
    };
    let server = TestServer::with_limits(limits);
    let mut good = server.negotiated(false).await;
    let mut bad = server.negotiated(false).await;
    for round in 0..100 {
        for number in 0..10 {
            server.handler.hub.emit(&Tick {
                number: round * 10 + number,
                ballast: 4000,
            });
        }
        for number in 0..10 {
            assert_eq!(good.message().await["data"]["number"], round * 10 + number);
        }
    }
    server.wait_for_sessions(1).await;
    well(&mut good).await;
    // What it gets is a run without a gap, then the end.
    let mut next = 0;
    while let Some(line) = bad.stream_line().await {
        let event: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(event["data"]["number"], next);
        next += 1;
    }
    assert!(next > 0 && next < 1000, "{next}");
}

impl support::Plain {
    /// A whole line; `None` at the end, even in the middle of a line.
    async fn stream_line(&mut self) -> Option<Vec<u8>> {
        use tokio::io::AsyncReadExt;
        loop {
            if let Some(at) = self.buffer.iter().position(|&byte| byte == b'\n') {
                return Some(self.buffer.drain(..=at).collect());
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// A server is known to hand what it owes one client to the next: here nobody gets another's reply.
#[tokio::test]
async fn replies_never_leak_to_the_next_client() {
    let server = TestServer::start();
    for round in 0..200 {
        let mut gone = server.negotiated(false).await;
        gone.send("{'execute':'query-qmp-schema','id':'mine'}".repeat(1 + round % 3))
            .await;
        drop(gone);
        let mut next = server.connect().await;
        let reply = next.call("{'execute':'qmp_capabilities','id':'own'}").await;
        assert_eq!(reply, json!({"return": {}, "id": "own"}));
        assert_eq!(next.call("{'execute':'query-version','id':7}").await["id"], 7);
    }
}

#[tokio::test]
async fn disconnecting_anywhere_harms_nobody() {
    let server = TestServer::start();
    let mut good = server.negotiated(false).await;
    let script = "{'execute':'qmp_capabilities'}{'execute':'query-qmp-schema','id':\"é\"}{'execute':'sleep','arguments':{'ms':5}}";
    for cut in 0..script.len() {
        let mut bad = server.connect().await;
        bad.send(&script.as_bytes()[..cut]).await;
        if cut % 3 == 0 {
            // Leaves in the middle of what it is sent.
            let mut some = [0; 100];
            let _ = bad.stream.try_read(&mut some);
        }
        drop(bad);
    }
    well(&mut good).await;
    server.wait_for_sessions(1).await;
}

#[tokio::test]
async fn a_command_runs_to_its_end_when_its_client_is_gone() {
    let server = TestServer::start();
    let mut bad = server.negotiated(false).await;
    bad.send("{'execute':'gate'}").await;
    bad.silent().await;
    drop(bad);
    server.handler.gate.add_permits(1);
    server.wait_for_sessions(0).await;
    assert_eq!(
        server.handler.finished.load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn a_byte_at_a_time_is_as_good_as_all_at_once() {
    let server = TestServer::start();
    let mut good = server.negotiated(false).await;
    let mut slow = server.negotiated(false).await;
    for byte in b"{'execute': 'echo', 'arguments': {'a': [1.5, \"\\u00e9\"]}, 'id': 12}" {
        slow.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    well(&mut good).await;
    assert_eq!(
        slow.message().await,
        json!({"return": {"a": [1.5, "é"]}, "id": 12})
    );
}

#[tokio::test]
async fn a_thousand_connections() {
    let server = TestServer::start();
    // Both ends are in this process.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let clients = usize::try_from(files.current.unwrap_or(u64::MAX) / 2)
        .unwrap()
        .saturating_sub(50)
        .min(1000);
    let mut good = server.negotiated(false).await;
    let before = resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..clients {
        idle.push(server.negotiated(false).await);
    }
    well(&mut good).await;
    let each = resident_bytes().saturating_sub(before) / clients.max(1);
    assert!(each < 24 << 10, "{each} bytes a connection (both ends)");
    server.handler.hub.emit(&Tick {
        number: 1,
        ballast: 0,
    });
    for client in &mut idle {
        assert_eq!(client.message().await["event"], "TICK");
    }
    drop(idle);
    server.wait_for_sessions(1).await;
}

#[tokio::test]
async fn too_many_clients_are_turned_away() {
    let server = TestServer::with_limits(ServerLimits {
        clients: 3,
        ..ServerLimits::default()
    });
    let mut three = Vec::new();
    for _ in 0..3 {
        three.push(server.negotiated(false).await);
    }
    let mut fourth = support::Plain {
        stream: tokio::net::UnixStream::connect(&server.path).await.unwrap(),
        buffer: Vec::new(),
    };
    assert_eq!(fourth.line().await, None);
    well(&mut three[2]).await;
    three.pop();
    server.wait_for_sessions(2).await;
    server.negotiated(false).await;
}

#[tokio::test]
async fn messages_are_bounded_in_size_tokens_and_depth() {
    let message = Limits {
        message_bytes: 100_000,
        tokens: 1000,
        depth: 50,
    };
    let server = TestServer::with_limits(ServerLimits {
        message,
        ..ServerLimits::default()
    });
    let mut plain = server.negotiated(false).await;
    let cases = [
        (
            format!("{{'execute': '{}", "x".repeat(200_000)),
            "JSON token size limit exceeded",
        ),
        (
            format!("[{}", "1,".repeat(1000)),
            "JSON token count limit exceeded",
        ),
        ("[".repeat(51), "JSON nesting depth limit exceeded"),
    ];
    for (text, desc) in cases {
        plain.send(&text).await;
        assert_eq!(plain.message().await["error"]["desc"], desc);
        // A byte that no text has begins anew, whatever was before it.
        plain.send(b"\xff\n{'execute':'query-version','id':'mark'}").await;
        loop {
            let message = plain.message().await;
            if message["id"] == "mark" {
                break;
            }
            assert_eq!(message["error"]["class"], "GenericError");
        }
    }
}

#[tokio::test]
async fn unfinished_messages_of_all_clients_together_are_bounded() {
    let limits = ServerLimits {
        total_input_bytes: 4 << 20,
        assured_input_bytes: 64 << 10,
        ..ServerLimits::default()
    };
    let server = TestServer::with_limits(limits);
    let mut good = server.negotiated(false).await;
    let before = resident_bytes();
    let mut hoarders = Vec::new();
    for _ in 0..20 {
        let mut hoarder = server.negotiated(false).await;
        hoarder
            .send(format!("{{'execute': '{}", "x".repeat(1 << 20)))
            .await;
        hoarders.push(hoarder);
    }
    well(&mut good).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 20 << 20, "grown by {grown} bytes");
    let mut refused = 0;
    for hoarder in &mut hoarders {
        hoarder.stream.shutdown().await.unwrap();
        while let Some(line) = hoarder.line().await {
            let reply: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(reply["error"]["desc"], "JSON token size limit exceeded");
            refused += 1;
        }
    }
    assert!(refused >= 15, "{refused}");
    // A small message is taken even while the total is used up.
    well(&mut good).await;
}

/// One client's flood, of any kind, delays another's command by a turn and not by the flood.
#[tokio::test]
async fn a_flood_delays_others_by_a_turn_only() {
    let server = TestServer::start();
    for flood in [
        "{'execute':'query-qmp-schema'}",
        "{'execute':'nope'}",
        "{]",
        "@ ",
        "{'execute':'big','arguments':{'bytes':10000}}",
    ] {
        let mut good = server.negotiated(false).await;
        let bad = server.negotiated(false).await;
        let (mut reader, mut writer) = bad.stream.into_split();
        let text = flood.repeat(1000);
        let write = tokio::spawn(async move { while writer.write_all(text.as_bytes()).await.is_ok() {} });
        let read = tokio::spawn(async move {
            use tokio::io::AsyncReadExt;
            let mut buffer = vec![0; 1 << 16];
            while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
        let mut slowest = Duration::ZERO;
        for id in 0..100 {
            let begun = Instant::now();
            assert_eq!(
                good.call(&format!("{{'execute':'query-version','id':{id}}}"))
                    .await["id"],
                id
            );
            slowest = slowest.max(begun.elapsed());
        }
        assert!(slowest < Duration::from_millis(500), "{flood}: {slowest:?}");
        write.abort();
        read.abort();
    }
}

#[tokio::test]
async fn unsent_output_of_all_clients_together_is_bounded() {
    let limits = ServerLimits {
        total_unsent_bytes: 8 << 20,
        ..ServerLimits::default()
    };
    let server = TestServer::with_limits(limits);
    let mut good = server.negotiated(false).await;
    let before = resident_bytes();
    // A short request with a long reply, from many who never read.
    let mut deaf = Vec::new();
    for _ in 0..30 {
        let mut client = server.negotiated(false).await;
        client
            .send("{'execute':'big','arguments':{'bytes':1000000}}".repeat(3))
            .await;
        deaf.push(client);
        well(&mut good).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 40 << 20, "grown by {grown} bytes");
    assert!(server.server.sessions() < 20, "{}", server.server.sessions());
    drop(deaf);
    server.wait_for_sessions(1).await;
    // Everything is given back: a long reply to one who reads is fine.
    for _ in 0..20 {
        let reply = good.call("{'execute':'big','arguments':{'bytes':1000000}}").await;
        assert_eq!(reply["return"].as_str().map(str::len), Some(1_000_000));
    }
}

#[tokio::test]
async fn waiting_requests_are_bounded_in_bytes() {
    let server = TestServer::start();
    let mut plain = server.negotiated(true).await;
    plain.send("{'execute':'gate','id':0}").await;
    let before = resident_bytes();
    let request = format!(
        "{{'execute':'echo','arguments':{{'x':'{}'}}}}",
        "y".repeat(600_000)
    );
    let write = tokio::time::timeout(Duration::from_millis(500), async {
        for _ in 0..8 {
            plain.send(&request).await;
        }
    });
    assert!(write.await.is_err(), "eight long requests wait, and all are read");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "grown by {grown} bytes");
    server.handler.gate.add_permits(1);
    assert_eq!(plain.message().await, json!({"return": {}, "id": 0}));
}
