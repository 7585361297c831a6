//! What names may look like, and what becomes of them in generated code.
//!
//! A name is letters, digits, `-` and `_`, and starts with a letter. In front there may be a downstream
//! prefix `__RFQDN_`, and then `x-`; the rules about case look at what is behind both.

use std::borrow::Cow;
use std::fmt::{self, Display};

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::lookup::Mangled;
use crate::source::Span;

/// A name as generated code has it: everything but letters, digits and `_` becomes `_`.
pub fn mangle(name: &str) -> Cow<'_, str> {
    if name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(
            name.chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect(),
        )
    }
}

/// The part of a name that rules about case look at; nothing if it is no name at all.
fn stem(name: &str) -> Option<&str> {
    let rest = match name.strip_prefix("__") {
        Some(rest) => {
            let (domain, rest) = rest.split_once('_')?;
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
            if domain.is_empty() || !domain.bytes().all(valid) {
                return None;
            }
            rest
        }
        None => name,
    };
    let is_stem = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    match rest.get(..2) {
        Some("x-" | "X-") if rest.get(2..).is_some_and(is_stem) => rest.get(2..),
        _ => is_stem(rest).then_some(rest),
    }
}

/// The definitions that have names of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Meta {
    Enum,
    Struct,
    Union,
    Alternate,
    Command,
    Event,
}

impl Meta {
    pub const ALL: [Meta; 6] = [
        Meta::Enum,
        Meta::Struct,
        Meta::Union,
        Meta::Alternate,
        Meta::Command,
        Meta::Event,
    ];

    /// The keyword.
    pub fn word(self) -> &'static str {
        match self {
            Meta::Enum => "enum",
            Meta::Struct => "struct",
            Meta::Union => "union",
            Meta::Alternate => "alternate",
            Meta::Command => "command",
            Meta::Event => "event",
        }
    }

    /// `an enum`
    pub fn with_article(self) -> &'static str {
        match self {
            Meta::Enum => "an enum",
            Meta::Struct => "a struct",
            Meta::Union => "a union",
            Meta::Alternate => "an alternate",
            Meta::Command => "a command",
            Meta::Event => "an event",
        }
    }
}

/// Checks the name of a definition. Gives back whether it is fine.
pub(crate) fn check_definition(
    name: &str,
    span: Span,
    meta: Meta,
    underscore: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    let told = diagnostics.len();
    let word = meta.word();
    let Some(stem) = check_valid(name, span, &word, diagnostics) else {
        return false;
    };
    let has = |wrong: fn(&u8) -> bool| stem.as_bytes().iter().any(wrong);
    let wrong = match meta {
        Meta::Event => has(|byte| byte.is_ascii_lowercase() || *byte == b'-')
            .then(|| ("upper case with `_` between words", shout(name))),
        Meta::Command => (has(u8::is_ascii_uppercase) || (!underscore && stem.contains('_')))
            .then(|| ("lower case with `-` between words", kebab(name))),
        _ => {
            let camel = stem.starts_with(|c: char| c.is_ascii_uppercase())
                && stem.bytes().all(|byte| byte.is_ascii_alphanumeric())
                && has(u8::is_ascii_lowercase);
            (!camel).then(|| ("CamelCase", camel_case(name)))
        }
    };
    if let Some((rule, better)) = wrong {
        let mut diagnostic = Diagnostic::error(
            codes::NAME_CASE,
            span,
            format!("the name of {} must be {rule}", meta.with_article()),
        );
        diagnostic = diagnostic.help(if better != name {
            format!("write '{better}'")
        } else {
            "an upper case letter first, and at least one in lower case".to_owned()
        });
        diagnostics.push(diagnostic);
    }
    if !matches!(meta, Meta::Command | Meta::Event) && name.ends_with("List") {
        diagnostics.push(
            Diagnostic::error(
                codes::RESERVED_NAME,
                span,
                format!("the name of {} must not end in 'List'", meta.with_article()),
            )
            .help("such names are kept for array types"),
        );
    }
    diagnostics.len() == told
}

/// Somebody's description, made only when somebody complains: `member 'foo'`.
#[derive(Clone, Copy)]
pub(crate) struct What<'a>(pub &'a str, pub &'a str);

