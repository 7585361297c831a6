//! Many clients that come, work, listen and go: no reply lost or mixed up, and memory stays as it is.
//!
//! Two seconds and twenty clients by default; `QAPI_SOAK_SECONDS` and `QAPI_SOAK_CLIENTS` for more.
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

use serde_json::json;
use std::time::{Duration, Instant};
use support::{TestServer, Tick};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// How often memory is looked at.
const SAMPLES: u64 = 20;

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// One client after the other, until the end.
async fn churn(server: std::sync::Arc<TestServer>, number: u64, end: Instant) -> u64 {
    let mut random = Random(number + 1);
    let mut calls = 0;
    while Instant::now() < end {
        let mut client = server.negotiated(random.below(2) == 0).await;
        for _ in 0..random.below(30) {
            let burst = 1 + random.below(20);
            let mut text = String::new();
            for at in 0..burst {
                let id = format!("{number}-{calls}-{at}");
                text.push_str(&match random.below(5) {
                    0 => format!("{{'execute':'query-version','id':'{id}'}}"),
                    1 => format!(
                        "{{'execute':'sleep','arguments':{{'ms':{}}},'id':'{id}'}}",
                        random.below(3)
                    ),
                    2 => format!("{{'execute':'nope','id':'{id}'}}"),
                    3 => format!(
                        "{{'execute':'big','arguments':{{'bytes':{}}},'id':'{id}'}}",
                        random.below(5000)
                    ),
                    _ => format!("{{'execute':'echo','arguments':{{'x':'{id}'}},'id':'{id}'}}"),
                });
            }
            client.send(&text).await;
            if random.below(25) == 0 {
                // Leaves without its replies.
                break;
            }
            for at in 0..burst {
                let id = json!(format!("{number}-{calls}-{at}"));
                loop {
                    let message = client.message().await;
                    if message.get("event").is_none() {
                        assert_eq!(message["id"], id);
                        if let Some(x) = message["return"].get("x") {
                            assert_eq!(*x, id);
                        }
                        break;
                    }
                }
            }
            calls += burst;
            if random.below(4) == 0 {
                // Each client has read all that came before its last reply, so however slow the machine is, no
                // client can fall far behind: a backlog would be the server's.
                server.handler.hub.emit(&Tick {
                    number: calls.cast_signed(),
                    ballast: 100,
                });
            }
        }
    }
    calls
}

#[tokio::test]
async fn soak() {
    let seconds = setting("QAPI_SOAK_SECONDS", 2);
    let clients = setting("QAPI_SOAK_CLIENTS", 20);
    let server = std::sync::Arc::new(TestServer::start());
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let hub = std::sync::Arc::clone(&server.handler.hub);
    let events = std::thread::spawn(move || {
        let mut number = 0;
        while Instant::now() < end {
            hub.emit(&Tick { number, ballast: 100 });
            number += 1;
            // From another thread, and not so many that a slow machine drowns in them.
            std::thread::sleep(Duration::from_millis(20));
        }
        number
    });
    let watching = tokio::spawn(async move {
        let pause = Duration::from_millis(seconds * 1000 / SAMPLES);
        for sample in 1..=SAMPLES {
            tokio::time::sleep(pause).await;
            println!(
                "after {:?}: {} KiB in memory",
                pause * u32::try_from(sample).unwrap_or(u32::MAX),
                resident_bytes() / 1024
            );
        }
    });
    let tasks: Vec<_> = (0..clients)
        .map(|number| tokio::spawn(churn(std::sync::Arc::clone(&server), number, end)))
        .collect();
    // What is in use once everything has been in use.
    tokio::time::sleep(Duration::from_millis(seconds * 1000 / 4)).await;
    let early = resident_bytes();
    let mut calls = 0;
    for task in tasks {
        calls += task.await.unwrap();
    }
    let events = events.join().unwrap();
    watching.await.unwrap();
    server.wait_for_sessions(0).await;
    let grown = resident_bytes().saturating_sub(early);
    println!(
        "{calls} calls and {events} events in {:?}, grown by {grown} bytes",
        begun.elapsed()
    );
    assert!(calls > 0);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
}
