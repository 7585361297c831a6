//! Questions that every back end asks.

use super::{
    Branch, Builtin, Command, CommandId, Definition, Element, Event, EventId, Feature, Implicit, JsonKind,
    Member, Module, ModuleId, Origin, Schema, Struct, Type, TypeId, TypeKind, TypeRef, Union,
};

impl Schema {
    /// The modules: the root first, then in the order in which they are first included.
    pub fn modules(&self) -> impl Iterator<Item = (ModuleId, &Module)> {
        (0..).map(ModuleId).zip(&self.modules)
    }

    /// All types; predefined and implicit ones too.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        (0..).map(TypeId).zip(&self.types)
    }

    /// All commands.
    pub fn commands(&self) -> impl Iterator<Item = (CommandId, &Command)> {
        (0..).map(CommandId).zip(&self.commands)
    }

    /// All events.
    pub fn events(&self) -> impl Iterator<Item = (EventId, &Event)> {
        (0..).map(EventId).zip(&self.events)
    }

    /// Every definition, module after module.
    pub fn definitions(&self) -> impl Iterator<Item = (ModuleId, Definition)> {
        self.modules()
            .flat_map(|(id, module)| module.definitions.iter().map(move |definition| (id, *definition)))
    }

    /// The names of all features in use, each once, with `deprecated` and `unstable` always first. The
    /// position of a feature is its bit in a set of 64.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// A module. Ids come from this schema, so that it is there.
    pub fn module(&self, id: ModuleId) -> &Module {
        &self.modules[id.index()]
    }

    /// A type.
    pub fn type_of(&self, id: TypeId) -> &Type {
        &self.types[id.index()]
    }

    /// A command.
    pub fn command(&self, id: CommandId) -> &Command {
        &self.commands[id.index()]
    }

    /// An event.
    pub fn event(&self, id: EventId) -> &Event {
        &self.events[id.index()]
    }

    /// The type of this name: for tests and for tools that take a name from a person.
    pub fn find_type(&self, name: &str) -> Option<TypeId> {
        self.types().find(|(_, ty)| ty.name == name).map(|(id, _)| id)
    }

    /// The command of this name.
    pub fn find_command(&self, name: &str) -> Option<CommandId> {
        self.commands()
            .find(|(_, command)| command.name == name)
            .map(|(id, _)| id)
    }

    /// The event of this name.
    pub fn find_event(&self, name: &str) -> Option<EventId> {
        self.events()
            .find(|(_, event)| event.name == name)
            .map(|(id, _)| id)
    }

    /// `block-core.json:482`: the module's name and the line.
    pub fn location(&self, origin: Origin) -> String {
        format!("{}:{}", self.module(origin.module).name, origin.at.line)
    }

    /// The struct behind an id.
    pub fn as_struct(&self, id: TypeId) -> Option<&Struct> {
        match &self.type_of(id).kind {
            TypeKind::Struct(found) => Some(found),
            _ => None,
        }
    }

    /// The union behind an id.
    pub fn as_union(&self, id: TypeId) -> Option<&Union> {
        match &self.type_of(id).kind {
            TypeKind::Union(found) => Some(found),
            _ => None,
        }
    }

    /// The struct that a struct or union builds on.
    pub fn base(&self, id: TypeId) -> Option<TypeId> {
        match &self.type_of(id).kind {
            TypeKind::Struct(found) => found.base,
            TypeKind::Union(found) => Some(found.base),
            _ => None,
        }
    }

    /// The members that a struct or union has of its own: not those of its base, not those of branches.
    pub fn own_members(&self, id: TypeId) -> &[Member] {
        match &self.type_of(id).kind {
            TypeKind::Struct(found) => &found.members,
            _ => &[],
        }
    }

    /// The members of a struct or of a union's common part, the base's first.
    pub fn members(&self, id: TypeId) -> Vec<&Member> {
        let mut members = match self.base(id) {
            Some(base) => self.members(base),
            None => Vec::new(),
        };
        members.extend(self.own_members(id));
        members
    }

    /// The branches of a union; none for any other type.
    pub fn branches(&self, id: TypeId) -> &[Branch] {
        self.as_union(id).map_or(&[], |found| &found.branches)
    }

    /// Whether a struct has no members at all, counting its base.
    pub fn is_empty_struct(&self, id: TypeId) -> bool {
        match &self.type_of(id).kind {
            TypeKind::Struct(found) => {
                found.members.is_empty() && found.base.is_none_or(|base| self.is_empty_struct(base))
            }
            _ => false,
        }
    }

    /// Whether the common part of a union is its tag and nothing else.
    pub fn base_is_only_tag(&self, union: &Union) -> bool {
        self.members(union.base).len() == 1
    }

    /// The member that is a union's tag.
    pub fn tag_member(&self, union: &Union) -> Option<&Member> {
        self.own_members(union.tag.holder).get(union.tag.member)
    }

    /// The union whose common part an implicit type is.
    pub fn union_of_base(&self, id: TypeId) -> Option<TypeId> {
        match self.type_of(id).implicit {
            Some(Implicit::Base(union)) => Some(union),
            _ => None,
        }
    }

    /// The kind of JSON value that a reference stands for; none for `any` and for alternates.
    pub fn json_kind(&self, of: TypeRef) -> Option<JsonKind> {
        match (of.array, of.element) {
            (true, _) => Some(JsonKind::Array),
            (false, Element::Builtin(builtin)) => builtin.json_kind(),
            (false, Element::Type(id)) => match self.type_of(id).kind {
                TypeKind::Enum(_) => Some(JsonKind::String),
                TypeKind::Struct(_) | TypeKind::Union(_) => Some(JsonKind::Object),
                TypeKind::Alternate(_) => None,
            },
        }
    }

    /// As the schema writes it: `str`, `['BlockDeviceInfo']` without the quotes.
    pub fn display(&self, of: TypeRef) -> String {
        let name = self.element_name(of.element);
        if of.array {
            format!("[{name}]")
        } else {
            name.to_owned()
        }
    }

    /// The name of an element.
    pub fn element_name(&self, element: Element) -> &str {
        match element {
            Element::Builtin(builtin) => builtin.name(),
            Element::Type(id) => &self.type_of(id).name,
        }
    }

    /// Whether the type holds the built-in type `any` somewhere, followed through everything it uses.
    pub fn holds_any(&self, of: TypeRef) -> bool {
        let mut seen = vec![false; self.types.len()];
        let mut open = vec![of.element];
        while let Some(element) = open.pop() {
            match element {
                Element::Builtin(Builtin::Any) => return true,
                Element::Builtin(_) => {}
                Element::Type(id) => {
                    if !std::mem::replace(&mut seen[id.index()], true) {
                        self.elements_within(id, &mut |element, _| open.push(element));
                    }
                }
            }
        }
        false
    }

    /// Calls `found` with every element that a type uses itself, and whether it is behind an array: own
    /// members, base, branches, alternatives.
    pub fn elements_within(&self, id: TypeId, found: &mut dyn FnMut(Element, bool)) {
        match &self.type_of(id).kind {
            TypeKind::Enum(_) => {}
            TypeKind::Struct(found_struct) => {
                if let Some(base) = found_struct.base {
                    found(Element::Type(base), false);
                }
                for member in &found_struct.members {
                    found(member.member_type.element, member.member_type.array);
                }
            }
            TypeKind::Union(union) => {
                found(Element::Type(union.base), false);
                for branch in &union.branches {
                    if let Some(ty) = branch.branch_type {
                        found(Element::Type(ty), false);
                    }
                }
            }
            TypeKind::Alternate(alternate) => {
                for alternative in &alternate.alternatives {
                    found(
                        alternative.alternative_type.element,
                        alternative.alternative_type.array,
                    );
                }
            }
        }
    }

    /// Whether a value of `holder` can hold a value of `target` without an array between them, so that a
    /// field of type `target` within `target` needs a pointer.
    pub fn reaches_directly(&self, holder: TypeId, target: TypeId) -> bool {
        let mut seen = vec![false; self.types.len()];
        let mut open = vec![holder];
        while let Some(id) = open.pop() {
            if id == target {
                return true;
            }
            if !std::mem::replace(&mut seen[id.index()], true) {
                self.elements_within(id, &mut |element, array| {
                    if let (Element::Type(next), false) = (element, array) {
                        open.push(next);
                    }
                });
            }
        }
        false
    }
}

/// Whether one of the features is `deprecated`.
pub fn is_deprecated(features: &[Feature]) -> bool {
    features.iter().any(Feature::is_deprecated)
}
