//! From parsed files to the checked schema.
//!
//! The order is: gather the files, look into each definition alone, give every name its entity, resolve
//! every use of a name, then check what only makes sense over resolved types. Each step reports all that it
//! finds and goes on with what is sound, so that one run tells everything and no mistake is told twice.

mod alternates;
mod clash;
mod commands;
mod definitions;
mod docs;
mod features;
mod members;
mod modules;
mod names;
mod recursion;
mod shape;
pub(crate) mod suggest;
mod types;
mod unions;

use crate::diagnostic::{Diagnostic, has_errors};
use crate::ir::Schema;
use crate::limits::MAX_DIAGNOSTICS;
use crate::lookup::{Map, Set};
use crate::source::{FileId, LineIndex, SourceMap, Span};

pub use names::mangle;
use types::Types;

/// What a compilation gives.
#[derive(Debug)]
pub struct Compiled {
    /// The schema; only when there is no error.
    pub schema: Option<Schema>,
    /// Everything there is to say, in the order of the files: what an included file says stands where its
    /// directive stands.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles the root file of `sources` and everything that it includes.
pub fn compile(sources: &SourceMap) -> Compiled {
    let (types, diagnostics) = run(sources, true);
    Compiled {
        schema: (!has_errors(&diagnostics)).then_some(types.schema),
        diagnostics,
    }
}

/// Everything there is to say about a schema, for those who do not want the schema itself: as
/// [`compile`], but the documentation is only checked and not kept.
pub fn check(sources: &SourceMap) -> Vec<Diagnostic> {
    run(sources, false).1
}

fn run(sources: &SourceMap, keep_docs: bool) -> (Types, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let gathered = modules::gather(sources, &mut diagnostics);
    let mut nameless = gathered.nameless;
    let lines = LineIndex::of(sources);
    let mut raw = Vec::with_capacity(gathered.definitions.len());
    let mut lost: Vec<&str> = gathered.lost_names.iter().map(|name| &**name).collect();
    for expression in &gathered.definitions {
        let documented = expression.doc.as_ref().and_then(|doc| doc.symbol);
        let shaped = shape::shape(expression, &gathered.pragma, &mut diagnostics);
        // What the comment above names is most likely what is defined here, whatever the definition says.
        let meant =
            documented.filter(|(symbol, _)| shaped.as_ref().is_none_or(|found| found.name != *symbol));
        lost.extend(meant.map(|(symbol, _)| symbol));
        match shaped {
            Some(definition) => raw.push(definition),
            None => {
                lost.extend(shape::names_of(expression));
                nameless += 1;
            }
        }
    }
    let names = definitions::Names::new(&raw, &lost, gathered.incomplete, nameless, &mut diagnostics);
    let mut types = types::resolve(&gathered, &raw, &names, &lines, &mut diagnostics);
    features::check(&raw, &mut types.schema, &mut diagnostics);
    recursion::check(&mut types, &raw, &mut diagnostics);
    unions::check(&mut types, &raw, &mut diagnostics);
    clash::check(&types, &raw, &mut diagnostics);
    alternates::check(&types, &raw, &mut diagnostics);
    commands::check(&types, &raw, &gathered.pragma, &mut diagnostics);
    docs::check(&raw, &gathered.pragma, &mut diagnostics);
    if keep_docs && !has_errors(&diagnostics) {
        docs::keep(&gathered, &raw, &mut types, &lines);
    }
    for module in &mut types.schema.modules {
        sources.name(module.file).clone_into(&mut module.path);
    }
    sort(&gathered.modules, &mut diagnostics);
    (types, diagnostics)
}

/// Puts diagnostics into the order in which a reader meets their places, who follows each include.
fn sort(modules: &[modules::RawModule<'_>], diagnostics: &mut Vec<Diagnostic>) {
    if diagnostics.is_empty() {
        return;
    }
    let routes: Map<FileId, &[u32]> = modules
        .iter()
        .map(|module| (module.file, module.route.as_slice()))
        .collect();
    let key = |diagnostic: &Diagnostic| {
        let span = diagnostic.primary.span;
        let mut route = routes.get(&span.file).copied().unwrap_or(&[]).to_vec();
        route.push(span.start);
        route
    };
    // Of several errors about the very same place the first that was found is the cause of the others.
    let mut told: Set<Span> = Set::default();
    diagnostics.retain(|diagnostic| !diagnostic.is_error() || told.insert(diagnostic.primary.span));
    diagnostics.sort_by_cached_key(key);
    // Errors are told before warnings, so that a refusal never goes without its reason.
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .count();
    let mut room = [MAX_DIAGNOSTICS.saturating_sub(errors), MAX_DIAGNOSTICS];
    diagnostics.retain(|diagnostic| {
        let [warnings, errors] = &mut room;
        let room = if diagnostic.is_error() { errors } else { warnings };
        let fits = *room > 0;
        *room = room.saturating_sub(1);
        fits
    });
}
