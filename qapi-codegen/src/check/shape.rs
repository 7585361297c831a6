//! Definitions as data: which keys they have and what kind of value each is, with names checked one by
//! one. Nothing is looked up here; that is the business of the modules beside this one.

use crate::ast::{Entry, Value, ValueKind, get};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::Comment;
use crate::ir::{Condition, ModuleId};
use crate::source::Span;

use super::members::Members;
use super::modules::{Pragma, RawExpression};
use super::names::{self, Meta};
use super::suggest;

/// A definition with everything in its place.
#[derive(Debug)]
pub(crate) struct RawDefinition<'g> {
    pub meta: Meta,
    pub name: &'g str,
    pub name_span: Span,
    /// Whether the name keeps the rules; another name may be meant otherwise.
    pub name_fits: bool,
    /// From brace to brace.
    pub span: Span,
    pub module: ModuleId,
    pub condition: Condition,
    pub features: Vec<RawFeature<'g>>,
    pub body: Body<'g>,
    pub doc: Option<&'g Comment<'g>>,
    /// Something in it was wrong, so that parts may be missing.
    pub faulty: bool,
}

/// What is particular to a kind of definition.
#[derive(Debug)]
pub(crate) enum Body<'g> {
    Enum {
        values: Vec<RawValue<'g>>,
        prefix: Option<&'g str>,
    },
    Struct {
        base: Option<RawType<'g>>,
        members: Vec<RawMember<'g>>,
    },
    Union {
        base: Data<'g>,
        discriminator: Option<(&'g str, Span)>,
        branches: Vec<RawBranch<'g>>,
    },
    Alternate {
        alternatives: Vec<RawBranch<'g>>,
    },
    Command {
        data: Data<'g>,
        returns: Option<RawType<'g>>,
        flags: Flags,
    },
    Event {
        data: Data<'g>,
        boxed: bool,
    },
}

/// Members in place, or the name of what has them.
#[derive(Debug)]
pub(crate) enum Data<'g> {
    None,
    Inline(Vec<RawMember<'g>>),
    Named(RawType<'g>),
}

/// The flags of a command.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Flags {
    pub boxed: bool,
    pub no_gen: bool,
    pub no_success_response: bool,
    pub allow_oob: bool,
    pub allow_preconfig: bool,
    pub coroutine: bool,
}

#[derive(Debug)]
pub(crate) struct RawFeature<'g> {
    pub name: &'g str,
    pub span: Span,
    pub condition: Condition,
}

#[derive(Debug)]
pub(crate) struct RawValue<'g> {
    pub name: &'g str,
    pub span: Span,
    pub condition: Condition,
    pub features: Vec<RawFeature<'g>>,
}

#[derive(Debug)]
pub(crate) struct RawMember<'g> {
    /// Without its `*`.
    pub name: &'g str,
    pub span: Span,
    pub optional: bool,
    /// Nothing if what stands there is no type.
    pub member_type: Option<RawType<'g>>,
    pub condition: Condition,
    pub features: Vec<RawFeature<'g>>,
}

/// A branch of a union, or an alternative.
#[derive(Debug)]
pub(crate) struct RawBranch<'g> {
    pub name: &'g str,
    pub span: Span,
    pub branch_type: Option<RawType<'g>>,
    pub condition: Condition,
}

/// A type as it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawType<'g> {
    pub name: &'g str,
    pub span: Span,
    pub array: bool,
}

