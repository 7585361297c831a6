use super::*;
use crate::document::{Cursor, Token};

/// A value as text, to compare; doubles as Rust prints them.
fn show(value: Cursor<'_>) -> String {
    match value.token() {
        Token::Null => "null".into(),
        Token::Bool(value) => value.to_string(),
        Token::Int(value) => value.to_string(),
        Token::UInt(value) => format!("{value}u"),
        Token::Double(value) => format!("{value:?}d"),
        Token::String { .. } => format!("{:?}", value.as_str().unwrap()),
        Token::Array { .. } => format!("[{}]", value.elements().map(show).collect::<Vec<_>>().join(",")),
        Token::Object { .. } => {
            let members = value
                .members()
                .map(|(key, value)| format!("{key:?}:{}", show(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

/// Everything the scanner says of `pieces`.
fn scan_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut scanner = Scanner::default();
    let mut said = Vec::new();
    for piece in pieces {
        let mut input = piece;
        while let Some(outcome) = scanner.next(&mut input) {
            said.push(match outcome {
                Ok(document) => show(document.root().unwrap()),
                Err(error) => format!("! {error}"),
            });
        }
        assert!(input.is_empty());
    }
    said
}

fn scan(bytes: &[u8]) -> Vec<String> {
    let whole = scan_pieces(std::iter::once(bytes));
    assert_eq!(whole, scan_pieces(bytes.chunks(1)), "byte by byte: {bytes:?}");
    assert_eq!(whole, scan_pieces(bytes.chunks(3)), "in threes: {bytes:?}");
    whole
}

#[test]
fn values() {
    assert_eq!(
        scan(b"{\"a\": [1, -2, 3.5, true, false, null, {'b': 'c'}], 'd': {}}[]"),
        ["{\"a\":[1,-2,3.5d,true,false,null,{\"b\":\"c\"}],\"d\":{}}", "[]"]
    );
    assert_eq!(
        scan(b" \"x\"'y' 12 null{}"),
        ["\"x\"", "\"y\"", "12", "null", "{}"]
    );
    assert_eq!(scan(b"12"), [""; 0]);
    assert_eq!(scan(b" \r\n\t "), [""; 0]);
}

#[test]
fn numbers() {
    assert_eq!(
        scan(b"[9223372036854775807,9223372036854775808,18446744073709551615,18446744073709551616]"),
        ["[9223372036854775807,9223372036854775808u,18446744073709551615u,1.8446744073709552e19d]"]
    );
    assert_eq!(
        scan(b"[-9223372036854775808,-9223372036854775809,-0,-0.0,1e2,1E+2,2.5e-7]"),
        ["[-9223372036854775808,-9.223372036854776e18d,0,-0.0d,100.0d,100.0d,2.5e-7d]"]
    );
    assert_eq!(
        scan(b"1e400 {}"),
        ["! JSON parse error, number '1e400' is out of range", "{}"]
    );
}

/// Texts as `qemu-storage-daemon` says them, one error or several a line.
#[test]
fn mistakes() {
    let cases: &[(&[u8], &[&str])] = &[
        (b"{]\n", &["expecting value"]),
        (b"{\"execute\":}\n", &["expecting value"]),
        (b"{\"a\":1,}\n", &["expecting value"]),
        (b"[1,]\n", &["expecting value"]),
        (b"[1 2]\n", &["expected separator in list"]),
        (b"{\"a\":1 \"b\":2}", &["expected separator in dict"]),
        (b"{\"a\" 1}\n", &["missing : in object pair"]),
        (b"{1:2}\n", &["key is not a string in object"]),
        (b"{null:2}\n", &["key is not a string in object"]),
        (b"{[1]:2}\n", &["key is not a string in object"]),
        (b"foo\n", &["invalid keyword 'foo'"]),
        (b"TRUE\n", &["stray 'T'"]),
        (b"}\n", &["expecting value"]),
        (b",\n", &["expecting value"]),
        (b"{\"execute\":\"x\"]\n", &["expected separator in dict"]),
        (b"[}\n", &["expecting value"]),
        (
            b"[[}]]\n",
            &["expecting value", "expecting value", "expecting value"],
        ),
        (b"{\"a\":[}\n]}", &["expecting value", "expecting value"]),
        (b"01\n", &["stray '01'"]),
        (b"-01\n", &["stray '-01'"]),
        (b"1. \n", &["stray '1. '"]),
        (b"1e+ ", &["stray '1e+ '"]),
        (b"- 1\n", &["stray '- '"]),
        (b"-\n", &["stray '-\n'"]),
        (b"tru_e ", &["invalid keyword 'tru'", "stray '_'"]),
        (b"[%i]\n", &["stray '%'", "expecting value"]),
        (b"/* c */\n", &["stray '/'"]),
        (b"nul\\u006c\n", &["invalid keyword 'nul'", "stray '\\'"]),
        (b"\xff\xff\n", &["stray '\u{fffd}'", "stray '\u{fffd}'"]),
        (b"@@ab \xff\n", &["stray '@'", "stray '\u{fffd}'"]),
        (b"\0\n", &["stray ''"]),
        (b"'abc\n", &["stray ''abc\n'"]),
        (b"\"a\\\n", &["stray '\"a\\\n'"]),
        (b"{\"id\":\"a\tb\"}\n", &["stray '\"a\t'", "expecting value"]),
        (b"{\"a\":1,\"a\":2}", &["duplicate key"]),
        (b"{\"a\":1,\"\\u0061\":2}", &["duplicate key"]),
        (b"{\"a\":1,\"a\":}", &["expecting value"]),
        (b"\"\\q\"", &["invalid escape sequence in string"]),
        (b"\"\\u12\"", &["\\u12\" is not a valid Unicode character"]),
        (b"\"\\u12zz\"", &["\\u12zz is not a valid Unicode character"]),
        (b"\"x\\ud834\"", &["\\ud834 is not a valid Unicode character"]),
        (
            b"\"\\ud834\\u0041\"",
            &["\\ud834 is not a valid Unicode character"],
        ),
        (b"\"\\ufdd0\"", &["\\ufdd0 is not a valid Unicode character"]),
        (b"\"\xed\xa0\x80\"", &["invalid UTF-8 sequence in string"]),
        (b"\"\xef\xbf\xbe\"", &["invalid UTF-8 sequence in string"]),
        (b"\"\xe2\x82\"", &["invalid UTF-8 sequence in string"]),
        (b"\"\xc0\xaf\"", &["invalid UTF-8 sequence in string"]),
    ];
    for (input, expected) in cases {
        let expected: Vec<String> = expected
            .iter()
            .map(|text| format!("! JSON parse error, {text}"))
            .collect();
        assert_eq!(scan(input), expected, "{:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn strings() {
    assert_eq!(
        scan(br#""\"\'\\\/\b\f\n\r\t\u0041\ud83d\ude00""#),
        [format!("{:?}", "\"'\\/\u{8}\u{c}\n\r\tA😀")]
    );
    assert_eq!(scan("'é € 😀 \"'".as_bytes()), [format!("{:?}", "é € 😀 \"")]);
    assert_eq!(
        scan(b"\"a\xc0\x80b\\u0000\x7f\""),
        [format!("{:?}", "a\0b\0\x7f")]
    );
}

#[test]
fn a_good_message_right_behind_a_bad_byte_is_read() {
    assert_eq!(
        scan(b"{\"bad\": \xff{\"x\": 1}"),
        ["! JSON parse error, stray '\u{fffd}'", "{\"x\":1}"]
    );
    assert_eq!(scan(b"{}\xff\n"), ["{}", "! JSON parse error, stray '\u{fffd}'"]);
}

#[test]
fn nesting_limit() {
    let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(scan(&deep(1024)).len(), 1);
    assert!(scan(&deep(1024))[0].starts_with('['));
    assert_eq!(scan(&[b'['; 1025]), ["! JSON nesting depth limit exceeded"]);
}

#[test]
fn size_and_token_limits() {
    let limits = Limits {
        message_bytes: 10,
        tokens: 6,
        depth: 4,
    };
    let mut scanner = Scanner::new(limits);
    let mut said = |mut input: &[u8]| scanner.next(&mut input).map(|outcome| outcome.map(|_| ()));
    assert_eq!(said(b"\"12345678\""), Some(Ok(())));
    assert_eq!(said(b"\"123456789\""), Some(Err(SyntaxError::Size)));
    assert_eq!(said(b"[1,2]\n"), Some(Ok(())));
    assert_eq!(said(b"[1,2,3]\n"), Some(Err(SyntaxError::Tokens)));
    assert_eq!(said(b"\xff"), Some(Err(SyntaxError::Stray("\u{fffd}".into()))));
    // A string that never ends is refused before its end.
    assert_eq!(said(b"{\"12345678901"), Some(Err(SyntaxError::Size)));
}

#[test]
fn large_objects_have_no_duplicates_either() {
    let members: Vec<String> = (0..5000).map(|n| format!("\"key{n}\": {n}")).collect();
    let text = format!("{{{}}}", members.join(","));
    assert!(scan_pieces(std::iter::once(text.as_bytes()))[0].starts_with('{'));
    let text = format!("{{{}, \"key1234\": 0}}", members.join(","));
    assert_eq!(
        scan_pieces(std::iter::once(text.as_bytes())),
        ["! JSON parse error, duplicate key"]
    );
}
