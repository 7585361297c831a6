//! Definitions to types: every use of a name is resolved here, and nowhere else.
//!
//! What cannot be resolved is reported and gets a stand-in. A schema with stand-ins is never given out:
//! they only let the later checks go on. Types that have one are marked faulty, so that those checks do not
//! blame them for what is missing.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::{
    Alternate, Alternative, Branch, Builtin, Command, Condition, Definition, Element, Enum, EnumValue, Event,
    Feature, Implicit, Member, Module, ModuleId, Origin, Schema, Struct, Tag, Type, TypeId, TypeKind,
    TypeRef, Union,
};
use crate::lookup::Map;
use crate::source::{LineIndex, Span};

use super::definitions::{Entity, Found, Ids, Names, QTYPE};
use super::modules::Gathered;
use super::names::Meta;
use super::shape::{Body, Data, RawBranch, RawDefinition, RawFeature, RawMember, RawType};
use super::suggest;

/// The schema in the making.
pub(crate) struct Types {
    /// What there is of it.
    pub schema: Schema,
    /// For each type, whether something in it could not be resolved.
    pub faulty: Vec<bool>,
    /// For each type, the definition that brought it; none for predefined ones.
    pub definition: Vec<Option<usize>>,
    /// For each definition, what it became.
    pub ids: Vec<Ids>,
    /// For each definition, whether its arguments or data could be resolved.
    pub arguments_known: Vec<bool>,
}

impl Types {
    /// Whether something in a type, or in the definition that brought it, is missing.
    pub fn is_faulty(&self, id: TypeId) -> bool {
        self.faulty.get(id.index()).copied().unwrap_or(true)
    }

    /// The type behind a definition.
    pub fn type_of(&self, definition: usize) -> Option<TypeId> {
        match self.ids.get(definition)?.entity {
            Entity::Type(id) => Some(id),
            _ => None,
        }
    }

    /// `struct 'Foo'`, as diagnostics describe a type.
    pub fn describe(&self, of: TypeRef) -> String {
        let schema = &self.schema;
        match (of.array, of.element) {
            (true, _) => format!("array type {}", schema.display(of)),
            (false, Element::Builtin(builtin)) => format!("built-in type '{builtin}'"),
            (false, Element::Type(id)) => {
                let ty = schema.type_of(id);
                format!("{} type '{}'", ty.kind_name(), ty.name)
            }
        }
    }

