//! Diagnostics as text: as rustc prints them, one a line, or as JSON.

use std::fmt::Write;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::source::{SourceMap, Span};

/// Colours or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With terminal colours.
    Colour,
}

/// Lines of a long place that are shown at most.
const MAX_LINES: u32 = 12;

/// As rustc prints, one diagnostic after the other.
pub fn human(sources: &SourceMap, diagnostics: &[Diagnostic], style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Colour => Renderer::styled(),
    };
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&one(sources, diagnostic, &renderer));
        out.push_str("\n\n");
    }
    out
}

fn one(sources: &SourceMap, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = level
        .primary_title(printable(&diagnostic.message))
        .id(diagnostic.code.to_string())
        .element(snippet(sources, diagnostic.primary.span.file, diagnostic));
    // Places in other files get a snippet each, in the order of the labels.
    let mut files = vec![diagnostic.primary.span.file];
    for label in &diagnostic.secondary {
        if !files.contains(&label.span.file) {
            files.push(label.span.file);
            group = group.element(snippet(sources, label.span.file, diagnostic));
        }
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(printable(help)));
    }
    group = group.element(Level::NOTE.message(format!("`qapi explain {}`", diagnostic.code)));
    renderer.render(&[group])
}

/// The snippet of one file with all labels in it.
fn snippet<'a>(
    sources: &'a SourceMap,
    file: crate::source::FileId,
    diagnostic: &'a Diagnostic,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let text = sources.text(file);
    let labels = std::iter::once((&diagnostic.primary, true))
        .chain(diagnostic.secondary.iter().map(|label| (label, false)))
        .filter(|(label, _)| label.span.file == file)
        .map(|(label, primary)| (clip(text, label.span), label, primary))
        .collect::<Vec<_>>();
    let first = labels.iter().map(|(range, _, _)| range.start).min().unwrap_or(0);
    let last = labels.iter().map(|(range, _, _)| range.end).max().unwrap_or(0);
    // Only the lines that are shown are handed over: the renderer looks at all that it gets.
    let start = text
        .get(..first)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at + 1);
    let end = text
        .get(last..)
        .and_then(|rest| rest.find('\n'))
        .map_or(text.len(), |at| last + at);
    let line = text
        .get(..start)
        .unwrap_or("")
        .bytes()
        .filter(|byte| *byte == b'\n')
        .count()
        + 1;
    let shown = text.get(start..end).unwrap_or("");
    let annotations = labels.into_iter().map(|(range, label, primary)| {
        let kind = if primary {
            AnnotationKind::Primary
        } else {
            AnnotationKind::Context
        };
        let annotation = kind.span(range.start - start..range.end - start);
        if label.note.is_empty() {
            annotation
        } else {
            annotation.label(printable(&label.note))
        }
    });
    Snippet::source(shown)
        .path(sources.name(file))
        .line_start(line)
        .annotations(annotations.collect::<Vec<_>>())
}

/// The part of a span that is shown: at least one character where there is one, and not too many lines.
fn clip(text: &str, span: Span) -> std::ops::Range<usize> {
    let start = boundary(text, span.start as usize);
    let mut end = boundary(text, span.end as usize).max(start);
    if let Some((at, _)) = text
        .get(start..end)
        .unwrap_or("")
        .match_indices('\n')
        .nth(MAX_LINES as usize)
    {
        end = start + at;
    }
    start..end
}

fn boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Text from a schema may hold anything; a terminal gets no control characters from us.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// One line each: `FILE:LINE:COL: error[CODE]: text`. Lines that explain a further place begin with two
/// spaces. Warnings come behind the errors, so that the first line says why a schema is refused.
pub fn short(sources: &SourceMap, diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    let (errors, warnings): (Vec<_>, Vec<_>) =
        diagnostics.iter().partition(|diagnostic| diagnostic.is_error());
    for diagnostic in errors.into_iter().chain(warnings) {
        let _ = writeln!(
            out,
            "{}: {}[{}]: {}",
            sources.location(diagnostic.primary.span),
            diagnostic.severity.as_str(),
            diagnostic.code,
            printable(&diagnostic.message)
        );
        for label in &diagnostic.secondary {
            let _ = writeln!(
                out,
                "  {}: note: {}",
                sources.location(label.span),
                printable(&label.note)
            );
        }
    }
    out
}

/// One JSON object a line, with every place as file, line, column and byte offsets.
pub fn json(sources: &SourceMap, diagnostics: &[Diagnostic]) -> String {
    let label = |label: &Label| {
        let at = sources.line_column(label.span);
        let end = sources.line_column(Span {
            start: label.span.end,
            ..label.span
        });
        serde_json::json!({
            "file": sources.name(label.span.file),
            "line": at.line,
            "column": at.column,
            "end-line": end.line,
            "end-column": end.column,
            "start": label.span.start,
            "end": label.span.end,
            "note": label.note,
        })
    };
    let mut out = String::new();
    for diagnostic in diagnostics {
        let value = serde_json::json!({
            "code": diagnostic.code.to_string(),
            "severity": diagnostic.severity.as_str(),
            "message": diagnostic.message,
            "primary": label(&diagnostic.primary),
            "secondary": diagnostic.secondary.iter().map(label).collect::<Vec<_>>(),
            "help": diagnostic.help,
        });
        let _ = writeln!(out, "{value}");
    }
    out
}
