//! What a server supports: the answer of `query-qmp-schema`, asked by path.
//!
//! A path starts at a command or an event and names one thing a segment:
//!
//! | segment | goes to |
//! |---|---|
//! | `arg-type`, `ret-type` | a command's arguments or result, an event's data |
//! | `member` | a member's type; arrays on the way are passed through |
//! | `*member` | the same, and the member has to be optional |
//! | `+branch` | the type that a union has for this value of its tag |
//! | `^value` | a value of an enumeration |
//! | `$feature` | a feature of what the path came to |
//! | `!type` | the path came to this built-in type |
//!
//! It knows nothing of where the answer came from: a live server, or a schema file.

use crate::document::{Cursor, Document, Token};
use crate::encode::{Encode, Writer};
use crate::scanner::Scanner;
use std::collections::HashMap;
use std::fmt;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A command.
    Command,
    /// An event.
    Event,
    /// A type.
    Type {
        /// The type, briefly: `bool`, `[str]`, `enum (a, b)`, `object`.
        text: String,
        /// It is the type of a member that may be missing.
        optional: bool,
    },
    /// A value, branch or feature: it is there.
    Yes,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Command => f.write_str("command"),
            Found::Event => f.write_str("event"),
            Found::Type {
                text,
                optional: false,
            } => f.write_str(text),
            Found::Type { text, optional: true } => write!(f, "{text} (optional)"),
            Found::Yes => f.write_str("yes"),
        }
    }
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path is none.
    #[error("bad path: {0}")]
    Bad(String),
    /// There is no such thing.
    #[error("{}", not_found_text(.segment, .within, .nearest))]
    NotFound {
        /// The segment that leads nowhere.
        segment: String,
        /// The path before it.
        within: String,
        /// Segments that would have led somewhere and look much alike.
        nearest: Vec<String>,
    },
}

