//! Types: structs, unions, enumerations and alternates, and how they are read and written.
//!
//! Functions are `#[inline]`, here as in what else is not generic: a schema has thousands of them and a program calls a few,
//! so each is compiled where it is called and not with the schema.

use super::condition::Cfg;
use super::context::{Context, named};
use super::mangle::{self, Scope, ident};
use crate::ir::{
    Alternate, Branch, Builtin, Condition, Enum, JsonKind, Member, Schema, Struct, Type, TypeId, TypeKind,
    TypeRef, Union,
};
use proc_macro2::{Ident, TokenStream};
use quote::quote;

/// A member as a field.
pub(super) struct Field<'a> {
    pub(super) member: &'a Member,
    pub(super) name: Ident,
    /// Within the type that has it.
    pub(super) cfg: Cfg,
    pub(super) boxed: bool,
}

impl Context<'_> {
    /// The items of a type; nothing for one that is not there.
    pub(super) fn emit_type(&self, id: TypeId, items: &mut Vec<TokenStream>) {
        let ty = self.schema.type_of(id);
        let Some(cfg) = self.type_cfg(id) else { return };
        // The members of a base that a union writes in place are members of the union.
        if self.is_overridden(id) || matches!(ty.implicit, Some(crate::ir::Implicit::Base(_))) {
            return;
        }
        match &ty.kind {
            TypeKind::Enum(found) => self.emit_enum(id, ty, found, &cfg, items),
            TypeKind::Struct(found) => {
                self.emit_struct(id, ty, found, &cfg, items);
                self.emit_builder(id, ty, items);
            }
            TypeKind::Union(found) => {
                self.emit_union(id, ty, found, &cfg, items);
                self.emit_builder(id, ty, items);
            }
            TypeKind::Alternate(found) => self.emit_alternate(id, ty, found, &cfg, items),
        }
    }

    fn type_doc(&self, ty: &Type) -> TokenStream {
        let lines = match ty.implicit {
            Some(crate::ir::Implicit::Arguments(command)) => {
                let command = self.schema.command(command);
                let text = format!("Arguments of `{}`.", command.name);
                self.definition_lines(None, &text, &[], Some(command.origin))
            }
            Some(crate::ir::Implicit::EventData(event)) => {
                let event = self.schema.event(event);
                let text = format!("The event `{}`.", event.name);
                self.definition_lines(event.doc.as_ref(), &text, &event.features, Some(event.origin))
            }
            _ => {
                let text = format!("The {} `{}`.", ty.kind_name(), ty.name);
                self.definition_lines(ty.doc.as_ref(), &text, &ty.features, ty.origin)
            }
        };
        self.doc(lines)
    }

    pub(super) fn fields<'m>(
        &self,
        members: impl IntoIterator<Item = (TypeId, usize, &'m Member)>,
        outer: &Cfg,
        scope: &mut Scope,
    ) -> Vec<Field<'m>> {
        members
            .into_iter()
            .filter_map(|(holder, place, member)| {
                let cfg = self
                    .cfg(&member.condition, &[named(member.member_type)])?
                    .within(outer);
                let name = ident(&scope.claim(&mangle::snake(&member.name)));
                Some(Field {
                    member,
                    name,
                    cfg,
                    boxed: self.is_boxed(holder, place),
                })
            })
            .collect()
    }

    fn field_type(&self, field: &Field<'_>) -> TokenStream {
        let mut ty = self.type_ref(field.member.member_type);
        if field.boxed {
            let name = self.name("Box");
            ty = quote!(#name<#ty>);
        }
        if field.member.optional {
            let name = self.name("Option");
            ty = quote!(#name<#ty>);
        }
        ty
    }

    fn field_declaration(&self, field: &Field<'_>) -> TokenStream {
        let member = field.member;
        let doc = self.part_doc(
            member.doc.as_ref(),
            &format!("`{}`", member.name),
            &member.features,
        );
        let cfg = self.attribute(&field.cfg);
        let deprecated = self.deprecated(&member.features);
        let (name, ty) = (&field.name, self.field_type(field));
        quote!(#doc #cfg #deprecated pub #name: #ty)
    }

    /// `name: required("name").deprecated()`
    fn field_entry(&self, field: &Field<'_>) -> TokenStream {
        let member = field.member;
        let (name, wire, cfg) = (&field.name, &member.name, self.attribute(&field.cfg));
        let function = ident(match (member.optional, member.member_type.array) {
            (true, _) => "optional",
            // A server that is older than the schema leaves out what is new; nothing is a list too.
            (false, true) if self.is_client() => "list",
            (false, _) if self.is_client() && self.options.older_servers => "filled",
            (false, _) => "required",
        });
        let more = self.entry_more(member);
        quote!(#cfg #name: #function(#wire) #more)
    }

    /// What else an entry says of its member; clients need none of it.
    fn entry_more(&self, member: &Member) -> TokenStream {
        if self.is_client() {
            return TokenStream::new();
        }
        let size = TypeRef {
            array: false,
            ..member.member_type
        } == TypeRef::builtin(Builtin::Size);
        let size = size.then(|| quote!(.size()));
        let special = self.special(&member.features);
        let special = special.map(|special| quote!(.special(#special)));
        quote!(#size #special)
    }

    /// `Debug, Clone, PartialEq` and what else fits.
    pub(super) fn derives(&self, more: &[&str]) -> TokenStream {
        let mut names = vec!["Debug", "Clone"];
        names.extend(more);
        for path in &self.options.derives {
            // What is there already cannot be derived again, whatever path it is asked for by.
            let name = path.rsplit("::").next().unwrap_or(path).trim();
            let is_std = path == name
                || ["std", "core"]
                    .iter()
                    .any(|root| path.trim_start_matches("::").starts_with(root));
            if !(is_std && names.contains(&name)) {
                names.push(path);
            }
        }
        let names: Vec<TokenStream> = names.iter().filter_map(|name| name.parse().ok()).collect();
        quote!(#[derive(#(#names),*)])
    }

    fn emit_struct(&self, id: TypeId, ty: &Type, found: &Struct, cfg: &Cfg, items: &mut Vec<TokenStream>) {
        let name = self.own_ident(id);
        let mut scope = Scope::default();
        let own = found
            .members
            .iter()
            .enumerate()
            .map(|(place, member)| (id, place, member));
        let fields = self.fields(own, cfg, &mut scope);
        let base = found.base.map(|base| (ident(&scope.claim("base")), base));
        let unknown = self
            .keeps_members(found.base)
            .then(|| ident(&scope.claim("unknown")));

        let doc = self.type_doc(ty);
        let attribute = self.attribute(cfg);
        let mut more = vec!["PartialEq"];
        if self.is_all_optional(id) {
            more.push("Default");
        }
        let derives = self.derives(&more);
        let mut declarations = Vec::new();
        let mut entries = Vec::new();
        if let Some((field, base)) = &base {
            let ty = self.type_ident(*base);
            let doc = self.doc(vec![format!("Members of {}.", Self::type_link(&ty))]);
            declarations.push(quote!(#doc pub #field: #ty));
            entries.push(quote!(#field: members()));
        }
        for field in &fields {
            declarations.push(self.field_declaration(field));
            entries.push(self.field_entry(field));
        }
        if let Some(unknown) = &unknown {
            let map = self.name("Map");
            let doc = self.doc(vec!["Members that the schema does not have.".to_owned()]);
            declarations.push(quote!(#doc pub #unknown: #map));
            entries.push(quote!(#unknown: unknown()));
        }
        items.push(quote! { #doc #attribute #derives pub struct #name { #(#declarations),* } });
        if let Some((field, base)) = &base {
            let ty = self.type_ident(*base);
            items.push(quote! {
                #attribute
                impl ::std::ops::Deref for #name {
                    type Target = #ty;
                    #[inline]
                    fn deref(&self) -> &Self::Target { &self.#field }
                }
            });
        }
        let mode = self.mode();
        items.push(quote!(#attribute ::qapi_runtime::#mode!(#name { #(#entries),* });));
    }

    pub(super) fn keeps_members(&self, base: Option<TypeId>) -> bool {
        self.is_client() && self.options.keep_unknown && base.is_none()
    }

    /// Whether a value can be made without saying anything.
    pub(super) fn is_all_optional(&self, id: TypeId) -> bool {
        match &self.schema.type_of(id).kind {
            TypeKind::Struct(found) => {
                found.members.iter().all(|member| member.optional)
                    && found
                        .base
                        .is_none_or(|base| self.is_all_optional(base) && !self.is_overridden(base))
            }
            _ => false,
        }
    }

    fn emit_union(&self, id: TypeId, ty: &Type, found: &Union, cfg: &Cfg, items: &mut Vec<TokenStream>) {
        let name = self.own_ident(id);
        let Some(variants) = self.variants(found.tag.enumeration) else {
            return;
        };
        // Who keeps what the schema does not have needs a place for it, whatever the branch is.
        let only_tag = self.schema.base_is_only_tag(found) && !self.keeps_members(None);
        let kind = self.type_ident(found.tag.enumeration);
        let branch_type = if only_tag {
            name.clone()
        } else {
            self.branch_name(id)
        };
        let (members, branches) = (self.name("Members"), self.name("Branches"));
        let (object, error) = (self.name("Object"), self.name("DecodeError"));
        let (result, writer) = (self.name("Result"), self.name("Writer"));
        let tag = &found.tag.name;

        let (mut declarations, mut takes, mut puts, mut kinds) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut plain_rest = false;
        // Whether there is a branch whatever the conditions are.
        let mut certain = false;
        // Whether the parameters are used whatever the conditions are.
        let (mut uses_object, mut uses_out) = (false, false);
        for (place, branch) in found.branches.iter().enumerate() {
            let Some(variant) = variants.names.get(branch.value) else {
                continue;
            };
            let Some((value_cfg, branch_cfg)) = self.branch_cfgs(found, branch, cfg) else {
                continue;
            };
            let missing = match &branch_cfg {
                Some(branch_cfg) => value_cfg.without(branch_cfg),
                None => Some(value_cfg),
            };
            if let Some(missing) = missing {
                // The value is there and its branch is not: no input may ask for it.
                let wire = &branch.name;
                takes.push(Take {
                    attribute: self.attribute(&missing),
                    pattern: quote!(#kind::#variant),
                    value: quote!(return Err(#error::value(#wire).in_member(#tag))),
                    result: quote!(Err(#error::value(#wire).in_member(#tag))),
                });
            }
            let Some(branch_cfg) = branch_cfg else { continue };
            certain |= branch_cfg.is_always();
            let attribute = self.attribute(&branch_cfg);
            let doc = self.branch_doc(found, branch);
            match branch.branch_type {
                None => {
                    declarations.push(quote!(#doc #attribute #variant));
                    takes.push(Take {
                        attribute: attribute.clone(),
                        pattern: quote!(#kind::#variant),
                        value: quote!(#branch_type::#variant),
                        result: quote!(Ok(#branch_type::#variant)),
                    });
                    kinds.push(quote!(#attribute #branch_type::#variant => #kind::#variant));
                    if branch_cfg.is_always() {
                        plain_rest = true;
                    } else {
                        puts.push(Put {
                            attribute,
                            variant: quote!(#branch_type::#variant),
                            write: None,
                        });
                    }
                }
                Some(payload) => {
                    uses_object |= branch_cfg.is_always();
                    uses_out |= branch_cfg.is_always();
                    let mut ty = self.type_ident(payload);
                    let mut take = quote!(#members::take(object)?);
                    let mut result = quote!(#members::take(object));
                    let mut put = quote!(#members::put(branch, out););
                    if self.is_boxed(id, place) {
                        let name = self.name("Box");
                        ty = quote!(#name<#ty>);
                        take = quote!(#name::new(#take));
                        result = quote!(#result.map(#name::new));
                        put = quote!(#members::put(&**branch, out););
                    }
                    declarations.push(quote!(#doc #attribute #variant(#ty)));
                    takes.push(Take {
                        attribute: attribute.clone(),
                        pattern: quote!(#kind::#variant),
                        value: quote!(#branch_type::#variant(#take)),
                        result: quote!(#result.map(#branch_type::#variant)),
                    });
                    kinds.push(quote!(#attribute #branch_type::#variant(_) => #kind::#variant));
                    puts.push(Put {
                        attribute,
                        variant: quote!(#branch_type::#variant),
                        write: Some(put),
                    });
                }
            }
        }
        // The one enumeration that is no schema's own has the same values for ever.
        let predefined = matches!(
            self.schema.type_of(found.tag.enumeration).implicit,
            Some(crate::ir::Implicit::Predefined)
        );
        if self.is_client() && !predefined {
            (certain, uses_out) = (true, true);
            let unknown = &variants.unknown;
            let branch = self.name("UnknownBranch");
            let doc = self.doc(vec!["A branch that the schema does not have.".to_owned()]);
            let map = self.name("Map");
            let rest = if self.options.keep_unknown {
                uses_object = true;
                quote!(object.rest()?)
            } else {
                quote!(#map::new())
            };
            declarations.push(quote!(#doc #unknown(#branch)));
            let value = quote!(#branch_type::#unknown(#branch { value, members: #rest }));
            takes.push(Take {
                attribute: TokenStream::new(),
                pattern: quote!(#kind::#unknown(value)),
                result: quote!(Ok(#value)),
                value,
            });
            kinds.push(quote!(#branch_type::#unknown(branch) => #kind::#unknown(branch.value.clone())));
            puts.push(Put {
                attribute: TokenStream::new(),
                variant: quote!(#branch_type::#unknown),
                write: Some(quote!(out.rest(&branch.members);)),
            });
        }

        let doc = self.type_doc(ty);
        let attribute = self.attribute(cfg);
        let derives = self.derives(&["PartialEq"]);
        let kind_doc = self.doc(vec![format!("The branch: the value of `{tag}`.")]);
        let (object_name, takes) = parameter("object", uses_object, take_branch(&takes, certain));
        let (out_name, puts) = parameter("out", uses_out, put_branch(&puts, plain_rest, certain));
        let this = this(certain);
        let read_and_written = quote! {
            #attribute
            impl #branches for #branch_type {
                type Kind = #kind;
                #[inline]
                fn kind(&self) -> #kind { match #this { #(#kinds),* } }
                #[inline]
                fn take_branch(kind: #kind, #object_name: &mut #object<'_>) -> #result<Self, #error> {
                    #takes
                }
                #[inline]
                fn put_branch(&self, #out_name: &mut #writer) { #puts }
            }
        };
        let mode = self.mode();
        if only_tag {
            items.push(quote! { #doc #attribute #derives pub enum #name { #(#declarations),* } });
            items.push(quote! {
                #attribute
                impl #name {
                    #kind_doc
                    #[inline]
                    pub fn kind(&self) -> #kind { #branches::kind(self) }
                }
            });
            items.push(read_and_written);
            let filled = (self.is_client() && self.options.older_servers).then(|| quote!(filled));
            let member = self.schema.own_members(found.tag.holder).get(found.tag.member);
            let more = member.map(|member| self.entry_more(member));
            items.push(quote!(#attribute ::qapi_runtime::union!(#mode #filled #name by #tag #more);));
            return;
        }

        let mut scope = Scope::default();
        let all = base_members(self.schema, found.base);
        let fields = self.fields(all, cfg, &mut scope);
        let branch_field = ident(&scope.claim("branch"));
        let unknown = self.keeps_members(None).then(|| ident(&scope.claim("unknown")));
        let (mut field_declarations, mut entries) = (vec![], vec![]);
        for field in &fields {
            if field.member.name == *tag {
                let more = self.entry_more(field.member);
                let function = ident(if self.is_client() && self.options.older_servers {
                    "filled_branch"
                } else {
                    "branch"
                });
                entries.push(quote!(#branch_field: #function(#tag) #more));
                continue;
            }
            field_declarations.push(self.field_declaration(field));
            entries.push(self.field_entry(field));
        }
        let doc_branch = self.doc(vec![format!("What depends on `{tag}`.")]);
        field_declarations.push(quote!(#doc_branch pub #branch_field: #branch_type));
        if let Some(unknown) = &unknown {
            let map = self.name("Map");
            let doc = self.doc(vec!["Members that the schema does not have.".to_owned()]);
            field_declarations.push(quote!(#doc pub #unknown: #map));
            entries.push(quote!(#unknown: unknown()));
        }
        items.push(quote! { #doc #attribute #derives pub struct #name { #(#field_declarations),* } });
        let branch_doc = self.doc(vec![format!(
            "The part of {} that depends on `{tag}`.",
            Self::type_link(&name)
        )]);
        items.push(quote! { #branch_doc #attribute #derives pub enum #branch_type { #(#declarations),* } });
        items.push(quote! {
            #attribute
            impl #name {
                #kind_doc
                #[inline]
                pub fn kind(&self) -> #kind { #branches::kind(&self.#branch_field) }
            }
        });
        items.push(read_and_written);
        items.push(quote!(#attribute ::qapi_runtime::#mode!(#name { #(#entries),* });));
    }

    /// When a branch's value is there, and when its branch is too.
    fn branch_cfgs(&self, union: &Union, branch: &Branch, outer: &Cfg) -> Option<(Cfg, Option<Cfg>)> {
        let value = match &self.schema.type_of(union.tag.enumeration).kind {
            TypeKind::Enum(found) => found.values.get(branch.value).map(|value| &value.condition),
            _ => None,
        };
        let value = self.cfg(value.unwrap_or(&Condition::Always), &[])?.within(outer);
        let branch = self.cfg(&branch.condition, &[branch.branch_type]);
        let both = branch.map(|branch| value.clone().and(&branch.within(outer)));
        Some((value, both))
    }

    fn branch_doc(&self, union: &Union, branch: &Branch) -> TokenStream {
        let value = match &self.schema.type_of(union.tag.enumeration).kind {
            TypeKind::Enum(found) => found.values.get(branch.value),
            _ => None,
        };
        let features = value.map(|value| value.features.as_slice()).unwrap_or_default();
        let doc = value.and_then(|value| value.doc.as_ref());
        self.part_doc(doc, &format!("`{}`", branch.name), features)
    }

    fn emit_enum(&self, id: TypeId, ty: &Type, found: &Enum, cfg: &Cfg, items: &mut Vec<TokenStream>) {
        if matches!(ty.implicit, Some(crate::ir::Implicit::Predefined)) {
            return;
        }
        let Some(variants) = self.variants(id) else { return };
        let name = self.own_ident(id);
        let (mut declarations, mut all, mut texts, mut specials) = (vec![], vec![], vec![], vec![]);
        let (mut ordinary, mut certain, mut conditional) = (false, self.is_client(), Vec::new());
        for (value, variant) in found.values.iter().zip(&variants.names) {
            let Some(cfg) = self.cfg(&value.condition, &[]).map(|own| own.within(cfg)) else {
                continue;
            };
            let attribute = self.attribute(&cfg);
            let doc = self.part_doc(value.doc.as_ref(), &format!("`{}`", value.name), &value.features);
            let deprecated = self.deprecated(&value.features);
            let wire = &value.name;
            certain |= cfg.is_always();
            declarations.push(quote!(#doc #attribute #deprecated #variant));
            all.push(quote!(#attribute Self::#variant));
            texts.push(quote!(#attribute Self::#variant => #wire));
            match self.special(&value.features) {
                Some(special) => specials.push(quote!(#attribute Self::#variant => #special)),
                None if cfg.is_always() => ordinary = true,
                None => conditional.push((attribute, variant)),
            }
        }
        let doc = self.type_doc(ty);
        let attribute = self.attribute(cfg);
        let string_enum = self.name("StringEnum");
        let mut unknown_fn = quote!();
        let (derives, as_str) = if self.is_client() {
            let unknown = &variants.unknown;
            let (boxed, option) = (self.name("Box"), self.name("Option"));
            let doc = self.doc(vec!["A value that the schema does not have.".to_owned()]);
            declarations.push(quote!(#doc #unknown(#boxed<str>)));
            texts.push(quote!(Self::#unknown(value) => value));
            unknown_fn = quote! {
                #[inline]
                fn unknown(value: &str) -> #option<Self> { Some(Self::#unknown(value.into())) }
            };
            ordinary = true;
            let body = quote!(#[inline] pub fn as_str(&self) -> &str { match self { #(#texts),* } });
            (self.derives(&["PartialEq", "Eq", "Hash"]), body)
        } else {
            let body = quote!(#[inline] pub fn as_str(self) -> &'static str { match self { #(#texts),* } });
            (self.derives(&["Copy", "PartialEq", "Eq", "Hash"]), body)
        };
        let special_fn = (!specials.is_empty()).then(|| {
            let special = self.name("Special");
            let rest = ordinary.then(|| quote!(_ => #special::NONE));
            // A wildcard that conditions leave without a value would be a warning.
            let others = conditional.iter().filter(|_| !ordinary);
            let others = others.map(|(cfg, variant)| quote!(#cfg Self::#variant => #special::NONE));
            let this = this(certain);
            quote!(#[inline] fn special(&self) -> #special { match #this { #(#specials,)* #(#others,)* #rest } })
        });
        let all_doc = self.doc(vec!["Every value, in the schema's order.".to_owned()]);
        let text_doc = self.doc(vec!["The value on the wire.".to_owned()]);
        items.push(quote! { #doc #attribute #derives pub enum #name { #(#declarations),* } });
        items.push(quote! {
            #attribute
            impl #name {
                #all_doc
                pub const ALL: &'static [Self] = &[#(#all),*];
                #text_doc
                #as_str
            }
        });
        items.push(quote! {
            #attribute
            impl #string_enum for #name {
                const VALUES: &'static [Self] = Self::ALL;
                #[inline]
                fn wire_name(&self) -> &str { self.as_str() }
                #special_fn
                #unknown_fn
            }
        });
        items.push(quote!(#attribute ::qapi_runtime::string_enum!(#name);));
    }

    fn emit_alternate(
        &self,
        id: TypeId,
        ty: &Type,
        found: &Alternate,
        cfg: &Cfg,
        items: &mut Vec<TokenStream>,
    ) {
        let name = self.own_ident(id);
        let wire = &ty.name;
        let mut scope = Scope::with(&["Self"]);
        let (decode, encode) = (self.name("Decode"), self.name("Encode"));
        let kind = self.name("Kind");
        let (mut declarations, mut takes, mut puts, mut kinds) = (vec![], vec![], vec![], vec![]);
        // What holds when every alternative is there.
        let mut every = Cfg::default();
        let mut certain = self.is_client();
        for (place, alternative) in found.alternatives.iter().enumerate() {
            let of = alternative.alternative_type;
            let variant = ident(&scope.claim(&mangle::camel(&alternative.name)));
            let Some(cfg) = self
                .cfg(&alternative.condition, &[named(of)])
                .map(|own| own.within(cfg))
            else {
                continue;
            };
            let Some(json) = self.schema.json_kind(of) else {
                continue;
            };
            let attribute = self.attribute(&cfg);
            let doc = self.part_doc(alternative.doc.as_ref(), &format!("`{}`", alternative.name), &[]);
            certain |= cfg.is_always();
            every = every.and(&cfg);
            kinds.push(json);
            let json = ident(kind_name(json));
            if of == TypeRef::builtin(Builtin::Null) {
                declarations.push(quote!(#doc #attribute #variant));
                takes.push(quote!(#attribute #kind::#json => Ok(Self::#variant)));
                puts.push((attribute, variant, false));
                continue;
            }
            let mut payload = self.type_ref(of);
            if self.is_boxed(id, place) {
                let name = self.name("Box");
                payload = quote!(#name<#payload>);
            }
            declarations.push(quote!(#doc #attribute #variant(#payload)));
            takes.push(quote!(#attribute #kind::#json => #decode::decode(value).map(Self::#variant)));
            puts.push((attribute, variant, true));
        }
        // A kind of value that none takes, if there is one left.
        let other = if kinds.len() < 6 {
            Some(Cfg::default())
        } else {
            Cfg::default().without(&every)
        };
        let other = other.map(|cfg| self.attribute(&cfg));
        let mut nothing = None;
        if self.is_client() {
            let unknown = ident(&scope.claim("Unknown"));
            let value = self.name("Value");
            let doc = self.doc(vec!["A kind of value that the schema does not have.".to_owned()]);
            declarations.push(quote!(#doc #unknown(#value)));
            if let Some(attribute) = other {
                let take = quote!(#decode::decode(value).map(Self::#unknown));
                takes.push(quote!(#attribute _ => #take));
                nothing = Some((ident("value"), take));
            }
            puts.push((TokenStream::new(), unknown, true));
        } else if let Some(attribute) = other {
            let error = self.name("DecodeError");
            takes.push(quote!(#attribute _ => Err(#error::alternate(#wire))));
            nothing = Some((ident("_value"), quote!(Err(#error::alternate(#wire)))));
        }
        let (this, held) = (this(certain), held("value", certain));
        let puts = puts.iter().map(|(attribute, variant, has_content)| {
            if *has_content {
                quote!(#attribute Self::#variant(#held) => #encode::encode(value, out))
            } else {
                quote!(#attribute Self::#variant => out.raw(b"null"))
            }
        });
        let (out_name, puts) = parameter("out", certain, quote!(#(#puts),*));
        // A string of `key=value` options may stand for a scalar, where no branch takes strings.
        let scalar = kinds
            .iter()
            .find(|kind| matches!(kind, JsonKind::Number | JsonKind::Bool | JsonKind::Null));
        let look = match scalar.filter(|_| !kinds.contains(&JsonKind::String) && !self.is_client()) {
            Some(scalar) => {
                let scalar = ident(kind_name(*scalar));
                quote!(value.kind_or(#kind::#scalar))
            }
            None => quote!(value.kind()),
        };
        let (value_name, body) = match nothing {
            Some(nothing) if kinds.is_empty() => nothing,
            _ => (ident("value"), quote!(match #look { #(#takes),* })),
        };
        let doc = self.type_doc(ty);
        let attribute = self.attribute(cfg);
        let derives = self.derives(&["PartialEq"]);
        let (cursor, error) = (self.name("Cursor"), self.name("DecodeError"));
        let (result, writer) = (self.name("Result"), self.name("Writer"));
        items.push(quote! { #doc #attribute #derives pub enum #name { #(#declarations),* } });
        items.push(quote! {
            #attribute
            impl #decode for #name {
                #[inline]
                fn decode(#value_name: #cursor<'_>) -> #result<Self, #error> { #body }
            }
        });
        items.push(quote! {
            #attribute
            impl #encode for #name {
                #[inline]
                fn encode(&self, #out_name: &mut #writer) { match #this { #puts } }
            }
        });
        items.push(quote!(#attribute ::qapi_runtime::serde_bridge!(#name);));
    }
}

/// What a value of the discriminator makes.
struct Take {
    attribute: TokenStream,
    pattern: TokenStream,
    /// The branch itself; if there is none, a return.
    value: TokenStream,
    /// The same as a result.
    result: TokenStream,
}

/// How a value is looked at: one of a type that conditions may leave without any has no reference that is matched.
fn this(certain: bool) -> TokenStream {
    if certain { quote!(self) } else { quote!(*self) }
}

/// How what a variant holds is named in a pattern behind [`this`].
fn held(name: &str, certain: bool) -> TokenStream {
    let name = ident(name);
    if certain { quote!(#name) } else { quote!(ref #name) }
}

/// Reads what a branch adds; `certain` says that there is a branch whatever the conditions are.
fn take_branch(arms: &[Take], certain: bool) -> TokenStream {
    let arms = arms.iter().map(|arm| {
        let (attribute, pattern) = (&arm.attribute, &arm.pattern);
        // Behind a match without arms that end, `Ok` around it would never be reached.
        let made = if certain { &arm.value } else { &arm.result };
        quote!(#attribute #pattern => #made)
    });
    if certain {
        quote!(Ok(match kind { #(#arms),* }))
    } else {
        quote!(match kind { #(#arms),* })
    }
}

/// How a branch is written.
struct Put {
    attribute: TokenStream,
    variant: TokenStream,
    /// With the variant's content as `branch`; nothing if it has none.
    write: Option<TokenStream>,
}

impl Put {
    fn pattern(&self, certain: bool) -> TokenStream {
        let variant = &self.variant;
        let branch = held("branch", certain);
        match self.write {
            Some(_) => quote!(#variant(#branch)),
            None => variant.clone(),
        }
    }
}

/// Writes what a branch adds; `rest` says that there are branches that add nothing.
fn put_branch(arms: &[Put], rest: bool, certain: bool) -> TokenStream {
    match arms {
        [] => quote!(),
        [arm] if rest => {
            let (attribute, pattern, write) = (&arm.attribute, arm.pattern(certain), &arm.write);
            quote!(#attribute if let #pattern = self { #write })
        }
        _ => {
            let arms = arms.iter().map(|arm| {
                let (attribute, pattern, write) = (&arm.attribute, arm.pattern(certain), &arm.write);
                quote!(#attribute #pattern => { #write })
            });
            let rest = rest.then(|| quote!(_ => {}));
            let this = this(certain);
            quote!(match #this { #(#arms)* #rest })
        }
    }
}

fn kind_name(kind: JsonKind) -> &'static str {
    match kind {
        JsonKind::Null => "Null",
        JsonKind::Number => "Number",
        JsonKind::String => "String",
        JsonKind::Object => "Object",
        JsonKind::Array => "Array",
        JsonKind::Bool => "Bool",
    }
}

/// The members of a base and of its bases, outermost first, each with its holder and place.
pub(super) fn base_members(schema: &Schema, id: TypeId) -> Vec<(TypeId, usize, &Member)> {
    let mut members = match schema.base(id) {
        Some(base) => base_members(schema, base),
        None => Vec::new(),
    };
    members.extend(
        schema
            .own_members(id)
            .iter()
            .enumerate()
            .map(|(place, member)| (id, place, member)),
    );
    members
}

/// The name of a parameter that may be used under conditions only, and the code that uses it.
fn parameter(name: &str, is_used: bool, code: TokenStream) -> (Ident, TokenStream) {
    if is_used {
        (ident(name), code)
    } else {
        let to = ident(&format!("_{name}"));
        let code = replace(code, name, &to);
        (to, code)
    }
}

/// The same tokens with one identifier for another.
fn replace(tokens: TokenStream, from: &str, to: &Ident) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| match token {
            proc_macro2::TokenTree::Ident(ident) if ident == from => to.clone().into(),
            proc_macro2::TokenTree::Group(group) => {
                proc_macro2::Group::new(group.delimiter(), replace(group.stream(), from, to)).into()
            }
            other => other,
        })
        .collect()
}
