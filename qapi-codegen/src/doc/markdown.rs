//! The rST subset that schemas use, rendered as Markdown for rustdoc.

/// Renders one text. `link` gives the target of a reference (`@name`), or nothing for a plain code span.
pub fn render(text: &str, link: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        references(line, link, &mut out);
    }
    out
}

/// Copies a line, with `@name` turned into a code span or a link.
fn references(line: &str, link: &dyn Fn(&str) -> Option<String>, out: &mut String) {
    let mut rest = line;
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let name_end = after[1..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
            .map_or(after.len(), |end| end + 1);
        let name = &after[1..name_end];
        if name.is_empty() || before.ends_with(|c: char| c.is_alphanumeric()) {
            out.push('@');
            rest = &after[1..];
            continue;
        }
        match link(name) {
            Some(target) => out.push_str(&format!("[`{name}`]({target})")),
            None => out.push_str(&format!("`{name}`")),
        }
        rest = &after[name_end..];
    }
    out.push_str(rest);
}
