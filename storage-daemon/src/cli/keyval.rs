//! `key=value,...` as the options `--blockdev`, `--export`, `--monitor`, `--nbd-server` and `--object` take it.
//!
//! A key is a path of names with dots between them; names that are all digits make a list. The result is a
//! tree whose leaves are strings, handed on as a document in which every scalar is text.

use std::collections::BTreeMap;

use qapi_runtime::document::{Builder, Document};

use super::CliError;

/// Longest name between two dots, in bytes.
const MAX_NAME_BYTES: usize = 127;
/// Most names in one key. No option of the schema comes near it; it bounds the recursion over the tree.
const MAX_DEPTH: usize = 64;
/// Most keys in one option.
const MAX_KEYS: usize = 65_536;

/// What was given for one option.
#[derive(Debug)]
pub struct Keyval {
    /// `help` or `?` stood among the keys.
    pub help: bool,
    root: BTreeMap<String, Value>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Members(BTreeMap<String, Value>),
}

impl Keyval {
    /// Parses `text`. A first item without `=` is the value of `implied_key`, where the option has one.
    pub fn parse(text: &str, implied_key: Option<&str>) -> Result<Self, CliError> {
        let mut parsed = Self {
            help: false,
            root: BTreeMap::new(),
        };
        let mut rest = text;
        let mut implied_key = implied_key;
        let mut keys = 0;
        while !rest.is_empty() {
            keys += 1;
            if keys > MAX_KEYS {
                return Err(CliError::new(format!("More than {MAX_KEYS} parameters")));
            }
            rest = parsed.item(rest, implied_key.take())?;
        }
        Ok(parsed)
    }

    /// The text of a top-level key.
    pub fn get(&self, key: &str) -> Option<&str> {
        match self.root.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Refuses every top-level key but these.
    pub fn only(&self, known: &[&str]) -> Result<(), CliError> {
        match self.root.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, Value::Text(_))) => Err(CliError::new(format!("Parameter '{key}' is unexpected"))),
            Some((key, Value::Members(_))) => {
                Err(CliError::new(format!("Parameters '{key}.*' are unexpected")))
            }
        }
    }

    /// The tree as a document of strings, lists made of numbered keys.
    pub fn document(&self) -> Result<Document, CliError> {
        let mut builder = Builder::keyval();
        build(&mut builder, &self.root, "")?;
        Ok(builder.finish())
    }

    /// Takes one item off the front of `text` and returns what follows it.
    fn item<'t>(&mut self, text: &'t str, implied_key: Option<&str>) -> Result<&'t str, CliError> {
        let key_end = text.find(['=', ',']).unwrap_or(text.len());
        let (key, after_key) = text.split_at(key_end);
        if let Some(implied) = implied_key
            && !key.is_empty()
            && !after_key.starts_with('=')
            && !is_help(key)
        {
            // The value of an implied key ends at the first comma: it cannot hold one.
            self.insert(implied, key.to_owned())?;
            return Ok(after_key.strip_prefix(',').unwrap_or(after_key));
        }
        if is_help(key) && !after_key.starts_with('=') {
            self.help = true;
            return Ok(after_key.strip_prefix(',').unwrap_or(after_key));
        }
        check_key(key)?;
        let Some(value_text) = after_key.strip_prefix('=') else {
            return Err(CliError::new(format!("Expected '=' after parameter '{key}'")));
        };
        let (value, rest) = take_value(value_text);
        self.insert(key, value)?;
        Ok(rest)
    }

    fn insert(&mut self, key: &str, value: String) -> Result<(), CliError> {
        let mut members = &mut self.root;
        let mut at = 0;
        while let Some(dot) = key.get(at..).and_then(|rest| rest.find('.')) {
            let end = at + dot;
            let name = key.get(at..end).unwrap_or_default();
            let prefix = key.get(..end).unwrap_or_default();
            match members
                .entry(name.to_owned())
                .or_insert_with(|| Value::Members(BTreeMap::new()))
            {
                Value::Members(inner) => members = inner,
                Value::Text(_) => return Err(inconsistent(prefix)),
            }
            at = end + 1;
        }
        let name = key.get(at..).unwrap_or_default();
        match members.get(name) {
            Some(Value::Members(_)) => Err(inconsistent(key)),
            // The last one wins, as for every option of this family.
            _ => {
                members.insert(name.to_owned(), Value::Text(value));
                Ok(())
            }
        }
    }
}

