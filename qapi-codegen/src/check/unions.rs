//! Unions: the discriminator, the branches that are written, and the empty ones that are not.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::{Branch, Element, Schema, Tag, Type, TypeId, TypeKind, TypeRef};
use crate::lookup::Lookup;
use crate::source::Span;

use super::shape::{Body, Data, RawDefinition};
use super::suggest;
use super::types::Types;

pub(crate) fn check(types: &mut Types, raw: &[RawDefinition<'_>], diagnostics: &mut Vec<Diagnostic>) {
    for (index, definition) in raw.iter().enumerate() {
        if let (
            Body::Union {
                base, discriminator, ..
            },
            Some(id),
        ) = (&definition.body, types.type_of(index))
        {
            let tag = match discriminator {
                Some(discriminator) => {
                    find_tag(types, raw, definition, id, base, *discriminator, diagnostics)
                }
                None => None,
            };
            match tag {
                Some(tag) => branches(types, raw, definition, id, tag, diagnostics),
                None => {
                    if let Some(faulty) = types.faulty.get_mut(id.index()) {
                        *faulty = true;
                    }
                }
            }
        }
    }
}

/// The struct among `base` and its bases that has a member of this name, and where the member is in it.
fn find_member(schema: &Schema, base: TypeId, name: &str) -> Option<(TypeId, usize)> {
    let mut next = Some(base);
    while let Some(id) = next {
        if let Some(at) = schema
            .own_members(id)
            .iter()
            .position(|member| member.name == name)
        {
            return Some((id, at));
        }
        next = schema.base(id);
    }
    None
}

/// Whether a struct and all its bases are known in full.
fn is_complete(types: &Types, base: TypeId) -> bool {
    let mut next = Some(base);
    while let Some(id) = next {
        if types.is_faulty(id) {
            return false;
        }
        next = types.schema.base(id);
    }
    true
}

fn find_tag(
    types: &Types,
    raw: &[RawDefinition<'_>],
    definition: &RawDefinition<'_>,
    id: TypeId,
    base: &Data<'_>,
    (name, span): (&str, Span),
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Tag> {
    let schema = &types.schema;
    let base_id = schema.as_union(id)?.base;
    if !matches!(schema.type_of(base_id).kind, TypeKind::Struct(_)) {
        // A stand-in for a base that was refused.
        return None;
    }
    let base_name = match base {
        Data::Named(name) => format!("base '{}'", name.name),
        _ => "'base'".to_owned(),
    };
    let Some((holder, member)) = find_member(schema, base_id, name) else {
        let complete = is_complete(types, base_id) && !(definition.faulty && matches!(base, Data::None));
        if complete {
            let members = schema.members(base_id);
            let mut diagnostic = Diagnostic::error(
                codes::NO_DISCRIMINATOR,
                span,
                format!("discriminator '{name}' is not a member of {base_name}"),
            );
            let names = || members.iter().map(|member| member.name.as_str());
            diagnostic = match (name.strip_prefix('*'), members.is_empty()) {
                (Some(bare), _) if names().any(|other| other == bare) => {
                    diagnostic.help(format!("write '{bare}'; the discriminator cannot be optional"))
                }
                (_, true) => diagnostic.help("the base has no members; add one whose type is an enum"),
                _ => diagnostic.help(
                    suggest::did_you_mean(name, names())
                        .unwrap_or_else(|| format!("its members are {}", suggest::list(names().take(8)))),
                ),
            };
            if let (Data::Named(_), Some(place)) = (base, types.place(raw, base_id)) {
                diagnostic = diagnostic.also(place, "the base");
            }
            diagnostics.push(diagnostic);
        }
        return None;
    };
    let found = schema.own_members(holder).get(member)?;
    let place = found.origin.span;
    let enumeration = match found.member_type {
        TypeRef {
            element: Element::Type(id),
            array: false,
        } if matches!(schema.type_of(id).kind, TypeKind::Enum(_)) => Some(id),
        other => {
            // In a faulty type it may be a stand-in.
            if !types.is_faulty(holder) || matches!(other.element, Element::Type(_)) {
                diagnostics.push(
                    Diagnostic::error(
                        codes::DISCRIMINATOR_TYPE,
                        span,
                        format!("discriminator '{name}' of {base_name} must be an enum"),
                    )
                    .also(place, format!("it is of {}", types.describe(other))),
                );
            }
            None
        }
    };
    let mut absent = |why: &str, help: &str| {
        diagnostics.push(
            Diagnostic::error(
                codes::DISCRIMINATOR_ABSENT,
                span,
                format!("discriminator '{name}' of {base_name} must not be {why}"),
            )
            .also(place, "the member")
            .help(help),
        );
    };
    if found.optional {
        absent(
            "optional",
            "drop the `*`: without it nobody knows which branch to read",
        );
    }
    if !found.condition.is_always() {
        absent(
            "conditional",
            "the member must always be there; branches and values may have conditions",
        );
    }
    Some(Tag {
        name: name.to_owned(),
        enumeration: enumeration?,
        holder,
        member,
    })
}

fn branches(
    types: &mut Types,
    raw: &[RawDefinition<'_>],
    definition: &RawDefinition<'_>,
    id: TypeId,
    tag: Tag,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let enum_faulty = types.is_faulty(tag.enumeration);
    let place = types.place(raw, tag.enumeration);
    let enum_type = types.schema.type_of(tag.enumeration);
    let (TypeKind::Enum(enumeration), Some(union)) = (&enum_type.kind, types.schema.as_union(id)) else {
        return;
    };
    let mut positions: Lookup<&str, usize> = Lookup::with_capacity(enumeration.values.len());
    for (at, value) in enumeration.values.iter().enumerate() {
        positions.add(&value.name, at);
    }
    let mut written = vec![false; enumeration.values.len()];
    let mut values = Vec::with_capacity(union.branches.len());
    for branch in &union.branches {
        let position = positions.get(&branch.name).copied();
        values.push(position.unwrap_or(0));
        if let Some(written) = position.and_then(|at| written.get_mut(at)) {
            *written = true;
        } else if !enum_faulty {
            let span = branch.origin.map_or(definition.name_span, |origin| origin.span);
            let mut diagnostic = Diagnostic::error(
                codes::UNKNOWN_BRANCH,
                span,
                format!(
                    "branch '{}' is not a value of enum '{}'",
                    branch.name, enum_type.name
                ),
            );
            if let Some(place) = place {
                diagnostic = diagnostic.also(place, "the enum of the discriminator");
            }
            let names = enumeration.values.iter().map(|value| value.name.as_str());
            diagnostics.push(diagnostic.maybe_help(suggest::did_you_mean(&branch.name, names)));
        }
    }
    let implied: Vec<Branch> = std::iter::zip(&enumeration.values, written)
        .enumerate()
        .filter(|(_, (_, written))| !written)
        .map(|(at, (value, _))| Branch {
            name: value.name.clone(),
            branch_type: None,
            condition: value.condition.clone(),
            origin: None,
            value: at,
        })
        .collect();
    if union.branches.is_empty() && implied.is_empty() && !enum_faulty && !definition.faulty {
        let mut diagnostic =
            Diagnostic::error(codes::NO_BRANCHES, definition.name_span, "union has no branches");
        if let Some(place) = place {
            diagnostic = diagnostic.also(place, "the enum of its discriminator has no values");
        }
        diagnostics.push(diagnostic);
    }
    if let Some(Type {
        kind: TypeKind::Union(union),
        ..
    }) = types.schema.types.get_mut(id.index())
    {
        for (branch, value) in std::iter::zip(&mut union.branches, values) {
            branch.value = value;
        }
        union.branches.extend(implied);
        union.tag = tag;
    }
}