impl Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1.is_empty() {
            f.write_str(self.0)
        } else {
            write!(f, "{} '{}'", self.0, self.1)
        }
    }
}

/// Checks the name of a member, value, alternative or feature, which `what` describes. `permissive` lifts
/// the rules about case.
pub(crate) fn check_lower(
    name: &str,
    span: Span,
    what: &dyn Display,
    permissive: Option<&str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    let Some(stem) = check_valid(name, span, what, diagnostics) else {
        return false;
    };
    let wrong = stem.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if wrong && permissive != Some("") {
        let mut help = format!("write '{}'", kebab(name));
        if let Some(definition) = permissive {
            help.push_str(&format!(
                "; for an existing interface, list '{definition}' in pragma 'member-name-exceptions'"
            ));
        }
        diagnostics.push(
            Diagnostic::error(
                codes::MEMBER_CASE,
                span,
                format!("the name of {what} must be lower case with `-` between words"),
            )
            .help(help),
        );
        return false;
    }
    true
}

/// Checks the name of a value of an enum, which may start with a digit.
pub(crate) fn check_value(
    name: &str,
    span: Span,
    permissive: Option<&str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        // The digit makes no difference to the rules; a letter in front of it hides it from them.
        let as_name = format!("d{name}");
        let before = diagnostics.len();
        let fine = check_lower(&as_name, span, &What("value", name), permissive, diagnostics);
        for diagnostic in diagnostics.iter_mut().skip(before) {
            diagnostic.message = diagnostic
                .message
                .replace(&format!("'{as_name}'"), &format!("'{name}'"));
            diagnostic.help = diagnostic.help.take().map(|help| help.replacen("'d", "'", 1));
        }
        return fine;
    }
    check_lower(name, span, &What("value", name), permissive, diagnostics)
}

/// Checks a member of an object, whose name has lost its `*`.
pub(crate) fn check_member(
    name: &str,
    span: Span,
    permissive: Option<&str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    let what = What("member", name);
    if !check_lower(name, span, &what, permissive, diagnostics) {
        return false;
    }
    if name == "u" || starts_mangled(name, "has_") {
        diagnostics.push(
            Diagnostic::error(
                codes::RESERVED_NAME,
                span,
                format!("member name '{name}' is reserved"),
            )
            .help("generated code uses `u` for branches and `has_` for optional members"),
        );
        return false;
    }
    true
}

/// Whether a name starts like this in generated code.
fn starts_mangled(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| Mangled(start) == Mangled(prefix))
}

/// Whether it is a name at all, and not one that the generator keeps. `what` describes whose it is.
fn check_valid<'n>(
    name: &'n str,
    span: Span,
    what: &dyn Display,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<&'n str> {
    let Some(stem) = stem(name) else {
        diagnostics.push(
            Diagnostic::error(
                codes::INVALID_NAME,
                span,
                format!("invalid name '{name}' of {}", bare(&what.to_string(), name)),
            )
            .help(why_invalid(name)),
        );
        return None;
    };
    if starts_mangled(name, "q_") {
        diagnostics.push(
            Diagnostic::error(
                codes::RESERVED_NAME,
                span,
                format!("the name '{name}' is reserved"),
            )
            .help("names that start with `q_` or `q-` are kept for generated code"),
        );
        return None;
    }
    Some(stem)
}

/// `member 'a b'` without the name that the sentence has already.
fn bare(what: &str, name: &str) -> String {
    let bare = what.replace(&format!(" '{name}'"), "");
    match bare.split(' ').next() {
        Some("a" | "an" | "the") => bare,
        Some(word) if word.starts_with(['a', 'e', 'i', 'o']) => format!("an {bare}"),
        _ => format!("a {bare}"),
    }
}

fn why_invalid(name: &str) -> String {
    let rule = "names start with a letter and go on with letters, digits, `-` and `_`";
    if name.is_empty() {
        return "a name has at least one letter".to_owned();
    }
    if name.starts_with("__") {
        return "a downstream name is `__`, a reversed domain name, `_` and a name: '__com.example_name'"
            .to_owned();
    }
    if name.starts_with('_') {
        return format!("{rule}; downstream names start with `__com.example_`");
    }
    if let Some(bare) = name.strip_suffix('?').or(name.strip_prefix('?')) {
        return format!("an optional member is written '*{bare}'");
    }
    if name.starts_with('*') {
        return "only members may be optional, and one `*` says so".to_owned();
    }
    match name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_'))
    {
        Some(wrong) => format!("{rule}; `{wrong}` is none of these"),
        None => rule.to_owned(),
    }
}

