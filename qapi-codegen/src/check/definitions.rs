//! Names to entities: types, commands and events share one namespace.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::{Builtin, CommandId, EventId, TypeId};
use crate::lookup::{Mangled, Map, Set, map_for};

use super::names::{Meta, mangle};
use super::shape::{Body, Data, RawDefinition, RawType};
use super::suggest;

/// What a definition became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entity {
    Type(TypeId),
    Command(CommandId),
    Event(EventId),
}

/// The ids of the n-th definition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    /// What the definition is.
    pub entity: Entity,
    /// The implicit type that it brings: inline arguments, event data or base.
    pub implicit: Option<TypeId>,
}

/// All names.
pub(crate) struct Names<'g> {
    /// What each definition became, in order.
    pub ids: Vec<Ids>,
    types: Map<&'g str, TypeId>,
    /// What kind of definition each type is; `None` for the implicit ones.
    metas: Vec<Option<Meta>>,
    /// Names of which there is an array somewhere.
    arrays: Set<&'g str>,
    /// Commands and events, which are no types.
    others: Map<&'g str, Meta>,
    /// Names that were defined in something unreadable.
    lost: Set<&'g str>,
    /// Some file is missing: any unknown name may be in it.
    incomplete: bool,
    /// How many types are not there by the name that their users know: those whose own name is wrong or
    /// taken, and those that could not be read at all.
    pub misnamed: usize,
    /// Names of definitions that break the rules for names.
    pub wrong: Vec<&'g str>,
}

/// What a name of a type stands for.
pub(crate) enum Found {
    Builtin(Builtin),
    Type(TypeId),
    /// The generated name of an array of the element.
    ArrayOf(Box<Found>),
    /// The empty struct that generated code calls `q_empty`.
    Empty,
    /// Unknown, and it is known why.
    Excused,
}

/// `QType` is the first of all types.
pub(crate) const QTYPE: TypeId = TypeId(0);

