//! Documentation against definitions: everything that is documented exists, and what must be documented is.
//!
//! What passes is put into the schema, on the definition as a whole and on each member.

use std::collections::HashMap;
use std::sync::Arc;

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::doc::{Comment, RawSection};
use crate::ir::{Doc, DocText, Feature, ModuleId, Origin, Schema, Section, SectionKind, TypeKind};
use crate::source::{LineIndex, Span};

use super::definitions::{Entity, Ids};
use super::modules::{Gathered, Pragma};
use super::names::Meta;
use super::shape::{Body, Data, RawDefinition, RawFeature, RawMember};
use super::suggest;
use super::types::Types;

pub(crate) fn check(
    types: &mut Types,
    raw: &[RawDefinition<'_>],
    pragma: &Pragma<'_>,
    lines: &LineIndex<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for (index, definition) in raw.iter().enumerate() {
        match definition.doc {
            Some(doc) if doc.damaged => {}
            Some(doc) => {
                let before = diagnostics.len();
                compare(definition, doc, pragma, diagnostics);
                if diagnostics.len() == before
                    && let Some(ids) = types.ids.get(index)
                {
                    attach(&mut types.schema, *ids, doc, definition.module, lines);
                }
            }
            None if pragma.doc_required => diagnostics.push(
                Diagnostic::error(
                    codes::DOC_REQUIRED,
                    definition.name_span,
                    format!(
                        "{} '{}' has no documentation",
                        definition.meta.word(),
                        definition.name
                    ),
                )
                .help(format!(
                    "pragma 'doc-required' asks for a comment `##`, `# @{}:`, text, `##` right above",
                    definition.name
                )),
            ),
            None => {}
        }
    }
}

/// Puts free-form documentation into its modules.
pub(crate) fn free_form(gathered: &Gathered<'_>, schema: &mut Schema, lines: &LineIndex<'_>) {
    for (index, raw) in gathered.modules.iter().enumerate() {
        let Some(module) = schema.modules.get_mut(index) else {
            continue;
        };
        let id = ModuleId::from_index(index);
        module.free_docs = raw
            .free_docs
            .iter()
            .flat_map(|comment| &comment.sections)
            .filter(|section| !section.text.is_empty())
            .map(|section| text(section, id, lines))
            .collect();
    }
}

/// Something that a definition has and documentation may describe.
struct Part<'a> {
    name: &'a str,
    span: Span,
}

fn compare(
    definition: &RawDefinition<'_>,
    doc: &Comment,
    pragma: &Pragma<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some((symbol, symbol_span)) = &doc.symbol else {
        return;
    };
    if symbol != definition.name {
        diagnostics.push(
            Diagnostic::error(
                codes::DOC_WRONG_SYMBOL,
                definition.name_span,
                format!(
                    "documentation is for '{symbol}', but this defines '{}'",
                    definition.name
                ),
            )
            .also(*symbol_span, "the documentation"),
        );
        return;
    }
    sections(definition, doc, diagnostics);
    let (members, features) = parts(definition);
    let role = match definition.meta {
        Meta::Enum => "value",
        Meta::Alternate => "alternative",
        Meta::Command => "argument",
        _ => "member",
    };
    let mut described: HashMap<&str, &RawSection> = HashMap::new();
    let mut described_features: HashMap<&str, &RawSection> = HashMap::new();
    for section in &doc.sections {
        match &section.kind {
            SectionKind::Member(name) => drop(described.insert(name, section)),
            SectionKind::Feature(name) => drop(described_features.insert(name, section)),
            _ => {}
        }
    }
    // A description that was meant for another name makes one complaint, where the name is missing.
    let mut explained: Vec<Span> = Vec::new();
    let stray = |described: &HashMap<&str, &RawSection>, parts: &[Part<'_>]| -> Vec<(String, Span)> {
        let mut stray: Vec<(String, Span)> = described
            .iter()
            .filter(|(name, _)| !parts.iter().any(|part| part.name == **name))
            .map(|(name, section)| ((*name).to_owned(), section.span))
            .collect();
        stray.sort_by_key(|(_, span)| span.start);
        stray
    };
    let stray_members = stray(&described, &members);
    let lacking: Vec<&Part<'_>> = if pragma.documentation.contains(definition.name) {
        Vec::new()
    } else {
        members
            .iter()
            .filter(|member| !described.contains_key(member.name))
            .collect()
    };
    for member in &lacking {
        let meant = match stray_members.as_slice() {
            [only] if lacking.len() == 1 => Some(only),
            several => suggest::nearest(member.name, several.iter().map(|(name, _)| name.as_str()))
                .and_then(|name| several.iter().find(|(other, _)| other == name)),
        };
        let help = if described_features.contains_key(member.name) {
            format!("'{}' is described below `Features:`; move it above", member.name)
        } else if doc.sections.iter().any(|section| mentions(section, member.name)) {
            format!(
                "`@{}:` starts a description only after an empty line",
                member.name
            )
        } else if let Some((name, _)) = meant {
            format!(
                "the comment describes '{name}', which does not exist; is it '{}'?",
                member.name
            )
        } else {
            format!("add `# @{}: what it is` to the comment above", member.name)
        };
        let opening = Span {
            end: doc.span.start + 2,
            ..doc.span
        };
        let diagnostic = Diagnostic::error(
            codes::DOC_UNDOCUMENTED_MEMBER,
            member.span,
            format!("{role} '{}' lacks documentation", member.name),
        )
        .help(help);
        diagnostics.push(match meant {
            Some((_, span)) => {
                explained.push(*span);
                diagnostic.also(*span, "not the name of anything")
            }
            None => diagnostic.also(opening, "the comment"),
        });
    }
    for feature in features
        .iter()
        .filter(|feature| !described_features.contains_key(feature.name))
    {
        let as_member = stray_members.iter().find(|(name, _)| name == feature.name);
        let help = if as_member.is_some() {
            format!(
                "put `# Features:` and an empty line above the description of '{}'",
                feature.name
            )
        } else {
            format!(
                "add `# @{}: what it says` below a line `# Features:`",
                feature.name
            )
        };
        let diagnostic = Diagnostic::error(
            codes::DOC_UNDOCUMENTED_FEATURE,
            feature.span,
            format!("feature '{}' lacks documentation", feature.name),
        )
        .help(help);
        diagnostics.push(match as_member {
            Some((_, span)) => {
                explained.push(*span);
                diagnostic.also(*span, format!("described as if it were a {role}"))
            }
            None => diagnostic,
        });
    }
    if definition.faulty {
        return;
    }
    described.retain(|_, section| !explained.contains(&section.span));
    unknown(&described, &members, role, definition, diagnostics);
    unknown(&described_features, &features, "feature", definition, diagnostics);
}

