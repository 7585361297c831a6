//! Reads and writes values of the generated types, as a server, as a client and as a client that keeps everything.

use generated::{client, keeping, server};
use qapi_runtime::scanner::Scanner;
use qapi_runtime::{Decode, Encode, Writer};

/// What a type makes of a text: the text that it writes, or what is wrong.
fn read<T: Decode + Encode + Clone + PartialEq>(json: &str) -> Result<String, String> {
    let text = format!("{json}\n");
    let mut input = text.as_bytes();
    let mut scanner = Scanner::default();
    let document = scanner.next(&mut input).expect("whole").expect("JSON");
    let value = T::decode(document.root().expect("a value")).map_err(|error| error.to_string())?;
    assert!(value.clone() == value);
    let mut out = Writer::default();
    value.encode(&mut out);
    Ok(String::from_utf8(out.into_bytes()).expect("UTF-8"))
}

fn same<T: Decode + Encode + Clone + PartialEq>(json: &str) {
    assert_eq!(read::<T>(json).as_deref(), Ok(json));
}

fn becomes<T: Decode + Encode + Clone + PartialEq>(json: &str, other: &str) {
    assert_eq!(read::<T>(json).as_deref(), Ok(other), "{json}");
}

fn wrong<T: Decode + Encode + Clone + PartialEq>(json: &str, text: &str) {
    assert_eq!(read::<T>(json), Err(text.to_owned()), "{json}");
}

fn main() {
    numbers();
    paths();
    unions();
    alternates();
    clients();
    keepers();
    println!("as it should be");
}

