//! Builders for structs and unions of which much may be left out: what must be said is said at once, the rest by name.
//!
//! A builder is the value itself behind another type, so that it costs a method a member and no more.

use super::context::Context;
use super::mangle::{Scope, ident};
use super::types::{Field, base_members};
use crate::ir::{Builtin, Element, Type, TypeId, TypeKind, TypeRef, Union};
use proc_macro2::{Ident, TokenStream};
use quote::quote;

/// Structs with fewer members to leave out are as short written out.
const MANY_OPTIONAL: usize = 6;
/// More arguments than this do not read well, and clippy says so.
const MANY_REQUIRED: usize = 7;

/// What a struct is made of, its bases' members included.
#[derive(Default)]
struct Parts<'s> {
    /// Parameters of `builder`.
    parameters: Vec<TokenStream>,
    required: usize,
    /// Each with the way to it: `.base.base`.
    optional: Vec<(TokenStream, Field<'s>)>,
}

impl<'s> Context<'s> {
    /// The builder of a struct or a union, if it is worth one.
    pub(super) fn emit_builder(&self, id: TypeId, ty: &Type, items: &mut Vec<TokenStream>) {
        let Some(builder) = self.builder_name(id) else {
            return;
        };
        let Some(cfg) = self.type_cfg(id) else { return };
        let mut parts = Parts::default();
        let mut names = Scope::default();
        let Some(value) = self.parts(id, &quote!(), &mut names, &mut parts) else {
            return;
        };
        if parts.optional.len() < MANY_OPTIONAL || parts.required > MANY_REQUIRED {
            return;
        }
        let (name, attribute) = (self.own_ident(id), self.attribute(&cfg));
        let parameters = &parts.parameters;
        let begin_doc = self.doc(vec![
            "Begins a value of which only what must be there is said.".to_owned(),
        ]);
        items.push(quote! {
            #attribute
            impl #name {
                #begin_doc
                #[inline]
                pub fn builder(#(#parameters),*) -> #builder { #builder(#value) }
            }
        });
        let doc = self.doc(vec![format!(
            "Makes {} member by member.",
            Self::type_link(&name)
        )]);
        items.push(quote! {
            #doc
            #attribute
            #[derive(Debug)]
            #[must_use = "`build` gives the value"]
            pub struct #builder(#name);
        });
        let mut scope = Scope::with(&["build"]);
        let methods: Vec<TokenStream> = parts
            .optional
            .iter()
            .map(|(way, field)| self.setter(way, field, &cfg, &mut scope))
            .collect();
        let build_doc = self.doc(vec![format!("The {} `{}`.", ty.kind_name(), ty.name)]);
        items.push(quote! {
            #attribute
            impl #builder {
                #(#methods)*
                #build_doc
                #[inline]
                pub fn build(self) -> #name { self.0 }
            }
        });
    }

    fn setter(
        &self,
        way: &TokenStream,
        field: &Field<'_>,
        outer: &super::condition::Cfg,
        scope: &mut Scope,
    ) -> TokenStream {
        let member = field.member;
        let doc = self.doc(vec![format!("Sets `{}`.", member.name)]);
        let cfg = self.attribute(&field.cfg.clone().within(outer));
        let deprecated = self.deprecated(&member.features);
        let field_name = &field.name;
        let plain = field_name.to_string();
        let method = ident(&scope.claim(plain.trim_start_matches("r#")));
        let (parameter, value) = self.argument(member.member_type, &quote!(value));
        let value = if field.boxed {
            let boxed = self.name("Box");
            quote!(#boxed::new(#value))
        } else {
            value
        };
        quote! {
            #doc #cfg #deprecated
            #[inline]
            pub fn #method(mut self, value: #parameter) -> Self {
                self.0 #way.#field_name = Some(#value);
                self
            }
        }
    }

    /// The type of a parameter, and what becomes of it.
    fn argument(&self, of: TypeRef, value: &TokenStream) -> (TokenStream, TokenStream) {
        let ty = self.type_ref(of);
        if of.element == Element::Builtin(Builtin::Str) && !of.array {
            let into = self.name("Into");
            (quote!(impl #into<#ty>), quote!(#value.into()))
        } else {
            (ty, value.clone())
        }
    }

    /// The literal of a value whose optional members are not there; nothing if it cannot be written.
    fn parts(
        &self,
        id: TypeId,
        way: &TokenStream,
        names: &mut Scope,
        parts: &mut Parts<'s>,
    ) -> Option<TokenStream> {
        if self.is_overridden(id) {
            return None;
        }
        let found = match &self.schema.type_of(id).kind {
            TypeKind::Struct(found) => found,
            TypeKind::Union(found) => return self.union_parts(id, found, names, parts),
            TypeKind::Enum(_) | TypeKind::Alternate(_) => return None,
        };
        let cfg = self.type_cfg(id)?;
        let mut scope = Scope::default();
        let own = found.members.iter().enumerate();
        let fields = self.fields(own.map(|(place, member)| (id, place, member)), &cfg, &mut scope);
        let mut values = Vec::new();
        if let Some(base) = found.base {
            let field = ident(&scope.claim("base"));
            let inner = self.parts(base, &quote!(#way.#field), names, parts)?;
            values.push(quote!(#field: #inner));
        } else if self.keeps_members(None) {
            let (field, map) = (ident(&scope.claim("unknown")), self.name("Map"));
            values.push(quote!(#field: #map::new()));
        }
        self.field_parts(fields, way, names, parts, &mut values);
        let ty = self.type_ident(id);
        Some(quote!(#ty { #(#values),* }))
    }

    /// The same for a union: the members of its base, and the branch in place of the discriminator.
    fn union_parts(
        &self,
        id: TypeId,
        found: &Union,
        names: &mut Scope,
        parts: &mut Parts<'s>,
    ) -> Option<TokenStream> {
        if self.schema.base_is_only_tag(found) {
            return None;
        }
        let cfg = self.type_cfg(id)?;
        let mut scope = Scope::default();
        let mut fields = self.fields(base_members(self.schema, found.base), &cfg, &mut scope);
        fields.retain(|field| field.member.name != found.tag.name);
        let branch = ident(&scope.claim("branch"));
        let mut values = Vec::new();
        self.field_parts(fields, &quote!(), names, parts, &mut values);
        let (parameter, ty) = (ident(&names.claim("branch")), self.branch_name(id));
        parts.required += 1;
        parts.parameters.push(quote!(#parameter: #ty));
        values.push(if branch == parameter {
            quote!(#branch)
        } else {
            quote!(#branch: #parameter)
        });
        if self.keeps_members(None) {
            let (field, map) = (ident(&scope.claim("unknown")), self.name("Map"));
            values.push(quote!(#field: #map::new()));
        }
        let ty = self.type_ident(id);
        Some(quote!(#ty { #(#values),* }))
    }

    /// The values of fields: parameters where they must be there.
    fn field_parts(
        &self,
        fields: Vec<Field<'s>>,
        way: &TokenStream,
        names: &mut Scope,
        parts: &mut Parts<'s>,
        values: &mut Vec<TokenStream>,
    ) {
        for field in fields {
            let attribute = self.attribute(&field.cfg);
            let name = &field.name;
            if field.member.optional {
                values.push(quote!(#attribute #name: None));
                parts.optional.push((way.clone(), field));
                continue;
            }
            let plain = name.to_string();
            let parameter = ident(&names.claim(plain.trim_start_matches("r#")));
            let (ty, mut value) = self.argument(field.member.member_type, &quote!(#parameter));
            if field.boxed {
                let boxed = self.name("Box");
                value = quote!(#boxed::new(#value));
            }
            parts.required += 1;
            parts.parameters.push(quote!(#attribute #parameter: #ty));
            values.push(if *name == value.to_string() {
                quote!(#attribute #name)
            } else {
                quote!(#attribute #name: #value)
            });
        }
    }

    fn builder_name(&self, id: TypeId) -> Option<Ident> {
        self.builders.get(&id).cloned()
    }
}