/// Complains of descriptions of what is not there.
fn unknown(
    described: &HashMap<&str, &RawSection>,
    parts: &[Part<'_>],
    role: &str,
    definition: &RawDefinition<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let code = if role == "feature" {
        codes::DOC_UNKNOWN_FEATURE
    } else {
        codes::DOC_UNKNOWN_MEMBER
    };
    let mut bogus: Vec<_> = described
        .iter()
        .filter(|(name, _)| !parts.iter().any(|part| part.name == **name))
        .collect();
    bogus.sort_by_key(|(_, section)| section.span.start);
    for (name, section) in bogus {
        if name.is_empty() {
            continue;
        }
        // Names that are described and there are no candidates for what was meant.
        let open = parts
            .iter()
            .map(|part| part.name)
            .filter(|name| !described.contains_key(name));
        let help = suggest::did_you_mean(name, open).or_else(|| why_unknown(name, role, definition));
        diagnostics.push(
            Diagnostic::error(
                code,
                section.span,
                format!(
                    "documented {role} '{name}' does not exist in {} '{}'",
                    definition.meta.word(),
                    definition.name
                ),
            )
            .also(definition.name_span, "the definition")
            .maybe_help(help),
        );
    }
}

fn why_unknown(name: &str, role: &str, definition: &RawDefinition<'_>) -> Option<String> {
    if name.contains(' ') {
        return Some(
            "a paragraph that starts with `@` and has a colon is read as a description; start it otherwise"
                .to_owned(),
        );
    }
    if role == "feature" {
        return None;
    }
    match &definition.body {
        Body::Command {
            data: Data::Named(data),
            ..
        }
        | Body::Event {
            data: Data::Named(data),
            ..
        } => Some(format!("members of '{}' are documented there", data.name)),
        Body::Struct { base: Some(base), .. } => {
            Some(format!("members of base '{}' are documented there", base.name))
        }
        Body::Union {
            base: Data::Named(base),
            ..
        } => Some(format!(
            "members of base '{}' are documented there; branches are not documented",
            base.name
        )),
        Body::Union { branches, .. } if branches.iter().any(|branch| branch.name == name) => {
            Some("branches of a union are not documented".to_owned())
        }
        _ if definition.features.iter().any(|feature| feature.name == name) => {
            Some("features are described below a line `# Features:`".to_owned())
        }
        _ => None,
    }
}

/// Whether a text has `@name:` at the start of one of its lines, where it says nothing to us.
fn mentions(section: &RawSection, name: &str) -> bool {
    section.text.lines().any(|line| {
        line.trim_start()
            .strip_prefix('@')
            .and_then(|line| line.strip_prefix(name))
            .is_some_and(|line| line.starts_with(':'))
    })
}

fn sections(definition: &RawDefinition<'_>, doc: &Comment, diagnostics: &mut Vec<Diagnostic>) {
    for section in &doc.sections {
        let word = match section.kind {
            SectionKind::Returns => "Returns",
            SectionKind::Errors => "Errors",
            _ => continue,
        };
        match &definition.body {
            Body::Command { returns, .. } => {
                if word == "Returns" && returns.is_none() && !definition.faulty {
                    diagnostics.push(
                        Diagnostic::error(
                            codes::DOC_NO_RETURNS,
                            section.span,
                            format!(
                                "`Returns:` section, but command '{}' returns nothing",
                                definition.name
                            ),
                        )
                        .help("drop the section, or add 'returns' to the command"),
                    );
                }
            }
            _ => diagnostics.push(
                Diagnostic::error(
                    codes::DOC_COMMAND_SECTION,
                    section.span,
                    format!(
                        "`{word}:` section is only for commands, and this documents {}",
                        definition.meta.with_article()
                    ),
                )
                .help("say it in a paragraph without a tag"),
            ),
        }
    }
}

/// What documentation of a definition may describe: members and features, the latter of members, too.
fn parts<'d>(definition: &'d RawDefinition<'_>) -> (Vec<Part<'d>>, Vec<Part<'d>>) {
    fn add_features<'d>(list: &'d [RawFeature<'_>], features: &mut Vec<Part<'d>>) {
        for feature in list {
            if !features.iter().any(|other: &Part<'_>| other.name == feature.name) {
                features.push(Part {
                    name: feature.name,
                    span: feature.span,
                });
            }
        }
    }
    fn add_members<'d>(list: &'d [RawMember<'_>], members: &mut Vec<Part<'d>>, features: &mut Vec<Part<'d>>) {
        for member in list {
            members.push(Part {
                name: member.name,
                span: member.span,
            });
            add_features(&member.features, features);
        }
    }
    let mut members = Vec::new();
    let mut features = Vec::new();
    add_features(&definition.features, &mut features);
    match &definition.body {
        Body::Enum { values, .. } => {
            for value in values {
                members.push(Part {
                    name: value.name,
                    span: value.span,
                });
                add_features(&value.features, &mut features);
            }
        }
        Body::Struct { members: list, .. } => add_members(list, &mut members, &mut features),
        Body::Alternate { alternatives } => {
            members.extend(alternatives.iter().map(|part| Part {
                name: part.name,
                span: part.span,
            }));
        }
        Body::Union { base: data, .. } | Body::Command { data, .. } | Body::Event { data, .. } => {
            if let Data::Inline(list) = data {
                add_members(list, &mut members, &mut features);
            }
        }
    }
    (members, features)
}