fn not_found_text(segment: &str, within: &str, nearest: &[String]) -> String {
    let mut text = if within.is_empty() {
        format!("no '{segment}'")
    } else {
        format!("no '{segment}' in '{within}'")
    };
    if !nearest.is_empty() {
        text.push_str("; did you mean ");
        text.push_str(
            &nearest
                .iter()
                .map(|name| format!("'{name}'"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        text.push('?');
    }
    text
}

/// Text that is no introspection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the answer of query-qmp-schema: {0}")]
pub struct NotIntrospection(String);

/// Everything that `query-qmp-schema` says.
#[derive(Debug)]
pub struct Introspection {
    document: Document,
    /// Where each entity is in the document's array.
    by_name: HashMap<String, u32>,
}

/// Where a path has come to.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    /// A command or an event.
    Entity(Cursor<'a>),
    /// A type, and the member that has it.
    Type {
        entity: Cursor<'a>,
        member: Option<Cursor<'a>>,
    },
    /// An enumeration's value, perhaps with features.
    Value(Option<Cursor<'a>>),
    /// The end: nothing is below it.
    Leaf,
}

impl Introspection {
    /// Takes the array that `query-qmp-schema` returns, as JSON text.
    ///
    /// # Errors
    ///
    /// When the text is something else.
    pub fn parse(json: &[u8]) -> Result<Self, NotIntrospection> {
        let mut scanner = Scanner::default();
        let mut input = json;
        match scanner.next(&mut input) {
            Some(Ok(document)) => Introspection::new(document.clone()),
            Some(Err(error)) => Err(NotIntrospection(error.to_string())),
            None => Err(NotIntrospection("the text is not complete".into())),
        }
    }

    /// Takes the array that `query-qmp-schema` returns.
    ///
    /// # Errors
    ///
    /// When the document is something else.
    pub fn new(document: Document) -> Result<Self, NotIntrospection> {
        let root = document
            .root()
            .ok_or_else(|| NotIntrospection("there is nothing".into()))?;
        if !matches!(root.token(), Token::Array { .. }) {
            return Err(NotIntrospection("an array is expected".into()));
        }
        let mut by_name = HashMap::new();
        for entity in root.elements() {
            let name =
                text(entity, "name").ok_or_else(|| NotIntrospection("an entity has no name".into()))?;
            if text(entity, "meta-type").is_none() {
                return Err(NotIntrospection(format!("'{name}' has no meta-type")));
            }
            by_name.insert(name.to_owned(), entity.place_in_document());
        }
        Ok(Introspection { document, by_name })
    }

    /// Follows a path.
    ///
    /// # Errors
    ///
    /// When it is malformed or leads nowhere.
    pub fn query(&self, path: &str) -> Result<Found, PathError> {
        let mut segments = path.split('/');
        let first = segments.next().unwrap_or_default();
        if path
            .split('/')
            .any(|segment| segment.trim_start_matches(['*', '+', '^', '$', '!']).is_empty())
        {
            return Err(PathError::Bad(format!("'{path}' has an empty segment")));
        }
        let entity = self.entity(first).ok_or_else(|| PathError::NotFound {
            segment: first.to_owned(),
            within: String::new(),
            nearest: nearest(first, self.by_name.keys().map(String::as_str)),
        })?;
        let mut place = match text(entity, "meta-type") {
            Some("command" | "event") => Place::Entity(entity),
            _ => Place::Type { entity, member: None },
        };
        let mut within = first.to_owned();
        for segment in segments {
            place = self.step(place, segment, &within)?;
            within.push('/');
            within.push_str(segment);
        }
        Ok(match place {
            Place::Entity(entity) if text(entity, "meta-type") == Some("event") => Found::Event,
            Place::Entity(_) => Found::Command,
            Place::Type { entity, member } => Found::Type {
                text: self.describe(entity),
                optional: member.is_some_and(|member| value(member, "default").is_some()),
            },
            Place::Value(_) | Place::Leaf => Found::Yes,
        })
    }

    /// The entity of that name.
    fn entity(&self, name: &str) -> Option<Cursor<'_>> {
        self.by_name.get(name).map(|&place| self.document.cursor(place))
    }

    /// The entity that a member of an entity names.
    fn referenced<'a>(&'a self, of: Cursor<'a>, member: &str) -> Option<Cursor<'a>> {
        self.entity(text(of, member)?)
    }

    fn step<'a>(&'a self, place: Place<'a>, segment: &str, within: &str) -> Result<Place<'a>, PathError> {
        let not_found = |candidates: Vec<String>| PathError::NotFound {
            segment: segment.to_owned(),
            within: within.to_owned(),
            nearest: nearest(segment, candidates.iter().map(String::as_str)),
        };
        if let Some(feature) = segment.strip_prefix('$') {
            let holders: Vec<Cursor<'a>> = match place {
                Place::Entity(entity) => vec![entity],
                Place::Type { entity, member } => member.into_iter().chain([entity]).collect(),
                Place::Value(value) => value.into_iter().collect(),
                Place::Leaf => Vec::new(),
            };
            let features = || {
                holders
                    .iter()
                    .filter_map(|holder| value(*holder, "features"))
                    .flat_map(Cursor::elements)
            };
            return if features().any(|known| known.as_str() == Some(feature)) {
                Ok(Place::Leaf)
            } else {
                Err(not_found(
                    features()
                        .filter_map(|known| Some(format!("${}", known.as_str()?)))
                        .collect(),
                ))
            };
        }
        match place {
            Place::Entity(entity) => {
                let candidates = if text(entity, "meta-type") == Some("event") {
                    vec!["arg-type"]
                } else {
                    vec!["arg-type", "ret-type"]
                };
                if !candidates.contains(&segment) {
                    return Err(not_found(candidates.into_iter().map(str::to_owned).collect()));
                }
                let entity = self
                    .referenced(entity, segment)
                    .ok_or_else(|| not_found(Vec::new()))?;
                Ok(Place::Type { entity, member: None })
            }
            Place::Type { entity, .. } => self.below(entity, segment, 0).map_err(not_found),
            Place::Value(_) | Place::Leaf => Err(PathError::Bad(format!(
                "nothing is below '{within}', so not '{segment}' either"
            ))),
        }
    }

    /// A step down from a type; the error is what could have stood there.
    fn below<'a>(
        &'a self,
        entity: Cursor<'a>,
        segment: &str,
        depth: usize,
    ) -> Result<Place<'a>, Vec<String>> {
        // Introspection of a stranger may well refer to itself without end.
        if depth > MAX_INDIRECTIONS {
            return Err(Vec::new());
        }
        match text(entity, "meta-type") {
            Some("array") => match self.referenced(entity, "element-type") {
                Some(element) => self.below(element, segment, depth + 1),
                None => Err(Vec::new()),
            },
            Some("alternate") => {
                let mut candidates = Vec::new();
                for member in value(entity, "members").into_iter().flat_map(Cursor::elements) {
                    if let Some(inner) = self.referenced(member, "type") {
                        match self.below(inner, segment, depth + 1) {
                            Ok(place) => return Ok(place),
                            Err(others) => candidates.extend(others),
                        }
                    }
                }
                Err(candidates)
            }
            Some("enum") => enum_value(entity, segment),
            Some("object") => self.object_step(entity, segment),
            Some("builtin") => {
                let ours = [text(entity, "name"), text(entity, "json-type")];
                match segment.strip_prefix('!') {
                    Some(name) if ours.contains(&Some(name)) => Ok(Place::Leaf),
                    _ => Err(ours
                        .into_iter()
                        .flatten()
                        .map(|name| format!("!{name}"))
                        .collect()),
                }
            }
            _ => Err(Vec::new()),
        }
    }

    fn object_step<'a>(&'a self, object: Cursor<'a>, segment: &str) -> Result<Place<'a>, Vec<String>> {
        let list = |name| value(object, name).into_iter().flat_map(Cursor::elements);
        if let Some(branch) = segment.strip_prefix('+') {
            let found = list("variants").find(|variant| text(*variant, "case") == Some(branch));
            return match found.and_then(|variant| self.referenced(variant, "type")) {
                Some(entity) => Ok(Place::Type { entity, member: None }),
                None => Err(list("variants")
                    .filter_map(|variant| Some(format!("+{}", text(variant, "case")?)))
                    .collect()),
            };
        }
        let (name, has_to_be_optional) = match segment.strip_prefix('*') {
            Some(name) => (name, true),
            None => (segment, false),
        };
        let is_optional = |member: Cursor<'_>| value(member, "default").is_some();
        let found = list("members")
            .find(|member| text(*member, "name") == Some(name))
            .filter(|member| !has_to_be_optional || is_optional(*member));
        match found.and_then(|member| Some((member, self.referenced(member, "type")?))) {
            Some((member, entity)) => Ok(Place::Type {
                entity,
                member: Some(member),
            }),
            None => {
                let names = list("members").filter(|member| !has_to_be_optional || is_optional(*member));
                let mark = if has_to_be_optional { "*" } else { "" };
                Err(names
                    .filter_map(|member| Some(format!("{mark}{}", text(member, "name")?)))
                    .collect())
            }
        }
    }

    /// A type in a few words.
    fn describe(&self, entity: Cursor<'_>) -> String {
        let name = text(entity, "name").unwrap_or_default();
        match text(entity, "meta-type") {
            Some("builtin") => name.to_owned(),
            Some("array") => match self.referenced(entity, "element-type") {
                Some(element) if text(element, "meta-type") != Some("array") => {
                    format!("[{}]", self.describe(element))
                }
                _ => "array".to_owned(),
            },
            Some("enum") => {
                let values: Vec<&str> = enum_names(entity).collect();
                format!("enum ({})", values.join(", "))
            }
            Some(other) => other.to_owned(),
            None => name.to_owned(),
        }
    }
}

