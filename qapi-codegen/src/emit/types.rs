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
        let only_tag = self.schema.base_is_only_tag(found);
        let kind = self.type_ident(found.tag.enumeration);
        let branch_type = if only_tag {
            name.clone()
        } else {
            self.branch_name(id)
        };
        let (members, branches) = (self.name("Members"), self.name("Branches"));
        let (object, error) = (self.name("Object"), self.name("DecodeError"));
        let (result, writer) = (self.name("Result"), self.name("Writer"));

        let (mut declarations, mut takes, mut puts, mut kinds) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut plain_rest = false;
        // Whether the parameters are used whatever the conditions are.
        let (mut uses_object, mut uses_out) = (false, self.is_client());
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
                    uses_object |= branch_cfg.is_always();
                    uses_out |= branch_cfg.is_always();
                    let mut ty = self.type_ident(payload);
                    let mut take = quote!(#members::take(object)?);
                    let mut put = quote!(#members::put(branch, out););
                    if self.is_boxed(id, place) {
                        let name = self.name("Box");
                        ty = quote!(#name<#ty>);
                        take = quote!(#name::new(#take));
                        put = quote!(#members::put(&**branch, out););
                    }
                    declarations.push(quote!(#doc #attribute #variant(#ty)));
                    takes.push(quote!(#attribute #kind::#variant => #branch_type::#variant(#take)));
                    kinds.push(quote!(#attribute #branch_type::#variant(_) => #kind::#variant));
                    puts.push((attribute, quote!(#branch_type::#variant(branch)), put));
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
                uses_object = true;
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
        let (object_name, takes) = parameter("object", uses_object, quote!(#(#takes),*));
        let (out_name, puts) = parameter("out", uses_out, put_branch(&puts, plain_rest));
        let read_and_written = quote! {
            #attribute
            impl #branches for #branch_type {
                type Kind = #kind;
                fn kind(&self) -> #kind { match self { #(#kinds),* } }
                fn take_branch(kind: #kind, #object_name: &mut #object<'_>) -> #result<Self, #error> {
                    Ok(match kind { #takes })
                }
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
                    pub fn kind(&self) -> #kind { #branches::kind(self) }
                }
            });
            items.push(read_and_written);
            let filled = (self.is_client() && self.options.older_servers).then(|| quote!(filled));
            items.push(quote!(#attribute ::qapi_runtime::union!(#mode #filled #name by #tag);));
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
                pub fn kind(&self) -> #kind { #branches::kind(&self.#branch_field) }
            }
        });
        items.push(read_and_written);
        items.push(quote!(#attribute ::qapi_runtime::#mode!(#name { #(#entries),* });));
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
fn put_branch(arms: &[(TokenStream, TokenStream, TokenStream)], rest: bool) -> TokenStream {
    match arms {
        [] => quote!(),
        [(attribute, pattern, body)] if rest => quote!(#attribute if let #pattern = self { #body }),
        _ => {
            let arms = arms
                .iter()
                .map(|(attribute, pattern, body)| quote!(#attribute #pattern => { #body }));
            let rest = rest.then(|| quote!(_ => {}));
            quote!(match self { #(#arms)* #rest })
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
