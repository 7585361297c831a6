//! Properties of the front end: an accepted schema survives printing, and nothing whatever makes it panic.

use std::fmt::Write;

use proptest::prelude::*;
use qapi_codegen::diagnostic::has_errors;
use qapi_codegen::introspect::{Options, introspect};
use qapi_codegen::render::{Style, human, json, short};
use qapi_codegen::source::SourceMap;
use qapi_codegen::{compile, print};

/// What a generated definition is made from: numbers that choose among what fits.
type Choices = Vec<u32>;

/// Draws numbers, and zeros when there are no more.
struct Draw<'a>(std::slice::Iter<'a, u32>);

impl Draw<'_> {
    fn below(&mut self, limit: usize) -> usize {
        self.0.next().map_or(0, |drawn| *drawn as usize % limit.max(1))
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 1
    }

    fn condition(&mut self, depth: usize) -> String {
        let symbol = format!("'CONFIG_{}'", self.below(4));
        if depth > 3 {
            return symbol;
        }
        match self.below(5) {
            0 => format!("{{ 'all': [ {}, {symbol} ] }}", self.condition(depth + 1)),
            1 => format!(
                "{{ 'any': [ {}, {} ] }}",
                self.condition(depth + 1),
                self.condition(depth + 1)
            ),
            2 => format!("{{ 'not': {} }}", self.condition(depth + 1)),
            _ => symbol,
        }
    }

    /// `, 'if': ..., 'features': ...`, or nothing of it.
    fn extras(&mut self, conditional: bool, special: bool) -> String {
        let mut out = String::new();
        if conditional && self.chance(4) {
            let _ = write!(out, ", 'if': {}", self.condition(0));
        }
        if self.chance(4) {
            let name = if special && self.chance(2) {
                "deprecated"
            } else {
                "new"
            };
            let _ = match self.chance(3) {
                true => write!(
                    out,
                    ", 'features': [ {{ 'name': '{name}', 'if': {} }} ]",
                    self.condition(1)
                ),
                false => write!(out, ", 'features': [ '{name}', 'other' ]"),
            };
        }
        out
    }

    fn type_ref(&mut self, structs: usize, enums: usize) -> String {
        let name = match self.below(8) {
            0 | 1 if structs > 0 => format!("'Struct{}'", self.below(structs)),
            2 if enums > 0 => format!("'Enum{}'", self.below(enums)),
            3 => "'any'".to_owned(),
            4 => "'uint8'".to_owned(),
            5 => "'int'".to_owned(),
            _ => "'str'".to_owned(),
        };
        if self.chance(4) {
            format!("[ {name} ]")
        } else {
            name
        }
    }

    /// Members whose names start with `prefix`, so that they clash with nobody's.
    fn members(&mut self, prefix: &str, structs: usize, enums: usize, conditional: bool) -> String {
        let count = self.below(4);
        let mut list = Vec::new();
        for index in 0..count {
            let star = if self.chance(2) { "*" } else { "" };
            let of = self.type_ref(structs, enums);
            let extras = self.extras(conditional, true);
            list.push(format!("'{star}{prefix}-{index}': {{ 'type': {of}{extras} }}"));
        }
        format!("{{ {} }}", list.join(", "))
    }
}

/// A schema that is right by the way it is made.
fn schema(definitions: &[Choices]) -> String {
    let structs = definitions.len();
    let enums = definitions.len();
    let mut out = String::new();
    for (index, choices) in definitions.iter().enumerate() {
        let mut draw = Draw(choices.iter());
        // Each index brings an enum and a struct, which anything may use, and one more thing.
        let values: Vec<String> = (0..=draw.below(3))
            .map(|value| format!("{{ 'name': 'v{value}'{} }}", draw.extras(true, true)))
            .collect();
        let _ = writeln!(
            out,
            "{{ 'enum': 'Enum{index}', 'data': [ {} ]{} }}",
            values.join(", "),
            draw.extras(true, false)
        );
        let base = match index.checked_sub(1) {
            Some(before) if draw.chance(3) => format!(", 'base': 'Struct{before}'"),
            _ => String::new(),
        };
        let members = draw.members(&format!("s{index}"), structs, enums, true);
        if draw.chance(2) {
            let _ = writeln!(
                out,
                "##\n# About structs.\n#\n# - One\n#   two\n##\n\n##\n# @Fine{index}:\n#\n# Text:\n#\n# - list\n#   goes on\n#\n# @a: first\n#     second\n#\n#       deeper\n#\n# Since: 1.{index}\n##\n{{ 'struct': 'Fine{index}', 'data': {{ 'a': 'str' }} }}"
            );
        }
        let _ = writeln!(
            out,
            "{{ 'struct': 'Struct{index}'{base}, 'data': {members}{} }}",
            draw.extras(true, false)
        );
        let _ = match draw.below(4) {
            0 => {
                let branch = draw.below(structs);
                let members = draw.members("u", structs, enums, true);
                let members = members[2..members.len() - 2].to_owned();
                let comma = if members.trim().is_empty() { "" } else { ", " };
                writeln!(
                    out,
                    "{{ 'union': 'Union{index}', 'base': {{ 'tag': 'Enum{index}'{comma}{members} }}, 'discriminator': 'tag', 'data': {{ 'v0': {{ 'type': 'Struct{branch}' }} }} }}"
                )
            }
            1 => writeln!(
                out,
                "{{ 'alternate': 'Alt{index}', 'data': {{ 'text': 'str', 'many': [ 'Enum{index}' ], 'whole': 'Struct{index}' }}{} }}",
                draw.extras(true, false)
            ),
            2 => {
                let members = draw.members("c", structs, enums, false);
                let flag =
                    ["", ", 'allow-oob': true", ", 'gen': false", ", 'coroutine': true"][draw.below(4)];
                writeln!(
                    out,
                    "{{ 'command': 'command-{index}', 'data': {members}, 'returns': 'Struct{index}'{flag}{} }}",
                    draw.extras(true, true)
                )
            }
            _ => writeln!(
                out,
                "{{ 'event': 'EVENT_{index}', 'data': 'Struct{index}', 'boxed': true{} }}",
                draw.extras(true, true)
            ),
        };
    }
    out
}

