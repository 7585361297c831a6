//! The answer of `query-qmp-schema`: the array that tells clients what a server has.
//!
//! The order of the array and the numbers that stand for names of types are QEMU's: commands and events
//! first, module after module, then types in the order in which they are first mentioned, each numbered
//! when it first is. Conditions take entries away but change no number.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use crate::ir::{
    Builtin, Condition, Definition, Element, Feature, Member, Schema, TypeId, TypeKind, TypeRef,
};

/// How the array is made.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Names of types as they are in the schema, rather than numbers.
    pub unmask: bool,
    /// Which conditions hold.
    pub holds: &'a dyn Fn(&Condition) -> bool,
}

impl Options<'_> {
    /// As servers send it: names masked, and every condition true, also those with `not`.
    pub const EVERYTHING: Options<'static> = Options {
        unmask: false,
        holds: &|_| true,
    };
}

/// The array as JSON, one line an entry.
pub fn introspect(schema: &Schema, options: Options<'_>) -> String {
    write(schema, options, None)
}

/// What begins and what ends the number of a mark, and what ends the marked text.
pub(crate) const MARKS: [char; 3] = ['\u{1}', '\u{2}', '\u{3}'];

/// The whole array with every condition true, where each text that stands under a condition (its comma
/// included) is marked with the condition's position in the list that comes along.
pub(crate) fn marked(schema: &Schema) -> (String, Vec<Condition>) {
    let conditions = RefCell::default();
    let text = write(schema, Options::EVERYTHING, Some(&conditions));
    (text, conditions.into_inner())
}

fn write(schema: &Schema, options: Options<'_>, marks: Option<&RefCell<Vec<Condition>>>) -> String {
    let mut writer = Writer {
        schema,
        options,
        marks,
        numbers: HashMap::new(),
        used: Vec::new(),
        known: HashSet::new(),
        out: String::new(),
        entries: 0,
    };
    writer.out.push('[');
    for (_, definition) in schema.definitions() {
        match definition {
            Definition::Command(id) => writer.command(id),
            Definition::Event(id) => writer.event(id),
            Definition::Type(_) => {}
        }
    }
    let mut at = 0;
    while let Some(used) = writer.used.get(at).copied() {
        writer.used_type(used);
        at += 1;
    }
    writer.out.push_str(if writer.entries == 0 { "]" } else { "\n]" });
    writer.out
}

/// A type that is mentioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Used {
    Type(TypeRef),
    /// The struct without members that stands for "no arguments" and the like.
    Empty,
}

struct Writer<'s, 'o> {
    schema: &'s Schema,
    options: Options<'o>,
    /// The conditions that marks stand for, if there are to be marks.
    marks: Option<&'o RefCell<Vec<Condition>>>,
    numbers: HashMap<&'s str, usize>,
    used: Vec<Used>,
    known: HashSet<Used>,
    out: String,
    entries: usize,
}

const EMPTY: &str = "q_empty";

