use super::*;
use crate::policy::Policy;
use crate::scanner::Scanner;

/// What generated code looks like, by hand.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    count: u32,
    list: Option<Vec<i64>>,
    sync: Option<Sync>,
}

impl Members for Sample {
    fn take(object: &mut Object<'_>) -> Result<Self, DecodeError> {
        Ok(Sample {
            name: object.required("name")?,
            count: object.required("count")?,
            list: object.optional("list")?,
            sync: object.special(Special::DEPRECATED).optional("sync")?,
        })
    }

    fn put(&self, out: &mut crate::Writer) {
        out.member("name", &self.name);
        out.member("count", &self.count);
        out.optional("list", &self.list);
        out.optional("sync", &self.sync);
    }
}
crate::object!(strict Sample);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sync {
    Full,
    Top,
}

impl StringEnum for Sync {
    const VALUES: &'static [Self] = &[Sync::Full, Sync::Top];

    fn wire_name(&self) -> &str {
        match self {
            Sync::Full => "full",
            Sync::Top => "top",
        }
    }
}
crate::string_enum!(Sync);

fn document(text: &str) -> Document {
    let mut scanner = Scanner::default();
    let text = format!("{text}\n");
    let mut input = text.as_bytes();
    scanner.next(&mut input).unwrap().unwrap().clone()
}

fn decode<T: Decode>(text: &str) -> Result<T, String> {
    T::decode(document(text).root().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn members_in_any_order() {
    let sample = Sample {
        name: "n".into(),
        count: 7,
        list: Some(vec![1, -2]),
        sync: Some(Sync::Top),
    };
    for text in [
        r#"{"name": "n", "count": 7, "list": [1, -2], "sync": "top"}"#,
        r#"{"sync": "top", "list": [1, -2], "count": 7, "name": "n"}"#,
    ] {
        assert_eq!(decode(text), Ok(sample.clone()));
    }
    let value = crate::bridge::serialize(&sample, serde_json::value::Serializer).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"name": "n", "count": 7, "list": [1, -2], "sync": "top"})
    );
    assert_eq!(crate::bridge::deserialize::<Sample, _>(value).unwrap(), sample);
}

