//! Types that hold themselves: an error by way of bases and branches, a fact to note by way of members.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::ir::{Element, TypeId, TypeKind};
use crate::source::Span;

use super::shape::{Body, Data, RawDefinition};
use super::types::Types;

pub(crate) fn check(types: &mut Types, raw: &[RawDefinition<'_>], diagnostics: &mut Vec<Diagnostic>) {
    containment(types, raw, diagnostics);
    mark_recursive(types);
}

/// A type that a struct or union contains as base or branch, and the place that says so.
fn contained(types: &Types, raw: &[RawDefinition<'_>], id: TypeId) -> Vec<(TypeId, Option<Span>)> {
    let definition = types
        .definition
        .get(id.index())
        .copied()
        .flatten()
        .and_then(|index| raw.get(index));
    match &types.schema.type_of(id).kind {
        TypeKind::Struct(found) => {
            let span = definition.and_then(|definition| match &definition.body {
                Body::Struct { base, .. } => base.as_ref().map(|base| base.span),
                _ => None,
            });
            found.base.map(|base| (base, span)).into_iter().collect()
        }
        TypeKind::Union(found) => {
            let span = definition.and_then(|definition| match &definition.body {
                Body::Union {
                    base: Data::Named(base),
                    ..
                } => Some(base.span),
                _ => None,
            });
            let branches = found
                .branches
                .iter()
                .filter_map(|branch| Some((branch.branch_type?, branch.origin.map(|origin| origin.span))));
            std::iter::once((found.base, span)).chain(branches).collect()
        }
        _ => Vec::new(),
    }
}

/// A type on the way, what it contains that is still to be looked at, and where it says what is being
/// looked at now.
type Frame = (TypeId, Vec<(TypeId, Option<Span>)>, Option<Span>);

#[derive(Clone, Copy, PartialEq)]
enum Colour {
    New,
    Open,
    Done,
}

/// Looks for types that contain themselves, tells it, and cuts them open so that later walks end.
fn containment(types: &mut Types, raw: &[RawDefinition<'_>], diagnostics: &mut Vec<Diagnostic>) {
    let count = types.schema.types.len();
    let mut colours = vec![Colour::New; count];
    let mut cuts: Vec<(TypeId, TypeId)> = Vec::new();
    for start in (0..count).map(TypeId::from_index) {
        if colours.get(start.index()) != Some(&Colour::New) {
            continue;
        }
        let mut stack: Vec<Frame> = vec![(start, contained(types, raw, start), None)];
        if let Some(colour) = colours.get_mut(start.index()) {
            *colour = Colour::Open;
        }
        while let Some((id, rest, current)) = stack.last_mut() {
            let id = *id;
            if rest.is_empty() {
                if let Some(colour) = colours.get_mut(id.index()) {
                    *colour = Colour::Done;
                }
                stack.pop();
                continue;
            }
            let (next, span) = rest.remove(0);
            *current = span;
            match colours.get(next.index()) {
                Some(Colour::New) => {
                    if let Some(colour) = colours.get_mut(next.index()) {
                        *colour = Colour::Open;
                    }
                    stack.push((next, contained(types, raw, next), None));
                }
                Some(Colour::Open) => {
                    report(types, raw, &stack, next, diagnostics);
                    cuts.push((id, next));
                }
                _ => {}
            }
        }
    }
    for (holder, held) in cuts {
        if let Some(ty) = types.schema.types.get_mut(holder.index()) {
            match &mut ty.kind {
                TypeKind::Struct(found) => found.base = found.base.filter(|base| *base != held),
                TypeKind::Union(found) => {
                    for branch in &mut found.branches {
                        branch.branch_type = branch.branch_type.filter(|ty| *ty != held);
                    }
                }
                _ => {}
            }
        }
        if let Some(faulty) = types.faulty.get_mut(holder.index()) {
            *faulty = true;
        }
    }
}

fn report(
    types: &Types,
    raw: &[RawDefinition<'_>],
    stack: &[Frame],
    held: TypeId,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let from = stack.iter().position(|(id, _, _)| *id == held).unwrap_or(0);
    let cycle = stack.get(from..).unwrap_or(&[]);
    let ty = types.schema.type_of(held);
    let span = cycle
        .first()
        .and_then(|(_, _, span)| *span)
        .or_else(|| types.place(raw, held));
    let Some(span) = span else { return };
    let mut diagnostic = Diagnostic::error(
        codes::CONTAINS_ITSELF,
        span,
        format!("{} '{}' contains itself", ty.kind_name(), ty.name),
    );
    for (id, _, span) in cycle.iter().skip(1) {
        if let Some(span) = span {
            diagnostic = diagnostic.also(*span, format!("by way of '{}'", types.schema.type_of(*id).name));
        }
    }
    diagnostics.push(diagnostic.help("a base or branch is part of the object; a member may be of any type"));
}

/// Notes which types can hold a value of their own type without an array between: strongly connected
/// components of that relation, found with Tarjan's algorithm without recursion.
fn mark_recursive(types: &mut Types) {
    let count = types.schema.types.len();
    let edges: Vec<Vec<usize>> = (0..count)
        .map(|index| {
            let mut targets = Vec::new();
            types
                .schema
                .elements_within(TypeId::from_index(index), &mut |element, array| {
                    if let (Element::Type(id), false) = (element, array) {
                        targets.push(id.index());
                    }
                });
            targets
        })
        .collect();
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; count];
    let mut low = vec![UNSEEN; count];
    let mut on_stack = vec![false; count];
    let mut stack: Vec<usize> = Vec::new();
    let mut next = 0;
    for start in 0..count {
        if order[start] != UNSEEN {
            continue;
        }
        let mut calls: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((node, edge)) = calls.last_mut() {
            let node = *node;
            if *edge == 0 && order[node] == UNSEEN {
                order[node] = next;
                low[node] = next;
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            if let Some(&target) = edges[node].get(*edge) {
                *edge += 1;
                if order[target] == UNSEEN {
                    calls.push((target, 0));
                } else if on_stack[target] {
                    low[node] = low[node].min(order[target]);
                }
                continue;
            }
            calls.pop();
            if let Some((parent, _)) = calls.last() {
                low[*parent] = low[*parent].min(low[node]);
            }
            if low[node] == order[node] {
                let at = stack.iter().rposition(|member| *member == node).unwrap_or(0);
                let component = stack.split_off(at);
                let recursive = component.len() > 1 || edges[node].contains(&node);
                for member in component {
                    on_stack[member] = false;
                    types.schema.types[member].recursive = recursive;
                }
            }
        }
    }
}
