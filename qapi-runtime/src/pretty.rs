//! JSON text laid out for people, a value a line, as `pretty=on` asks for it.
//!
//! Works on text that is JSON already and knows nothing of what it says.

/// One level.
const INDENT: &[u8] = b"    ";

/// Appends the messages of `text`, which end in white space, laid out.
///
/// Something empty takes two lines too: that is how the format has always looked.
pub(crate) fn write(out: &mut Vec<u8>, text: &[u8]) {
    let mut depth = 0_usize;
    let mut rest = text;
    // A bracket was opened and nothing has come since.
    let mut fresh = false;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'{' | b'[' => {
                if fresh {
                    new_line(out, depth);
                }
                out.push(*byte);
                depth += 1;
                fresh = true;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(out, depth);
                out.push(*byte);
                if depth == 0 {
                    out.extend_from_slice(b"\r\n");
                }
            }
            b',' => {
                out.push(b',');
                new_line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                if fresh {
                    new_line(out, depth);
                }
                out.push(*byte);
                if *byte == b'"' {
                    let inside = string_bytes(rest);
                    out.extend_from_slice(rest.get(..inside).unwrap_or_default());
                    rest = rest.get(inside..).unwrap_or_default();
                }
            }
        }
        fresh = false;
    }
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.extend_from_slice(b"\r\n");
    for _ in 0..depth {
        out.extend_from_slice(INDENT);
    }
}

/// How far a string goes, with the quote that ends it.
fn string_bytes(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    fn pretty(text: &str) -> String {
        let mut out = Vec::new();
        super::write(&mut out, text.as_bytes());
        String::from_utf8(out).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn a_value_a_line() {
        let text = "{\"a\": [], \"b\": {}, \"c\": [1, {\"x\": null}], \"d\": \"{,:\\\"} \\\\\"}\r\n{\"e\": -1.5}\r\n";
        let expected = r#"{
    "a": [
    ],
    "b": {
    },
    "c": [
        1,
        {
            "x": null
        }
    ],
    "d": "{,:\"} \\"
}
{
    "e": -1.5
}
"#;
        assert_eq!(pretty(text), expected);
    }

    #[test]
    fn broken_text_does_no_harm() {
        assert_eq!(pretty("]}\"x"), "\n]\n\n}\n\"x");
    }
}