/// Everything that must hold for any input whatever.
fn total(bytes: &[u8]) {
    let mut sources = SourceMap::new();
    sources.insert("input.json", "input.json".to_owned(), Ok(bytes.to_vec()));
    let compiled = compile(&sources);
    assert_eq!(compiled.schema.is_none(), has_errors(&compiled.diagnostics));
    let length = sources
        .files()
        .map(|(_, source)| source.text().len())
        .sum::<usize>();
    for diagnostic in &compiled.diagnostics {
        for label in std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary) {
            // A place may be the one byte behind the end: a mark that is not there.
            assert!(label.span.start <= label.span.end && label.span.end as usize <= length + 3);
        }
        assert!(!diagnostic.message.is_empty());
    }
    let _ = human(&sources, &compiled.diagnostics, Style::Plain);
    let _ = short(&sources, &compiled.diagnostics);
    let _ = json(&sources, &compiled.diagnostics);
    if let Some(schema) = compiled.schema {
        let printed = print::print(&schema);
        let again = compile(&SourceMap::single("printed.json", printed.clone()));
        assert!(again.schema.is_some(), "{:?}\n{printed}", again.diagnostics);
    }
}

/// Pieces of which nonsense is made that gets past the lexer.
const PIECES: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "'struct'",
    "'union'",
    "'enum'",
    "'alternate'",
    "'command'",
    "'event'",
    "'data'",
    "'base'",
    "'discriminator'",
    "'if'",
    "'features'",
    "'type'",
    "'name'",
    "'include'",
    "'pragma'",
    "true",
    "false",
    "'Foo'",
    "'bar'",
    "'*baz'",
    "\n",
    "##\n",
    "# @foo:\n",
    "# text\n",
    "# Features:\n",
    "# Since: 1\n",
    "'str'",
    "'all'",
    "'not'",
    "'",
    "\"",
    "# ",
    "'boxed'",
    "'not-there.json'",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_accepted_schema_survives_printing(
        definitions in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..60), 1..12)
    ) {
        let text = schema(&definitions);
        let compiled = compile(&SourceMap::single("generated.json", text.clone()));
        prop_assert!(compiled.schema.is_some(), "{:?}\n{text}", compiled.diagnostics);
        let schema = compiled.schema.unwrap();
        let printed = print::print(&schema);
        let again = compile(&SourceMap::single("printed.json", printed.clone()));
        prop_assert!(again.schema.is_some(), "{:?}\n{printed}", again.diagnostics);
        let again = again.schema.unwrap();
        prop_assert_eq!(
            introspect(&schema, Options::EVERYTHING),
            introspect(&again, Options::EVERYTHING)
        );
        let none = |condition: &qapi_codegen::ir::Condition| condition.holds(&|symbol| symbol == "CONFIG_1");
        prop_assert_eq!(
            introspect(&schema, Options { unmask: true, holds: &none }),
            introspect(&again, Options { unmask: true, holds: &none })
        );
        prop_assert_eq!(print::print(&again), printed);
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        total(&bytes);
    }

    #[test]
    fn pieces_never_panic(pieces in prop::collection::vec(0..PIECES.len(), 0..80)) {
        let text: Vec<&str> = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        total(text.join(" ").as_bytes());
        total(text.concat().as_bytes());
    }

    #[test]
    fn damaged_schemas_never_panic(
        definitions in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..40), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6),
    ) {
        let mut bytes = schema(&definitions).into_bytes();
        for (place, byte, how) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        total(&bytes);
    }
}

/// The schemas of `tests/ui`, cut at every tenth place: what a person has typed so far.
#[test]
fn every_beginning_of_a_schema_is_read() {
    for kind in ["accept", "reject"] {
        for entry in std::fs::read_dir(format!("tests/ui/{kind}")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let bytes = std::fs::read(&path).unwrap();
                for end in (0..=bytes.len().min(800)).step_by(10) {
                    total(&bytes[..end]);
                }
            }
        }
    }
}
