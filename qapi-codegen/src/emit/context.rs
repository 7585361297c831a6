//! What all emitters share: names, conditions, boxes, documentation.

use super::boxes::{self, Edge};
use super::condition::Cfg;
use super::mangle::{self, Scope, ident};
use super::{Options, Role};
use crate::ir::{
    Builtin, Command, Condition, Element, Event, Feature, Implicit, ModuleId, Schema, TypeId, TypeKind,
    TypeRef,
};
use proc_macro2::{Ident, TokenStream};
use quote::quote;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Names that generated code uses without a path, and the path for schemas that have a type of that name.
const NAMES: &[(&str, &str)] = &[
    ("Option", "::std::option::Option"),
    ("Vec", "::std::vec::Vec"),
    ("Box", "::std::boxed::Box"),
    ("Future", "::std::future::Future"),
    ("Into", "::std::convert::Into"),
    ("String", "::std::string::String"),
    ("Result", "::std::result::Result"),
    ("Send", "::std::marker::Send"),
    ("Sync", "::std::marker::Sync"),
    ("Self_", "Self"),
];

/// Names of the runtime that generated code imports.
const RUNTIME: &[(&str, &str)] = &[
    ("Branches", "::qapi_runtime::Branches"),
    ("Call", "::qapi_runtime::Call"),
    ("CommandTable", "::qapi_runtime::CommandTable"),
    ("Cursor", "::qapi_runtime::Cursor"),
    ("Decode", "::qapi_runtime::Decode"),
    ("DecodeError", "::qapi_runtime::DecodeError"),
    ("Encode", "::qapi_runtime::Encode"),
    ("Error", "::qapi_runtime::Error"),
    ("Execute", "::qapi_runtime::Execute"),
    ("Kind", "::qapi_runtime::decode::Kind"),
    ("Map", "::qapi_runtime::Map"),
    ("Members", "::qapi_runtime::Members"),
    ("Null", "::qapi_runtime::Null"),
    ("Object", "::qapi_runtime::Object"),
    ("QType", "::qapi_runtime::QType"),
    ("Row", "::qapi_runtime::Row"),
    ("Special", "::qapi_runtime::Special"),
    ("StringEnum", "::qapi_runtime::StringEnum"),
    ("UnknownBranch", "::qapi_runtime::UnknownBranch"),
    ("Value", "::qapi_runtime::Value"),
    ("Writer", "::qapi_runtime::Writer"),
    ("call", "::qapi_runtime::call"),
    ("execute", "::qapi_runtime::execute"),
];

/// What all emitters share.
pub(super) struct Context<'a> {
    pub(super) schema: &'a Schema,
    pub(super) options: &'a Options,
    types: HashMap<TypeId, Ident>,
    branches: HashMap<TypeId, Ident>,
    /// A name for the builder of each struct and union, whether it has one or not.
    pub(super) builders: HashMap<TypeId, Ident>,
    events: HashMap<String, Ident>,
    variants: HashMap<TypeId, Variants>,
    /// The method of each command, by the command's name.
    methods: HashMap<String, Ident>,
    modules: HashMap<ModuleId, (Ident, Ident)>,
    /// Names at the top that clash with nothing of the schema.
    pub(super) top: HashMap<&'static str, Ident>,
    /// The names of the generated code, and the module that has each; none has those at the top.
    taken: HashMap<String, Option<ModuleId>>,
    boxes: HashSet<Edge>,
    /// Documentation of the module at hand; the code holds marks in its place.
    pub(super) docs: RefCell<Vec<Vec<String>>>,
    /// Names of the runtime that the module at hand uses.
    pub(super) imports: RefCell<BTreeSet<&'static str>>,
    /// Whether the module at hand uses anything of another.
    pub(super) uses_others: RefCell<bool>,
    pub(super) module: RefCell<Option<ModuleId>>,
}

/// The variants of an enumeration, in the order of its values.
pub(super) struct Variants {
    pub(super) names: Vec<Ident>,
    /// The one for values that the schema does not have (clients only).
    pub(super) unknown: Ident,
}

