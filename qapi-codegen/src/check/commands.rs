//! What commands take and return, and what events carry, as far as it takes resolved types to tell.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::{Command, Element, TypeId, TypeKind};
use crate::source::Span;

use super::definitions::Entity;
use super::modules::Pragma;
use super::shape::{Body, Data, RawDefinition};
use super::types::Types;

pub(crate) fn check(
    types: &Types,
    raw: &[RawDefinition<'_>],
    pragma: &Pragma<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for (index, definition) in raw.iter().enumerate() {
        let Some(ids) = types.ids.get(index) else { continue };
        match (&definition.body, ids.entity) {
            (Body::Command { data, returns, flags }, Entity::Command(id)) => {
                let command = types.schema.command(id);
                if !flags.boxed {
                    conditional(types, definition, data, command.arguments, diagnostics);
                }
                if let Some(returns) = returns
                    && !pragma.excuses_returns(definition.name)
                {
                    return_type(types, command, returns.span, diagnostics);
                }
            }
            (Body::Event { data, boxed: false }, Entity::Event(id)) => {
                conditional(types, definition, data, types.schema.event(id).data, diagnostics);
            }
            _ => {}
        }
    }
}

/// Arguments that are passed one by one cannot have conditions.
fn conditional(
    types: &Types,
    definition: &RawDefinition<'_>,
    data: &Data<'_>,
    arguments: Option<TypeId>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some(arguments) = arguments else { return };
    let what = definition.meta.word();
    let members = types.schema.members(arguments);
    for member in members.into_iter().filter(|member| !member.condition.is_always()) {
        let (span, also): (Span, Option<Span>) = match data {
            Data::Named(name) => (name.span, Some(member.origin.span)),
            _ => (member.origin.span, None),
        };
        let mut diagnostic = Diagnostic::error(
            codes::CONDITIONAL_NOT_BOXED,
            span,
            format!(
                "conditional member '{}' in 'data' of {what} '{}' needs 'boxed': true",
                member.name, definition.name
            ),
        );
        diagnostic = match also {
            Some(place) => diagnostic
                .also(place, "the conditional member")
                .help("add `'boxed': true` to this definition"),
            None => diagnostic
                .help("define a struct with these members, name it in 'data', and add `'boxed': true`"),
        };
        diagnostics.push(diagnostic);
        if also.is_some() {
            // One complaint about the named type is enough.
            return;
        }
    }
}

fn return_type(types: &Types, command: &Command, span: Span, diagnostics: &mut Vec<Diagnostic>) {
    let Some(returns) = command.returns else { return };
    let fine = match returns.element {
        Element::Type(id) => {
            matches!(
                types.schema.type_of(id).kind,
                TypeKind::Struct(_) | TypeKind::Union(_)
            )
        }
        Element::Builtin(_) => false,
    };
    if !fine {
        let element = crate::ir::TypeRef {
            array: false,
            ..returns
        };
        let what = if returns.array {
            format!("an array of {}", types.describe(element))
        } else {
            types.describe(element)
        };
        diagnostics.push(
            Diagnostic::error(codes::RETURN_TYPE, span, format!("'returns' of a command cannot be {what}"))
                .help(format!(
                    "return a struct, which can grow members later; for an existing interface, list '{}' in pragma 'command-returns-exceptions'",
                    command.name
                )),
        );
    }
}