/// Looks into a definition. Nothing if not even its name can be told.
pub(crate) fn shape<'g>(
    expression: &'g RawExpression<'_>,
    pragma: &'g Pragma<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<RawDefinition<'g>> {
    let before = diagnostics.len();
    let keywords: Vec<(Meta, &'g Entry<'_>)> = expression
        .object
        .iter()
        .filter_map(|entry| {
            Meta::ALL
                .into_iter()
                .find(|meta| meta.word() == entry.key)
                .map(|meta| (meta, entry))
        })
        .collect();
    let (meta, entry) = match keywords.as_slice() {
        [one] => *one,
        [] => {
            no_keyword(expression, diagnostics);
            return None;
        }
        [(_, first), (_, second), ..] => {
            diagnostics.push(
                Diagnostic::error(
                    codes::SEVERAL_KEYWORDS,
                    second.key_span,
                    format!("a definition cannot be both '{}' and '{}'", first.key, second.key),
                )
                .also(first.key_span, "the first one")
                .help("give each its own pair of braces"),
            );
            return None;
        }
    };
    let name: &'g str = match &entry.value.kind {
        ValueKind::Str(name) => name,
        ValueKind::Bad => return None,
        other => {
            diagnostics.push(Diagnostic::error(
                codes::NAME_NOT_STRING,
                entry.value.span,
                format!(
                    "the name of {} must be a string, not {}",
                    meta.with_article(),
                    other.describe()
                ),
            ));
            return None;
        }
    };
    let name_span = entry.value.span;
    let underscore = pragma.excuses_command_name(name);
    let name_fits = names::check_definition(name, name_span, meta, underscore, diagnostics);
    let mut shaper = Shaper {
        object: &expression.object,
        members: Members {
            owner: name,
            damaged: expression.damaged,
            permissive: pragma.excuses_member_names(name),
            diagnostics,
        },
        meta,
        name_span,
    };
    let body = shaper.body();
    let condition = shaper
        .members
        .condition(&expression.object, &names::What(meta.word(), name));
    let features = shaper.members.features(&expression.object);
    Some(RawDefinition {
        meta,
        name,
        name_span,
        name_fits,
        span: expression.span,
        module: expression.module,
        condition,
        features,
        body,
        doc: expression.doc.as_ref(),
        faulty: expression.damaged || diagnostics.iter().skip(before).any(Diagnostic::is_error),
    })
}

/// The names of definitions that are too broken to be looked into, so that nobody misses them: what a
/// keyword names, or if there is no keyword, whatever may be a name.
pub(crate) fn names_of<'e>(expression: &'e RawExpression<'_>) -> impl Iterator<Item = &'e str> {
    let is_keyword = |entry: &Entry<'_>| Meta::ALL.into_iter().any(|meta| meta.word() == entry.key);
    let keyword = expression.object.iter().any(is_keyword);
    expression
        .object
        .iter()
        .filter(move |entry| !keyword || is_keyword(entry))
        .filter_map(|entry| match &entry.value.kind {
            ValueKind::Str(name) => Some(&**name),
            _ => None,
        })
}

fn no_keyword(expression: &RawExpression<'_>, diagnostics: &mut Vec<Diagnostic>) {
    if expression.damaged {
        // The keyword may be what was damaged.
        return;
    }
    let keywords = || Meta::ALL.into_iter().map(Meta::word).chain(["include", "pragma"]);
    let open = Span {
        end: expression.span.start + 1,
        ..expression.span
    };
    let first = expression.object.first();
    let misspelt = expression.object.iter().find_map(|entry| {
        let meant = match &*entry.key {
            "type" => Some("struct"),
            key => suggest::nearest(key, keywords()),
        };
        meant.map(|meant| (entry.key_span, meant))
    });
    let diagnostic = match misspelt {
        Some((span, meant)) => Diagnostic::error(
            codes::NO_KEYWORD,
            span,
            "this definition does not say what it defines",
        )
        .help(format!("did you mean '{meant}'?")),
        None => Diagnostic::error(
            codes::NO_KEYWORD,
            first.map_or(open, |entry| entry.key_span),
            "this definition does not say what it defines",
        )
        .help(format!(
            "exactly one key must be one of {}",
            suggest::list(Meta::ALL.into_iter().map(Meta::word))
        )),
    };
    diagnostics.push(diagnostic);
}

struct Shaper<'g, 'a, 'd> {
    object: &'g [Entry<'a>],
    members: Members<'g, 'd>,
    meta: Meta,
    name_span: Span,
}

