//! The Rust back end: from a checked schema to Rust sources.
//!
//! One module of Rust a module of the schema, and one above them that re-exports everything. Items are
//! built as tokens and printed as rustfmt would. It looks up no name: the schema has resolved them all.

mod boxes;
mod builders;
mod client;
mod commands;
mod condition;
mod context;
mod docs;
mod events;
mod heading;
mod introspection;
mod mangle;
mod print;
mod types;

pub use condition::Conditions;

use crate::ir::{Definition, ModuleId, Schema};
use context::Context;
use proc_macro2::TokenStream;
use quote::quote;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which end of the connection the code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Strict: what the schema does not allow is an error. Traits to implement and rows to dispatch by.
    #[default]
    Server,
    /// Tolerant: what the schema does not know may come from a newer server. Methods to call.
    Client,
}

/// What to generate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Which end of the connection the code is for.
    pub role: Role,
    /// What becomes of `if`.
    pub conditions: Conditions,
    /// Types only: no traits, rows and client.
    pub types_only: bool,
    /// Keep members that the schema does not have in a field `unknown` (clients only).
    pub keep_unknown: bool,
    /// A member that must be there and is not has no content: an empty text or list, 0, `false`, the unknown value
    /// (clients only; without it only lists may be left out).
    pub older_servers: bool,
    /// Traits that every type derives besides the usual ones, with their paths.
    pub derives: Vec<String>,
    /// Rust types that stand for types of the schema; they implement `Decode`, `Encode`, and `Members`
    /// where they are bases or branches.
    pub type_overrides: BTreeMap<String, String>,
    /// Commands that have no method of a trait, because something below the handler answers them.
    pub answered_by_runtime: BTreeSet<String>,
    /// Mark with `#[deprecated]` what the schema marks so.
    pub deprecated_attributes: bool,
    /// Carry the schema's documentation over.
    pub docs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            role: Role::Server,
            conditions: Conditions::default(),
            types_only: false,
            keep_unknown: false,
            older_servers: false,
            derives: Vec::new(),
            type_overrides: BTreeMap::new(),
            answered_by_runtime: BTreeSet::new(),
            deprecated_attributes: true,
            docs: true,
        }
    }
}

impl Options {
    fn server(&self) -> bool {
        self.role == Role::Server && !self.types_only
    }

    fn client(&self) -> bool {
        self.role == Role::Client && !self.types_only
    }

    fn is_answered_by_runtime(&self, command: &str) -> bool {
        self.answered_by_runtime.contains(command)
    }
}

/// One file of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name, without a folder.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// How the top file finds the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout<'a> {
    /// As modules in the same folder: the top file is `mod.rs`.
    Folder,
    /// By `include!` from a folder below `OUT_DIR`: the top file is included itself.
    OutDir(&'a str),
}

/// What is asked for cannot be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// A type override, a derive or a condition's rule is no Rust.
    #[error("the {what} `{text}` is not Rust: {source}")]
    NotRust {
        /// What it is.
        what: &'static str,
        /// What was said.
        text: String,
        /// Why it is no Rust.
        source: syn::Error,
    },
    /// A type that is to be overridden is not in the schema.
    #[error("there is no type `{0}` in the schema to stand in for")]
    NoSuchType(String),
}

/// Generates everything. The same schema and options give the same bytes everywhere.
///
/// # Errors
/// When a type override, a derive or a condition's rule is not Rust, or a type to override is not there.
pub fn generate(schema: &Schema, options: &Options, layout: Layout<'_>) -> Result<Vec<Output>, EmitError> {
    check_rust(schema, options)?;
    let context = Context::new(schema, options);
    let mut outputs = Vec::new();
    let mut modules = Vec::new();
    for (id, (output, exports)) in emit_modules(&context, threads(schema)) {
        modules.push((id, plain(&context.module_names(id).0), exports));
        outputs.push(output);
    }
    let top = context.top(&modules, layout);
    outputs.insert(
        0,
        Output {
            name: top_name(layout),
            text: top,
        },
    );
    Ok(outputs)
}

/// What a module becomes, and whether others can use any of it.
type Emitted = (Output, bool);

/// Schemas with fewer definitions are done before another thread has begun.
const MANY_DEFINITIONS: usize = 200;

