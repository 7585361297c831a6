//! rST blocks as Markdown for rustdoc.

use std::fmt::Write;

use super::rst::{Block, parse};

/// Renders one text. `link` gives the target of a reference (`@name`), or nothing for a plain code span.
pub fn render(text: &str, link: &dyn Fn(&str) -> Option<String>) -> String {
    let mut lines = Vec::new();
    blocks(&parse(text), link, &mut lines);
    lines.join("\n")
}

type Link<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The lines of blocks, with an empty line between each two.
fn blocks(list: &[Block], link: Link<'_>, out: &mut Vec<String>) {
    for block in list {
        if !out.is_empty() {
            out.push(String::new());
        }
        one(block, link, out);
    }
}

fn nested(list: &[Block], link: Link<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    blocks(list, link, &mut lines);
    lines
}

fn one(block: &Block, link: Link<'_>, out: &mut Vec<String>) {
    match block {
        Block::Paragraph(text) => out.extend(inline(text, link).lines().map(line_start)),
        Block::Heading(level, text) => {
            out.push(format!("{} {}", "#".repeat((*level).min(6)), inline(text, link)));
        }
        Block::List { numbered, items } => {
            for (index, item) in items.iter().enumerate() {
                let lead = if *numbered {
                    format!("{}. ", index + 1)
                } else {
                    "- ".to_owned()
                };
                let inner = nested(item, link);
                // Items of several blocks are set apart.
                if index > 0 && item.len() > 1 {
                    out.push(String::new());
                }
                for (at, line) in inner.iter().enumerate() {
                    out.push(match (at, line.is_empty()) {
                        (0, _) => format!("{lead}{line}").trim_end().to_owned(),
                        (_, true) => String::new(),
                        _ => format!("{}{line}", " ".repeat(lead.len())),
                    });
                }
            }
        }
        Block::Literal { title, text, .. } => {
            if let Some(title) = title {
                out.push(format!("**{}**", inline(title, link)));
                out.push(String::new());
            }
            // Longer than any run of backticks within; `text` keeps rustdoc from running it.
            let fence = "`".repeat(longest_run(text).max(2) + 1);
            out.push(format!("{fence}text"));
            out.extend(text.lines().map(str::to_owned));
            out.push(fence);
        }
        Block::Admonition { title, body } => {
            out.push(format!("> **{}**", inline(title, link)));
            let inner = nested(body, link);
            if !inner.is_empty() {
                out.push(">".to_owned());
            }
            out.extend(inner.iter().map(|line| format!("> {line}").trim_end().to_owned()));
        }
        Block::Definition { term, body } => {
            let inner = nested(body, link);
            let term = inline(term, link);
            let term = line_start(&term);
            for (at, line) in inner.iter().enumerate() {
                out.push(match (at, line.is_empty()) {
                    (0, _) if simple(line) => format!("- {term}: {line}"),
                    (0, _) => format!("- {term}:\n\n  {line}"),
                    (_, true) => String::new(),
                    _ => format!("  {line}"),
                });
            }
            if inner.is_empty() {
                out.push(term);
            }
        }
        Block::Table { header, rows } => {
            let width = rows.iter().map(Vec::len).max().unwrap_or(0);
            let row = |cells: &[String]| {
                let mut line = "|".to_owned();
                for index in 0..width {
                    let cell = cells.get(index).map_or(String::new(), |cell| inline(cell, link));
                    let _ = write!(line, " {} |", cell.replace('|', "\\|"));
                }
                line
            };
            let (head, rest) = match rows.split_first() {
                Some((first, rest)) if *header => (row(first), rest),
                _ => (row(&[]), rows.as_slice()),
            };
            out.push(head);
            out.push(format!("|{}", " --- |".repeat(width)));
            out.extend(rest.iter().map(|cells| row(cells)));
        }
        Block::Quote(body) => {
            // Indentation alone means little in these texts; a quote of it would look like more.
            blocks(body, link, out);
        }
    }
}

/// Whether a line can follow a term on its line.
fn simple(line: &str) -> bool {
    !(line.starts_with("- ") || line.starts_with('>') || line.starts_with('`') || line.starts_with('#'))
}

fn longest_run(text: &str) -> usize {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Guards a line of a paragraph against what Markdown reads into its first characters.
fn line_start(line: &str) -> String {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let item = ["- ", "+ ", "* ", "# ", "> "]
        .iter()
        .any(|mark| line.starts_with(mark))
        || line.starts_with("---")
        || line.starts_with("===")
        || (line.starts_with('#') && line.trim_start_matches('#').starts_with(' '));
    if item {
        format!("\\{line}")
    } else if digits > 0
        && line
            .get(digits..)
            .is_some_and(|rest| rest.starts_with(". ") || rest.starts_with(") "))
    {
        let (number, rest) = line.split_at(digits);
        format!("{number}\\{rest}")
    } else {
        line.to_owned()
    }
}

/// Inline markup: code spans, references, roles, links, and what Markdown would misread.
fn inline(text: &str, link: Link<'_>) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = special(c, rest, &out, link);
        match taken {
            Some((shown, length)) => {
                out.push_str(&shown);
                rest = rest.get(length..).unwrap_or("");
            }
            None => {
                match c {
                    '<' | '[' | ']' => {
                        out.push('\\');
                        out.push(c);
                    }
                    // Within a word rST takes these as they are, and Markdown mostly does not.
                    '_' | '*' if !markup(c, &out, rest) => {
                        out.push('\\');
                        out.push(c);
                    }
                    _ => out.push(c),
                }
                rest = rest.get(c.len_utf8()..).unwrap_or("");
            }
        }
    }
    out
}