fn is_help(key: &str) -> bool {
    key == "help" || key == "?"
}

fn inconsistent(prefix: &str) -> CliError {
    CliError::new(format!("Parameters '{prefix}.*' used inconsistently"))
}

/// A value ends at the first comma that stands alone; two commas are one of the value's own.
fn take_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        match rest.find(',') {
            None => {
                value.push_str(rest);
                return (value, "");
            }
            Some(comma) => {
                let (before, after) = rest.split_at(comma);
                value.push_str(before);
                if let Some(doubled) = after.strip_prefix(",,") {
                    value.push(',');
                    rest = doubled;
                } else {
                    return (value, after.strip_prefix(',').unwrap_or(after));
                }
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), CliError> {
    let mut depth = 0;
    for name in key.split('.') {
        let bytes = name.as_bytes();
        let number = depth > 0 && !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
        // What begins with two underscores has a vendor's name before the next one.
        let start = match name.strip_prefix("__") {
            Some(vendor) => vendor.split_once('_').map_or("", |(_, own)| own),
            None => name,
        };
        let word = start.starts_with(|first: char| first.is_ascii_alphabetic())
            && bytes
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !number && !word {
            return Err(CliError::new(format!("Invalid parameter '{key}'")));
        }
        if name.len() > MAX_NAME_BYTES {
            let what = if name.len() == key.len() {
                "Parameter"
            } else {
                "Parameter fragment"
            };
            return Err(CliError::new(format!("{what} '{name}' is too long")));
        }
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(CliError::new(format!("Parameter '{key}' is nested too deeply")));
        }
    }
    Ok(())
}

fn build(builder: &mut Builder, members: &BTreeMap<String, Value>, prefix: &str) -> Result<(), CliError> {
    match list(members, prefix)? {
        Some(elements) => {
            builder.begin_array();
            for (index, element) in elements.into_iter().enumerate() {
                build_value(builder, element, &format!("{prefix}.{index}"))?;
            }
        }
        None => {
            builder.begin_object();
            for (name, value) in members {
                builder.string(name);
                let path = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                build_value(builder, value, &path)?;
            }
        }
    }
    builder.end();
    Ok(())
}

fn build_value(builder: &mut Builder, value: &Value, path: &str) -> Result<(), CliError> {
    match value {
        Value::Text(text) => builder.string(text),
        Value::Members(members) => build(builder, members, path)?,
    }
    Ok(())
}

