//! The subset of reStructuredText that schemas use, as a tree of blocks.
//!
//! Nothing is refused: what is not recognised is a paragraph. Inline markup stays in the text; the
//! renderer deals with it.

/// A block of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Running text, its lines joined by `\n`.
    Paragraph(String),
    /// A heading; 1 is the highest level in this text.
    Heading(usize, String),
    /// A list.
    List {
        /// Whether its items are numbered.
        numbered: bool,
        /// Its items.
        items: Vec<Vec<Block>>,
    },
    /// Text that is shown as it is: `::`, `.. code-block::`, `.. qmp-example::`.
    Literal {
        /// A title above it.
        title: Option<String>,
        /// The language, as the directive gives it.
        language: Option<String>,
        /// The text.
        text: String,
    },
    /// `.. note::` and its kin.
    Admonition {
        /// What is printed above it: `Note`.
        title: String,
        /// What it says.
        body: Vec<Block>,
    },
    /// A term and what it means.
    Definition {
        /// The term.
        term: String,
        /// What it means.
        body: Vec<Block>,
    },
    /// A table, row by row; the first may be a header.
    Table {
        /// Whether the first row is a header.
        header: bool,
        /// The cells of each row.
        rows: Vec<Vec<String>>,
    },
    /// Indented text.
    Quote(Vec<Block>),
}

/// Deeper than this, lists are text.
const MAX_DEPTH: usize = 20;

/// Reads a text.
pub fn parse(text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().collect();
    let mut underlines = Vec::new();
    Parser {
        underlines: &mut underlines,
    }
    .blocks(&lines, 0)
}

struct Parser<'u> {
    /// The characters that underline headings, in the order in which they are met: their levels.
    underlines: &'u mut Vec<(char, bool)>,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

/// The lines from `from` that are blank or indented by at least `wanted`, without blank ones at the end.
fn indented_run(lines: &[&str], from: usize, wanted: usize) -> usize {
    let mut end = from;
    for (at, line) in lines.iter().enumerate().skip(from) {
        if is_blank(line) {
            continue;
        }
        if indent(line) < wanted {
            break;
        }
        end = at + 1;
    }
    end
}

/// Takes common indentation off, and blank lines at both ends.
fn dedent<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let common = lines
        .iter()
        .filter(|line| !is_blank(line))
        .map(|line| indent(line))
        .min()
        .unwrap_or(0);
    let mut out: Vec<&str> = lines
        .iter()
        .map(|line| line.get(common..).unwrap_or("").trim_end())
        .collect();
    while out.last().is_some_and(|line| line.is_empty()) {
        out.pop();
    }
    let blank = out.iter().take_while(|line| line.is_empty()).count();
    out.split_off(blank)
}