/// Whether a `*` opens or closes emphasis.
fn markup(c: char, before: &str, rest: &str) -> bool {
    if c == '_' {
        return false;
    }
    let next = rest.chars().find(|c| *c != '*');
    let last = before.chars().rev().find(|c| *c != '*');
    let opens = last.is_none_or(|c| c.is_whitespace() || "('\"[{<-/:".contains(c))
        && next.is_some_and(|c| !c.is_whitespace())
        && rest.trim_start_matches('*').contains('*');
    let closes = last.is_some_and(|c| !c.is_whitespace())
        && next.is_none_or(|c| !c.is_alphanumeric())
        && before.contains('*');
    opens || closes
}

/// What starts here, rendered, and how long it is.
fn special(c: char, rest: &str, before: &str, link: Link<'_>) -> Option<(String, usize)> {
    match c {
        '@' => reference(rest, before, link),
        '\\' => {
            let next = rest.chars().nth(1)?;
            let shown = if next.is_whitespace() {
                String::new()
            } else {
                format!("\\{next}")
            };
            Some((shown, 1 + next.len_utf8()))
        }
        '`' => {
            if let Some(body) = rest.strip_prefix("``") {
                let end = body.find("``")?;
                let code = body.get(..end)?.replace('\n', " ");
                return Some((code_span(&code), end + 4));
            }
            let body = rest.get(1..)?;
            let end = body.find('`')?;
            let inner = body.get(..end)?.replace('\n', " ");
            let mut length = end + 2;
            let tail = rest.get(length..).unwrap_or("");
            length += tail.len() - tail.trim_start_matches('_').len();
            Some((target(&inner, length > end + 2, link), length))
        }
        ':' => {
            // A role: `:ref:`, `:qapi:cmd:` before backticks.
            let end = rest.find('`')?;
            let role = rest.get(..end)?;
            let valid = role.len() > 2
                && role.ends_with(':')
                && role
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b':' || b == b'-' || b == b'_');
            if !valid || before.ends_with(char::is_alphanumeric) {
                return None;
            }
            let body = rest.get(end + 1..)?;
            let close = body.find('`')?;
            let inner = body.get(..close)?.replace('\n', " ");
            Some((target(&inner, false, link), end + close + 2))
        }
        'h' | 'f' if !before.ends_with(char::is_alphanumeric) => {
            let scheme = ["http://", "https://", "ftp://"]
                .into_iter()
                .find(|scheme| rest.starts_with(scheme))?;
            let end = rest
                .find(|c: char| c.is_whitespace() || "<>\"`".contains(c))
                .unwrap_or(rest.len());
            let url = rest.get(..end)?.trim_end_matches(['.', ',', ')', ';', ':']);
            (url.len() > scheme.len()).then(|| (format!("<{url}>"), url.len()))
        }
        _ => None,
    }
}

/// `text <target>` or a bare name in backticks.
fn target(inner: &str, external: bool, link: Link<'_>) -> String {
    if let Some((text, address)) = inner.strip_suffix('>').and_then(|inner| inner.rsplit_once('<')) {
        let text = text.trim();
        return if address.contains("://") {
            format!("[{text}](<{address}>)")
        } else {
            text.to_owned()
        };
    }
    let name = inner.rsplit('/').next().unwrap_or(inner);
    match link(name) {
        Some(target) if !external => format!("[{}]({target})", code_span(name)),
        _ => code_span(inner),
    }
}

fn code_span(code: &str) -> String {
    let fence = "`".repeat(longest_run(code) + 1);
    if code.starts_with('`') || code.ends_with('`') {
        format!("{fence} {code} {fence}")
    } else {
        format!("{fence}{code}{fence}")
    }
}

/// `@name`, unless it is in the middle of a word, as in an address of mail.
fn reference(rest: &str, before: &str, link: Link<'_>) -> Option<(String, usize)> {
    let body = rest.get(1..)?;
    let end = body
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .unwrap_or(body.len());
    // A dash at the end is punctuation.
    let name = body.get(..end)?.trim_end_matches('-');
    if name.is_empty() || before.ends_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    let shown = match link(name) {
        Some(target) => format!("[`{name}`]({target})"),
        None => format!("`{name}`"),
    };
    Some((shown, name.len() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        render(text, &|name| (name == "Foo").then(|| "super::Foo".to_owned()))
    }

    #[test]
    fn inline_markup() {
        for (text, expected) in [
            ("see @Foo and @bar-baz.", "see [`Foo`](super::Foo) and `bar-baz`."),
            ("a@b.c", "a@b.c"),
            ("``x`` *y* **z**", "`x` *y* **z**"),
            ("block_io 2*3 <tag> [1]", "block\\_io 2\\*3 \\<tag> \\[1\\]"),
            (":ref:`a label <b>`", "a label"),
            (":qapi:cmd:`Foo`", "[`Foo`](super::Foo)"),
            ("`text <https://x.y/z>`_", "[text](<https://x.y/z>)"),
            ("at https://x.y/z_1.", "at <https://x.y/z_1>."),
            ("\\*", "\\*"),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn whole_texts() {
        assert_eq!(
            plain("Text::\n\n  a ```b\n\n- one\n  two\n- three\n\n.. note:: n\n   m"),
            "Text:\n\n````text\na ```b\n````\n\n- one\n  two\n- three\n\n> **Note**\n>\n> n\n> m"
        );
    }
}
