//! The lines of a documentation comment, and the rules about a single line: the space behind `#`, the
//! width, two spaces between sentences. The last two are off inside literal blocks.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::lex::split_line;
use crate::source::{FileId, Span};

/// Longest line in characters, the leading `# ` included.
const WIDTH: usize = 70;

/// A line of a comment without its `# ` and without blanks at its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// The text.
    pub text: &'a str,
    /// Where the text begins.
    pub start: u32,
    /// How far it is indented, in characters.
    pub indent: usize,
    /// Where the whole line with its `#` begins and ends, counted from the start of the comment.
    pub whole: (usize, usize),
}

impl Line<'_> {
    /// Whether there is nothing on it.
    pub fn is_blank(&self) -> bool {
        self.text.is_empty()
    }
}

/// The next comment line of a text: the line from its `#` to its end, where the `#` stands in the text,
/// and what comes after the line.
fn comment_line(text: &str) -> Option<(&str, usize, &str)> {
    // Only blanks stand before it.
    let hash = text.bytes().position(|byte| byte == b'#')?;
    let (line, rest) = split_line(text.get(hash..)?);
    Some((line, hash, rest))
}

/// The texts of all lines of a piece of a comment.
pub(super) fn texts(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let (line, _, after) = comment_line(rest)?;
        rest = after;
        let body = line.get(1..).unwrap_or("");
        Some(body.strip_prefix(' ').unwrap_or(body).trim_end())
    })
}

/// Reads lines, complains about each at most once.
pub(super) struct Lines<'a, 'd> {
    file: FileId,
    /// Where the line that was read last starts.
    last: u32,
    /// Offset of `rest` in the file.
    at: u32,
    rest: &'a str,
    /// The whole comment.
    text: &'a str,
    /// Where it starts in its file.
    begin: u32,
    literal: Literal,
    /// The closing line was met.
    pub closed: bool,
    /// Something was wrong that may hide what the comment says.
    pub damaged: bool,
    diagnostics: &'d mut Vec<Diagnostic>,
}

/// Whether the lines are inside a literal block.
enum Literal {
    No,
    /// Behind `::`; the first line with text says how far it is indented.
    Opened,
    /// Until a line is indented less.
    Inside(usize),
}

impl<'a, 'd> Lines<'a, 'd> {
    /// The lines of a comment, whose text starts at `start` with its opening `##`.
    pub fn new(
        file: FileId,
        text: &'a str,
        start: u32,
        diagnostics: &'d mut Vec<Diagnostic>,
    ) -> Lines<'a, 'd> {
        Lines {
            file,
            last: start,
            at: start,
            rest: text,
            text,
            begin: start,
            literal: Literal::No,
            closed: false,
            damaged: false,
            diagnostics,
        }
    }

