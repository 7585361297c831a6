//! A checked schema as schema text.
//!
//! Everything comes out in one file, with the pragmas that its names need: what the text compiles to is the
//! same schema, but for places and modules. Tests stand on that; formatting a schema for its author is
//! another matter, since comments and layout are not in the IR.

use std::fmt::Write;

use crate::doc::fits;
use crate::ir::{
    Alternate, Command, Condition, Definition, Doc, Element, Event, Feature, Implicit, Member, Schema,
    SectionKind, Type, TypeId, TypeKind, TypeRef,
};

/// The whole schema.
pub fn print(schema: &Schema) -> String {
    let mut printer = Printer {
        schema,
        out: String::new(),
    };
    // Free-form documentation cannot stand right before a definition, but it can before a pragma.
    let mut free_form = false;
    for (_, module) in schema.modules() {
        for text in &module.free_docs {
            free_form = true;
            printer.comment(&[(String::new(), text.text.to_string())]);
        }
    }
    if free_form {
        printer.out.push_str("{ 'pragma': {} }\n");
    }
    printer.pragmas();
    for (_, definition) in schema.definitions() {
        printer.definition(definition);
    }
    printer.out
}

struct Printer<'s> {
    schema: &'s Schema,
    out: String,
}

impl Printer<'_> {
    fn pragmas(&mut self) {
        let schema = self.schema;
        let mut commands: Vec<&str> = Vec::new();
        let mut returns: Vec<&str> = Vec::new();
        let mut documentation: Vec<&str> = Vec::new();
        let mut members: Vec<&str> = Vec::new();
        for (_, command) in schema.commands() {
            if command.name.contains('_') {
                commands.push(&command.name);
            }
            if command.returns.is_some() {
                returns.push(&command.name);
            }
            if command.doc.is_some() {
                documentation.push(&command.name);
            }
        }
        documentation.extend(
            schema
                .events()
                .filter(|(_, event)| event.doc.is_some())
                .map(|(_, event)| &*event.name),
        );
        for (id, ty) in schema.types().filter(|(_, ty)| ty.is_explicit()) {
            if ty.doc.is_some() {
                documentation.push(&ty.name);
            }
            let unusual = |name: &str| name.contains(|c: char| c.is_ascii_uppercase() || c == '_');
            let found = match &ty.kind {
                TypeKind::Enum(found) => found.values.iter().any(|value| unusual(&value.name)),
                TypeKind::Struct(_) => schema.own_members(id).iter().any(|member| unusual(&member.name)),
                TypeKind::Union(union) => schema
                    .own_members(union.base)
                    .iter()
                    .any(|member| unusual(&member.name)),
                TypeKind::Alternate(_) => false,
            };
            if found {
                members.push(&ty.name);
            }
        }
        for (name, list) in [
            ("command-name-exceptions", commands),
            ("command-returns-exceptions", returns),
            ("documentation-exceptions", documentation),
            ("member-name-exceptions", members),
        ] {
            if !list.is_empty() {
                let list: Vec<String> = list.iter().map(|name| quoted(name)).collect();
                let _ = writeln!(
                    self.out,
                    "{{ 'pragma': {{ '{name}': [ {} ] }} }}",
                    list.join(", ")
                );
            }
        }
    }

    fn definition(&mut self, definition: Definition) {
        match definition {
            Definition::Type(id) => {
                let ty = self.schema.type_of(id);
                if ty.is_explicit() {
                    self.documentation(&ty.name, ty.doc.as_ref());
                    self.type_definition(ty);
                }
            }
            Definition::Command(id) => {
                let command = self.schema.command(id);
                self.documentation(&command.name, command.doc.as_ref());
                self.command(command);
            }
            Definition::Event(id) => {
                let event = self.schema.event(id);
                self.documentation(&event.name, event.doc.as_ref());
                self.event(event);
            }
        }
    }

    fn type_definition(&mut self, ty: &Type) {
        let _ = write!(self.out, "{{ '{}': {}", ty.kind_name(), quoted(&ty.name));
        match &ty.kind {
            TypeKind::Enum(enumeration) => {
                if let Some(prefix) = &enumeration.prefix {
                    let _ = write!(self.out, ",\n  'prefix': {}", quoted(prefix));
                }
                let values: Vec<String> = enumeration
                    .values
                    .iter()
                    .map(|value| {
                        if value.condition.is_always() && value.features.is_empty() {
                            quoted(&value.name)
                        } else {
                            let mut text = format!("{{ 'name': {}", quoted(&value.name));
                            text.push_str(&extras(&value.condition, &value.features));
                            text + " }"
                        }
                    })
                    .collect();
                let _ = write!(self.out, ",\n  'data': [ {} ]", values.join(",\n            "));
            }
            TypeKind::Struct(found) => {
                if let Some(base) = found.base {
                    let _ = write!(
                        self.out,
                        ",\n  'base': {}",
                        quoted(&self.schema.type_of(base).name)
                    );
                }
                let members = self.members(&found.members);
                let _ = write!(self.out, ",\n  'data': {members}");
            }
            TypeKind::Union(union) => {
                let base = self.data(union.base);
                let branches: Vec<String> = union
                    .branches
                    .iter()
                    .filter(|branch| branch.origin.is_some())
                    .map(|branch| {
                        let name = branch
                            .branch_type
                            .map_or("q_empty", |id| &self.schema.type_of(id).name);
                        entry(&branch.name, &quoted(name), &branch.condition, &[])
                    })
                    .collect();
                let _ = write!(
                    self.out,
                    ",\n  'base': {base},\n  'discriminator': {},\n  'data': {{ {} }}",
                    quoted(&union.tag.name),
                    branches.join(",\n            ")
                );
            }
            TypeKind::Alternate(alternate) => {
                let alternatives = self.alternatives(alternate);
                let _ = write!(self.out, ",\n  'data': {{ {alternatives} }}");
            }
        }
        self.out.push_str(&extras(&ty.condition, &ty.features));
        self.out.push_str(" }\n");
    }

    fn alternatives(&self, alternate: &Alternate) -> String {
        let list: Vec<String> = alternate
            .alternatives
            .iter()
            .map(|found| {
                entry(
                    &found.name,
                    &self.type_ref(found.alternative_type),
                    &found.condition,
                    &[],
                )
            })
            .collect();
        list.join(",\n            ")
    }

    fn members(&self, members: &[Member]) -> String {
        if members.is_empty() {
            return "{}".to_owned();
        }
        let list: Vec<String> = members
            .iter()
            .map(|member| {
                let name = if member.optional {
                    format!("*{}", member.name)
                } else {
                    member.name.clone()
                };
                entry(
                    &name,
                    &self.type_ref(member.member_type),
                    &member.condition,
                    &member.features,
                )
            })
            .collect();
        format!("{{ {} }}", list.join(",\n            "))
    }

    fn type_ref(&self, of: TypeRef) -> String {
        let name = match of.element {
            Element::Builtin(builtin) => quoted(builtin.name()),
            Element::Type(id) => quoted(&self.schema.type_of(id).name),
        };
        if of.array { format!("[ {name} ]") } else { name }
    }

    /// Members in place, or the name of the type that has them.
    fn data(&self, id: TypeId) -> String {
        let ty = self.schema.type_of(id);
        match ty.implicit {
            Some(Implicit::Arguments(_) | Implicit::EventData(_) | Implicit::Base(_)) => {
                self.members(self.schema.own_members(id))
            }
            _ => quoted(&ty.name),
        }
    }

    fn command(&mut self, command: &Command) {
        let _ = write!(self.out, "{{ 'command': {}", quoted(&command.name));
        if let Some(arguments) = command.arguments {
            let data = self.data(arguments);
            let _ = write!(self.out, ",\n  'data': {data}");
        }
        if let Some(returns) = command.returns {
            let returns = self.type_ref(returns);
            let _ = write!(self.out, ",\n  'returns': {returns}");
        }
        for (flag, set, value) in [
            ("boxed", command.boxed && command.arguments.is_some(), true),
            ("gen", !command.generate, false),
            ("success-response", !command.success_response, false),
            ("allow-oob", command.allow_oob, true),
            ("allow-preconfig", command.allow_preconfig, true),
            ("coroutine", command.coroutine, true),
        ] {
            if set {
                let _ = write!(self.out, ",\n  '{flag}': {value}");
            }
        }
        self.out.push_str(&extras(&command.condition, &command.features));
        self.out.push_str(" }\n");
    }

    fn event(&mut self, event: &Event) {
        let _ = write!(self.out, "{{ 'event': {}", quoted(&event.name));
        if let Some(data) = event.data {
            let data = self.data(data);
            let _ = write!(self.out, ",\n  'data': {data}");
            if event.boxed {
                self.out.push_str(",\n  'boxed': true");
            }
        }
        self.out.push_str(&extras(&event.condition, &event.features));
        self.out.push_str(" }\n");
    }

    fn documentation(&mut self, name: &str, doc: Option<&Doc>) {
        let Some(doc) = doc else {
            self.out.push('\n');
            return;
        };
        let mut parts = vec![(String::new(), format!("@{name}:"))];
        let mut features = false;
        for section in &doc.sections {
            let tag = match &section.kind {
                SectionKind::Plain => String::new(),
                SectionKind::Member(name) => format!("@{name}:"),
                SectionKind::Feature(name) => {
                    if !features {
                        features = true;
                        parts.push((String::new(), "Features:".to_owned()));
                    }
                    format!("@{name}:")
                }
                SectionKind::Returns => "Returns:".to_owned(),
                SectionKind::Errors => "Errors:".to_owned(),
                SectionKind::Since => "Since:".to_owned(),
                SectionKind::Todo => "TODO:".to_owned(),
            };
            parts.push((tag, section.text.text.to_string()));
        }
        self.comment(&parts);
    }

    /// A comment of parts, each a tag and its text.
    fn comment(&mut self, parts: &[(String, String)]) {
        self.out.push_str("\n##\n");
        for (index, (tag, text)) in parts.iter().enumerate() {
            if index > 0 {
                self.out.push_str("#\n");
            }
            if tag.is_empty() {
                for line in text.lines() {
                    self.line("", line);
                }
                continue;
            }
            let mut lines = text.lines();
            let first = lines.next().unwrap_or("");
            let beside = format!("{tag} {first}");
            // Lines below lose the indentation that they have in common; the first counts among them
            // only if it is not beside the tag.
            let indented = lines.clone().any(|line| !line.is_empty())
                && lines
                    .clone()
                    .filter(|line| !line.is_empty())
                    .all(|line| line.starts_with(' '));
            if fits(&beside) && !indented && !first.starts_with(' ') {
                self.line("", beside.trim_end());
            } else {
                self.line("", tag);
                self.line(" ", first);
            }
            for line in lines {
                self.line(" ", line);
            }
        }
        self.out.push_str("##\n");
    }

    fn line(&mut self, indent: &str, text: &str) {
        if text.is_empty() {
            self.out.push_str("#\n");
        } else {
            let _ = writeln!(self.out, "# {indent}{text}");
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\"))
}

/// A member of an object that names a type, in the long form where it takes one.
fn entry(name: &str, type_ref: &str, condition: &Condition, features: &[Feature]) -> String {
    if condition.is_always() && features.is_empty() {
        format!("{}: {type_ref}", quoted(name))
    } else {
        format!(
            "{}: {{ 'type': {type_ref}{} }}",
            quoted(name),
            extras(condition, features)
        )
    }
}

/// `, 'if': ..., 'features': ...`
fn extras(condition: &Condition, features: &[Feature]) -> String {
    let mut out = String::new();
    if !condition.is_always() {
        let _ = write!(out, ", 'if': {}", condition_text(condition));
    }
    if !features.is_empty() {
        let list: Vec<String> = features
            .iter()
            .map(|feature| {
                if feature.condition.is_always() {
                    quoted(&feature.name)
                } else {
                    let condition = condition_text(&feature.condition);
                    format!("{{ 'name': {}, 'if': {condition} }}", quoted(&feature.name))
                }
            })
            .collect();
        let _ = write!(out, ", 'features': [ {} ]", list.join(", "));
    }
    out
}

fn condition_text(condition: &Condition) -> String {
    let list = |conditions: &[Condition]| {
        conditions
            .iter()
            .map(condition_text)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match condition {
        // No condition is never printed; as an operand it would be a mistake of ours.
        Condition::Always => "'ALWAYS'".to_owned(),
        Condition::Symbol(name) => quoted(name),
        Condition::All(all) => format!("{{ 'all': [ {} ] }}", list(all)),
        Condition::Any(any) => format!("{{ 'any': [ {} ] }}", list(any)),
        Condition::Not(not) => format!("{{ 'not': {} }}", condition_text(not)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;
    use crate::source::SourceMap;

    #[test]
    fn printed_text_is_the_same_schema() {
        let text = r"
            { 'pragma': { 'member-name-exceptions': [ 'Kind' ] } }
            ##
            # @Kind:
            #
            # @a_b:
            #     first
            #       deeper
            #
            # @off: second.
            #     Third.
            #
            # Features:
            #
            # @good: it is
            #
            # Since: 1.0
            ##
            { 'enum': 'Kind', 'data': [ 'a_b', { 'name': 'off', 'if': 'NO', 'features': [ 'good' ] } ] }
            { 'union': 'Any', 'base': { 'kind': 'Kind' }, 'discriminator': 'kind', 'data': { 'off': 'Off' } }
            { 'struct': 'Off', 'data': { '*x': { 'type': [ 'Alt' ], 'if': { 'any': [ 'A', { 'not': 'B' } ] } } } }
            { 'alternate': 'Alt', 'data': { 's': 'str', 'n': 'null', 'l': [ 'int8' ] } }
            { 'command': 'go', 'data': { 'x': 'int' }, 'returns': [ 'Any' ], 'allow-oob': true }
            { 'event': 'GONE', 'data': 'Any', 'boxed': true, 'features': [ { 'name': 'f', 'if': 'F' } ] }
        ";
        let schema = compile(&SourceMap::single("a.json", text)).schema.unwrap();
        let printed = print(&schema);
        let again = compile(&SourceMap::single("a.json", printed.clone()));
        assert!(again.diagnostics.is_empty(), "{:?}\n{printed}", again.diagnostics);
        assert_eq!(print(&again.schema.unwrap()), printed);
    }
}