/// Splits a name into words at marks and at changes of case, with the downstream prefix apart.
fn words(name: &str) -> (String, Vec<String>) {
    let (prefix, rest) = match name.strip_prefix("__").and_then(|rest| rest.split_once('_')) {
        Some((domain, rest)) => (format!("__{domain}_"), rest),
        None => (String::new(), name),
    };
    let mut words: Vec<String> = Vec::new();
    let mut last: Option<char> = None;
    let mut characters = rest.chars().peekable();
    while let Some(c) = characters.next() {
        if !c.is_ascii_alphanumeric() {
            last = None;
            continue;
        }
        let starts = match last {
            None => true,
            Some(last) if c.is_ascii_uppercase() => {
                last.is_ascii_lowercase()
                    || (last.is_ascii_uppercase() && characters.peek().is_some_and(char::is_ascii_lowercase))
            }
            Some(_) => false,
        };
        match words.last_mut() {
            Some(word) if !starts => word.push(c),
            _ => words.push(c.to_string()),
        }
        last = Some(c);
    }
    (prefix, words)
}

fn kebab(name: &str) -> String {
    let (prefix, words) = words(name);
    format!("{prefix}{}", words.join("-").to_ascii_lowercase())
}

fn shout(name: &str) -> String {
    let (prefix, words) = words(name);
    format!("{prefix}{}", words.join("_").to_ascii_uppercase())
}

fn camel_case(name: &str) -> String {
    let (prefix, words) = words(name);
    let mut out = prefix;
    for word in words {
        let lower = word.to_ascii_lowercase();
        let mut characters = lower.chars();
        if let Some(first) = characters.next() {
            out.push(first.to_ascii_uppercase());
        }
        out.push_str(characters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::FileId;

    #[test]
    fn stems() {
        for (name, expected) in [
            ("abc", Some("abc")),
            ("x-abc", Some("abc")),
            ("x-", Some("x-")),
            ("x-1", Some("x-1")),
            ("__com.example_abc", Some("abc")),
            ("__com.example_x-abc", Some("abc")),
            ("__a_b_c", Some("b_c")),
            ("_abc", None),
            ("1abc", None),
            ("__abc", None),
            ("___abc", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(stem(name), expected, "{name}");
        }
    }

    #[test]
    fn proposals() {
        assert_eq!(kebab("fooBar_baz"), "foo-bar-baz");
        assert_eq!(kebab("__com.example_fooBar"), "__com.example_foo-bar");
        assert_eq!(shout("myEvent-two"), "MY_EVENT_TWO");
        assert_eq!(camel_case("block-info"), "BlockInfo");
        assert_eq!(camel_case("ABC"), "Abc");
    }

    #[test]
    fn definitions() {
        let wrong = |name: &str, meta: Meta| {
            let mut diagnostics = Vec::new();
            check_definition(name, Span::new(FileId(0), 0, 0), meta, false, &mut diagnostics);
            diagnostics.into_iter().map(|d| d.code).collect::<Vec<_>>()
        };
        assert_eq!(wrong("FooBar", Meta::Struct), []);
        assert_eq!(wrong("FOO", Meta::Struct), [codes::NAME_CASE]);
        assert_eq!(wrong("Foo_Bar", Meta::Enum), [codes::NAME_CASE]);
        assert_eq!(wrong("FooList", Meta::Union), [codes::RESERVED_NAME]);
        assert_eq!(wrong("foo-bar", Meta::Command), []);
        assert_eq!(wrong("foo_bar", Meta::Command), [codes::NAME_CASE]);
        assert_eq!(wrong("FOO_BAR", Meta::Event), []);
        assert_eq!(wrong("X-FOO", Meta::Event), []);
        assert_eq!(wrong("FOO-BAR", Meta::Event), [codes::NAME_CASE]);
        assert_eq!(wrong("q-foo", Meta::Command), [codes::RESERVED_NAME]);
    }
}