impl<'s> Writer<'s, '_> {
    fn holds(&self, condition: &Condition) -> bool {
        condition.is_always() || (self.options.holds)(condition)
    }

    /// Begins what stands under a condition.
    fn open(&self, condition: &Condition, out: &mut String) {
        if let Some(marks) = self.marks
            && !condition.is_always()
        {
            let mut marks = marks.borrow_mut();
            let known = marks.iter().position(|mark| mark == condition);
            let number = known.unwrap_or_else(|| {
                marks.push(condition.clone());
                marks.len() - 1
            });
            let [begin, end, _] = MARKS;
            let _ = write!(out, "{begin}{number}{end}");
        }
    }

    /// Ends what stands under a condition.
    fn close(&self, condition: &Condition, out: &mut String) {
        if self.marks.is_some() && !condition.is_always() {
            out.push(MARKS[2]);
        }
    }

    /// The name of a type, or the number that stands for it.
    fn name(&mut self, name: &'s str) -> String {
        if self.options.unmask {
            return name.to_owned();
        }
        let next = self.numbers.len();
        self.numbers.entry(name).or_insert(next).to_string()
    }

    /// How a mention of a type is written. The type is put on the list of types to describe.
    fn mention(&mut self, used: Used) -> String {
        // Integers are not told apart.
        let used = match used {
            Used::Type(TypeRef {
                element: Element::Builtin(builtin),
                array,
            }) if builtin.is_integer() => Used::Type(TypeRef {
                element: Element::Builtin(Builtin::Int),
                array,
            }),
            other => other,
        };
        if self.known.insert(used) {
            self.used.push(used);
        }
        match used {
            Used::Empty => self.name(EMPTY),
            Used::Type(TypeRef { element, array: true }) => {
                let element = self.mention(Used::Type(TypeRef {
                    element,
                    array: false,
                }));
                format!("[{element}]")
            }
            Used::Type(TypeRef {
                element: Element::Builtin(builtin),
                ..
            }) => builtin.name().to_owned(),
            Used::Type(TypeRef {
                element: Element::Type(id),
                ..
            }) => self.name(&self.schema.type_of(id).name),
        }
    }

    fn mention_members(&mut self, id: Option<TypeId>) -> String {
        self.mention(id.map_or(Used::Empty, |id| Used::Type(TypeRef::named(id))))
    }

    fn entry(&mut self, condition: &Condition, name: &str, meta: &str, rest: &str, features: &[Feature]) {
        if !self.holds(condition) {
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        self.open(condition, &mut out);
        self.out = out;
        self.out.push_str(if self.entries == 0 { "\n" } else { ",\n" });
        self.entries += 1;
        self.out.push_str("{\"name\": ");
        string(&mut self.out, name);
        let _ = write!(self.out, ", \"meta-type\": \"{meta}\"{rest}");
        let mut out = std::mem::take(&mut self.out);
        out.push_str(&self.features(features));
        out.push('}');
        self.close(condition, &mut out);
        self.out = out;
    }

    fn features(&self, features: &[Feature]) -> String {
        let mut out = String::new();
        if features.is_empty() {
            return out;
        }
        out.push_str(", \"features\": [");
        let held = features.iter().filter(|feature| self.holds(&feature.condition));
        for (index, feature) in held.enumerate() {
            self.open(&feature.condition, &mut out);
            if index > 0 {
                out.push_str(", ");
            }
            string(&mut out, &feature.name);
            self.close(&feature.condition, &mut out);
        }
        out.push(']');
        out
    }

    fn command(&mut self, id: crate::ir::CommandId) {
        let command = self.schema.command(id);
        let mut rest = String::new();
        let arguments = self.mention_members(command.arguments);
        let returns = self.mention(command.returns.map_or(Used::Empty, Used::Type));
        rest.push_str(", \"arg-type\": ");
        string(&mut rest, &arguments);
        rest.push_str(", \"ret-type\": ");
        string(&mut rest, &returns);
        if command.allow_oob {
            rest.push_str(", \"allow-oob\": true");
        }
        self.entry(
            &command.condition,
            &command.name,
            "command",
            &rest,
            &command.features,
        );
    }

    fn event(&mut self, id: crate::ir::EventId) {
        let event = self.schema.event(id);
        let data = self.mention_members(event.data);
        let mut rest = ", \"arg-type\": ".to_owned();
        string(&mut rest, &data);
        self.entry(&event.condition, &event.name, "event", &rest, &event.features);
    }

    fn used_type(&mut self, used: Used) {
        let schema = self.schema;
        let mut rest = String::new();
        match used {
            Used::Empty => {
                let name = self.name(EMPTY);
                self.entry(&Condition::Always, &name, "object", ", \"members\": []", &[]);
            }
            Used::Type(TypeRef { element, array: true }) => {
                let inner = self.mention(Used::Type(TypeRef {
                    element,
                    array: false,
                }));
                rest.push_str(", \"element-type\": ");
                string(&mut rest, &inner);
                let condition = match element {
                    Element::Builtin(_) => &Condition::Always,
                    Element::Type(id) => &schema.type_of(id).condition,
                };
                self.entry(condition, &format!("[{inner}]"), "array", &rest, &[]);
            }
            Used::Type(TypeRef {
                element: Element::Builtin(builtin),
                ..
            }) => {
                let _ = write!(rest, ", \"json-type\": \"{}\"", builtin.json_type());
                self.entry(&Condition::Always, builtin.name(), "builtin", &rest, &[]);
            }
            Used::Type(TypeRef {
                element: Element::Type(id),
                ..
            }) => {
                let ty = schema.type_of(id);
                let name = self.name(&ty.name);
                let meta = match &ty.kind {
                    TypeKind::Enum(enumeration) => {
                        let held = |value: &&crate::ir::EnumValue| self.holds(&value.condition);
                        let values: Vec<_> = enumeration.values.iter().filter(held).collect();
                        rest.push_str(", \"members\": [");
                        for (index, value) in values.iter().enumerate() {
                            self.open(&value.condition, &mut rest);
                            rest.push_str(if index > 0 { ", {\"name\": " } else { "{\"name\": " });
                            string(&mut rest, &value.name);
                            rest.push_str(&self.features(&value.features));
                            rest.push('}');
                            self.close(&value.condition, &mut rest);
                        }
                        rest.push_str("], \"values\": [");
                        for (index, value) in values.iter().enumerate() {
                            self.open(&value.condition, &mut rest);
                            if index > 0 {
                                rest.push_str(", ");
                            }
                            string(&mut rest, &value.name);
                            self.close(&value.condition, &mut rest);
                        }
                        rest.push(']');
                        "enum"
                    }
                    TypeKind::Struct(_) => {
                        self.members(&schema.members(id), &mut rest);
                        "object"
                    }
                    TypeKind::Union(union) => {
                        self.members(&schema.members(id), &mut rest);
                        rest.push_str(", \"tag\": ");
                        string(&mut rest, &union.tag.name);
                        rest.push_str(", \"variants\": [");
                        let mut first = true;
                        for branch in &union.branches {
                            let named = self.mention_members(branch.branch_type);
                            if !self.holds(&branch.condition) {
                                continue;
                            }
                            self.open(&branch.condition, &mut rest);
                            rest.push_str(if first { "{\"case\": " } else { ", {\"case\": " });
                            first = false;
                            string(&mut rest, &branch.name);
                            rest.push_str(", \"type\": ");
                            string(&mut rest, &named);
                            rest.push('}');
                            self.close(&branch.condition, &mut rest);
                        }
                        rest.push(']');
                        "object"
                    }
                    TypeKind::Alternate(alternate) => {
                        rest.push_str(", \"members\": [");
                        let mut first = true;
                        for alternative in &alternate.alternatives {
                            let named = self.mention(Used::Type(alternative.alternative_type));
                            if !self.holds(&alternative.condition) {
                                continue;
                            }
                            self.open(&alternative.condition, &mut rest);
                            rest.push_str(if first { "{\"type\": " } else { ", {\"type\": " });
                            first = false;
                            string(&mut rest, &named);
                            rest.push('}');
                            self.close(&alternative.condition, &mut rest);
                        }
                        rest.push(']');
                        "alternate"
                    }
                };
                self.entry(&ty.condition, &name, meta, &rest, &ty.features);
            }
        }
    }

    fn members(&mut self, members: &[&'s Member], out: &mut String) {
        out.push_str(", \"members\": [");
        let mut first = true;
        for member in members {
            // Also a member that is not there is a mention: numbers do not depend on conditions.
            let named = self.mention(Used::Type(member.member_type));
            if !self.holds(&member.condition) {
                continue;
            }
            self.open(&member.condition, out);
            out.push_str(if first { "{\"name\": " } else { ", {\"name\": " });
            first = false;
            string(out, &member.name);
            out.push_str(", \"type\": ");
            string(out, &named);
            if member.optional {
                out.push_str(", \"default\": null");
            }
            out.push_str(&self.features(&member.features));
            out.push('}');
            self.close(&member.condition, out);
        }
        out.push(']');
    }
}

/// A JSON string. Names in a schema are printable ASCII, of which two characters need an escape.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceMap;

    fn array(text: &str, options: Options<'_>) -> String {
        let compiled = crate::compile(&SourceMap::single("test.json", text));
        introspect(&compiled.schema.unwrap(), options)
    }

    #[test]
    fn numbers_follow_first_mention() {
        let text = "{ 'command': 'a', 'data': { 'x': 'int8', 'y': ['So'] }, 'returns': 'So' }
            { 'struct': 'So', 'data': { '*z': 'str' } }";
        assert_eq!(
            array(text, Options::EVERYTHING),
            r#"[
{"name": "a", "meta-type": "command", "arg-type": "0", "ret-type": "1"},
{"name": "0", "meta-type": "object", "members": [{"name": "x", "type": "int"}, {"name": "y", "type": "[1]"}]},
{"name": "1", "meta-type": "object", "members": [{"name": "z", "type": "str", "default": null}]},
{"name": "int", "meta-type": "builtin", "json-type": "int"},
{"name": "[1]", "meta-type": "array", "element-type": "1"},
{"name": "str", "meta-type": "builtin", "json-type": "string"}
]"#
        );
    }

    #[test]
    fn conditions_take_entries_and_leave_numbers() {
        let text = "{ 'command': 'a', 'data': 'Da', 'boxed': true }
            { 'struct': 'Da', 'data': { 'x': { 'type': 'Ea', 'if': 'NO' }, 'y': 'Fa' } }
            { 'enum': 'Ea', 'data': [], 'if': 'NO' }
            { 'enum': 'Fa', 'data': [ { 'name': 'n', 'if': { 'not': 'NO' } } ] }";
        let none = |condition: &Condition| condition.holds(&|_| false);
        assert_eq!(
            array(
                text,
                Options {
                    unmask: false,
                    holds: &none
                }
            ),
            r#"[
{"name": "a", "meta-type": "command", "arg-type": "0", "ret-type": "1"},
{"name": "0", "meta-type": "object", "members": [{"name": "y", "type": "3"}]},
{"name": "1", "meta-type": "object", "members": []},
{"name": "3", "meta-type": "enum", "members": [{"name": "n"}], "values": ["n"]}
]"#
        );
    }
}