impl<'g, 'a> Shaper<'g, 'a, '_> {
    fn get(&self, key: &str) -> Option<&'g Entry<'a>> {
        get(self.object, key)
    }

    fn value(&self, key: &str) -> Option<&'g Value<'a>> {
        self.get(key).map(|entry| &entry.value)
    }

    fn keys(&mut self, required: &[&str], optional: &[&str]) {
        let what = self.meta.with_article();
        let told = self.members.diagnostics.len();
        self.members
            .keys(self.object, &what, Some(self.name_span), required, optional);
        let example = match self.meta {
            Meta::Enum => "`'data': [ 'first', 'second' ]`",
            Meta::Struct => "`'data': { 'name': 'str' }`, or `'data': {}` for no members",
            Meta::Union => {
                "`'base': { 'kind': 'SomeEnum' }, 'discriminator': 'kind'`: the base has the member whose value chooses the \
                 branch; values that are told apart by their kind of JSON value alone are an 'alternate'"
            }
            Meta::Alternate => "`'data': { 'name': 'str', 'file': 'File' }`",
            Meta::Command | Meta::Event => return,
        };
        for diagnostic in self.members.diagnostics.iter_mut().skip(told) {
            if diagnostic.code == codes::MISSING_KEY {
                diagnostic.help = Some(example.to_owned());
            }
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.members.diagnostics.push(diagnostic);
    }

    fn wrong_kind(&mut self, value: &Value<'_>, key: &str, wanted: &str) {
        if !matches!(value.kind, ValueKind::Bad) {
            self.report(Diagnostic::error(
                codes::WRONG_KIND,
                value.span,
                format!("'{key}' must be {wanted}, not {}", value.kind.describe()),
            ));
        }
    }

    fn body(&mut self) -> Body<'g> {
        match self.meta {
            Meta::Enum => self.enumeration(),
            Meta::Struct => self.structure(),
            Meta::Union => self.union(),
            Meta::Alternate => self.alternate(),
            Meta::Command => self.command(),
            Meta::Event => self.event(),
        }
    }

    fn enumeration(&mut self) -> Body<'g> {
        self.keys(&["enum", "data"], &["if", "features", "prefix"]);
        let prefix = self.value("prefix").and_then(|value| match &value.kind {
            ValueKind::Str(prefix) => Some(&**prefix),
            _ => {
                self.wrong_kind(value, "prefix", "a string");
                None
            }
        });
        let values = match self.value("data") {
            Some(Value {
                kind: ValueKind::Array(list),
                ..
            }) => list
                .iter()
                .filter_map(|value| self.members.value(value))
                .collect(),
            Some(other) => {
                self.wrong_kind(other, "data", "an array of values");
                Vec::new()
            }
            None => Vec::new(),
        };
        Body::Enum { values, prefix }
    }

    fn structure(&mut self) -> Body<'g> {
        self.keys(&["struct", "data"], &["base", "if", "features"]);
        let members = match self.value("data") {
            Some(Value {
                kind: ValueKind::Object(object),
                ..
            }) => self.members.members(object, true),
            Some(other) => {
                if let ValueKind::Str(name) = &other.kind {
                    self.report(
                        Diagnostic::error(
                            codes::WRONG_KIND,
                            other.span,
                            "'data' of a struct must be an object",
                        )
                        .help(format!(
                            "to take over all members of '{name}', write `'base': '{name}', 'data': {{}}`"
                        )),
                    );
                } else {
                    self.wrong_kind(other, "data", "an object");
                }
                Vec::new()
            }
            None => Vec::new(),
        };
        let base = match self.value("base") {
            Some(value) if !self.members.names_nothing(value, "'base'") => {
                self.members.type_name(value, &"'base'")
            }
            _ => None,
        };
        Body::Struct { base, members }
    }

    fn union(&mut self) -> Body<'g> {
        self.keys(&["union", "base", "discriminator", "data"], &["if", "features"]);
        let base = self
            .value("base")
            .map_or(Data::None, |value| self.members.data(value, "'base'", true));
        let discriminator = self.value("discriminator").and_then(|value| match &value.kind {
            ValueKind::Str(name) => Some((&**name, value.span)),
            _ => {
                self.wrong_kind(value, "discriminator", "the name of a member of 'base'");
                None
            }
        });
        let branches = match self.value("data") {
            Some(Value {
                kind: ValueKind::Object(object),
                ..
            }) => object
                .iter()
                .map(|entry| self.members.branch(entry, "branch", false))
                .collect(),
            Some(other) => {
                self.wrong_kind(other, "data", "an object of branches");
                Vec::new()
            }
            None => Vec::new(),
        };
        Body::Union {
            base,
            discriminator,
            branches,
        }
    }

    fn alternate(&mut self) -> Body<'g> {
        self.keys(&["alternate", "data"], &["if", "features"]);
        let alternatives = match self.value("data") {
            Some(Value {
                kind: ValueKind::Object(object),
                span,
            }) => {
                if object.is_empty() {
                    let mut diagnostic = Diagnostic::error(
                        codes::EMPTY_ALTERNATE,
                        *span,
                        "an alternate needs at least one alternative",
                    );
                    diagnostic = diagnostic.help("`'data': { 'name': 'str', 'number': 'int' }`, for example");
                    self.report(diagnostic);
                }
                object
                    .iter()
                    .map(|entry| {
                        let what = names::What("alternative", &entry.key);
                        names::check_lower(&entry.key, entry.key_span, &what, None, self.members.diagnostics);
                        self.members.branch(entry, "alternative", true)
                    })
                    .collect()
            }
            Some(other) => {
                self.wrong_kind(other, "data", "an object of alternatives");
                Vec::new()
            }
            None => Vec::new(),
        };
        Body::Alternate { alternatives }
    }

    fn command(&mut self) -> Body<'g> {
        self.keys(
            &["command"],
            &[
                "data",
                "returns",
                "boxed",
                "if",
                "features",
                "gen",
                "success-response",
                "allow-oob",
                "allow-preconfig",
                "coroutine",
            ],
        );
        let flags = Flags {
            boxed: self.flag("boxed", true),
            no_gen: self.flag("gen", false),
            no_success_response: self.flag("success-response", false),
            allow_oob: self.flag("allow-oob", true),
            allow_preconfig: self.flag("allow-preconfig", true),
            coroutine: self.flag("coroutine", true),
        };
        if let (true, true, Some(oob), Some(coroutine)) = (
            flags.allow_oob,
            flags.coroutine,
            self.get("allow-oob"),
            self.get("coroutine"),
        ) {
            let (first, second) = if oob.key_span.start < coroutine.key_span.start {
                (oob, coroutine)
            } else {
                (coroutine, oob)
            };
            let diagnostic = Diagnostic::error(
                codes::FLAGS_CONFLICT,
                second.key_span,
                "flags 'allow-oob' and 'coroutine' exclude each other",
            )
            .also(first.key_span, "the other one");
            self.report(diagnostic);
        }
        let data = self.arguments(flags.boxed);
        let returns = self.value("returns").and_then(|value| {
            if self.members.names_nothing(value, "'returns'") {
                return None;
            }
            if let ValueKind::Object(_) = value.kind {
                self.report(
                    Diagnostic::error(codes::ANONYMOUS_TYPE, value.span, "'returns' must name a type")
                        .note("an object has no name")
                        .help("define a struct with these members and name it here"),
                );
                return None;
            }
            self.members.type_ref(value, &"'returns'")
        });
        Body::Command { data, returns, flags }
    }

    fn event(&mut self) -> Body<'g> {
        self.keys(&["event"], &["data", "boxed", "if", "features"]);
        let boxed = self.flag("boxed", true);
        let data = self.arguments(boxed);
        Body::Event { data, boxed }
    }

    /// Whether a flag is there. It has one value only; the other one is what its absence means.
    fn flag(&mut self, key: &'static str, wanted: bool) -> bool {
        let Some(entry) = self.get(key) else { return false };
        match entry.value.kind {
            ValueKind::Bool(value) if value == wanted => true,
            ValueKind::Bad => false,
            ref other => {
                let mut diagnostic = Diagnostic::error(
                    codes::FLAG_VALUE,
                    entry.value.span,
                    format!("flag '{key}' can only be {wanted}"),
                );
                diagnostic = match other {
                    ValueKind::Bool(_) => {
                        diagnostic.help(format!("{} is the default: leave the flag out", !wanted))
                    }
                    ValueKind::Str(text) if &**text == "true" || &**text == "false" => {
                        diagnostic.help(format!("write `{wanted}` without quotes"))
                    }
                    _ => diagnostic,
                };
                self.report(diagnostic);
                false
            }
        }
    }

    /// `data` of a command or an event.
    fn arguments(&mut self, boxed: bool) -> Data<'g> {
        let Some(value) = self.value("data") else {
            if let (true, Some(entry)) = (boxed, self.get("boxed")) {
                let diagnostic = Diagnostic::error(
                    codes::BOXED_WITHOUT_TYPE,
                    entry.key_span,
                    "'boxed' needs a type in 'data'",
                )
                .help("name a struct or union in 'data', or leave 'boxed' out");
                self.report(diagnostic);
            }
            return Data::None;
        };
        if self.members.names_nothing(value, "'data'") {
            return Data::None;
        }
        if boxed {
            if let ValueKind::Object(_) = value.kind {
                let mut diagnostic = Diagnostic::error(
                    codes::BOXED_WITHOUT_TYPE,
                    value.span,
                    "with 'boxed', 'data' must name a type",
                )
                .note("members in place");
                if let Some(entry) = self.get("boxed") {
                    diagnostic = diagnostic.also(entry.key_span, "asked for here");
                }
                self.report(diagnostic.help("define a struct with these members, or leave 'boxed' out"));
                return Data::None;
            }
            return self
                .members
                .type_name(value, &"'data'")
                .map_or(Data::None, Data::Named);
        }
        self.members.data(value, "'data'", false)
    }
}