fn text(section: &RawSection, module: ModuleId, lines: &LineIndex<'_>) -> DocText {
    DocText {
        text: Arc::from(section.text.as_str()),
        origin: Origin {
            module,
            span: section.span,
            at: lines.at(section.span),
        },
    }
}

/// Puts a comment into the schema.
fn attach(schema: &mut Schema, ids: Ids, doc: &Comment, module: ModuleId, lines: &LineIndex<'_>) {
    let sections: Vec<Section> = doc
        .sections
        .iter()
        .map(|section| Section {
            kind: section.kind.clone(),
            text: text(section, module, lines),
        })
        .collect();
    let members: HashMap<&str, &DocText> = sections
        .iter()
        .filter_map(|section| match &section.kind {
            SectionKind::Member(name) => Some((name.as_str(), &section.text)),
            _ => None,
        })
        .collect();
    let features: HashMap<&str, &DocText> = sections
        .iter()
        .filter_map(|section| match &section.kind {
            SectionKind::Feature(name) => Some((name.as_str(), &section.text)),
            _ => None,
        })
        .collect();
    let of_features = |list: &mut Vec<Feature>| {
        for feature in list {
            feature.doc = features.get(feature.name.as_str()).map(|text| (*text).clone());
        }
    };
    let of_member = |name: &str| members.get(name).map(|text| (*text).clone());
    let types = match ids.entity {
        Entity::Type(id) => [Some(id), ids.implicit],
        _ => [ids.implicit, None],
    };
    for id in types.into_iter().flatten() {
        let Some(ty) = schema.types.get_mut(id.index()) else {
            continue;
        };
        of_features(&mut ty.features);
        match &mut ty.kind {
            TypeKind::Enum(found) => {
                for value in &mut found.values {
                    value.doc = of_member(&value.name);
                    of_features(&mut value.features);
                }
            }
            TypeKind::Struct(found) => {
                for member in &mut found.members {
                    member.doc = of_member(&member.name);
                    of_features(&mut member.features);
                }
            }
            TypeKind::Alternate(found) => {
                for alternative in &mut found.alternatives {
                    alternative.doc = of_member(&alternative.name);
                }
            }
            TypeKind::Union(_) => {}
        }
    }
    match ids.entity {
        Entity::Command(id) => {
            if let Some(command) = schema.commands.get_mut(id.index()) {
                of_features(&mut command.features);
            }
        }
        Entity::Event(id) => {
            if let Some(event) = schema.events.get_mut(id.index()) {
                of_features(&mut event.features);
            }
        }
        Entity::Type(_) => {}
    }
    let origin = Origin {
        module,
        span: doc.span,
        at: lines.at(doc.span),
    };
    let doc = Some(Doc { sections, origin });
    match ids.entity {
        Entity::Type(id) => {
            if let Some(ty) = schema.types.get_mut(id.index()) {
                ty.doc = doc;
            }
        }
        Entity::Command(id) => {
            if let Some(command) = schema.commands.get_mut(id.index()) {
                command.doc = doc;
            }
        }
        Entity::Event(id) => {
            if let Some(event) = schema.events.get_mut(id.index()) {
                event.doc = doc;
            }
        }
    }
}
