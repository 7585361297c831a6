//! The server's side of commands: one trait a module, and the rows that call its methods.

use super::context::Context;
use super::mangle::{self, ident};
use crate::ir::{Command, Definition, Module, ModuleId};
use proc_macro2::{Ident, TokenStream};
use quote::quote;

impl Context<'_> {
    /// The commands of a module that handlers implement.
    pub(super) fn handled<'s>(&'s self, module: &'s Module) -> impl Iterator<Item = &'s Command> {
        module
            .definitions
            .iter()
            .filter_map(|definition| match definition {
                Definition::Command(id) => Some(self.schema.command(*id)),
                _ => None,
            })
            .filter(|command| {
                !self.options.is_answered_by_runtime(&command.name) && self.command_cfg(command).is_some()
            })
    }

    /// The type of the arguments, if there are any.
    pub(super) fn arguments(&self, command: &Command) -> Option<TokenStream> {
        if command.generate {
            command.arguments.map(|id| self.type_ident(id))
        } else {
            Some(self.name("Map"))
        }
    }

    /// The type of the value that a command returns.
    pub(super) fn returns(&self, command: &Command) -> TokenStream {
        match command.returns {
            Some(_) if !command.generate && !self.is_client() => self.name("Value"),
            Some(returns) => self.type_ref(returns),
            None => quote!(()),
        }
    }

    pub(super) fn emit_commands(&self, id: ModuleId, module: &Module, items: &mut Vec<TokenStream>) {
        let commands: Vec<&Command> = self.handled(module).collect();
        if commands.is_empty() {
            return;
        }
        let (module_name, trait_name) = self.module_names(id);
        let (call, error) = (self.name("Call"), self.name("Error"));
        let (result, send, sync, vec, row) = (
            self.name("Result"),
            self.name("Send"),
            self.name("Sync"),
            self.name("Vec"),
            self.name("Row"),
        );
        let future = self.name("Future");
        let methods = commands.iter().map(|command| {
            let doc = self.definition_doc(
                command.doc.as_ref(),
                &format!("The command `{}`.", command.name),
                &command.features,
                Some(command.origin),
            );
            let cfg = self.command_cfg(command).unwrap_or_default();
            let (cfg, deprecated) = (self.attribute(&cfg), self.deprecated(&command.features));
            let name = self.method(command);
            let arguments = self.arguments(command).map(|arguments| quote!(arguments: #arguments));
            let returns = self.returns(command);
            quote! {
                #doc #cfg #deprecated
                fn #name(&self, call: &#call, #arguments) -> impl #future<Output = #result<#returns, #error>> + #send;
            }
        });
        let doc = self.doc(vec![format!("Commands of {}.", module.name)]);
        items.push(quote! { #doc pub trait #trait_name: #send + #sync { #(#methods)* } });

        let macro_name = self.name("call");
        let rows = commands.iter().map(|command| {
            let cfg = self.attribute(&self.command_cfg(command).unwrap_or_default());
            let (wire, method) = (&command.name, self.method(command));
            let arguments = self.arguments(command).map(|_| quote!(arguments));
            let oob = command.allow_oob.then(|| quote!(.allow_oob()));
            let preconfig = command.allow_preconfig.then(|| quote!(.allow_preconfig()));
            let silent = (!command.success_response).then(|| quote!(.no_success_response()));
            let coroutine = command.coroutine.then(|| quote!(.coroutine()));
            let features: Vec<TokenStream> = self
                .features(&command.features)
                .into_iter()
                .map(|(name, cfg)| {
                    let cfg = self.attribute(&cfg);
                    quote!(#cfg #name)
                })
                .collect();
            let features = (!features.is_empty()).then(|| quote!(.features(&[#(#features),*])));
            quote!(#cfg #row::<H>::new(#wire, #macro_name!(H::#method(#arguments))) #oob #preconfig #silent #coroutine #features)
        });
        let doc = self.doc(vec![format!(
            "How a handler's commands of {} are called, by name.",
            module.name
        )]);
        let rows_name = rows_name(&module_name);
        items.push(quote! {
            #doc
            pub fn #rows_name<H: #trait_name + 'static>() -> #vec<#row<H>> { #vec::from([#(#rows),*]) }
        });
    }

    /// All commands of the schema, for a handler that has all of them.
    pub(super) fn emit_command_table(&self, items: &mut Vec<TokenStream>) {
        let table = quote!(::qapi_runtime::CommandTable);
        let Some(all) = self.top.get("Commands") else {
            return;
        };
        let (mut bounds, mut extends) = (Vec::new(), Vec::new());
        for (id, module) in self.schema.modules() {
            if self.handled(module).next().is_some() {
                let (name, commands) = self.module_names(id);
                let rows = rows_name(&name);
                bounds.push(commands);
                extends.push(quote!(table.extend(#rows());));
            }
        }
        if bounds.is_empty() {
            return;
        }
        let doc = self.doc(vec!["All commands of the schema.".to_owned()]);
        items.push(quote! { #doc pub trait #all: #(#bounds)+* + 'static {} });
        items.push(quote! { impl<H> #all for H where H: #(#bounds)+* + 'static {} });
        let doc = self.doc(vec!["How a handler's commands are called, by name.".to_owned()]);
        items.push(quote! {
            #doc
            #[must_use]
            pub fn commands<H: #all>() -> #table<H> {
                let mut table = #table::new();
                #(#extends)*
                table
            }
        });
    }
}

/// The function that gives the rows of a module.
fn rows_name(module: &Ident) -> Ident {
    let name = module.to_string();
    ident(&format!("{}_rows", mangle::stem(name.trim_start_matches("r#"))))
}
