//! Where a type that contains itself needs a pointer.
//!
//! Only edges on a cycle get one, and as few as will do: first the alternates' branches (one box there,
//! as in `BlockdevRef`, mostly opens every cycle), then optional members, then branches of unions, then
//! what is left.

use crate::ir::{Element, Schema, TypeId, TypeKind, TypeRef};
use std::collections::HashSet;

/// A use of a type by another, without an array between them: the user and the place in it.
pub(super) type Edge = (TypeId, usize);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Alternative,
    Optional,
    Branch,
    Required,
}

struct Use {
    edge: Edge,
    target: TypeId,
    /// Nothing for a base, which cannot be boxed and is on no cycle of bases.
    sort: Option<Sort>,
}

/// The uses that need a box. Places count members, branches or alternatives from 0.
pub(super) fn find(schema: &Schema) -> HashSet<Edge> {
    let mut uses: Vec<Use> = Vec::new();
    for (id, ty) in schema.types().filter(|(_, ty)| ty.is_recursive()) {
        let mut add = |place: usize, of: TypeRef, sort| {
            if let (Element::Type(target), false) = (of.element, of.array)
                && schema.type_of(target).is_recursive()
            {
                uses.push(Use {
                    edge: (id, place),
                    target,
                    sort,
                });
            }
        };
        match &ty.kind {
            TypeKind::Enum(_) => {}
            TypeKind::Struct(found) => {
                if let Some(base) = found.base {
                    add(usize::MAX, TypeRef::named(base), None);
                }
                for (place, member) in found.members.iter().enumerate() {
                    let sort = if member.optional {
                        Sort::Optional
                    } else {
                        Sort::Required
                    };
                    add(place, member.member_type, Some(sort));
                }
            }
            TypeKind::Union(found) => {
                add(usize::MAX, TypeRef::named(found.base), None);
                for (place, branch) in found.branches.iter().enumerate() {
                    if let Some(target) = branch.branch_type {
                        add(place, TypeRef::named(target), Some(Sort::Branch));
                    }
                }
            }
            TypeKind::Alternate(found) => {
                for (place, alternative) in found.alternatives.iter().enumerate() {
                    add(place, alternative.alternative_type, Some(Sort::Alternative));
                }
            }
        }
    }
    let mut boxes = HashSet::new();
    for sort in [Sort::Alternative, Sort::Optional, Sort::Branch, Sort::Required] {
        let on_cycle: Vec<usize> = (0..uses.len())
            .filter(|&at| {
                uses.get(at)
                    .is_some_and(|one| one.sort == Some(sort) && reaches(&uses, one.target, one.edge.0))
            })
            .collect();
        for at in on_cycle.into_iter().rev() {
            boxes.insert(uses.remove(at).edge);
        }
    }
    boxes
}

fn reaches(uses: &[Use], from: TypeId, to: TypeId) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        if id == to {
            return true;
        }
        if seen.insert(id) {
            open.extend(uses.iter().filter(|one| one.edge.0 == id).map(|one| one.target));
        }
    }
    false
}
