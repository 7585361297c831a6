//! What holds for all input: cutting it differently changes nothing, and JSON is read as others read it.
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

use proptest::prelude::*;
use qapi_runtime::document::{Cursor, Token};
use qapi_runtime::scanner::Scanner;
use qapi_runtime::text;
use serde_json::Value;
use support::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A script of good, bad and odd messages.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let fixed: Vec<&'static [u8]> = vec![
        b"{'execute':'query-version','id':1}",
        b"{\"execute\": \"echo\", \"arguments\": {\"a\": [1, -2.5e3, \"\\ud83d\\ude00\", {\"b\": null}]}, \"id\": \"x\"}",
        b"{'execute':'nope'}",
        b"{'execute':'query-commands'}",
        b"{'execute':'sleep','arguments':{'ms':1}}",
        b"{]",
        b"[1 2]",
        b"{'a':1,'a':2}",
        b"@#garbage\n",
        b"\xff",
        b"\"\x01",
        b"0x10 ",
        b"truX ",
        b" \r\n\t",
        b"\"\xc3\xa9\"",
        b"'\xc3'",
        b"{'execute':'echo','arguments':{'t':'it\\'s'}}\n",
        b"12 ",
        b"[[[",
        b"]]]",
    ];
    let bytes = prop::collection::vec(any::<u8>(), 0..6);
    prop_oneof![
        12 => prop::sample::select(fixed).prop_map(<[u8]>::to_vec),
        1 => bytes,
    ]
}

/// Everything the server says to `script` sent in pieces of these sizes.
fn replies(script: &[u8], pieces: &[usize]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = TestServer::start();
        let mut plain = server.negotiated(false).await;
        let mut rest = script;
        let mut sizes = pieces.iter().cycle();
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
            let (piece, after) = rest.split_at(size);
            plain.send(piece).await;
            if !pieces.is_empty() {
                tokio::task::yield_now().await;
            }
            rest = after;
        }
        plain.stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        plain.stream.read_to_end(&mut said).await.unwrap();
        said
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_replies(
        script in prop::collection::vec(fragment(), 1..12),
        pieces in prop::collection::vec(1..40_usize, 1..8),
    ) {
        let script = script.concat();
        let whole = replies(&script, &[]);
        let split = replies(&script, &pieces);
        prop_assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&split));
        prop_assert!(whole.is_ascii());
        for line in whole.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let parsed = serde_json::from_slice::<Value>(line);
            prop_assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(line));
        }
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has none", |value| value.is_finite())
            .prop_map(Value::from),
        "\\PC*".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((".*", inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn has_noncharacter(text: &str) -> bool {
    text.chars().any(|character| {
        let code = u32::from(character);
        (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
    })
}

fn to_value(cursor: Cursor<'_>) -> Value {
    match cursor.token() {
        Token::Null => Value::Null,
        Token::Bool(value) => value.into(),
        Token::Int(value) => value.into(),
        Token::UInt(value) => value.into(),
        Token::Double(value) => value.into(),
        Token::String { .. } => cursor.as_str().unwrap().into(),
        Token::Array { .. } => cursor.elements().map(to_value).collect(),
        Token::Object { .. } => Value::Object(
            cursor
                .members()
                .map(|(key, value)| (key.into(), to_value(value)))
                .collect(),
        ),
    }
}

/// Whether two values are the same, but that a double without a fraction is written without a point and so read as an integer.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) if one.is_f64() || two.is_f64() => {
            one.as_f64() == two.as_f64()
        }
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one
                    .iter()
                    .zip(two)
                    .all(|((key, one), (other, two))| key == other && same(one, two))
        }
        _ => one == two,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_json_is_read_as_serde_json_reads_it(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        // Our dialect refuses characters that Unicode promises never to assign.
        prop_assume!(!has_noncharacter(&text));
        let mut scanner = Scanner::default();
        // A number ends with what follows it.
        let bytes = format!("{text}\n");
        let mut input = bytes.as_bytes();
        let document = scanner.next(&mut input).unwrap().unwrap();
        let read = to_value(document.root().unwrap());
        let expected = serde_json::from_str::<Value>(&text).unwrap();
        prop_assert!(same(&read, &expected), "{} {}", read, expected);
        // And what we write, others read.
        let mut written = Vec::new();
        text::write_value(&mut written, document.root().unwrap());
        prop_assert!(written.is_ascii());
        let again = serde_json::from_slice::<Value>(&written).unwrap();
        prop_assert!(same(&read, &again), "{} {}", read, again);
    }

    #[test]
    fn no_bytes_make_the_scanner_stumble(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0..400_usize) {
        let say = |pieces: &[&[u8]]| {
            let mut scanner = Scanner::default();
            let mut said = Vec::new();
            for piece in pieces {
                let mut input = *piece;
                while let Some(outcome) = scanner.next(&mut input) {
                    said.push(match outcome {
                        Ok(document) => {
                            let mut text = Vec::new();
                            text::write_value(&mut text, document.root().unwrap());
                            String::from_utf8(text).unwrap()
                        }
                        Err(error) => error.to_string(),
                    });
                }
            }
            said
        };
        let (one, two) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(say(&[&bytes]), say(&[one, two]));
    }

    /// Bytes that come one by one are never seen as a whole token; nearly good JSON reads the same either way.
    #[test]
    fn whole_tokens_are_read_as_pieces_are(value in json(), place in any::<prop::sample::Index>(), byte in any::<u8>(), spoil in any::<bool>()) {
        let mut bytes = format!("{}\n", serde_json::to_string(&value).unwrap()).into_bytes();
        if spoil {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let say = |pieces: std::slice::Chunks<'_, u8>| {
            let mut scanner = Scanner::default();
            let mut said = Vec::new();
            for piece in pieces {
                let mut input = piece;
                while let Some(outcome) = scanner.next(&mut input) {
                    said.push(outcome.map(|document| to_value(document.root().unwrap())).map_err(|error| error.to_string()));
                }
            }
            said
        };
        prop_assert_eq!(say(bytes.chunks(bytes.len())), say(bytes.chunks(1)));
    }
}
