use super::*;
use crate::decode::{Decode, Members};
use crate::encode::Encode;
use crate::policy::{InputPolicy, OutputPolicy, Policy, Special};
use crate::scanner::Scanner;
use crate::{Document, Null, Value};

/// A value of each kind of entry, with fields that have to be dropped.
#[derive(Debug, Clone, PartialEq)]
struct Disk {
    base: Named,
    size: u64,
    tags: Vec<String>,
    old: Option<Box<Named>>,
    branch: Driver,
}

#[derive(Debug, Clone, PartialEq)]
struct Named {
    name: String,
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Driver {
    Raw,
    File(File),
}

#[derive(Debug, Clone, PartialEq)]
struct File {
    path: String,
    mode: i8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Raw,
    File,
}

impl crate::StringEnum for Kind {
    const VALUES: &'static [Self] = &[Kind::Raw, Kind::File];

    fn wire_name(&self) -> &str {
        match self {
            Kind::Raw => "raw",
            Kind::File => "file",
        }
    }
}
crate::string_enum!(Kind);

impl Branches for Driver {
    type Kind = Kind;

    fn kind(&self) -> Kind {
        match self {
            Driver::Raw => Kind::Raw,
            Driver::File(_) => Kind::File,
        }
    }

    fn take_branch(kind: Kind, object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            Kind::Raw => Driver::Raw,
            Kind::File => Driver::File(Members::take(object)?),
        })
    }

    fn put_branch(&self, out: &mut Writer) {
        if let Driver::File(file) = self {
            file.put(out);
        }
    }
}

crate::strict!(Named {
    name: required("name"),
    note: optional("note")
});
crate::strict!(File {
    path: required("path"),
    mode: required("mode")
});
crate::strict!(Disk {
    base: members(),
    size: required("size").size(),
    branch: branch("driver"),
    tags: list("tags"),
    old: optional("old").special(Special::DEPRECATED),
});

#[derive(Debug, PartialEq)]
struct Kept {
    name: String,
    unknown: crate::Map,
}
crate::keeping!(Kept {
    name: required("name"),
    unknown: unknown()
});

#[derive(Debug, PartialEq, Default)]
struct Empty {}
crate::tolerant!(Empty {});

fn document(text: &str) -> Document {
    let mut input = text.as_bytes();
    Scanner::default().next(&mut input).unwrap().unwrap().clone()
}

fn decode<T: Decode>(text: &str) -> Result<T, String> {
    T::decode(document(text).root().unwrap()).map_err(|error| error.to_string())
}

fn encode<T: Encode>(value: &T, policy: Policy) -> String {
    let mut out = Writer::new(policy);
    value.encode(&mut out);
    String::from_utf8(out.into_bytes()).unwrap()
}

const WHOLE: &str = r#"{"name": "n", "size": 7, "driver": "file", "tags": ["a", "b"], "old": {"name": "o", "note": "p"}, "path": "x", "mode": -3}"#;

#[test]
fn members_in_any_order_come_back_in_the_order_of_the_schema() {
    let disk: Disk = decode(WHOLE).unwrap();
    assert_eq!(encode(&disk, Policy::default()), WHOLE);
    let value: Value = serde_json::from_str(WHOLE).unwrap();
    let members: Vec<_> = value.as_object().unwrap().iter().collect();
    for turn in 0..members.len() {
        let mut turned = members.clone();
        turned.rotate_left(turn);
        let text = turned.iter().map(|(name, value)| format!("\"{name}\": {value}"));
        let text = format!("{{{}}}", text.collect::<Vec<_>>().join(","));
        assert_eq!(decode::<Disk>(&text).unwrap(), disk, "{text}");
    }
    let list: Vec<Disk> = decode(&format!("[{WHOLE}, {WHOLE}]")).unwrap();
    assert_eq!(list, [disk.clone(), disk]);
}