#[cfg(feature = "serde")]
#[test]
fn serde_sees_what_the_wire_has() {
    let text = r#"{"name": "n", "count": 7, "list": [1, -2], "sync": "top"}"#;
    let sample: Sample = serde_json::from_str(text).unwrap();
    assert_eq!(sample, decode(text).unwrap());
    assert_eq!(
        serde_json::to_value(&sample).unwrap(),
        serde_json::from_str::<crate::Value>(text).unwrap()
    );
    let error = serde_json::from_str::<Sample>(r#"{"name": 1}"#).unwrap_err();
    assert!(error.to_string().contains("'name', expected: string"), "{error}");
}

#[test]
fn texts_of_errors() {
    for (text, error) in [
        (r#"{"count": 1, "x": 1}"#, "Parameter 'name' is missing"),
        (
            r#"{"name": "n", "count": 1, "x": 1, "y": 2}"#,
            "Parameter 'x' is unexpected",
        ),
        (
            r#"{"name": null, "count": 1}"#,
            "Invalid parameter type for 'name', expected: string",
        ),
        (
            r#"{"name": "n", "count": -1}"#,
            "Parameter 'count' expects uint32_t",
        ),
        (
            r#"{"name": "n", "count": "1"}"#,
            "Parameter 'count' expects uint64",
        ),
        (
            r#"{"name": "n", "count": 4294967296}"#,
            "Parameter 'count' expects uint32_t",
        ),
        (
            r#"{"name": "n", "count": 1, "list": {}}"#,
            "Invalid parameter type for 'list', expected: array",
        ),
        (
            r#"{"name": "n", "count": 1, "list": [0, 1.0]}"#,
            "Invalid parameter type for 'list[1]', expected: integer",
        ),
        (
            r#"{"name": "n", "count": 1, "list": null}"#,
            "Invalid parameter type for 'list', expected: array",
        ),
        (
            r#"{"name": "n", "count": 1, "sync": "some"}"#,
            "Parameter 'sync' does not accept value 'some'",
        ),
        (
            r#"{"name": "n", "count": 1, "sync": 1}"#,
            "Invalid parameter type for 'sync', expected: string",
        ),
    ] {
        assert_eq!(decode::<Sample>(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn the_unexpected_is_found_behind_many_members() {
    let members: Vec<String> = (0..200).map(|number| format!(r#""m{number}": 0"#)).collect();
    let text = format!(r#"{{"name": "n", {}, "count": 1}}"#, members.join(", "));
    let document = document(&text);
    let mut object = Object::open(document.root().unwrap()).unwrap();
    object.required::<String>("name").unwrap();
    object.required::<u32>("count").unwrap();
    object.required::<i64>("m150").unwrap();
    let rest = object.rest().unwrap();
    assert_eq!(rest.len(), 199);
    assert!(!rest.contains_key("m150") && rest.contains_key("m149"));
}

#[test]
fn the_policy_refuses_what_is_used() {
    let text = document(r#"{"name": "n", "count": 1, "sync": "full"}"#);
    let strict = Policy {
        deprecated_input: crate::policy::InputPolicy::Reject,
        ..Policy::default()
    };
    let error = Sample::decode(text.root().unwrap().with_policy(strict)).unwrap_err();
    assert_eq!(error.to_string(), "Deprecated parameter sync disabled by policy");
    let text = document(r#"{"name": "n", "count": 1}"#);
    assert!(Sample::decode(text.root().unwrap().with_policy(strict)).is_ok());
}

#[test]
fn unsigned_takes_negative_for_its_complement() {
    assert_eq!(decode::<u64>("-1"), Ok(u64::MAX));
    assert_eq!(decode::<u64>("18446744073709551615"), Ok(u64::MAX));
    assert!(decode::<u64>("18446744073709551616").is_err());
    assert_eq!(decode::<f64>("3"), Ok(3.0));
}

#[test]
fn key_value_options_read_scalars_from_text() {
    let mut builder = crate::document::Builder::keyval();
    builder.begin_object();
    for (name, value) in [("name", "n"), ("count", "0x10")] {
        builder.string(name);
        builder.string(value);
    }
    builder.string("list");
    builder.begin_array();
    builder.string("x");
    builder.end();
    builder.end();
    let document = builder.finish();
    let error = Sample::decode(document.root().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "Parameter 'list.0' expects integer");
}

/// Members are found in whatever order and number they come, whether few, many, or too many for an index.
#[test]
fn members_are_indexed() {
    let names: Vec<&'static str> = (0..90)
        .map(|number| &*Box::leak(format!("member-{number}-of-many").into_boxed_str()))
        .collect();
    for count in [1, 2, 3, 4, 5, 17, 47, 48, 49, 64, 65, 90] {
        // A step without a common divisor visits all.
        for step in [1, 7, count - 1, count + 1] {
            let at = |turn: usize| (turn * step) % count;
            if (0..count).map(at).collect::<std::collections::HashSet<_>>().len() < count {
                continue;
            }
            let members = (0..count).map(|number| format!("\"{}\": {number}", names[number]));
            let text = format!("{{{}}}", members.collect::<Vec<_>>().join(", "));
            let mut scanner = Scanner::default();
            let document = scanner.next(&mut text.as_bytes()).unwrap().unwrap();
            let mut object = Object::open(document.root().unwrap()).unwrap();
            for turn in 0..count {
                assert_eq!(object.optional::<bool>("not-there").unwrap(), None);
                let number = at(turn);
                let found: i64 = object.required(names[number]).unwrap();
                assert_eq!(found, i64::try_from(number).unwrap());
            }
            object.finish().unwrap();
        }
    }
}

#[test]
fn a_list_that_is_left_out_is_empty() {
    let mut scanner = Scanner::default();
    let document = scanner
        .next(&mut &br#"{"there": ["a"], "wrong": 1}"#[..])
        .unwrap()
        .unwrap();
    let mut object = Object::open(document.root().unwrap()).unwrap();
    assert_eq!(object.list::<Vec<String>>("there").unwrap(), ["a"]);
    assert_eq!(object.list::<Vec<String>>("new").unwrap(), [""; 0]);
    assert!(object.list::<Vec<String>>("wrong").is_err());
}

#[test]
fn what_an_older_server_leaves_out_has_no_content() {
    fn filled<T: Decode>() -> Result<T, DecodeError> {
        let document = document("{}");
        Object::open(document.root().unwrap()).unwrap().filled("member")
    }
    assert_eq!(filled::<String>(), Ok(String::new()));
    assert_eq!(filled::<bool>(), Ok(false));
    assert_eq!(filled::<u8>(), Ok(0));
    assert_eq!(filled::<f64>(), Ok(0.0));
    assert_eq!(filled::<Vec<i64>>(), Ok(Vec::new()));
    assert_eq!(filled::<Value>(), Ok(Value::Null));
    assert_eq!(filled::<Map>(), Ok(Map::new()));
    // An enumeration that knows all its values has none for this.
    // A value of this has no end.
    #[derive(Debug, PartialEq)]
    struct Endless {
        next: Box<Endless>,
    }
    crate::tolerant!(Endless { next: filled("next") });
    let error = filled::<Endless>().unwrap_err();
    assert_eq!(error.to_string(), "Parameter 'member' is missing");
    let error = filled::<crate::QType>().unwrap_err();
    assert_eq!(error.to_string(), "Parameter 'member' is missing");
}