/// The marker of a list item: how long it is with the blanks behind it, and whether it is a number.
fn marker(line: &str) -> Option<(usize, bool)> {
    let text = line.trim_start_matches(' ');
    let lead = line.len() - text.len();
    for bullet in ["- ", "* ", "+ "] {
        if let Some(rest) = text.strip_prefix(bullet) {
            return Some((lead + 2 + indent(rest), false));
        }
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = if text.starts_with("#.") {
        text.get(1..)?
    } else {
        text.get(digits..)?
    };
    let number = digits > 0 || text.starts_with("#.");
    let rest = rest
        .strip_prefix(['.', ')'])
        .filter(|_| number)?
        .strip_prefix(' ')?;
    Some((line.len() - rest.len() + indent(rest), true))
}

/// The character of a line that is one mark again and again.
fn underline(line: &str) -> Option<char> {
    let first = line.chars().next().filter(char::is_ascii_punctuation)?;
    (line.len() >= 3 && line.chars().all(|c| c == first)).then_some(first)
}

fn is_table_rule(line: &str) -> bool {
    let line = line.trim();
    line.contains(' ')
        && line
            .split_whitespace()
            .all(|part| part.len() > 1 && part.bytes().all(|b| b == b'='))
}

impl Parser<'_> {
    fn blocks(&mut self, lines: &[&str], depth: usize) -> Vec<Block> {
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            if is_blank(line) {
                at += 1;
                continue;
            }
            at = self.block(lines, at, depth, &mut out);
        }
        out
    }

    /// Reads one block that starts at `at`. Gives back where the next one starts, which is further down.
    fn block(&mut self, lines: &[&str], at: usize, depth: usize, out: &mut Vec<Block>) -> usize {
        let line = lines.get(at).copied().unwrap_or("");
        let own = indent(line);
        let text = line.trim_start_matches(' ');
        if depth > MAX_DEPTH {
            out.push(Block::Paragraph(text.to_owned()));
            return at + 1;
        }
        if own > 0 {
            let end = indented_run(lines, at, 1).max(at + 1);
            let inner = dedent(lines.get(at..end).unwrap_or(&[]));
            let body = self.blocks(&inner, depth + 1);
            out.push(Block::Quote(body));
            return end;
        }
        if let Some(end) = self.heading(lines, at, out) {
            return end;
        }
        if let Some(directive) = text.strip_prefix(".. ") {
            return self.directive(lines, at, directive, depth, out);
        }
        if text == "::" {
            let end = indented_run(lines, at + 1, 1).max(at + 1);
            literal(lines.get(at + 1..end).unwrap_or(&[]), None, None, out);
            return end;
        }
        if is_table_rule(line)
            && let Some(end) = table(lines, at, out)
        {
            return end;
        }
        if let Some((_, numbered)) = marker(line) {
            return self.list(lines, at, numbered, depth, out);
        }
        self.paragraph(lines, at, depth, out)
    }

    fn heading(&mut self, lines: &[&str], at: usize, out: &mut Vec<Block>) -> Option<usize> {
        let line = lines.get(at)?;
        let (title, mark, over, end) = match underline(line) {
            Some(mark) => {
                let title = lines.get(at + 1)?;
                let below = lines.get(at + 2).and_then(|line| underline(line))?;
                if below != mark || is_blank(title) {
                    return None;
                }
                (*title, mark, true, at + 3)
            }
            None => {
                let below = lines.get(at + 1)?;
                let mark = underline(below)?;
                if below.chars().count() + 2 < line.chars().count() || mark == ':' {
                    return None;
                }
                (*line, mark, false, at + 2)
            }
        };
        let style = (mark, over);
        let level = match self.underlines.iter().position(|known| *known == style) {
            Some(level) => level,
            None => {
                self.underlines.push(style);
                self.underlines.len() - 1
            }
        };
        out.push(Block::Heading(level + 1, title.trim().to_owned()));
        Some(end)
    }

    fn directive(
        &mut self,
        lines: &[&str],
        at: usize,
        directive: &str,
        depth: usize,
        out: &mut Vec<Block>,
    ) -> usize {
        let end = indented_run(lines, at + 1, 1).max(at + 1);
        let Some((name, argument)) = directive.split_once("::") else {
            // A comment or a label: not shown.
            return end;
        };
        let argument = argument.trim();
        let mut body = dedent(lines.get(at + 1..end).unwrap_or(&[]));
        let mut title = None;
        let mut annotated = false;
        // Options stand first, as `:name: value`.
        let mut options = 0;
        for line in &body {
            let Some((key, value)) = line.strip_prefix(':').and_then(|line| line.split_once(':')) else {
                break;
            };
            match key {
                "title" => title = Some(value.trim().to_owned()),
                "annotated" => annotated = true,
                _ => {}
            }
            options += 1;
        }
        body.drain(..options);
        match name.trim() {
            "qmp-example" => {
                let title = title.map_or("Example".to_owned(), |title| format!("Example: {title}"));
                if annotated {
                    let body = self.blocks(&body, depth + 1);
                    out.push(Block::Admonition { title, body });
                } else {
                    literal(&body, Some(title), Some("QMP".to_owned()), out);
                }
            }
            "code-block" | "code" | "sourcecode" | "parsed-literal" => {
                let language = (!argument.is_empty()).then(|| argument.to_owned());
                literal(&body, None, language, out);
            }
            "admonition" => {
                let body = self.blocks(&body, depth + 1);
                out.push(Block::Admonition {
                    title: argument.to_owned(),
                    body,
                });
            }
            "only" | "ifconfig" | "container" => out.extend(self.blocks(&body, depth + 1)),
            name => {
                let mut inner = self.blocks(&body, depth + 1);
                if !argument.is_empty() {
                    // The text starts on the directive's line: its paragraph goes on below.
                    let rest: Vec<&str> = body.iter().take_while(|line| !line.is_empty()).copied().collect();
                    let mut text = vec![argument];
                    text.extend(&rest);
                    let mut all = vec![Block::Paragraph(text.join("\n"))];
                    all.extend(self.blocks(body.get(rest.len()..).unwrap_or(&[]), depth + 1));
                    inner = all;
                }
                let title = match name {
                    "seealso" => "See also".to_owned(),
                    name => {
                        let mut letters = name.chars();
                        letters
                            .next()
                            .map(|first| first.to_uppercase().chain(letters).collect())
                            .unwrap_or_default()
                    }
                };
                out.push(Block::Admonition { title, body: inner });
            }
        }
        end
    }

    fn list(
        &mut self,
        lines: &[&str],
        at: usize,
        numbered: bool,
        depth: usize,
        out: &mut Vec<Block>,
    ) -> usize {
        let mut items = Vec::new();
        let mut next = at;
        while let Some((width, kind)) = lines.get(next).and_then(|line| marker(line)) {
            if kind != numbered || lines.get(next).is_none_or(|line| indent(line) > 0) {
                break;
            }
            let end = indented_run(lines, next + 1, 1).max(next + 1);
            let first = lines.get(next).and_then(|line| line.get(width..)).unwrap_or("");
            let rest = dedent_by(lines.get(next + 1..end).unwrap_or(&[]), width);
            let mut inner = vec![first];
            inner.extend(rest);
            items.push(self.blocks(&inner, depth + 1));
            next = end;
            while lines.get(next).is_some_and(|line| is_blank(line)) {
                next += 1;
            }
        }
        out.push(Block::List { numbered, items });
        next
    }

    fn paragraph(&mut self, lines: &[&str], at: usize, depth: usize, out: &mut Vec<Block>) -> usize {
        let mut end = at;
        while lines
            .get(end)
            .is_some_and(|line| !is_blank(line) && (end == at || indent(line) == 0))
        {
            end += 1;
        }
        let own = lines.get(at..end).unwrap_or(&[]);
        // One line with indented text right below it defines a term.
        if own.len() == 1 && lines.get(end).is_some_and(|line| !is_blank(line)) && depth <= MAX_DEPTH {
            let body_end = indented_run(lines, end, 1).max(end);
            let inner = dedent(lines.get(end..body_end).unwrap_or(&[]));
            let body = self.blocks(&inner, depth + 1);
            out.push(Block::Definition {
                term: own.join(" "),
                body,
            });
            return body_end;
        }
        // Uneven indentation within a paragraph: still the same paragraph.
        while lines.get(end).is_some_and(|line| !is_blank(line)) {
            end += 1;
        }
        let own: Vec<&str> = lines
            .get(at..end)
            .unwrap_or(&[])
            .iter()
            .map(|line| line.trim())
            .collect();
        let text = own.join("\n");
        if let Some(text) = text.strip_suffix("::") {
            let shown = if text.ends_with(char::is_whitespace) || text.is_empty() {
                text.trim_end().to_owned()
            } else {
                format!("{text}:")
            };
            if !shown.is_empty() {
                out.push(Block::Paragraph(shown));
            }
            let literal_end = indented_run(lines, end, 1).max(end);
            literal(lines.get(end..literal_end).unwrap_or(&[]), None, None, out);
            return literal_end;
        }
        out.push(Block::Paragraph(text));
        end
    }
}

