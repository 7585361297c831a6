//! Types: structs, unions, enumerations and alternates, and how they are read and written.

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
            TypeKind::Union(found) => self.emit_union(id, ty, found, &cfg, items),
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

    /// `object.required("name")?`
    fn field_take(&self, field: &Field<'_>) -> TokenStream {
        let member = field.member;
        let wire = &member.name;
        let size = TypeRef {
            array: false,
            ..member.member_type
        } == TypeRef::builtin(Builtin::Size);
        let size = if size && !self.is_client() {
            quote!(.size())
        } else {
            TokenStream::new()
        };
        let special = self.checked(&member.features);
        let special = special.map(|special| quote!(.special(#special)));
        let method = ident(match (member.optional, member.member_type.array) {
            (true, _) => "optional",
            // A server that is older than the schema leaves out what is new; nothing is a list too.
            (false, true) if self.is_client() => "list",
            (false, _) if self.is_client() && self.options.older_servers => "filled",
            (false, _) => "required",
        });
        quote!(object #special #size.#method(#wire)?)
    }

    /// The features that a policy looks at: servers have one.
    fn checked(&self, features: &[crate::ir::Feature]) -> Option<TokenStream> {
        if self.is_client() {
            None
        } else {
            self.special(features)
        }
    }

    /// `out.member("name", &self.name);`
    fn field_put(&self, field: &Field<'_>) -> TokenStream {
        let (wire, name) = (&field.member.name, &field.name);
        let method = ident(if field.member.optional {
            "optional"
        } else {
            "member"
        });
        let cfg = self.attribute(&field.cfg);
        match self.checked(&field.member.features) {
            None => quote!(#cfg out.#method(#wire, &self.#name);),
            Some(special) => quote! {
                #cfg
                if !out.hides(#special) {
                    out.#method(#wire, &self.#name);
                }
            },
        }
    }

    /// `Debug, Clone, PartialEq` and what else fits.
    fn derives(&self, more: &[&str]) -> TokenStream {
        let extra = self.options.derives.iter().map(String::as_str);
        let names = ["Debug", "Clone"]
            .into_iter()
            .chain(more.iter().copied())
            .chain(extra);
        let names: Vec<TokenStream> = names.filter_map(|name| name.parse().ok()).collect();
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
        let (mut takes, mut puts) = (Vec::new(), Vec::new());
        let members = self.name("Members");
        if let Some((field, base)) = &base {
            let ty = self.type_ident(*base);
            let doc = self.doc(vec![format!("Members of {}.", Self::type_link(&ty))]);
            declarations.push(quote!(#doc pub #field: #ty));
            takes.push(quote!(#field: #members::take(object)?));
            puts.push(quote!(self.#field.put(out);));
        }
        for field in &fields {
            declarations.push(self.field_declaration(field));
            let (cfg, name, take) = (self.attribute(&field.cfg), &field.name, self.field_take(field));
            takes.push(quote!(#cfg #name: #take));
            puts.push(self.field_put(field));
        }
        if let Some(unknown) = &unknown {
            let map = self.name("Map");
            let doc = self.doc(vec!["Members that the schema does not have.".to_owned()]);
            declarations.push(quote!(#doc pub #unknown: #map));
            takes.push(quote!(#unknown: #map::new()));
            puts.push(quote!(out.rest(&self.#unknown);));
        }
        items.push(quote! { #doc #attribute #derives pub struct #name { #(#declarations),* } });
        if let Some((field, base)) = &base {
            let ty = self.type_ident(*base);
            items.push(quote! {
                #attribute
                impl ::std::ops::Deref for #name {
                    type Target = #ty;
                    fn deref(&self) -> &Self::Target { &self.#field }
                }
            });
        }
        let used = base.is_some() || fields.iter().any(|field| field.cfg.is_always());
        let body = quote!(Ok(Self { #(#takes),* }));
        self.emit_members(&name, &attribute, used, &body, &puts, unknown.as_ref(), items);
    }

    /// `impl Members` and what follows from it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one item")]
    fn emit_members(
        &self,
        name: &Ident,
        attribute: &TokenStream,
        used: bool,
        take: &TokenStream,
        puts: &[TokenStream],
        unknown: Option<&Ident>,
        items: &mut Vec<TokenStream>,
    ) {
        let members = self.name("Members");
        let (object, error) = (self.name("Object"), self.name("DecodeError"));
        let (result, writer) = (self.name("Result"), self.name("Writer"));
        let take_name = ident(if used { "object" } else { "_object" });
        let put_name = ident(if used || unknown.is_some() { "out" } else { "_out" });
        // Members that are all under conditions use a parameter that is otherwise unused.
        let rename = |body: TokenStream, from: &str, to: &Ident| -> TokenStream {
            if to == from { body } else { replace(body, from, to) }
        };
        let take = rename(take.clone(), "object", &take_name);
        let puts = rename(quote!(#(#puts)*), "out", &put_name);
        let keep = unknown.map(|field| {
            let map = self.name("Map");
            quote!(fn keep(&mut self, unknown: #map) { self.#field = unknown; })
        });
        items.push(quote! {
            #attribute
            impl #members for #name {
                fn take(#take_name: &mut #object<'_>) -> #result<Self, #error> { #take }
                fn put(&self, #put_name: &mut #writer) { #puts }
                #keep
            }
        });
        let mode = self.mode();
        items.push(quote!(#attribute ::qapi_runtime::object!(#mode #name);));
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
        let only_tag = self.schema.base_is_only_tag(found);
        let kind = self.type_ident(found.tag.enumeration);
        let branch_type = if only_tag {
            name.clone()
        } else {
            self.branch_name(id)
        };
        let members = self.name("Members");

        let (mut declarations, mut takes, mut puts, mut kinds) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut plain_rest = false;
        for (place, branch) in found.branches.iter().enumerate() {
            let Some(variant) = variants.names.get(branch.value) else {
                continue;
            };
            let Some((value_cfg, branch_cfg)) = self.branch_cfgs(found, branch, cfg) else {
                continue;
            };
            if let Some(missing) = value_cfg.without(&branch_cfg) {
                // The value is there and its branch is not: no input may ask for it.
                let attribute = self.attribute(&missing);
                let error = self.name("DecodeError");
                let wire = &branch.name;
                takes.push(quote!(#attribute #kind::#variant => return Err(#error::value(#wire))));
            }
            let attribute = self.attribute(&branch_cfg);
            let doc = self.branch_doc(found, branch);
            match branch.branch_type {
                None => {
                    declarations.push(quote!(#doc #attribute #variant));
                    takes.push(quote!(#attribute #kind::#variant => #branch_type::#variant));
                    kinds.push(quote!(#attribute #branch_type::#variant => #kind::#variant));
                    if branch_cfg.is_always() {
                        plain_rest = true;
                    } else {
                        puts.push((attribute, quote!(#branch_type::#variant), quote!()));
                    }
                }
                Some(payload) => {
                    let mut ty = self.type_ident(payload);
                    let mut take = quote!(#members::take(object)?);
                    if self.is_boxed(id, place) {
                        let name = self.name("Box");
                        ty = quote!(#name<#ty>);
                        take = quote!(#name::new(#take));
                    }
                    declarations.push(quote!(#doc #attribute #variant(#ty)));
                    takes.push(quote!(#attribute #kind::#variant => #branch_type::#variant(#take)));
                    kinds.push(quote!(#attribute #branch_type::#variant(_) => #kind::#variant));
                    puts.push((
                        attribute,
                        quote!(#branch_type::#variant(branch)),
                        quote!(branch.put(out);),
                    ));
                }
            }
        }
        // The one enumeration that is no schema's own has the same values for ever.
        let predefined = matches!(
            self.schema.type_of(found.tag.enumeration).implicit,
            Some(crate::ir::Implicit::Predefined)
        );
        if self.is_client() && !predefined {
            let unknown = &variants.unknown;
            let branch = self.name("UnknownBranch");
            let doc = self.doc(vec!["A branch that the schema does not have.".to_owned()]);
            let map = self.name("Map");
            let rest = if self.options.keep_unknown {
                quote!(object.rest()?)
            } else {
                quote!(#map::new())
            };
            declarations.push(quote!(#doc #unknown(#branch)));
            takes.push(quote! {
                #kind::#unknown(value) => #branch_type::#unknown(#branch { value, members: #rest })
            });
            kinds.push(quote!(#branch_type::#unknown(branch) => #kind::#unknown(branch.value.clone())));
            puts.push((
                quote!(),
                quote!(#branch_type::#unknown(branch)),
                quote!(out.rest(&branch.members);),
            ));
        }

        let doc = self.type_doc(ty);
        let attribute = self.attribute(cfg);
        let derives = self.derives(&["PartialEq"]);
        let tag = &found.tag.name;
        let kind_doc = self.doc(vec![format!("The branch: the value of `{tag}`.")]);
        if only_tag {
            items.push(quote! { #doc #attribute #derives pub enum #name { #(#declarations),* } });
            items.push(quote! {
                #attribute
                impl #name {
                    #kind_doc
                    pub fn kind(&self) -> #kind { match self { #(#kinds),* } }
                }
            });
            let read = ident(if self.is_client() && self.options.older_servers {
                "filled"
            } else {
                "required"
            });
            let take = quote! {
                let kind: #kind = object.#read(#tag)?;
                Ok(match kind { #(#takes),* })
            };
            let puts = [
                quote!(out.member(#tag, &self.kind());),
                put_branch(&quote!(self), &puts, plain_rest),
            ];
            self.emit_members(&name, &attribute, true, &take, &puts, None, items);
            return;
        }

        let mut scope = Scope::default();
        let all = base_members(self.schema, found.base);
        let fields = self.fields(all, cfg, &mut scope);
        let branch_field = ident(&scope.claim("branch"));
        let unknown = self.keeps_members(None).then(|| ident(&scope.claim("unknown")));
        let (mut field_declarations, mut lets, mut names, mut base_puts) = (vec![], vec![], vec![], vec![]);
        let mut tag_name = ident("kind");
        for field in &fields {
            let attribute = self.attribute(&field.cfg);
            let (field_name, take) = (&field.name, self.field_take(field));
            // The reader itself is called `object`.
            let local = if *field_name == "object" {
                ident(&scope.claim("object_member"))
            } else {
                field_name.clone()
            };
            if field.member.name == *tag {
                tag_name = local.clone();
                lets.push(quote!(let #local: #kind = #take;));
                base_puts.push(quote!(out.member(#tag, &self.kind());));
                continue;
            }
            field_declarations.push(self.field_declaration(field));
            lets.push(quote!(#attribute let #local = #take;));
            names.push(if local == *field_name {
                quote!(#attribute #field_name)
            } else {
                quote!(#attribute #field_name: #local)
            });
            base_puts.push(self.field_put(field));
        }
        let doc_branch = self.doc(vec![format!("What depends on `{tag}`.")]);
        field_declarations.push(quote!(#doc_branch pub #branch_field: #branch_type));
        names.push(quote!(#branch_field));
        if let Some(unknown) = &unknown {
            let map = self.name("Map");
            let doc = self.doc(vec!["Members that the schema does not have.".to_owned()]);
            field_declarations.push(quote!(#doc pub #unknown: #map));
            names.push(quote!(#unknown: #map::new()));
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
                pub fn kind(&self) -> #kind { match &self.#branch_field { #(#kinds),* } }
            }
        });
        let take = quote! {
            #(#lets)*
            let #branch_field = match #tag_name { #(#takes),* };
            Ok(Self { #(#names),* })
        };
        base_puts.push(put_branch(&quote!(&self.#branch_field), &puts, plain_rest));
        if let Some(unknown) = &unknown {
            base_puts.push(quote!(out.rest(&self.#unknown);));
        }
        self.emit_members(
            &name,
            &attribute,
            true,
            &take,
            &base_puts,
            unknown.as_ref(),
            items,
        );
    }

    /// When a branch's value is there, and when its branch is too.
    fn branch_cfgs(&self, union: &Union, branch: &Branch, outer: &Cfg) -> Option<(Cfg, Cfg)> {
        let value = match &self.schema.type_of(union.tag.enumeration).kind {
            TypeKind::Enum(found) => found.values.get(branch.value).map(|value| &value.condition),
            _ => None,
        };
        let value = self.cfg(value.unwrap_or(&Condition::Always), &[])?.within(outer);
        let branch = self.cfg(&branch.condition, &[branch.branch_type])?.within(outer);
        Some((value.clone(), value.and(&branch)))
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
        let (mut ordinary, mut conditional) = (false, Vec::new());
        for (value, variant) in found.values.iter().zip(&variants.names) {
            let Some(cfg) = self.cfg(&value.condition, &[]).map(|own| own.within(cfg)) else {
                continue;
            };
            let attribute = self.attribute(&cfg);
            let doc = self.part_doc(value.doc.as_ref(), &format!("`{}`", value.name), &value.features);
            let deprecated = self.deprecated(&value.features);
            let wire = &value.name;
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
                fn unknown(value: &str) -> #option<Self> { Some(Self::#unknown(value.into())) }
            };
            ordinary = true;
            let body = quote!(pub fn as_str(&self) -> &str { match self { #(#texts),* } });
            (self.derives(&["PartialEq", "Eq", "Hash"]), body)
        } else {
            let body = quote!(pub fn as_str(self) -> &'static str { match self { #(#texts),* } });
            (self.derives(&["Copy", "PartialEq", "Eq", "Hash"]), body)
        };
        let special_fn = (!specials.is_empty()).then(|| {
            let special = self.name("Special");
            let rest = ordinary.then(|| quote!(_ => #special::NONE));
            // A wildcard that conditions leave without a value would be a warning.
            let others = conditional.iter().filter(|_| !ordinary);
            let others = others.map(|(cfg, variant)| quote!(#cfg Self::#variant => #special::NONE));
            quote!(fn special(&self) -> #special { match self { #(#specials,)* #(#others,)* #rest } })
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
        let mut plain_kinds = 0;
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
            plain_kinds += usize::from(cfg.is_always());
            kinds.push(json);
            let json = ident(kind_name(json));
            if of == TypeRef::builtin(Builtin::Null) {
                declarations.push(quote!(#doc #attribute #variant));
                takes.push(quote!(#attribute #kind::#json => Ok(Self::#variant)));
                puts.push(quote!(#attribute Self::#variant => out.raw(b"null")));
                continue;
            }
            let mut payload = self.type_ref(of);
            if self.is_boxed(id, place) {
                let name = self.name("Box");
                payload = quote!(#name<#payload>);
            }
            declarations.push(quote!(#doc #attribute #variant(#payload)));
            takes.push(quote!(#attribute #kind::#json => #decode::decode(value).map(Self::#variant)));
            puts.push(quote!(#attribute Self::#variant(value) => value.encode(out)));
        }
        if self.is_client() {
            let unknown = ident(&scope.claim("Unknown"));
            let value = self.name("Value");
            let doc = self.doc(vec!["A kind of value that the schema does not have.".to_owned()]);
            declarations.push(quote!(#doc #unknown(#value)));
            if plain_kinds < 6 {
                takes.push(quote!(_ => #decode::decode(value).map(Self::#unknown)));
            }
            puts.push(quote!(Self::#unknown(value) => value.encode(out)));
        } else if plain_kinds < 6 {
            let error = self.name("DecodeError");
            takes.push(quote!(_ => Err(#error::alternate(#wire))));
        }
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
        let doc = self.type_doc(ty);
        let attribute = self.attribute(cfg);
        let derives = self.derives(&["PartialEq"]);
        let (cursor, error) = (self.name("Cursor"), self.name("DecodeError"));
        let (result, writer) = (self.name("Result"), self.name("Writer"));
        items.push(quote! { #doc #attribute #derives pub enum #name { #(#declarations),* } });
        items.push(quote! {
            #attribute
            impl #decode for #name {
                fn decode(value: #cursor<'_>) -> #result<Self, #error> {
                    match #look { #(#takes),* }
                }
            }
        });
        items.push(quote! {
            #attribute
            impl #encode for #name {
                fn encode(&self, out: &mut #writer) { match self { #(#puts),* } }
            }
        });
        items.push(quote!(#attribute ::qapi_runtime::serde_bridge!(#name);));
    }
}

/// Writes what a branch adds; `rest` says that there are branches that add nothing.
fn put_branch(
    value: &TokenStream,
    arms: &[(TokenStream, TokenStream, TokenStream)],
    rest: bool,
) -> TokenStream {
    match arms {
        [] => quote!(),
        [(attribute, pattern, body)] if rest => quote!(#attribute if let #pattern = #value { #body }),
        _ => {
            let arms = arms
                .iter()
                .map(|(attribute, pattern, body)| quote!(#attribute #pattern => { #body }));
            let rest = rest.then(|| quote!(_ => {}));
            quote!(match #value { #(#arms)* #rest })
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
fn base_members(schema: &Schema, id: TypeId) -> Vec<(TypeId, usize, &Member)> {
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