/// How many threads share the work.
fn threads(schema: &Schema) -> usize {
    let definitions: usize = schema.modules().map(|(_, module)| module.definitions.len()).sum();
    if definitions < MANY_DEFINITIONS {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |count| count.get().min(4))
}

/// The modules that become something, in order. Each is emitted by itself, whichever thread does it.
fn emit_modules(context: &Context<'_>, threads: usize) -> Vec<(ModuleId, Emitted)> {
    let (schema, options) = (context.schema, context.options);
    let mut ids: Vec<(ModuleId, usize)> = schema
        .modules()
        .map(|(id, module)| (id, module.definitions.len()))
        .collect();
    let order: Vec<ModuleId> = ids.iter().map(|(id, _)| *id).collect();
    // The longest first, so that the last one is short.
    ids.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let next = AtomicUsize::new(0);
    let emit = |context: &Context<'_>| {
        let mut done = Vec::new();
        while let Some((id, _)) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(emitted) = context.emit_module(*id) {
                done.push((*id, emitted));
            }
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        // A thread that cannot be had is none that is missed: those that there are do its work.
        let another =
            || std::thread::Builder::new().spawn_scoped(scope, || emit(&Context::new(schema, options)));
        let others: Vec<_> = (1..threads).map_while(|_| another().ok()).collect();
        let mut done = emit(context);
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(id, _)| order.iter().position(|other| other == id));
    done
}

fn top_name(layout: Layout<'_>) -> String {
    match layout {
        Layout::Folder => "mod.rs".to_owned(),
        Layout::OutDir(folder) => format!("{folder}.rs"),
    }
}

fn plain(name: &proc_macro2::Ident) -> String {
    name.to_string().trim_start_matches("r#").to_owned()
}