/// Takes at most `width` blanks off each line.
fn dedent_by<'a>(lines: &[&'a str], width: usize) -> Vec<&'a str> {
    let least = lines
        .iter()
        .filter(|line| !is_blank(line))
        .map(|line| indent(line))
        .min()
        .unwrap_or(0);
    lines
        .iter()
        .map(|line| line.get(least.min(width)..).unwrap_or(""))
        .collect()
}

fn literal(lines: &[&str], title: Option<String>, language: Option<String>, out: &mut Vec<Block>) {
    let text = dedent(lines).join("\n");
    if !text.is_empty() {
        out.push(Block::Literal {
            title,
            language,
            text,
        });
    }
}

/// A simple table: rules of `=`, between which each row is a line.
fn table(lines: &[&str], at: usize, out: &mut Vec<Block>) -> Option<usize> {
    let rule = lines.get(at)?;
    let columns: Vec<usize> = rule
        .char_indices()
        .filter(|(index, c)| *c == '=' && !rule.get(..*index).is_some_and(|before| before.ends_with('=')))
        .map(|(index, _)| index)
        .collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut rules = 1;
    let mut header = false;
    let mut end = at + 1;
    while let Some(line) = lines.get(end) {
        end += 1;
        if is_table_rule(line) {
            rules += 1;
            let more = lines.get(end).is_some_and(|line| !is_blank(line));
            if rules == 2 && more {
                header = true;
                continue;
            }
            break;
        }
        if is_blank(line) {
            continue;
        }
        let cells = columns.iter().enumerate().map(|(index, start)| {
            let next = columns.get(index + 1).copied();
            let cell = match next {
                Some(next) => line.get(*start..next.min(line.len())),
                None => line.get(*start..),
            };
            cell.unwrap_or("").trim().to_owned()
        });
        rows.push(cells.collect());
    }
    (rules > 1 && !rows.is_empty()).then(|| {
        out.push(Block::Table { header, rows });
        end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paragraph(text: &str) -> Block {
        Block::Paragraph(text.to_owned())
    }

    #[test]
    fn lists_and_paragraphs() {
        let blocks = parse("Text\nmore\n\n- one\n  goes on\n\n  second\n- two\n\n1. first\n2. next\n\nEnd");
        assert_eq!(
            blocks,
            [
                paragraph("Text\nmore"),
                Block::List {
                    numbered: false,
                    items: vec![
                        vec![paragraph("one\ngoes on"), paragraph("second")],
                        vec![paragraph("two")]
                    ]
                },
                Block::List {
                    numbered: true,
                    items: vec![vec![paragraph("first")], vec![paragraph("next")]]
                },
                paragraph("End"),
            ]
        );
    }

    #[test]
    fn directives_and_literals() {
        let blocks = parse(
            ".. note:: beware\n   of it\n\n   really\n\n.. qmp-example::\n   :title: T\n\n   -> {}\n     x\n\nSo::\n\n  a\n   b\n\n.. _label:",
        );
        assert_eq!(
            blocks,
            [
                Block::Admonition {
                    title: "Note".to_owned(),
                    body: vec![paragraph("beware\nof it"), paragraph("really")]
                },
                Block::Literal {
                    title: Some("Example: T".to_owned()),
                    language: Some("QMP".to_owned()),
                    text: "-> {}\n  x".to_owned()
                },
                paragraph("So:"),
                Block::Literal {
                    title: None,
                    language: None,
                    text: "a\n b".to_owned()
                },
            ]
        );
    }

    #[test]
    fn headings_and_tables() {
        let blocks = parse("****\nTop\n****\n\nSub\n===\n\n==  ====\na   b\n==  ====\n1   two\n==  ====");
        assert_eq!(
            blocks,
            [
                Block::Heading(1, "Top".to_owned()),
                Block::Heading(2, "Sub".to_owned()),
                Block::Table {
                    header: true,
                    rows: vec![
                        vec!["a".to_owned(), "b".to_owned()],
                        vec!["1".to_owned(), "two".to_owned()]
                    ]
                },
            ]
        );
    }

    #[test]
    fn anything_ends() {
        for text in [
            "- ",
            "::",
            ".. x::",
            "    deep",
            "a\n  b\nc",
            "===\n",
            "- a\n b\n- c",
            "== ==",
            "1.",
            "- - - - x",
        ] {
            let _ = parse(text);
        }
        let deep: String = (0..200).map(|n| format!("{}- x\n", " ".repeat(2 * n))).collect();
        let _ = parse(&deep);
    }
}