    /// Reports a mistake.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.damaged = true;
        self.diagnostics.push(diagnostic);
    }

    /// The span of `text`, which starts `skip` bytes into a line.
    pub fn span(&self, line: &Line<'_>, skip: usize, length: usize) -> Span {
        let start = line.start.saturating_add(offset(skip));
        Span::new(self.file, start, start.saturating_add(offset(length)))
    }

    /// The span of a line's text, without its indentation.
    pub fn line_span(&self, line: &Line<'_>) -> Span {
        let indent = line.text.len() - line.text.trim_start().len();
        self.span(line, indent, line.text.len() - indent)
    }

    /// The next comment line, from its `#` to its end, and where it starts.
    fn raw(&mut self) -> Option<(&'a str, u32)> {
        let (line, hash, rest) = comment_line(self.rest)?;
        let start = self.at.saturating_add(offset(hash));
        self.rest = rest;
        self.last = start;
        self.at = start.saturating_add(offset(line.len()));
        Some((line, start))
    }

    /// The text of the comment from one line to another, both whole.
    pub fn piece(&self, first: &Line<'a>, last: &Line<'a>) -> &'a str {
        self.text.get(first.whole.0..last.whole.1).unwrap_or("")
    }

    /// The opening line.
    pub fn opening(&mut self) {
        if let Some((line, start)) = self.raw()
            && line != "##"
        {
            let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
            self.report(
                Diagnostic::error(
                    codes::DOC_OPENING_JUNK,
                    Span::new(self.file, start, start.saturating_add(length)),
                    "junk after `##` at the start of a documentation comment",
                )
                .help("the opening line is `##` and nothing else; text starts on the next line"),
            );
        }
    }

    /// The next line; nothing at the closing line and at the end of the text.
    pub fn next(&mut self) -> Option<Line<'a>> {
        if self.closed {
            return None;
        }
        let (line, start) = self.raw()?;
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
        if line.starts_with("##") {
            self.closed = true;
            if line != "##" {
                self.report(
                    Diagnostic::error(
                        codes::DOC_CLOSING_JUNK,
                        Span::new(self.file, start, start.saturating_add(length)),
                        "junk after `##` at the end of a documentation comment",
                    )
                    .help("a line that starts with `##` ends the comment; text lines start with `# `"),
                );
            }
            return None;
        }
        let from = (start - self.begin) as usize;
        let whole = (from, from + line.len());
        let body = line.get(1..).unwrap_or("");
        if body.is_empty() {
            return Some(Line {
                text: "",
                start: start + 1,
                indent: 0,
                whole,
            });
        }
        let Some(text) = body.strip_prefix(' ') else {
            self.report(
                Diagnostic::error(
                    codes::DOC_MISSING_SPACE,
                    Span::new(
                        self.file,
                        start,
                        start.saturating_add(2).min(start.saturating_add(length)),
                    ),
                    "no space after `#` in a documentation comment",
                )
                .help("write `# ` before the text; an empty line is `#` alone"),
            );
            let text = body.trim();
            let skipped = line.find(text).unwrap_or(1);
            return Some(Line {
                text,
                start: start + u32::try_from(skipped).unwrap_or(1),
                indent: 0,
                whole,
            });
        };
        let text = text.trim_end();
        let line = Line {
            text,
            start: start + 2,
            indent: indent(text),
            whole,
        };
        self.check(&line);
        Some(line)
    }

    /// Everything behind the current line, for a reader that gives up.
    pub fn give_up(&mut self) {
        self.rest = "";
        self.closed = true;
    }

    /// The line that was read last: at the end of a comment, its closing line.
    pub fn end_of_last_line(&self) -> Span {
        Span::new(self.file, self.last, self.at)
    }

    /// Reports something that is accepted all the same.
    pub fn warn(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn check(&mut self, line: &Line<'a>) {
        if opens_literal(line.text) {
            self.literal = Literal::Opened;
        } else if !line.is_blank() {
            match self.literal {
                Literal::Opened => self.literal = Literal::Inside(line.indent),
                Literal::Inside(indent) if line.indent < indent => self.literal = Literal::No,
                Literal::No | Literal::Inside(_) => {}
            }
        }
        // A literal block that is not indented at all is open until the first indented line.
        if let Literal::Inside(0) = self.literal {
            self.literal = Literal::Opened;
        }
        if matches!(self.literal, Literal::No) {
            self.check_width(line);
            self.check_sentences(line);
        }
    }

    fn check_width(&mut self, line: &Line<'a>) {
        if line.text.len() + 2 <= WIDTH || is_url(line.text) {
            return;
        }
        let width = line.text.chars().count() + 2;
        if width <= WIDTH {
            return;
        }
        let fits = line
            .text
            .char_indices()
            .nth(WIDTH - 2)
            .map_or(line.text.len(), |(at, _)| at);
        let span = self.span(line, fits, line.text.len() - fits);
        // What the comment says is known all the same.
        self.diagnostics.push(
            Diagnostic::error(
                codes::DOC_LONG_LINE,
                span,
                format!("documentation line has {width} characters, which is more than {WIDTH}"),
            )
            .help("wrap the text; only a URL alone on its line and text in a `::` block may be longer"),
        );
    }

    fn check_sentences(&mut self, line: &Line<'a>) {
        if let Some(at) = single_space(line.text) {
            let span = self.span(line, at, 2);
            self.diagnostics.push(
                Diagnostic::error(codes::DOC_SENTENCE_SPACE, span, "one space between two sentences")
                    .help("separate sentences with two spaces, or break the line between them"),
            );
        }
    }
}

/// Whether a line of documentation keeps the rules about single lines.
pub(crate) fn fits(text: &str) -> bool {
    text.chars().count() + 2 <= WIDTH && single_space(text).is_none()
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn indent(text: &str) -> usize {
    text.chars().take_while(|c| c.is_whitespace()).count()
}

/// `::` or `.. qmp-example::` alone on a line.
fn opens_literal(text: &str) -> bool {
    let Some(text) = text.strip_suffix("::") else {
        return false;
    };
    let text = match text.strip_prefix("..") {
        Some(rest) if rest.starts_with(' ') => {
            let rest = rest.trim_start_matches(' ');
            match rest.strip_prefix("qmp-example") {
                Some(rest) => rest,
                None => return false,
            }
        }
        _ => text,
    };
    text.bytes().all(|byte| byte == b' ')
}

fn is_url(text: &str) -> bool {
    let text = text.trim_start_matches(' ');
    ["http://", "https://", "ftp://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
        && !text.contains(' ')
}

/// Where a sentence ends with one space before the next: the offset of its full stop.
fn single_space(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    for stop in memchr::memchr3_iter(b'.', b'!', b'?', bytes) {
        let Some(&[mark, b' ', next]) = bytes.get(stop..stop + 3) else {
            continue;
        };
        if !(next.is_ascii_uppercase() || next.is_ascii_digit() || next == b'(') {
            continue;
        }
        let before = text.get(..stop).unwrap_or("");
        // `e.g. Foo` is no end of a sentence, and `1. Foo` is an item of a list.
        let abbreviation = mark == b'.'
            && before
                .strip_suffix("e.g")
                .is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let item = mark == b'.'
            && before.trim_start_matches(' ').len() == 1
            && before.ends_with(|c: char| c.is_ascii_digit());
        if !abbreviation && !item {
            return Some(stop);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        for (text, found) in [
            ("One.  Two", None),
            ("One. Two", Some(3)),
            ("Really? (Yes)", Some(6)),
            ("see e.g. Foo", None),
            ("see the.g. Foo", Some(9)),
            ("1. First", None),
            ("  2. Second", None),
            ("10. Tenth", Some(2)),
            ("one. two", None),
            ("version 1. 2", Some(9)),
            (". A", Some(0)),
        ] {
            assert_eq!(single_space(text), found, "{text}");
        }
    }

    #[test]
    fn literal_blocks() {
        for text in ["::", "  ::", ".. qmp-example::", "..  qmp-example ::"] {
            assert!(opens_literal(text), "{text}");
        }
        for text in ["text::", ".. note::", "..qmp-example::", ": :"] {
            assert!(!opens_literal(text), "{text}");
        }
    }
}