impl<'g> Names<'g> {
    /// Numbers all definitions and looks for names that are taken.
    pub fn new(
        raw: &[RawDefinition<'g>],
        lost: &[&'g str],
        incomplete: bool,
        nameless: usize,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Names<'g> {
        let mut names = Names {
            ids: Vec::with_capacity(raw.len()),
            types: map_for(raw.len()),
            metas: vec![Some(Meta::Enum)],
            arrays: Set::default(),
            others: Map::default(),
            lost: lost.iter().copied().collect(),
            incomplete,
            misnamed: nameless,
            wrong: Vec::new(),
        };
        let (mut types, mut commands, mut events) = (QTYPE.index() + 1, 0, 0);
        let mut first: Map<&str, &RawDefinition<'g>> = map_for(raw.len());
        let mut mangled: Map<(u8, Mangled<'g>), &RawDefinition<'g>> = Map::default();
        for definition in raw {
            let implicit = match &definition.body {
                Body::Command {
                    data: Data::Inline(members),
                    ..
                }
                | Body::Event {
                    data: Data::Inline(members),
                    ..
                } => !members.is_empty(),
                Body::Union {
                    base: Data::Inline(_),
                    ..
                } => true,
                _ => false,
            };
            arrays_within(&definition.body, &mut names.arrays);
            let implicit = implicit.then(|| {
                types += 1;
                names.metas.push(None);
                TypeId::from_index(types - 1)
            });
            let counter = match definition.meta {
                Meta::Command => &mut commands,
                Meta::Event => &mut events,
                _ => &mut types,
            };
            let index = *counter;
            *counter += 1;
            let entity = match definition.meta {
                Meta::Command => Entity::Command(CommandId::from_index(index)),
                Meta::Event => Entity::Event(EventId::from_index(index)),
                _ => Entity::Type(TypeId::from_index(index)),
            };
            let is_type = matches!(entity, Entity::Type(_));
            if is_type {
                names.metas.push(Some(definition.meta));
            }
            names.ids.push(Ids { entity, implicit });
            if !definition.name_fits {
                names.misnamed += 1;
                names.wrong.push(definition.name);
            }
            if Builtin::by_name(definition.name).is_some() || definition.name == "QType" {
                diagnostics.push(
                    Diagnostic::error(
                        codes::REDEFINED_BUILTIN,
                        definition.name_span,
                        format!("built-in type '{}' is already defined", definition.name),
                    )
                    .help("choose another name; built-in types cannot be replaced"),
                );
                names.misnamed += usize::from(is_type);
                continue;
            }
            if let Some(other) = first.get(definition.name) {
                diagnostics.push(
                    Diagnostic::error(
                        codes::REDEFINED,
                        definition.name_span,
                        format!("{} '{}' is already defined", other.meta.word(), definition.name),
                    )
                    .also(other.name_span, "first defined here")
                    .help("types, commands and events share their names"),
                );
                names.misnamed += usize::from(is_type);
                continue;
            }
            first.insert(definition.name, definition);
            let space = match definition.meta {
                Meta::Command => 0,
                Meta::Event => 1,
                _ => 2,
            };
            if let Some(other) = mangled.insert((space, Mangled(definition.name)), definition) {
                diagnostics.push(
                    Diagnostic::error(
                        codes::MANGLED_CLASH,
                        definition.name_span,
                        format!(
                            "'{}' and '{}' have the same name in generated code",
                            definition.name, other.name
                        ),
                    )
                    .also(other.name_span, "the other one")
                    .help(format!("both become `{}`", mangle(definition.name))),
                );
            }
            match entity {
                Entity::Type(id) => {
                    names.types.insert(definition.name, id);
                }
                Entity::Command(_) | Entity::Event(_) => {
                    names.others.insert(definition.name, definition.meta);
                }
            }
        }
        names
    }

    /// What a name of a type stands for; nothing if it is unknown.
    pub fn find(&self, name: &str) -> Option<Found> {
        if let Some(id) = self.types.get(name) {
            return Some(Found::Type(*id));
        }
        if let Some(builtin) = Builtin::by_name(name) {
            return Some(Found::Builtin(builtin));
        }
        match name {
            "QType" => return Some(Found::Type(QTYPE)),
            "q_empty" => return Some(Found::Empty),
            _ => {}
        }
        if self.incomplete || self.lost.contains(name) {
            return Some(Found::Excused);
        }
        // Arrays of built-in types have a generated name always, other arrays when they are used.
        let element = name.strip_suffix("List")?;
        let found = self.find(element)?;
        let exists = match found {
            Found::Builtin(_) => true,
            Found::Type(_) => self.arrays.contains(element),
            _ => false,
        };
        exists.then(|| Found::ArrayOf(Box::new(found)))
    }

    /// What kind of definition a type is; nothing for an implicit one.
    pub fn meta(&self, id: TypeId) -> Option<Meta> {
        self.metas.get(id.index()).copied().flatten()
    }

    /// Advice about a name of a type that is unknown.
    pub fn advice(&self, name: &str) -> Option<String> {
        if let Some(meta) = self.others.get(name) {
            return Some(format!("'{name}' is {}, which is no type", meta.with_article()));
        }
        let usual = match name.to_ascii_lowercase().as_str() {
            "string" | "text" | "char" | "cstring" => Some("str"),
            "boolean" => Some("bool"),
            "integer" | "long" => Some("int"),
            "uint" | "unsigned" => Some("uint64"),
            "byte" => Some("uint8"),
            "short" => Some("int16"),
            "double" | "float" | "real" => Some("number"),
            "object" | "value" | "dict" => Some("any"),
            "u8" => Some("uint8"),
            "u16" => Some("uint16"),
            "u32" => Some("uint32"),
            "u64" => Some("uint64"),
            "usize" => Some("size"),
            "i8" => Some("int8"),
            "i16" => Some("int16"),
            "i32" => Some("int32"),
            "i64" => Some("int64"),
            "f32" | "f64" => Some("number"),
            _ => None,
        };
        if let Some(usual) = usual {
            return Some(format!("did you mean '{usual}'?"));
        }
        match name.to_ascii_lowercase().as_str() {
            "void" | "none" | "nothing" => {
                return Some("for nothing at all leave the key out; 'null' is the JSON value".to_owned());
            }
            "list" | "array" | "vec" => return Some("an array is written `[ 'str' ]`".to_owned()),
            "bytes" | "binary" | "blob" => {
                return Some("there is no type for bytes: a 'str' in base64 is usual".to_owned());
            }
            _ => {}
        }
        if let Some(element) = name.strip_suffix("List")
            && self.types.contains_key(element)
        {
            return Some(format!("an array is written `[ '{element}' ]`"));
        }
        if let Some(inner) = name
            .strip_suffix("[]")
            .or(name.strip_prefix('[').and_then(|n| n.strip_suffix(']')))
        {
            return Some(format!("an array is written `[ '{inner}' ]`"));
        }
        if let Some(inner) = name.strip_prefix(['*', '?']).or(name.strip_suffix('?')) {
            return Some(format!(
                "a `*` before the name of a member makes it optional; the type is '{inner}'"
            ));
        }
        let known = self.types.keys().copied().chain(Builtin::ALL.map(Builtin::name));
        // The order of a hash map must not show.
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        suggest::did_you_mean(name, known)
    }
}

/// Collects the elements of the arrays that a definition uses.
fn arrays_within<'g>(body: &Body<'g>, arrays: &mut Set<&'g str>) {
    let mut add = |found: Option<&RawType<'g>>| {
        if let Some(found) = found
            && found.array
        {
            arrays.insert(found.name);
        }
    };
    match body {
        Body::Enum { .. } => {}
        Body::Struct { members, .. }
        | Body::Union {
            base: Data::Inline(members),
            ..
        }
        | Body::Event {
            data: Data::Inline(members),
            ..
        } => {
            for member in members {
                add(member.member_type.as_ref());
            }
        }
        Body::Union { .. } | Body::Event { .. } => {}
        Body::Alternate { alternatives } => {
            for alternative in alternatives {
                add(alternative.branch_type.as_ref());
            }
        }
        Body::Command { data, returns, .. } => {
            if let Data::Inline(members) = data {
                for member in members {
                    add(member.member_type.as_ref());
                }
            }
            add(returns.as_ref());
        }
    }
}
