//! Names within a type that generated code could not tell apart.
//!
//! Members clash with members of the base, and with those of each branch; branches do not clash with one
//! another. What counts is the name in generated code, where `-` and `.` are `_`.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::{Member, Schema, TypeId, TypeKind};
use crate::limits::MAX_TYPE_DEPTH;
use crate::lookup::{Lookup, Mangled};
use crate::source::Span;

use super::names::mangle;
use super::shape::{Body, Data, RawDefinition, RawMember};
use super::types::Types;

/// A member that is there already: its name and where it is written.
type Seen<'a> = Lookup<Mangled<'a>, (&'a str, Span)>;

pub(crate) fn check(types: &Types, raw: &[RawDefinition<'_>], diagnostics: &mut Vec<Diagnostic>) {
    for (index, definition) in raw.iter().enumerate() {
        match &definition.body {
            Body::Enum { values, .. } => {
                let mut seen = Seen::with_capacity(values.len());
                for value in values {
                    if let Some((other, place)) = seen.add(Mangled(value.name), (value.name, value.span)) {
                        diagnostics.push(enum_clash(value.name, value.span, other, *place));
                    }
                }
            }
            Body::Struct { base, members } => {
                let base_name = base.as_ref().map_or("", |base| base.name);
                let base_id = types.type_of(index).and_then(|id| types.schema.base(id));
                own_members(&types.schema, base_id, base_name, members, diagnostics);
            }
            Body::Command { data, .. } | Body::Event { data, .. } => {
                if let Data::Inline(members) = data {
                    own_members(&types.schema, None, "", members, diagnostics);
                }
            }
            Body::Union { base, .. } => {
                if let Data::Inline(members) = base {
                    own_members(&types.schema, None, "", members, diagnostics);
                }
                if let Some(id) = types.type_of(index) {
                    union_branches(&types.schema, id, diagnostics);
                }
            }
            // Names of alternatives are compared where alternatives are.
            Body::Alternate { .. } => {}
        }
    }
}

fn enum_clash(name: &str, span: Span, other: &str, place: Span) -> Diagnostic {
    let diagnostic = if name == other {
        Diagnostic::error(
            codes::VALUE_CLASH,
            span,
            format!("value '{name}' is listed twice"),
        )
    } else {
        Diagnostic::error(
            codes::VALUE_CLASH,
            span,
            format!("values '{name}' and '{other}' have the same name in generated code"),
        )
        .help(format!("both become `{}`", mangle(name)))
    };
    diagnostic.also(place, "the first one")
}

/// How two members meet.
enum Meeting<'a> {
    /// In one list.
    Same,
    /// One in a struct, the other in its base.
    Base(&'a str),
    /// One in a branch, the other in what is common to all branches.
    Branch(&'a str),
}

fn member_clash(name: &str, span: Span, other: &str, place: Span, meeting: &Meeting<'_>) -> Diagnostic {
    let message = match (name == other, meeting) {
        (true, Meeting::Same) => format!("member '{name}' is there twice"),
        (true, Meeting::Base(base)) => format!("member '{name}' is in base '{base}' already"),
        (true, Meeting::Branch(branch)) => {
            format!("branch '{branch}' adds member '{name}', which the union has already")
        }
        (false, Meeting::Branch(branch)) => format!(
            "member '{name}' of branch '{branch}' and member '{other}' of the union have the same name in generated code"
        ),
        (false, _) => format!("members '{name}' and '{other}' have the same name in generated code"),
    };
    let diagnostic = Diagnostic::error(codes::MEMBER_CLASH, span, message).also(place, "the first one");
    if name == other {
        diagnostic
    } else {
        diagnostic.help(format!("both become `{}`", mangle(name)))
    }
}

fn own_members(
    schema: &Schema,
    base: Option<TypeId>,
    base_name: &str,
    members: &[RawMember<'_>],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let inherited = base.map_or(Vec::new(), |base| schema.members(base));
    let mut seen: Lookup<Mangled<'_>, (&str, Span, bool)> =
        Lookup::with_capacity(inherited.len() + members.len());
    for member in &inherited {
        seen.add(Mangled(&member.name), (&member.name, member.origin.span, true));
    }
    for member in members {
        if let Some((other, place, from_base)) =
            seen.add(Mangled(member.name), (member.name, member.span, false))
        {
            let meeting = if *from_base {
                Meeting::Base(base_name)
            } else {
                Meeting::Same
            };
            diagnostics.push(member_clash(member.name, member.span, other, *place, &meeting));
        }
    }
}

fn union_branches(schema: &Schema, id: TypeId, diagnostics: &mut Vec<Diagnostic>) {
    let Some(union) = schema.as_union(id) else { return };
    let mut common = Seen::default();
    if matches!(schema.type_of(union.base).kind, TypeKind::Struct(_)) {
        for member in schema.members(union.base) {
            common.add(Mangled(&member.name), (&member.name, member.origin.span));
        }
    }
    for branch in &union.branches {
        let (Some(branch_type), Some(origin)) = (branch.branch_type, branch.origin) else {
            continue;
        };
        let meeting = Meeting::Branch(&branch.name);
        let mut levels = vec![&common];
        within_branch(schema, branch_type, &mut levels, &mut |member, other| {
            diagnostics.push(
                member_clash(&member.name, origin.span, other.0, other.1, &meeting)
                    .also(member.origin.span, "the member of the branch"),
            );
        });
    }
}

/// Compares what a branch adds with everything that is there before it. Members of a nested union's
/// branches meet the outer members, too.
fn within_branch<'s>(
    schema: &'s Schema,
    id: TypeId,
    levels: &mut Vec<&Seen<'s>>,
    clash: &mut dyn FnMut(&'s Member, (&'s str, Span)),
) {
    if levels.len() > MAX_TYPE_DEPTH {
        return;
    }
    let members = match &schema.type_of(id).kind {
        TypeKind::Struct(_) => schema.members(id),
        TypeKind::Union(union) => schema.members(union.base),
        _ => return,
    };
    let mut own: Seen<'s> = Seen::default();
    let nested = schema.branches(id);
    for member in members {
        let name = Mangled(&member.name);
        // Members of one level are compared where that type is checked by itself.
        if let Some(other) = levels.iter().find_map(|level| level.get(name)) {
            clash(member, *other);
        } else if !nested.is_empty() {
            own.add(name, (&member.name, member.origin.span));
        }
    }
    if nested.is_empty() {
        return;
    }
    let mut inner: Vec<&Seen<'s>> = levels.clone();
    inner.push(&own);
    for branch in nested {
        if let Some(branch_type) = branch.branch_type {
            // Clashes with the members of this level are that union's own, and told there.
            let mut outer: Vec<&Seen<'s>> = inner.iter().copied().take(levels.len()).collect();
            within_branch(schema, branch_type, &mut outer, clash);
        }
    }
}