impl Context<'_> {
    /// Emits a module, unless there is nothing in it.
    fn emit_module(&self, id: ModuleId) -> Option<Emitted> {
        let module = self.schema.module(id);
        let mut items = Vec::new();
        *self.module.borrow_mut() = Some(id);
        self.imports.borrow_mut().clear();
        *self.uses_others.borrow_mut() = false;
        for definition in &module.definitions {
            if let Definition::Type(id) = definition {
                self.emit_type(*id, &mut items);
            }
        }
        self.emit_events(module, &mut items);
        if self.options.server() {
            self.emit_commands(id, module, &mut items);
        }
        let exports = !items.is_empty();
        if self.options.client() {
            self.emit_client_methods(module, &mut items);
        }
        if items.is_empty() {
            return None;
        }
        let name = plain(&self.module_names(id).0);
        let mut text = format!("// Generated from {}; changes here are lost.\n\n", module.name);
        text.push_str(&self.header());
        text.push_str(&self.print(items));
        let name = format!("{name}.rs");
        Some((Output { name, text }, exports))
    }

    /// Prints items with a blank line between them.
    fn print(&self, items: Vec<TokenStream>) -> String {
        print::items(items, &self.docs.take())
    }

    /// What a module imports.
    fn header(&self) -> String {
        let mut imports = Vec::new();
        if *self.uses_others.borrow() {
            imports.push(quote!(
                use super::*;
            ));
        }
        let (mut names, mut kinds, mut others) = (Vec::new(), false, Vec::new());
        for path in self.imports.borrow().iter() {
            match path.strip_prefix("::qapi_runtime::") {
                Some("decode::Kind") => kinds = true,
                Some(name) => names.push(mangle::ident(name)),
                None => others.push(path.trim_start_matches("::")),
            }
        }
        if kinds {
            imports.push(quote!(
                use qapi_runtime::decode::Kind;
            ));
        }
        match names.as_slice() {
            [] => {}
            [one] => imports.push(quote!(use qapi_runtime::#one;)),
            many => imports.push(quote!(use qapi_runtime::{#(#many),*};)),
        }
        for path in others {
            // What another module of the schema has is not meant.
            let path: TokenStream = path.parse().unwrap_or_default();
            imports.push(quote!(use #path;));
        }
        let mut text: String = imports
            .into_iter()
            .map(|import| print::items(vec![import], &[]))
            .collect();
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }

    /// The file above the modules.
    fn top(&self, modules: &[(ModuleId, String, bool)], layout: Layout<'_>) -> String {
        let mut items = Vec::new();
        let mut exports = Vec::new();
        let deprecated = self.has_deprecated().then(|| quote!(deprecated,));
        let placeholders = self.has_placeholders().then(|| quote!(clippy::disallowed_names,));
        // Whether a link needs its path depends on what the module imports. Lints of taste are for those who write.
        let allow = quote! {
            allow(
                #placeholders clippy::large_enum_variant, clippy::module_inception,
                clippy::nursery, clippy::pedantic, clippy::should_implement_trait, clippy::wrong_self_convention,
                dead_code, unused_imports,
                rustdoc::redundant_explicit_links, #deprecated reason = "as the schema has it"
            )
        };
        for (id, name, exporting) in modules {
            let module = self.schema.module(*id);
            let ident = &self.module_names(*id).0;
            let doc = self.doc(vec![format!("Types, commands and events of {}.", module.name)]);
            items.push(match layout {
                Layout::Folder => quote!(#doc pub mod #ident;),
                Layout::OutDir(folder) => {
                    let path = format!("/{folder}/{name}.rs");
                    quote!(#doc #[#allow] pub mod #ident { include!(concat!(env!("OUT_DIR"), #path)); })
                }
            });
            if *exporting {
                let allow = (layout != Layout::Folder).then(
                    || quote!(#[allow(unused_imports, reason = "a program may need only some modules")]),
                );
                exports.push((ident.to_string(), quote!(#allow pub use self::#ident::*;)));
            }
        }
        exports.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut parts = vec![heading::line(self.schema, self.options, layout)];
        // Once for all, where the file is a module; what is included cannot say so.
        if layout == Layout::Folder {
            parts.push(print::inner_attribute(allow));
        }
        parts.push(self.print(items));
        let exports = exports.into_iter();
        parts.push(
            exports
                .map(|(_, export)| print::items(vec![export], &[]))
                .collect(),
        );
        let mut items = Vec::new();
        if self.options.server() {
            self.emit_command_table(&mut items);
        }
        if self.options.client() {
            self.emit_client(&mut items);
            self.emit_event_enum(&mut items);
        }
        self.emit_introspection(&mut items);
        parts.push(self.print(items));
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    /// Whether members have names that Clippy takes for left-overs of an experiment.
    fn has_placeholders(&self) -> bool {
        self.schema.types().any(|(id, _)| {
            let members = self.schema.own_members(id).iter();
            members
                .map(|member| mangle::snake(&member.name))
                .any(|name| ["foo", "baz", "quux"].contains(&name.as_str()))
        })
    }

    /// Whether anything is marked deprecated.
    fn has_deprecated(&self) -> bool {
        self.options.deprecated_attributes
            && self
                .schema
                .features()
                .first()
                .is_some_and(|name| name == "deprecated")
    }
}

/// What a caller gives as text must be Rust before it is put among other Rust.
fn check_rust(schema: &Schema, options: &Options) -> Result<(), EmitError> {
    fn check<T: syn::parse::Parse>(what: &'static str, text: &str) -> Result<(), EmitError> {
        syn::parse_str::<T>(text)
            .map(drop)
            .map_err(|source| EmitError::NotRust {
                what,
                text: text.to_owned(),
                source,
            })
    }
    for (name, text) in &options.type_overrides {
        check::<syn::Type>("type", text)?;
        // Built-in types have no definition that another type could stand for.
        if schema.find_type(name).is_none() {
            return Err(EmitError::NoSuchType(name.clone()));
        }
    }
    for text in &options.derives {
        check::<syn::Path>("derive", text)?;
    }
    let mut symbols = BTreeSet::new();
    crate::build_script::for_each_condition(schema, &mut |condition| {
        condition.symbols(&mut |symbol| {
            symbols.insert(symbol.to_owned());
        });
    });
    for symbol in symbols {
        if let Some(text) = options.conditions.predicate(&symbol) {
            check::<syn::Meta>("condition", &text)?;
        }
    }
    Ok(())
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_whichever_thread_emits_a_module() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemas/clashes.json");
        let schema = crate::compile(&crate::fs::load(path.as_ref())).schema.unwrap();
        let options = Options::default();
        let emit = |threads| emit_modules(&Context::new(&schema, &options), threads);
        let one = emit(1);
        assert!(one.len() > 1);
        for threads in 2..5 {
            assert_eq!(emit(threads), one);
        }
    }
}