/// Arrays in arrays and alternates in alternates on the way to one member.
const MAX_INDIRECTIONS: usize = 16;

fn value<'a>(object: Cursor<'a>, name: &str) -> Option<Cursor<'a>> {
    object
        .members()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn text<'a>(object: Cursor<'a>, name: &str) -> Option<&'a str> {
    value(object, name)?.as_str()
}

/// The values of an enumeration; servers before QEMU 6.2 give only `values`.
fn enum_names(entity: Cursor<'_>) -> impl Iterator<Item = &str> {
    let members = value(entity, "members").into_iter().flat_map(Cursor::elements);
    let values = match value(entity, "members") {
        Some(_) => None,
        None => value(entity, "values"),
    };
    members.filter_map(|member| text(member, "name")).chain(
        values
            .into_iter()
            .flat_map(Cursor::elements)
            .filter_map(Cursor::as_str),
    )
}

fn enum_value<'a>(entity: Cursor<'a>, segment: &str) -> Result<Place<'a>, Vec<String>> {
    let known = || {
        enum_names(entity)
            .map(|name| format!("^{name}"))
            .collect::<Vec<_>>()
    };
    let Some(wanted) = segment.strip_prefix('^') else {
        return Err(known());
    };
    if !enum_names(entity).any(|name| name == wanted) {
        return Err(known());
    }
    let member = value(entity, "members")
        .into_iter()
        .flat_map(Cursor::elements)
        .find(|member| text(*member, "name") == Some(wanted));
    Ok(Place::Value(member))
}