/// The elements in order if every name is a number. The indices must be whole: a list has no holes.
fn list<'m>(members: &'m BTreeMap<String, Value>, prefix: &str) -> Result<Option<Vec<&'m Value>>, CliError> {
    let numbers = members
        .keys()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .count();
    if numbers == 0 || prefix.is_empty() {
        return Ok(None);
    }
    if numbers < members.len() {
        return Err(inconsistent(prefix));
    }
    let mut elements: Vec<Option<&Value>> = vec![None; members.len()];
    for (name, value) in members {
        // An index beyond the count leaves a hole below it, which is what gets reported.
        if let Ok(index) = name.parse::<usize>()
            && let Some(slot) = elements.get_mut(index)
        {
            *slot = Some(value);
        }
    }
    let mut whole = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        match element {
            Some(value) => whole.push(value),
            None => return Err(CliError::new(format!("Parameter '{prefix}.{index}' missing"))),
        }
    }
    Ok(Some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(keyval: &Keyval) -> String {
        let document = keyval.document().unwrap();
        fn value(cursor: qapi_runtime::document::Cursor<'_>, out: &mut String) {
            use qapi_runtime::document::Token;
            match cursor.token() {
                Token::Object { .. } => {
                    out.push('{');
                    for (name, inner) in cursor.members() {
                        out.push_str(name);
                        out.push(':');
                        value(inner, out);
                        out.push(' ');
                    }
                    out.push('}');
                }
                Token::Array { .. } => {
                    out.push('[');
                    for inner in cursor.elements() {
                        value(inner, out);
                        out.push(' ');
                    }
                    out.push(']');
                }
                _ => out.push_str(cursor.as_str().unwrap()),
            }
        }
        let mut out = String::new();
        value(document.root().unwrap(), &mut out);
        out
    }

    fn good(text: &str) -> String {
        show(&Keyval::parse(text, Some("driver")).unwrap())
    }

    fn bad(text: &str) -> String {
        let result = Keyval::parse(text, Some("driver")).and_then(|keyval| keyval.document().map(drop));
        result.unwrap_err().0
    }

    #[test]
    fn trees_and_lists() {
        assert_eq!(
            good("raw,file.driver=file,file.filename=a,,b"),
            "{driver:raw file:{driver:file filename:a,b } }"
        );
        assert_eq!(good("driver=x,l.0=a,l.1=b"), "{driver:x l:[a b ] }");
        assert_eq!(good("x,l.00.k=v"), "{driver:x l:[{k:v } ] }");
        assert_eq!(good("x,a=,b=c,"), "{a: b:c driver:x }");
        assert_eq!(good("x,a=1,a=2"), "{a:2 driver:x }");
        assert_eq!(good(""), "{}");
    }

    #[test]
    fn help_is_seen() {
        let keyval = Keyval::parse("throttle-group,help", Some("qom-type")).unwrap();
        assert!(keyval.help);
        assert_eq!(keyval.get("qom-type"), Some("throttle-group"));
        assert!(Keyval::parse("help", Some("qom-type")).unwrap().help);
    }

    #[test]
    fn mistakes() {
        for (text, message) in [
            ("x,=y", "Invalid parameter ''"),
            (",driver=x", "Invalid parameter ''"),
            ("x,,b", "Invalid parameter ''"),
            ("x,a.=1", "Invalid parameter 'a.'"),
            ("x,.a=1", "Invalid parameter '.a'"),
            ("x,a..b=1", "Invalid parameter 'a..b'"),
            ("x,1=a", "Invalid parameter '1'"),
            ("x,_a=1", "Invalid parameter '_a'"),
            ("x,__a=1", "Invalid parameter '__a'"),
            ("x,__vendor_=1", "Invalid parameter '__vendor_'"),
            ("x,a%b=a", "Invalid parameter 'a%b'"),
            ("x,node-name", "Expected '=' after parameter 'node-name'"),
            ("x,file.a=1,file=2", "Parameters 'file.*' used inconsistently"),
            ("x,file=1,file.a=2", "Parameters 'file.*' used inconsistently"),
            ("x,file.0=1,file.a=2", "Parameters 'file.*' used inconsistently"),
            ("x,l.1=1", "Parameter 'l.0' missing"),
            ("x,l.0=1,l.2=1", "Parameter 'l.1' missing"),
            ("x,l.99999999999999999999=1", "Parameter 'l.0' missing"),
        ] {
            assert_eq!(bad(text), message, "{text}");
        }
    }

    #[test]
    fn limits() {
        let long = "a".repeat(128);
        assert_eq!(
            bad(&format!("x,{long}=1")),
            format!("Parameter '{long}' is too long")
        );
        assert_eq!(
            bad(&format!("x,b.{long}=1")),
            format!("Parameter fragment '{long}' is too long")
        );
        assert!(bad(&format!("x,a{}=1", ".a".repeat(100_000))).ends_with("is nested too deeply"));
    }
}
