//! Events: one type each, and for clients one enumeration of them all.

use super::context::Context;
use super::mangle::{Scope, ident};
use crate::ir::{Definition, Event, Implicit, Module};
use proc_macro2::TokenStream;
use quote::quote;

impl Context<'_> {
    /// Whether the event's data is written in place, so that its type is the event's own.
    fn has_own_data(&self, event: &Event) -> bool {
        event
            .data
            .is_some_and(|id| matches!(self.schema.type_of(id).implicit, Some(Implicit::EventData(_))))
    }

    pub(super) fn emit_events(&self, module: &Module, items: &mut Vec<TokenStream>) {
        for definition in &module.definitions {
            let Definition::Event(id) = definition else {
                continue;
            };
            let event = self.schema.event(*id);
            let Some(cfg) = self.event_cfg(event) else {
                continue;
            };
            let attribute = self.attribute(&cfg);
            let name = self.event_name(event);
            let wire = &event.name;
            let deprecated = self.deprecated(&event.features);
            let encode = if self.has_own_data(event) {
                quote!(::qapi_runtime::Encode::encode(self, out);)
            } else {
                let doc = self.definition_doc(
                    event.doc.as_ref(),
                    &format!("The event `{wire}`."),
                    &event.features,
                    Some(event.origin),
                );
                match event.data {
                    Some(data) => {
                        let (data, derives) = (self.type_ident(data), self.derives(&["PartialEq"]));
                        items.push(quote! {
                            #doc #attribute #deprecated
                            #derives
                            pub struct #name(pub #data);
                        });
                        quote!(::qapi_runtime::Encode::encode(&self.0, out);)
                    }
                    None => {
                        let derives = self.derives(&["Copy", "PartialEq", "Eq", "Hash", "Default"]);
                        items.push(quote! {
                            #doc #attribute #deprecated
                            #derives
                            pub struct #name;
                        });
                        quote!()
                    }
                }
            };
            let out = if event.data.is_some() {
                quote!(out)
            } else {
                quote!(_out)
            };
            let special = self.special(&event.features).map(|special| {
                let name = self.name("Special");
                quote!(#[inline] fn special(&self) -> #name { #special })
            });
            let writer = self.name("Writer");
            items.push(quote! {
                #attribute
                impl ::qapi_runtime::Event for #name {
                    #[inline]
                    fn name(&self) -> &'static str { #wire }
                    #special
                    #[inline]
                    fn encode_data(&self, #out: &mut #writer) { #encode }
                }
            });
        }
    }

    /// The enumeration names events that the schema marks deprecated.
    fn allow_deprecated(&self) -> TokenStream {
        let any = self
            .schema
            .events()
            .any(|(_, event)| crate::ir::is_deprecated(&event.features));
        if any && self.options.deprecated_attributes {
            quote!(#[allow(deprecated, reason = "as the schema has it")])
        } else {
            TokenStream::new()
        }
    }

    /// The enumeration of all events, as clients receive them.
    pub(super) fn emit_event_enum(&self, items: &mut Vec<TokenStream>) {
        let Some(name) = self.top.get("Event") else { return };
        let (mut declarations, mut arms) = (Vec::new(), Vec::new());
        let mut plain_arms = 0;
        for (_, event) in self.schema.events() {
            let Some(cfg) = self.event_cfg(event) else {
                continue;
            };
            plain_arms += usize::from(cfg.is_always());
            let cfg = self.attribute(&cfg);
            let (variant, wire) = (self.event_name(event), &event.name);
            let doc = self.doc(vec![format!("`{wire}`")]);
            declarations.push(quote!(#doc #cfg #variant(#variant)));
            let decoded = match event.data {
                None => quote!(#variant),
                Some(_) if self.has_own_data(event) => quote!(::qapi_runtime::execute::event_data(data)?),
                Some(_) => quote!(#variant(::qapi_runtime::execute::event_data(data)?)),
            };
            arms.push(quote!(#cfg #wire => Self::#variant(#decoded)));
        }
        let doc = self.doc(vec!["An event, as it comes from a server.".to_owned()]);
        let unknown = self.doc(vec!["An event that the schema does not have.".to_owned()]);
        let decode = self.doc(
            ["Reads an event.", "", "# Errors", "When its data does not fit."]
                .map(str::to_owned)
                .to_vec(),
        );
        let name_doc = self.doc(vec!["The event's name.".to_owned()]);
        let data_doc = self.doc(vec!["The event's data.".to_owned()]);
        let allow = self.allow_deprecated();
        let taken: Vec<String> = self
            .schema
            .events()
            .map(|(_, event)| self.event_name(event).to_string())
            .collect();
        let taken: Vec<&str> = taken.iter().map(String::as_str).collect();
        let unknown_name = ident(&Scope::with(&taken).claim("UnknownEvent"));
        let unknown_event = quote! {
            Self::#unknown_name {
                name: name.to_owned(),
                data: ::qapi_runtime::execute::event_data(data)?,
            }
        };
        let body = if arms.is_empty() {
            unknown_event
        } else {
            quote!(match name { #(#arms,)* _ => #unknown_event })
        };
        let single = (plain_arms == 0 && !arms.is_empty()).then(
            || quote!(#[allow(clippy::match_single_binding, reason = "conditions may leave only one arm")]),
        );
        items.push(quote! {
            #doc
            #allow
            #[allow(clippy::large_enum_variant, reason = "as large as the schema has it")]
            #[derive(Debug, Clone, PartialEq)]
            pub enum #name {
                #(#declarations,)*
                #unknown
                #unknown_name {
                    #name_doc
                    name: ::std::string::String,
                    #data_doc
                    data: ::qapi_runtime::Map,
                },
            }
        });
        items.push(quote! {
            #allow
            #single
            impl #name {
                #decode
                #[inline]
                pub fn decode(
                    name: &str,
                    data: ::std::option::Option<::qapi_runtime::Cursor<'_>>,
                ) -> ::std::result::Result<Self, ::qapi_runtime::DecodeError> {
                    Ok(#body)
                }
            }
        });
    }
}
