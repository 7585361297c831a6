//! From names of a schema to names of Rust.
//!
//! A schema's names have `-`, `.`, leading digits and downstream prefixes, and two that differ there may
//! become one in Rust. [`Scope`] keeps them apart; the wire name is always kept beside.

use std::collections::HashSet;

/// Words that cannot be names, and that `r#` makes into some.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "static", "struct", "trait",
    "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Words that stay keywords even behind `r#`.
const HARD_KEYWORDS: &[&str] = &["self", "Self", "super", "crate", "_"];

/// Names that are taken in one place of the generated code.
#[derive(Debug, Default)]
pub(super) struct Scope {
    taken: HashSet<String>,
}

impl Scope {
    /// A scope in which some names are taken from the start.
    pub(super) fn with(names: &[&str]) -> Scope {
        Scope {
            taken: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// Whether the name is taken.
    pub(super) fn has(&self, name: &str) -> bool {
        self.taken.contains(name)
    }

    /// The name itself, or if it is taken the first of `name2`, `name3` ... that is not.
    pub(super) fn claim(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        let mut number = 2;
        // `Self_` is no longer alone, and `Self_2` is no camel case.
        let name = stem(name);
        while !self.taken.insert(candidate.clone()) {
            // A name that ends in a digit would read as another number.
            let gap = if name.ends_with(|last: char| last.is_ascii_digit()) {
                "_"
            } else {
                ""
            };
            candidate = format!("{name}{gap}{number}");
            number += 1;
        }
        candidate
    }
}

/// `block-dirty-bitmap-add`, `BlockInfo`, `x86-64` as a type or a variant: `BlockDirtyBitmapAdd`, ...
pub(super) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split(['-', '_', '.']).filter(|word| !word.is_empty()) {
        let mut letters = word.chars();
        let Some(first) = letters.next() else { continue };
        // `1-2` and `12` stay apart, and `1_2` is camel case.
        if first.is_ascii_digit() && out.ends_with(|last: char| last.is_ascii_digit()) {
            out.push('_');
        }
        out.push(first.to_ascii_uppercase());
        let rest = letters.as_str();
        // `SHUTDOWN` is a shout, not an acronym among other letters.
        if !word.bytes().any(|byte| byte.is_ascii_lowercase()) {
            out.push_str(&rest.to_ascii_lowercase());
        } else {
            out.push_str(rest);
        }
    }
    legal(out)
}

/// The name of a type: only the first letter and the separators change, `QCryptoTLSCreds` stays.
pub(super) fn type_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split(['-', '_', '.']).filter(|word| !word.is_empty()) {
        let mut letters = word.chars();
        let Some(first) = letters.next() else { continue };
        if first.is_ascii_digit() && out.ends_with(|last: char| last.is_ascii_digit()) {
            out.push('_');
        }
        out.push(first.to_ascii_uppercase());
        out.push_str(letters.as_str());
    }
    legal(out)
}

/// `job-id`, `fooBar`, `2g` as a field, a method or a module: `job_id`, `foo_bar`, `_2g`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before = '_';
    for letter in name.chars() {
        match letter {
            '-' | '.' | '_' => {
                // Two in a row are not snake case, but at the front they are.
                if !out.ends_with('_') || out.bytes().all(|byte| byte == b'_') {
                    out.push('_');
                }
            }
            'A'..='Z' => {
                if before.is_ascii_lowercase() {
                    out.push('_');
                }
                out.push(letter.to_ascii_lowercase());
            }
            _ => out.push(letter),
        }
        before = letter;
    }
    legal(out)
}

fn legal(mut name: String) -> String {
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    if HARD_KEYWORDS.contains(&name.as_str()) {
        name.push('_');
    }
    name
}

/// What a name that is to be continued begins with: the underscore of `self_` is no longer needed.
pub(super) fn stem(name: &str) -> &str {
    match name.strip_suffix('_') {
        Some(stem) if HARD_KEYWORDS.contains(&stem) => stem,
        _ => name,
    }
}

/// The identifier of a legal name.
pub(super) fn ident(name: &str) -> proc_macro2::Ident {
    let span = proc_macro2::Span::call_site();
    if KEYWORDS.contains(&name) {
        proc_macro2::Ident::new_raw(name, span)
    } else {
        proc_macro2::Ident::new(name, span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camel_case() {
        for (name, rust) in [
            ("block-dirty-bitmap-add", "BlockDirtyBitmapAdd"),
            ("x86_64", "X86_64"),
            ("2.3", "_2_3"),
            ("23", "_23"),
            ("BLOCK_JOB_COMPLETED", "BlockJobCompleted"),
            ("__org.qemu_x-Enum", "OrgQemuXEnum"),
            ("self", "Self_"),
            ("fooBar", "FooBar"),
            ("avx512-4vnniw", "Avx512_4vnniw"),
        ] {
            assert_eq!(camel(name), rust);
        }
        assert_eq!(type_name("QCryptoTLSCreds"), "QCryptoTLSCreds");
        assert_eq!(type_name("SEV"), "SEV");
    }

    #[test]
    fn snake_case() {
        for (name, rust) in [
            ("job-id", "job_id"),
            ("fooBar", "foo_bar"),
            ("2g", "_2g"),
            ("self", "self_"),
            ("__org.qemu_x-member1", "__org_qemu_x_member1"),
            ("CamelCase", "camel_case"),
            ("bps_max", "bps_max"),
            ("a.-b", "a_b"),
        ] {
            assert_eq!(snake(name), rust);
        }
        assert_eq!(ident("type").to_string(), "r#type");
    }

    #[test]
    fn clashes_are_numbered() {
        let mut scope = Scope::with(&["Unknown"]);
        assert_eq!(scope.claim("foo_bar"), "foo_bar");
        assert_eq!(scope.claim("foo_bar"), "foo_bar2");
        assert_eq!(scope.claim("Unknown"), "Unknown2");
        assert_eq!(scope.claim("a1"), "a1");
        assert_eq!(scope.claim("a1"), "a1_2");
        assert_eq!(scope.claim("Self_"), "Self_");
        assert_eq!(scope.claim("Self_"), "Self2");
    }
}