/// Names that differ from `wanted` by little, the most alike first.
fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let limit = 1 + wanted.len() / 3;
    let mut near: Vec<(usize, &str)> = candidates
        .filter(|candidate| candidate.len().abs_diff(wanted.len()) <= limit)
        .map(|candidate| (distance(wanted, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter()
        .take(3)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// How many characters have to be put in, taken out or replaced to make one of the other.
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&two) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The same answer without what is deprecated in it: commands, events and members of objects, and the member `values` of
/// enumerations, whose values are under `members` too. Values of enumerations stay, and types that nothing uses any more.
///
/// A text that is no introspection is left as it is.
pub(crate) fn without_deprecated(json: &[u8]) -> Vec<u8> {
    let Ok(serde_json::Value::Array(mut entities)) = serde_json::from_slice(json) else {
        return json.to_vec();
    };
    entities.retain(|entity| !is_deprecated(entity));
    for entity in entities.iter_mut().filter_map(serde_json::Value::as_object_mut) {
        entity.shift_remove("values");
        let is_object = entity.get("meta-type").is_some_and(|kind| kind == "object");
        if let Some(serde_json::Value::Array(members)) = entity.get_mut("members")
            && is_object
        {
            members.retain(|member| !is_deprecated(member));
        }
    }
    let mut out = Writer::default();
    serde_json::Value::Array(entities).encode(&mut out);
    out.into_bytes()
}

fn is_deprecated(part: &serde_json::Value) -> bool {
    let features = part.get("features").and_then(serde_json::Value::as_array);
    features.is_some_and(|features| features.iter().any(|feature| feature == "deprecated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Introspection {
        let json = br#"[
            {"name": "transaction", "meta-type": "command", "arg-type": "1", "ret-type": "0", "features": ["deprecated"]},
            {"name": "GONE", "meta-type": "event", "arg-type": "0"},
            {"name": "0", "meta-type": "object", "members": []},
            {"name": "1", "meta-type": "object", "members": [{"name": "actions", "type": "[2]"}, {"name": "mode", "type": "7", "default": null}]},
            {"name": "[2]", "meta-type": "array", "element-type": "2"},
            {"name": "2", "meta-type": "object", "tag": "type",
             "members": [{"name": "type", "type": "3"}], "variants": [{"case": "abort", "type": "0"}, {"case": "drive-backup", "type": "4"}]},
            {"name": "3", "meta-type": "enum", "values": ["abort", "drive-backup"],
             "members": [{"name": "abort"}, {"name": "drive-backup", "features": ["grouped-completion"]}]},
            {"name": "4", "meta-type": "object", "members": [{"name": "data", "type": "5"}]},
            {"name": "5", "meta-type": "object", "members": [{"name": "transactional-cancel", "type": "bool", "default": null, "features": ["unstable"]}, {"name": "target", "type": "8"}, {"name": "names", "type": "[str]"}]},
            {"name": "7", "meta-type": "enum", "values": ["old"]},
            {"name": "8", "meta-type": "alternate", "members": [{"type": "str"}, {"type": "5"}]},
            {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
            {"name": "[str]", "meta-type": "array", "element-type": "str"},
            {"name": "str", "meta-type": "builtin", "json-type": "string"},
            {"name": "[loop]", "meta-type": "array", "element-type": "[loop]"}
        ]"#;
        Introspection::parse(json).unwrap()
    }

    fn ask(path: &str) -> String {
        match sample().query(path) {
            Ok(found) => found.to_string(),
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn paths_that_lead_somewhere() {
        let action = "transaction/arg-type/actions";
        let cases = [
            ("transaction", "command"),
            ("GONE", "event"),
            ("GONE/arg-type", "object"),
            ("transaction/$deprecated", "yes"),
            ("transaction/ret-type", "object"),
            (action, "[object]"),
            ("transaction/arg-type/mode", "enum (old) (optional)"),
            ("transaction/arg-type/mode/^old", "yes"),
        ];
        for (path, expected) in cases {
            assert_eq!(ask(path), expected, "{path}");
        }
        let below = [
            ("type", "enum (abort, drive-backup)"),
            ("type/^drive-backup", "yes"),
            ("type/^drive-backup/$grouped-completion", "yes"),
            ("+drive-backup", "object"),
            ("+drive-backup/data/transactional-cancel", "bool (optional)"),
            ("+drive-backup/data/*transactional-cancel", "bool (optional)"),
            ("+drive-backup/data/transactional-cancel/$unstable", "yes"),
            ("+drive-backup/data/transactional-cancel/!bool", "yes"),
            ("+drive-backup/data/transactional-cancel/!boolean", "yes"),
            ("+drive-backup/data/names", "[str]"),
            ("+drive-backup/data/target", "alternate"),
            ("+drive-backup/data/target/!str", "yes"),
            ("+drive-backup/data/target/names", "[str]"),
        ];
        for (path, expected) in below {
            assert_eq!(ask(&format!("{action}/{path}")), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_lead_nowhere() {
        let cases = [
            ("transactoin", "! no 'transactoin'; did you mean 'transaction'?"),
            ("nothing-like-it", "! no 'nothing-like-it'"),
            ("transaction/args", "! no 'args' in 'transaction'"),
            (
                "transaction/arg-typ",
                "! no 'arg-typ' in 'transaction'; did you mean 'arg-type'?",
            ),
            (
                "transaction/arg-type/*actions",
                "! no '*actions' in 'transaction/arg-type'",
            ),
            (
                "transaction/arg-type/action",
                "! no 'action' in 'transaction/arg-type'; did you mean 'actions'?",
            ),
            (
                "transaction/arg-type/actions/+drive-bakcup",
                "! no '+drive-bakcup' in 'transaction/arg-type/actions'; did you mean '+drive-backup'?",
            ),
            (
                "transaction/arg-type/actions/type/^abor",
                "! no '^abor' in 'transaction/arg-type/actions/type'; did you mean '^abort'?",
            ),
            ("transaction/$unstable", "! no '$unstable' in 'transaction'"),
            (
                "transaction//x",
                "! bad path: 'transaction//x' has an empty segment",
            ),
            ("", "! bad path: '' has an empty segment"),
            (
                "transaction/$deprecated/x",
                "! bad path: nothing is below 'transaction/$deprecated', so not 'x' either",
            ),
            ("[loop]/x", "! no 'x' in '[loop]'"),
        ];
        for (path, expected) in cases {
            assert_eq!(ask(path), expected, "{path}");
        }
    }

    #[test]
    fn text_that_is_no_introspection() {
        for text in ["{}", "[1]", "[{\"name\": \"a\"}]", "[", "nope "] {
            assert!(Introspection::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
