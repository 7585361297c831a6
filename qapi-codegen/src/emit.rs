//! The Rust back end: from a checked schema to Rust sources.
//!
//! One module of Rust a module of the schema, and one above them that re-exports everything. Items are
//! built as tokens and printed one by one. It looks up no name: the schema has resolved them all.

mod boxes;
mod client;
mod commands;
mod condition;
mod context;
mod docs;
mod events;
mod introspection;
mod mangle;
mod types;

pub use condition::Conditions;

use crate::ir::{Definition, ModuleId, Schema};
use context::Context;
use proc_macro2::TokenStream;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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

/// Generated code that does not parse as Rust: a type override or a condition's rule is no Rust.
#[derive(Debug, thiserror::Error)]
#[error(
    "the generated code of `{module}` is not Rust: {source}; check type overrides, derives and conditions"
)]
pub struct EmitError {
    module: String,
    source: syn::Error,
}

/// Generates everything. The same schema and options give the same bytes everywhere.
///
/// # Errors
/// When a type override, a derive or a condition's rule is not Rust.
pub fn generate(schema: &Schema, options: &Options, layout: Layout<'_>) -> Result<Vec<Output>, EmitError> {
    let context = Context::new(schema, options);
    let mut outputs = Vec::new();
    let mut modules = Vec::new();
    for (id, module) in schema.modules() {
        let mut items = Vec::new();
        *context.module.borrow_mut() = Some(id);
        context.imports.borrow_mut().clear();
        *context.uses_others.borrow_mut() = false;
        for definition in &module.definitions {
            if let Definition::Type(id) = definition {
                context.emit_type(*id, &mut items);
            }
        }
        context.emit_events(module, &mut items);
        if options.server() {
            context.emit_commands(id, module, &mut items);
        }
        let exports = !items.is_empty();
        if options.client() {
            context.emit_client_methods(module, &mut items);
        }
        if items.is_empty() {
            continue;
        }
        let name = plain(&context.module_names(id).0);
        let mut text = format!("// Generated from {}; changes here are lost.\n\n", module.name);
        let body = context.print(&module.name, items)?;
        text.push_str(&context.header());
        text.push_str(&body);
        modules.push((id, name.clone(), exports));
        outputs.push(Output {
            name: format!("{name}.rs"),
            text,
        });
    }
    let top = context.top(&modules, layout)?;
    outputs.insert(
        0,
        Output {
            name: top_name(layout),
            text: top,
        },
    );
    Ok(outputs)
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
    /// Prints items with a blank line between them.
    fn print(&self, module: &str, items: Vec<TokenStream>) -> Result<String, EmitError> {
        let mut code = String::new();
        for item in items {
            if let Some(line) = macro_line(&item) {
                code.push('\n');
                code.push_str(&line);
                continue;
            }
            let item: syn::Item = syn::parse2(item).map_err(|source| EmitError {
                module: module.to_owned(),
                source,
            })?;
            let file = syn::File {
                shebang: None,
                frontmatter: None,
                attrs: Vec::new(),
                items: vec![item],
            };
            if !code.is_empty() {
                code.push('\n');
            }
            code.push_str(&prettyplease::unparse(&file));
        }
        Ok(self.with_docs(&code))
    }

    /// Under conditions an import may have no user left.
    fn allow_unused(&self) -> &'static str {
        if self.options.conditions.are_mapped() {
            "#[allow(unused_imports, reason = \"conditions may leave it unused\")]\n"
        } else {
            ""
        }
    }

    /// What a module imports.
    fn header(&self) -> String {
        let mut text = String::new();
        let allow = self.allow_unused();
        if *self.uses_others.borrow() {
            text.push_str(allow);
            text.push_str("use super::*;\n");
        }
        let (mut names, mut kinds) = (Vec::new(), false);
        for path in self.imports.borrow().iter() {
            match path.strip_prefix("::qapi_runtime::") {
                Some("decode::Kind") => kinds = true,
                Some(name) => names.push(name),
                None => {}
            }
        }
        if kinds {
            text.push_str(allow);
            text.push_str("use qapi_runtime::decode::Kind;\n");
        }
        match names.as_slice() {
            [] => {}
            [one] => text.push_str(&format!("{allow}use qapi_runtime::{one};\n")),
            many => text.push_str(&format!("{allow}use qapi_runtime::{{{}}};\n", many.join(", "))),
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }

    /// The file above the modules.
    fn top(&self, modules: &[(ModuleId, String, bool)], layout: Layout<'_>) -> Result<String, EmitError> {
        let mut text = String::from("// Generated; changes here are lost.\n\n");
        let mut exports = String::new();
        let deprecated = modules.iter().any(|(id, ..)| self.has_deprecated(*id));
        for (id, name, exporting) in modules {
            let module = self.schema.module(*id);
            let ident = &self.module_names(*id).0;
            text.push_str(&format!("/// Types, commands and events of {}.\n", module.name));
            // Whether a link needs its path depends on what the module imports.
            let mut allows = vec![
                "clippy::large_enum_variant",
                "clippy::module_inception",
                "rustdoc::redundant_explicit_links",
            ];
            if deprecated {
                allows.push("deprecated");
            }
            text.push_str(&format!(
                "#[allow({}, reason = \"as the schema has it\")]\n",
                allows.join(", ")
            ));
            match layout {
                Layout::Folder => text.push_str(&format!("pub mod {ident};\n\n")),
                Layout::OutDir(folder) => text.push_str(&format!(
                    "pub mod {ident} {{\n    include!(concat!(env!(\"OUT_DIR\"), \"/{folder}/{name}.rs\"));\n}}\n\n"
                )),
            }
            if *exporting {
                exports.push_str(self.allow_unused());
                exports.push_str(&format!("pub use self::{ident}::*;\n"));
            }
        }
        text.push_str(&exports);
        let mut items = Vec::new();
        if self.options.server() {
            self.emit_command_table(&mut items);
        }
        if self.options.client() {
            self.emit_client(&mut items);
            self.emit_event_enum(&mut items);
        }
        self.emit_introspection(&mut items);
        text.push('\n');
        text.push_str(&self.print("the schema", items)?);
        Ok(text)
    }

    /// Whether anything of a module is marked deprecated.
    fn has_deprecated(&self, _module: ModuleId) -> bool {
        self.options.deprecated_attributes
            && self
                .schema
                .features()
                .first()
                .is_some_and(|name| name == "deprecated")
    }
}

/// The line of a bare macro call, `::qapi_runtime::object!(strict Name);`: a fifth of all items, and there
/// is nothing to lay out.
fn macro_line(item: &TokenStream) -> Option<String> {
    use proc_macro2::TokenTree;
    let tokens: Vec<TokenTree> = item.clone().into_iter().take(12).collect();
    let [
        ..,
        TokenTree::Ident(name),
        TokenTree::Punct(bang),
        TokenTree::Group(group),
        TokenTree::Punct(_),
    ] = tokens.as_slice()
    else {
        return None;
    };
    let bare = matches!(tokens.first(), Some(TokenTree::Punct(first)) if first.as_char() == ':');
    let words: Vec<String> = group.stream().into_iter().map(|word| word.to_string()).collect();
    (bare && bang.as_char() == '!').then(|| format!("::qapi_runtime::{name}!({});\n", words.join(" ")))
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
