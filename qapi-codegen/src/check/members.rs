//! The parts that definitions have in common: members, types, features, conditions, sets of keys.

use std::fmt::Display;

use crate::ast::{Entry, Object, Value, ValueKind, get};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::Condition;
use crate::source::Span;

use super::names::{self, What};
use super::shape::{Data, RawBranch, RawFeature, RawMember, RawType, RawValue};
use super::suggest;

/// The key that goes by another name in other languages, or did in older schemas.
fn usual_slip(key: &str) -> Option<&'static str> {
    Some(match key {
        "members" | "fields" | "properties" | "values" | "args" | "arguments" | "params" | "parameters"
        | "branches" | "members-of" => "data",
        "extends" | "inherits" | "parent" | "super" => "base",
        "tag" | "switch" | "selector" => "discriminator",
        "return" | "result" | "response" | "output" => "returns",
        "when" | "condition" | "ifdef" => "if",
        "and" => "all",
        "or" => "any",
        "oob" => "allow-oob",
        "preconfig" => "allow-preconfig",
        "async" => "coroutine",
        _ => return None,
    })
}

/// What other languages have a key for, and this one says in another way.
fn foreign_key(key: &str) -> Option<&'static str> {
    Some(match key {
        "optional" | "required" | "nullable" => {
            "a `*` before the name makes a member optional: `'*name': 'str'`"
        }
        "default" => {
            "there are no default values: make the member optional, and say in its documentation what its absence means"
        }
        "description" | "doc" | "docs" | "comment" | "summary" | "title" => {
            "descriptions stand in a documentation comment above the definition"
        }
        "deprecated" | "unstable" => "write `'features': [ 'deprecated' ]` or `'features': [ 'unstable' ]`",
        "name" => "the name stands behind the keyword: `'struct': 'Name'`",
        "errors" | "throws" => "which errors there are is said in the documentation, below `Errors:`",
        _ => return None,
    })
}

/// A condition as C has it, in the words of the language; nothing if it is too much for one line.
fn condition_from_c(text: &str) -> Option<String> {
    let term = |term: &str| {
        let term = term.trim();
        let (negated, term) = match term.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, term),
        };
        let name = term.strip_prefix("defined").unwrap_or(term).trim();
        let name = name
            .strip_prefix('(')
            .and_then(|name| name.strip_suffix(')'))
            .unwrap_or(name);
        let name = name.trim().to_ascii_uppercase();
        is_symbol(&name).then(|| {
            if negated {
                format!("{{ 'not': '{name}' }}")
            } else {
                format!("'{name}'")
            }
        })
    };
    let list = |operator: &str, separator: &str| {
        let terms: Option<Vec<String>> = text.split(separator).map(term).collect();
        Some(format!("{{ '{operator}': [ {} ] }}", terms?.join(", ")))
    };
    match (text.contains("&&"), text.contains("||")) {
        (true, true) => None,
        (true, false) => list("all", "&&"),
        (false, true) => list("any", "||"),
        (false, false) => term(text),
    }
}

