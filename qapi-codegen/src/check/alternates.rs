//! Alternates: a reader must be able to tell the alternatives apart by the kind of JSON value.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::{Builtin, Element, JsonKind, Schema, TypeKind, TypeRef};
use crate::lookup::{Lookup, Mangled};
use crate::source::Span;

use super::shape::{Body, RawDefinition};
use super::types::Types;

pub(crate) fn check(types: &Types, raw: &[RawDefinition<'_>], diagnostics: &mut Vec<Diagnostic>) {
    for (index, definition) in raw.iter().enumerate() {
        let Body::Alternate { alternatives } = &definition.body else {
            continue;
        };
        let mut seen: Lookup<Mangled<'_>, (&str, Span)> = Lookup::default();
        for alternative in alternatives {
            if let Some((other, place)) =
                seen.add(Mangled(alternative.name), (alternative.name, alternative.span))
            {
                diagnostics.push(
                    Diagnostic::error(
                        codes::ALTERNATIVE_CLASH,
                        alternative.span,
                        format!(
                            "alternatives '{}' and '{other}' have the same name in generated code",
                            alternative.name
                        ),
                    )
                    .also(*place, "the other one"),
                );
            }
        }
        if let Some(id) = types.type_of(index) {
            kinds(types, id, diagnostics);
        }
    }
}

fn kinds(types: &Types, id: crate::ir::TypeId, diagnostics: &mut Vec<Diagnostic>) {
    let schema = &types.schema;
    let TypeKind::Alternate(alternate) = &schema.type_of(id).kind else {
        return;
    };
    // For each kind of JSON value the alternative that takes it.
    let mut taken: Lookup<JsonKind, usize> = Lookup::default();
    for (at, alternative) in alternate.alternatives.iter().enumerate() {
        let span = alternative.origin.span;
        let claims = claims(schema, alternative.alternative_type);
        if claims.is_empty() {
            let help = match alternative.alternative_type.element {
                Element::Builtin(Builtin::Any) => {
                    "'any' takes every value, so that no other alternative could be told from it"
                }
                _ => "list the alternatives of the other alternate here instead",
            };
            diagnostics.push(
                Diagnostic::error(
                    codes::ALTERNATIVE_TYPE,
                    span,
                    format!(
                        "alternative '{}' cannot be of {}",
                        alternative.name,
                        types.describe(alternative.alternative_type)
                    ),
                )
                .help(help),
            );
            continue;
        }
        let rival = claims
            .iter()
            .filter_map(|kind| taken.get(*kind))
            .min()
            .and_then(|rival| alternate.alternatives.get(*rival));
        match rival {
            Some(rival) => {
                let help = match (
                    schema.json_kind(alternative.alternative_type),
                    schema.json_kind(rival.alternative_type),
                ) {
                    (Some(a), Some(b)) if a == b => "both are the same kind of JSON value",
                    _ => {
                        "on the command line every number and boolean is a string, so that a string next to them is ambiguous"
                    }
                };
                diagnostics.push(
                    Diagnostic::error(
                        codes::ALTERNATIVES_ALIKE,
                        span,
                        format!(
                            "alternative '{}' cannot be told from '{}'",
                            alternative.name, rival.name
                        ),
                    )
                    .also(rival.origin.span, "the other one")
                    .help(help),
                );
            }
            None => {
                for kind in claims {
                    taken.add(kind, at);
                }
            }
        }
    }
}

/// The kinds of JSON value that an alternative takes, or might take for a string on a command line. An
/// enum only claims what its values look like.
fn claims(schema: &Schema, of: TypeRef) -> Vec<JsonKind> {
    let Some(kind) = schema.json_kind(of) else {
        return Vec::new();
    };
    let mut claims = vec![kind];
    if kind == JsonKind::String {
        let values = match of.element {
            Element::Type(id) => match &schema.type_of(id).kind {
                TypeKind::Enum(enumeration) => Some(&enumeration.values),
                _ => None,
            },
            Element::Builtin(_) => None,
        };
        let like = |test: &dyn Fn(&str) -> bool| {
            values.is_none_or(|values| values.iter().any(|value| test(&value.name)))
        };
        if like(&|name| name == "on" || name == "off") {
            claims.push(JsonKind::Bool);
        }
        if like(&|name| name.starts_with(|c: char| c.is_ascii_digit() || "-+.".contains(c))) {
            claims.push(JsonKind::Number);
        }
    }
    claims
}