/// Whatever is wrong, the first mistake in the schema's order is told; what was read before has to be dropped.
#[test]
fn mistakes_are_told_in_the_order_of_the_schema() {
    for (text, expected) in [
        (r#"{}"#, "Parameter 'name' is missing"),
        (
            r#"{"name": "n", "note": 1}"#,
            "Invalid parameter type for 'note', expected: string",
        ),
        (r#"{"name": "n", "note": "m"}"#, "Parameter 'size' is missing"),
        (
            r#"{"name": "n", "size": 1, "driver": "nope", "tags": 1}"#,
            "Parameter 'driver' does not accept value 'nope'",
        ),
        (
            r#"{"name": "n", "size": 1, "driver": "file", "tags": ["a", 1]}"#,
            "Invalid parameter type for 'tags[1]', expected: string",
        ),
        (
            r#"{"name": "n", "size": 1, "driver": "file", "tags": ["a"], "old": {"name": "o", "x": 1}}"#,
            "Parameter 'old.x' is unexpected",
        ),
        (
            r#"{"name": "n", "size": 1, "driver": "file", "tags": ["a"], "old": {"name": "o"}, "path": "p", "mode": 200}"#,
            "Parameter 'mode' expects int8_t",
        ),
        (
            r#"{"name": "n", "size": 1, "driver": "file", "tags": ["a"], "path": "p", "mode": 1, "z": 1, "y": 2}"#,
            "Parameter 'z' is unexpected",
        ),
        (
            r#"{"name": "n", "size": 1, "driver": "raw", "path": "p"}"#,
            "Parameter 'path' is unexpected",
        ),
    ] {
        assert_eq!(decode::<Disk>(text).unwrap_err(), expected, "{text}");
    }
    assert_eq!(
        decode::<Disk>("[]").unwrap_err(),
        "Invalid parameter type for '', expected: object"
    );
}

#[test]
fn a_policy_refuses_and_hides_members() {
    let disk: Disk = decode(WHOLE).unwrap();
    let policy = Policy {
        deprecated_input: InputPolicy::Reject,
        deprecated_output: OutputPolicy::Hide,
        ..Policy::default()
    };
    assert!(!encode(&disk, policy).contains("old"));
    let document = document(WHOLE);
    let error = Disk::decode(document.root().unwrap().with_policy(policy)).unwrap_err();
    assert_eq!(error.to_string(), "Deprecated parameter old disabled by policy");
}

#[test]
fn unknown_members_are_kept_or_overlooked() {
    let text = r#"{"a": 1, "name": "n", "b": [null]}"#;
    let kept: Kept = decode(text).unwrap();
    assert_eq!(kept.unknown.len(), 2);
    assert_eq!(
        encode(&kept, Policy::default()),
        r#"{"name": "n", "a": 1, "b": [null]}"#
    );
    assert_eq!(decode::<Empty>(text), Ok(Empty {}));
    assert_eq!(
        decode::<Null>("[null]").unwrap_err(),
        "Invalid parameter type for '', expected: null"
    );
}

/// More members than are found at a time.
#[test]
fn large_tables() {
    macro_rules! large {
        ($($field:ident)*) => {
            #[derive(Debug, PartialEq)]
            struct Large { $($field: Option<String>),* }
            crate::strict!(Large { $($field: optional(stringify!($field))),* });
            const FIELDS: &[&str] = &[$(stringify!($field)),*];
        };
    }
    large!(a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 c0 c1 c2 c3 c4 c5 c6 c7 c8 c9
        d0 d1 d2 d3 d4 d5 d6 d7 d8 d9 e0 e1 e2 e3 e4 e5 e6 e7 e8 e9 f0 f1 f2 f3 f4 f5 f6 f7 f8 f9
        g0 g1 g2 g3 g4 g5 g6 g7 g8 g9 h0 h1 h2 h3 h4 h5 h6 h7 h8 h9);
    assert!(FIELDS.len() > AT_ONCE);
    let member = |(number, name): (usize, &&str)| format!("\"{name}\": \"{number}\"");
    let text: Vec<_> = FIELDS.iter().enumerate().map(member).collect();
    let turned: Vec<_> = text.iter().rev().cloned().collect();
    let whole = format!("{{{}}}", text.join(", "));
    let large: Large = decode(&format!("{{{}}}", turned.join(","))).unwrap();
    assert_eq!(encode(&large, Policy::default()), whole);
    let error = decode::<Large>(&whole.replace("\"63\"", "{}")).unwrap_err();
    assert_eq!(error, "Invalid parameter type for 'g3', expected: string");
    let error = decode::<Large>(&whole.replace("h9", "i0")).unwrap_err();
    assert_eq!(error, "Parameter 'i0' is unexpected");
}

/// Counts how many of its values there are; decoding the text `panic` panics.
#[derive(Debug, PartialEq)]
struct Counted(Box<str>);

thread_local! {
    static COUNT: std::cell::Cell<i32> = const { std::cell::Cell::new(0) };
}

impl Decode for Counted {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        let text = String::decode(value)?;
        assert_ne!(text, "panic");
        COUNT.set(COUNT.get() + 1);
        Ok(Counted(text.into()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.set(COUNT.get() - 1);
    }
}

impl Encode for Counted {
    fn encode(&self, out: &mut Writer) {
        out.string(&self.0);
    }
}

#[derive(Debug, PartialEq)]
struct Counts {
    base: Below,
    first: Counted,
    branch: Choice,
    last: Option<Counted>,
}

#[derive(Debug, PartialEq)]
struct Below {
    below: Vec<Counted>,
}

#[derive(Debug, PartialEq)]
enum Choice {
    Some(Counted),
}

impl Branches for Choice {
    type Kind = Counted;

    fn kind(&self) -> Counted {
        let Choice::Some(value) = self;
        COUNT.set(COUNT.get() + 1);
        Counted(value.0.clone())
    }

    fn take_branch(kind: Counted, object: &mut Object<'_>) -> Result<Self, DecodeError> {
        let other: Counted = object.required("other")?;
        assert_ne!(other.0, kind.0);
        Ok(Choice::Some(kind))
    }

    fn put_branch(&self, _: &mut Writer) {}
}

crate::strict!(Below {
    below: required("below")
});
crate::strict!(Counts {
    base: members(),
    first: required("first"),
    branch: branch("kind"),
    last: optional("last"),
});

const COUNTED: &str = r#"{"below": ["b", "c"], "first": "d", "kind": "e", "last": "f", "other": "g"}"#;

/// Nothing is dropped twice or forgotten, wherever an error comes.
#[test]
fn what_was_read_is_dropped_once() {
    let counts: Counts = decode(COUNTED).unwrap();
    assert_eq!(COUNT.get(), 5);
    assert_eq!(
        encode(&counts, Policy::default()),
        COUNTED.replace(r#", "other": "g""#, "")
    );
    assert_eq!(COUNT.get(), 5);
    drop(counts);
    assert_eq!(COUNT.get(), 0);
    for letter in ["b", "c", "d", "e", "f", "g"] {
        decode::<Counts>(&COUNTED.replace(&format!("\"{letter}\""), "1")).unwrap_err();
        assert_eq!(COUNT.get(), 0, "{letter}");
    }
    decode::<Counts>(&COUNTED.replace("other", "another")).unwrap_err();
    assert_eq!(COUNT.get(), 0);
    decode::<Counts>(&COUNTED.replace('}', r#", "more": 1}"#)).unwrap_err();
    assert_eq!(COUNT.get(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "what was read when a panic comes is lost")]
fn a_panic_drops_nothing_twice() {
    for letter in ["b", "c", "d", "e", "f", "g"] {
        let panics = COUNTED.replace(&format!("\"{letter}\""), "\"panic\"");
        std::panic::catch_unwind(|| decode::<Counts>(&panics)).unwrap_err();
        assert!(COUNT.replace(0) >= 0, "{letter}");
    }
}

thread_local! {
    static READS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

#[derive(Debug, PartialEq)]
struct Read;

impl Decode for Read {
    fn decode(_: Cursor<'_>) -> Result<Self, DecodeError> {
        READS.set(READS.get() + 1);
        Ok(Read)
    }
}

impl Encode for Read {
    fn encode(&self, _: &mut Writer) {}
}

#[derive(Debug, PartialEq)]
struct Deep {
    read: Option<Read>,
    deep: Option<Box<Deep>>,
}
crate::strict!(Deep {
    read: optional("read"),
    deep: optional("deep"),
});

/// What is wrong is read once more, and not once more for each object around it.
#[test]
fn a_mistake_far_inside_is_found_soon() {
    let depth = 50;
    let nested = |inner: &str| format!("{}{inner}{}", r#"{"deep": "#.repeat(depth), "}".repeat(depth));
    decode::<Deep>(&nested(r#"{"read": 1}"#)).unwrap();
    assert_eq!(READS.replace(0), 1);
    let error = decode::<Deep>(&nested(r#"{"read": 1, "wrong": 1}"#)).unwrap_err();
    assert_eq!(
        error,
        format!("Parameter '{}wrong' is unexpected", "deep.".repeat(depth))
    );
    assert_eq!(READS.replace(0), 2);
}
