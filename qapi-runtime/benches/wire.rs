//! What a request costs: scanning it, and the whole way through a session.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test ends by failing, and is no page for users"
)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use qapi_runtime::scanner::Scanner;
use qapi_runtime::{
    Call, CommandTable, Cursor, Error, ListenOptions, Peer, Pending, Reply, Row, Server, text,
};
use std::hint::black_box;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: &str = r#"{"execute": "query-version", "id": 12}"#;

fn transaction() -> String {
    let action = |n: usize| {
        format!(
            r#"{{"type": "block-dirty-bitmap-add", "data": {{"node": "drive{n}", "name": "b{n}", "granularity": 65536, "persistent": false}}}}"#
        )
    };
    let actions: Vec<String> = (0..20).map(action).collect();
    format!(
        r#"{{"execute": "transaction", "arguments": {{"actions": [{}]}}, "id": "t"}}"#,
        actions.join(", ")
    )
}

fn scanner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scanner");
    let long = format!(
        r#"{{"execute": "x", "id": "{}"}}"#,
        "0123456789abcdef".repeat(4096)
    );
    let escapes = format!(r#"{{"execute": "x", "id": "{}"}}"#, "\\u00e9é\\n".repeat(4096));
    let numbers = format!("[{}]", "12345, -1.5e3, ".repeat(4096) + "0");
    // What needs decoding is left to the slower way token by token, however much is open around it.
    let deep = format!(
        "{}{}0{}",
        "[".repeat(1000),
        "\"\\n\", ".repeat(4096),
        "]".repeat(1000)
    );
    let cases = [
        ("deep", deep),
        ("short", SHORT.to_owned()),
        ("transaction", transaction()),
        ("string", long),
        ("escapes", escapes),
        ("numbers", numbers),
    ];
    for (name, text) in &cases {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |bencher| {
            let mut scanner = Scanner::default();
            bencher.iter(|| {
                let mut input = black_box(text.as_bytes());
                black_box(scanner.next(&mut input).is_some_and(|outcome| outcome.is_ok()))
            });
        });
    }
    group.bench_function("serde_json transaction, to compare", |bencher| {
        let text = transaction();
        bencher.iter(|| {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(text.as_bytes())).is_ok())
        });
    });
    group.finish();
}

fn version(_: &Arc<()>, _: Call, _: Option<Cursor<'_>>) -> Result<Pending, Error> {
    Ok(Box::pin(async {
        Ok(Reply::Encoded(
            br#"{"qemu": {"micro": 0, "minor": 2, "major": 10}, "package": ""}"#.to_vec(),
        ))
    }))
}

/// A hundred requests through a session, in memory.
fn session(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let table: CommandTable<()> = [Row::new("query-version", version)].into_iter().collect();
    let server = Server::builder(table, Arc::new(())).build();
    let mut group = criterion.benchmark_group("session");
    for (name, request) in [
        ("query-version", SHORT),
        ("unknown", r#"{"execute": "nope"}"#),
        ("malformed", "{]"),
    ] {
        group.throughput(Throughput::Elements(100));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || format!("{{'execute':'qmp_capabilities'}}{}", request.repeat(100)),
                |script| {
                    runtime.block_on(async {
                        let (near, far) = tokio::io::duplex(1 << 20);
                        let session = server.attach(far, Peer::Stdio, ListenOptions::default());
                        let (mut reader, mut writer) = tokio::io::split(near);
                        let mut said = Vec::new();
                        let talk = async {
                            writer.write_all(script.as_bytes()).await.unwrap();
                            writer.shutdown().await.unwrap();
                        };
                        let ((), (), read) = tokio::join!(talk, session, reader.read_to_end(&mut said));
                        black_box(read.unwrap())
                    })
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("text");
    let plain = "a plain text without anything special in it, as most are".repeat(8);
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("string", |bencher| {
        let mut out = Vec::with_capacity(4096);
        bencher.iter(|| {
            out.clear();
            text::write_string(&mut out, black_box(&plain));
            black_box(out.len())
        });
    });
    group.bench_function("double", |bencher| {
        let mut out = Vec::with_capacity(64);
        bencher.iter(|| {
            out.clear();
            text::write_double(&mut out, black_box(0.1));
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(benches, scanner, session, writing);
criterion_main!(benches);
