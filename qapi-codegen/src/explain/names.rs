//! Rules about names.

use super::Rule;
use crate::codes;

/// The rules, by their codes.
pub(super) const RULES: &[Rule] = &[
    Rule {
        code: codes::INVALID_NAME,
        text: "A name starts with a letter and goes on with letters, digits, `-` and `_`. Values of enums may start with a digit. A downstream extension puts `__`, its reversed domain name and `_` in front.",
        wrong: "{ 'command': 'open file' }",
        right: "{ 'command': 'open-file' }
{ 'command': '__com.example_open-file' }",
        is_schema: true,
    },
    Rule {
        code: codes::NAME_CASE,
        text: "Types are CamelCase, commands are lower case with `-`, events are UPPER CASE with `_`. Old commands with `_` can be listed in pragma 'command-name-exceptions'.",
        wrong: "{ 'command': 'openFile' }",
        right: "{ 'command': 'open-file' }",
        is_schema: true,
    },
    Rule {
        code: codes::MEMBER_CASE,
        text: "Members, values, alternatives and features are lower case with `-` between words. Types whose members are otherwise can be listed in pragma 'member-name-exceptions'; arguments, alternatives and features have no exceptions.",
        wrong: "{ 'struct': 'Disk', 'data': { 'readOnly': 'bool' } }",
        right: "{ 'struct': 'Disk', 'data': { 'read-only': 'bool' } }",
        is_schema: true,
    },
    Rule {
        code: codes::RESERVED_NAME,
        text: "Generated code keeps some names for itself: those that start with `q_` or `q-`, members `u` and those that start with `has-` or `has_`, and types that end in `List`.",
        wrong: "{ 'struct': 'Disk', 'data': { 'has-backing': 'bool' } }",
        right: "{ 'struct': 'Disk', 'data': { 'backed': 'bool' } }",
        is_schema: true,
    },
    Rule {
        code: codes::UNKNOWN_TYPE,
        text: "Every type that is used must be built in (str, number, int, int8 to int64, uint8 to uint64, size, bool, any, null, QType) or defined somewhere in the schema, before or after its use. Commands and events are no types.",
        wrong: "{ 'struct': 'Disk', 'data': { 'path': 'string' } }",
        right: "{ 'struct': 'Disk', 'data': { 'path': 'str' } }",
        is_schema: true,
    },
    Rule {
        code: codes::ARRAY_NAME_AS_TYPE,
        text: "Arrays have names like `strList` in generated code, which happen to be accepted as types. Write the array instead. This is a warning.",
        wrong: "{ 'struct': 'Disk', 'data': { 'paths': 'strList' } }",
        right: "{ 'struct': 'Disk', 'data': { 'paths': [ 'str' ] } }",
        is_schema: true,
    },
];
