//! Makes the same types twice from QEMU's schema: ours, and as somebody would write them with serde's derive,
//! `tag`, `flatten` and `untagged`. Only what the measured messages reach is made for serde.

use qapi_codegen::ir::{Builtin, Element, Member, Schema, TypeId, TypeKind, TypeRef};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=QAPI_CORPUS");
    println!("cargo::rustc-check-cfg=cfg(schema)");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("a build script has OUT_DIR"));
    let Some(corpus) = std::env::var_os("QAPI_CORPUS") else {
        return;
    };
    let path = PathBuf::from(corpus).join("schemas/qapi/qapi-schema.json");
    if !path.exists() {
        return;
    }
    println!("cargo::rustc-cfg=schema");
    qapi_codegen::Build::new(&path).types_only().name("ours").run();
    let compiled = qapi_codegen::compile(&qapi_codegen::fs::load(&path));
    let schema = compiled.schema.expect("QEMU's schema compiles");
    let mut writer = Writer {
        schema: &schema,
        done: BTreeSet::new(),
        text: String::new(),
    };
    for name in ["BlockdevOptions", "TransactionAction", "BlockDeviceInfo"] {
        writer.reach(schema.find_type(name).expect("QEMU's schema has it"));
    }
    std::fs::write(out.join("serde_types.rs"), writer.text).expect("OUT_DIR can be written");
}

struct Writer<'s> {
    schema: &'s Schema,
    done: BTreeSet<String>,
    text: String,
}

impl Writer<'_> {
    fn reach(&mut self, id: TypeId) {
        let ty = self.schema.type_of(id);
        if !self.done.insert(ty.name.clone()) {
            return;
        }
        let name = camel(&ty.name);
        let derive = "#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]";
        let mut body = String::new();
        match &ty.kind {
            TypeKind::Enum(found) => {
                for value in &found.values {
                    let _ = writeln!(
                        body,
                        "    #[serde(rename = {:?})] {},",
                        value.name,
                        camel(&value.name)
                    );
                }
                let _ = writeln!(self.text, "{derive}\npub enum {name} {{\n{body}}}");
            }
            TypeKind::Struct(found) => {
                if let Some(base) = found.base {
                    self.reach(base);
                    let base = camel(&self.schema.type_of(base).name);
                    let _ = writeln!(body, "    #[serde(flatten)] pub base: {base},");
                }
                for member in &found.members {
                    body.push_str(&self.field(member));
                }
                let _ = writeln!(self.text, "{derive}\npub struct {name} {{\n{body}}}");
            }
            TypeKind::Union(found) => {
                let only_tag = self.schema.base_is_only_tag(found);
                let branches = if only_tag {
                    name.clone()
                } else {
                    format!("{name}Branch")
                };
                let boxed = ty.is_recursive();
                for branch in &found.branches {
                    let variant = camel(&branch.name);
                    let payload = branch.branch_type.map(|id| {
                        self.reach(id);
                        let of = camel(&self.schema.type_of(id).name);
                        if boxed {
                            format!("(Box<{of}>)")
                        } else {
                            format!("({of})")
                        }
                    });
                    let payload = payload.unwrap_or_default();
                    let _ = writeln!(
                        body,
                        "    #[serde(rename = {:?})] {variant}{payload},",
                        branch.name
                    );
                }
                let tag = &found.tag.name;
                let _ = writeln!(
                    self.text,
                    "{derive}\n#[serde(tag = {tag:?})]\npub enum {branches} {{\n{body}}}"
                );
                if !only_tag {
                    let mut fields = String::new();
                    for member in self.schema.members(found.base) {
                        if member.name != *tag {
                            fields.push_str(&self.field(member));
                        }
                    }
                    let _ = writeln!(
                        self.text,
                        "{derive}\npub struct {name} {{\n{fields}    #[serde(flatten)] pub branch: {branches},\n}}"
                    );
                }
            }
            TypeKind::Alternate(found) => {
                for one in &found.alternatives {
                    let of = self.reference(one.alternative_type);
                    let _ = writeln!(body, "    {}(Box<{of}>),", camel(&one.name));
                }
                let _ = writeln!(
                    self.text,
                    "{derive}\n#[serde(untagged)]\npub enum {name} {{\n{body}}}"
                );
            }
        }
    }

    fn field(&mut self, member: &Member) -> String {
        let of = self.reference(member.member_type);
        let name: String = member
            .name
            .chars()
            .map(|letter| {
                if letter.is_ascii_alphanumeric() {
                    letter.to_ascii_lowercase()
                } else {
                    '_'
                }
            })
            .collect();
        // As our own types have it: a pointer where a type contains itself.
        let recursive = match member.member_type.element {
            Element::Type(id) => self.schema.type_of(id).is_recursive() && !member.member_type.array,
            Element::Builtin(_) => false,
        };
        let of = if recursive { format!("Box<{of}>") } else { of };
        if member.optional {
            format!(
                "    #[serde(rename = {:?}, default, skip_serializing_if = \"Option::is_none\")] pub m_{name}: Option<{of}>,\n",
                member.name
            )
        } else {
            format!("    #[serde(rename = {:?})] pub m_{name}: {of},\n", member.name)
        }
    }

    fn reference(&mut self, of: TypeRef) -> String {
        let element = match of.element {
            Element::Type(id) => {
                self.reach(id);
                camel(&self.schema.type_of(id).name)
            }
            Element::Builtin(builtin) => match builtin {
                Builtin::Str => "String",
                Builtin::Number => "f64",
                Builtin::Int | Builtin::Int64 => "i64",
                Builtin::Int8 => "i8",
                Builtin::Int16 => "i16",
                Builtin::Int32 => "i32",
                Builtin::Uint8 => "u8",
                Builtin::Uint16 => "u16",
                Builtin::Uint32 => "u32",
                Builtin::Uint64 | Builtin::Size => "u64",
                Builtin::Bool => "bool",
                Builtin::Any => "serde_json::Value",
                Builtin::Null => "()",
            }
            .to_owned(),
        };
        if of.array {
            format!("Vec<{element}>")
        } else {
            element
        }
    }
}

fn camel(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    let joined: String = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_ascii_uppercase() + rest
        })
        .collect();
    format!("T{joined}")
}
