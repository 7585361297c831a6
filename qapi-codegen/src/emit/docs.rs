//! Documentation: from the schema's comments to rustdoc.
//!
//! The tokens hold one mark for each text; the printer puts the texts where their marks are, as they are.

use super::context::Context;
use crate::ir::{Doc, DocText, Feature, Origin, SectionKind};
use proc_macro2::{TokenStream, TokenTree};

/// What can be derived without an import, and so is a macro wherever it is looked up.
const DERIVES: &[&str] = &[
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "Eq",
    "Hash",
    "Ord",
    "PartialEq",
    "PartialOrd",
];

impl Context<'_> {
    /// The mark of a text, which stands where its attribute would.
    pub(super) fn doc(&self, lines: Vec<String>) -> TokenStream {
        let mut docs = self.docs.borrow_mut();
        let mark = super::print::doc_mark(docs.len());
        docs.push(lines);
        TokenTree::from(mark).into()
    }

    /// The documentation of a definition, and where it is.
    pub(super) fn definition_doc(
        &self,
        doc: Option<&Doc>,
        otherwise: &str,
        features: &[Feature],
        origin: Option<Origin>,
    ) -> TokenStream {
        self.doc(self.definition_lines(doc, otherwise, features, origin))
    }

    pub(super) fn definition_lines(
        &self,
        doc: Option<&Doc>,
        otherwise: &str,
        features: &[Feature],
        origin: Option<Origin>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(doc) = doc.filter(|_| self.options.docs) {
            for section in &doc.sections {
                let title = match section.kind {
                    SectionKind::Plain => "",
                    SectionKind::Returns => "Returns: ",
                    SectionKind::Errors => "# Errors\n\n",
                    SectionKind::Since => "Since: ",
                    SectionKind::Member(_) | SectionKind::Feature(_) | SectionKind::Todo => continue,
                };
                paragraph(&mut lines, title, &self.markdown(&section.text));
            }
        }
        if lines
            .first()
            .is_none_or(|first| first.starts_with("Since:") || first.starts_with('#'))
        {
            let rest = std::mem::take(&mut lines);
            lines.push(otherwise.to_owned());
            if !rest.is_empty() {
                lines.push(String::new());
                lines.extend(rest);
            }
        }
        self.feature_lines(&mut lines, features);
        if let Some(origin) = origin {
            paragraph(
                &mut lines,
                "",
                &format!("Defined at {}.", self.schema.location(origin)),
            );
        }
        lines
    }

    /// The documentation of a member or value.
    pub(super) fn part_doc(
        &self,
        doc: Option<&DocText>,
        otherwise: &str,
        features: &[Feature],
    ) -> TokenStream {
        let mut lines = Vec::new();
        match doc.filter(|doc| self.options.docs && !doc.text.trim().is_empty()) {
            Some(doc) => paragraph(&mut lines, "", &self.markdown(doc)),
            None => lines.push(otherwise.to_owned()),
        }
        self.feature_lines(&mut lines, features);
        self.doc(lines)
    }

    fn feature_lines(&self, lines: &mut Vec<String>, features: &[Feature]) {
        let features = features
            .iter()
            .filter(|feature| self.options.conditions.reduce(&feature.condition).is_some());
        for (number, feature) in features.enumerate() {
            if number == 0 {
                lines.extend([String::new(), "Features:".to_owned(), String::new()]);
            }
            let text = feature
                .doc
                .as_ref()
                .filter(|_| self.options.docs)
                .map(|doc| self.markdown(doc));
            match text.filter(|text| !text.trim().is_empty()) {
                None => lines.push(format!("* `{}`", feature.name)),
                Some(text) => {
                    for (at, line) in text.lines().enumerate() {
                        if at == 0 {
                            lines.push(format!("* `{}`: {line}", feature.name));
                        } else if line.is_empty() {
                            lines.push(String::new());
                        } else {
                            lines.push(format!("  {line}"));
                        }
                    }
                }
            }
        }
    }

    /// A link to a type of the module at hand, which rustdoc must not take for the derive of that name.
    pub(super) fn type_link(name: &impl ToString) -> String {
        let name = name.to_string();
        if DERIVES.contains(&name.as_str()) {
            format!("[`{name}`](type@{name})")
        } else {
            format!("[`{name}`]")
        }
    }

    /// What the schema says of a feature, as one line without markup: its first paragraph.
    pub(super) fn note(&self, feature: &Feature) -> Option<String> {
        let doc = feature.doc.as_ref().filter(|_| self.options.docs)?;
        let text = doc.markdown(&|_| None);
        let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
        let words: Vec<&str> = paragraph.flat_map(str::split_whitespace).collect();
        let mut note = String::new();
        let mut escaped = false;
        for c in words.join(" ").chars() {
            escaped = c == '\\' && !escaped;
            if !escaped {
                note.push(c);
            }
        }
        (!note.is_empty()).then_some(note)
    }

    fn markdown(&self, text: &DocText) -> String {
        text.markdown(&|name| self.link(name))
    }

    /// What rustdoc finds behind a name of the schema, if it is surely there.
    fn link(&self, name: &str) -> Option<String> {
        let schema = self.schema;
        if let Some(id) = schema.find_type(name) {
            let surely = self.type_cfg(id)?.is_always() && !self.is_overridden(id);
            return surely.then(|| format!("super::{}", self.own_ident(id)));
        }
        if let Some(id) = schema.find_command(name) {
            let command = schema.command(id);
            if !self.command_cfg(command)?.is_always() {
                return None;
            }
            let method = self.method(command);
            if self.options.client() {
                return self
                    .top
                    .get("Client")
                    .map(|client| format!("super::{client}::{method}"));
            }
            let (_, commands) = self.module_names(command.origin.module);
            let here = self.options.server() && !self.options.is_answered_by_runtime(name);
            return here.then(|| format!("super::{commands}::{method}"));
        }
        let event = schema.event(schema.find_event(name)?);
        self.event_cfg(event)?
            .is_always()
            .then(|| format!("super::{}", self.event_name(event)))
    }
}

/// Adds a paragraph, after a blank line.
fn paragraph(lines: &mut Vec<String>, title: &str, text: &str) {
    if !lines.is_empty() {
        lines.push(String::new());
    }
    let text = format!("{title}{text}");
    lines.extend(text.lines().map(|line| line.trim_end().to_owned()));
}
