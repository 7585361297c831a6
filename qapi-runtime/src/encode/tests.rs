use super::*;

fn json(value: &impl Encode) -> String {
    let mut out = Writer::default();
    value.encode(&mut out);
    String::from_utf8(out.into_bytes()).unwrap()
}

#[test]
fn integers_of_every_length() {
    for value in [0, 1, 9, 10, 99, 100, 12345, u64::MAX - 1, u64::MAX] {
        assert_eq!(json(&value), value.to_string());
    }
    for value in [i64::MIN, -1, 0, i64::MAX] {
        assert_eq!(json(&value), value.to_string());
    }
    for shift in 0..64 {
        assert_eq!(json(&(1_u64 << shift)), (1_u64 << shift).to_string());
    }
}

#[test]
fn doubles_as_c_prints_them() {
    for (value, text) in [
        (0.1, "0.10000000000000001"),
        (100.0, "100"),
        (1.5, "1.5"),
        (-0.0, "-0"),
        (1e-5, "1.0000000000000001e-05"),
        (0.0001, "0.0001"),
        (1.8446744073709552e19, "1.8446744073709552e+19"),
        (1e16, "10000000000000000"),
        (1e17, "1e+17"),
        (-12345678.25, "-12345678.25"),
        (1e300, "1.0000000000000001e+300"),
        (f64::INFINITY, "null"),
    ] {
        assert_eq!(json(&value), text);
    }
}

#[test]
fn strings_are_ascii() {
    assert_eq!(json(&"plain ~".to_string()), r#""plain ~""#);
    assert_eq!(json(&"\u{8}\u{c}\n\r\t\"\\/".to_string()), r#""\b\f\n\r\t\"\\/""#);
    assert_eq!(
        json(&"\u{7f}\u{1}é😀".to_string()),
        r#""\u007F\u0001\u00E9\uD83D\uDE00""#
    );
}

#[test]
fn commas_stand_between() {
    let value: crate::Value = serde_json::json!({"a": [1, {}, [], [2.5]], "b": {"c": null}, "d": true});
    assert_eq!(
        json(&value),
        r#"{"a": [1, {}, [], [2.5]], "b": {"c": null}, "d": true}"#
    );
}