    /// Where a type is named, for a second label.
    pub fn place(&self, raw: &[RawDefinition<'_>], id: TypeId) -> Option<Span> {
        let definition = self.definition.get(id.index()).copied().flatten()?;
        raw.get(definition).map(|definition| definition.name_span)
    }
}

/// Resolves everything.
pub(crate) fn resolve(
    gathered: &Gathered<'_>,
    raw: &[RawDefinition<'_>],
    names: &Names<'_>,
    lines: &LineIndex<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Types {
    let modules = gathered
        .modules
        .iter()
        .map(|module| Module {
            name: module.name.clone(),
            file: module.file,
            path: String::new(),
            definitions: Vec::new(),
            includes: module.includes.clone(),
            free_docs: Vec::new(),
        })
        .collect();
    let schema = Schema {
        modules,
        types: vec![qtype()],
        commands: Vec::new(),
        events: Vec::new(),
        features: Vec::new(),
    };
    let mut resolver = Resolver {
        names,
        lines,
        diagnostics,
        out: Types {
            schema,
            faulty: vec![false],
            definition: vec![None],
            ids: names.ids.clone(),
            arguments_known: vec![true; raw.len()],
        },
        module: ModuleId::from_index(0),
        faulty: false,
        misshapen: false,
        unknown: Vec::new(),
    };
    for (index, definition) in raw.iter().enumerate() {
        resolver.definition(index, definition);
    }
    resolver.tell_unknown();
    resolver.out
}

/// The enum that is there without a definition.
fn qtype() -> Type {
    let value = |name: &str| EnumValue {
        name: name.to_owned(),
        condition: Condition::Always,
        features: Vec::new(),
        doc: None,
        origin: None,
    };
    Type {
        name: "QType".to_owned(),
        kind: TypeKind::Enum(Enum {
            values: ["none", "qnull", "qnum", "qstring", "qdict", "qlist", "qbool"]
                .map(value)
                .to_vec(),
            prefix: Some("QTYPE".to_owned()),
        }),
        origin: None,
        condition: Condition::Always,
        features: Vec::new(),
        doc: None,
        implicit: Some(Implicit::Predefined),
        recursive: false,
    }
}

struct Resolver<'n, 'd> {
    names: &'n Names<'n>,
    lines: &'n LineIndex<'n>,
    diagnostics: &'d mut Vec<Diagnostic>,
    out: Types,
    /// Of the definition at hand: its module, and whether something in it could not be resolved.
    module: ModuleId,
    faulty: bool,
    /// Of the definition at hand: it is wrong already without any name being resolved.
    misshapen: bool,
    /// Uses of names that are unknown: the name, where it stands and what uses it.
    unknown: Vec<(String, Span, String)>,
}

impl Resolver<'_, '_> {
    /// Reports unknown names: those that look like slips, and all others unless there are enough definitions
    /// without their right names to explain them.
    fn tell_unknown(&mut self) {
        let mut advice: Map<&str, Option<String>> = Map::default();
        for (name, _, _) in &self.unknown {
            advice.entry(name).or_insert_with(|| {
                let meant = suggest::nearest(name, self.names.wrong.iter().copied());
                if meant.is_some() {
                    None
                } else {
                    self.names.advice(name)
                }
            });
        }
        let riddles = advice.values().filter(|advice| advice.is_none()).count();
        let explained = riddles <= self.names.misnamed;
        for (name, span, what) in &self.unknown {
            let mut advice = advice.get(name.as_str()).cloned().flatten();
            if advice.is_none() {
                if explained {
                    continue;
                }
                advice = self.names.advice(name);
            }
            let label = if name.is_empty() {
                "the name is empty"
            } else {
                "not defined in this schema"
            };
            self.diagnostics.push(
                Diagnostic::error(
                    codes::UNKNOWN_TYPE,
                    *span,
                    format!("{what} uses unknown type '{name}'"),
                )
                .note(label)
                .maybe_help(advice),
            );
        }
    }

    fn definition(&mut self, index: usize, raw: &RawDefinition<'_>) {
        let Some(ids) = self.names.ids.get(index).copied() else {
            return;
        };
        self.module = raw.module;
        self.faulty = raw.faulty;
        self.misshapen = raw.faulty;
        match &raw.body {
            Body::Enum { values, prefix } => {
                let values = values
                    .iter()
                    .map(|value| EnumValue {
                        name: value.name.to_owned(),
                        condition: value.condition.clone(),
                        features: self.features(&value.features),
                        doc: None,
                        origin: Some(self.origin(value.span)),
                    })
                    .collect();
                let kind = TypeKind::Enum(Enum {
                    values,
                    prefix: prefix.map(str::to_owned),
                });
                self.add_type(index, raw, kind);
            }
            Body::Struct { base, members } => {
                let base = base.as_ref().and_then(|base| self.base(base, raw));
                let members = self.members(members);
                self.add_type(index, raw, TypeKind::Struct(Struct { base, members }));
            }
            Body::Union {
                base,
                discriminator,
                branches,
            } => {
                let base = match base {
                    Data::Inline(members) => {
                        let own = match ids.entity {
                            Entity::Type(id) => Implicit::Base(id),
                            _ => Implicit::Predefined,
                        };
                        self.implicit(index, raw, ids, members, "base", own)
                    }
                    Data::Named(name) => self.base(name, raw),
                    Data::None => {
                        self.faulty = true;
                        None
                    }
                };
                let branches = branches.iter().map(|branch| self.branch(branch)).collect();
                // A stand-in until the checks of unions have found the tag.
                let tag = Tag {
                    name: discriminator.map_or(String::new(), |(name, _)| name.to_owned()),
                    enumeration: QTYPE,
                    holder: QTYPE,
                    member: 0,
                };
                self.faulty |= base.is_none();
                let base = base.unwrap_or(QTYPE);
                self.add_type(index, raw, TypeKind::Union(Union { base, tag, branches }));
            }
            Body::Alternate { alternatives } => {
                let alternatives = alternatives
                    .iter()
                    .filter_map(|alternative| {
                        let alternative_type =
                            self.reference(alternative.branch_type.as_ref(), "alternative");
                        Some(Alternative {
                            name: alternative.name.to_owned(),
                            alternative_type: alternative_type?,
                            condition: alternative.condition.clone(),
                            doc: None,
                            origin: self.origin(alternative.span),
                        })
                    })
                    .collect();
                self.add_type(index, raw, TypeKind::Alternate(Alternate { alternatives }));
            }
            Body::Command { data, returns, flags } => {
                let owner = match ids.entity {
                    Entity::Command(id) => Implicit::Arguments(id),
                    _ => Implicit::Predefined,
                };
                let arguments = self.arguments(index, raw, ids, data, flags.boxed, owner);
                let returns = match returns {
                    Some(returns) => self.reference(Some(returns), "'returns'"),
                    None => None,
                };
                self.out.schema.commands.push(Command {
                    name: raw.name.to_owned(),
                    arguments,
                    returns,
                    boxed: flags.boxed,
                    generate: !flags.no_gen,
                    success_response: !flags.no_success_response,
                    allow_oob: flags.allow_oob,
                    allow_preconfig: flags.allow_preconfig,
                    coroutine: flags.coroutine,
                    condition: raw.condition.clone(),
                    features: self.features(&raw.features),
                    doc: None,
                    origin: self.origin(raw.span),
                });
            }
            Body::Event { data, boxed } => {
                let owner = match ids.entity {
                    Entity::Event(id) => Implicit::EventData(id),
                    _ => Implicit::Predefined,
                };
                let data = self.arguments(index, raw, ids, data, *boxed, owner);
                self.out.schema.events.push(Event {
                    name: raw.name.to_owned(),
                    data,
                    boxed: *boxed,
                    condition: raw.condition.clone(),
                    features: self.features(&raw.features),
                    doc: None,
                    origin: self.origin(raw.span),
                });
            }
        }
        let definition = match ids.entity {
            Entity::Type(id) => Definition::Type(id),
            Entity::Command(id) => Definition::Command(id),
            Entity::Event(id) => Definition::Event(id),
        };
        if let Some(module) = self.out.schema.modules.get_mut(raw.module.index()) {
            module.definitions.extend(ids.implicit.map(Definition::Type));
            module.definitions.push(definition);
        }
    }

    fn origin(&self, span: Span) -> Origin {
        Origin {
            module: self.module,
            span,
            at: self.lines.at(span),
        }
    }

    fn add_type(&mut self, index: usize, raw: &RawDefinition<'_>, kind: TypeKind) {
        let features = self.features(&raw.features);
        let origin = Some(self.origin(raw.span));
        self.out.schema.types.push(Type {
            name: raw.name.to_owned(),
            kind,
            origin,
            condition: raw.condition.clone(),
            features,
            doc: None,
            implicit: None,
            recursive: false,
        });
        self.out.faulty.push(self.faulty);
        self.out.definition.push(Some(index));
    }

    /// A type for members that are written in place.
    fn implicit(
        &mut self,
        index: usize,
        raw: &RawDefinition<'_>,
        ids: Ids,
        members: &[RawMember<'_>],
        role: &str,
        implicit: Implicit,
    ) -> Option<TypeId> {
        let id = ids.implicit?;
        let members = self.members(members);
        let origin = Some(self.origin(raw.span));
        self.out.schema.types.push(Type {
            name: format!("q_obj_{}-{role}", raw.name),
            kind: TypeKind::Struct(Struct { base: None, members }),
            origin,
            condition: raw.condition.clone(),
            features: Vec::new(),
            doc: None,
            implicit: Some(implicit),
            recursive: false,
        });
        self.out.faulty.push(self.faulty);
        self.out.definition.push(Some(index));
        Some(id)
    }

    fn members(&mut self, members: &[RawMember<'_>]) -> Vec<Member> {
        members
            .iter()
            .map(|member| {
                let member_type = self.reference(member.member_type.as_ref(), "member");
                Member {
                    name: member.name.to_owned(),
                    optional: member.optional,
                    member_type: member_type.unwrap_or(TypeRef::builtin(Builtin::Any)),
                    condition: member.condition.clone(),
                    features: self.features(&member.features),
                    doc: None,
                    origin: self.origin(member.span),
                }
            })
            .collect()
    }

    fn features(&self, features: &[RawFeature<'_>]) -> Vec<Feature> {
        features
            .iter()
            .map(|feature| Feature {
                name: feature.name.to_owned(),
                condition: feature.condition.clone(),
                doc: None,
                origin: self.origin(feature.span),
            })
            .collect()
    }

    fn branch(&mut self, branch: &RawBranch<'_>) -> Branch {
        let mut branch_type = None;
        let origin = self.origin(branch.span);
        match &branch.branch_type {
            Some(raw) => match self.names.find(raw.name) {
                Some(Found::Empty) => {}
                _ => {
                    if let Some(TypeRef { element, array }) = self.reference(Some(raw), "branch") {
                        match element {
                            Element::Type(id)
                                if !array
                                    && !matches!(self.kind_of(id), Some(Meta::Enum | Meta::Alternate)) =>
                            {
                                branch_type = Some(id);
                            }
                            _ => self.wrong_branch(raw, TypeRef { element, array }),
                        }
                    }
                }
            },
            None => self.faulty = true,
        }
        Branch {
            name: branch.name.to_owned(),
            branch_type,
            condition: branch.condition.clone(),
            origin: Some(origin),
            value: 0,
        }
    }

    fn wrong_branch(&mut self, raw: &RawType<'_>, of: TypeRef) {
        self.faulty = true;
        if self.misshapen {
            // It may not have been meant to be a union.
            return;
        }
        let what = self.describe(of, raw.name);
        self.diagnostics.push(
            Diagnostic::error(codes::BRANCH_TYPE, raw.span, format!("a branch cannot be {what}"))
                .help("a branch adds members: name a struct or a union"),
        );
    }

    /// What kind of definition a type is, also of one that comes later.
    fn kind_of(&self, id: TypeId) -> Option<Meta> {
        self.names.meta(id)
    }

    fn describe(&self, of: TypeRef, name: &str) -> String {
        match of {
            TypeRef { array: true, .. } => format!("an array ('[{}]')", name.trim_end_matches("List")),
            TypeRef {
                element: Element::Builtin(builtin),
                ..
            } => format!("the built-in type '{builtin}'"),
            TypeRef {
                element: Element::Type(id),
                ..
            } => match self.kind_of(id) {
                Some(meta) => format!("{} ('{name}')", meta.with_article()),
                None => format!("an enum ('{name}')"),
            },
        }
    }

    /// The base of a struct or union, which must be a struct.
    fn base(&mut self, base: &RawType<'_>, raw: &RawDefinition<'_>) -> Option<TypeId> {
        if raw.meta == Meta::Struct && matches!(self.names.find(base.name), Some(Found::Empty)) {
            return None;
        }
        let found = self.reference(Some(base), "'base'")?;
        match found {
            TypeRef {
                element: Element::Type(id),
                array: false,
            } if self.kind_of(id) == Some(Meta::Struct) => Some(id),
            other => {
                self.faulty = true;
                let what = self.describe(other, base.name);
                self.diagnostics.push(
                    Diagnostic::error(
                        codes::BAD_BASE,
                        base.span,
                        format!(
                            "the base of {} must be a struct, not {what}",
                            raw.meta.with_article()
                        ),
                    )
                    .note("not a struct"),
                );
                None
            }
        }
    }

    fn arguments(
        &mut self,
        index: usize,
        raw: &RawDefinition<'_>,
        ids: Ids,
        data: &Data<'_>,
        boxed: bool,
        owner: Implicit,
    ) -> Option<TypeId> {
        let faulty_before = self.faulty;
        let found = match data {
            Data::None => None,
            Data::Inline(members) => self.implicit(index, raw, ids, members, "arg", owner),
            Data::Named(name) => self.named_arguments(raw, name, boxed),
        };
        let known = !self.faulty || faulty_before;
        if let Some(slot) = self.out.arguments_known.get_mut(index) {
            *slot = known;
        }
        found
    }

    fn named_arguments(
        &mut self,
        raw: &RawDefinition<'_>,
        name: &RawType<'_>,
        boxed: bool,
    ) -> Option<TypeId> {
        if let Some(Found::Empty) = self.names.find(name.name) {
            return None;
        }
        let found = self.reference(Some(name), "'data'")?;
        let id = match found {
            TypeRef {
                element: Element::Type(id),
                array: false,
            } => id,
            other => {
                self.wrong_arguments(raw, name, other);
                return None;
            }
        };
        match self.kind_of(id) {
            Some(Meta::Struct) => Some(id),
            Some(Meta::Union) if boxed => Some(id),
            Some(Meta::Union) => {
                let what = if raw.meta == Meta::Command {
                    "arguments"
                } else {
                    "event data"
                };
                self.diagnostics.push(
                    Diagnostic::error(
                        codes::UNION_NOT_BOXED,
                        name.span,
                        format!("union type '{}' as {what} needs 'boxed': true", name.name),
                    )
                    .help("add `'boxed': true` to this definition"),
                );
                Some(id)
            }
            _ => {
                self.wrong_arguments(raw, name, found);
                None
            }
        }
    }

    fn wrong_arguments(&mut self, raw: &RawDefinition<'_>, name: &RawType<'_>, of: TypeRef) {
        self.faulty = true;
        let what = self.describe(of, name.name);
        self.diagnostics.push(
            Diagnostic::error(
                codes::ARGUMENTS_TYPE,
                name.span,
                format!("'data' of {} cannot be {what}", raw.meta.with_article()),
            )
            .help("'data' is an object of members, or names a struct or a boxed union"),
        );
    }

    /// Resolves the use of a name. Nothing if there is none or it is unknown; then the definition at
    /// hand is faulty.
    fn reference(&mut self, raw: Option<&RawType<'_>>, what: &str) -> Option<TypeRef> {
        let Some(raw) = raw else {
            self.faulty = true;
            return None;
        };
        let found = match self.names.find(raw.name) {
            Some(Found::Builtin(builtin)) => Some(TypeRef::builtin(builtin)),
            Some(Found::Type(id)) => Some(TypeRef::named(id)),
            Some(Found::ArrayOf(element)) => return self.array_name(raw, &element),
            Some(Found::Excused) => None,
            Some(Found::Empty) | None => {
                self.unknown
                    .push((raw.name.to_owned(), raw.span, what.to_owned()));
                None
            }
        };
        self.faulty |= found.is_none();
        found.map(|found| TypeRef {
            array: raw.array,
            ..found
        })
    }

    /// `strList` for `[ 'str' ]`: generated code has such names, and they leak into the language.
    fn array_name(&mut self, raw: &RawType<'_>, element: &Found) -> Option<TypeRef> {
        let name = raw.name.strip_suffix("List").unwrap_or(raw.name);
        if raw.array {
            self.faulty = true;
            self.diagnostics.push(
                Diagnostic::error(
                    codes::BAD_ARRAY,
                    raw.span,
                    format!(
                        "'{}' is the generated name of an array, and there are no arrays of arrays",
                        raw.name
                    ),
                )
                .help(format!("write `[ '{name}' ]`")),
            );
            return None;
        }
        self.diagnostics.push(
            Diagnostic::warning(
                codes::ARRAY_NAME_AS_TYPE,
                raw.span,
                format!("'{}' is the generated name of an array", raw.name),
            )
            .help(format!("write `[ '{name}' ]`")),
        );
        match element {
            Found::Builtin(builtin) => Some(TypeRef::builtin(*builtin).arrayed()),
            Found::Type(id) => Some(TypeRef::named(*id).arrayed()),
            _ => None,
        }
    }
}