impl<'a> Context<'a> {
    pub(super) fn new(schema: &'a Schema, options: &'a Options) -> Context<'a> {
        // Type parameters, here and in the runtime's macros, are short, and so are some commands.
        let mut scope = Scope::with(&["Self", "D", "E", "H", "S", "T"]);
        let mut types = HashMap::new();
        let mut variants = HashMap::new();
        // Types that have a name of their own come first: what is made up gives way.
        for (id, ty) in schema.types().filter(|(_, ty)| ty.is_explicit()) {
            types.insert(id, ident(&scope.claim(&mangle::type_name(&ty.name))));
        }
        let claim = |scope: &mut Scope, name: String, suffix: &str| {
            let free = if scope.has(&name) {
                scope.claim(&format!("{}{suffix}", mangle::stem(&name)))
            } else {
                scope.claim(&name)
            };
            ident(&free)
        };
        for (id, ty) in schema.types() {
            if let TypeKind::Enum(found) = &ty.kind {
                // `ALL` is the list of the values.
                let mut scope = Scope::with(&["Self", "ALL"]);
                let names = found
                    .values
                    .iter()
                    .map(|value| ident(&scope.claim(&mangle::camel(&value.name))))
                    .collect();
                variants.insert(
                    id,
                    Variants {
                        names,
                        unknown: claim(&mut scope, "Unknown".into(), "Value"),
                    },
                );
            }
        }
        let mut events = HashMap::new();
        for (_, event) in schema.events() {
            let mut name = mangle::camel(&event.name);
            // An event's struct is a value too, and generated code says these.
            if ["Ok", "Err", "Some", "None"].contains(&name.as_str()) {
                name.push_str("Event");
            }
            events.insert(event.name.clone(), claim(&mut scope, name, "Event"));
        }
        for (id, ty) in schema.types() {
            match ty.implicit {
                Some(Implicit::Arguments(command)) => {
                    let name = mangle::camel(&schema.command(command).name);
                    types.insert(id, claim(&mut scope, name, "Arguments"));
                }
                Some(Implicit::EventData(event)) => {
                    if let Some(name) = events.get(&schema.event(event).name) {
                        types.insert(id, name.clone());
                    }
                }
                // `QType` is the runtime's, and a union's own base is part of the union.
                Some(Implicit::Predefined | Implicit::Base(_)) | None => {}
            }
        }
        let mut branches = HashMap::new();
        for (id, ty) in schema.types() {
            if let (TypeKind::Union(_), Some(name)) = (&ty.kind, types.get(&id)) {
                branches.insert(
                    id,
                    claim(
                        &mut scope,
                        format!("{}Branch", mangle::stem(&name.to_string())),
                        "2",
                    ),
                );
            }
        }
        let mut builders = HashMap::new();
        for (id, ty) in schema.types() {
            if let (TypeKind::Struct(_) | TypeKind::Union(_), Some(name)) = (&ty.kind, types.get(&id)) {
                builders.insert(
                    id,
                    claim(
                        &mut scope,
                        format!("{}Builder", mangle::stem(&name.to_string())),
                        "2",
                    ),
                );
            }
        }
        // A client has a `new` already, and readers expect a constructor; a value that is called with `into` hears
        // its own trait first.
        let mut method_names = Scope::with(&["new", "into", "try_into"]);
        let mut methods = HashMap::new();
        for (_, command) in schema.commands() {
            let name = claim(&mut method_names, mangle::snake(&command.name), "_command");
            methods.insert(command.name.clone(), name);
        }
        // The file above all modules is `mod.rs`.
        let mut module_names = Scope::with(&["qapi_runtime", "std", "core", "mod"]);
        let mut modules = HashMap::new();
        for (id, module) in schema.modules() {
            let stem = module.name.rsplit(['/', '\\']).next().unwrap_or(&module.name);
            let stem = stem.strip_suffix(".json").unwrap_or(stem);
            let name = ident(&module_names.claim(&mangle::snake(stem)));
            let commands = claim(
                &mut scope,
                format!("{}Commands", mangle::stem(&mangle::camel(stem))),
                "2",
            );
            modules.insert(id, (name, commands));
        }
        let mut top = HashMap::new();
        for name in ["Client", "Event", "Commands"] {
            top.insert(name, claim(&mut scope, name.to_owned(), "OfSchema"));
        }
        let mut taken: HashMap<String, Option<ModuleId>> = HashMap::new();
        for names in [&types, &branches, &builders] {
            for (id, name) in names {
                let origin = schema.type_of(*id).origin;
                taken.insert(name.to_string(), origin.map(|origin| origin.module));
            }
        }
        for (_, event) in schema.events() {
            if let Some(name) = events.get(&event.name) {
                taken.insert(name.to_string(), Some(event.origin.module));
            }
        }
        taken.extend(top.values().map(|name| (name.to_string(), None)));
        let traits = modules.iter();
        taken.extend(traits.map(|(id, (_, commands))| (commands.to_string(), Some(*id))));
        Context {
            schema,
            options,
            types,
            branches,
            builders,
            events,
            variants,
            methods,
            modules,
            top,
            taken,
            boxes: boxes::find(schema),
            docs: RefCell::default(),
            imports: RefCell::default(),
            uses_others: RefCell::default(),
            module: RefCell::default(),
        }
    }

    pub(super) fn is_client(&self) -> bool {
        self.options.role == Role::Client
    }

    /// How a type decodes: the macro's word for it.
    pub(super) fn mode(&self) -> Ident {
        ident(match (self.options.role, self.options.keep_unknown) {
            (Role::Server, _) => "strict",
            (Role::Client, false) => "tolerant",
            (Role::Client, true) => "keeping",
        })
    }

    /// The module's own name and that of its trait.
    pub(super) fn module_names(&self, id: ModuleId) -> (Ident, Ident) {
        self.modules
            .get(&id)
            .cloned()
            .unwrap_or_else(|| (ident("schema"), ident("Commands")))
    }

    /// The method of a trait, or of the client.
    pub(super) fn method(&self, command: &Command) -> Ident {
        self.methods
            .get(&command.name)
            .cloned()
            .unwrap_or_else(|| ident(&mangle::snake(&command.name)))
    }

    pub(super) fn event_name(&self, event: &Event) -> Ident {
        self.events
            .get(&event.name)
            .cloned()
            .unwrap_or_else(|| ident("Event"))
    }

    pub(super) fn branch_name(&self, id: TypeId) -> Ident {
        self.branches.get(&id).cloned().unwrap_or_else(|| ident("Branch"))
    }

    pub(super) fn variants(&self, id: TypeId) -> Option<&Variants> {
        self.variants.get(&id)
    }

    pub(super) fn is_boxed(&self, id: TypeId, place: usize) -> bool {
        self.boxes.contains(&(id, place))
    }

    /// A name of std or of the runtime: short, unless the module at hand has a type of that name. Where another
    /// module has one, an import makes the short name mean what it says.
    pub(super) fn name(&self, name: &'static str) -> TokenStream {
        let runtime = RUNTIME.iter().find(|(short, _)| *short == name);
        let std = NAMES.iter().find(|(short, _)| *short == name);
        if let Some((_, path)) = runtime.or(std) {
            let taken = self.taken.get(name);
            let module = *self.module.borrow();
            if taken.is_some_and(|owner| owner.is_none() || *owner == module)
                || (taken.is_some() && module.is_none())
            {
                return path.parse().unwrap_or_default();
            }
            // Crates of earlier editions than 2024 do not have it without an import.
            let is_new = name == "Future";
            if runtime.is_some() || taken.is_some() || is_new {
                self.imports.borrow_mut().insert(path);
            }
        }
        let name = ident(name);
        quote!(#name)
    }

    /// The name of a type that is not of the module at hand: it needs its path where an import may hide it.
    fn elsewhere(&self, name: &Ident) -> TokenStream {
        let text = name.to_string();
        if self.module.borrow().is_some() && NAMES.iter().chain(RUNTIME).any(|(short, _)| *short == text) {
            quote!(super::#name)
        } else {
            *self.uses_others.borrow_mut() = true;
            quote!(#name)
        }
    }

    /// The Rust type of a type with a name.
    pub(super) fn type_ident(&self, id: TypeId) -> TokenStream {
        let ty = self.schema.type_of(id);
        if let Some(path) = self.options.type_overrides.get(&ty.name) {
            return path.parse().unwrap_or_default();
        }
        if let Some(Implicit::Predefined) = ty.implicit {
            return self.name("QType");
        }
        match self.types.get(&id) {
            Some(name) if ty.origin.map(|origin| origin.module) != *self.module.borrow() => {
                self.elsewhere(name)
            }
            Some(name) => quote!(#name),
            None => quote!(()),
        }
    }

    /// The Rust name of a type that is defined here.
    pub(super) fn own_ident(&self, id: TypeId) -> Ident {
        self.types.get(&id).cloned().unwrap_or_else(|| ident("Type"))
    }

    pub(super) fn is_overridden(&self, id: TypeId) -> bool {
        self.options
            .type_overrides
            .contains_key(&self.schema.type_of(id).name)
    }

    /// The Rust type of a reference.
    pub(super) fn type_ref(&self, of: TypeRef) -> TokenStream {
        let element = match of.element {
            Element::Type(id) => self.type_ident(id),
            Element::Builtin(builtin) => match builtin {
                Builtin::Str => self.name("String"),
                Builtin::Number => quote!(f64),
                Builtin::Int | Builtin::Int64 => quote!(i64),
                Builtin::Int8 => quote!(i8),
                Builtin::Int16 => quote!(i16),
                Builtin::Int32 => quote!(i32),
                Builtin::Uint8 => quote!(u8),
                Builtin::Uint16 => quote!(u16),
                Builtin::Uint32 => quote!(u32),
                Builtin::Uint64 | Builtin::Size => quote!(u64),
                Builtin::Bool => quote!(bool),
                Builtin::Any => self.name("Value"),
                Builtin::Null => self.name("Null"),
            },
        };
        if of.array {
            let vec = self.name("Vec");
            quote!(#vec<#element>)
        } else {
            element
        }
    }

    /// When something exists that has this condition and these types; nothing if it never does.
    pub(super) fn cfg(&self, condition: &Condition, types: &[Option<TypeId>]) -> Option<Cfg> {
        let mut cfg = self.options.conditions.reduce(condition)?;
        for id in types.iter().flatten() {
            cfg = cfg.and(&self.type_cfg(*id)?);
        }
        Some(cfg)
    }

    pub(super) fn command_cfg(&self, command: &Command) -> Option<Cfg> {
        let returns = command.returns.and_then(named);
        self.cfg(&command.condition, &[command.arguments, returns])
    }

    pub(super) fn event_cfg(&self, event: &Event) -> Option<Cfg> {
        self.cfg(&event.condition, &[event.data])
    }

    /// When a type is there: also its base must be, and the enumeration of its tag. Real schemas put a
    /// condition on the enumeration alone, where no user of the union is left without it.
    pub(super) fn type_cfg(&self, id: TypeId) -> Option<Cfg> {
        if self.is_overridden(id) {
            return Some(Cfg::default());
        }
        let ty = self.schema.type_of(id);
        let mut cfg = self.options.conditions.reduce(&ty.condition)?;
        if let Some(base) = self.schema.base(id) {
            cfg = cfg.and(&self.type_cfg(base)?);
        }
        if let TypeKind::Union(found) = &ty.kind {
            cfg = cfg.and(&self.type_cfg(found.tag.enumeration)?);
        }
        Some(cfg)
    }

    pub(super) fn attribute(&self, cfg: &Cfg) -> TokenStream {
        match self.options.conditions.tokens(cfg) {
            Some(predicate) => quote!(#[cfg(#predicate)]),
            None => TokenStream::new(),
        }
    }

    /// The features that hold without a condition left to decide at compile time, and those with one.
    pub(super) fn features<'f>(&self, features: &'f [Feature]) -> Vec<(&'f str, Cfg)> {
        features
            .iter()
            .filter_map(|feature| {
                Some((
                    feature.name.as_str(),
                    self.options.conditions.reduce(&feature.condition)?,
                ))
            })
            .collect()
    }

    /// `Special::..` for features, if the runtime has a meaning for one of them.
    pub(super) fn special(&self, features: &[Feature]) -> Option<TokenStream> {
        if !features
            .iter()
            .any(|feature| feature.is_deprecated() || feature.is_unstable())
        {
            return None;
        }
        let name = self.name("Special");
        let mut bits: Vec<TokenStream> = Vec::new();
        for (feature, bit) in [("deprecated", quote!(DEPRECATED)), ("unstable", quote!(UNSTABLE))] {
            let found = features.iter().filter(|one| one.name == feature);
            for cfg in found.filter_map(|one| self.options.conditions.reduce(&one.condition)) {
                bits.push(match self.options.conditions.tokens(&cfg) {
                    None => quote!(#name::#bit),
                    Some(predicate) => quote!(if cfg!(#predicate) { #name::#bit } else { #name::NONE }),
                });
            }
        }
        let mut bits = bits.into_iter();
        let first = bits.next()?;
        Some(bits.fold(first, |all, bit| quote!(#all.and(#bit))))
    }

    /// `#[deprecated]` where the schema says so, with what it says to do instead.
    pub(super) fn deprecated(&self, features: &[Feature]) -> TokenStream {
        let mut found = TokenStream::new();
        if self.options.deprecated_attributes {
            for feature in features.iter().filter(|feature| feature.is_deprecated()) {
                let note = self.note(feature).map(|note| quote!((note = #note)));
                match self.options.conditions.reduce(&feature.condition) {
                    None => {}
                    Some(cfg) if cfg.is_always() => found = quote!(#[deprecated #note]),
                    Some(cfg) => {
                        let predicate = self.options.conditions.tokens(&cfg);
                        found = quote!(#[cfg_attr(#predicate, deprecated #note)]);
                    }
                }
            }
        }
        found
    }
}

/// The type with a name behind a reference.
pub(super) fn named(of: TypeRef) -> Option<TypeId> {
    match of.element {
        Element::Type(id) => Some(id),
        Element::Builtin(_) => None,
    }
}
