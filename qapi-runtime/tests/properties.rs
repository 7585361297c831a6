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

/// A list of objects that are alike, as far as the choices do not make them otherwise: without a member, with one twice or in
/// another spelling, with other blanks.
fn alike_objects() -> impl Strategy<Value = String> {
    let shape = prop::collection::vec((0..KEYS.len(), 0..9_u8), 1..7);
    let choices = prop::collection::vec(
        prop_oneof![12 => Just(255_u8), 1 => 0..14_u8, 1 => any::<u8>()],
        1..200,
    );
    (shape, choices, 1..12_usize, any::<bool>()).prop_map(|(shape, choices, count, spaced)| {
        let mut written = Alike {
            text: String::from("["),
            choices: choices.into_iter().cycle(),
            spaced,
        };
        for number in 0..count {
            if number > 0 {
                written.mark(",");
            }
            written.object(&shape, 2);
        }
        written.text + "]\n"
    })
}

/// Keys that are the start of each other, and about as long as what is looked at together.
const KEYS: [&str; 12] = [
    "",
    "a",
    "b",
    "ab",
    "abc",
    "fourteen-bytes",
    "fifteen-bytes-k",
    "sixteen-bytes-ke",
    "seventeen-bytes-k",
    "twenty-six-bytes-and-no-mo",
    "twenty-seven-bytes-and-more",
    "a-key-of-more-bytes-than-are-looked-at-together",
];

struct Alike<C> {
    text: String,
    choices: C,
    spaced: bool,
}

impl<C: Iterator<Item = u8>> Alike<C> {
    fn mark(&mut self, mark: &str) {
        self.text += mark;
        if self.spaced {
            self.text.push(' ');
        }
    }

    fn object(&mut self, shape: &[(usize, u8)], depth: usize) {
        self.text.push('{');
        let start = self.text.len();
        for (key, kind) in shape {
            let choice = self.choices.next().unwrap_or(255);
            let key = KEYS[*key];
            let spelt = match choice {
                0..4 => continue,
                4 => format!("'{key}'"),
                5 => format!("'{key}\"'"),
                6 => format!("\"\\u0061{key}\""),
                7 => format!("\"{key}\\\"\""),
                8 => format!("\"{key}é\""),
                9 => format!("\"{key}\"\""),
                14..40 => format!("\"{}\"", KEYS[usize::from(choice) % KEYS.len()]),
                _ => format!("\"{key}\""),
            };
            if self.text.len() > start {
                self.mark(",");
            }
            if choice == 250 {
                self.spaced = !self.spaced;
            }
            self.text += &spelt;
            self.mark(":");
            self.value(*kind, choice, shape, depth);
        }
        if let Some((key, _)) = shape.first()
            && self.text.len() > start
            && self.choices.next().is_some_and(|choice| choice < 2)
        {
            self.mark(",");
            self.text += &format!("\"{}\"", KEYS[*key]);
            self.mark(":");
            self.text += "0";
        }
        self.text.push('}');
    }

    fn value(&mut self, kind: u8, choice: u8, shape: &[(usize, u8)], depth: usize) {
        match kind {
            0 => self.text += "true",
            1 => self.text += if choice > 100 { "7" } else { "123456789012" },
            2 => self.text += if choice > 100 { "\"short\"" } else { "\"\"" },
            3 => {
                self.text += if choice > 100 {
                    "\"longer than what is looked at\""
                } else {
                    "\"a\\nb\""
                }
            }
            4 => self.text += if choice > 100 { "-12" } else { "1.5" },
            5 => self.text += if choice > 100 { "null" } else { "nul" },
            6 | 7 if depth > 0 => self.object(&shape[1..], depth - 1),
            _ if depth > 0 => {
                self.text.push('[');
                for number in 0..choice % 3 {
                    if number > 0 {
                        self.mark(",");
                    }
                    self.object(shape.split_at(shape.len() / 2).1, depth - 1);
                }
                self.text.push(']');
            }
            _ => self.text += "[]",
        }
    }
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

/// What the scanner makes of bytes that come in these pieces.
fn said(pieces: std::slice::Chunks<'_, u8>) -> Vec<Result<Value, String>> {
    let mut scanner = Scanner::default();
    let mut said = Vec::new();
    for piece in pieces {
        let mut input = piece;
        while let Some(outcome) = scanner.next(&mut input) {
            let value = outcome.map(|document| to_value(document.root().unwrap()));
            said.push(value.map_err(|error| error.to_string()));
        }
    }
    said
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
        prop_assert_eq!(said(bytes.chunks(bytes.len())), said(bytes.chunks(1)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Objects of a list are read by what those before them are.
    #[test]
    fn objects_are_read_as_those_before_them_only_where_they_are_alike(text in alike_objects(), place in 1..2000_usize) {
        let bytes = text.as_bytes();
        let expected = said(bytes.chunks(1));
        prop_assert_eq!(&said(bytes.chunks(bytes.len())), &expected);
        prop_assert_eq!(&said(bytes.chunks(place)), &expected);
    }
}
