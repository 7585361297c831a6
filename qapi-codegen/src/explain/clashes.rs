//! Rules about names that meet.

use super::Rule;
use crate::codes;

/// The rules, by their codes.
pub(super) const RULES: &[Rule] = &[
    Rule {
        code: codes::REDEFINED,
        text: "Types, commands and events share their names: each name is defined once.",
        wrong: "{ 'struct': 'Disk', 'data': {} }
{ 'enum': 'Disk', 'data': [ 'raw' ] }",
        right: "{ 'struct': 'Disk', 'data': {} }
{ 'enum': 'DiskFormat', 'data': [ 'raw' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::REDEFINED_BUILTIN,
        text: "The names of built-in types are taken.",
        wrong: "{ 'command': 'size' }",
        right: "{ 'command': 'disk-size' }",
        is_schema: true,
    },
    Rule {
        code: codes::MEMBER_CLASH,
        text: "An object has each member once, counting those of its base and, for a union, those of the branch. Names count as the same when they are so in generated code, where `-` and `.` become `_`. An optional and a required member cannot share a name either.",
        wrong: "{ 'struct': 'Node', 'data': { 'name': 'str' } }
{ 'struct': 'Disk', 'base': 'Node', 'data': { 'name': 'str' } }",
        right: "{ 'struct': 'Node', 'data': { 'name': 'str' } }
{ 'struct': 'Disk', 'base': 'Node', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::VALUE_CLASH,
        text: "An enum has each value once, also when `-` and `_` are not told apart.",
        wrong: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2', 'raw' ] }",
        right: "{ 'enum': 'Format', 'data': [ 'raw', 'qcow2' ] }",
        is_schema: true,
    },
    Rule {
        code: codes::MANGLED_CLASH,
        text: "Two definitions of the same kind need names that differ also in generated code, where everything but letters and digits becomes `_`.",
        wrong: "{ 'pragma': { 'command-name-exceptions': [ 'open_file' ] } }
{ 'command': 'open_file' }
{ 'command': 'open-file' }",
        right: "{ 'command': 'open-file' }",
        is_schema: true,
    },
    Rule {
        code: codes::ALTERNATIVE_CLASH,
        text: "An alternate has each name once.",
        wrong: "{ 'alternate': 'Reference', 'data': { '__a.b_c': 'str', '__a-b_c': 'Disk' } }
{ 'struct': 'Disk', 'data': {} }",
        right: "{ 'alternate': 'Reference', 'data': { 'name': 'str', 'disk': 'Disk' } }
{ 'struct': 'Disk', 'data': {} }",
        is_schema: true,
    },
];
