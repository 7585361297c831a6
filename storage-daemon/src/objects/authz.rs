//! Who may use a service: rules over the names that TLS has proved.

use qapi_runtime::Error;
use schema::{QAuthZListFormat, QAuthZListPolicy, QAuthZListRule};

use super::{Kind, Object, properties};

/// Whether the object lets a client of that name in.
pub fn allows(object: &Object, identity: &str) -> Result<bool, Error> {
    match object.kind {
        Kind::AuthzSimple => Ok(object.properties.text("identity") == identity),
        Kind::AuthzList => {
            let value = |name| object.properties.get(name).cloned().unwrap_or_default();
            let rules: Vec<QAuthZListRule> = properties::decode("rules", &value("rules"))?;
            let otherwise: QAuthZListPolicy = properties::decode("policy", &value("policy"))?;
            let decided = rules
                .iter()
                .find(|rule| match rule.format {
                    None | Some(QAuthZListFormat::Exact) => rule.r#match == identity,
                    Some(QAuthZListFormat::Glob) => fits(rule.r#match.as_bytes(), identity.as_bytes()),
                })
                .map_or(otherwise, |rule| rule.policy);
            Ok(decided == QAuthZListPolicy::Allow)
        }
        _ => Ok(false),
    }
}

/// Whether a pattern of `*` (anything) and `?` (one character) fits all of the text.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when it does not fit: the last star takes one more.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(b'?') => {
                // One character may have several bytes.
                t += 1;
                while text.get(t).is_some_and(|byte| byte & 0xC0 == 0x80) {
                    t += 1;
                }
                p += 1;
            }
            Some(byte) if text.get(t) == Some(byte) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (p, t) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("*", "anything", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("a?c", "abc", true),
            ("a?c", "aäc", true),
            ("a?c", "ac", false),
            ("CN=*,O=x", "CN=a,b,O=x", true),
            ("*a*b*a", "aabaaba", true),
            ("*a*b*a", "aabaab", false),
            ("a", "b", false),
        ] {
            assert_eq!(
                fits(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
