//! The client's side of commands: one method each.

use super::context::Context;
use crate::ir::{Command, Definition, Module};
use proc_macro2::TokenStream;
use quote::quote;

impl Context<'_> {
    /// The client itself, which knows no command yet.
    pub(super) fn emit_client(&self, items: &mut Vec<TokenStream>) {
        let Some(name) = self.top.get("Client") else {
            return;
        };
        let doc = self.doc(vec![
            "A client: one method a command, over anything that executes commands.".to_owned(),
        ]);
        let transport_doc = self.doc(vec!["What executes the commands.".to_owned()]);
        items.push(quote! {
            #doc
            #[derive(Debug, Clone)]
            pub struct #name<T> {
                #transport_doc
                pub transport: T,
            }
        });
        let new_doc = self.doc(vec!["A client over what executes its commands.".to_owned()]);
        items.push(quote! {
            impl<T> #name<T> {
                #new_doc
                pub const fn new(transport: T) -> Self { Self { transport } }
            }
        });
    }

    pub(super) fn emit_client_methods(&self, module: &Module, items: &mut Vec<TokenStream>) {
        let Some(name) = self.top.get("Client") else {
            return;
        };
        let commands: Vec<&Command> = module
            .definitions
            .iter()
            .filter_map(|definition| match definition {
                Definition::Command(id) => Some(self.schema.command(*id)),
                _ => None,
            })
            .filter(|command| self.command_cfg(command).is_some())
            .collect();
        if commands.is_empty() {
            return;
        }
        *self.uses_others.borrow_mut() = true;
        let (execute, result) = (self.name("Execute"), self.name("Result"));
        let helpers = self.name("execute");
        let methods = commands.iter().map(|command| {
            let doc = self.definition_doc(
                command.doc.as_ref(),
                &format!("The command `{}`.", command.name),
                &command.features,
                Some(command.origin),
            );
            let cfg = self.attribute(&self.command_cfg(command).unwrap_or_default());
            let deprecated = self.deprecated(&command.features);
            let (wire, method) = (&command.name, self.method(command));
            let returns = self.returns(command);
            match self.arguments(command) {
                Some(arguments) => quote! {
                    #doc #cfg #deprecated
                    pub async fn #method(&self, arguments: &#arguments) -> #result<#returns, T::Error> {
                        #helpers::with_arguments(&self.transport, #wire, arguments).await
                    }
                },
                None => quote! {
                    #doc #cfg #deprecated
                    pub async fn #method(&self) -> #result<#returns, T::Error> {
                        #helpers::without_arguments(&self.transport, #wire).await
                    }
                },
            }
        });
        let doc = self.doc(vec![format!("Commands of {}.", module.name)]);
        items.push(quote! { #doc impl<T: #execute> #name<T> { #(#methods)* } });
    }
}