fn numbers() {
    use server::Sized;
    let with = |members: &str| format!(r#"{{"name": "a", "colour": "red", {members}}}"#);
    same::<Sized>(&with(
        r#""i8": -128, "u16": 65535, "i64": -9223372036854775808, "u64": 18446744073709551615, "size": 0, "ratio": 0.5"#,
    ));
    becomes::<Sized>(
        &with(r#""u16": 0, "i8": 127, "u64": -1, "ratio": 3"#),
        &with(r#""i8": 127, "u16": 0, "u64": 18446744073709551615, "ratio": 3"#),
    );
    for (members, text) in [
        (r#""i8": 128, "u16": 0"#, "Parameter 'i8' expects int8_t"),
        (r#""i8": 0, "u16": -1"#, "Parameter 'u16' expects uint16_t"),
        (
            r#""i8": 1.0, "u16": 0"#,
            "Invalid parameter type for 'i8', expected: integer",
        ),
        (r#""i8": 0, "u16": "0""#, "Parameter 'u16' expects uint64"),
        (
            r#""i8": 0, "u16": 0, "i64": 9223372036854775808"#,
            "Invalid parameter type for 'i64', expected: integer",
        ),
        (
            r#""i8": 0, "u16": 0, "u64": 18446744073709551616"#,
            "Parameter 'u64' expects uint64",
        ),
        (
            r#""i8": 0, "u16": 0, "ratio": true"#,
            "Invalid parameter type for 'ratio', expected: number",
        ),
        (
            r#""i8": 0, "u16": 0, "old": null"#,
            "Invalid parameter type for 'old', expected: boolean",
        ),
        (
            r#""i8": 0, "u16": 0, "never": "a""#,
            "Parameter 'never' is unexpected",
        ),
        (r#""u16": 0, "x": 0"#, "Parameter 'i8' is missing"),
    ] {
        wrong::<Sized>(&with(members), text);
        if !text.ends_with("unexpected") {
            wrong::<client::Sized>(&with(members), text);
        }
    }
}

fn paths() {
    use server::MeasureArguments as Arguments;
    let with = |shape: &str| format!(r#"{{"shapes": [{{"name": "a", "colour": "infra-red"}}, {shape}]}}"#);
    same::<Arguments>(&with(
        r#"{"name": "b", "note": "", "colour": "red", "kind": "leaf", "length": 255}"#,
    ));
    for (shape, text) in [
        ("1", "Invalid parameter type for 'shapes[1]', expected: object"),
        (r#"{"name": "b"}"#, "Parameter 'shapes[1].colour' is missing"),
        (
            r#"{"name": "b", "colour": "blue"}"#,
            "Parameter 'colour' does not accept value 'blue'",
        ),
        (
            r#"{"name": "b", "colour": "gone"}"#,
            "Parameter 'colour' does not accept value 'gone'",
        ),
        (
            r#"{"name": "b", "colour": "2-tone"}"#,
            "Parameter 'colour' does not accept value '2-tone'",
        ),
        (
            r#"{"name": "b", "colour": "red", "kind": "leaf", "length": "1"}"#,
            "Parameter 'shapes[1].length' expects uint64",
        ),
        (
            r#"{"name": "b", "colour": "red", "kind": "fork", "left": [{"kind": "leaf", "length": null}]}"#,
            "Parameter 'shapes[1].left[0].length' expects uint64",
        ),
        (
            r#"{"name": "b", "colour": "red", "kind": "fork", "left": [true]}"#,
            "Invalid parameter type for 'null', expected: Choice",
        ),
        (
            r#"{"name": "b", "colour": "red", "kind": "none", "x": 1}"#,
            "Parameter 'shapes[1].x' is unexpected",
        ),
    ] {
        wrong::<Arguments>(&with(shape), text);
    }
}

fn unions() {
    // Members come in any order and go in the schema's.
    becomes::<server::Shape>(
        r#"{"length": 1, "kind": "leaf", "colour": "red", "name": "a"}"#,
        r#"{"name": "a", "colour": "red", "kind": "leaf", "length": 1}"#,
    );
    // What the base has is told before what the branch lacks.
    wrong::<server::Shape>(
        r#"{"colour": "red", "kind": "leaf"}"#,
        "Parameter 'name' is missing",
    );
    wrong::<server::Shape>(r#"{"colour": "red", "name": "a"}"#, "Parameter 'kind' is missing");
    wrong::<server::Endless>(
        r#"{"next": {"next": {}}}"#,
        "Parameter 'next.next.next' is missing",
    );
}

fn alternates() {
    for json in [
        r#"-1"#,
        r#""fork""#,
        r#"[null, [], "none"]"#,
        r#"{"kind": "none"}"#,
        "null",
    ] {
        same::<server::Choice>(json);
        same::<client::Choice>(json);
    }
    wrong::<server::Choice>("true", "Invalid parameter type for 'null', expected: Choice");
    wrong::<server::Choice>("32768", "Parameter 'null' expects int16_t");
    wrong::<server::Choice>(r#""branch""#, "Parameter 'null' does not accept value 'branch'");
    same::<client::Choice>("true");
    same::<client::Choice>(r#""branch""#);
}

fn clients() {
    becomes::<client::Shape>(
        r#"{"name": "a", "x": [1], "colour": "blue", "y": 2}"#,
        r#"{"name": "a", "colour": "blue"}"#,
    );
    becomes::<client::Leaf>(r#"{"kind": "none", "x": 1}"#, r#"{"kind": "none"}"#);
    // Lists that are not there are empty, other members are missed.
    becomes::<client::MeasureArguments>("{}", r#"{"shapes": []}"#);
    wrong::<client::Leaf>("{}", "Parameter 'kind' is missing");
}

fn keepers() {
    for json in [
        r#"{"kind": "none", "x": {"y": [1, null]}}"#,
        r#"{"kind": "leaf", "length": 1, "x": 1}"#,
        r#"{"kind": "branch", "length": "long", "x": 1}"#,
    ] {
        same::<keeping::Leaf>(json);
        same::<keeping::Choice>(json);
    }
    same::<keeping::Shape>(r#"{"name": "a", "colour": "red", "kind": "none", "x": 1}"#);
    // What older servers leave out has no content, but where no value has an end.
    becomes::<keeping::Leaf>(r#"{"x": 1}"#, r#"{"kind": "", "x": 1}"#);
    becomes::<keeping::Coloured>("{}", r#"{"name": "", "colour": ""}"#);
    wrong::<keeping::Endless>("{}", "Parameter 'next' is missing");
}