fn is_symbol(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Reads the parts of one definition.
pub(super) struct Members<'g, 'd> {
    /// The definition's name.
    pub owner: &'g str,
    /// Something in the definition could not be read, so that what seems to be missing may be there.
    pub damaged: bool,
    /// Whether its members may have upper case and `_` in their names.
    pub permissive: bool,
    pub diagnostics: &'d mut Vec<Diagnostic>,
}

impl<'g> Members<'g, '_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// What [`names::check_lower`] wants to know: whether rules are lifted, or what would lift them.
    fn exception(&self) -> Option<&'g str> {
        Some(if self.permissive { "" } else { self.owner })
    }

    /// Checks which keys an object has. `place` is where to complain of a missing key; without one it is
    /// the object's first key.
    pub fn keys(
        &mut self,
        object: &[Entry<'_>],
        what: &dyn Display,
        place: Option<Span>,
        required: &[&str],
        optional: &[&str],
    ) {
        let known = || required.iter().chain(optional).copied();
        let unknown = |entry: &&Entry<'_>| !known().any(|key| key == entry.key);
        let missing: Vec<&str> = required
            .iter()
            .copied()
            .filter(|key| !object.iter().any(|entry| entry.key == *key))
            .collect();
        let strangers: Vec<&Entry<'_>> = object.iter().filter(unknown).collect();
        // A misspelt key is both unknown and missing; one complaint suffices.
        let mut mended: Vec<&str> = Vec::new();
        for entry in &strangers {
            let slip = usual_slip(&entry.key).and_then(|slip| known().find(|key| *key == slip));
            let meant = slip
                .or_else(|| suggest::nearest(&entry.key, known()))
                .or_else(|| {
                    // One key too many and one too few: most likely the one stands for the other.
                    match missing.as_slice() {
                        [only] if strangers.len() == 1 && foreign_key(&entry.key).is_none() => Some(*only),
                        _ => None,
                    }
                });
            if let Some(meant) = meant {
                mended.push(meant);
            }
            let help = match (meant, foreign_key(&entry.key)) {
                (Some(meant), _) => format!("did you mean '{meant}'?"),
                (None, Some(help)) => help.to_owned(),
                (None, None) => {
                    format!("the keys that {what} may have are {}", suggest::list(known()))
                }
            };
            self.diagnostics.push(
                Diagnostic::error(
                    codes::UNKNOWN_KEY,
                    entry.key_span,
                    format!("{what} has no key '{}'", entry.key),
                )
                .help(help),
            );
        }
        let missing: Vec<&str> = missing.into_iter().filter(|key| !mended.contains(key)).collect();
        if let (false, false, Some(place)) = (
            self.damaged,
            missing.is_empty(),
            place.or(object.first().map(|entry| entry.key_span)),
        ) {
            let plural = if missing.len() > 1 { "keys" } else { "key" };
            self.report(Diagnostic::error(
                codes::MISSING_KEY,
                place,
                format!("{what} needs the {plural} {}", suggest::list(missing)),
            ));
        }
    }

    /// The members of an object. `exceptions` says whether a pragma can lift the rules on their names.
    pub fn members(&mut self, object: &'g Object<'_>, exceptions: bool) -> Vec<RawMember<'g>> {
        object
            .iter()
            .map(|entry| self.member(entry, exceptions))
            .collect()
    }

    fn member(&mut self, entry: &'g Entry<'_>, exceptions: bool) -> RawMember<'g> {
        let key: &'g str = &entry.key;
        let (name, optional) = match key.strip_prefix('*') {
            Some(name) => (name, true),
            None => (key, false),
        };
        let exception = if exceptions { self.exception() } else { None };
        names::check_member(name, entry.key_span, exception, self.diagnostics);
        let mut member = RawMember {
            name,
            span: entry.key_span,
            optional,
            member_type: None,
            condition: Condition::Always,
            features: Vec::new(),
        };
        let what = What("member", name);
        match &entry.value.kind {
            ValueKind::Object(object) => {
                if self.long_form(object, &entry.value, &what, &["if", "features"]) {
                    member.member_type =
                        get(object, "type").and_then(|entry| self.type_ref(&entry.value, &what));
                }
                member.condition = self.condition(object, &what);
                member.features = self.features(object);
            }
            _ => member.member_type = self.type_ref(&entry.value, &what),
        }
        member
    }

    /// Checks the keys of `{ 'type': ... }`. False if it is something else altogether.
    fn long_form(
        &mut self,
        object: &'g Object<'_>,
        value: &Value<'_>,
        what: &dyn Display,
        optional: &[&str],
    ) -> bool {
        let known = |key: &str| key == "type" || optional.contains(&key);
        if get(object, "type").is_none()
            && !object
                .iter()
                .any(|entry| known(&entry.key) || suggest::nearest(&entry.key, ["type"]).is_some())
        {
            let diagnostic = if object.is_empty() {
                Diagnostic::error(
                    codes::MISSING_KEY,
                    value.span,
                    format!("{what} needs the key 'type'"),
                )
            } else {
                Diagnostic::error(
                    codes::ANONYMOUS_TYPE,
                    value.span,
                    format!("{what} needs a type with a name, not members in place"),
                )
            };
            self.report(diagnostic.help(
                "an object stands for the long form `{ 'type': 'Name', 'if': ... }`; for an object with members define a struct",
            ));
            return false;
        }
        self.keys(object, what, Some(value.span), &["type"], optional);
        true
    }

    /// A branch of a union or an alternative.
    pub fn branch(&mut self, entry: &'g Entry<'_>, word: &str, arrays: bool) -> RawBranch<'g> {
        let what = What(word, &entry.key);
        let mut branch = RawBranch {
            name: &entry.key,
            span: entry.key_span,
            branch_type: None,
            condition: Condition::Always,
        };
        let type_of = |members: &mut Members<'g, '_>, value: &'g Value<'_>| {
            if arrays {
                members.type_ref(value, &what)
            } else {
                members.type_name(value, &what)
            }
        };
        match &entry.value.kind {
            ValueKind::Object(object) => {
                if self.long_form(object, &entry.value, &what, &["if"]) {
                    branch.branch_type = get(object, "type").and_then(|entry| type_of(self, &entry.value));
                }
                branch.condition = self.condition(object, &what);
            }
            _ => branch.branch_type = type_of(self, &entry.value),
        }
        branch
    }

    /// A value of an enum.
    pub fn value(&mut self, value: &'g Value<'_>) -> Option<RawValue<'g>> {
        let object = match &value.kind {
            ValueKind::Str(name) => {
                names::check_value(name, value.span, self.exception(), self.diagnostics);
                return Some(RawValue {
                    name,
                    span: value.span,
                    condition: Condition::Always,
                    features: Vec::new(),
                });
            }
            ValueKind::Object(object) => object,
            ValueKind::Bad => return None,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::WRONG_KIND,
                    value.span,
                    format!(
                        "a value of an enum must be a string or an object, not {}",
                        other.describe()
                    ),
                );
                self.report(diagnostic);
                return None;
            }
        };
        self.keys(
            object,
            &"a value of an enum",
            Some(value.span),
            &["name"],
            &["if", "features"],
        );
        let named = self.name_of(object, &"a value of an enum");
        let what = named.map_or(What("a value", ""), |(name, _)| What("value", name));
        let condition = self.condition(object, &what);
        let features = self.features(object);
        let (name, span) = named?;
        names::check_value(name, span, self.exception(), self.diagnostics);
        Some(RawValue {
            name,
            span,
            condition,
            features,
        })
    }

    fn name_of(&mut self, object: &'g Object<'_>, what: &dyn Display) -> Option<(&'g str, Span)> {
        let value = &get(object, "name")?.value;
        match &value.kind {
            ValueKind::Str(name) => Some((name, value.span)),
            ValueKind::Bad => None,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::NAME_NOT_STRING,
                    value.span,
                    format!("the name of {what} must be a string, not {}", other.describe()),
                );
                self.report(diagnostic);
                None
            }
        }
    }

    /// The features of a definition, member or value.
    pub fn features(&mut self, object: &'g [Entry<'_>]) -> Vec<RawFeature<'g>> {
        let Some(entry) = get(object, "features") else {
            return Vec::new();
        };
        match &entry.value.kind {
            ValueKind::Array(list) => list.iter().filter_map(|value| self.feature(value)).collect(),
            ValueKind::Bad => Vec::new(),
            other => {
                let mut diagnostic = Diagnostic::error(
                    codes::WRONG_KIND,
                    entry.value.span,
                    format!("'features' must be an array, not {}", other.describe()),
                );
                if let ValueKind::Str(name) = other {
                    diagnostic = diagnostic.help(format!("write `[ '{name}' ]`"));
                }
                self.report(diagnostic);
                Vec::new()
            }
        }
    }

    fn feature(&mut self, value: &'g Value<'_>) -> Option<RawFeature<'g>> {
        let (name, span, condition) = match &value.kind {
            ValueKind::Str(name) => (&**name, value.span, Condition::Always),
            ValueKind::Object(object) => {
                self.keys(object, &"a feature", Some(value.span), &["name"], &["if"]);
                let named = self.name_of(object, &"a feature");
                let what = named.map_or(What("a feature", ""), |(name, _)| What("feature", name));
                let condition = self.condition(object, &what);
                let (name, span) = named?;
                (name, span, condition)
            }
            ValueKind::Bad => return None,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::WRONG_KIND,
                    value.span,
                    format!(
                        "a feature must be a string or an object, not {}",
                        other.describe()
                    ),
                );
                self.report(diagnostic);
                return None;
            }
        };
        names::check_lower(name, span, &What("feature", name), None, self.diagnostics);
        Some(RawFeature {
            name,
            span,
            condition,
        })
    }

    /// Members in place or the name of a type.
    pub fn data(&mut self, value: &'g Value<'_>, key: &str, exceptions: bool) -> Data<'g> {
        match &value.kind {
            ValueKind::Object(object) => Data::Inline(self.members(object, exceptions)),
            ValueKind::Str(name) => Data::Named(RawType {
                name,
                span: value.span,
                array: false,
            }),
            ValueKind::Bad => Data::None,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::NOT_A_TYPE,
                    value.span,
                    format!(
                        "{key} must be an object or the name of a type, not {}",
                        other.describe()
                    ),
                );
                self.report(diagnostic);
                Data::None
            }
        }
    }

    /// Whether an empty name stands where a type may be left out. It says nothing, and is let pass as that.
    pub fn names_nothing(&mut self, value: &Value<'_>, what: &str) -> bool {
        let nothing = matches!(&value.kind, ValueKind::Str(name) if name.is_empty());
        if nothing {
            self.report(
                Diagnostic::warning(
                    codes::UNKNOWN_TYPE,
                    value.span,
                    format!("{what} names no type, and is taken as if it were not there"),
                )
                .help("leave the key out, or name a type"),
            );
        }
        nothing
    }

    /// The name of a type; no array.
    pub fn type_name(&mut self, value: &'g Value<'_>, what: &dyn Display) -> Option<RawType<'g>> {
        match &value.kind {
            ValueKind::Str(name) => Some(RawType {
                name,
                span: value.span,
                array: false,
            }),
            ValueKind::Bad => None,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::NOT_A_TYPE,
                    value.span,
                    format!("{what} must be the name of a type, not {}", other.describe()),
                );
                let help = match other {
                    ValueKind::Object(_) => "define a struct with these members, and name it here",
                    _ => "one name, in quotes",
                };
                self.report(diagnostic.help(help));
                None
            }
        }
    }

    /// The name of a type, or an array of one.
    pub fn type_ref(&mut self, value: &'g Value<'_>, what: &dyn Display) -> Option<RawType<'g>> {
        match &value.kind {
            ValueKind::Str(name) => Some(RawType {
                name,
                span: value.span,
                array: false,
            }),
            ValueKind::Array(list) => match list.as_slice() {
                [
                    Value {
                        kind: ValueKind::Str(name),
                        span,
                    },
                ] => Some(RawType {
                    name,
                    span: *span,
                    array: true,
                }),
                [
                    Value {
                        kind: ValueKind::Bad, ..
                    },
                ] => None,
                other => {
                    let help = match other {
                        [
                            Value {
                                kind: ValueKind::Array(_),
                                ..
                            },
                        ] => "there are no arrays of arrays; put the inner one into a struct",
                        _ => "an array type is one name in brackets: `[ 'str' ]`",
                    };
                    self.report(
                        Diagnostic::error(
                            codes::BAD_ARRAY,
                            value.span,
                            format!("the array type of {what} must hold the name of one type"),
                        )
                        .help(help),
                    );
                    None
                }
            },
            ValueKind::Bad => None,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::NOT_A_TYPE,
                    value.span,
                    format!("{what} must be a type, not {}", other.describe()),
                )
                .help("a type is a name, or a name in brackets for an array");
                self.report(diagnostic);
                None
            }
        }
    }

    /// The condition of something that `what` describes.
    pub fn condition(&mut self, object: &[Entry<'_>], what: &dyn Display) -> Condition {
        match get(object, "if") {
            Some(entry) => self.condition_value(&entry.value, what),
            None => Condition::Always,
        }
    }

    fn condition_value(&mut self, value: &Value<'_>, what: &dyn Display) -> Condition {
        match &value.kind {
            ValueKind::Str(symbol) => self.symbol(symbol, value.span),
            ValueKind::Object(object) => self.operator(object, value.span, what),
            ValueKind::Bad => Condition::Always,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::BAD_CONDITION,
                    value.span,
                    format!(
                        "the condition of {what} must be a string or an object, not {}",
                        other.describe()
                    ),
                );
                let diagnostic = match other {
                    ValueKind::Array(_) => {
                        diagnostic.help("say which are needed: `{ 'all': [ ... ] }` or `{ 'any': [ ... ] }`")
                    }
                    _ => diagnostic,
                };
                self.report(diagnostic);
                Condition::Always
            }
        }
    }

    fn symbol(&mut self, symbol: &str, span: Span) -> Condition {
        if !is_symbol(symbol) {
            let diagnostic = Diagnostic::error(
                codes::BAD_SYMBOL,
                span,
                format!("condition '{symbol}' is not the name of a symbol"),
            );
            let help = if symbol.trim().is_empty() {
                "name a symbol, or leave 'if' out".to_owned()
            } else if let Some(better) = condition_from_c(symbol) {
                format!("write `{better}`")
            } else if symbol.contains("defined")
                || symbol.contains("&&")
                || symbol.contains("||")
                || symbol.starts_with('!')
            {
                "write `{ 'all': [ ... ] }`, `{ 'any': [ ... ] }` or `{ 'not': ... }` over names of symbols"
                    .to_owned()
            } else {
                "symbols are upper case letters, digits and `_`, and start with a letter".to_owned()
            };
            self.report(diagnostic.help(help));
        }
        Condition::Symbol(symbol.to_owned())
    }

    fn operator(&mut self, object: &Object<'_>, span: Span, what: &dyn Display) -> Condition {
        let operators = ["all", "any", "not"];
        if let Some(stranger) = object.iter().position(|entry| !operators.contains(&&*entry.key)) {
            // One is enough: several show that something else was meant to stand here.
            let stranger = object.get(stranger..=stranger).unwrap_or(&[]);
            self.keys(stranger, &"a condition", Some(span), &[], &operators);
            return Condition::Always;
        }
        let [entry] = object.as_slice() else {
            let diagnostic = match object.get(1) {
                Some(second) => Diagnostic::error(
                    codes::BAD_CONDITION,
                    second.key_span,
                    format!("the condition of {what} has several operators"),
                )
                .help("nest them: `{ 'all': [ 'A', { 'not': 'B' } ] }`"),
                None => Diagnostic::error(
                    codes::BAD_CONDITION,
                    span,
                    format!("the condition of {what} has no operator"),
                )
                .help("write `{ 'all': [ ... ] }`, `{ 'any': [ ... ] }` or `{ 'not': ... }`"),
            };
            self.report(diagnostic);
            return Condition::Always;
        };
        if let ("not", ValueKind::Array(_)) = (&*entry.key, &entry.value.kind) {
            let diagnostic = Diagnostic::error(
                codes::BAD_CONDITION,
                entry.value.span,
                format!("'not' in the condition of {what} takes one condition, not an array"),
            )
            .help("write `{ 'not': 'SYMBOL' }`, or `{ 'not': { 'any': [ ... ] } }` for none of several");
            self.report(diagnostic);
            return Condition::Always;
        }
        if entry.key == "not" {
            return Condition::Not(Box::new(self.condition_value(&entry.value, what)));
        }
        let list = match &entry.value.kind {
            ValueKind::Array(list) => list,
            ValueKind::Bad => return Condition::Always,
            other => {
                let diagnostic = Diagnostic::error(
                    codes::BAD_CONDITION,
                    entry.value.span,
                    format!(
                        "'{}' in the condition of {what} must be an array, not {}",
                        entry.key,
                        other.describe()
                    ),
                );
                self.report(diagnostic);
                return Condition::Always;
            }
        };
        if list.is_empty() {
            let diagnostic = Diagnostic::error(
                codes::BAD_CONDITION,
                entry.value.span,
                format!("the condition of {what} has an empty list, which says nothing"),
            )
            .help("name at least one symbol, or leave 'if' out");
            self.report(diagnostic);
            return Condition::Always;
        }
        let list = list
            .iter()
            .map(|value| self.condition_value(value, what))
            .collect();
        if entry.key == "all" {
            Condition::All(list)
        } else {
            Condition::Any(list)
        }
    }
}
